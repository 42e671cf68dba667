//! What the engine says about itself and its machine.

use super::{Docker, DockerError};

/// The part of `docker info` that decides how nodes are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineInfo {
    pub version: String,
    /// It is Podman, which speaks Docker's language.
    pub podman: bool,
    pub rootless: bool,
    /// Users of containers are mapped to others of the host (`userns-remap`).
    pub userns_remap: bool,
    pub selinux: bool,
    pub cgroup_version: String,
    pub cgroup_driver: String,
    pub storage_driver: String,
    pub root_dir: String,
    pub operating_system: String,
    pub kernel: String,
    pub http_proxy: Option<String>,
    pub https_proxy: Option<String>,
    pub no_proxy: Option<String>,
}

impl Docker {
    /// What the engine says about itself.
    pub async fn info(&self) -> Result<EngineInfo, DockerError> {
        let (info, version) = futures::try_join!(self.api.info(), self.api.version())?;
        let podman = version.components.iter().flatten().any(|part| part.name.starts_with("Podman"));
        let options = info.security_options.unwrap_or_default();
        // As `name=rootless`, with more behind it in some.
        let has = |name: &str| {
            options.iter().any(|option| option.split(',').any(|part| part == format!("name={name}")))
        };
        let text = |value: Option<String>| value.filter(|text| !text.is_empty());
        Ok(EngineInfo {
            version: info.server_version.unwrap_or_default(),
            podman,
            rootless: has("rootless"),
            userns_remap: has("userns"),
            selinux: has("selinux"),
            cgroup_version: info
                .cgroup_version
                .map(|version| version.to_string())
                .unwrap_or_else(|| "1".to_owned()),
            cgroup_driver: info.cgroup_driver.map(|driver| driver.to_string()).unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            root_dir: info.docker_root_dir.unwrap_or_default(),
            operating_system: info.operating_system.unwrap_or_default(),
            kernel: info.kernel_version.unwrap_or_default(),
            http_proxy: text(info.http_proxy),
            https_proxy: text(info.https_proxy),
            no_proxy: text(info.no_proxy),
        })
    }
}
