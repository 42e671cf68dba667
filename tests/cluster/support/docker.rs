use super::run;

/// Whether a Docker engine answers.
pub fn answers() -> bool {
    std::process::Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .output()
        .is_ok_and(|o| o.status.success())
}

/// Runs `docker`.
pub fn docker(args: &[&str]) -> String {
    run("docker", args, &[]).ok()
}

/// Everything Docker has of a cluster: containers, networks and volumes.
pub fn remains(cluster: &str) -> Vec<String> {
    let filter = format!("label=dev.minik.cluster={cluster}");
    [
        vec!["ps", "--all", "--format", "{{.Names}}", "--filter", &filter],
        vec!["network", "ls", "--format", "{{.Name}}", "--filter", &filter],
        vec!["volume", "ls", "--format", "{{.Name}}", "--filter", &filter],
    ]
    .iter()
    .flat_map(|args| {
        let list = docker(args);
        list.lines().map(|name| format!("{} {name}", args[0])).collect::<Vec<_>>()
    })
    .collect()
}
