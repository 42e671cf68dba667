//! Candidates against an API that keeps one Lease, and that one of them can be cut off from.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// Short, and in whole seconds where a Lease says so.
const TERMS: Terms = Terms {
    lease: Duration::from_secs(4),
    renew: Duration::from_millis(1500),
    retry: Duration::from_millis(100),
};
/// Only a failure waits for it.
const LONG: Duration = Duration::from_secs(30);

/// The Lease, and how often it was written.
#[derive(Default)]
struct Stored {
    lease: Option<Value>,
    writes: u64,
}

fn status(code: StatusCode, reason: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason,
        "reason": reason, "code": code.as_u16()});
    let mut response = Response::new(Body::from(body.to_string().into_bytes()));
    *response.status_mut() = code;
    response
}

async fn answer(stored: &Mutex<Stored>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let sent: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
    // Nobody is told of changes here: what candidates learn, they learn by asking.
    if parts.uri.query().is_some_and(|query| query.contains("fieldSelector")) {
        return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    let mut stored = stored.lock().unwrap();
    let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
    let standing = stored.lease.clone();
    match (parts.method, standing) {
        (Method::GET, None) => return status(StatusCode::NOT_FOUND, "NotFound"),
        (Method::GET, Some(_)) => {}
        (Method::POST, Some(_)) => return status(StatusCode::CONFLICT, "AlreadyExists"),
        (Method::PUT, Some(standing)) if version(&standing) != version(&sent) => {
            return status(StatusCode::CONFLICT, "Conflict");
        }
        _ => {
            stored.writes += 1;
            let mut lease = sent;
            lease["metadata"]["resourceVersion"] = json!(stored.writes.to_string());
            stored.lease = Some(lease);
        }
    }
    Response::new(Body::from(stored.lease.clone().unwrap_or_default().to_string().into_bytes()))
}

/// What candidates have in common.
#[derive(Clone, Default)]
struct Stage {
    stored: Arc<Mutex<Stored>>,
    leading: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Candidate {
    tasks: Tasks,
    leads: Arc<AtomicBool>,
    /// Its requests hang.
    cut_off: Arc<AtomicBool>,
}

impl Stage {
    fn candidate(&self, identity: &str) -> Candidate {
        let candidate = Candidate { tasks: Tasks::new(), leads: Arc::default(), cut_off: Arc::default() };
        let (stored, cut_off) = (self.stored.clone(), candidate.cut_off.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (stored, cut_off) = (stored.clone(), cut_off.clone());
            async move {
                if cut_off.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(answer(&stored, request).await)
            }
        });
        let election = Election {
            client: Client::new(service, "default"),
            lease: "l",
            identity: identity.to_owned(),
            terms: TERMS,
        };
        let (stage, leads) = (self.clone(), candidate.leads.clone());
        let lead = move |term: &Tasks| {
            let (stage, leads, stop) = (stage.clone(), leads.clone(), term.stop());
            leads.store(true, Ordering::SeqCst);
            let now = stage.leading.fetch_add(1, Ordering::SeqCst) + 1;
            stage.most.fetch_max(now, Ordering::SeqCst);
            term.spawn(async move {
                stop.cancelled().await;
                leads.store(false, Ordering::SeqCst);
                stage.leading.fetch_sub(1, Ordering::SeqCst);
            });
        };
        candidate.tasks.spawn(election.run(candidate.tasks.clone(), lead));
        candidate
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("waited too long: {what}"));
}

fn leads(candidate: &Candidate) -> bool {
    candidate.leads.load(Ordering::SeqCst)
}

#[tokio::test]
async fn never_two_lead_whoever_stops_or_is_cut_off() {
    let stage = Stage::default();
    let one = stage.candidate("one");
    until("the first leads", || leads(&one)).await;
    let two = stage.candidate("two");
    // Cut off, it stops by itself before its lease ends, and the other one leads after.
    one.cut_off.store(true, Ordering::SeqCst);
    until("the one that is cut off stops", || !leads(&one)).await;
    assert!(!leads(&two), "the lease has not ended yet");
    until("the other one leads", || leads(&two)).await;
    one.cut_off.store(false, Ordering::SeqCst);
    // Stopped, it gives the lease back: nobody waits for its end.
    two.tasks.drain(LONG).await.unwrap();
    let spec = stage.stored.lock().unwrap().lease.clone().unwrap_or_default()["spec"].clone();
    assert!(spec["holderIdentity"] != "two", "{spec}");
    until("the first leads again", || leads(&one)).await;
    one.tasks.drain(LONG).await.unwrap();
    assert_eq!(stage.most.load(Ordering::SeqCst), 1);
    let spec = stage.stored.lock().unwrap().lease.clone().unwrap_or_default()["spec"].clone();
    assert!(spec["leaseTransitions"] == 2 && spec["holderIdentity"].is_null(), "{spec}");
}

#[tokio::test]
async fn a_candidate_takes_over_from_its_former_life_at_once() {
    let stage = Stage::default();
    let lease = decide::held(None, "l", "one", &Terms::UPSTREAM, Timestamp::now());
    stage.stored.lock().unwrap().lease = Some(serde_json::to_value(lease).unwrap());
    let one = stage.candidate("one");
    let begun = Instant::now();
    until("it leads", || leads(&one)).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "it did not wait for the lease's end");
    one.tasks.drain(LONG).await.unwrap();
}
