//! `minik doctor`: looks for what keeps clusters from working on this machine, and says what mends it.

use serde::Serialize;

use super::options::Form;
use super::output::{self, Output};
use cluster::{Docker, DockerError, EngineInfo};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    /// Works, but not for everything.
    Warning,
    /// Clusters do not work.
    Bad,
}

/// What was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// The command, or the step, that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

fn good(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Good, found: found.into(), mend: None }
}

fn trouble(
    what: &'static str,
    verdict: Verdict,
    found: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    Finding { what, verdict, found: found.into(), mend: Some(mend.into()) }
}

/// Answers 1 when something keeps clusters from working.
pub(super) async fn run(args: &Args) -> anyhow::Result<u8> {
    let mut findings = Vec::new();
    match look_at_docker().await {
        Ok((engine, free)) => {
            findings.extend(of_engine(&engine));
            findings.push(of_subnets(free));
        }
        Err(error) => findings.push(trouble("Docker", Verdict::Bad, error.to_string(), docker_mend(&error))),
    }
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |path: &str| read(path).and_then(|text| text.trim().parse::<u64>().ok());
    findings.extend(of_inotify(
        number("/proc/sys/fs/inotify/max_user_instances"),
        number("/proc/sys/fs/inotify/max_user_watches"),
    ));
    findings.extend(read("/proc/filesystems").map(|text| of_overlay(&text)));
    findings.extend(read("/etc/resolv.conf").map(|text| of_dns(&text)));
    findings.extend(read("/proc/meminfo").map(|text| of_memory(&text)));
    findings.push(of_disk());
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Output::told(args.form.output, &findings, || text(&findings))?;
    Ok(u8::from(bad))
}

fn text(findings: &[Finding]) -> String {
    let mark = |verdict: Verdict| match verdict {
        Verdict::Good => "ok",
        Verdict::Warning => "warning",
        Verdict::Bad => "BAD",
    };
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|f| vec![f.what.to_owned(), mark(f.verdict).to_owned(), f.found.clone()])
        .collect();
    let mut text = output::table(&["WHAT", "STATE", "FOUND"], &rows);
    for finding in findings {
        if let Some(mend) = &finding.mend {
            text.push_str(&format!("{}: {mend}\n", finding.what));
        }
    }
    text
}

async fn look_at_docker() -> Result<(EngineInfo, bool), DockerError> {
    let docker = Docker::connect().await?;
    let (engine, free) = tokio::join!(docker.info(), cluster::subnet_free(&docker));
    Ok((engine?, free?))
}

fn docker_mend(error: &DockerError) -> String {
    match error {
        DockerError::Permission { .. } => "sudo usermod -aG docker $USER, then log in anew".to_owned(),
        DockerError::Context(_) => "docker context ls; docker context use default".to_owned(),
        _ => "sudo systemctl start docker; or set DOCKER_HOST".to_owned(),
    }
}

fn of_engine(engine: &EngineInfo) -> Vec<Finding> {
    let EngineInfo { cgroup_version, cgroup_driver, .. } = engine;
    let found = format!("{} on {}", engine.version, engine.operating_system);
    let mut findings = vec![match engine.podman {
        false => good("Docker", found),
        true => trouble(
            "Docker",
            Verdict::Bad,
            format!("Podman {found}: nodes do not run on it"),
            "let DOCKER_HOST, or the current context, lead to a Docker Engine",
        ),
    }];
    findings.push(match (engine.rootless, cgroup_version.as_str(), cgroup_driver.as_str()) {
        (true, "1", _) => trouble(
            "control groups",
            Verdict::Bad,
            "rootless Docker with cgroup version 1",
            "boot with systemd.unified_cgroup_hierarchy=1, or use Docker as root",
        ),
        (true, _, "none") => trouble(
            "control groups",
            Verdict::Bad,
            "none are delegated to rootless Docker",
            "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=yes\\n' | \
             sudo tee /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload",
        ),
        _ => good("control groups", format!("version {cgroup_version}, {cgroup_driver}")),
    });
    if engine.rootless {
        let found = "rootless: addresses of LoadBalancer Services cannot be reached from the host";
        findings.push(trouble(
            "user",
            Verdict::Warning,
            found,
            "carry host ports into the cluster: --port 8080:80",
        ));
    }
    let proxy = engine.http_proxy.as_ref().or(engine.https_proxy.as_ref());
    let own = std::env::var("HTTPS_PROXY").or_else(|_| std::env::var("https_proxy")).ok();
    findings.push(match (proxy, own) {
        (None, Some(own)) => trouble(
            "proxy",
            Verdict::Warning,
            format!("this shell uses {own}, Docker none: it cannot pull"),
            "sudo systemctl edit docker, add [Service] Environment=HTTPS_PROXY=..., sudo systemctl restart docker",
        ),
        (Some(proxy), _) => good("proxy", proxy.clone()),
        (None, None) => good("proxy", "none"),
    });
    findings
}

fn of_subnets(free: bool) -> Finding {
    match free {
        true => good("address ranges", "a free one for the next cluster"),
        false => {
            let found = "every private range is taken by a network of Docker or a route";
            trouble("address ranges", Verdict::Bad, found, "docker network prune")
        }
    }
}

