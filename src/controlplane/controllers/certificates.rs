//! CertificateSigningRequests: approves those by which nodes join and renew, signs what is approved,
//! and removes old requests.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};

use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};
use pki::{Csr, KeyUsages};

/// Signs client certificates for the API server, after somebody approved them.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Signs nodes' client certificates; approved here.
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs nodes' serving certificates; approved here when all names are the node's own.
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

const NODE_USER: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";
const BOOTSTRAPPERS: &str = "system:bootstrappers";

/// Upstream's `--cluster-signing-duration`, and the least that may be asked for.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
const SHORTEST: i32 = 600;

/// How long requests are kept, as upstream's csrcleaner keeps them.
const KEEP_DECIDED: SignedDuration = SignedDuration::from_hours(1);
const KEEP_PENDING: SignedDuration = SignedDuration::from_hours(24);

/// A node's names and addresses, as its Node object says them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NodeHosts {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl NodeHosts {
    fn of(node: &Node) -> Self {
        let mut hosts = Self::default();
        hosts.names.insert(node.name_any());
        for address in node.status.iter().flat_map(|status| status.addresses.iter().flatten()) {
            match address.address.parse() {
                Ok(ip) => hosts.addresses.insert(ip),
                Err(_) => hosts.names.insert(address.address.clone()),
            };
        }
        hosts
    }
}

