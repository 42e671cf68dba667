//! From a DNS request to its response.

use std::future::Future;
use std::pin::Pin;

use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use rand::seq::SliceRandom;

use super::metrics::Metrics;
use super::outside::Outside;
use super::records::{a, cname};
use super::upstream::Reply;
use super::zone::{Answer, Zone};
use crate::network::Feed;

/// The largest UDP answer that is sent, whatever the client would take: more is cut, and the client comes again by TCP.
const MAX_UDP: u16 = 4096;
/// Aliases of aliases inside the cluster are followed this far.
const MAX_ALIASES: usize = 8;

/// Answers requests from the view and from upstream.
pub(super) struct Handler {
    zone: Zone,
    feed: Feed,
    outside: Outside,
    metrics: Metrics,
}

/// A response before it is written.
struct Response {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Response {
    fn code(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
        }
    }
}

impl Response {
    fn take(&mut self, reply: Reply) {
        let Reply { code, answers, authority } = reply;
        self.authoritative = false;
        self.code = code;
        self.answers.extend(answers);
        self.authorities.extend(authority);
    }
}

impl Handler {
    pub(super) fn new(zone: Zone, feed: Feed, outside: Outside, metrics: Metrics) -> Self {
        Self { zone, feed, outside, metrics }
    }

    async fn respond(&self, request: &Request) -> Response {
        if request.metadata.op_code != OpCode::Query {
            return Response::code(ResponseCode::NotImp);
        }
        if request.version() > 0 {
            return Response::code(ResponseCode::BADVERS);
        }
        let Ok(info) = request.request_info() else { return Response::code(ResponseCode::FormErr) };
        if !matches!(info.query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return Response::code(ResponseCode::Refused);
        }
        let (name, kind) = (info.query.original().name(), info.query.query_type());
        let response = self.resolve(name, kind).await;
        if self.outside.logs() {
            tracing::info!(client = %request.src(), %name, %kind, code = %response.code, answers = response.answers.len(), "DNS question");
        }
        response
    }

    async fn resolve(&self, asked: &Name, kind: RecordType) -> Response {
        let mut name = asked.clone();
        let mut response = Response::code(ResponseCode::NoError);
        response.authoritative = true;
        for _ in 0..MAX_ALIASES {
            if let Some(added) = self.added(&name, kind) {
                response.answers.extend(added);
                return response;
            }
            let answer = self.zone.answer(&self.feed.read(), &name, kind);
            match answer {
                Answer::Records { mut answers, additionals } => {
                    // Clients take the first: an order of its own for each spreads them.
                    answers.shuffle(&mut rand::rng());
                    response.answers.extend(answers);
                    response.additionals = additionals;
                    return response;
                }
                Answer::Alias { record, target } => {
                    response.answers.push(*record);
                    if kind == RecordType::CNAME {
                        return response;
                    }
                    name = target;
                }
                Answer::NoData => {
                    response.authorities.push(self.zone.authority(&name));
                    return response;
                }
                Answer::NoSuchName => {
                    // Only for the client's own question: what an alias leads to is no search.
                    if response.answers.is_empty()
                        && let Some(found) = self.search(&name, kind).await
                    {
                        return found;
                    }
                    response.code = ResponseCode::NXDomain;
                    response.authorities.push(self.zone.authority(&name));
                    return response;
                }
                Answer::Elsewhere => {
                    response.take(self.ask(&name, kind).await);
                    return response;
                }
            }
        }
        Response::code(ResponseCode::ServFail)
    }

    /// Passes a question on.
    async fn ask(&self, name: &Name, kind: RecordType) -> Reply {
        self.metrics.forwarded();
        self.outside.ask(name, kind).await
    }

    /// The records of a name that somebody has added; None where nobody has.
    fn added(&self, name: &Name, kind: RecordType) -> Option<Vec<Record>> {
        let addresses = self.outside.host(name)?;
        let wanted = matches!(kind, RecordType::A | RecordType::ANY);
        Some(addresses.iter().filter(|_| wanted).map(|ip| a(name, *ip)).collect())
    }

    /// A name with a search domain at its end, that does not exist so: what the client would find with the next ones is
    /// answered at once, as an alias. One round trip instead of four.
    async fn search(&self, name: &Name, kind: RecordType) -> Option<Response> {
        if !matches!(kind, RecordType::A | RecordType::AAAA) {
            return None;
        }
        let candidates = self.zone.searched(&self.feed.read(), name)?;
        for candidate in candidates {
            let mut found = Response::code(ResponseCode::NoError);
            found.answers.push(cname(name, candidate.clone()));
            if let Some(added) = self.added(&candidate, kind) {
                found.answers.extend(added);
                return Some(found);
            }
            let answer = self.zone.answer(&self.feed.read(), &candidate, kind);
            match answer {
                Answer::Records { answers, .. } => found.answers.extend(answers),
                Answer::NoData => found.authorities.push(self.zone.authority(&candidate)),
                Answer::Elsewhere => found.take(self.ask(&candidate, kind).await),
                Answer::Alias { .. } | Answer::NoSuchName => continue,
            }
            if found.code == ResponseCode::NoError {
                return Some(found);
            }
        }
        None
    }

    async fn handle<R: ResponseHandler>(&self, request: &Request, mut out: R) -> ResponseInfo {
        let begun = std::time::Instant::now();
        let response = self.respond(request).await;
        let kind = request.request_info().ok().map(|info| info.query.query_type());
        self.metrics.answered(request.protocol(), kind, response.code, begun.elapsed());
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = response.authoritative;
        metadata.recursion_available = true;
        metadata.response_code = response.code;

        let mut edns = Edns::new();
        edns.set_max_payload(request.max_payload().min(MAX_UDP));
        edns.set_rcode_high(response.code.high());
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let message = builder.build(
            metadata,
            &response.answers,
            &response.authorities,
            std::iter::empty(),
            &response.additionals,
        );
        match out.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "DNS answer not sent");
                metadata.response_code = ResponseCode::ServFail;
                ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
            }
        }
    }
}

impl RequestHandler for Handler {
    fn handle_request<'a, 'b, 'c, R, T>(
        &'a self,
        request: &'b Request,
        response_handle: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        R: ResponseHandler + 'c,
        T: Time + 'c,
        Self: 'c,
    {
        Box::pin(self.handle(request, response_handle))
    }
}
