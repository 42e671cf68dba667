//! minik: a local Kubernetes in one binary.
//!
//! Folders say where code runs, and every layer only looks down:
//!
//! ```text
//! main > cli > cluster, roles > edge, node, controlplane > client > api, pki, config, metrics, sys, rt
//! ```
//!
//! The `tidy` test enforces this table; `docs/ARCHITECTURE.md` tells the story behind it.

pub mod api;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
pub mod controlplane;
pub mod edge;
pub mod metrics;
pub mod node;
pub mod pki;
pub mod roles;
pub mod rt;
pub mod sys;

pub use cluster::Cluster;
