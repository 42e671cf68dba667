//! Every decoder that takes bytes from outside, over a corpus of good and bad inputs (`tests/corpus/<decoder>/`) and what
//! random changes make of them: none may panic or take for ever, and what is accepted must hold what it promises.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use minik::api::meta::Gvk;
use minik::api::quantity::Quantity;
use minik::api::schema::{self, FieldValidation};
use minik::api::selector::{FieldSelector, LabelSelector};
use minik::api::{patch, protobuf};
use minik::controlplane::apiserver::RequestInfo;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Changed inputs per file of a corpus. More by `MINIK_FUZZ_ROUNDS`, to look for what a short run does not find.
const ROUNDS: usize = 300;

/// Runs a decoder over its corpus and over changes of it; fails with the input that it panicked on.
fn each(name: &str, decode: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let mut corpus: Vec<_> = std::fs::read_dir(&folder)
        .expect("a corpus")
        .map(|file| file.expect("a file").path())
        .map(|path| std::fs::read(&path).expect("readable"))
        .collect();
    corpus.sort();
    assert!(!corpus.is_empty(), "{name} has no corpus");
    let rounds =
        std::env::var("MINIK_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let mut random = SmallRng::seed_from_u64(1);
    let try_one = |input: &[u8]| {
        let run = std::panic::catch_unwind(AssertUnwindSafe(|| decode(input)));
        assert!(run.is_ok(), "{name} panicked on {:?}", String::from_utf8_lossy(input));
    };
    for seed in &corpus {
        try_one(seed);
        for _ in 0..rounds {
            let mut input = seed.clone();
            for _ in 0..random.random_range(1..6) {
                change(&mut input, &corpus, &mut random);
            }
            try_one(&input);
        }
    }
}

/// One change: a bit, a byte, a piece cut, doubled, or brought from another input.
fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut SmallRng) {
    const TELLING: &[u8] = b"\0\x01\x7f\x80\xff{}[]\",:/~-=!()0";
    if input.is_empty() {
        input.push(random.random());
        return;
    }
    let at = random.random_range(0..input.len());
    let to = random.random_range(at..input.len());
    match random.random_range(0..6) {
        0 => input[at] ^= 1 << random.random_range(0..8),
        1 => input[at] = TELLING[random.random_range(0..TELLING.len())],
        2 => input.insert(at, TELLING[random.random_range(0..TELLING.len())]),
        3 => drop(input.drain(at..to)),
        4 if input.len() < 1 << 16 => {
            let piece = input[at..to].to_vec();
            input.splice(at..at, piece);
        }
        _ => {
            let other = &corpus[random.random_range(0..corpus.len())];
            let from = random.random_range(0..=other.len());
            input.splice(at..to, other[from..].iter().copied());
        }
    }
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
