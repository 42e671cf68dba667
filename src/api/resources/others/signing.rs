//! Requests for certificates: what may be asked, who decides, and who signs.

use std::cmp::Ordering;

use base64::Engine as _;
use serde_json::Value;

use crate::meta::ObjectExt;
use crate::resources::fill::Fill;
use crate::resources::{Part, Strategy};
use crate::validate::{FieldError, Path, check, dns1123_label, dns1123_subdomain};

/// Conditions that decide a request.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// Conditions that, once said, are true for good.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];
/// Of requests by a version of the API that is gone.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What is wrong with the name of a signer. Rule: `ValidateSignerName`.
fn signer(name: &str, path: &Path) -> Vec<FieldError> {
    if name.is_empty() {
        return Vec::new();
    }
    if name == LEGACY_SIGNER {
        let why = "the legacy signerName is not allowed via this API version";
        return vec![FieldError::invalid(path, name, why)];
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return vec![FieldError::invalid(path, name, why)];
    };
    let mut errors = Vec::new();
    let mut labels = |text: &str, rule: fn(&str) -> Vec<String>| {
        for label in text.split('.') {
            let wrong = rule(label).into_iter().map(|why| format!("validating label {label:?}: {why}"));
            errors.extend(wrong.map(|why| FieldError::invalid(path, text, why)));
        }
    };
    labels(domain, dns1123_label);
    labels(rest, dns1123_subdomain);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, why));
    }
    errors
}

fn usages(said: &[Value], path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, usage) in said.iter().enumerate() {
        let text = usage.as_str().unwrap_or_default();
        if !USAGES.contains(&text) {
            errors.push(FieldError::not_supported(path.index(at), text, &USAGES));
        }
        if said[..at].contains(usage) {
            errors.push(FieldError::duplicate(path.index(at), text));
        }
    }
    errors
}

/// CertificateSigningRequests: what was asked for never changes.
pub struct SigningRequest;

impl Strategy for SigningRequest {
    /// Whether a request is approved or denied is not the signer's to say: as many such conditions as there were are those that
    /// there were.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        for decision in DECISIONS {
            let before = conditions(old, decision);
            if before.len() != conditions(new, decision).len() {
                continue;
            }
            let mut before = before.into_iter().cloned();
            new.open("status").each("conditions", |condition| {
                if condition.text("type") == Some(decision)
                    && let Some(before) = before.next()
                {
                    *condition = before;
                }
            });
        }
    }

    /// Rule: `populateConditionTimestamps`.
    fn stamp(&self, new: &mut Value, old: &Value, now: &str) {
        new.within("status", |status| {
            status.each("conditions", |condition| {
                condition.fill_text("lastUpdateTime", now);
                let kind = condition.text("type").unwrap_or_default();
                let before =
                    conditions(old, kind).into_iter().find(|old| old["status"] == condition["status"]);
                let since = before.and_then(|old| old.text("lastTransitionTime")).unwrap_or(now).to_owned();
                condition.fill_text("lastTransitionTime", &since);
            });
        });
    }

    fn validate_part(&self, part: Part, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = removed(new, old);
        errors.extend(sound(new, old));
        if part != Part::Approval {
            errors.extend(undecided(new, old));
            errors.extend(certificate(new, old));
        }
        errors
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if let Some(spec) = old.get("spec") {
            new.put("spec", spec.clone());
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let path = Path::new("spec");
        let mut errors = Vec::new();
        // What is asked for never changes: what stands was good when it was asked.
        if old.is_none() {
            errors.extend(signer(
                new.str_at("/spec/signerName").unwrap_or_default(),
                &path.child("signerName"),
            ));
            errors.extend(usages(new.array_at("/spec/usages"), &path.child("usages")));
        }
        for field in ["request", "signerName"] {
            if new["spec"].text(field).unwrap_or_default().is_empty() {
                errors.push(FieldError::required(path.child(field), ""));
            }
        }
        if new.array_at("/spec/usages").is_empty() {
            errors.push(FieldError::required(path.child("usages"), "usages must be specified"));
        }
        if new.int_at("/spec/expirationSeconds").is_some_and(|seconds| seconds < 600) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid(
                path.child("expirationSeconds"),
                new["spec"]["expirationSeconds"].clone(),
                why,
            ));
        }
        errors
    }

    fn selectable_fields(&self, request: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", request.str_at("/spec/signerName").unwrap_or_default().to_owned())]
    }
}

