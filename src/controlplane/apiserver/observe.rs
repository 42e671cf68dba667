//! What is counted of requests, and what `/metrics` tells of this server, under upstream's names.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt as _;
use http::Response;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::fairness::Fairness;
use super::index::Index;
use super::key::ObjectKey;
use super::request::{RequestInfo, query_value};
use api::meta::ObjectExt;
use api::resources::condition;
use api::status::qualified;
use config::BuildInfo;
use metrics::{Counter, Family, Gauge, Held, Histogram, Kind, Registry, Text, process};
use storage::{Entry, ListQuery};

/// Upstream's bounds of `apiserver_request_duration_seconds`.
const BOUNDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// What tells series of requests apart.
const LABELS: [&str; 7] = ["dry_run", "group", "resource", "scope", "subresource", "verb", "version"];
/// No verb that is known: nobody can make series without end.
const OTHER: &str = "other";

/// What is counted of requests.
#[derive(Default)]
pub struct Observer {
    series: Arc<Family<Series>>,
    codes: Arc<Family<Counter>>,
    reading: Arc<Gauge>,
    changing: Arc<Gauge>,
    long: Arc<Family<ArcGauge>>,
}

#[derive(Default)]
struct Series(Histogram<23>);

#[derive(Default)]
struct ArcGauge(Arc<Gauge>);

/// A request that is on its way.
pub struct Observed {
    began: Instant,
    labels: [&'static str; 3],
    long: Option<Held>,
    _short: Option<Held>,
}

impl Observer {
    /// A request has come. Watches and streams count as long as they last.
    pub fn begin(&self, parts: &Parts, info: &RequestInfo, stream: bool) -> Observed {
        let verb = verb(parts, info, stream);
        let query = parts.uri.query().unwrap_or_default();
        let dry_run =
            query.contains("dryRun") && query_value(query, "dryRun").is_some_and(|value| value == "All");
        let labels = [if dry_run { "All" } else { "" }, scope(info), verb];
        let long = stream || info.verb == "watch";
        let gauge = if matches!(info.verb, "get" | "list" | "head" | "watch") {
            &self.reading
        } else {
            &self.changing
        };
        Observed {
            began: Instant::now(),
            labels,
            long: long.then(|| self.long.of(&values(&labels, info)).0.hold()),
            _short: (!long).then(|| gauge.hold()),
        }
    }

    /// A request is answered.
    pub fn end(&self, observed: Observed, info: &RequestInfo, response: Response<Body>) -> Response<Body> {
        let values = values(&observed.labels, info);
        let code = response.status();
        let [dry_run, group, resource, scope, subresource, verb, version] = values;
        let with_code = [code.as_str(), dry_run, group, resource, scope, subresource, verb, version];
        self.codes.of(&with_code).add(1);
        match observed.long {
            None => {
                self.series.of(&values).0.observe(&BOUNDS, observed.began.elapsed());
                response
            }
            // A watch lasts as long as its answer.
            Some(held) => response.map(|body| Body::new(Lasting { body, _held: held })),
        }
    }

    fn tell(&self, text: &mut Text) {
        let requests = "apiserver_request_total";
        text.family(
            requests,
            Kind::Counter,
            "Requests by verb, group, version, resource, scope and HTTP code.",
        );
        for (values, count) in self.codes.all() {
            let mut labels = vec![("code", values[0].as_str()), ("component", "apiserver")];
            labels.extend(LABELS.iter().copied().zip(values[1..].iter().map(String::as_str)));
            text.sample(requests, &labels, count.get() as f64);
        }
        let durations = "apiserver_request_duration_seconds";
        text.family(
            durations,
            Kind::Histogram,
            "Response latency in seconds by verb, group, version, resource and scope.",
        );
        for (values, series) in self.series.all() {
            let mut labels = vec![("component", "apiserver")];
            labels.extend(LABELS.iter().copied().zip(values.iter().map(String::as_str)));
            series.0.tell(text, durations, &BOUNDS, &labels);
        }
        let inflight = "apiserver_current_inflight_requests";
        text.family(inflight, Kind::Gauge, "Requests that are being served, by kind.");
        text.sample(inflight, &[("request_kind", "mutating")], self.changing.get() as f64);
        text.sample(inflight, &[("request_kind", "readOnly")], self.reading.get() as f64);
        let long = "apiserver_longrunning_requests";
        text.family(long, Kind::Gauge, "Watches and streams that are open.");
        for (values, gauge) in self.long.all() {
            let mut labels = vec![("component", "apiserver")];
            labels.extend(LABELS[1..].iter().copied().zip(values[1..].iter().map(String::as_str)));
            text.sample(long, &labels, gauge.0.get() as f64);
        }
    }
}

fn values<'a>(labels: &[&'static str; 3], info: &'a RequestInfo) -> [&'a str; 7] {
    let [dry_run, scope, verb] = *labels;
    [dry_run, &info.group, &info.resource, scope, &info.subresource, verb, &info.version]
}

