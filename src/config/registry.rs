//! What a registry's container is told when it is made.

use serde::{Deserialize, Serialize};

/// It travels as JSON in the environment variable [`RegistryConfig::ENV`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryConfig {
    /// The port to listen on.
    pub port: u16,
}

impl RegistryConfig {
    pub const ENV: &'static str = "MINIK_REGISTRY";
    /// Where its images are; a volume.
    pub const DIR: &'static str = "/var/lib/minik-registry";
}
