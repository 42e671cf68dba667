//! The Gateway API: its definitions, the class `minik`, a Service for each Gateway, and all statuses. The proxy in the agent
//! that answers for a Gateway's address does the rest.
//!
//! ```text
//! start --> definitions --served--> classes --first Gateway--> all kinds --any change--> Resolved --> Services, statuses
//! ```
//!
//! Routes are watched only once there is a Gateway: a cluster that uses none pays for two idle watches.

mod definitions;
mod services;
mod status;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::context::{Context, Error, ignore_exists, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use client::gateway::{
    Caches, GATEWAY_CLASS, GATEWAY_CONTROLLER, GROUP, Gateway, GatewayClass, Parent, Resolved, RouteKey,
    RouteKind, World,
};
use client::informer::{Cache, Key, Object};
use client::typed::{SecretKey, selects};
use pki::certified;
use rt::Backoff;

/// Between attempts to install the definitions.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(30) };

pub(super) fn start(context: &Context) {
    let definitions = context.cache::<CustomResourceDefinition>();
    let own = context.clone();
    context.tasks.spawn_until_stop(async move {
        definitions.synced().await;
        let mut failures = 0;
        while let Err(error) = definitions::install(&own, &definitions).await {
            failures += 1;
            tracing::warn!(%error, "the Gateway API is not installed yet");
            tokio::time::sleep(RETRY.delay(failures)).await;
        }
        follow(own, definitions).await;
    });
}

/// Waits until the cache holds something of which this is so.
async fn until<K: Object>(cache: &Cache<K>, is_so: impl Fn(&Cache<K>) -> bool) {
    let changed = Arc::new(Notify::new());
    let wake = changed.clone();
    cache.on_change(move |_| wake.notify_one());
    while !is_so(cache) {
        changed.notified().await;
    }
}

async fn follow(context: Context, definitions: Cache<CustomResourceDefinition>) {
    until(&definitions, |definitions| {
        let ours = definitions.list().into_iter().filter(|one| one.spec.group == GROUP);
        let plurals: Vec<String> =
            ours.filter(|one| definitions::is_served(one)).map(|one| one.spec.names.plural.clone()).collect();
        ["gatewayclasses", "gateways", "httproutes", "grpcroutes", "tlsroutes", "referencegrants"]
            .iter()
            .all(|plural| plurals.iter().any(|served| served == plural))
    })
    .await;
    let classes = context.cache::<GatewayClass>();
    let mut harness = Harness::new(&context);
    harness.watches(&classes, |_, queue| queue.add(()));
    harness.queue().add(());
    harness.run(1, Arc::new(Classes { context: context.clone(), classes }));
    until(&context.cache::<Gateway>(), |gateways| !gateways.is_empty()).await;
    serve(&context);
}

/// One class of ours there shall be, and each says what it can.
struct Classes {
    context: Context,
    classes: Cache<GatewayClass>,
}

impl Reconcile for Classes {
    type Key = ();

    async fn reconcile(&self, (): &()) -> Result<Outcome, Error> {
        let api = self.context.all::<GatewayClass>();
        let all = self.classes.list();
        let ours: Vec<_> =
            all.iter().filter(|class| class.spec.controller_name == GATEWAY_CONTROLLER).collect();
        if ours.is_empty() {
            let class = json!({ "metadata": { "name": GATEWAY_CLASS },
                "spec": { "controllerName": GATEWAY_CONTROLLER, "description": "Served by the agents' own proxy" } });
            let class = serde_json::from_value(class).map_err(|error| Error::Other(error.to_string()))?;
            ignore_exists(api.create(&PostParams::default(), &class).await)?;
        }
        for class in ours {
            let wanted = status::class(class, &now(&self.context));
            if class.status != wanted {
                write(&api, &class.name_any(), class.metadata.resource_version.as_ref(), wanted).await?;
            }
        }
        Ok(Outcome::Done)
    }
}

fn now(context: &Context) -> String {
    let time = serde_json::to_value(Time(context.now())).unwrap_or_default();
    time.as_str().unwrap_or_default().to_owned()
}

/// Writes a status, if nobody wrote meanwhile.
async fn write<K: Object>(
    api: &Api<K>,
    name: &str,
    version: Option<&String>,
    status: Value,
) -> Result<(), Error> {
    let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "status": status }));
    ignore_not_found(api.patch_status(name, &PatchParams::default(), &patch).await)?;
    Ok(())
}

