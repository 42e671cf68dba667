//! From Ingresses to what the proxy serves, by Kubernetes' rules of precedence; no I/O.

use std::sync::Arc;

use http::StatusCode;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressClass};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::treatment::Treatment;
use crate::proxy::{
    Action, Backend, Certificates, Filter, Hosts, Match, PathMatch, Port, PortRef, Redirect, Rule,
    ServicePort, Settings, Site, Wildcard,
};
use crate::secrets::Look;
use client::typed::{SecretKey, expression, is_served};

/// What is served at port 80 and at port 443.
pub struct Ports {
    pub http: Arc<Port>,
    pub https: Arc<Port>,
}

/// The ports of all Ingresses whose class is ours. Where two say different things of one path, the older one counts.
pub fn ports(
    ingresses: &[Arc<Ingress>],
    classes: &[Arc<IngressClass>],
    look: &mut Look,
    mut certificates: Certificates,
) -> Ports {
    let mut served: Vec<&Arc<Ingress>> =
        ingresses.iter().filter(|ingress| is_served(ingress, classes.iter().map(AsRef::as_ref))).collect();
    let age = |ingress: &Ingress| -> Option<Timestamp> {
        ingress.metadata.creation_timestamp.as_ref().map(|time| time.0)
    };
    served.sort_by_key(|ingress| (age(ingress), ingress.namespace(), ingress.name_any()));
    let mut site = Site::default();
    for ingress in served {
        add(&mut site, ingress, look);
        add_certificates(&mut certificates, ingress, look);
    }
    site.sort();
    let mut sites = Hosts::new(Wildcard::Label);
    *sites.entry("") = Arc::new(site);
    let port =
        |tls, certificates| Arc::new(Port { tls, sites: sites.clone(), certificates, ..Port::default() });
    Ports { http: port(false, Certificates::default()), https: port(true, certificates) }
}

fn add(site: &mut Site, ingress: &Ingress, look: &mut Look) {
    let namespace = ingress.namespace().unwrap_or_default();
    let treatment = Treatment::of(&namespace, ingress.annotations(), look);
    let Some(spec) = &ingress.spec else { return };
    if site.fallback.is_none() {
        let backend = spec.default_backend.as_ref();
        site.fallback = backend.map(|backend| Rule {
            when: Match::path(PathMatch::prefix("/")),
            act: Arc::new(act(&treatment, &namespace, backend)),
        });
    }
    for rule in spec.rules.iter().flatten() {
        let rules = site.rules.entry(rule.host.as_deref().unwrap_or_default());
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            let Some(when) = matches(&treatment, path) else { continue };
            rules.push(Rule { when, act: Arc::new(act(&treatment, &namespace, &path.backend)) });
        }
        if let Some(root) = &treatment.annotations.app_root {
            let to = Redirect { to: Some(root.clone()), ..Redirect::default() };
            let act = Action::new(vec![Filter::Redirect(to)], Vec::new(), Settings::default());
            rules.push(Rule { when: Match::path(PathMatch::Exact("/".into())), act: Arc::new(act) });
        }
    }
}

/// What a path matches; None where it cannot be read (an Event of the Ingress tells of it).
fn matches(treatment: &Treatment, path: &HTTPIngressPath) -> Option<Match> {
    let text = path.path.as_deref().unwrap_or("/");
    let regex = expression(&treatment.annotations, path);
    Some(Match::path(match regex {
        Some(regex) => PathMatch::Regex(regex.ok()?),
        None if path.path_type == "Exact" => PathMatch::Exact(text.to_owned()),
        None => PathMatch::prefix(text),
    }))
}

fn act(treatment: &Treatment, namespace: &str, backend: &IngressBackend) -> Action {
    let (mut filters, mut backends) = (treatment.filters.clone(), Vec::new());
    match backend_of(namespace, backend) {
        Some(to) => backends.push(Backend::only(to)),
        None => filters.push(Filter::Refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "the backend of this path is no Service\n".to_owned(),
        )),
    }
    Action::new(filters, backends, treatment.settings.clone())
}

