//! From Ingresses to where a request goes: hosts, then paths, by Kubernetes' rules of precedence; no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressBackend, IngressClass};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::settings::Settings;
use crate::client::typed::{SecretKey, is_served};

/// A port by number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortRef {
    Number(u16),
    Name(String),
}

/// A Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub namespace: String,
    pub service: String,
    pub port: PortRef,
}

/// What a path of a rule leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    exact: bool,
    /// Without a closing slash; what follows it may be a group of the rule's expression.
    path: String,
    pub backend: Backend,
    pub settings: Arc<Settings>,
}

impl Route {
    /// What of `path` comes after this route's, where it matches; element by element for prefixes.
    fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.path.as_str())?;
        match (self.exact, rest.is_empty() || rest.starts_with('/')) {
            (true, _) => rest.is_empty().then_some(rest),
            (false, at_element) => at_element.then_some(rest),
        }
    }

    /// The path that the endpoint sees.
    pub fn target(&self, path: &str) -> String {
        let Some(rewrite) = &self.settings.rewrite else { return path.to_owned() };
        let rest = self.rest(path).unwrap_or_default().trim_start_matches('/');
        let target = rewrite.replace("$2", rest).replace("$1", rest);
        if target.starts_with('/') { target } else { format!("/{target}") }
    }
}

/// Everything that is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    hosts: BTreeMap<String, Vec<Route>>,
    /// By what follows `*.`.
    wildcards: BTreeMap<String, Vec<Route>>,
    anywhere: Vec<Route>,
    fallback: Option<Route>,
    /// Secrets with certificates, and the hosts that they are for.
    pub certificates: Vec<(SecretKey, Vec<String>)>,
}

impl Table {
    /// The table of all Ingresses whose class is ours. Where two say different things of one path, the older one counts.
    pub fn of(ingresses: &[Arc<Ingress>], classes: &[Arc<IngressClass>]) -> Self {
        let mut served: Vec<&Arc<Ingress>> = ingresses
            .iter()
            .filter(|ingress| is_served(ingress, classes.iter().map(AsRef::as_ref)))
            .collect();
        let age = |ingress: &Ingress| -> Option<Timestamp> {
            ingress.metadata.creation_timestamp.as_ref().map(|time| time.0)
        };
        served.sort_by_key(|ingress| (age(ingress), ingress.namespace(), ingress.name_any()));
        let mut table = Self::default();
        served.into_iter().for_each(|ingress| table.add(ingress));
        for routes in
            table.hosts.values_mut().chain(table.wildcards.values_mut()).chain([&mut table.anywhere])
        {
            // Exact before prefix, long before short; the sort keeps the older first.
            routes.sort_by_key(|route| (!route.exact, std::cmp::Reverse(route.path.len())));
        }
        table
    }

    fn add(&mut self, ingress: &Ingress) {
        let namespace = ingress.namespace().unwrap_or_default();
        let settings = Arc::new(Settings::of(ingress.annotations()));
        let Some(spec) = &ingress.spec else { return };
        let route = |exact, path: &str, backend: &IngressBackend| {
            let (path, backend) = (literal(path).to_owned(), backend_of(&namespace, backend)?);
            Some(Route { exact, path, backend, settings: settings.clone() })
        };
        if self.fallback.is_none() {
            self.fallback = spec.default_backend.as_ref().and_then(|backend| route(false, "", backend));
        }
        for rule in spec.rules.iter().flatten() {
            let host = rule.host.clone().unwrap_or_default().to_ascii_lowercase();
            let routes = match host.strip_prefix("*.") {
                _ if host.is_empty() => &mut self.anywhere,
                Some(parent) => self.wildcards.entry(parent.to_owned()).or_default(),
                None => self.hosts.entry(host).or_default(),
            };
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                let text = path.path.as_deref().unwrap_or("/");
                let exact = path.path_type == "Exact";
                routes.extend(if exact {
                    backend_of(&namespace, &path.backend).map(|backend| Route {
                        exact,
                        path: text.to_owned(),
                        backend,
                        settings: settings.clone(),
                    })
                } else {
                    route(exact, text, &path.backend)
                });
            }
        }
        for tls in spec.tls.iter().flatten() {
            if let Some(name) = &tls.secret_name {
                let hosts = tls.hosts.iter().flatten().map(|host| host.to_ascii_lowercase()).collect();
                self.certificates.push((SecretKey::new(&namespace, name), hosts));
            }
        }
    }

    /// Where a request goes. `host` is without a port.
    pub fn route(&self, host: &str, path: &str) -> Option<&Route> {
        let host = host.to_ascii_lowercase();
        let wildcard = || self.wildcards.get(host.split_once('.')?.1);
        let routes = self.hosts.get(&host).or_else(wildcard).unwrap_or(&self.anywhere);
        routes.iter().find(|route| route.rest(path).is_some()).or(self.fallback.as_ref())
    }

    /// The Secrets that are needed.
    pub fn secrets(&self) -> BTreeSet<SecretKey> {
        self.certificates.iter().map(|(key, _)| key.clone()).collect()
    }
}

/// The part of a path that is no expression: people who come from ingress-nginx end theirs with `(/|$)(.*)`, `/?(.*)` or
/// `/(.*)`, which is what a prefix is.
fn literal(path: &str) -> &str {
    let end = ["(/|$)(.*)", "/?(.*)", "/(.*)", "(.*)"].iter().find_map(|end| path.strip_suffix(end));
    end.unwrap_or(path).trim_end_matches('/')
}

