//! The objects of the Gateway API, as far as minik reads them; group `gateway.networking.k8s.io`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The group of all kinds here.
pub const GROUP: &str = "gateway.networking.k8s.io";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $spec:ty, $plural:literal, $version:literal, $scope:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize, Serialize)]
        pub struct $name {
            pub metadata: ObjectMeta,
            pub spec: $spec,
            #[serde(default, skip_serializing_if = "Value::is_null")]
            pub status: Value,
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                stringify!($name).into()
            }

            fn group((): &()) -> Cow<'_, str> {
                GROUP.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    )*};
}

kinds! {
    /// Who serves Gateways of this class.
    GatewayClass: GatewayClassSpec, "gatewayclasses", "v1", ClusterResourceScope;
    /// Ports of an address, and which routes may attach to each.
    Gateway: GatewaySpec, "gateways", "v1", NamespaceResourceScope;
    /// What happens to HTTP requests.
    HTTPRoute: RouteSpec, "httproutes", "v1", NamespaceResourceScope;
    /// The same for gRPC.
    GRPCRoute: RouteSpec, "grpcroutes", "v1", NamespaceResourceScope;
    /// Where TLS connections go.
    TLSRoute: RouteSpec, "tlsroutes", "v1", NamespaceResourceScope;
    /// Who in other namespaces may name what here.
    ReferenceGrant: GrantSpec, "referencegrants", "v1beta1", NamespaceResourceScope;
}

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $(pub $field: $kind,)* }
    )*};
}

shapes! {
    /// A class's controller.
    GatewayClassSpec { controller_name: String, parameters_ref: Option<ObjectRef>, }
    /// What a Gateway is.
    GatewaySpec {
        gateway_class_name: String,
        listeners: Vec<Listener>,
        addresses: Vec<Address>,
        infrastructure: Infrastructure,
        tls: Option<Value>,
        allowed_listeners: Option<Value>,
    }
    /// A wished address.
    Address { r#type: Option<String>, value: Option<String>, }
    /// What is put on objects that are made for a Gateway.
    Infrastructure {
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        parameters_ref: Option<ObjectRef>,
    }
    /// A port, and for which hosts.
    Listener {
        name: String,
        hostname: Option<String>,
        port: u16,
        protocol: String,
        tls: Option<ListenerTls>,
        allowed_routes: Option<AllowedRoutes>,
    }
    /// What a listener does with TLS.
    ListenerTls { mode: Option<String>, certificate_refs: Vec<ObjectRef>, }
    /// Which routes may attach.
    AllowedRoutes { namespaces: Option<FromNamespaces>, kinds: Vec<RouteGroupKind>, }
    /// Of which namespaces.
    FromNamespaces { from: Option<String>, selector: Option<LabelSelector>, }
    /// A kind of route.
    RouteGroupKind { group: Option<String>, kind: String, }
    /// Any object, of this namespace unless it says another.
    ObjectRef { group: Option<String>, kind: Option<String>, name: String, namespace: Option<String>, }
    /// What a route attaches to.
    ParentRef {
        group: Option<String>,
        kind: Option<String>,
        namespace: Option<String>,
        name: String,
        section_name: Option<String>,
        port: Option<u16>,
    }
    /// A route of any kind: each leaves empty what it does not have.
    RouteSpec { parent_refs: Vec<ParentRef>, hostnames: Vec<String>, rules: Vec<RouteRule>, }
    /// Which requests, and what happens to them.
    RouteRule {
        matches: Vec<RouteMatch>,
        filters: Vec<RouteFilter>,
        backend_refs: Vec<BackendRef>,
        timeouts: Option<Timeouts>,
    }
    /// All must be so. For gRPC `method` is an object.
    RouteMatch {
        path: Option<PathValue>,
        headers: Vec<NamedValue>,
        query_params: Vec<NamedValue>,
        method: Option<Value>,
    }
    /// How a path is compared.
    PathValue { r#type: Option<String>, value: Option<String>, }
    /// How a header or a parameter is compared, or what it becomes.
    NamedValue { r#type: Option<String>, name: String, value: String, }
    /// One of gRPC's methods.
    GrpcMethod { r#type: Option<String>, service: Option<String>, method: Option<String>, }
    /// Durations in the form of Go, as `1m30s`.
    Timeouts { request: Option<String>, backend_request: Option<String>, }
    /// One of several steps: `type` says which.
    RouteFilter {
        r#type: String,
        request_header_modifier: Option<HeaderFilter>,
        response_header_modifier: Option<HeaderFilter>,
        request_redirect: Option<RedirectFilter>,
        url_rewrite: Option<RewriteFilter>,
        request_mirror: Option<MirrorFilter>,
        cors: Option<CorsFilter>,
        extension_ref: Option<ObjectRef>,
    }
    /// Changes of headers.
    HeaderFilter { set: Vec<NamedValue>, add: Vec<NamedValue>, remove: Vec<String>, }
    /// Where clients shall go.
    RedirectFilter {
        scheme: Option<String>,
        hostname: Option<String>,
        path: Option<PathModifier>,
        port: Option<u16>,
        status_code: Option<u16>,
    }
    /// What backends see.
    RewriteFilter { hostname: Option<String>, path: Option<PathModifier>, }
    /// What becomes of a path.
    PathModifier {
        r#type: String,
        replace_full_path: Option<String>,
        replace_prefix_match: Option<String>,
    }
    /// Who gets copies.
    MirrorFilter { backend_ref: BackendRef, percent: Option<u32>, fraction: Option<Fraction>, }
    /// A part of all.
    Fraction { numerator: u32, denominator: Option<u32>, }
    /// What browsers may do across origins.
    CorsFilter {
        allow_origins: Vec<String>,
        allow_credentials: Option<bool>,
        allow_methods: Vec<String>,
        allow_headers: Vec<String>,
        expose_headers: Vec<String>,
        max_age: Option<u32>,
    }
    /// Where requests go.
    BackendRef {
        group: Option<String>,
        kind: Option<String>,
        name: String,
        namespace: Option<String>,
        port: Option<u16>,
        weight: Option<u32>,
        filters: Vec<RouteFilter>,
    }
    /// Who may name what.
    GrantSpec { from: Vec<GrantFrom>, to: Vec<ObjectRef>, }
    /// Objects of a kind in a namespace.
    GrantFrom { group: String, kind: String, namespace: String, }
}
