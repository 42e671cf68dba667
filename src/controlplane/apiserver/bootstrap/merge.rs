//! What has to be written so that a stored object has what it must have.

use serde_json::Value;

use api::flow_control::AUTO_UPDATE;
use api::meta::ObjectExt;

/// What has to be written so that `stored` has everything that `wanted` says; `None`: nothing. Roles and bindings only gain:
/// what people added stays, and `autoupdate: "false"` keeps them as they are (upstream's reconciliation). Of other objects
/// only those follow the configuration that are nothing but a copy of it.
pub(super) fn complete(stored: &Value, wanted: &Value) -> Option<Value> {
    let mut merged = stored.clone();
    match wanted.text("kind").unwrap_or_default() {
        "ClusterRole" | "Role" => {
            if keeps_itself(stored) {
                return None;
            }
            add_missing(&mut merged, wanted, "rules");
            for (key, value) in wanted.labels() {
                merged.set_label(key, value);
            }
            if let Some(aggregation) = wanted.get("aggregationRule") {
                merged["aggregationRule"] = aggregation.clone();
            }
        }
        "ClusterRoleBinding" | "RoleBinding" => {
            // A binding cannot be turned to another role; one that was made so by hand is somebody's decision.
            if keeps_itself(stored) || stored.get("roleRef") != wanted.get("roleRef") {
                return None;
            }
            add_missing(&mut merged, wanted, "subjects");
        }
        "Endpoints" => merged["subsets"] = wanted["subsets"].clone(),
        "EndpointSlice" => {
            merged["endpoints"] = wanted["endpoints"].clone();
            merged["ports"] = wanted["ports"].clone();
        }
        // Those that people changed say so.
        "FlowSchema" | "PriorityLevelConfiguration" => {
            if stored.annotation(AUTO_UPDATE) != Some("true") {
                return None;
            }
            for (field, value) in wanted["spec"].as_object().into_iter().flatten() {
                merged["spec"][field] = value.clone();
            }
        }
        "ConfigMap" | "Secret" => merged["data"] = wanted["data"].clone(),
        _ => return None,
    }
    (merged != *stored).then_some(merged)
}

fn keeps_itself(stored: &Value) -> bool {
    stored.annotation("rbac.authorization.kubernetes.io/autoupdate") == Some("false")
}

fn add_missing(merged: &mut Value, wanted: &Value, field: &str) {
    let mut items = merged.array_at(&format!("/{field}")).to_vec();
    let missing: Vec<Value> =
        wanted.array_at(&format!("/{field}")).iter().filter(|item| !items.contains(item)).cloned().collect();
    if missing.is_empty() {
        return;
    }
    items.extend(missing);
    merged[field] = items.into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn roles_only_gain() {
        let wanted = json!({"kind": "ClusterRole", "rules": [{"verbs": ["get"]}]});
        let stored =
            json!({"kind": "ClusterRole", "metadata": {"name": "x"}, "rules": [{"verbs": ["list"]}]});
        let merged = complete(&stored, &wanted).unwrap();
        assert_eq!(merged["rules"], json!([{"verbs": ["list"]}, {"verbs": ["get"]}]));
        assert_eq!(complete(&merged, &wanted), None);
        let mut fixed = stored;
        fixed.set_annotation("rbac.authorization.kubernetes.io/autoupdate", "false");
        assert_eq!(complete(&fixed, &wanted), None);
    }

    #[test]
    fn a_moved_server_moves_its_endpoints() {
        let stored = json!({"kind": "Endpoints", "subsets": [1]});
        assert_eq!(
            complete(&stored, &json!({"kind": "Endpoints", "subsets": [2]})).unwrap()["subsets"],
            json!([2])
        );
        assert_eq!(complete(&json!({"kind": "Service"}), &json!({"kind": "Service", "spec": 1})), None);
    }
}
