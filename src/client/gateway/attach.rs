//! Which routes are attached to which listeners.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use regex::Regex;

use super::listeners::{GatewayState, ListenerState};
use super::references::{Backend, RefError, World, backend, unresolved};
use super::types::{
    BackendRef, GROUP, GRPCRoute, Gateway, GatewayClass, HTTPRoute, Listener, ParentRef, ReferenceGrant,
    RouteSpec, TLSRoute,
};
use super::{Condition, GATEWAY_CONTROLLER};
use crate::informer::Key;

/// A kind of route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    Http,
    Grpc,
    Tls,
}

/// Which route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    pub kind: RouteKind,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.word(), self.namespace, self.name)
    }
}

/// A route of any kind.
#[derive(Clone, Debug)]
pub struct Route {
    pub key: RouteKey,
    pub spec: RouteSpec,
    created: Option<Timestamp>,
}

impl Route {
    fn of(kind: RouteKind, meta: &ObjectMeta, spec: &RouteSpec) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = RouteKey { kind, namespace: text(&meta.namespace), name: text(&meta.name) };
        Self { key, spec: spec.clone(), created: meta.creation_timestamp.as_ref().map(|time| time.0) }
    }
}

/// A route at a listener, and the hosts that it has there; an empty name stands for every host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub route: RouteKey,
    pub hosts: Vec<String>,
}

/// What a route's status says of one of its parents.
#[derive(Clone, Debug, PartialEq)]
pub struct Parent {
    pub reference: ParentRef,
    pub conditions: Vec<Condition>,
}

/// Everything that is read.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub classes: Vec<Arc<GatewayClass>>,
    pub gateways: Vec<Arc<Gateway>>,
    pub http: Vec<Arc<HTTPRoute>>,
    pub grpc: Vec<Arc<GRPCRoute>>,
    pub tls: Vec<Arc<TLSRoute>>,
    pub grants: Vec<Arc<ReferenceGrant>>,
}

/// What it means together.
pub struct Resolved {
    pub gateways: BTreeMap<Key, GatewayState>,
    /// The oldest first: it counts where two say different things of the same requests.
    pub routes: Vec<Route>,
    /// Only parents that are ours; a route without any has none.
    pub parents: BTreeMap<RouteKey, Vec<Parent>>,
    grants: Vec<Arc<ReferenceGrant>>,
}

impl Resolved {
    /// Puts everything together.
    pub fn of(objects: &Objects, world: &dyn World) -> Self {
        let ours = |gateway: &&Arc<Gateway>| {
            objects.classes.iter().any(|class| {
                class.metadata.name.as_ref() == Some(&gateway.spec.gateway_class_name)
                    && class.spec.controller_name == GATEWAY_CONTROLLER
            })
        };
        let gateways = objects.gateways.iter().filter(ours);
        let gateways = gateways.map(|gateway| GatewayState::of(gateway, &objects.grants, world));
        let mut routes: Vec<Route> = objects
            .http
            .iter()
            .map(|route| Route::of(RouteKind::Http, &route.metadata, &route.spec))
            .chain(objects.grpc.iter().map(|route| Route::of(RouteKind::Grpc, &route.metadata, &route.spec)))
            .chain(objects.tls.iter().map(|route| Route::of(RouteKind::Tls, &route.metadata, &route.spec)))
            .collect();
        routes.sort_by(|a, b| {
            let age = |route: &Route| (route.created, route.key.namespace.clone(), route.key.name.clone());
            age(a).cmp(&age(b))
        });
        let mut resolved = Self {
            gateways: gateways.map(|state| (state.key.clone(), state)).collect(),
            routes: Vec::new(),
            parents: BTreeMap::new(),
            grants: objects.grants.clone(),
        };
        for route in &routes {
            resolved.attach(route, world);
        }
        resolved.routes = routes;
        resolved
    }

