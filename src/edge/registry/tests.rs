//! The registry as clients of the distribution API use it.

use axum::body::to_bytes;
use http::{HeaderMap, Request as HttpRequest};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::store::digest_of_bytes;
use super::*;

struct Registry {
    dir: tempfile::TempDir,
    router: Router,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json()["errors"][0]["code"].as_str()), (status, Some(code)));
    }
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", digest_of_bytes(content, "sha256"))
}

impl Registry {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let router = router(Arc::new(Store::open(dir.path()).expect("opened")));
        Self { dir, router }
    }

    async fn ask(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = HttpRequest::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("read").to_vec();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, uri: &str) -> Answer {
        self.ask("GET", uri, &[], b"").await
    }

    /// Sends a blob whole.
    async fn send(&self, name: &str, content: &[u8]) -> String {
        let uri = format!("/v2/{name}/blobs/uploads/?digest={}", digest(content));
        assert_eq!(self.ask("POST", &uri, &[], content).await.status, 201);
        digest(content)
    }

    async fn tag(&self, name: &str, reference: &str, manifest: &Value) -> Answer {
        let uri = format!("/v2/{name}/manifests/{reference}");
        let kind = manifest["mediaType"].as_str().expect("a type");
        self.ask("PUT", &uri, &[("content-type", kind)], manifest.to_string().as_bytes()).await
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn image(config: &str, layer: &str) -> Value {
    let part = |digest: &str| json!({"mediaType": "application/x", "size": 1, "digest": digest});
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": part(config), "layers": [part(layer)]})
}

#[tokio::test]
async fn an_image_is_pushed_and_pulled() {
    let registry = Registry::new();
    let version = registry.get("/v2/").await;
    assert_eq!((version.status, version.header(VERSION.0)), (200, VERSION.1));
    let (config, layer) = (registry.send("my/app", b"{}").await, registry.send("my/app", b"layer").await);
    let manifest = image(&config, &layer);
    let text = manifest.to_string();
    let pushed = registry.tag("my/app", "1.0", &manifest).await;
    assert_eq!(
        (pushed.status, pushed.header("docker-content-digest")),
        (201, digest(text.as_bytes()).as_str())
    );
    for reference in ["1.0", &digest(text.as_bytes())] {
        let uri = format!("/v2/my/app/manifests/{reference}");
        let head = registry.ask("HEAD", &uri, &[], b"").await;
        assert_eq!((head.status, head.header("content-type"), head.body.len()), (200, MANIFEST, 0));
        assert_eq!(head.header("content-length"), text.len().to_string());
        assert_eq!(registry.get(&uri).await.body, text.as_bytes());
    }
    let uri = format!("/v2/my/app/blobs/{layer}");
    assert_eq!(registry.ask("HEAD", &uri, &[], b"").await.header("content-length"), "5");
    assert_eq!(registry.get(&uri).await.body, b"layer");
    let part = registry.ask("GET", &uri, &[("range", "bytes=1-2")], b"").await;
    assert_eq!(
        (part.status, part.header("content-range"), part.body.as_slice()),
        (206, "bytes 1-2/5", &b"ay"[..])
    );
    assert_eq!(registry.ask("GET", &uri, &[("range", "bytes=9-")], b"").await.status, 416);
    assert_eq!(registry.get("/v2/_catalog").await.json(), json!({"repositories": ["my/app"]}));
    registry.get("/v2/other/manifests/1.0").await.refused(404, "MANIFEST_UNKNOWN");
    registry.get(&format!("/v2/other/blobs/{layer}")).await.refused(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_blob_comes_in_parts_and_in_order() {
    let registry = Registry::new();
    let begun = registry.ask("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    let place = begun.header("location").to_owned();
    assert_eq!((begun.status, place.starts_with("/v2/a/blobs/uploads/")), (202, true));
    // As Docker does it: one stream that does not say its range.
    let first = registry.ask("PATCH", &place, &[], b"hello ").await;
    assert_eq!((first.status, first.header("range")), (202, "0-5"));
    assert_eq!(registry.ask("PATCH", &place, &[("content-range", "3-7")], b"world").await.status, 416);
    assert_eq!(registry.ask("PATCH", &place, &[("content-range", "6-8")], b"world").await.status, 400);
    let asked = registry.get(&place).await;
    assert_eq!((asked.status, asked.header("range")), (204, "0-5"));
    assert_eq!(registry.ask("PATCH", &place, &[("content-range", "6-9")], b"worl").await.status, 202);
    let wrong = format!("{place}?digest={}", digest(b"another"));
    registry.ask("PUT", &wrong, &[], b"").await.refused(400, "DIGEST_INVALID");
    let right = digest(b"hello world");
    let done = registry.ask("PUT", &format!("{place}?digest={right}"), &[], b"d").await;
    // The one before was refused, and left what had come.
    assert_eq!((done.status, done.header("location")), (201, format!("/v2/a/blobs/{right}").as_str()));
    registry.get(&place).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.ask("PATCH", "/v2/a/blobs/uploads/../../x", &[], b"").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    let other = registry.ask("POST", "/v2/a/blobs/uploads/", &[], b"").await.header("location").to_owned();
    assert_eq!(registry.ask("DELETE", &other, &[], b"").await.status, 204);
    assert_eq!(registry.get(&other).await.status, 404);
}

#[tokio::test]
async fn blobs_are_mounted_from_other_repositories() {
    let registry = Registry::new();
    let blob = registry.send("from", b"shared").await;
    let mount = |from: &str| format!("/v2/to/blobs/uploads/?mount={blob}&from={from}");
    assert_eq!(registry.ask("POST", &mount("from"), &[], b"").await.status, 201);
    assert_eq!(registry.get(&format!("/v2/to/blobs/{blob}")).await.body, b"shared");
    // Where it is not, an upload begins instead.
    assert_eq!(registry.ask("POST", &mount("nowhere"), &[], b"").await.status, 202);
    assert_eq!(registry.ask("DELETE", &format!("/v2/from/blobs/{blob}"), &[], b"").await.status, 202);
    assert_eq!(registry.get(&format!("/v2/from/blobs/{blob}")).await.status, 404);
    assert_eq!(registry.get(&format!("/v2/to/blobs/{blob}")).await.status, 200);
}

#[tokio::test]
async fn what_is_incomplete_or_wrong_is_no_manifest() {
    let registry = Registry::new();
    let config = registry.send("a", b"{}").await;
    let missing = image(&config, &digest(b"never sent"));
    registry.tag("a", "1", &missing).await.refused(404, "MANIFEST_BLOB_UNKNOWN");
    let good = image(&config, &config);
    registry.tag("a", &digest(b"another"), &good).await.refused(400, "DIGEST_INVALID");
    let uri = "/v2/a/manifests/1";
    registry
        .ask("PUT", uri, &[("content-type", MANIFEST)], b"no JSON")
        .await
        .refused(400, "MANIFEST_INVALID");
    let other = [("content-type", "application/vnd.oci.image.index.v1+json")];
    registry.ask("PUT", uri, &other, good.to_string().as_bytes()).await.refused(400, "MANIFEST_INVALID");
    let large = vec![b' '; (4 << 20) + 1];
    assert_eq!(registry.ask("PUT", uri, &[], &large).await.status, 413);
    assert_eq!(registry.get("/v2/a/tags/list").await.json()["tags"], json!([]));
    registry.get("/v2/A/tags/list").await.refused(400, "NAME_INVALID");
    registry.get("/v2/none/tags/list").await.refused(404, "NAME_UNKNOWN");
    assert_eq!(registry.ask("POST", "/v2/a/tags/list", &[], b"").await.status, 405);
}

#[tokio::test]
async fn tags_come_in_pages_and_go() {
    let registry = Registry::new();
    let config = registry.send("a", b"{}").await;
    let manifest = image(&config, &config);
    for tag in ["c", "a", "b"] {
        registry.tag("a", tag, &manifest).await;
    }
    let page = registry.get("/v2/a/tags/list?n=2").await;
    assert_eq!(page.json(), json!({"name": "a", "tags": ["a", "b"]}));
    assert_eq!(page.header("link"), "</v2/a/tags/list?n=2&last=b>; rel=\"next\"");
    let last = registry.get("/v2/a/tags/list?n=2&last=b").await;
    assert_eq!((last.json()["tags"].clone(), last.header("link")), (json!(["c"]), ""));
    assert_eq!(registry.ask("DELETE", "/v2/a/manifests/b", &[], b"").await.status, 202);
    assert_eq!(registry.get("/v2/a/manifests/a").await.status, 200);
    let digest = digest(manifest.to_string().as_bytes());
    assert_eq!(registry.ask("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").await.status, 202);
    assert_eq!(registry.get("/v2/a/manifests/a").await.status, 404);
    registry.ask("DELETE", "/v2/a/manifests/a", &[], b"").await.refused(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn what_is_about_an_image_is_found() {
    let registry = Registry::new();
    let config = registry.send("a", b"{}").await;
    let subject = image(&config, &config);
    let about = digest(subject.to_string().as_bytes());
    let mut signature = image(&config, &config);
    signature["subject"] = json!({"mediaType": MANIFEST, "size": 1, "digest": about});
    signature["artifactType"] = json!("application/signature");
    signature["annotations"] = json!({"by": "me"});
    // It may come before what it is about.
    let pushed = registry.tag("a", &digest(signature.to_string().as_bytes()), &signature).await;
    assert_eq!((pushed.status, pushed.header("oci-subject")), (201, about.as_str()));
    let found = registry.get(&format!("/v2/a/referrers/{about}")).await;
    let list = found.json();
    assert_eq!(list["manifests"][0]["artifactType"], "application/signature");
    assert_eq!(list["manifests"][0]["annotations"], json!({"by": "me"}));
    let none = registry.get(&format!("/v2/a/referrers/{about}?artifactType=other")).await;
    assert_eq!(
        (none.json()["manifests"].clone(), none.header("oci-filters-applied")),
        (json!([]), "artifactType")
    );
}

#[tokio::test]
async fn what_nothing_speaks_of_is_cleared_away_at_the_next_start() {
    let registry = Registry::new();
    let config = registry.send("a", b"{}").await;
    let manifest = image(&config, &config);
    registry.tag("a", "1", &manifest).await;
    let lost = registry.send("a", b"of a push that broke off").await;
    registry.ask("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    let dir = registry.dir;
    let again = Registry { router: router(Arc::new(Store::open(dir.path()).expect("opened"))), dir };
    assert_eq!(again.get("/v2/a/manifests/1").await.status, 200);
    assert_eq!(again.get(&format!("/v2/a/blobs/{config}")).await.status, 200);
    assert_eq!(again.get(&format!("/v2/a/blobs/{lost}")).await.status, 404);
    let files = |part: &str| std::fs::read_dir(again.dir.path().join(part)).expect("there").count();
    assert_eq!((files("uploads"), files("blobs/sha256")), (0, 2));
}
