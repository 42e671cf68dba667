//! What statuses say; pure.

use serde_json::{Value, json};

use client::gateway::{
    Condition, GATEWAY_CONTROLLER, GROUP, GatewayClass, GatewayState, ListenerState, Parent,
};

/// The features that the proxy has, by upstream's names.
const FEATURES: &[&str] = &[
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructurePropagation",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendRequestRedirect",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ReferenceGrant",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
];

/// Conditions as the API has them; the time of one that has not changed stays.
fn conditions(known: &Value, wanted: &[Condition], generation: Option<i64>, now: &str) -> Value {
    let said = |condition: &Condition| {
        let status = if condition.status { "True" } else { "False" };
        let before = known.as_array().into_iter().flatten();
        let mut before = before.filter(|known| known["type"] == condition.kind && known["status"] == status);
        let time = before.next().and_then(|known| known["lastTransitionTime"].as_str()).unwrap_or(now);
        json!({ "type": condition.kind, "status": status, "reason": condition.reason, "message": condition.message,
            "observedGeneration": generation.unwrap_or_default(), "lastTransitionTime": time })
    };
    wanted.iter().map(said).collect()
}

/// A class's status.
pub(super) fn class(class: &GatewayClass, now: &str) -> Value {
    let accepted = match class.spec.parameters_ref {
        Some(_) => Condition::no(
            "Accepted",
            "InvalidParameters",
            "parametersRef is not supported: there are no parameters",
        ),
        None => Condition::yes("Accepted", "Accepted"),
    };
    let features: Vec<Value> = FEATURES.iter().map(|name| json!({ "name": name })).collect();
    json!({
        "conditions": conditions(&class.status["conditions"], &[accepted], class.metadata.generation, now),
        "supportedFeatures": features,
    })
}

/// What is known of the Service of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Given(String),
    /// Not yet: why.
    Awaited(String),
    /// The wished one cannot be had: why.
    Refused(String),
}

/// A Gateway's status.
pub(super) fn gateway(state: &GatewayState, address: &Address, now: &str) -> Value {
    let known = &state.gateway.status;
    let generation = state.gateway.metadata.generation;
    let programmed = match address {
        _ if !state.accepted.status => Condition::no("Programmed", "Invalid", state.accepted.message.clone()),
        _ if !state.listeners.iter().any(|listener| listener.usable) => {
            Condition::no("Programmed", "Invalid", "no listener can be served")
        }
        Address::Given(_) => Condition::yes("Programmed", "Programmed"),
        Address::Awaited(why) => Condition::no("Programmed", "AddressNotAssigned", why.as_str()),
        Address::Refused(why) => Condition::no("Programmed", "AddressNotUsable", why.as_str()),
    };
    let addresses = match address {
        Address::Given(ip) => json!([{ "type": "IPAddress", "value": ip }]),
        Address::Awaited(_) | Address::Refused(_) => json!([]),
    };
    let listeners: Vec<Value> =
        state.listeners.iter().map(|one| listener(one, &known["listeners"], generation, now)).collect();
    json!({
        "addresses": addresses,
        "conditions": conditions(&known["conditions"], &[state.accepted.clone(), programmed], generation, now),
        "listeners": listeners,
    })
}

fn listener(state: &ListenerState, known: &Value, generation: Option<i64>, now: &str) -> Value {
    let known = known.as_array().into_iter().flatten().find(|known| known["name"] == state.name.as_str());
    let known = known.map_or(&Value::Null, |known| &known["conditions"]);
    let kinds: Vec<Value> =
        state.kinds.iter().map(|kind| json!({ "group": GROUP, "kind": kind.word() })).collect();
    json!({
        "name": state.name,
        "attachedRoutes": state.attached.len(),
        "supportedKinds": kinds,
        "conditions": conditions(known, &state.conditions, generation, now),
    })
}

/// A route's status: what other controllers say stays.
pub(super) fn route(known: &Value, parents: &[Parent], generation: Option<i64>, now: &str) -> Value {
    let all = || known["parents"].as_array().into_iter().flatten();
    let mut said: Vec<Value> =
        all().filter(|parent| parent["controllerName"] != GATEWAY_CONTROLLER).cloned().collect();
    for parent in parents {
        let mut reference = serde_json::to_value(&parent.reference).unwrap_or_default();
        if let Some(fields) = reference.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let ours =
            |known: &&Value| known["controllerName"] == GATEWAY_CONTROLLER && known["parentRef"] == reference;
        let before = all().find(ours).map_or(&Value::Null, |known| &known["conditions"]);
        let conditions = conditions(before, &parent.conditions, generation, now);
        said.push(
            json!({ "parentRef": reference, "controllerName": GATEWAY_CONTROLLER, "conditions": conditions }),
        );
    }
    json!({ "parents": said })
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::gateway::ParentRef;

    #[test]
    fn times_stay_while_nothing_changes_and_others_parents_stay() {
        let other =
            json!({ "controllerName": "x.example/y", "parentRef": { "name": "o" }, "conditions": [] });
        let parent = |accepted| Parent {
            reference: ParentRef { name: "gw".into(), ..ParentRef::default() },
            conditions: vec![accepted],
        };
        let yes = || Condition::yes("Accepted", "Accepted");
        let first = route(&json!({ "parents": [other] }), &[parent(yes())], Some(1), "then");
        assert_eq!(first["parents"][0], other);
        assert_eq!(first["parents"][1]["parentRef"], json!({ "name": "gw" }));
        assert_eq!(route(&first, &[parent(yes())], Some(1), "now"), first);
        let second =
            route(&first, &[parent(Condition::no("Accepted", "NoMatchingParent", "none"))], Some(2), "now");
        let condition = &second["parents"][1]["conditions"][0];
        assert_eq!(
            (&condition["status"], &condition["lastTransitionTime"]),
            (&json!("False"), &json!("now"))
        );
        assert_eq!(route(&second, &[], Some(2), "now")["parents"], json!([other]));
    }

    #[test]
    fn features_stand_by_name_once() {
        assert!(FEATURES.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
