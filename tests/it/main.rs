//! Tests that need no Docker.

mod tidy;
