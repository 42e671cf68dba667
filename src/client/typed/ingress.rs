//! Whose an Ingress is, and what of it is not done: known to the controller that writes its status and to the proxy that
//! serves it.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::ResourceExt;

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
/// How ingress-nginx's annotations begin.
pub const NGINX: &str = "nginx.ingress.kubernetes.io/";

/// The annotations of ingress-nginx that are understood.
const UNDERSTOOD: &[&str] = &[
    "app-root",
    "backend-protocol",
    "force-ssl-redirect",
    "permanent-redirect",
    "permanent-redirect-code",
    "proxy-body-size",
    "proxy-read-timeout",
    "rewrite-target",
    "ssl-redirect",
    "temporal-redirect",
    "temporal-redirect-code",
    "use-regex",
];

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

/// What the annotations ask for that is not done, in words for an Event.
pub fn unsupported(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let nginx = annotations.iter().filter_map(|(name, value)| Some((name.strip_prefix(NGINX)?, value)));
    nginx
        .filter_map(|(name, value)| match name {
            "backend-protocol" => {
                let known = ["HTTP", "GRPC", "AUTO_HTTP"].iter().any(|own| value.eq_ignore_ascii_case(own));
                (!known).then(|| format!("{NGINX}{name}: {value} (HTTP and GRPC are)"))
            }
            name if UNDERSTOOD.contains(&name) => None,
            name => Some(format!("{NGINX}{name}")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_is_named() {
        let of =
            |name: &str, value: &str| unsupported(&[(format!("{NGINX}{name}"), value.to_owned())].into());
        assert_eq!(of("rewrite-target", "/"), [""; 0]);
        assert_eq!(of("auth-type", "basic"), ["nginx.ingress.kubernetes.io/auth-type"]);
        assert_eq!(
            of("backend-protocol", "FCGI"),
            ["nginx.ingress.kubernetes.io/backend-protocol: FCGI (HTTP and GRPC are)"]
        );
    }
}
