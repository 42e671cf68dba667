//! Who may use the kubelet's server: the API server and administrators by certificate, everybody else whom the API server
//! knows and allows (TokenReview, SubjectAccessReview), as metrics-server and Prometheus come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use ring::digest;

use super::routes::Refusal;
use pki::CertificateInfo;

/// How long an answer of the API server is believed.
const BELIEVED: Duration = Duration::from_secs(30);
/// How many are remembered; all are forgotten when there are more.
const REMEMBERED: usize = 1024;

/// Asks the API server, and remembers what it said.
pub struct Access {
    client: Client,
    node: String,
    users: Remembered<[u8; 32], Option<Arc<UserInfo>>>,
    verdicts: Remembered<(String, &'static str, &'static str), bool>,
}

/// Answers by question, each for [`BELIEVED`].
struct Remembered<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Eq + std::hash::Hash, V: Clone> Remembered<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).filter(|(at, _)| at.elapsed() < BELIEVED).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(key, (Instant::now(), value));
    }
}

impl Access {
    /// Asks through `client`, as this node.
    pub fn new(client: Client, node: &str) -> Self {
        let (users, verdicts) = (Remembered(Mutex::default()), Remembered(Mutex::default()));
        Self { client, node: node.to_owned(), users, verdicts }
    }

    /// Whether the request may go on. 401 if nobody is known by what it shows, 403 if they may not, 500 if the API server
    /// cannot be asked.
    pub async fn check<B>(&self, who: Option<&CertificateInfo>, request: &Request<B>) -> Result<(), Refusal> {
        if who.is_some_and(is_trusted) {
            return Ok(());
        }
        let user = match (who, bearer(request)) {
            (Some(who), _) => Some(Arc::new(UserInfo {
                username: Some(who.common_name.clone()),
                groups: Some([&who.organizations[..], &["system:authenticated".to_owned()]].concat()),
                ..UserInfo::default()
            })),
            (None, Some(token)) => self.user_of(token).await?,
            (None, None) => None,
        };
        let Some(user) = user else {
            return Err(Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()));
        };
        let (verb, subresources) = asked(request.method(), request.uri().path());
        for subresource in subresources {
            if self.allowed(&user, verb, subresource).await? {
                return Ok(());
            }
        }
        let name = user.username.as_deref().unwrap_or_default();
        let wanted = subresources.join(",");
        let why = format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{wanted}])");
        Err(Refusal(StatusCode::FORBIDDEN, why))
    }

    async fn user_of(&self, token: &str) -> Result<Option<Arc<UserInfo>>, Refusal> {
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        let hash: [u8; 32] = hash.as_ref().try_into().map_err(Refusal::internal)?;
        if let Some(user) = self.users.get(&hash) {
            return Ok(user);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: None },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await.map_err(Refusal::internal)?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(Arc::new);
        self.users.put(hash, user.clone());
        Ok(user)
    }

    async fn allowed(
        &self,
        user: &UserInfo,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, Refusal> {
        let key = (format!("{user:?}"), verb, subresource);
        if let Some(allowed) = self.verdicts.get(&key) {
            return Ok(allowed);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await.map_err(Refusal::internal)?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.verdicts.put(key, allowed);
        Ok(allowed)
    }
}

/// The API server and administrators. A node's certificate must not open other nodes.
fn is_trusted(who: &CertificateInfo) -> bool {
    let trusted = ["system:masters", "kubeadm:cluster-admins"];
    who.common_name == "kube-apiserver-kubelet-client"
        || who.organizations.iter().any(|organization| trusted.contains(&organization.as_str()))
}

fn bearer<B>(request: &Request<B>) -> Option<&str> {
    let (scheme, token) = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// What a request asks for, as upstream's kubelet maps it: the verb, and the subresources of `nodes` of which one must be
/// allowed.
fn asked(method: &Method, path: &str) -> (&'static str, &'static [&'static str]) {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let within =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let subresources: &[&str] = match path {
        _ if within("/stats") => &["stats"],
        _ if within("/metrics") => &["metrics"],
        _ if within("/logs") => &["log"],
        _ if within("/checkpoint") => &["checkpoint"],
        "/pods" | "/runningpods" => &["pods", "proxy"],
        "/configz" => &["configz", "proxy"],
        _ if within("/healthz") => &["healthz", "proxy"],
        _ => &["proxy"],
    };
    (verb, subresources)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Response;
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that knows the token `good` as `prom`, who may get metrics.
    fn api(asked: Arc<AtomicUsize>) -> Client {
        let answer = move |request: Request<Body>| {
            let asked = asked.clone();
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                let token = request.uri().path().ends_with("tokenreviews");
                let bytes = request.into_body().collect().await.expect("a body").to_bytes();
                let mut review: Value = serde_json::from_slice(&bytes).expect("JSON");
                let spec = review["spec"].clone();
                review["status"] = if token {
                    let known = spec["token"] == "good";
                    json!({"authenticated": known, "user": {"username": "prom", "groups": ["g"]}})
                } else {
                    let attributes = &spec["resourceAttributes"];
                    assert_eq!(
                        (&attributes["resource"], &attributes["name"]),
                        (&json!("nodes"), &json!("n1"))
                    );
                    let may = spec["user"] == "prom"
                        && attributes["subresource"] == "metrics"
                        && attributes["verb"] == "get";
                    json!({"allowed": may})
                };
                Ok::<_, Infallible>(Response::new(Body::from(review.to_string().into_bytes())))
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn tokens_open_what_their_users_may() {
        let count = Arc::new(AtomicUsize::new(0));
        let access = Access::new(api(count.clone()), "n1");
        let check = async |method: &str, path: &str, token: &str, expect: u16| {
            let mut request = Request::builder().method(method).uri(path);
            if !token.is_empty() {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let got = access.check(None, &request.body(()).unwrap()).await;
            let code = got.map_or_else(|Refusal(status, _)| status.as_u16(), |()| 200);
            assert_eq!(code, expect, "{method} {path} {token}");
        };
        check("GET", "/metrics/cadvisor", "good", 200).await;
        check("GET", "/metrics", "good", 200).await;
        assert_eq!(count.load(Ordering::Relaxed), 2, "answers are remembered");
        check("POST", "/metrics", "good", 403).await;
        check("GET", "/pods", "good", 403).await;
        check("POST", "/exec/a/b/c", "good", 403).await;
        check("GET", "/metricsx", "good", 403).await;
        check("GET", "/metrics", "bad", 401).await;
        check("GET", "/metrics", "", 401).await;
    }

    #[tokio::test]
    async fn certificates_are_judged_too() {
        let authority = pki::Authority::generate("t").unwrap();
        let access = Access::new(api(Arc::default()), "n1");
        let check = async |user: &str, group: &str, path: &str, expect: u16| {
            let identity = authority.sign_client(user, &[group]).unwrap();
            let who = CertificateInfo::from_pem(&identity.certificate_pem).unwrap();
            let got = access.check(Some(&who), &Request::get(path).body(()).unwrap()).await;
            let code = got.map_or_else(|Refusal(status, _)| status.as_u16(), |()| 200);
            assert_eq!(code, expect, "{user} {group} {path}");
        };
        check("kube-apiserver-kubelet-client", "x", "/pods", 200).await;
        check("root", "system:masters", "/pods", 200).await;
        check("system:node:n2", "system:nodes", "/pods", 403).await;
        check("prom", "x", "/metrics", 200).await;
        check("prom", "x", "/pods", 403).await;
    }
}
