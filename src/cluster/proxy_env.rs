//! The proxy settings that nodes and image builds inherit.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The proxy settings of the environment `minik` was called in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyEnv {
    http: Option<String>,
    https: Option<String>,
    exceptions: Option<String>,
}

impl ProxyEnv {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, either case; `get` looks a variable up.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let either =
            |name: &str| get(name).or_else(|| get(&name.to_lowercase())).filter(|value| !value.is_empty());
        Self { http: either("HTTP_PROXY"), https: either("HTTPS_PROXY"), exceptions: either("NO_PROXY") }
    }

    /// Arguments of an image build, in both cases; empty when no proxy is set.
    pub fn for_build(&self) -> Vec<(String, String)> {
        [("HTTP_PROXY", &self.http), ("HTTPS_PROXY", &self.https), ("NO_PROXY", &self.exceptions)]
            .into_iter()
            .filter(|_| self.http.is_some() || self.https.is_some())
            .filter_map(|(name, value)| value.as_ref().map(|value| (name, value)))
            .flat_map(|(name, value)| {
                [(name.to_owned(), value.clone()), (name.to_lowercase(), value.clone())]
            })
            .collect()
    }

    /// The variables a node gets, in both cases as programs disagree about it. What is inside the cluster is never
    /// reached through the proxy. Empty when no proxy is set.
    pub fn for_node(
        &self,
        inside: &[Ipv4Net],
        domain: &str,
        names: impl Iterator<Item = String>,
    ) -> Vec<String> {
        if self.http.is_none() && self.https.is_none() {
            return Vec::new();
        }
        let mut exceptions: Vec<String> = self
            .exceptions
            .iter()
            .flat_map(|list| list.split(','))
            .map(|entry| entry.trim().to_owned())
            .filter(|entry| !entry.is_empty())
            .collect();
        let own = ["localhost".to_owned(), "127.0.0.0/8".to_owned()]
            .into_iter()
            .chain(inside.iter().map(ToString::to_string))
            .chain([".svc".to_owned(), format!(".{domain}")])
            .chain(names);
        for entry in own {
            if !exceptions.contains(&entry) {
                exceptions.push(entry);
            }
        }
        let exceptions = exceptions.join(",");
        [("HTTP_PROXY", &self.http), ("HTTPS_PROXY", &self.https), ("NO_PROXY", &Some(exceptions))]
            .into_iter()
            .filter_map(|(name, value)| value.as_ref().map(|value| (name, value)))
            .flat_map(|(name, value)| [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &'static [(&'static str, &'static str)]) -> Vec<String> {
        let get = |name: &str| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        let inside = ["10.42.0.0/16".parse().expect("a network")];
        ProxyEnv::read(get).for_node(&inside, "cluster.local", ["n0".to_owned()].into_iter())
    }

    #[test]
    fn without_a_proxy_nothing_is_set() {
        assert!(env(&[]).is_empty());
        assert!(env(&[("NO_PROXY", "a"), ("HTTP_PROXY", "")]).is_empty());
    }

    #[test]
    fn the_inside_is_excepted() {
        assert_eq!(
            env(&[("https_proxy", "http://p:1"), ("NO_PROXY", "corp, localhost")]),
            [
                "HTTPS_PROXY=http://p:1",
                "https_proxy=http://p:1",
                "NO_PROXY=corp,localhost,127.0.0.0/8,10.42.0.0/16,.svc,.cluster.local,n0",
                "no_proxy=corp,localhost,127.0.0.0/8,10.42.0.0/16,.svc,.cluster.local,n0",
            ]
        );
    }
}