#[derive(Debug, PartialEq)]
enum Plan {
    /// Nothing to do, or not yet: a change of the request or of the node brings it back.
    Wait,
    Approve(&'static str),
    Deny(&'static str),
    Sign(Vec<String>),
    Fail(String),
}

/// Why a signer refuses a request.
type Refusal = &'static str;

fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    request.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn usages(spec: &CertificateSigningRequestSpec) -> BTreeSet<&str> {
    spec.usages.iter().flatten().map(String::as_str).collect()
}

/// The usages a signer allows: all of `needed`, and nothing beyond `optional`.
fn usages_fit(spec: &CertificateSigningRequestSpec, needed: &[&str], optional: &[&str]) -> bool {
    let asked = usages(spec);
    needed.iter().all(|usage| asked.contains(usage))
        && asked.iter().all(|usage| needed.contains(usage) || optional.contains(usage))
}

/// What `kubernetes.io/kube-apiserver-client-kubelet` demands of a request.
fn check_client(spec: &CertificateSigningRequestSpec, csr: &Csr) -> Result<(), Refusal> {
    if csr.organizations != [NODES_GROUP] {
        return Err("subject organization is not system:nodes");
    }
    if !csr.common_name.starts_with(NODE_USER) {
        return Err("subject common name does not begin with system:node: ");
    }
    if !csr.dns_names.is_empty() {
        return Err("DNS subjectAltNames are not allowed");
    }
    if !csr.ip_addresses.is_empty() {
        return Err("IP subjectAltNames are not allowed");
    }
    if csr.other_names > 0 {
        return Err("Email and URI subjectAltNames are not allowed");
    }
    if !usages_fit(spec, &["digital signature", "client auth"], &["key encipherment"]) {
        return Err(
            "usages did not match expected: client auth, digital signature, key encipherment (optional)",
        );
    }
    Ok(())
}

/// What `kubernetes.io/kubelet-serving` demands of a request.
fn check_serving(spec: &CertificateSigningRequestSpec, csr: &Csr) -> Result<(), Refusal> {
    if csr.organizations != [NODES_GROUP] {
        return Err("subject organization is not system:nodes");
    }
    if csr.dns_names.is_empty() && csr.ip_addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required");
    }
    if csr.other_names > 0 {
        return Err("Email and URI subjectAltNames are not allowed");
    }
    if !usages_fit(spec, &["digital signature", "server auth"], &["key encipherment"]) {
        return Err(
            "usages did not match expected: digital signature, server auth, key encipherment (optional)",
        );
    }
    if !csr.common_name.starts_with(NODE_USER) {
        return Err("subject common name does not begin with system:node: ");
    }
    Ok(())
}

/// Whether the request comes from the node it is for.
fn from_the_node(spec: &CertificateSigningRequestSpec, csr: &Csr) -> bool {
    spec.username.as_deref() == Some(csr.common_name.as_str())
        && spec.groups.iter().flatten().any(|group| group == NODES_GROUP)
}

fn plan_approval(spec: &CertificateSigningRequestSpec, csr: &Csr, node: Option<&NodeHosts>) -> Plan {
    match spec.signer_name.as_str() {
        KUBELET_CLIENT if check_client(spec, csr).is_ok() => {
            let bootstrapper = spec.groups.iter().flatten().any(|group| group == BOOTSTRAPPERS);
            if from_the_node(spec, csr) {
                Plan::Approve("Auto approving self kubelet client certificate after SubjectAccessReview.")
            } else if bootstrapper && node.is_some() {
                // Whoever holds a join token would become a node that is there already.
                Plan::Deny(
                    "a node of this name has joined with another key: delete the Node before its name joins again",
                )
            } else if bootstrapper {
                Plan::Approve("Auto approving kubelet client certificate after SubjectAccessReview.")
            } else {
                Plan::Wait
            }
        }
        KUBELET_SERVING if check_serving(spec, csr).is_ok() && from_the_node(spec, csr) => {
            let own = node.is_some_and(|hosts| {
                csr.dns_names.iter().all(|name| hosts.names.contains(name))
                    && csr.ip_addresses.iter().all(|ip| hosts.addresses.contains(ip))
            });
            if own {
                Plan::Approve("Auto approving kubelet serving certificate for the node's own names.")
            } else {
                Plan::Wait
            }
        }
        _ => Plan::Wait,
    }
}

fn plan_signing(spec: &CertificateSigningRequestSpec, csr: &Csr) -> Plan {
    let allowed = match spec.signer_name.as_str() {
        KUBELET_CLIENT => check_client(spec, csr),
        KUBELET_SERVING => check_serving(spec, csr).and_then(|()| {
            let own = spec.username.as_deref() == Some(csr.common_name.as_str());
            if own { Ok(()) } else { Err("requester is not the node the certificate is for") }
        }),
        CLIENT if usages_fit(spec, &["client auth"], &["digital signature", "key encipherment"]) => Ok(()),
        CLIENT => Err("usages did not match expected: client auth, digital signature, key encipherment"),
        _ => return Plan::Wait,
    };
    match allowed {
        Ok(()) => Plan::Sign(spec.usages.clone().unwrap_or_default()),
        Err(refusal) => Plan::Fail(refusal.to_owned()),
    }
}

fn plan(request: &CertificateSigningRequest, node: impl FnOnce(&str) -> Option<NodeHosts>) -> Plan {
    let signed = request.status.as_ref().is_some_and(|status| {
        status.certificate.as_ref().is_some_and(|certificate| !certificate.0.is_empty())
    });
    if signed || condition(request, "Denied").is_some() || condition(request, "Failed").is_some() {
        return Plan::Wait;
    }
    let approved = condition(request, "Approved").is_some();
    let text = String::from_utf8_lossy(&request.spec.request.0);
    match Csr::parse(&text) {
        Ok(csr) if approved => plan_signing(&request.spec, &csr),
        Ok(csr) => {
            let node = csr.common_name.strip_prefix(NODE_USER).and_then(node);
            plan_approval(&request.spec, &csr, node.as_ref())
        }
        Err(error) if approved => Plan::Fail(error.to_string()),
        Err(_) => Plan::Wait,
    }
}

/// When the request is to be removed.
fn expires(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let decided = ["Approved", "Denied", "Failed"].iter().find_map(|kind| condition(request, kind));
    let created = request.metadata.creation_timestamp.as_ref()?.0;
    match decided {
        Some(decided) => Some(decided.last_update_time.as_ref().map_or(created, |at| at.0) + KEEP_DECIDED),
        None => Some(created + KEEP_PENDING),
    }
}

fn lifetime(spec: &CertificateSigningRequestSpec) -> Duration {
    let asked = spec.expiration_seconds.map(|seconds| seconds.max(SHORTEST).unsigned_abs().into());
    asked.map_or(LIFETIME, Duration::from_secs).min(LIFETIME)
}

fn add_condition(
    request: &mut CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let condition = CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let status = request.status.get_or_insert_default();
    status.conditions.get_or_insert_default().push(condition);
}

struct Reconciler {
    context: Context,
    requests: Cache<CertificateSigningRequest>,
    nodes: Cache<Node>,
}

pub(super) fn start(context: &Context) {
    let requests = context.cache::<CertificateSigningRequest>();
    let nodes = context.cache::<Node>();
    let mut harness = Harness::new(context);
    harness.watches(&requests, |change, queue| {
        change.new.into_iter().for_each(|request| queue.add(request.name_any()));
    });
    // A serving request may come before the node has told its addresses.
    let pending = requests.clone();
    harness.watches(&nodes, move |change, queue| {
        let hosts = |node: &Arc<Node>| NodeHosts::of(node);
        if change.new.map(hosts) != change.old.map(hosts) {
            let waiting = pending.list().into_iter().filter(|r| condition(r, "Approved").is_none());
            waiting.for_each(|request| queue.add(request.name_any()));
        }
    });
    harness.run(2, Arc::new(Reconciler { context: context.clone(), requests, nodes }));
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, Error> {
        let Some(request) = self.requests.get(&Key::cluster(name)) else { return Ok(Outcome::Done) };
        let now = self.context.now();
        let api = self.context.all::<CertificateSigningRequest>();
        let mut outcome = Outcome::Done;
        if let Some(expires) = expires(&request) {
            let left = expires.duration_since(now);
            if left <= SignedDuration::ZERO {
                ignore_not_found(api.delete(name, &DeleteParams::default()).await)?;
                return Ok(Outcome::Done);
            }
            outcome = Outcome::after(Some(left));
        }
        let node = |name: &str| self.nodes.get(&Key::cluster(name)).map(|node| NodeHosts::of(&node));
        let plan = plan(&request, node);
        let mut request = CertificateSigningRequest::clone(&request);
        let post = PostParams::default();
        match plan {
            Plan::Wait => {}
            Plan::Approve(why) => {
                add_condition(&mut request, "Approved", "AutoApproved", why, now);
                api.replace_subresource("approval", name, &post, &request).await?;
            }
            Plan::Deny(why) => {
                add_condition(&mut request, "Denied", "AutoDenied", why, now);
                api.replace_subresource("approval", name, &post, &request).await?;
            }
            Plan::Sign(usages) => {
                match self.sign(&request, &usages) {
                    Ok(pem) => {
                        let status = request.status.get_or_insert_default();
                        status.certificate = Some(ByteString(pem.into_bytes()));
                    }
                    Err(why) => add_condition(&mut request, "Failed", "SignerValidationFailure", &why, now),
                }
                api.replace_status(name, &post, &request).await?;
            }
            Plan::Fail(why) => {
                add_condition(&mut request, "Failed", "SignerValidationFailure", &why, now);
                api.replace_status(name, &post, &request).await?;
            }
        }
        Ok(outcome)
    }
}

impl Reconciler {
    fn sign(&self, request: &CertificateSigningRequest, usages: &[String]) -> Result<String, String> {
        let usages = KeyUsages::parse(usages).map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&request.spec.request.0);
        let authority = &self.context.settings.authority;
        authority.sign_csr(&text, &usages, lifetime(&request.spec)).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csr(common_name: &str, dns: &[&str], ips: &[&str]) -> Csr {
        let sans: Vec<String> = dns.iter().chain(ips).map(|name| (*name).to_owned()).collect();
        let key = pki::Key::generate().unwrap();
        Csr::parse(&key.request(common_name, Some("system:nodes"), &sans).unwrap()).unwrap()
    }