fn backend_of(namespace: &str, backend: &IngressBackend) -> Option<ServicePort> {
    let service = backend.service.as_ref()?;
    let port = service.port.as_ref()?;
    let number = port.number.and_then(|number| u16::try_from(number).ok()).map(PortRef::Number);
    Some(ServicePort {
        namespace: namespace.to_owned(),
        service: service.name.clone(),
        port: number.or_else(|| port.name.clone().map(PortRef::Name))?,
    })
}

fn add_certificates(certificates: &mut Certificates, ingress: &Ingress, look: &mut Look) {
    let namespace = ingress.namespace().unwrap_or_default();
    let tls = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
    for tls in tls {
        let Some(name) = &tls.secret_name else { continue };
        let Some(certified) = look.certificate(&SecretKey::new(&namespace, name)) else { continue };
        let hosts = tls.hosts.iter().flatten().map(String::as_str);
        let every = tls.hosts.as_ref().is_none_or(Vec::is_empty).then_some("");
        for host in hosts.chain(every) {
            certificates.by_host.entry(host).push(certified.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use http::{HeaderMap, Method};

    use super::*;
    use crate::proxy::Asked;

    fn site(ingresses: &[Arc<Ingress>]) -> Arc<Site> {
        let ports = ports(ingresses, &classes(), &mut Look::default(), Certificates::default());
        ports.http.sites.get("").expect("the site of every host").clone()
    }

    fn find<'a>(site: &'a Site, host: &str, path: &str) -> Option<&'a Rule> {
        let (headers, method) = (HeaderMap::new(), Method::GET);
        site.rule(&Asked { host, path, query: "", method: &method, headers: &headers })
    }

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

    fn check(site: &Site, host: &str, path: &str, expect: &str) {
        let found = find(site, host, path).and_then(|rule| rule.act.backends.first());
        let found =
            found.and_then(|backend| backend.to.as_ref().ok()).map_or("none", |to| to.service.as_str());
        assert_eq!(found, expect, "{host}{path}");
    }

    /// The examples of Kubernetes' documentation of path types.
    #[test]
    fn paths_match_as_kubernetes_documents() {
        let matches = |kind: &str, rule: &str, asked: &str, expect: bool| {
            let spec = json!({ "rules": [host("a.example", &[path(rule, kind, "s")])] });
            let site = site(&[ingress("i", spec, json!({}))]);
            assert_eq!(find(&site, "a.example", asked).is_some(), expect, "{kind} {rule} {asked}");
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
        let table = site(&[ingress("i", spec, json!({}))]);
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
            find(&site(&[ingress("i", all, annotations)]), "a", "/").is_some()
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
            let site = site(&[ingress("i", spec, rewrite)]);
            let found = find(&site, "a", asked).unwrap_or_else(|| panic!("{rule} {asked}"));
            let rewritten = found.act.filters.iter().find_map(|filter| match filter {
                Filter::Rewrite(rewrite) => rewrite.path.as_ref(),
                _ => None,
            });
            let got = rewritten.map(|change| change.apply(&found.when.path, asked));
            assert_eq!(got.as_deref(), Some(expect), "{rule} {target} {asked}");
        };
        check("/app(/|$)(.*)", "/$2", "/app/x/y", "/x/y");
        check("/app(/|$)(.*)", "/$2", "/app", "/");
        check("/app/?(.*)", "/new/$1", "/app/x", "/new/x");
        check("/app", "/", "/app/x", "/");
    }

    #[test]
    fn what_cannot_be_protected_is_not_served() {
        let spec = || json!({ "rules": [host("a", &[path("/", "Prefix", "s")])] });
        let refused = |annotations: Value, spec: Value| {
            let site = site(&[ingress("i", spec, annotations)]);
            let filters = &find(&site, "a", "/").expect("a rule").act.filters;
            filters.iter().any(|filter| matches!(filter, Filter::Refuse(..)))
        };
        let nginx = |name: &str| json!({ format!("nginx.ingress.kubernetes.io/{name}"): "x" });
        assert!(refused(nginx("auth-url"), spec()));
        assert!(!refused(nginx("limit-rps"), spec()));
        let bucket = json!({ "rules": [host("a", &[json!({ "path": "/", "pathType": "Prefix",
            "backend": { "resource": { "kind": "Bucket", "name": "b" } } })])] });
        assert!(refused(json!({}), bucket));
    }
}
