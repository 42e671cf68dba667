//! Custom objects in several versions, converted by a webhook.

use super::webhooks::{Hook, hook};
use super::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const OLD: &str = "/apis/example.com/v1/namespaces/default/things";
const NEW: &str = "/apis/example.com/v2/namespaces/default/things";

/// `spec.hostPort` of v1 is `spec.host` and `spec.port` of v2.
fn convert(request: &Value) -> Value {
    let desired = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let mut objects = request["objects"].as_array().cloned().unwrap_or_default();
    for object in &mut objects {
        if object["metadata"]["name"] == "broken" {
            return json!({"result": {"status": "Failed", "message": "it is broken"}});
        }
        object["apiVersion"] = desired.into();
        let spec = object["spec"].clone();
        object["spec"] = if desired.ends_with("v2") {
            let text = spec["hostPort"].as_str().unwrap_or_default();
            let (host, port) = text.split_once(':').unwrap_or((text, ""));
            json!({"host": host, "port": port})
        } else {
            let part = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
            json!({"hostPort": format!("{}:{}", part("host"), part("port"))})
        };
    }
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}

fn definition(hook: &Hook, stored: &str) -> Value {
    let version = |name: &str, fields: &[&str]| {
        let fields: serde_json::Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        json!({"name": name, "served": true, "storage": name == stored, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}}})
    };
    json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [version("v1", &["hostPort"]), version("v2", &["host", "port"])],
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://127.0.0.1:{}/convert", hook.port), "caBundle": hook.bundle}}}}})
}

