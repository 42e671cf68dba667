//! Secrets of type `kubernetes.io/service-account-token`: fills each with a token of its ServiceAccount, and removes it when
//! the account is gone.
//!
//! The token is bound to the Secret: it is good as long as the Secret is there.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};

const KIND: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const TOKEN: &str = "token";
/// The longest that can be asked for: such a token is not meant to run out.
const FOR_GOOD: i64 = 1 << 32;

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// What it names is not there.
    Delete,
    /// Lacks something; `true`: the token, too.
    Fill(bool),
}

fn plan(secret: &Secret, account: Option<&ServiceAccount>, authority: &str) -> Plan {
    if secret.type_.as_deref() != Some(KIND) || secret.metadata.deletion_timestamp.is_some() {
        return Plan::Nothing;
    }
    let annotation = |name: &str| secret.annotations().get(name).map(String::as_str).unwrap_or_default();
    let Some(account) = account else { return Plan::Delete };
    let uid = account.uid().unwrap_or_default();
    let meant = annotation(ACCOUNT_UID);
    if !meant.is_empty() && meant != uid {
        return Plan::Delete;
    }
    let data =
        |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|value| value.0.as_slice());
    let token = data(TOKEN).is_none_or(<[u8]>::is_empty);
    let rest = meant.is_empty()
        || data("ca.crt") != Some(authority.as_bytes())
        || data("namespace") != secret.namespace().as_deref().map(str::as_bytes);
    if token || rest { Plan::Fill(token) } else { Plan::Nothing }
}

struct Reconciler {
    context: Context,
    secrets: Cache<Secret>,
    accounts: Cache<ServiceAccount>,
}

pub(super) fn start(context: &Context) {
    let secrets = context.informers.selected::<Secret>(&format!("type={KIND}"));
    let accounts = context.cache::<ServiceAccount>();
    let mut harness = Harness::new(context);
    harness.watches(&secrets, |change, queue| {
        change.new.into_iter().for_each(|secret| queue.add(Key::of(&secret.metadata)));
    });
    let all = secrets.clone();
    harness.watches(&accounts, move |change, queue| {
        let Some(account) = change.latest() else { return };
        let own = |secret: &Arc<Secret>| {
            secret.namespace() == account.namespace()
                && secret.annotations().get(ACCOUNT).is_some_and(|name| *name == account.name_any())
        };
        all.list()
            .iter()
            .filter(|secret| own(secret))
            .for_each(|secret| queue.add(Key::of(&secret.metadata)));
    });
    harness.run(2, Arc::new(Reconciler { context: context.clone(), secrets, accounts }));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(secret) = self.secrets.get(key) else { return Ok(Outcome::Done) };
        let name = secret.annotations().get(ACCOUNT).cloned().unwrap_or_default();
        let namespace = secret.namespace().unwrap_or_default();
        let authority = self.context.settings.authority.certificate_pem();
        let account = self.accounts.get(&Key::new(&namespace, &name));
        match plan(&secret, account.as_deref(), authority) {
            Plan::Nothing => {}
            Plan::Delete => {
                // The cache of accounts may trail: one that was made just now counts.
                let api = self.context.api::<ServiceAccount>(&namespace);
                let found = if name.is_empty() { None } else { api.get_opt(&name).await? };
                if found.is_none() || plan(&secret, found.as_ref(), authority) == Plan::Delete {
                    let preconditions =
                        Preconditions { uid: secret.uid(), resource_version: secret.resource_version() };
                    let params =
                        DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                    let api = self.context.api::<Secret>(&namespace);
                    ignore_not_found(api.delete(&secret.name_any(), &params).await)?;
                }
            }
            Plan::Fill(token) => {
                let uid = account.and_then(|account| account.uid()).unwrap_or_default();
                self.fill(&secret, &name, &uid, token).await?;
            }
        }
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    async fn fill(&self, secret: &Secret, account: &str, uid: &str, token: bool) -> Result<(), Error> {
        let namespace = secret.namespace().unwrap_or_default();
        let mut filled = secret.clone();
        filled.annotations_mut().insert(ACCOUNT_UID.to_owned(), uid.to_owned());
        let data = filled.data.get_or_insert_default();
        let authority = self.context.settings.authority.certificate_pem();
        data.insert("ca.crt".to_owned(), ByteString(authority.as_bytes().to_vec()));
        data.insert("namespace".to_owned(), ByteString(namespace.as_bytes().to_vec()));
        if token {
            let reference = BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                name: secret.metadata.name.clone(),
                uid: secret.uid(),
            };
            let spec = TokenRequestSpec {
                expiration_seconds: Some(FOR_GOOD),
                bound_object_ref: Some(reference),
                ..TokenRequestSpec::default()
            };
            let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
            let api = self.context.api::<ServiceAccount>(&namespace);
            let answer = api.create_token_request(account, &PostParams::default(), &request).await;
            let Some(answer) = ignore_not_found(answer)? else { return Ok(()) };
            let token = answer.status.and_then(|status| status.token).unwrap_or_default();
            data.insert(TOKEN.to_owned(), ByteString(token.into_bytes()));
        }
        let api = self.context.api::<Secret>(&namespace);
        ignore_not_found(api.replace(&secret.name_any(), &PostParams::default(), &filled).await)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn secrets_follow_their_account() {
        let secret = |uid: &str, data: serde_json::Value| -> Secret {
            from_value(json!({"metadata": {"name": "t", "namespace": "a", "annotations": {ACCOUNT: "robot", ACCOUNT_UID: uid}},
                "type": KIND, "data": data}))
            .unwrap()
        };
        let account: ServiceAccount =
            from_value(json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u"}})).unwrap();
        let whole = json!({"token": "dA==", "ca.crt": "Q0E=", "namespace": "YQ=="});
        let lacking = json!({"token": "dA==", "ca.crt": "b2xk", "namespace": "YQ=="});
        let check = |secret: &Secret, account: Option<&ServiceAccount>, expect: Plan| {
            assert_eq!(plan(secret, account, "CA"), expect);
        };
        check(&secret("", json!({})), Some(&account), Plan::Fill(true));
        check(&secret("u", whole.clone()), Some(&account), Plan::Nothing);
        check(&secret("u", lacking), Some(&account), Plan::Fill(false));
        check(&secret("other", whole.clone()), Some(&account), Plan::Delete);
        check(&secret("u", whole.clone()), None, Plan::Delete);
        let opaque = Secret { type_: Some("Opaque".to_owned()), ..secret("u", whole) };
        check(&opaque, None, Plan::Nothing);
    }
}
