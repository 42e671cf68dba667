//! Ingresses: a Service whose load balancer address they are served at, that address in their status, and an Event for
//! what is not supported. The proxy in the agent that answers for the address does the rest.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::context::{Context, Error, ignore_exists, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};
use client::typed::{INGRESS_CLASS, INGRESS_CONTROLLER, INGRESS_SERVICE, OTHER_PROXY, is_served, problems};

struct Reconciler {
    context: Context,
    ingresses: Cache<Ingress>,
    classes: Cache<IngressClass>,
    services: Cache<Service>,
}

fn service_key() -> Key {
    Key::new(INGRESS_SERVICE.0, INGRESS_SERVICE.1)
}

/// The key that stands for what all Ingresses share.
fn shared() -> Key {
    Key::cluster("")
}

pub(super) fn start(context: &Context) {
    let (ingresses, classes) = (context.cache::<Ingress>(), context.cache::<IngressClass>());
    let services = context.cache::<Service>();
    let mut harness = Harness::new(context);
    harness.watches(&ingresses, |change, queue| {
        let Some(ingress) = change.latest() else { return };
        queue.add(Key::of(&ingress.metadata));
        // The first one needs the Service.
        queue.add(shared());
    });
    let all = ingresses.clone();
    harness.watches(&classes, move |_, queue| {
        queue.add(shared());
        all.list().iter().for_each(|ingress| queue.add(Key::of(&ingress.metadata)));
    });
    let all = ingresses.clone();
    harness.watches(&services, move |change, queue| {
        let ours = change.latest().is_some_and(|service| Key::of(&service.metadata) == service_key());
        if ours {
            queue.add(shared());
            all.list().iter().for_each(|ingress| queue.add(Key::of(&ingress.metadata)));
        } else if let (Some(new), None) = (change.new, change.old) {
            let key = Key::of(&new.metadata);
            for ingress in all.list().iter().filter(|ingress| backends(ingress).any(|to| to == key)) {
                queue.add(shared());
                queue.add(Key::of(&ingress.metadata));
            }
        }
    });
    harness.queue().add(shared());
    let context = context.clone();
    harness.run(1, Arc::new(Reconciler { context, ingresses, classes, services }));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        if *key == shared() {
            self.class().await?;
            self.service().await?;
        } else if let Some(ingress) = self.ingresses.get(key) {
            self.ingress(key, &ingress).await?;
        }
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    fn serves(&self, ingress: &Ingress) -> bool {
        let classes = self.classes.list();
        is_served(ingress, classes.iter().map(AsRef::as_ref))
    }

    /// Whether one of its backends is there. Before that there is nothing to be had at any address.
    fn leads_somewhere(&self, ingress: &Ingress) -> bool {
        backends(ingress).any(|key| self.services.get(&key).is_some())
    }

    /// One class of ours there shall be; it is the default unless another one is.
    async fn class(&self) -> Result<(), Error> {
        let classes = self.classes.list();
        let controller = |class: &IngressClass| {
            class.spec.as_ref().and_then(|spec| spec.controller.clone()).unwrap_or_default()
        };
        if classes.iter().any(|class| controller(class) == INGRESS_CONTROLLER) {
            return Ok(());
        }
        let default = "ingressclass.kubernetes.io/is-default-class";
        let taken = classes.iter().any(|class| class.annotations().get(default).is_some_and(|v| v == "true"));
        let class = json!({
            "metadata": { "name": INGRESS_CLASS, "annotations": { default: (!taken).to_string() } },
            "spec": { "controller": INGRESS_CONTROLLER },
        });
        let class: IngressClass =
            serde_json::from_value(class).map_err(|error| Error::Other(error.to_string()))?;
        let api = kube::Api::<IngressClass>::all(self.context.client.clone());
        ignore_exists(api.create(&PostParams::default(), &class).await)?;
        Ok(())
    }

    /// It comes with the first Ingress that leads somewhere, and stays: an address that people have noted is not
    /// taken away.
    async fn service(&self) -> Result<(), Error> {
        let wants = |ingress: &Arc<Ingress>| self.serves(ingress) && self.leads_somewhere(ingress);
        if self.services.get(&service_key()).is_some() || !self.ingresses.list().iter().any(wants) {
            return Ok(());
        }
        let port = |name: &str, port: u16| json!({ "name": name, "port": port, "protocol": "TCP" });
        let service = json!({
            "metadata": { "name": INGRESS_SERVICE.1, "namespace": INGRESS_SERVICE.0, "labels": { OTHER_PROXY: "minik-ingress" } },
            "spec": {
                "type": "LoadBalancer",
                "allocateLoadBalancerNodePorts": false,
                "ports": [port("http", 80), port("https", 443)],
            },
        });
        let service: Service =
            serde_json::from_value(service).map_err(|error| Error::Other(error.to_string()))?;
        let api = self.context.api::<Service>(INGRESS_SERVICE.0);
        ignore_exists(api.create(&PostParams::default(), &service).await)?;
        Ok(())
    }

    async fn ingress(&self, key: &Key, ingress: &Ingress) -> Result<(), Error> {
        if !self.serves(ingress) || ingress.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        for problem in problems(ingress) {
            self.context.recorder.warning(ingress.object_ref(&()), "NotSupported", problem);
        }
        let addresses =
            self.services.get(&service_key()).map(|service| addresses(&service)).unwrap_or_default();
        let (has, wants) =
            (serde_json::to_value(&ingress.status), json!({ "loadBalancer": { "ingress": addresses } }));
        let same = has
            .is_ok_and(|has| has.pointer("/loadBalancer/ingress") == wants.pointer("/loadBalancer/ingress"));
        if same || addresses.is_empty() || !self.leads_somewhere(ingress) {
            return Ok(());
        }
        let api = self.context.api::<Ingress>(&key.namespace);
        let patch = Patch::Merge(json!({ "status": wants }));
        ignore_not_found(api.patch_status(&key.name, &PatchParams::default(), &patch).await)?;
        Ok(())
    }
}

/// The Services that the Ingress names.
fn backends(ingress: &Ingress) -> impl Iterator<Item = Key> {
    let spec = ingress.spec.iter();
    let rules = spec.clone().flat_map(|spec| spec.rules.iter().flatten());
    let paths = rules.filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths);
    let backends =
        spec.filter_map(|spec| spec.default_backend.as_ref()).chain(paths.map(|path| &path.backend));
    let namespace = ingress.namespace().unwrap_or_default();
    backends.filter_map(move |backend| Some(Key::new(&namespace, &backend.service.as_ref()?.name)))
}

fn addresses(service: &Service) -> Vec<Value> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|entry| Some(json!({ "ip": entry.ip.as_ref()? }))).collect()
}
