//! The Service of each Gateway: it gets the address, and the agent that answers for it serves the Gateway there.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::status::Address;
use crate::context::{Context, Error, ignore_exists, ignore_not_found};
use client::gateway::{GATEWAY_NAME, GATEWAY_PROXY, GatewayState, service_name};
use client::informer::Cache;
use client::typed::{GATEWAY, OTHER_PROXY, is_controlled_by, owner_ref};

/// The longest value that a label may have.
const LABEL: usize = 63;

/// What a Gateway's Service shall have.
struct Wanted {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    ports: BTreeSet<u16>,
    ip: Option<String>,
}

impl Wanted {
    fn of(state: &GatewayState) -> Self {
        let (spec, name) = (&state.gateway.spec, &state.key.name);
        let mut labels = spec.infrastructure.labels.clone();
        labels.insert(OTHER_PROXY.to_owned(), GATEWAY_PROXY.to_owned());
        if name.len() <= LABEL {
            labels.insert(GATEWAY_NAME.to_owned(), name.clone());
        }
        let mut annotations = spec.infrastructure.annotations.clone();
        annotations.insert(GATEWAY.to_owned(), name.clone());
        let ports = state.listeners.iter().filter(|listener| listener.usable).map(|listener| listener.port);
        Self { labels, annotations, ports: ports.collect(), ip: asked(state).next().cloned() }
    }

    fn patch(&self) -> Value {
        let port = |port: &u16| json!({ "name": format!("port-{port}"), "port": port, "protocol": "TCP" });
        json!({
            "metadata": { "labels": self.labels, "annotations": self.annotations },
            "spec": { "ports": self.ports.iter().map(port).collect::<Vec<_>>(), "loadBalancerIP": self.ip },
        })
    }

    fn is(&self, service: &Service) -> bool {
        let within = |wanted: &BTreeMap<String, String>, has: Option<&BTreeMap<String, String>>| {
            wanted.iter().all(|(name, value)| has.and_then(|has| has.get(name)) == Some(value))
        };
        let spec = service.spec.as_ref();
        let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
        let ports: BTreeSet<u16> = ports.filter_map(|port| u16::try_from(port.port).ok()).collect();
        let ip = spec.and_then(|spec| spec.load_balancer_ip.clone()).filter(|ip| !ip.is_empty());
        within(&self.labels, service.metadata.labels.as_ref())
            && within(&self.annotations, service.metadata.annotations.as_ref())
            && ports == self.ports
            && ip == self.ip
    }
}

/// The addresses that a Gateway wishes.
fn asked(state: &GatewayState) -> impl Iterator<Item = &String> {
    let all = state.gateway.spec.addresses.iter().filter_map(|address| address.value.as_ref());
    all.filter(|value| !value.is_empty())
}

/// Makes the Service as the Gateway wants it, and says what address there is.
pub(super) async fn ensure(
    context: &Context,
    services: &Cache<Service>,
    state: &GatewayState,
) -> Result<Address, Error> {
    let (namespace, name) = (&state.key.namespace, service_name(&state.key.name));
    let known = services.named(namespace, &name);
    let wanted = Wanted::of(state);
    let owned = |service: &Service| {
        state.gateway.metadata.uid.as_ref().is_some_and(|uid| is_controlled_by(&service.metadata, uid))
    };
    if known.as_ref().is_some_and(|service| !owned(service)) {
        return Ok(Address::Awaited(format!("Service {namespace}/{name} is there and not of this Gateway")));
    }
    if asked(state).count() > 1 {
        return Ok(Address::Refused("only one address can be had".to_owned()));
    }
    let api = context.api::<Service>(namespace);
    match &known {
        Some(service) if wanted.ports.is_empty() || wanted.is(service) => {}
        Some(_) => {
            let patch = Patch::Merge(wanted.patch());
            ignore_not_found(api.patch(&name, &PatchParams::default(), &patch).await)?;
        }
        None if wanted.ports.is_empty() || !state.accepted.status => {}
        None => {
            let mut service = wanted.patch();
            let owner = owner_ref(&*state.gateway);
            json_patch::merge(
                &mut service,
                &json!({ "metadata": { "name": name, "ownerReferences": [owner] },
                    "spec": { "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false } }),
            );
            let service = serde_json::from_value(service).map_err(|error| Error::Other(error.to_string()))?;
            ignore_exists(api.create(&PostParams::default(), &service).await)?;
        }
    }
    let given = known.as_ref().and_then(|service| {
        let status = service.status.as_ref()?.load_balancer.as_ref()?;
        status.ingress.as_ref()?.first()?.ip.clone()
    });
    let wished = asked(state).next();
    Ok(match given {
        Some(ip) if wished.is_none_or(|wished| *wished == ip) => Address::Given(ip),
        _ if wished.is_some() => Address::Refused(format!(
            "Service {namespace}/{name} cannot have this address; its Events tell why"
        )),
        _ => Address::Awaited(format!("Service {namespace}/{name} has no address yet")),
    })
}
