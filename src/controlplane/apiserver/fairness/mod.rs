//! Priority and fairness: who is served at once, who waits, and who is told to come back.
//!
//! ```text
//! request -> FlowSchema (the first that matches) -> priority level -> a seat is free: on it goes
//!                                                                  -> none is: a place in one of the flow's queues
//!                                                                     -> a seat comes free | 429
//! ```
//!
//! Every level has seats of its own, and may use what others lend and do not need. Flows of one level that wait are dealt a few
//! queues each, so that one that floods fills its own hand and leaves the others' alone. What is decided here is in memory, under one
//! short lock; levels that are exempt take none.

mod classify;
mod counts;
mod level;
mod seats;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use self::classify::Config;
use self::counts::FlowCounts;
use self::level::Refusal;
use self::seats::{Seat, Seats};
use super::index::Follower;
use super::key::ObjectKey;
use super::request::RequestInfo;
use super::user::UserInfo;
use api::flow_control;
use api::status::ApiError;
use metrics::{Family, Text};

/// How many requests are served at once: upstream's limits for reading and for changing requests, together.
const SEATS: u32 = 600;
/// A request waits no longer for a seat: a quarter of what it may take altogether, as upstream has it.
const PATIENCE: Duration = Duration::from_secs(15);
const RETRY_AFTER_SECONDS: u32 = 1;
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Which flow schema and level a request has come under; said in its answer.
#[derive(Clone, Debug)]
pub struct Placed {
    schema_uid: HeaderValue,
    level_uid: HeaderValue,
    /// How long it waited for its seat.
    pub waited: Duration,
}

impl Placed {
    /// Says it in an answer's headers.
    pub fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(SCHEMA_UID, self.schema_uid.clone());
        headers.insert(LEVEL_UID, self.level_uid.clone());
    }
}

/// Decides who is served when.
pub struct Fairness {
    config: RwLock<Arc<Config>>,
    /// The objects that the configuration follows from.
    objects: Mutex<classify::Objects>,
    seats: Arc<Seats>,
    /// By level and flow schema.
    flows: Family<FlowCounts>,
    patience: Duration,
}

impl Fairness {
    /// With upstream's number of seats, and the mandatory and suggested objects until the cluster's own are known.
    pub fn new() -> Arc<Self> {
        Self::with(SEATS, PATIENCE)
    }

    fn with(seats: u32, patience: Duration) -> Arc<Self> {
        let mut objects = classify::Objects::default();
        for default in flow_control::defaults().unwrap_or_default() {
            objects.set_default(default.object, default.mandatory);
        }
        let fairness = Self {
            config: RwLock::default(),
            objects: Mutex::new(objects),
            seats: Seats::new(seats),
            flows: Family::default(),
            patience,
        };
        fairness.rebuild(&fairness.objects());
        Arc::new(fairness)
    }

    fn objects(&self) -> MutexGuard<'_, classify::Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rebuild(&self, objects: &classify::Objects) {
        let (config, levels) = objects.compile(&self.flows);
        self.seats.configure(levels);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// Waits for a seat, which is held until it is dropped. Fails with 429 when there are too many before it, or it takes too long.
    pub async fn seat(&self, user: &UserInfo, info: &RequestInfo) -> (Placed, Result<Seat, ApiError>) {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let flow = config.classify(user, info);
        let (schema, watch) = (flow.schema, info.verb == "watch");
        let (schema_uid, level_uid) = (schema.uid.clone(), flow.level.uid.clone());
        let mut placed = Placed { schema_uid, level_uid, waited: Duration::ZERO };
        if flow.level.exempt {
            return (placed, Ok(self.seats.exempt(schema.counts.serve(watch))));
        }
        let begun = Instant::now();
        let seat = self.seats.take(&flow, watch, self.patience).await;
        placed.waited = begun.elapsed();
        schema.counts.decided(placed.waited, seat.as_ref().err().copied());
        (placed, seat.map_err(refused))
    }

    /// Tells what levels and flow schemas are doing.
    pub fn tell(&self, text: &mut Text) {
        counts::tell(&self.seats.counts(), &self.flows, text);
    }
}

fn refused(refusal: Refusal) -> ApiError {
    tracing::debug!(reason = refusal.word(), "a request was refused");
    ApiError::too_many_requests("Too many requests, please try again later.", RETRY_AFTER_SECONDS)
}

