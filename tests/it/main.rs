//! Tests that need no Docker.

mod api;
mod access;
mod cli;
mod network;
mod storage;
mod support;
mod tidy;
