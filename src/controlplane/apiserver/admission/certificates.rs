//! Admission of CertificateSigningRequests.

use serde_json::{Value, json};

use super::{Attributes, Context, Operation, Plugin};
use crate::authz::Action;
use api::meta::ObjectExt;
use api::status::ApiError;

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";

/// A request says who made it, and that is what authentication says, not the requester. (Upstream has this in the
/// resource's own strategy, where it knows the user.)
pub(super) struct CertificateRequester;

impl Plugin for CertificateRequester {
    fn name(&self) -> &'static str {
        "CertificateRequester"
    }

    fn mutate(&self, attributes: &mut Attributes<'_>, _context: &Context<'_>) -> Result<(), ApiError> {
        if !attributes.is(GROUP, REQUESTS) {
            return Ok(());
        }
        let user = attributes.user;
        let fields = match attributes.operation {
            Operation::Create => vec![
                ("username", Some(json!(user.name))),
                ("uid", (!user.uid.is_empty()).then(|| json!(user.uid))),
                ("groups", (!user.groups.is_empty()).then(|| json!(user.groups))),
                ("extra", (!user.extra.is_empty()).then(|| json!(user.extra))),
            ],
            _ => return Ok(()),
        };
        let spec = attributes.object.as_mut().and_then(|object| object.get_mut("spec"));
        let Some(spec) = spec.and_then(Value::as_object_mut) else { return Ok(()) };
        for (field, value) in fields {
            match value {
                Some(value) => spec.insert(field.to_owned(), value),
                None => spec.remove(field),
            };
        }
        Ok(())
    }
}

/// Whether the user may `verb` for the signer, by its name or by its domain's `*`.
fn may(attributes: &Attributes<'_>, context: &Context<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split_once('/').map(|(domain, _)| format!("{domain}/*")).unwrap_or_default();
    [signer, &domain]
        .iter()
        .any(|name| context.may(attributes.user, &Action::on(verb, GROUP, "signers", "", name)))
}

fn signer(attributes: &Attributes<'_>) -> String {
    let stored = attributes.old.or(attributes.object.as_ref());
    stored.and_then(|object| object.str_at("/spec/signerName")).unwrap_or_default().to_owned()
}

/// Approving needs the right to approve for that signer.
pub(super) struct CertificateApproval;

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate(&self, attributes: &Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        let concerned =
            (attributes.group, attributes.resource, attributes.subresource) == (GROUP, REQUESTS, "approval");
        let signer = signer(attributes);
        if !concerned || may(attributes, context, "approve", &signer) {
            return Ok(());
        }
        Err(attributes
            .forbidden(&format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

/// Writing a certificate needs the right to sign for that signer.
pub(super) struct CertificateSigning;

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate(&self, attributes: &Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        let concerned =
            (attributes.group, attributes.resource, attributes.subresource) == (GROUP, REQUESTS, "status");
        let certificate =
            |object: Option<&Value>| object.and_then(|o| o.str_at("/status/certificate")).map(str::to_owned);
        let signer = signer(attributes);
        if !concerned
            || certificate(attributes.object.as_ref()) == certificate(attributes.old)
            || may(attributes, context, "sign", &signer)
        {
            return Ok(());
        }
        Err(attributes.forbidden(&format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

/// Nobody becomes an administrator through the signer for API clients.
pub(super) struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(&self, attributes: &Attributes<'_>, _context: &Context<'_>) -> Result<(), ApiError> {
        const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
        if !attributes.is(GROUP, REQUESTS) || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(object) = &attributes.object else { return Ok(()) };
        if object.str_at("/spec/signerName") != Some(CLIENT_SIGNER) {
            return Ok(());
        }
        let request = object.str_at("/spec/request").unwrap_or_default();
        let pem = super::decode_base64(request).and_then(|bytes| String::from_utf8(bytes).ok());
        let csr = pem.and_then(|pem| pki::Csr::parse(&pem).ok());
        if csr.is_some_and(|csr| csr.organizations.iter().any(|group| group == "system:masters")) {
            let why = format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
            return Err(attributes.forbidden(&why));
        }
        Ok(())
    }
}
