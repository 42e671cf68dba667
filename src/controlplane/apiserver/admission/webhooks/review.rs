//! `AdmissionReview`: what a webhook is asked, and what its answer means.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::{Attributes, request};
use crate::hook_call::CallError;
use api::meta::ObjectExt;
use api::status::{ApiError, Reason};

/// The first version that both sides speak.
pub fn version(hook: &Value) -> &'static str {
    let spoken = hook.array_at("/admissionReviewVersions").iter().filter_map(Value::as_str);
    spoken
        .filter_map(|version| ["v1", "v1beta1"].into_iter().find(|known| *known == version))
        .next()
        .unwrap_or("v1")
}

/// The question.
pub fn question(attributes: &Attributes<'_>, uid: &str, version: &str) -> Value {
    json!({
        "apiVersion": format!("admission.k8s.io/{version}"),
        "kind": "AdmissionReview",
        "request": request::whole(attributes, uid),
    })
}

/// The answer.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub allowed: bool,
    pub warnings: Vec<String>,
    /// What the audit log is to be told.
    pub annotations: Vec<(String, String)>,
    /// A JSON patch.
    pub patch: Option<json_patch::Patch>,
    status: Value,
}

/// Reads an answer; fails if it is none, or is one to another question.
pub fn read(answer: &Value, uid: &str, version: &str) -> Result<Verdict, CallError> {
    let expected = format!("admission.k8s.io/{version}");
    let kind = (answer.text("apiVersion").unwrap_or_default(), answer.text("kind").unwrap_or_default());
    if kind != (expected.as_str(), "AdmissionReview") {
        return Err(CallError::new(format!(
            "expected webhook response of {expected}, Kind=AdmissionReview, got {}, Kind={}",
            kind.0, kind.1
        )));
    }
    let Some(response) = answer.get("response").filter(|response| response.is_object()) else {
        return Err(CallError::new("webhook response was absent"));
    };
    if response.text("uid") != Some(uid) {
        let got = response.text("uid").unwrap_or_default();
        return Err(CallError::new(format!("expected response.uid={uid:?}, got {got:?}")));
    }
    let patch = response.text("patch").filter(|patch| !patch.is_empty()).map(decode_patch).transpose()?;
    if patch.is_some() && response.text("patchType") != Some("JSONPatch") {
        return Err(CallError::new("webhook returned response.patch but not response.patchType"));
    }
    let warnings = response.array_at("/warnings").iter().filter_map(Value::as_str).map(str::to_owned);
    let annotations = response.get("auditAnnotations").and_then(Value::as_object).into_iter().flatten();
    let annotations = annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    Ok(Verdict {
        allowed: response.bool_at("/allowed").unwrap_or(false),
        warnings: warnings.collect(),
        annotations: annotations.collect(),
        patch,
        status: response.get("status").cloned().unwrap_or_default(),
    })
}

fn decode_patch(text: &str) -> Result<json_patch::Patch, CallError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        CallError::new(format!("webhook returned an unreadable patch: {error}"))
    };
    let bytes = STANDARD.decode(text).map_err(|error| unreadable(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))
}

/// Changes an object as a webhook asks.
pub fn apply(object: &mut Value, patch: &json_patch::Patch) -> Result<(), json_patch::PatchError> {
    json_patch::patch(object, patch)
}

impl Verdict {
    /// The refusal, as the client is told. Rule: `ToStatusErr`.
    pub fn refusal(&self, name: &str) -> ApiError {
        let denied = format!("admission webhook {name:?} denied the request");
        let mut said = ["message", "reason"].iter().filter_map(|key| self.status.text(key));
        let message = match said.find(|text| !text.is_empty()) {
            Some(text) => format!("{denied}: {text}"),
            None => format!("{denied} without explanation"),
        };
        let code = self.status.int_at("/code").unwrap_or(0);
        let code = u16::try_from(code).unwrap_or(0).clamp(0, 599);
        let code = if code < 400 { 400 } else { code };
        let reason = self.status.text("reason").and_then(Reason::parse).unwrap_or(Reason::Unknown);
        ApiError::new(code, reason, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    #[test]
    fn answers_are_read() {
        let patch = STANDARD.encode(r#"[{"op": "add", "path": "/data/a", "value": "b"}]"#);
        let verdict = read(
            &answer(json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": patch, "warnings": ["w"], "auditAnnotations": {"a": "b"}})),
            "u",
            "v1",
        )
        .unwrap();
        assert_eq!((verdict.allowed, &verdict.warnings[..]), (true, &["w".to_owned()][..]));
        assert_eq!(verdict.annotations, [("a".to_owned(), "b".to_owned())]);
        let mut object = json!({"data": {}});
        apply(&mut object, &verdict.patch.unwrap()).unwrap();
        assert_eq!(object, json!({"data": {"a": "b"}}));
        for (answer, why) in [
            (answer(json!({"uid": "x", "allowed": true})), "expected response.uid=\"u\", got \"x\""),
            (answer(Value::Null), "webhook response was absent"),
            (
                json!({"kind": "Pod"}),
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got , Kind=Pod",
            ),
            (
                answer(json!({"uid": "u", "allowed": true, "patch": "e30="})),
                "webhook returned an unreadable patch: invalid type: map, expected a sequence at line 1 column 0",
            ),
        ] {
            assert_eq!(read(&answer, "u", "v1").unwrap_err().why, why);
        }
    }

    #[test]
    fn refusals_say_who_refused() {
        let check = |status: Value, code: u16, message: &str| {
            let verdict =
                read(&answer(json!({"uid": "u", "allowed": false, "status": status})), "u", "v1").unwrap();
            let error = verdict.refusal("a.b.c");
            assert_eq!((error.code, error.message.as_str()), (code, message));
        };
        check(
            json!({"message": "no", "code": 403}),
            403,
            "admission webhook \"a.b.c\" denied the request: no",
        );
        check(json!({"reason": "Odd"}), 400, "admission webhook \"a.b.c\" denied the request: Odd");
        check(Value::Null, 400, "admission webhook \"a.b.c\" denied the request without explanation");
    }
}
