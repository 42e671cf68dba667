//! What a container or Pod asks for and is held to.

use serde_json::Value;

use crate::meta::ObjectExt;
use crate::quantity::Quantity;
use crate::validate::{Check, FieldError, NOT_NEGATIVE, qualified_name};

const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Whether less may be asked for than is allowed: of resources of the nodes' own, but not of huge pages.
pub fn may_overcommit(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    native && !name.starts_with("hugepages-")
}

/// Whether a container may name this resource.
fn name_errors(name: &str) -> Vec<String> {
    let mut wrong = qualified_name(name);
    if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with("hugepages-") {
        wrong.push("must be a standard resource for containers".to_owned());
    }
    wrong
}

/// One amount: not negative, and whole where parts make no sense.
pub fn amount(check: &mut Check<'_, '_>, name: &str) {
    match Quantity::from_value(check.value) {
        Ok(amount) if amount.sign() < 0 => {
            check.push(FieldError::invalid(&check.path, amount.to_string(), NOT_NEGATIVE));
        }
        Ok(amount) if name.contains('/') && !name.contains("kubernetes.io/") && !amount.is_whole() => {
            check.push(FieldError::invalid(&check.path, amount.to_string(), "must be an integer"));
        }
        Ok(_) => {}
        Err(error) => check.wrong(error.to_string()),
    }
}

/// Rule: `ValidateResourceRequirements`: known names, not negative, and requests no greater than limits.
/// `pod`: the Pod's spec, whose claims may be named.
pub fn requirements(resources: &mut Check<'_, '_>, pod: Option<&Value>) {
    for kind in ["limits", "requests"] {
        resources.each_key(kind, |check, name| {
            for why in name_errors(name) {
                check.push(FieldError::invalid(&check.path, name, why));
            }
            amount(check, name);
        });
    }
    let limits = resources.get("limits");
    let at = resources.at("requests");
    for (name, request) in resources.get("requests").as_object().into_iter().flatten() {
        let Ok(request) = Quantity::from_value(request) else { continue };
        match limits.get(name).map(Quantity::from_value) {
            Some(Ok(limit)) if request != limit && !may_overcommit(name) => {
                let why = format!("must be equal to {name} limit of {limit}");
                resources.push(FieldError::invalid(&at, request.to_string(), why));
            }
            Some(Ok(limit)) if request > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                resources.push(FieldError::invalid(&at, request.to_string(), why));
            }
            None if !may_overcommit(name) => {
                resources.required("limits", "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let said = |wanted: &dyn Fn(&str) -> bool| {
        ["limits", "requests"]
            .iter()
            .any(|kind| resources.get(kind).as_object().into_iter().flatten().any(|(name, _)| wanted(name)))
    };
    let huge = said(&|name| name.starts_with("hugepages-"));
    if huge && !said(&|name| name == "cpu" || name == "memory") {
        resources.push(FieldError::forbidden(&resources.path, "HugePages require cpu or memory"));
    }
    let claims = pod.map(|pod| pod.array_at("/resourceClaims")).unwrap_or_default();
    resources.each("claims", |claim| {
        let name = claim.need("name", "");
        if !name.is_empty() && !claims.iter().any(|known| known.text("name") == Some(name)) {
            claim.push(FieldError::not_found(claim.at("name"), name));
        }
    });
}
