//! Taints and tolerations.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether a toleration covers a taint (core/v1 rules: an empty key with `Exists` covers all keys, an
/// empty effect all effects; `Lt` and `Gt` compare whole numbers).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let value = toleration.value.as_deref().unwrap_or_default();
    let tainted = taint.value.as_deref().unwrap_or_default();
    let numbers = || Some((tainted.parse::<i64>().ok()?, value.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => !key.is_empty() && value == tainted,
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(tainted, value)| tainted < value),
        "Gt" => numbers().is_some_and(|(tainted, value)| tainted > value),
        _ => false,
    }
}

/// Whether any of the tolerations covers the taint.
pub fn tolerates_any(tolerations: Option<&Vec<Toleration>>, taint: &Taint) -> bool {
    tolerations.into_iter().flatten().any(|toleration| tolerates(toleration, taint))
}

/// The first taint with one of the effects that no toleration covers.
pub fn first_untolerated<'a>(
    taints: impl IntoIterator<Item = &'a Taint>,
    tolerations: Option<&Vec<Toleration>>,
    effects: &[&str],
) -> Option<&'a Taint> {
    let relevant = |taint: &&Taint| effects.contains(&taint.effect.as_str());
    taints.into_iter().filter(relevant).find(|taint| !tolerates_any(tolerations, taint))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn tolerations_cover_taints_as_the_api_defines() {
        let taint =
            Taint { key: "k".into(), value: Some("5".into()), effect: "NoSchedule".into(), time_added: None };
        let check = |toleration: Value, expect: bool| {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&parsed, &taint), expect, "{toleration}");
        };
        check(json!({"operator": "Exists"}), true);
        check(json!({"key": "k", "operator": "Exists"}), true);
        check(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false);
        check(json!({"key": "k", "value": "5"}), true);
        check(json!({"key": "k", "value": "6"}), false);
        check(json!({"key": "other", "operator": "Exists"}), false);
        check(json!({"key": "k", "operator": "Lt", "value": "6"}), true);
        check(json!({"key": "k", "operator": "Gt", "value": "6"}), false);
    }
}