/// Serves a definition, whose names nobody else has.
async fn serve(server: &Server, definition: Value) {
    let mut made = server.create(DEFINITIONS, definition).await;
    made["status"]["acceptedNames"] = made["spec"]["names"].clone();
    made["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let (code, said) = server.send("PUT", &format!("{DEFINITIONS}/things.example.com/status"), &made).await;
    assert_eq!(code, 200, "{said}");
    server.api.index().caught_up().await;
}

fn thing(version: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn objects_are_read_and_written_in_every_version() {
    let (server, tasks) = (Server::new().await, Tasks::new());
    let converts = hook(&tasks, convert).await;
    serve(&server, definition(&converts, "v1")).await;
    let mut events = server.watch(&format!("{NEW}?watch=true")).await;
    let made = server.create(NEW, thing("v2", "a", json!({"host": "h", "port": "80"}))).await;
    assert_eq!(
        (&made["apiVersion"], &made["spec"]),
        (&json!("example.com/v2"), &json!({"host": "h", "port": "80"}))
    );
    server.create(OLD, thing("v1", "b", json!({"hostPort": "i:81"}))).await;
    let (_, old) = server.get(&format!("{OLD}/a")).await;
    assert_eq!((&old["apiVersion"], &old["spec"]), (&json!("example.com/v1"), &json!({"hostPort": "h:80"})));
    assert_eq!(old["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let (_, list) = server.get(NEW).await;
    let hosts: Vec<&Value> =
        list["items"].as_array().expect("items").iter().map(|item| &item["spec"]["host"]).collect();
    assert_eq!(hosts, ["h", "i"]);
    for host in ["h", "i"] {
        let event = events.next().await.expect("an event");
        assert_eq!((&event["type"], &event["object"]["spec"]["host"]), (&json!("ADDED"), &json!(host)));
    }
    let (code, patched) = server.send("PATCH", &format!("{NEW}/b"), &json!({"spec": {"port": "82"}})).await;
    assert_eq!((code.as_u16(), &patched["spec"]), (200, &json!({"host": "i", "port": "82"})));
    assert_eq!(server.get(&format!("{OLD}/b")).await.1["spec"], json!({"hostPort": "i:82"}));
    // What the webhook refuses is told; the object can be deleted in the version that is stored.
    server.create(OLD, thing("v1", "broken", json!({"hostPort": "x"}))).await;
    let (code, refusal) = server.get(&format!("{NEW}/broken")).await;
    assert_eq!(code, 500);
    let message = refusal["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("conversion webhook for example.com/v1, Kind=Thing failed: it is broken"),
        "{message}"
    );
    assert_eq!(server.send("DELETE", &format!("{OLD}/broken"), &Value::Null).await.0, 200);
    // Another version is stored from now on: what is there is converted when it is read.
    let (_, mut standing) = server.get(&format!("{DEFINITIONS}/things.example.com")).await;
    standing["spec"]["versions"][0]["storage"] = false.into();
    standing["spec"]["versions"][1]["storage"] = true.into();
    let (code, said) = server.send("PUT", &format!("{DEFINITIONS}/things.example.com"), &standing).await;
    assert_eq!(code, 200, "{said}");
    server.api.index().caught_up().await;
    assert_eq!(server.get(&format!("{NEW}/a")).await.1["spec"], json!({"host": "h", "port": "80"}));
    let (_, list) = server.get(OLD).await;
    assert_eq!(list["items"][1]["spec"], json!({"hostPort": "i:82"}));
    tasks.stop().cancel();
}

/// As upstream's own example of such a webhook does it: refuses to convert to the version that an object has.
fn convert_top(request: &Value) -> Value {
    let desired = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let mut objects = request["objects"].as_array().cloned().unwrap_or_default();
    for object in &mut objects {
        if object["apiVersion"] == desired {
            return json!({"result": {"status": "Failure", "message": "to itself"}});
        }
        object["apiVersion"] = desired.into();
        let Some(map) = object.as_object_mut() else { continue };
        if let Some(Value::String(both)) = map.remove("hostPort") {
            let (host, port) = both.split_once(':').expect("two parts");
            map.insert("host".to_owned(), host.into());
            map.insert("port".to_owned(), port.into());
        } else if let (Some(host), Some(port)) = (map.remove("host"), map.remove("port")) {
            let both = format!("{}:{}", host.as_str().unwrap_or_default(), port.as_str().unwrap_or_default());
            map.insert("hostPort".to_owned(), both.into());
        }
    }
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}

#[tokio::test]
async fn a_list_of_objects_that_are_stored_in_two_versions_is_read_in_each() {
    let (server, tasks) = (Server::new().await, Tasks::new());
    let converts = hook(&tasks, convert_top).await;
    let text = json!({"type": "string"});
    let mut made = definition(&converts, "v1");
    for (at, fields) in [json!({"hostPort": text}), json!({"host": text, "port": text})].iter().enumerate() {
        made["spec"]["versions"][at]["schema"]["openAPIV3Schema"] =
            json!({"type": "object", "properties": fields});
    }
    made["spec"]["conversion"]["webhook"]["conversionReviewVersions"] = json!(["v1", "v1beta1"]);
    serve(&server, made).await;
    let object = |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Thing", "hostPort": "localhost:8080", "metadata": {"name": name}});
    server
        .create(NEW, json!({"apiVersion": "example.com/v2", "kind": "Thing", "metadata": {"name": "stub"}}))
        .await;
    assert_eq!(server.send("DELETE", &format!("{NEW}/stub"), &Value::Null).await.0, 200);
    server.create(OLD, object("a")).await;
    let (_, mut standing) = server.get(&format!("{DEFINITIONS}/things.example.com")).await;
    standing["spec"]["versions"][0]["storage"] = false.into();
    standing["spec"]["versions"][1]["storage"] = true.into();
    let (code, said) = server.send("PUT", &format!("{DEFINITIONS}/things.example.com"), &standing).await;
    assert_eq!(code, 200, "{said}");
    // What comes while the registry changes is taken, too.
    let made = server.create(OLD, object("b")).await;
    assert_eq!(made["hostPort"], "localhost:8080");
    server.api.index().caught_up().await;
    for (path, field, value) in [(OLD, "hostPort", "localhost:8080"), (NEW, "host", "localhost")] {
        let (_, list) = server.get(path).await;
        let values: Vec<&Value> =
            list["items"].as_array().expect("items").iter().map(|item| &item[field]).collect();
        assert_eq!(values, [value, value], "{list}");
    }
    tasks.stop().cancel();
}

#[tokio::test]
async fn parameters_of_policies_are_converted() {
    const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1";
    let (server, tasks) = (Server::new().await, Tasks::new());
    let converts = hook(&tasks, convert).await;
    serve(&server, definition(&converts, "v1")).await;
    server.create(OLD, thing("v1", "a", json!({"hostPort": "h:80"}))).await;
    let policy = json!({"metadata": {"name": "p"}, "spec": {"paramKind": {"apiVersion": "example.com/v2", "kind": "Thing"},
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "object.data.k == params.spec.host"}]}});
    server.create(&format!("{POLICIES}/validatingadmissionpolicies"), policy).await;
    let binding = json!({"metadata": {"name": "p"}, "spec": {"policyName": "p", "validationActions": ["Deny"],
        "paramRef": {"name": "a", "namespace": "default", "parameterNotFoundAction": "Deny"}}});
    server.create(&format!("{POLICIES}/validatingadmissionpolicybindings"), binding).await;
    server.api.index().caught_up().await;
    let map = |value: &str| json!({"metadata": {"name": "m"}, "data": {"k": value}});
    let (code, refusal) = server.send("POST", MAPS, &map("other")).await;
    assert_eq!(code, 422, "{refusal}");
    server.create(MAPS, map("h")).await;
    tasks.stop().cancel();
}

#[tokio::test]
async fn a_policy_takes_parameters_of_a_kind_that_comes_later_in_any_version() {
    const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";
    let (server, tasks) = (Server::new().await, Tasks::new());
    let policy = json!({"metadata": {"name": "p"}, "spec": {"paramKind": {"apiVersion": "example.com/v2", "kind": "Thing"},
        "matchConstraints": {"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "object.metadata.name == params.spec.host"}]}});
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"],
        "paramRef": {"name": "a", "namespace": "default", "parameterNotFoundAction": "Deny"}}});
    server.create(&format!("{ADMISSION}/validatingadmissionpolicies"), policy).await;
    server.create(&format!("{ADMISSION}/validatingadmissionpolicybindings"), binding).await;
    server.api.index().caught_up().await;
    let map = async |name: &str| {
        let (code, said) = server.send("POST", MAPS, &json!({"metadata": {"name": name}})).await;
        (code.as_u16(), said["message"].as_str().unwrap_or_default().to_owned())
    };
    let (code, why) = map("h").await;
    let unknown = "failed to find resource referenced by paramKind: 'example.com/v2, Kind=Thing'";
    assert!(code == 422 && why.contains(unknown), "{code} {why}");
    let converts = hook(&tasks, convert).await;
    serve(&server, definition(&converts, "v1")).await;
    let (code, why) = map("h").await;
    assert!(code == 422 && why.contains("no params found"), "{code} {why}");
    // Written and stored in one version, and read in the other one.
    server.create(OLD, thing("v1", "a", json!({"hostPort": "h:80"}))).await;
    let (code, why) = map("other").await;
    assert!(code == 422 && why.contains("failed expression"), "{code} {why}");
    assert_eq!(map("h").await.0, 201);
    tasks.stop().cancel();
}