/// A node takes some dozens of instances and some thousands of watches.
fn of_inotify(instances: Option<u64>, watches: Option<u64>) -> Vec<Finding> {
    let check = |what, value: u64, least: u64, key: &str| match value < least {
        true => {
            let found = format!("{value}, several clusters need {least}");
            trouble(what, Verdict::Warning, found, format!("sudo sysctl -w {key}={least}"))
        }
        false => good(what, value.to_string()),
    };
    let instances = instances.map(|n| check("inotify instances", n, 512, "fs.inotify.max_user_instances"));
    let watches = watches.map(|n| check("inotify watches", n, 65_536, "fs.inotify.max_user_watches"));
    instances.into_iter().chain(watches).collect()
}

fn of_overlay(filesystems: &str) -> Finding {
    match filesystems.split_whitespace().any(|word| word == "overlay") {
        true => good("overlay", "known to the kernel"),
        false => {
            let found = "not loaded: images are copied instead, which is slow";
            trouble("overlay", Verdict::Warning, found, "sudo modprobe overlay")
        }
    }
}

/// A resolver on the host's loopback cannot be reached from containers; Docker takes public ones instead, which know no
/// names of a company or a VPN.
fn of_dns(resolv_conf: &str) -> Finding {
    let servers: Vec<&str> =
        resolv_conf.lines().filter_map(|line| line.strip_prefix("nameserver")).map(str::trim).collect();
    let local = |server: &&str| server.starts_with("127.") || *server == "::1";
    match (servers.is_empty(), servers.iter().all(local)) {
        (true, _) => trouble(
            "DNS",
            Verdict::Warning,
            "/etc/resolv.conf names no server",
            "name one: echo 'nameserver 1.1.1.1' | sudo tee -a /etc/resolv.conf",
        ),
        (false, true) => trouble(
            "DNS",
            Verdict::Warning,
            format!(
                "{} is on the loopback: names that only it knows (VPN) are unknown in clusters",
                servers.join(", ")
            ),
            "tell Docker the real servers: \"dns\": [...] in /etc/docker/daemon.json",
        ),
        (false, false) => good("DNS", servers.join(", ")),
    }
}

fn of_memory(meminfo: &str) -> Finding {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default();
    match kib / 1024 {
        mib if mib < 512 => trouble(
            "memory",
            Verdict::Warning,
            format!("{mib} MiB available"),
            "close something, or minik cluster stop",
        ),
        mib => good("memory", format!("{mib} MiB available")),
    }
}

fn of_disk() -> Finding {
    match nix::sys::statvfs::statvfs("/var/lib") {
        Ok(disk) => {
            let free = disk.blocks_available() * disk.fragment_size() / (1 << 20);
            match free < 2048 {
                true => trouble(
                    "disk",
                    Verdict::Warning,
                    format!("{free} MiB free below /var/lib"),
                    "docker system prune",
                ),
                false => good("disk", format!("{free} MiB free below /var/lib")),
            }
        }
        Err(error) => trouble("disk", Verdict::Warning, error.to_string(), "look at it: df -h /var/lib"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(finding: &Finding) -> Verdict {
        assert_eq!(finding.mend.is_none(), finding.verdict == Verdict::Good, "{finding:?}");
        finding.verdict
    }

    #[test]
    fn what_is_short_is_said_with_what_mends_it() {
        let inotify = of_inotify(Some(128), Some(100_000));
        assert_eq!(inotify.iter().map(verdict).collect::<Vec<_>>(), [Verdict::Warning, Verdict::Good]);
        assert_eq!(inotify[0].mend.as_deref(), Some("sudo sysctl -w fs.inotify.max_user_instances=512"));
        assert_eq!(verdict(&of_overlay("nodev\ttmpfs\n\text4\n")), Verdict::Warning);
        assert_eq!(verdict(&of_overlay("nodev\toverlay\n")), Verdict::Good);
        assert_eq!(verdict(&of_dns("nameserver 127.0.0.53\n")), Verdict::Warning);
        assert_eq!(verdict(&of_dns("nameserver 127.0.0.53\nnameserver 10.0.0.1\n")), Verdict::Good);
        assert_eq!(verdict(&of_dns("")), Verdict::Warning);
        assert_eq!(verdict(&of_memory("MemAvailable:   100000 kB\n")), Verdict::Warning);
        assert_eq!(verdict(&of_memory("MemAvailable: 10000000 kB\n")), Verdict::Good);
        assert_eq!(verdict(&of_subnets(false)), Verdict::Bad);
    }

    #[test]
    fn engines_are_told_apart() {
        let engine = |rootless: bool, version: &str, driver: &str| EngineInfo {
            rootless,
            cgroup_version: version.to_owned(),
            cgroup_driver: driver.to_owned(),
            ..EngineInfo::default()
        };
        let groups = |engine: &EngineInfo| verdict(&of_engine(engine)[1]);
        let podman = EngineInfo { podman: true, ..EngineInfo::default() };
        assert_eq!(verdict(&of_engine(&podman)[0]), Verdict::Bad);
        assert_eq!(groups(&engine(false, "1", "cgroupfs")), Verdict::Good);
        assert_eq!(groups(&engine(true, "1", "none")), Verdict::Bad);
        assert_eq!(groups(&engine(true, "2", "none")), Verdict::Bad);
        assert_eq!(groups(&engine(true, "2", "systemd")), Verdict::Good);
    }
}
