//! Tests that need no Docker.

mod network;
mod tidy;
