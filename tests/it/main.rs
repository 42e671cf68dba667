//! Tests that need no Docker.

mod cli;
mod network;
mod storage;
mod tidy;