/// The conditions of a kind.
fn conditions<'a>(request: &'a Value, kind: &str) -> Vec<&'a Value> {
    let all = request.array_at("/status/conditions").iter();
    all.filter(|condition| condition.text("type") == Some(kind)).collect()
}

/// What was decided stays decided, and what failed has failed.
fn removed(new: &Value, old: &Value) -> Vec<FieldError> {
    let fewer = |kind: &&str| conditions(new, kind).len() < conditions(old, kind).len();
    FINAL
        .into_iter()
        .filter(fewer)
        .map(|kind| {
            let why = format!("updates may not remove a condition of type {kind:?}");
            FieldError::forbidden("status.conditions", why)
        })
        .collect()
}

/// Who signs decides nothing.
fn undecided(new: &Value, old: &Value) -> Vec<FieldError> {
    let said = |decision: &&str| {
        let (now, before) = (conditions(new, decision), conditions(old, decision));
        let what = match now.len().cmp(&before.len()) {
            Ordering::Less => return None,
            Ordering::Greater => "add",
            Ordering::Equal if now != before => "modify",
            Ordering::Equal => return None,
        };
        let why = format!("updates may not {what} a condition of type {decision:?}");
        Some(FieldError::forbidden("status.conditions", why))
    };
    DECISIONS.iter().filter_map(said).collect()
}

/// Conditions are said once, with a status; a request is approved or denied. What stood so already may stand on. Rule:
/// `validateConditions`.
fn sound(new: &Value, old: &Value) -> Vec<FieldError> {
    let decided = |request: &Value| DECISIONS.map(|decision| !conditions(request, decision).is_empty());
    let both = decided(old) == [true, true];
    let mut seen: Vec<&str> = Vec::new();
    check(new, "status", |status| {
        status.each("conditions", |condition| {
            let kind = condition.need("type", "");
            let allowed: &[&str] =
                if FINAL.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
            condition.need_one_of("status", allowed, "");
            let other = DECISIONS.iter().find(|other| DECISIONS.contains(&kind) && **other != kind);
            if !both && other.is_some_and(|other| seen.contains(other)) {
                condition.invalid("type", "Approved and Denied conditions are mutually exclusive");
            }
            if seen.contains(&kind) && conditions(old, kind).len() < 2 {
                condition.duplicate("type");
            }
            seen.push(kind);
        });
    })
}

