//! Publishes the cluster authority's certificate in every namespace: ConfigMap `kube-root-ca.crt`,
//! from where Pods mount it beside their token.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::ResourceExt;
use kube::api::{ObjectMeta, PostParams};

use super::context::{Context, Error, ignore_exists};
use super::harness::{Harness, Outcome, Reconcile};
use super::service_account::wants_content;
use client::informer::{Cache, Key};

const NAME: &str = "kube-root-ca.crt";
const ENTRY: &str = "ca.crt";
const NOTE: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                    guaranteed across distributions of Kubernetes clusters.";

#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Create,
    Restore(Box<ConfigMap>),
}

fn plan(namespace: Option<&Namespace>, found: Option<&ConfigMap>, data: &BTreeMap<String, String>) -> Plan {
    match found {
        _ if !wants_content(namespace) => Plan::Nothing,
        None => Plan::Create,
        Some(map) if map.data.as_ref() == Some(data) => Plan::Nothing,
        Some(map) => Plan::Restore(Box::new(ConfigMap { data: Some(data.clone()), ..map.clone() })),
    }
}

pub(super) fn start(context: &Context) {
    let namespaces = context.cache::<Namespace>();
    let maps = context.informers.selected::<ConfigMap>(&format!("metadata.name={NAME}"));
    let mut harness = Harness::new(context);
    harness.watches(&namespaces, |change, queue| {
        change.new.into_iter().for_each(|namespace| queue.add(namespace.name_any()));
    });
    harness.watches(&maps, |change, queue| {
        if let (Some(map), Some(_)) = (change.latest(), change.old) {
            queue.add(map.namespace().unwrap_or_default());
        }
    });
    let data = [(ENTRY.to_owned(), context.settings.authority.certificate_pem().to_owned())].into();
    harness.run(2, Arc::new(Reconciler { context: context.clone(), namespaces, maps, data }));
}

struct Reconciler {
    context: Context,
    namespaces: Cache<Namespace>,
    maps: Cache<ConfigMap>,
    data: BTreeMap<String, String>,
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, Error> {
        let namespace = self.namespaces.get(&Key::cluster(name));
        let plan = plan(namespace.as_deref(), self.maps.named(name, NAME).as_deref(), &self.data);
        act(self.context.api(name), plan, self.data.clone()).await?;
        Ok(Outcome::Done)
    }
}

async fn act(api: kube::Api<ConfigMap>, plan: Plan, data: BTreeMap<String, String>) -> Result<(), Error> {
    match plan {
        Plan::Nothing => {}
        Plan::Create => {
            let metadata = ObjectMeta {
                name: Some(NAME.to_owned()),
                annotations: Some([("kubernetes.io/description".to_owned(), NOTE.to_owned())].into()),
                ..ObjectMeta::default()
            };
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            ignore_exists(api.create(&PostParams::default(), &map).await)?;
        }
        Plan::Restore(map) => {
            api.replace(NAME, &PostParams::default(), &map).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_created_and_restored_while_the_namespace_lives() {
        let data: BTreeMap<_, _> = [(ENTRY.to_owned(), "pem".to_owned())].into();
        let live = Namespace::default();
        let mut dying = Namespace::default();
        dying.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        let good = ConfigMap { data: Some(data.clone()), ..ConfigMap::default() };
        let changed = ConfigMap::default();
        assert_eq!(plan(None, None, &data), Plan::Nothing);
        assert_eq!(plan(Some(&dying), None, &data), Plan::Nothing);
        assert_eq!(plan(Some(&live), None, &data), Plan::Create);
        assert_eq!(plan(Some(&live), Some(&good), &data), Plan::Nothing);
        assert_eq!(plan(Some(&live), Some(&changed), &data), Plan::Restore(Box::new(good)));
    }
}
