//! minik: a local Kubernetes in one binary.
//!
//! Folders say where code runs, and every layer only looks down:
//!
//! ```text
//! main > cli > cluster, roles > edge, node, controlplane > client > api, pki, config, metrics, sys, rt
//! ```
//!
//! Each layer is a crate, and each part of the control plane: what it may import is what its `Cargo.toml` names, and the `tidy` test
//! holds that against this table. `docs/ARCHITECTURE.md` tells the story behind it.

pub use {
    api, apiserver, cli, client, cluster, config, controllers, edge, metrics, node, pki, roles, rt,
    scheduler, storage, sys,
};

pub use cluster::Cluster;
