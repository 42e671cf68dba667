//! Certificate requests of a node.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};

use super::IdentityError;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To speak to the API server.
    Client,
    /// To be spoken to by it.
    Serving,
}

impl Purpose {
    /// The certificate's and the key's file name, without extension.
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Client => "kubelet-client",
            Self::Serving => "kubelet-serving",
        }
    }

    fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Client => "client auth",
            Self::Serving => "server auth",
        }
    }
}

/// Posts `csr` (PEM), waits for the signer and returns the certificate (PEM).
pub(super) async fn sign(
    client: &Client,
    node: &str,
    purpose: Purpose,
    csr: &str,
) -> Result<String, IdentityError> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let request = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some(format!("csr-{node}-")), ..Default::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(csr.as_bytes().to_vec()),
            signer_name: purpose.signer().to_owned(),
            usages: Some(vec!["digital signature".into(), purpose.usage().into()]),
            ..Default::default()
        },
        status: None,
    };
    let name = api.create(&PostParams::default(), &request).await?.name_any();
    let decided = await_condition(api, &name, |request: Option<&CertificateSigningRequest>| {
        request.is_none_or(|request| certificate(request).is_some() || refusal(request).is_some())
    })
    .await?
    .ok_or(IdentityError::Gone)?;
    match (certificate(&decided), refusal(&decided)) {
        (Some(certificate), _) => Ok(certificate),
        (None, refusal) => Err(IdentityError::Refused(refusal.unwrap_or_default())),
    }
}

fn certificate(request: &CertificateSigningRequest) -> Option<String> {
    let bytes = &request.status.as_ref()?.certificate.as_ref()?.0;
    String::from_utf8(bytes.clone()).ok().filter(|pem| !pem.is_empty())
}

fn refusal(request: &CertificateSigningRequest) -> Option<String> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "Denied" || c.type_ == "Failed")?;
    Some(format!("{}: {}", condition.type_, condition.message.as_deref().unwrap_or_default()))
}
