//! What people add to the cluster's names: ConfigMap `kube-system/minik-dns`, with the keys that kube-dns had, and `hosts`
//! as CoreDNS' plugin reads them.
//!
//! ```yaml
//! hosts: |
//!   192.168.1.9 build.corp.example  git.corp.example
//! stubDomains: |
//!   {"corp.example": ["192.168.1.53", "192.168.1.54:5353"]}
//! upstreamNameservers: |
//!   ["9.9.9.9"]
//! log: "true"
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;

use futures::StreamExt;
use hickory_server::proto::rr::Name;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client};
use tokio::sync::watch;

use config::NodeConfig;
use rt::Tasks;

const NAMESPACE: &str = NodeConfig::DNS_CONFIG_MAP.0;
const NAME: &str = NodeConfig::DNS_CONFIG_MAP.1;
const DNS_PORT: u16 = 53;

/// Names and servers beside the cluster's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Custom {
    /// By lower-case name, without the closing dot.
    pub hosts: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Servers that are asked for a domain and all below it.
    pub stubs: BTreeMap<String, Vec<SocketAddr>>,
    /// Servers that are asked instead of the node's; empty keeps those.
    pub upstreams: Vec<SocketAddr>,
    /// Every question is logged.
    pub log: bool,
}

impl Custom {
    /// Reads the ConfigMap's data, over names that are always there. What cannot be read is left out, and said in the
    /// second value.
    pub fn parse(data: &BTreeMap<String, String>, always: &Self) -> (Self, Vec<String>) {
        let mut custom = always.clone();
        let mut problems = Vec::new();
        for (key, text) in data {
            match key.as_str() {
                "hosts" => problems.extend(custom.read_hosts(text)),
                "stubDomains" => match serde_json::from_str::<BTreeMap<String, Vec<String>>>(text) {
                    Ok(domains) => {
                        for (domain, texts) in domains {
                            let servers = servers(&texts, &mut problems);
                            custom.stubs.insert(plain(&domain), servers);
                        }
                    }
                    Err(error) => problems.push(format!("stubDomains is no JSON object of lists: {error}")),
                },
                "upstreamNameservers" => match serde_json::from_str::<Vec<String>>(text) {
                    Ok(texts) => custom.upstreams = servers(&texts, &mut problems),
                    Err(error) => problems.push(format!("upstreamNameservers is no JSON list: {error}")),
                },
                "log" => custom.log = text.trim() == "true",
                other => problems.push(format!(
                    "{other:?} is unknown; hosts, stubDomains, upstreamNameservers and log are known"
                )),
            }
        }
        (custom, problems)
    }

    fn read_hosts(&mut self, text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(address) = words.next() else { continue };
            match address.parse() {
                Ok(ip) => words.for_each(|name| self.hosts.entry(plain(name)).or_default().push(ip)),
                Err(_) => problems.push(format!("hosts: {address:?} is no IPv4 address")),
            }
        }
        problems
    }

    /// The addresses of a name that somebody has added.
    pub(super) fn host(&self, name: &Name) -> Option<&[Ipv4Addr]> {
        if self.hosts.is_empty() {
            return None;
        }
        self.hosts.get(&plain(&name.to_ascii())).map(Vec::as_slice)
    }
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn servers(texts: &[String], problems: &mut Vec<String>) -> Vec<SocketAddr> {
    let one = |text: &String| {
        let plain = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
        plain
            .or_else(|_| text.parse::<SocketAddr>())
            .map_err(|_| format!("{text:?} is no address of a name server"))
    };
    let (good, bad): (Vec<_>, Vec<_>) = texts.iter().map(one).partition(Result::is_ok);
    problems.extend(bad.into_iter().filter_map(Result::err));
    good.into_iter().filter_map(Result::ok).collect()
}

/// Follows the ConfigMap: what it says at the moment, over what is `always` there.
pub fn follow(client: Client, always: Custom, tasks: &Tasks) -> watch::Receiver<Custom> {
    let (custom, seen) = watch::channel(always.clone());
    tasks.spawn_until_stop(async move {
        let api = Api::<ConfigMap>::namespaced(client, NAMESPACE);
        let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut events = pin!(watch_objects(api, config).default_backoff());
        let mut listed = None;
        let tell = |map: Option<ConfigMap>| {
            let (now, problems) = Custom::parse(&map.and_then(|map| map.data).unwrap_or_default(), &always);
            problems.iter().for_each(|problem| tracing::warn!("ConfigMap {NAMESPACE}/{NAME}: {problem}"));
            custom.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = None,
                Ok(Event::InitApply(map)) => listed = Some(map),
                Ok(Event::InitDone) => tell(listed.take()),
                Ok(Event::Apply(map)) => tell(Some(map)),
                Ok(Event::Delete(_)) => tell(None),
                Err(error) => tracing::debug!(%error, "ConfigMap {NAMESPACE}/{NAME} cannot be watched now"),
            }
        }
    });
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_map_is_read_and_mistakes_are_named() {
        let parse = |pairs: &[(&str, &str)]| {
            let data = pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
            Custom::parse(&data, &Custom::default())
        };
        let (custom, problems) = parse(&[
            ("hosts", "# ours\n192.168.1.9 Build.corp.example. git  # two names\n\nx.y bad\n"),
            ("stubDomains", r#"{"corp.example": ["192.168.1.53", "192.168.1.54:5353", "ns"]}"#),
            ("upstreamNameservers", "9.9.9.9"),
            ("log", "true"),
            ("other", ""),
        ]);
        let nine: Ipv4Addr = [192, 168, 1, 9].into();
        assert_eq!(
            custom.host(&Name::from_ascii("BUILD.corp.example.").expect("a name")),
            Some([nine].as_slice())
        );
        assert_eq!(custom.host(&Name::from_ascii("corp.example.").expect("a name")), None);
        let stubs: Vec<String> = custom.stubs["corp.example"].iter().map(ToString::to_string).collect();
        assert_eq!(stubs, ["192.168.1.53:53", "192.168.1.54:5353"]);
        assert!(custom.log && custom.upstreams.is_empty());
        assert_eq!(problems.len(), 4, "{problems:#?}");
    }
}
