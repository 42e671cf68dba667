//! Keeps the plan as the view says, at the cost of what changed, and remembers what was not applied yet.

use std::sync::Arc;

use super::conntrack::{Entries, Flows};
use super::plan::{Plan, ServicePort, Settings};
use crate::network::{Changed, ServiceKey, View};

/// The plan, and what has happened to it since it was last applied.
pub(super) struct Planner {
    settings: Settings,
    plan: Plan,
    seen: Option<u64>,
    pending: Changed,
    entries: Entries,
    before: Flows,
    after: Flows,
}

impl Planner {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            plan: Plan::new(&settings),
            settings,
            seen: None,
            pending: Changed::nothing(),
            entries: Entries::default(),
            before: Flows::new(),
            after: Flows::new(),
        }
    }

    /// Looks at the view. What is read of it is only what has changed.
    pub(super) fn follow(&mut self, view: &View) {
        let changed = view.changed_since(self.seen);
        self.seen = Some(view.revision());
        match &changed {
            Changed::Everything => {
                let old = self.plan.services.clone();
                self.plan.update(view, &self.settings, &changed);
                let gone = old.keys().filter(|key| !self.plan.services.contains_key(*key));
                let all: Vec<ServiceKey> = gone.chain(self.plan.services.keys()).cloned().collect();
                all.iter().for_each(|key| self.note(key, old.get(key)));
            }
            Changed::Of(keys) => {
                let old: Vec<_> = keys.iter().map(|key| self.plan.services.get(key).cloned()).collect();
                self.plan.update(view, &self.settings, &changed);
                keys.iter().zip(old).for_each(|(key, old)| self.note(key, old.as_ref()));
            }
        }
        self.pending = std::mem::replace(&mut self.pending, Changed::nothing()).and(changed);
    }

    fn note(&mut self, key: &ServiceKey, old: Option<&Arc<[ServicePort]>>) {
        let new = self.plan.services.get(key);
        let ports = |of: Option<&Arc<[ServicePort]>>| of.cloned().unwrap_or_default();
        self.entries.change(key, &ports(old), &ports(new), (&mut self.before, &mut self.after));
    }

    /// The plan as it is now, and what of it was not applied yet.
    pub(super) fn wanted(&self) -> (&Plan, &Changed) {
        (&self.plan, &self.pending)
    }

    /// To be called once the plan holds. Answers the UDP entries that led elsewhere before, and where they lead now.
    pub(super) fn applied(&mut self) -> (Flows, Flows) {
        self.pending = Changed::nothing();
        (std::mem::take(&mut self.before), std::mem::take(&mut self.after))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use k8s_openapi::api::core::v1 as core;
    use k8s_openapi::api::discovery::v1 as discovery;
    use serde_json::json;

    use super::*;
    use crate::network::{Service, Slice};
    use crate::proxy::plan::{At, plan};

    fn settings() -> Settings {
        Settings {
            node: "here".into(),
            node_ip: [172, 18, 0, 3].into(),
            pod_cidr: "10.42.0.0/16".parse().expect("a network"),
            service_cidr: None,
            answered_here: [].into(),
        }
    }

    /// A UDP Service of this name and address.
    fn service(name: &str, ip: &str) -> Service {
        let spec = json!({ "clusterIP": ip, "externalIPs": ["192.0.2.7"], "ports": [{ "port": 53, "protocol": "UDP" }],
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 31_000 });
        let object = json!({ "metadata": { "namespace": "shop", "name": name }, "spec": spec });
        Service::from_api(&serde_json::from_value::<core::Service>(object).expect("a Service"))
    }

    fn slice(name: &str, endpoints: &[&str]) -> Slice {
        let endpoints: Vec<_> =
            endpoints.iter().map(|ip| json!({ "addresses": [ip], "nodeName": "here" })).collect();
        let object = json!({ "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "port": 53, "protocol": "UDP" }],
            "metadata": { "namespace": "shop", "name": name, "labels": { "kubernetes.io/service-name": name } } });
        let object: discovery::EndpointSlice = serde_json::from_value(object).expect("a slice");
        Slice::from_api(&object).expect("of a Service")
    }

    #[test]
    fn what_changes_step_by_step_is_what_would_be_planned_at_once() {
        let (mut view, mut planner) = (View::default(), Planner::new(settings()));
        let mut follow = |view: &View| -> (Flows, Flows) {
            planner.follow(view);
            let (now, _) = planner.wanted();
            assert_eq!(*now, plan(view, &settings()));
            assert_eq!(now.health(), plan(view, &settings()).health());
            planner.applied()
        };
        let (at, shared) = (At::Address([10, 43, 0, 9].into(), 53), At::Address([192, 0, 2, 7].into(), 53));
        let ips = |all: &[[u8; 4]]| -> BTreeSet<Ipv4Addr> { all.iter().copied().map(Into::into).collect() };
        let (a, b) = ([10, 42, 0, 1], [10, 42, 0, 2]);
        follow(&view);
        view.put_service(service("dns", "10.43.0.9"));
        view.put_slice(slice("dns", &["10.42.0.1"]));
        let (before, after) = follow(&view);
        assert_eq!((before.len(), &after[&at]), (0, &ips(&[a])));
        assert_eq!(follow(&view), (Flows::new(), Flows::new()));

        view.put_service(service("other", "10.43.0.8"));
        view.put_slice(slice("other", &["10.42.0.2"]));
        let (before, after) = follow(&view);
        assert_eq!((before.get(&at), after.get(&at)), (None, None), "it was not touched");
        assert_eq!((&before[&shared], &after[&shared]), (&ips(&[a]), &ips(&[a, b])));

        view.remove_service(&ServiceKey::new("shop", "dns"));
        let (before, after) = follow(&view);
        assert_eq!((&before[&at], after.get(&at)), (&ips(&[a]), None));
        assert_eq!(after[&shared], ips(&[b]));
    }

    #[test]
    fn what_was_not_applied_is_remembered() {
        let (mut view, mut planner) = (View::default(), Planner::new(settings()));
        planner.follow(&view);
        planner.applied();
        for name in ["a", "b"] {
            view.put_service(service(name, "10.43.0.9"));
            planner.follow(&view);
        }
        let both = ["a", "b"].map(|name| ServiceKey::new("shop", name));
        assert_eq!(*planner.wanted().1, Changed::Of(both.into()));
        planner.applied();
        assert_eq!(*planner.wanted().1, Changed::nothing());
    }
}
