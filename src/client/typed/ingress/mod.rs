//! Whose an Ingress is, and what of it is not done: known to the controller that writes its status and to the proxy that
//! serves it.

mod annotations;

use std::fmt;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressClass};
use kube::ResourceExt;
use regex::{Regex, RegexBuilder};

pub use annotations::{Annotations, BackendProtocol, CorsAnnotations, NGINX};

/// The controller name of IngressClasses that are served.
pub const INGRESS_CONTROLLER: &str = "minik.dev/ingress";
/// The class that is made at the start.
pub const INGRESS_CLASS: &str = "minik";
/// The Service whose load balancer address Ingresses are served at, and its namespace.
pub const INGRESS_SERVICE: (&str, &str) = ("kube-system", "minik-ingress");
/// Says that a class is for Ingresses that name none.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// The class as it was named before there was a field.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";
/// Namespace and name of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    pub namespace: String,
    pub name: String,
}

impl SecretKey {
    /// The key for `namespace/name`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether an Ingress is ours to serve: its class is, or it has none and the default class is.
pub fn is_served<'a>(ingress: &Ingress, mut classes: impl Iterator<Item = &'a IngressClass>) -> bool {
    let named = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_ref());
    let named = named.or_else(|| ingress.annotations().get(OLD_CLASS));
    let ours = |class: &IngressClass| {
        class.spec.as_ref().and_then(|spec| spec.controller.as_deref()) == Some(INGRESS_CONTROLLER)
    };
    let is_default =
        |class: &IngressClass| class.annotations().get(DEFAULT_CLASS).is_some_and(|value| value == "true");
    match named {
        Some(name) => classes.any(|class| class.name_any() == *name && ours(class)),
        None => classes.any(|class| is_default(class) && ours(class)),
    }
}

/// What of an Ingress is not served, or not as it is written, in words for Events.
pub fn problems(ingress: &Ingress) -> Vec<String> {
    let annotations = Annotations::of(ingress.annotations());
    let ignored = annotations
        .ignored
        .iter()
        .map(|what| format!("The annotation {what} is not supported and has no effect"));
    let refused = annotations
        .refused
        .iter()
        .map(|what| format!("The annotation {what} is not supported: what it protects is not served (503)"));
    let mut all: Vec<String> = ignored.chain(refused).collect();
    let spec = ingress.spec.as_ref();
    let rules = spec.and_then(|spec| spec.rules.as_ref()).into_iter().flatten();
    let paths = rules.filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths);
    let default = spec.and_then(|spec| spec.default_backend.as_ref());
    for path in paths.clone() {
        if let Some(Err(why)) = expression(&annotations, path) {
            all.push(format!("The path {} is not served: {why}", path.path.as_deref().unwrap_or_default()));
        }
    }
    for resource in
        paths.map(|path| &path.backend).chain(default).filter_map(|backend| backend.resource.as_ref())
    {
        let (kind, name) = (&resource.kind, &resource.name);
        all.push(format!("The backend {kind} {name} is not served (503): only Services are supported"));
    }
    all
}

/// The expression that a path is, if it is one: ingress-nginx takes all paths so where it rewrites or is asked to.
pub fn expression(annotations: &Annotations, path: &HTTPIngressPath) -> Option<Result<Regex, String>> {
    let text = path.path.as_deref().unwrap_or("/");
    let groups = annotations.rewrite.is_some() && text.contains('(');
    (annotations.regex || groups).then(|| {
        let built = RegexBuilder::new(&format!("^{text}")).case_insensitive(true).build();
        built.map_err(|error| error.to_string().lines().last().unwrap_or_default().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_served_is_told() {
        let service = json!({ "service": { "name": "s", "port": { "number": 80 } } });
        let path = |path: &str, backend: &serde_json::Value| json!({ "path": path, "pathType": "ImplementationSpecific", "backend": backend });
        let bucket = json!({ "resource": { "kind": "Bucket", "name": "b" } });
        let ingress = json!({ "metadata": { "annotations": { format!("{NGINX}use-regex"): "true" } },
            "spec": { "rules": [{ "http": { "paths": [path("/a[0-9]+", &service), path("/(?=x)", &service), path("/b", &bucket)] } }] } });
        let told = problems(&serde_json::from_value(ingress).expect("an Ingress"));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("The path /(?=x) is not served: "), "{}", told[0]);
        assert!(told[1].starts_with("The backend Bucket b is not served"), "{}", told[1]);
    }
}
