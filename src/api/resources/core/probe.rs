use serde_json::{Value, json};

use crate::api::meta::ObjectExt;
use crate::api::resources::fill::Fill;
use crate::api::validate::{FieldError, Path, port_name, port_number};

/// Rule: `SetDefaults_Probe`.
pub fn default_probe(probe: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.get(field).is_none_or(|old| old.is_null() || old == 0) {
            probe.put(field, value);
        }
    }
    default_handler(probe);
}

/// Rule: `SetDefaults_HTTPGetAction`.
pub fn default_handler(handler: &mut Value) {
    handler.within("httpGet", |get| {
        get.fill_text("path", "/");
        get.fill_text("scheme", "HTTP");
    });
    handler.within("grpc", |grpc| grpc.fill("service", ""));
}

/// Everything wrong with a probe. `once`: it counts as passed after one success (liveness and startup).
pub fn validate(probe: &Value, path: &Path, once: bool) -> Vec<FieldError> {
    let mut errors = validate_handler(probe, path, &["exec", "httpGet", "tcpSocket", "grpc"]);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        if let Some(number) = probe.get(field).and_then(Value::as_i64).filter(|number| *number < 0) {
            errors.push(FieldError::invalid(path.child(field), number, "must be greater than or equal to 0"));
        }
    }
    if once && probe.get("successThreshold").and_then(Value::as_i64).is_some_and(|number| number != 1) {
        errors.push(FieldError::invalid(
            path.child("successThreshold"),
            probe["successThreshold"].clone(),
            "must be 1",
        ));
    }
    errors
}

/// A probe or hook says exactly one way in which it acts.
pub fn validate_handler(handler: &Value, path: &Path, ways: &[&str]) -> Vec<FieldError> {
    let said: Vec<&str> = ways.iter().copied().filter(|way| handler.has(way)).collect();
    let mut errors = Vec::new();
    if said.is_empty() {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    for extra in said.iter().skip(1) {
        errors.push(FieldError::forbidden(path.child(extra), "may not specify more than 1 handler type"));
    }
    if said.contains(&"exec") && handler.array_at("/exec/command").is_empty() {
        errors.push(FieldError::required(path.child("exec").child("command"), ""));
    }
    for way in ["httpGet", "tcpSocket"] {
        if said.contains(&way) {
            port(
                handler[way].get("port").unwrap_or(&Value::Null),
                &path.child(way).child("port"),
                &mut errors,
            );
        }
    }
    errors
}

fn port(port: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let wrong = match port {
        Value::String(name) => port_name(name),
        Value::Number(number) => port_number(number.as_i64().unwrap_or_default()),
        _ => port_number(0),
    };
    let shown = if port.is_null() { json!(0) } else { port.clone() };
    errors.extend(wrong.into_iter().map(|why| FieldError::invalid(path, shown.clone(), why)));
}