    /// The Service that one of a route's references leads to.
    pub fn backend(
        &self,
        route: &Route,
        reference: &BackendRef,
        world: &dyn World,
    ) -> Result<Backend, RefError> {
        backend(route, reference, &self.grants, world)
    }

    /// The route of a key.
    pub fn route(&self, key: &RouteKey) -> Option<&Route> {
        self.routes.iter().find(|route| route.key == *key)
    }

    fn attach(&mut self, route: &Route, world: &dyn World) {
        for reference in &route.spec.parent_refs {
            let group = reference.group.as_deref().unwrap_or(GROUP);
            let kind = reference.kind.as_deref().unwrap_or("Gateway");
            let namespace = reference.namespace.as_deref().unwrap_or(&route.key.namespace);
            let key = Key::new(namespace, reference.name.as_str());
            let Some(state) = self.gateways.get_mut(&key).filter(|_| group == GROUP && kind == "Gateway")
            else {
                continue;
            };
            let refs = match unresolved(route, &self.grants, world) {
                Some(error) => Condition::no("ResolvedRefs", error.reason.word(), error.message),
                None => Condition::yes("ResolvedRefs", "ResolvedRefs"),
            };
            let accepted = match attach(route, reference, state, world) {
                Ok(()) => Condition::yes("Accepted", "Accepted"),
                Err((reason, message)) => Condition::no("Accepted", reason, message),
            };
            let parent = Parent { reference: reference.clone(), conditions: vec![accepted, refs] };
            self.parents.entry(route.key.clone()).or_default().push(parent);
        }
    }
}

/// Attaches a route to all listeners that its reference means and that let it; why to none.
fn attach(
    route: &Route,
    reference: &ParentRef,
    state: &mut GatewayState,
    world: &dyn World,
) -> Result<(), (&'static str, String)> {
    if let Some(why) = unreadable(route) {
        return Err(("UnsupportedValue", why));
    }
    let gateway = state.gateway.clone();
    let meant = |listener: &&mut ListenerState| {
        reference.section_name.as_ref().is_none_or(|name| *name == listener.name)
            && reference.port.is_none_or(|port| port == listener.port)
    };
    let mut meant: Vec<_> = state.listeners.iter_mut().filter(meant).collect();
    if meant.is_empty() {
        return Err(("NoMatchingParent", "the Gateway has no such listener".to_owned()));
    }
    let spec = |name: &str| gateway.spec.listeners.iter().find(|listener| listener.name == name);
    meant.retain(|listener| {
        let open = spec(&listener.name).is_some_and(|spec| is_open(spec, &gateway, route, world));
        open && listener.takes_routes() && listener.kinds.contains(&route.key.kind)
    });
    if meant.is_empty() {
        let message =
            format!("no listener takes {}s of namespace {}", route.key.kind.word(), route.key.namespace);
        return Err(("NotAllowedByListeners", message));
    }
    let mut attached = false;
    for listener in meant {
        let hosts = shared_hosts(&listener.hostname, &route.spec.hostnames);
        if !hosts.is_empty() {
            attached = true;
            // Two references of one route may mean the same listener: it is attached once.
            if !listener.attached.iter().any(|known| known.route == route.key) {
                listener.attached.push(Attached { route: route.key.clone(), hosts });
            }
        }
    }
    match attached {
        true => Ok(()),
        false => Err(("NoMatchingListenerHostname", "no listener has a host of this route".to_owned())),
    }
}

fn is_open(listener: &Listener, gateway: &Gateway, route: &Route, world: &dyn World) -> bool {
    let namespaces = listener.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    match namespaces.and_then(|namespaces| namespaces.from.as_deref()).unwrap_or("Same") {
        "All" => true,
        "Same" => gateway.metadata.namespace.as_ref() == Some(&route.key.namespace),
        "Selector" => namespaces
            .and_then(|namespaces| namespaces.selector.as_ref())
            .is_some_and(|selector| world.namespace_matches(&route.key.namespace, selector)),
        _ => false,
    }
}

