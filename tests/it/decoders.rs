//! Every decoder that takes bytes from outside, over a corpus of good and bad inputs (`tests/corpus/<decoder>/`) and what
//! random changes make of them: none may panic or take for ever, and what is accepted must hold what it promises.
//!
//! `scripts/fuzz` builds the same with counters of what code ran, and looks for inputs that reach more of it.

#[cfg(minik_coverage)]
mod guided;
mod tried;

use std::path::Path;

use minik::api::fields::FieldSet;
use minik::api::meta::Gvk;
use minik::api::quantity::Quantity;
use minik::api::schema::{self, FieldValidation};
use minik::api::selector::{FieldSelector, LabelSelector};
use minik::api::structural::{self, JsonPath, Structural, text_of};
use minik::api::{patch, protobuf};
use minik::apiserver::RequestInfo;
use serde_json::{Value, json};

/// Runs a decoder over its corpus and over changes of it; fails with the input that it panicked on, or took too long for.
fn each(name: &str, decode: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let corpus = tried::corpus(&folder);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    #[cfg(minik_coverage)]
    if let Some(time) = guided::time() {
        return guided::search(&folder, corpus, time, &decode);
    }
    tried::all(name, &corpus, &decode);
}

fn deployment() -> &'static schema::Schema {
    schema::builtin(&Gvk::of("apps", "v1", "Deployment")).expect("a type")
}

#[test]
fn protobuf_bodies() {
    each("protobuf", |input| {
        let _ = protobuf::type_of(input);
        if let Ok(object) = protobuf::decode(input) {
            assert!(object.is_object());
        }
    });
}

#[test]
fn json_bodies() {
    each("json", |input| {
        for validation in [FieldValidation::Ignore, FieldValidation::Warn, FieldValidation::Strict] {
            if let Ok((object, _)) = deployment().decode(input, validation) {
                let again = deployment().decode(object.to_string().as_bytes(), FieldValidation::Strict);
                assert_eq!(again.expect("what was decoded once is decoded again").0, object);
            }
        }
    });
}

#[test]
fn patches() {
    let object = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"replicas": 1, "template": {"spec": {
        "containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "b"}],
        "volumes": [{"name": "v", "emptyDir": {}}]}}}});
    each("patch", |input| {
        let Ok(patch) = serde_json::from_slice::<Value>(input) else { return };
        let _ = patch::json(&object, &patch);
        let _ = patch::strategic(&object, &patch, deployment());
        if let Ok(merged) = patch::merge(&object, &patch) {
            assert_eq!(
                patch::merge(&merged, &patch).expect("twice"),
                merged,
                "a merge patch twice changes nothing"
            );
        }
    });
}

#[test]
fn selectors_and_quantities() {
    each("selector", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let _ = LabelSelector::parse(text);
        let _ = FieldSelector::parse(text);
        if let Ok(quantity) = Quantity::parse(text) {
            let said = quantity.to_string();
            assert_eq!(Quantity::parse(&said).expect("what is said is read").to_string(), said, "{text}");
        }
    });
}

#[test]
fn request_lines() {
    each("request", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        for method in [http::Method::GET, http::Method::POST, http::Method::DELETE] {
            let info = RequestInfo::new(&method, path, Some(query));
            assert!(info.is_resource || info.resource.is_empty(), "{info:?}");
        }
    });
}

#[test]
fn signing_requests() {
    each("csr", |input| {
        let _ = minik::pki::Csr::parse(&String::from_utf8_lossy(input));
    });
}

/// What a definition says of its objects, and an object of that kind: both are anybody's who may define kinds.
#[test]
fn structural_schemas() {
    each("structural", |input| {
        let Ok(said) = serde_json::from_slice::<Value>(input) else { return };
        let problems = structural::problems(&said["schema"], "schema");
        let schema = Structural::of(&said["schema"]);
        let mut object = said["object"].clone();
        structural::prune(&schema, &mut object);
        structural::default(&schema, &mut object);
        let _ = structural::check(&schema, &object, "");
        let mut again = object.clone();
        structural::prune(&schema, &mut again);
        if problems.is_empty() {
            assert_eq!(again, object, "what was pruned once is as it should be");
        }
    });
}

#[test]
fn json_paths() {
    let object =
        json!({"metadata": {"name": "a"}, "spec": {"list": [{"a": 1}, {"a": [2, "three"]}], "x.y": true}});
    each("json-path", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(path) = JsonPath::parse(text) {
            path.find(&object).into_iter().for_each(|found| drop(text_of(found)));
        }
    });
}

#[test]
fn schedules() {
    let now: jiff::Timestamp = "2026-02-27T23:59:30Z".parse().expect("a time");
    let zone = minik::api::cron::zone("Europe/Berlin").expect("a zone");
    each("schedule", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(schedule) = minik::api::cron::Schedule::parse(text)
            && let Some(next) = schedule.next_after(now, &zone)
        {
            assert!(next > now, "{text}");
        }
    });
}

#[test]
fn cluster_files() {
    each("cluster-file", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let get = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let dir = std::path::Path::new("/nonexistent");
        let around = minik::cluster::file::Surroundings { dir, name: "a", get: &get };
        let _ = minik::cluster::file::parse(text, &around);
    });
}

#[test]
fn certificates() {
    each("certificate", |input| {
        let _ = minik::pki::CertificateInfo::from_der(input);
        let _ = minik::pki::spki_hash(input);
        let _ = minik::pki::CertificateInfo::from_pem(&String::from_utf8_lossy(input));
    });
}

/// Clients send back what `managedFields` says, and may have changed it.
#[test]
fn field_sets() {
    each("field-set", |input| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return };
        if let Some(set) = FieldSet::from_value(&value) {
            let said = set.to_value();
            assert_eq!(FieldSet::from_value(&said).expect("what is said is read").to_value(), said);
            drop(set.paths());
        }
    });
}
