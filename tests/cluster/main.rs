//! Tests on real Docker.
