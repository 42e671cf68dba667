//! Objects that a new cluster begins with: read before anything is made, applied once it is ready.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde_json::Value;

use super::{Access, ClusterError, wait};

/// Who owns the fields that are applied.
const MANAGER: &str = "minik";

/// Reads YAML texts, each with what to call it in an error: all their documents, with lists spread out, and those that
/// others stand on first. Fails with the first that is no object of Kubernetes.
pub(super) fn read(texts: &[(String, String)]) -> Result<Vec<Value>, ClusterError> {
    let mut objects = Vec::new();
    for (name, text) in texts {
        let wrong = |why: String| ClusterError::Manifest { name: name.clone(), why };
        for document in documents(text) {
            let value: Value = serde_yaml::from_str(&document).map_err(|error| wrong(error.to_string()))?;
            if value.is_null() {
                continue;
            }
            let items = match (value["kind"].as_str(), value["items"].as_array()) {
                (Some("List"), Some(items)) => items.clone(),
                _ => vec![value],
            };
            for item in items {
                let of = |pointer: &str| item.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
                match (of("/apiVersion"), of("/kind"), of("/metadata/name")) {
                    (Some(_), Some(_), Some(_)) => objects.push(item),
                    (Some(_), Some(kind), None) => return Err(wrong(format!("a {kind} in it has no name"))),
                    _ => return Err(wrong("a document in it has no apiVersion or no kind".to_owned())),
                }
            }
        }
    }
    objects.sort_by_key(|object| match object["kind"].as_str() {
        Some("Namespace") => 0,
        Some("CustomResourceDefinition") => 1,
        _ => 2,
    });
    Ok(objects)
}

/// A line of three dashes begins another document.
fn documents(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in text.lines() {
        let marked = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        match (marked.map(str::trim), all.last_mut()) {
            (Some(rest), _) => all.push(if rest.starts_with('#') { String::new() } else { rest.to_owned() }),
            (None, Some(last)) => {
                last.push_str(line);
                last.push('\n');
            }
            (None, None) => {}
        }
    }
    // What holds only comments is no document.
    let empty =
        |text: &String| text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#'));
    all.retain(|text| !empty(text));
    all
}

/// Applies objects, on the server. Fails with the first that is refused.
pub(super) async fn apply(access: &Access, objects: &[Value], timeout: Duration) -> Result<(), ClusterError> {
    let client = wait::client(access)?;
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    for object in objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let refused = |why: String| ClusterError::Manifest { name: format!("{kind} {name}"), why };
        let base = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        if !known.contains_key(version) {
            let request = request("GET", &base, "", Vec::new())?;
            let list = client.request::<Value>(request).await.map_err(|error| refused(error.to_string()))?;
            known.insert(version.to_owned(), list);
        }
        let resources = known.get(version).and_then(|list| list["resources"].as_array());
        let plain = |resource: &&Value| !resource["name"].as_str().unwrap_or("/").contains('/');
        let resource = resources
            .into_iter()
            .flatten()
            .find(|resource| resource["kind"] == kind && plain(resource))
            .ok_or_else(|| refused(format!("the cluster knows no kind {kind} in {version}")))?;
        let plural = resource["name"].as_str().unwrap_or_default();
        let namespace = match (resource["namespaced"].as_bool(), text("/metadata/namespace")) {
            (Some(true), "") => "namespaces/default/".to_owned(),
            (Some(true), namespace) => format!("namespaces/{namespace}/"),
            _ => String::new(),
        };
        let path = format!("{base}/{namespace}{plural}/{name}?fieldManager={MANAGER}&force=true");
        let body = serde_json::to_vec(object).expect("plain data");
        let request = request("PATCH", &path, "application/apply-patch+yaml", body)?;
        client.request::<Value>(request).await.map_err(|error| refused(error.to_string()))?;
        if kind == "CustomResourceDefinition" {
            established(&client, name, timeout).await.map_err(refused)?;
            // It may have brought a version that was asked about before.
            known.clear();
        }
    }
    Ok(())
}

/// Waits until what a definition brings is served.
async fn established(client: &Client, name: &str, timeout: Duration) -> Result<(), String> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let served = await_condition(definitions, name, conditions::is_crd_established());
    match tokio::time::timeout(timeout, served).await {
        Ok(result) => result.map(drop).map_err(|error| error.to_string()),
        Err(_) => Err("what it defines is not served".to_owned()),
    }
}

fn request(
    method: &str,
    uri: &str,
    kind: &str,
    body: Vec<u8>,
) -> Result<http::Request<Vec<u8>>, ClusterError> {
    let mut request = http::Request::builder().method(method).uri(uri);
    if !kind.is_empty() {
        request = request.header(http::header::CONTENT_TYPE, kind);
    }
    request.body(body).map_err(|error| ClusterError::Client(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Result<Vec<String>, String> {
        let read = read(&[("m.yaml".to_owned(), text.to_owned())]).map_err(|error| error.to_string())?;
        Ok(read.iter().map(|object| object["kind"].as_str().unwrap_or_default().to_owned()).collect())
    }

    #[test]
    fn documents_are_read_and_put_in_order() {
        let text = "# a comment\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: |\n    a\n    ---b\n--- # next\n\n---\n\
             apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: key}}\n- {apiVersion: v1, kind: Namespace, metadata: {name: made}}\n";
        assert_eq!(kinds(text), Ok(vec!["Namespace".into(), "ConfigMap".into(), "Secret".into()]));
        assert_eq!(kinds(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_object_is_said() {
        assert!(
            kinds("kind: ConfigMap")
                .expect_err("no version")
                .contains("m.yaml: a document in it has no apiVersion")
        );
        assert!(kinds("{apiVersion: v1, kind: ConfigMap}").expect_err("no name").contains("has no name"));
        assert!(kinds("a: [").is_err());
    }
}