/// A certificate is said once, and is one.
fn certificate(new: &Value, old: &Value) -> Vec<FieldError> {
    let text = |request: &Value| request["status"].text("certificate").unwrap_or_default().to_owned();
    let (now, before) = (text(new), text(old));
    if now == before {
        return Vec::new();
    }
    if !before.is_empty() {
        let why = "updates may not modify existing certificate content";
        return vec![FieldError::forbidden("status.certificate", why)];
    }
    let pem = base64::prelude::BASE64_STANDARD.decode(now).unwrap_or_default();
    let block = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(block.len()).any(|part| part == block) {
        return Vec::new();
    }
    let why = "must contain at least one CERTIFICATE PEM block";
    vec![FieldError::invalid("status.certificate", "<certificate data>", why)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_names_a_signer_and_usages_that_there_are() {
        let case = |signer: &str, usages: Value, expect: &[&str]| {
            let request = json!({"spec": {"request": "x", "signerName": signer, "usages": usages}});
            let errors = SigningRequest.validate(&request, None);
            let said: Vec<String> =
                errors.iter().map(|e| format!("{} {}", e.field, e.kind.cause())).collect();
            assert_eq!(said, expect, "{errors:?}");
            assert_eq!(SigningRequest.validate(&request, Some(&request)).len(), 0, "it stands");
        };
        case("example.com/a.b", json!(["client auth"]), &[]);
        case("kubernetes.io/legacy-unknown", json!(["client auth"]), &["spec.signerName FieldValueInvalid"]);
        case("example", json!(["client auth"]), &["spec.signerName FieldValueInvalid"]);
        case("com/a", json!(["client auth"]), &["spec.signerName FieldValueInvalid"]);
        case("EX.com/a", json!(["client auth"]), &["spec.signerName FieldValueInvalid"]);
        case(
            "example.com/a",
            json!(["any", "odd", "any"]),
            &["spec.usages[1] FieldValueNotSupported", "spec.usages[2] FieldValueDuplicate"],
        );
    }

    #[test]
    fn signers_sign_and_approvers_approve() {
        let request = |conditions: Value| json!({"status": {"conditions": conditions}});
        let condition = |kind: &str| json!({"type": kind, "status": "True"});
        let check = |part: Part, before: Value, after: Value, expect: &[&str]| {
            let (old, mut new) = (request(before), request(after.clone()));
            if part == Part::Status {
                SigningRequest.prepare_status_update(&mut new, &old);
            }
            let errors = SigningRequest.validate_part(part, &new, &old);
            let said: Vec<&str> = errors.iter().map(|error| error.detail.as_str()).collect();
            assert_eq!(said, expect, "{after}");
        };
        let approved = json!([condition("Approved")]);
        check(Part::Approval, json!([]), approved.clone(), &[]);
        check(
            Part::Status,
            json!([]),
            approved.clone(),
            &["updates may not add a condition of type \"Approved\""],
        );
        check(
            Part::Status,
            approved.clone(),
            json!([]),
            &["updates may not remove a condition of type \"Approved\""],
        );
        let reworded = json!([{"type": "Approved", "status": "True", "reason": "Mine"}]);
        check(Part::Status, approved.clone(), reworded, &[]);
        check(Part::Status, approved.clone(), json!([condition("Approved"), condition("Failed")]), &[]);
        check(
            Part::Approval,
            approved.clone(),
            json!([condition("Approved"), condition("Denied")]),
            &["Approved and Denied conditions are mutually exclusive"],
        );
        check(Part::Approval, json!([]), json!([condition("Approved"), condition("Approved")]), &[""]);
    }

    #[test]
    fn a_certificate_is_said_once() {
        let with =
            |text: &str| json!({"status": {"certificate": base64::prelude::BASE64_STANDARD.encode(text)}});
        let one = with("-----BEGIN CERTIFICATE-----\n");
        assert_eq!(certificate(&one, &json!({})), []);
        assert_eq!(certificate(&one, &one), []);
        assert_eq!(certificate(&with("x"), &json!({})).len(), 1);
        assert_eq!(certificate(&json!({}), &one).len(), 1);
    }

    #[test]
    fn conditions_say_since_when() {
        let since = json!({"type": "Failed", "status": "True", "lastTransitionTime": "then", "lastUpdateTime": "then"});
        let old = json!({"status": {"conditions": [since]}});
        let mut new = json!({"status": {"conditions":
            [{"type": "Failed", "status": "True"}, {"type": "Odd", "status": "True"}]}});
        SigningRequest.stamp(&mut new, &old, "now");
        let times = |index: usize| {
            let condition = &new["status"]["conditions"][index];
            (condition["lastTransitionTime"].clone(), condition["lastUpdateTime"].clone())
        };
        assert_eq!(times(0), (json!("then"), json!("now")));
        assert_eq!(times(1), (json!("now"), json!("now")));
    }
}