fn verb(parts: &Parts, info: &RequestInfo, stream: bool) -> &'static str {
    if stream && info.subresource != "log" {
        return "CONNECT";
    }
    match info.verb {
        "get" | "head" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "patch" => {
            let kind = parts.headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
            if kind.starts_with(b"application/apply-patch") { "APPLY" } else { "PATCH" }
        }
        _ => OTHER,
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    if !info.is_resource {
        return "";
    }
    match (info.name.is_empty(), info.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    }
}

/// A body that holds something as long as it is read.
struct Lasting {
    body: Body,
    _held: Held,
}

impl HttpBody for Lasting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Adds all that this server tells of itself.
pub fn add_all(registry: &Registry, observer: &Observer, fairness: &Arc<Fairness>, index: &Arc<Index>) {
    registry.tell(process);
    let counted = Observer {
        series: observer.series.clone(),
        codes: observer.codes.clone(),
        reading: observer.reading.clone(),
        changing: observer.changing.clone(),
        long: observer.long.clone(),
    };
    registry.tell(move |text| counted.tell(text));
    let levels = fairness.clone();
    registry.tell(move |text| flow_control(&levels, text));
    let index = index.clone();
    registry.tell(move |text| {
        // Whatever is in memory is there at once; a store that has to ask somebody first is not waited for.
        let all = ListQuery { prefix: "/".to_owned(), ..ListQuery::default() };
        if let Some(Ok(listing)) = index.store().list(all).now_or_never() {
            objects(&listing.entries, text);
        }
        let name = "aggregator_unavailable_apiservice";
        text.family(name, Kind::Gauge, "APIServices that cannot be reached.");
        for service in index.read().api_services() {
            let value = if condition(service, "Available") { 0.0 } else { 1.0 };
            text.sample(name, &[("name", service.name())], value);
        }
    });
}

/// Which build this is, as upstream tells it.
pub fn build(info: BuildInfo, text: &mut Text) {
    let name = "kubernetes_build_info";
    text.family(name, Kind::Gauge, "Which build this is.");
    let labels = [
        ("build_date", info.date),
        ("compiler", "rustc"),
        ("git_commit", info.commit),
        ("git_version", super::root::GIT_VERSION),
        ("major", "1"),
        ("minor", "36"),
    ];
    text.sample(name, &labels, 1.0);
}

fn flow_control(fairness: &Fairness, text: &mut Text) {
    let counts = fairness.counts();
    let mut family =
        |name: &str, kind: Kind, about: &str, value: &dyn Fn(&super::fairness::LevelCount) -> f64| {
            text.family(name, kind, about);
            for level in &counts {
                text.sample(name, &[("priority_level", &level.name)], value(level));
            }
        };
    let about = "Seats that a priority level has of its own.";
    family("apiserver_flowcontrol_nominal_limit_seats", Kind::Gauge, about, &|level| level.nominal.into());
    let about = "Requests of a priority level that are being served.";
    let executing = "apiserver_flowcontrol_current_executing_requests";
    family(executing, Kind::Gauge, about, &|level| level.executing as f64);
    let about = "Requests of a priority level that wait.";
    let waiting = "apiserver_flowcontrol_current_inqueue_requests";
    family(waiting, Kind::Gauge, about, &|level| level.waiting as f64);
    let about = "Requests of a priority level that were let on.";
    let dispatched = "apiserver_flowcontrol_dispatched_requests_total";
    family(dispatched, Kind::Counter, about, &|level| level.dispatched as f64);
    let rejected = "apiserver_flowcontrol_rejected_requests_total";
    text.family(rejected, Kind::Counter, "Requests of a priority level that were refused.");
    for level in &counts {
        for (reason, count) in level.refused {
            text.sample(rejected, &[("priority_level", &level.name), ("reason", reason)], count as f64);
        }
    }
}

/// How many objects of each kind there are, and how large they are together.
fn objects(entries: &[Arc<Entry>], text: &mut Text) {
    let (mut by_resource, mut all) = (BTreeMap::<(&str, &str), (u64, usize)>::new(), 0);
    for entry in entries {
        all += entry.data.len();
        if let Some(key) = ObjectKey::parse(&entry.key) {
            let (count, bytes) = by_resource.entry((key.group, key.plural)).or_default();
            *count += 1;
            *bytes += entry.data.len();
        }
    }
    // The older name, which newer versions still tell, and the newer one.
    let name = "apiserver_storage_objects";
    text.family(name, Kind::Gauge, "Stored objects by kind.");
    for ((group, plural), (count, _)) in &by_resource {
        text.sample(name, &[("resource", &qualified(group, plural))], *count as f64);
    }
    let name = "apiserver_resource_objects";
    text.family(name, Kind::Gauge, "Stored objects by kind.");
    for ((group, plural), (count, _)) in &by_resource {
        text.sample(name, &[("group", group), ("resource", plural)], *count as f64);
    }
    let name = "apiserver_resource_size_estimate_bytes";
    text.family(name, Kind::Gauge, "Size of the stored objects of a kind in bytes.");
    for ((group, plural), (_, bytes)) in &by_resource {
        text.sample(name, &[("group", group), ("resource", plural)], *bytes as f64);
    }
    let about = "Size of all stored objects in bytes.";
    text.single("apiserver_storage_size_bytes", Kind::Gauge, about, all as f64);
}