fn backend_of(namespace: &str, backend: &IngressBackend) -> Option<Backend> {
    let service = backend.service.as_ref()?;
    let port = service.port.as_ref()?;
    let number = port.number.and_then(|number| u16::try_from(number).ok()).map(PortRef::Number);
    Some(Backend {
        namespace: namespace.to_owned(),
        service: service.name.clone(),
        port: number.or_else(|| port.name.clone().map(PortRef::Name))?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn classes() -> Vec<Arc<IngressClass>> {
        let class = |name: &str, controller: &str, default: bool| {
            let value = json!({ "metadata": { "name": name, "annotations": {
                "ingressclass.kubernetes.io/is-default-class": default.to_string() } },
                "spec": { "controller": controller } });
            Arc::new(serde_json::from_value(value).expect("a class"))
        };
        vec![class("minik", "minik.dev/ingress", true), class("other", "example.com/other", false)]
    }

    fn path(path: &str, kind: &str, service: &str) -> Value {
        json!({ "path": path, "pathType": kind,
            "backend": { "service": { "name": service, "port": { "number": 80 } } } })
    }

    fn ingress(name: &str, spec: Value, annotations: Value) -> Arc<Ingress> {
        let metadata = json!({ "name": name, "namespace": "shop", "annotations": annotations });
        Arc::new(serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).expect("an Ingress"))
    }

    fn host(host: &str, paths: &[Value]) -> Value {
        json!({ "host": host, "http": { "paths": paths } })
    }

    fn check(table: &Table, host: &str, path: &str, expect: &str) {
        let found = table.route(host, path).map_or("none", |route| route.backend.service.as_str());
        assert_eq!(found, expect, "{host}{path}");
    }

    /// The examples of Kubernetes' documentation of path types.
    #[test]
    fn paths_match_as_kubernetes_documents() {
        let matches = |kind: &str, rule: &str, asked: &str, expect: bool| {
            let spec = json!({ "rules": [host("a.example", &[path(rule, kind, "s")])] });
            let table = Table::of(&[ingress("i", spec, json!({}))], &classes());
            assert_eq!(table.route("a.example", asked).is_some(), expect, "{kind} {rule} {asked}");
        };
        matches("Prefix", "/", "/any/path", true);
        matches("Exact", "/foo", "/foo", true);
        matches("Exact", "/foo", "/bar", false);
        matches("Exact", "/foo", "/foo/", false);
        matches("Exact", "/foo/", "/foo", false);
        matches("Prefix", "/foo", "/foo", true);
        matches("Prefix", "/foo", "/foo/", true);
        matches("Prefix", "/foo/", "/foo", true);
        matches("Prefix", "/foo/", "/foo/", true);
        matches("Prefix", "/aaa/bb", "/aaa/bbb", false);
        matches("Prefix", "/aaa/bbb", "/aaa/bbb", true);
        matches("Prefix", "/aaa/bbb/", "/aaa/bbb", true);
        matches("Prefix", "/aaa/bbb", "/aaa/bbb/ccc", true);
        matches("Prefix", "/aaa/bbb", "/aaa/bbbxyz", false);
        matches("ImplementationSpecific", "/foo", "/foo/x", true);
    }

    #[test]
    fn the_most_particular_host_and_path_win() {
        let spec = json!({ "defaultBackend": { "service": { "name": "rest", "port": { "name": "http" } } }, "rules": [
            host("*.example", &[path("/", "Prefix", "wild")]),
            host("a.example", &[path("/", "Prefix", "root"), path("/x", "Prefix", "x"), path("/x", "Exact", "exact"),
                path("/x/y", "Prefix", "xy")]),
            json!({ "http": { "paths": [path("/any", "Prefix", "any")] } }),
        ] });
        let table = Table::of(&[ingress("i", spec, json!({}))], &classes());
        check(&table, "A.Example", "/", "root");
        check(&table, "a.example", "/x", "exact");
        check(&table, "a.example", "/x/1", "x");
        check(&table, "a.example", "/x/y/z", "xy");
        check(&table, "b.example", "/x", "wild");
        check(&table, "c.b.example", "/x", "rest");
        check(&table, "10.0.0.1", "/any/1", "any");
        check(&table, "10.0.0.1", "/", "rest");
    }

    #[test]
    fn classes_say_whose_an_ingress_is() {
        let of = |spec: Value, annotations: Value| {
            let mut all = json!({ "rules": [host("a", &[path("/", "Prefix", "s")])] });
            json_patch::merge(&mut all, &spec);
            Table::of(&[ingress("i", all, annotations)], &classes()).route("a", "/").is_some()
        };
        assert!(of(json!({}), json!({})), "the default class is ours");
        assert!(of(json!({ "ingressClassName": "minik" }), json!({})));
        assert!(!of(json!({ "ingressClassName": "other" }), json!({})));
        assert!(!of(json!({ "ingressClassName": "missing" }), json!({})));
        assert!(!of(json!({}), json!({ "kubernetes.io/ingress.class": "nginx" })));
        assert!(of(json!({}), json!({ "kubernetes.io/ingress.class": "minik" })));
    }

    #[test]
    fn paths_are_rewritten() {
        let check = |rule: &str, target: &str, asked: &str, expect: &str| {
            let spec = json!({ "rules": [host("a", &[path(rule, "ImplementationSpecific", "s")])] });
            let rewrite = json!({ "nginx.ingress.kubernetes.io/rewrite-target": target });
            let table = Table::of(&[ingress("i", spec, rewrite)], &classes());
            let route = table.route("a", asked).unwrap_or_else(|| panic!("{rule} {asked}"));
            assert_eq!(route.target(asked), expect, "{rule} {target} {asked}");
        };
        check("/app(/|$)(.*)", "/$2", "/app/x/y", "/x/y");
        check("/app(/|$)(.*)", "/$2", "/app", "/");
        check("/app/?(.*)", "/new/$1", "/app/x", "/new/x");
        check("/app", "/", "/app/x", "/");
    }
}
