//! Tests that need no Docker.

mod access;
mod api;
mod cli;
mod controllers;
mod decoders;
mod licences;
mod network;
mod servers;
mod storage;
mod support;
mod tidy;