impl Follower for Fairness {
    fn changed(&self, key: &str, object: Option<&Value>, _last: Option<&Value>) {
        let Some(key) = ObjectKey::parse(key).filter(|key| key.group == "flowcontrol.apiserver.k8s.io")
        else {
            return;
        };
        let mut objects = self.objects();
        objects.set(key.plural, key.name, object);
        self.rebuild(&objects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestInfo;
    use futures::{FutureExt as _, StreamExt as _};
    use http::Method;

    fn list(path: &str) -> RequestInfo {
        RequestInfo::new(&Method::GET, path, None)
    }

    #[tokio::test]
    async fn a_flood_never_starves_nodes_and_is_told_to_come_back() {
        let fairness = Fairness::with(20, Duration::from_millis(50));
        let (flood, node) = (UserInfo::new("flood", &[]), UserInfo::new("system:node:a", &[UserInfo::NODES]));
        let pods = list("/api/v1/pods");
        let mut held = Vec::new();
        let refused = loop {
            match fairness.seat(&flood, &pods).await.1 {
                Ok(seat) => held.push(seat),
                Err(refused) => break refused,
            }
            assert!(held.len() < 20, "something is left for others");
        };
        assert_eq!((refused.code, refused.details.map(|it| it.retry_after_seconds)), (429, Some(1)));
        for path in
            ["/api/v1/nodes/a/status", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a"]
        {
            assert!(fairness.seat(&node, &list(path)).await.1.is_ok(), "{path}");
        }
        assert!(fairness.seat(&node, &pods).await.1.is_ok());
        let admin = UserInfo::new("admin", &[UserInfo::MASTERS]);
        assert!(fairness.seat(&admin, &pods).await.1.is_ok(), "exempt");
        assert!(fairness.seat(&UserInfo::anonymous(), &list("/readyz")).await.1.is_ok(), "probes are exempt");
        drop(held);
        assert!(fairness.seat(&flood, &pods).await.1.is_ok());
    }

    #[tokio::test]
    async fn who_waits_is_served_in_turn_and_flows_take_turns() {
        let fairness = Fairness::with(8, Duration::from_secs(5));
        let pods = list("/api/v1/pods");
        let (flood, other) = (UserInfo::new("flood", &[]), UserInfo::new("other", &[]));
        let mut held = Vec::new();
        let full = || fairness.seats.counts().iter().map(|level| level.waiting).sum::<usize>();
        let mut waiting = futures::stream::FuturesUnordered::new();
        for _ in 0..30 {
            waiting.push(fairness.seat(&flood, &pods));
        }
        while let Some(Some((_, seat))) = waiting.next().now_or_never() {
            held.push(seat.unwrap());
        }
        assert!(full() > 10, "{}", full());
        let mut late = Box::pin(fairness.seat(&other, &pods));
        assert!((&mut late).now_or_never().is_none(), "it waits");
        for seat in held.drain(..) {
            drop(seat);
        }
        let mut served = 0;
        let got = loop {
            if let Some((_, seat)) = (&mut late).now_or_never() {
                break seat;
            }
            let (_, seat) = waiting.next().await.unwrap();
            drop(seat.unwrap());
            served += 1;
        };
        assert!(got.is_ok() && served <= 8, "the flood's queue is not served out before it: {served}");
    }

    #[test]
    fn objects_change_who_goes_where() {
        let fairness = Fairness::with(100, PATIENCE);
        let schema = serde_json::json!({"metadata": {"name": "mine", "uid": "u-1"}, "spec": {"matchingPrecedence": 5,
            "priorityLevelConfiguration": {"name": "system"}, "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}],
            "resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]}]}]}});
        fairness.changed("/flowcontrol.apiserver.k8s.io/flowschemas/mine", Some(&schema), None);
        let config = fairness.config.read().unwrap().clone();
        let jane = UserInfo::new("jane", &[]);
        let of = |path: &str| config.classify(&jane, &list(path)).schema.name.clone();
        assert_eq!(&*of("/api/v1/namespaces/a/pods"), "mine");
        assert_eq!(&*of("/api/v1/namespaces/b/pods"), "global-default");
        assert_eq!(&*of("/api/v1/pods"), "global-default", "all namespaces are no namespace");
        assert_eq!(&*of("/version"), "global-default");
    }
}