/// All that Gateways and routes depend on.
struct Reconciler {
    context: Context,
    caches: Caches,
    services: Cache<Service>,
    namespaces: Cache<Namespace>,
    /// Those that hold certificates.
    secrets: Cache<Secret>,
}

fn serve(context: &Context) {
    let caches = Caches::start(&context.informers);
    let services = context.cache::<Service>();
    let namespaces = context.cache::<Namespace>();
    let secrets = context.informers.selected::<Secret>("type=kubernetes.io/tls");
    let mut harness = Harness::new(context);
    let queue = harness.queue();
    caches.on_change(move || queue.add(()));
    let waiting = caches.clone();
    harness.waits_for(async move { waiting.synced().await });
    harness.watches(&services, |_, queue| queue.add(()));
    harness.watches(&namespaces, |_, queue| queue.add(()));
    harness.watches(&secrets, |_, queue| queue.add(()));
    harness.run(1, Arc::new(Reconciler { context: context.clone(), caches, services, namespaces, secrets }));
}

impl World for Reconciler {
    fn has_port(&self, namespace: &str, service: &str, port: u16) -> bool {
        let Some(service) = self.services.named(namespace, service) else { return false };
        let spec = service.spec.as_ref();
        let external = spec.is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"));
        let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
        external || ports.into_iter().any(|known| known.port == i32::from(port))
    }

    fn certificate(&self, key: &SecretKey) -> Result<(), String> {
        let Some(secret) = self.secrets.named(&key.namespace, &key.name) else {
            return Err("there is no such Secret of type kubernetes.io/tls".to_owned());
        };
        let part = |name: &str| {
            let part = secret.data.as_ref().and_then(|data| data.get(name));
            part.map(|part| part.0.as_slice()).unwrap_or_default()
        };
        certified(part("tls.crt"), part("tls.key")).map(|_| ()).map_err(|error| error.to_string())
    }

    fn namespace_matches(&self, name: &str, selector: &LabelSelector) -> bool {
        let namespace = self.namespaces.named("", name);
        namespace.is_some_and(|namespace| selects(selector, namespace.metadata.labels.as_ref()))
    }
}

impl Reconcile for Reconciler {
    type Key = ();

    async fn reconcile(&self, (): &()) -> Result<Outcome, Error> {
        let resolved = Resolved::of(&self.caches.objects(), self);
        let now = now(&self.context);
        for state in resolved.gateways.values() {
            if state.gateway.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let address = services::ensure(&self.context, &self.services, state).await?;
            let wanted = status::gateway(state, &address, &now);
            if state.gateway.status != wanted {
                let api = self.context.api::<Gateway>(&state.key.namespace);
                let version = state.gateway.metadata.resource_version.as_ref();
                write(&api, &state.key.name, version, wanted).await?;
            }
        }
        let parents = |kind, key: Key| {
            let key = RouteKey { kind, namespace: key.namespace, name: key.name };
            resolved.parents.get(&key).cloned().unwrap_or_default()
        };
        for route in self.caches.http.list() {
            let parents = parents(RouteKind::Http, Key::of(&route.metadata));
            self.route(&*route, &route.status, &parents, &now).await?;
        }
        for route in self.caches.grpc.list() {
            let parents = parents(RouteKind::Grpc, Key::of(&route.metadata));
            self.route(&*route, &route.status, &parents, &now).await?;
        }
        for route in self.caches.tls.list() {
            let parents = parents(RouteKind::Tls, Key::of(&route.metadata));
            self.route(&*route, &route.status, &parents, &now).await?;
        }
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    async fn route<K>(&self, route: &K, known: &Value, parents: &[Parent], now: &str) -> Result<(), Error>
    where
        K: Object + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let wanted = status::route(known, parents, route.meta().generation, now);
        let none = wanted["parents"].as_array().is_none_or(Vec::is_empty) && known.is_null();
        if *known == wanted || none {
            return Ok(());
        }
        let api = self.context.api::<K>(&route.namespace().unwrap_or_default());
        write(&api, &route.name_any(), route.meta().resource_version.as_ref(), wanted).await
    }
}
