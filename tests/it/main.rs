//! Tests that need no Docker.

mod access;
mod api;
mod cli;
mod network;
mod storage;
mod support;
mod tidy;
