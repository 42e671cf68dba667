//! What is counted of requests, and what `/metrics` tells of this server, under upstream's names.

mod state;
mod store;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::request::{RequestInfo, query_value};
use metrics::{Amounts, Counter, Family, Gauge, Held, Histogram, Kind, Text};

pub use self::state::{build, stored};
pub use self::store::TimedStore;

/// Upstream's bounds of `apiserver_request_duration_seconds`.
const BOUNDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// Those of `apiserver_request_sli_duration_seconds`.
const OWN_BOUNDS: [f64; 21] = [
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Those of `apiserver_response_sizes`.
const SIZES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Those of `apiserver_watch_events_sizes`.
const EVENT_SIZES: [f64; 8] = [1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];
/// Paths that are no resources, and are told of by their names.
const PATHS: [&str; 5] = ["/healthz", "/livez", "/metrics", "/readyz", "/version"];
/// What tells series of requests apart.
const LABELS: [&str; 7] = ["dry_run", "group", "resource", "scope", "subresource", "verb", "version"];
/// No verb that is known: nobody can make series without end.
const OTHER: &str = "other";

/// What is counted of requests.
#[derive(Default)]
pub struct Observer {
    series: Family<Series>,
    codes: Family<Counter>,
    terminated: Family<Counter>,
    reading: Arc<Gauge>,
    changing: Arc<Gauge>,
    long: Family<ArcGauge>,
    watched: Family<Watched>,
}

#[derive(Default)]
struct Series {
    took: Histogram<23>,
    /// Without what others were waited for.
    own: Histogram<21>,
    /// Of answers to reads.
    sizes: Amounts<7>,
}

#[derive(Default)]
struct ArcGauge(Arc<Gauge>);

/// What was sent to the watchers of one resource.
#[derive(Default)]
pub struct Watched(Amounts<8>);

impl Watched {
    /// An event was sent, in so many bytes.
    pub fn sent(&self, bytes: usize) {
        self.0.observe_amount(&EVENT_SIZES, bytes as u64);
    }
}

/// A request that is on its way.
pub struct Observed {
    began: Instant,
    labels: [&'static str; 4],
    long: Option<Held>,
    _short: Option<Held>,
}

/// How a request went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    /// How long it waited for a seat, and for webhooks.
    pub waited: Duration,
    /// Whether this server gave it up, to protect itself.
    pub terminated: bool,
}

impl Observer {
    /// A request has come. Watches and streams count as long as they last.
    pub fn begin(&self, parts: &Parts, info: &RequestInfo, stream: bool) -> Observed {
        let verb = verb(parts, info, stream);
        let query = parts.uri.query().unwrap_or_default();
        let dry_run =
            query.contains("dryRun") && query_value(query, "dryRun").is_some_and(|value| value == "All");
        let path = PATHS.into_iter().find(|path| !info.is_resource && info.path == *path).unwrap_or_default();
        let labels = [if dry_run { "All" } else { "" }, scope(info), verb, path];
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
    pub fn end(
        &self,
        observed: Observed,
        info: &RequestInfo,
        course: Course,
        response: Response<Body>,
    ) -> Response<Body> {
        let values = values(&observed.labels, info);
        let code = response.status();
        let [dry_run, group, resource, scope, subresource, verb, version] = values;
        let with_code = [code.as_str(), dry_run, group, resource, scope, subresource, verb, version];
        self.codes.of(&with_code).add(1);
        if course.terminated {
            self.terminated.of(&[code.as_str(), group, resource, scope, subresource, verb, version]).add(1);
        }
        match observed.long {
            None => {
                let (series, took) = (self.series.of(&values), observed.began.elapsed());
                series.took.observe(&BOUNDS, took);
                if dry_run.is_empty() {
                    series.own.observe(&OWN_BOUNDS, took.saturating_sub(course.waited));
                }
                // What is passed on from elsewhere has a size when it has ended.
                if let ("GET" | "LIST", Some(size)) = (verb, response.body().size_hint().exact()) {
                    series.sizes.observe_amount(&SIZES, size);
                }
                response
            }
            // A watch lasts as long as its answer.
            Some(held) => response.map(|body| Body::new(Lasting { body, _held: held })),
        }
    }

    /// What the watchers of a resource are sent.
    pub fn watched(&self, info: &RequestInfo) -> Arc<Watched> {
        self.watched.of(&[&info.group, &info.resource, &info.version])
    }

    /// Tells what was counted.
    pub fn tell(&self, text: &mut Text) {
        let requests = "apiserver_request_total";
        let about = "Requests by verb, group, version, resource, scope and HTTP code.";
        text.family(requests, Kind::Counter, about);
        for (values, count) in self.codes.all() {
            text.sample(requests, &coded(&LABELS, &values), count.get() as f64);
        }
        let terminated = "apiserver_request_terminations_total";
        let about = "Requests that this server refused or gave up to protect itself.";
        text.family(terminated, Kind::Counter, about);
        for (values, count) in self.terminated.all() {
            text.sample(terminated, &coded(&LABELS[1..], &values), count.get() as f64);
        }
        self.tell_series(text);
        let inflight = "apiserver_current_inflight_requests";
        text.family(inflight, Kind::Gauge, "Requests that are being served, by kind.");
        text.sample(inflight, &[("request_kind", "mutating")], self.changing.get() as f64);
        text.sample(inflight, &[("request_kind", "readOnly")], self.reading.get() as f64);
        let long = "apiserver_longrunning_requests";
        text.family(long, Kind::Gauge, "Watches and streams that are open.");
        for (values, gauge) in self.long.all() {
            text.sample(long, &labelled(&LABELS[1..], &values[1..]), gauge.0.get() as f64);
        }
        self.tell_watched(text);
    }

    /// Tells what watchers were sent.
    fn tell_watched(&self, text: &mut Text) {
        fn labels(values: &[String]) -> [(&str, &str); 3] {
            [("group", &values[0]), ("resource", &values[1]), ("version", &values[2])]
        }
        let all = self.watched.all();
        let events = "apiserver_watch_events_total";
        text.family(events, Kind::Counter, "Events that were sent to watchers.");
        for (values, watched) in &all {
            text.sample(events, &labels(values), watched.0.total() as f64);
        }
        let sizes = "apiserver_watch_events_sizes";
        text.family(sizes, Kind::Histogram, "Bytes of events that were sent to watchers.");
        for (values, watched) in &all {
            watched.0.tell(text, sizes, &EVENT_SIZES, &labels(values));
        }
    }

    /// Tells how long requests took, and what was sent.
    fn tell_series(&self, text: &mut Text) {
        let all = self.series.all();
        let took = "apiserver_request_duration_seconds";
        let about = "Response latency in seconds by verb, group, version, resource and scope.";
        text.family(took, Kind::Histogram, about);
        for (values, series) in &all {
            series.took.tell(text, took, &BOUNDS, &labelled(&LABELS, values));
        }
        let own = "apiserver_request_sli_duration_seconds";
        let about = "The same without the time for which webhooks, and a seat, were waited for.";
        text.family(own, Kind::Histogram, about);
        for (values, series) in all.iter().filter(|(_, series)| series.own.total() > 0) {
            series.own.tell(text, own, &OWN_BOUNDS, &labelled(&LABELS[1..], &values[1..]));
        }
        let sizes = "apiserver_response_sizes";
        text.family(sizes, Kind::Histogram, "Bytes of answers to reads.");
        for (values, series) in all.iter().filter(|(_, series)| series.sizes.total() > 0) {
            series.sizes.tell(text, sizes, &SIZES, &labelled(&LABELS[1..], &values[1..]));
        }
    }
}

/// Labels of a series, with which server it is of.
fn labelled<'a>(names: &[&'a str], values: &'a [String]) -> Vec<(&'a str, &'a str)> {
    let component = [("component", "apiserver")];
    component.into_iter().chain(names.iter().copied().zip(values.iter().map(String::as_str))).collect()
}

/// The same of one that has the answer's code, too.
fn coded<'a>(names: &[&'a str], values: &'a [String]) -> Vec<(&'a str, &'a str)> {
    let mut labels = vec![("code", values[0].as_str())];
    labels.extend(labelled(names, &values[1..]));
    labels
}

fn values<'a>(labels: &[&'static str; 4], info: &'a RequestInfo) -> [&'a str; 7] {
    let [dry_run, scope, verb, path] = *labels;
    let subresource = if path.is_empty() { &info.subresource } else { path };
    [dry_run, &info.group, &info.resource, scope, subresource, verb, &info.version]
}

fn verb(parts: &Parts, info: &RequestInfo, stream: bool) -> &'static str {
    if stream {
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
    match (info.name.is_empty() && info.verb != "create", info.namespace.is_empty()) {
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
