//! Defaults and validation of probes.

use serde_json::{Value, json};

use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, http_header_name, port_name, port_number};

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

const PROBES: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOKS: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];

/// Everything wrong with a probe. `once`: it counts as passed after one success (liveness and startup).
pub fn validate(probe: &mut Check<'_, '_>, once: bool) {
    handler(probe, PROBES);
    probe.not_negative(&[
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ]);
    if once {
        if probe.int("successThreshold").is_some_and(|number| number != 1) {
            probe.invalid("successThreshold", "must be 1");
        }
        if probe.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds <= 0) {
            probe.invalid("terminationGracePeriodSeconds", "must be greater than 0");
        }
    } else if probe.has("terminationGracePeriodSeconds") {
        probe.invalid("terminationGracePeriodSeconds", "must not be set for readinessProbes");
    }
}

/// Everything wrong with a hook. `grace`: the seconds that the Pod is given to end.
pub fn hook(hook: &mut Check<'_, '_>, grace: Option<i64>) {
    handler(hook, HOOKS);
    hook.within("sleep", |sleep| {
        let (seconds, most) = (sleep.int("seconds").unwrap_or(0), grace.unwrap_or(30));
        if seconds < 0 || seconds > most {
            let why = format!(
                "must be non-negative and less than terminationGracePeriodSeconds ({most}). Note min of 1 second is set when gracePeriodSeconds is 0"
            );
            sleep.invalid("seconds", why);
        }
    });
}

/// A probe or hook says exactly one way in which it acts.
fn handler(handler: &mut Check<'_, '_>, ways: &[&str]) {
    let said: Vec<&str> = ways.iter().copied().filter(|way| handler.has(way)).collect();
    if said.is_empty() {
        handler.push(FieldError::required(&handler.path, "must specify a handler type"));
    }
    for extra in said.iter().skip(1) {
        handler.forbidden(extra, "may not specify more than 1 handler type");
    }
    handler.within("exec", |exec| {
        if exec.list("command").is_empty() {
            exec.required("command", "");
        }
    });
    handler.within("httpGet", |get| {
        get.need("path", "");
        port(get);
        get.need_one_of("scheme", &["HTTP", "HTTPS"], "");
        get.each("httpHeaders", |header| header.follow("name", http_header_name(header.text("name"))));
    });
    handler.within("tcpSocket", port);
    handler.within("grpc", |grpc| {
        grpc.follow("port", port_number(grpc.int("port").unwrap_or(0)));
    });
}

fn port(action: &mut Check<'_, '_>) {
    let port = action.get("port");
    let wrong = match port {
        Value::String(name) => port_name(name),
        other => port_number(other.as_i64().unwrap_or_default()),
    };
    let shown = if port.is_null() { json!(0) } else { port.clone() };
    for why in wrong {
        action.push(FieldError::invalid(action.at("port"), shown.clone(), why));
    }
}