    fn spec(signer: &str, user: &str, group: &str, usage: &str) -> CertificateSigningRequestSpec {
        CertificateSigningRequestSpec {
            signer_name: signer.to_owned(),
            username: Some(user.to_owned()),
            groups: Some(vec![group.to_owned(), "system:authenticated".to_owned()]),
            usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        }
    }

    #[test]
    fn nodes_join_renew_and_serve_under_their_own_names_only() {
        let hosts =
            NodeHosts { names: ["n1".to_owned()].into(), addresses: ["10.0.0.2".parse().unwrap()].into() };
        let check =
            |spec: CertificateSigningRequestSpec, csr: Csr, node: Option<&NodeHosts>, expect: bool| {
                let plan = plan_approval(&spec, &csr, node);
                assert_eq!(matches!(plan, Plan::Approve(_)), expect, "{spec:?} {csr:?}");
            };
        let node = "system:node:n1";
        let client = || csr(node, &[], &[]);
        let boot = "system:bootstrappers";
        check(spec(KUBELET_CLIENT, "system:bootstrap:abc", boot, "client auth"), client(), None, true);
        check(spec(KUBELET_CLIENT, node, NODES_GROUP, "client auth"), client(), None, true);
        check(spec(KUBELET_CLIENT, node, NODES_GROUP, "client auth"), client(), Some(&hosts), true);
        let join = || spec(KUBELET_CLIENT, "system:bootstrap:abc", boot, "client auth");
        assert!(matches!(plan_approval(&join(), &client(), Some(&hosts)), Plan::Deny(_)), "it is there");
        check(spec(KUBELET_CLIENT, "system:node:n2", NODES_GROUP, "client auth"), client(), None, false);
        check(spec(KUBELET_CLIENT, "eve", "system:masters", "client auth"), client(), None, false);
        check(spec(KUBELET_CLIENT, node, NODES_GROUP, "server auth"), client(), None, false);
        check(spec(KUBELET_CLIENT, node, NODES_GROUP, "client auth"), csr("admin", &[], &[]), None, false);
        check(spec(CLIENT, node, NODES_GROUP, "client auth"), client(), None, false);
        let serving = || spec(KUBELET_SERVING, node, NODES_GROUP, "server auth");
        check(serving(), csr(node, &["n1"], &["10.0.0.2"]), Some(&hosts), true);
        check(serving(), csr(node, &["n1"], &["10.0.0.2"]), None, false);
        check(serving(), csr(node, &["n1", "kubernetes"], &[]), Some(&hosts), false);
        check(serving(), csr(node, &["n1"], &["10.0.0.3"]), Some(&hosts), false);
        check(serving(), csr(node, &[], &[]), Some(&hosts), false);
    }

    #[test]
    fn signing_checks_again_and_leaves_foreign_signers_alone() {
        let client = csr("system:node:n1", &[], &[]);
        let check = |signer: &str, usage: &str, expect: &str| {
            let got = plan_signing(&spec(signer, "u", "g", usage), &client);
            let name = match got {
                Plan::Sign(_) => "sign",
                Plan::Fail(_) => "fail",
                _ => "wait",
            };
            assert_eq!(name, expect, "{signer} {usage}");
        };
        check(KUBELET_CLIENT, "client auth", "sign");
        check(KUBELET_CLIENT, "server auth", "fail");
        check(KUBELET_SERVING, "server auth", "fail");
        check(CLIENT, "client auth", "sign");
        check(CLIENT, "server auth", "fail");
        check("example.com/mine", "client auth", "wait");
    }
}