/// The hosts that a listener and a route have in common, the more particular name of each pair.
fn shared_hosts(listener: &str, route: &[String]) -> Vec<String> {
    if route.is_empty() {
        return vec![listener.to_owned()];
    }
    let within = |host: &str, pattern: &str| {
        pattern.strip_prefix('*').is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
    };
    let shared = |host: &String| {
        let host = host.to_ascii_lowercase();
        if listener.is_empty() || host == listener || within(&host, listener) {
            Some(host)
        } else {
            within(listener, &host).then(|| listener.to_owned())
        }
    };
    route.iter().filter_map(shared).collect()
}

/// What of a route cannot be read, though it has the right form.
fn unreadable(route: &Route) -> Option<String> {
    let expression = |kind: &Option<String>, value: &str| {
        let error = kind
            .as_deref()
            .filter(|kind| *kind == "RegularExpression")
            .and_then(|_| Regex::new(value).err())?;
        let why = error.to_string().lines().last().unwrap_or_default().to_owned();
        Some(format!("the expression {value} cannot be used: {why}"))
    };
    for of in route.spec.rules.iter().flat_map(|rule| &rule.matches) {
        let path = of.path.as_ref();
        let path = path.and_then(|path| expression(&path.r#type, path.value.as_deref().unwrap_or("/")));
        let mut values = of.headers.iter().chain(&of.query_params);
        let found = path.or_else(|| values.find_map(|value| expression(&value.r#type, &value.value)));
        if found.is_some() {
            return found;
        }
    }
    let timeouts = route.spec.rules.iter().filter_map(|rule| rule.timeouts.as_ref());
    let mut times = timeouts.flat_map(|timeouts| [&timeouts.request, &timeouts.backend_request]).flatten();
    let wrong = times.find(|time| super::duration(time).is_none());
    wrong.map(|time| format!("{time} is no duration"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::typed::SecretKey;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    /// Every Service `web` has port 80; Secret `good` holds a certificate; namespace `shop` has label `open`.
    struct Small;

    impl World for Small {
        fn has_port(&self, _: &str, service: &str, port: u16) -> bool {
            service == "web" && port == 80
        }

        fn certificate(&self, key: &SecretKey) -> Result<(), String> {
            if key.name == "good" { Ok(()) } else { Err("missing".to_owned()) }
        }

        fn namespace_matches(&self, name: &str, _: &LabelSelector) -> bool {
            name == "shop"
        }
    }

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).expect("readable"))
    }

    fn gateway(listeners: Value) -> Objects {
        let meta = |name: &str| json!({ "name": name, "namespace": "infra" });
        Objects {
            classes: vec![read(
                json!({ "metadata": { "name": "minik" }, "spec": { "controllerName": GATEWAY_CONTROLLER } }),
            )],
            gateways: vec![read(
                json!({ "metadata": meta("gw"), "spec": { "gatewayClassName": "minik", "listeners": listeners } }),
            )],
            ..Objects::default()
        }
    }

    fn route(namespace: &str, spec: Value) -> Arc<HTTPRoute> {
        read(json!({ "metadata": { "name": "r", "namespace": namespace }, "spec": spec }))
    }

    fn to(name: &str, parent: Value) -> Value {
        let mut reference = json!({ "name": "gw", "namespace": "infra" });
        json_patch::merge(&mut reference, &parent);
        json!({ "parentRefs": [reference], "rules": [{ "backendRefs": [{ "name": name, "port": 80 }] }] })
    }

    fn reasons(conditions: &[Condition]) -> String {
        let text = |one: &Condition| format!("{}={}/{}", one.kind, one.status, one.reason);
        conditions.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    /// What upstream's conformance cases of attachment expect.
    #[test]
    fn routes_attach_where_they_may() {
        let listeners = || {
            json!([
                { "name": "same", "port": 80, "protocol": "HTTP", "hostname": "same.example" },
                { "name": "all", "port": 81, "protocol": "HTTP", "hostname": "*.example", "allowedRoutes": { "namespaces": { "from": "All" } } },
                { "name": "some", "port": 82, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "Selector", "selector": {} } } },
                { "name": "tls", "port": 443, "protocol": "TLS", "tls": { "mode": "Passthrough" }, "allowedRoutes": { "namespaces": { "from": "All" } } },
            ])
        };
        let check = |namespace: &str, spec: Value, accepted: &str, at: &[(&str, &[&str])]| {
            let mut objects = gateway(listeners());
            objects.http.push(route(namespace, spec.clone()));
            let resolved = Resolved::of(&objects, &Small);
            let parents = resolved.parents.values().next().expect("a parent");
            assert_eq!(parents[0].conditions[0].reason, accepted, "{namespace} {spec}");
            assert_eq!(parents[0].conditions[0].status, accepted == "Accepted");
            let state = resolved.gateways.values().next().expect("a Gateway");
            let found: Vec<(&str, Vec<&str>)> = state
                .listeners
                .iter()
                .flat_map(|listener| {
                    listener
                        .attached
                        .iter()
                        .map(|one| (listener.name.as_str(), one.hosts.iter().map(String::as_str).collect()))
                })
                .collect();
            let at: Vec<(&str, Vec<&str>)> = at.iter().map(|(name, hosts)| (*name, hosts.to_vec())).collect();
            assert_eq!(found, at, "{namespace} {spec}");
        };
        let hosts = |hosts: &[&str], parent: Value| {
            let mut spec = to("web", parent);
            spec["hostnames"] = json!(hosts);
            spec
        };
        check(
            "infra",
            to("web", json!({})),
            "Accepted",
            &[("same", &["same.example"]), ("all", &["*.example"])],
        );
        check("shop", to("web", json!({})), "Accepted", &[("all", &["*.example"]), ("some", &[""])]);
        check("other", to("web", json!({ "sectionName": "same" })), "NotAllowedByListeners", &[]);
        check("infra", to("web", json!({ "sectionName": "tls" })), "NotAllowedByListeners", &[]);
        check("infra", to("web", json!({ "sectionName": "none" })), "NoMatchingParent", &[]);
        check("infra", to("web", json!({ "port": 9 })), "NoMatchingParent", &[]);
        check("infra", to("web", json!({ "port": 80 })), "Accepted", &[("same", &["same.example"])]);
        check("infra", hosts(&["b.example", "c"], json!({})), "Accepted", &[("all", &["b.example"])]);
        check("infra", hosts(&["*.b.example", "*.c"], json!({})), "Accepted", &[("all", &["*.b.example"])]);
        check("infra", hosts(&["example"], json!({})), "NoMatchingListenerHostname", &[]);
        check(
            "infra",
            hosts(&["*.example"], json!({ "port": 80 })),
            "Accepted",
            &[("same", &["same.example"])],
        );
        let regex =
            json!({ "rules": [{ "matches": [{ "path": { "type": "RegularExpression", "value": "(" } }] }] });
        let mut spec = to("web", json!({}));
        json_patch::merge(&mut spec, &regex);
        check("infra", spec, "UnsupportedValue", &[]);
    }

    #[test]
    fn references_are_found_or_the_reason_is_told() {
        let check = |reference: Value, grant: Option<Value>, expect: &str| {
            let mut objects = gateway(json!([{ "name": "a", "port": 80, "protocol": "HTTP" }]));
            let mut spec = to("web", json!({}));
            json_patch::merge(&mut spec["rules"][0]["backendRefs"][0], &reference);
            objects.http.push(route("infra", spec));
            objects.grants.extend(grant.map(|to| {
                read(json!({ "metadata": { "name": "g", "namespace": "far" },
                    "spec": { "from": [{ "group": GROUP, "kind": "HTTPRoute", "namespace": "infra" }], "to": [to] } }))
            }));
            let resolved = Resolved::of(&objects, &Small);
            let conditions = &resolved.parents.values().next().expect("a parent")[0].conditions;
            assert_eq!(conditions[1].reason, expect, "{reference}");
            assert!(
                conditions[0].status,
                "{reference}: what cannot be reached is answered with an error, and accepted"
            );
        };
        check(json!({}), None, "ResolvedRefs");
        check(json!({ "name": "none" }), None, "BackendNotFound");
        check(json!({ "port": 81 }), None, "BackendNotFound");
        check(json!({ "kind": "Bucket" }), None, "InvalidKind");
        check(json!({ "namespace": "far" }), None, "RefNotPermitted");
        let service = |name: &str| json!({ "group": "", "kind": "Service", "name": name });
        check(json!({ "namespace": "far" }), Some(service("")), "ResolvedRefs");
        check(json!({ "namespace": "far" }), Some(service("web")), "ResolvedRefs");
        check(json!({ "namespace": "far" }), Some(service("other")), "RefNotPermitted");
        check(
            json!({ "namespace": "far" }),
            Some(json!({ "group": "", "kind": "Secret" })),
            "RefNotPermitted",
        );
    }

    #[test]
    fn listeners_say_what_is_wrong_with_them() {
        let check = |listeners: Value, gateway_reason: &str, expect: &[&str]| {
            let resolved = Resolved::of(&gateway(listeners.clone()), &Small);
            let state = resolved.gateways.values().next().expect("a Gateway");
            assert_eq!(
                format!("{}/{}", state.accepted.status, state.accepted.reason),
                gateway_reason,
                "{listeners}"
            );
            let found: Vec<String> =
                state.listeners.iter().map(|listener| reasons(&listener.conditions)).collect();
            assert_eq!(found, expect, "{listeners}");
        };
        let good = "Accepted=true/Accepted Conflicted=false/NoConflicts Programmed=true/Programmed ResolvedRefs=true/ResolvedRefs";
        let http = |name: &str, port: u16| json!({ "name": name, "port": port, "protocol": "HTTP" });
        check(json!([http("a", 80)]), "true/Accepted", &[good]);
        let wrong = "Accepted=false/UnsupportedProtocol Conflicted=false/NoConflicts Programmed=false/Invalid ResolvedRefs=true/ResolvedRefs";
        let odd = json!({ "name": "odd", "port": 81, "protocol": "x.example/y" });
        check(json!([odd]), "false/ListenersNotValid", &[wrong]);
        check(json!([http("a", 80), odd]), "true/ListenersNotValid", &[good, wrong]);
        let both = "Accepted=false/HostnameConflict Conflicted=true/HostnameConflict Programmed=false/Invalid ResolvedRefs=true/ResolvedRefs";
        check(
            json!([http("a", 80), http("b", 80), http("c", 81)]),
            "true/ListenersNotValid",
            &[both, both, good],
        );
        let https = |secret: &str| json!([{ "name": "s", "port": 443, "protocol": "HTTPS", "tls": { "certificateRefs": [{ "name": secret }] } }]);
        check(https("good"), "true/Accepted", &[good]);
        let unresolved = "Accepted=true/Accepted Conflicted=false/NoConflicts Programmed=false/Invalid ResolvedRefs=false/InvalidCertificateRef";
        check(https("missing"), "true/Accepted", &[unresolved]);
        let mut kinds = http("a", 80);
        kinds["allowedRoutes"] = json!({ "kinds": [{ "kind": "HTTPRoute" }, { "kind": "TLSRoute" }] });
        let kind = "Accepted=true/Accepted Conflicted=false/NoConflicts Programmed=true/Programmed ResolvedRefs=false/InvalidRouteKinds";
        check(json!([kinds]), "true/Accepted", &[kind]);
    }
}
