//! Tests that need no Docker.

mod access;
mod api;
mod cli;
mod controllers;
mod decoders;
mod histories;
#[path = "../history/mod.rs"]
mod history;
mod licences;
mod network;
mod servers;
mod storage;
mod support;
mod tidy;
