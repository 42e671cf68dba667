//! From a Pod's definition to what the runtime is told: sandbox and container configurations.

mod config;
mod env;
mod env_file;
mod expand;
mod fields;
mod files;
mod resources;
mod sandbox;
mod security;

pub use config::{HASH, MESSAGE_POLICY, Parts, RESOURCES, container_config, definition_hash, log_directory};
pub use env::{Data, Environment, Source, environment};
pub use env_file::{ENV_FILE, EnvFiles, env_files, parse_env_file};
pub use expand::expand;
pub use fields::{Facts, FieldError, field, resource_field};
pub use files::hosts_file;
pub use resources::{
    Qos, cgroup_parent, cpu_shares, linux_resources, pod_limits, qos, quantity_value, resources_hash,
};
pub use sandbox::sandbox_config;
pub use security::check_user;
