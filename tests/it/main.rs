//! Tests that need no Docker.

mod network;
mod storage;
mod tidy;
