//! What DNS counts, under the names that CoreDNS uses: what people watch there is found here.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::RecordType;
use tokio::net::TcpListener;

use metrics::{Counter, Family, Histogram, Kind, Text};
use rt::Tasks;

/// CoreDNS' buckets, in seconds.
const BOUNDS: [f64; 12] =
    [0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.512, 2.048];
/// Whole names are no labels; what CoreDNS has no name for is `other`, as there.
const TYPES: &[&str] =
    &["A", "AAAA", "ANY", "CAA", "CNAME", "HTTPS", "MX", "NAPTR", "NS", "PTR", "SOA", "SRV", "SVCB", "TXT"];

/// The numbers of one server. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    requests: Family<Counter>,
    responses: Family<Counter>,
    durations: Histogram<12>,
    forwarded: Counter,
}

fn word(kind: RecordType) -> &'static str {
    let text = kind.to_string();
    TYPES.iter().find(|known| **known == text).copied().unwrap_or("other")
}

fn code_word(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        _ => "other",
    }
}

impl Metrics {
    /// Counts a question and its answer.
    pub(super) fn answered(
        &self,
        by: Protocol,
        kind: Option<RecordType>,
        code: ResponseCode,
        took: Duration,
    ) {
        let by = if by == Protocol::Udp { "udp" } else { "tcp" };
        self.0.requests.of(&[by, kind.map_or("other", word)]).add(1);
        self.0.responses.of(&[code_word(code)]).add(1);
        self.0.durations.observe(&BOUNDS, took);
    }

    /// Counts a question that was passed on.
    pub(super) fn forwarded(&self) {
        self.0.forwarded.add(1);
    }

    /// Everything, in Prometheus' text form.
    pub fn render(&self) -> String {
        let mut text = Text::default();
        let name = "coredns_dns_requests_total";
        text.family(name, Kind::Counter, "Questions, by transport and type.");
        for (values, count) in self.0.requests.all() {
            let labels = [("proto", values[0].as_str()), ("type", values[1].as_str())];
            text.sample(name, &labels, count.get() as f64);
        }
        let name = "coredns_dns_responses_total";
        text.family(name, Kind::Counter, "Answers, by code.");
        for (values, count) in self.0.responses.all() {
            text.sample(name, &[("rcode", values[0].as_str())], count.get() as f64);
        }
        let name = "coredns_dns_request_duration_seconds";
        text.family(name, Kind::Histogram, "How long answers took.");
        self.0.durations.tell(&mut text, name, &BOUNDS, &[]);
        let about = "Questions that others were asked, caches included.";
        text.single("coredns_forward_requests_total", Kind::Counter, about, self.0.forwarded.get() as f64);
        text.finish()
    }

    /// Serves `/metrics` until `tasks` stops.
    pub fn serve(&self, listener: TcpListener, tasks: &Tasks) {
        let own = self.clone();
        let tell = move || {
            let text = own.render();
            async move {
                ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
            }
        };
        let router = Router::new().route("/metrics", get(tell));
        tasks.spawn_until_stop(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(%error, "the metrics of DNS are not served any more");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_are_counted() {
        let metrics = Metrics::default();
        let took = Duration::from_micros(300);
        metrics.answered(Protocol::Udp, Some(RecordType::A), ResponseCode::NoError, took);
        metrics.answered(Protocol::Udp, Some(RecordType::A), ResponseCode::NXDomain, took);
        metrics.answered(Protocol::Tcp, Some(RecordType::DNSKEY), ResponseCode::NoError, took);
        metrics.forwarded();
        let text = metrics.render();
        for line in [
            r#"coredns_dns_requests_total{proto="udp",type="A"} 2"#,
            r#"coredns_dns_requests_total{proto="tcp",type="other"} 1"#,
            r#"coredns_dns_responses_total{rcode="NOERROR"} 2"#,
            r#"coredns_dns_request_duration_seconds_bucket{le="0.0005"} 3"#,
            "coredns_forward_requests_total 1",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in {text}");
        }
    }
}
