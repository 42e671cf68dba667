//! Where a webhook is: a URL or a Service.

use super::{Check, FieldError, port_number};

/// Checks `clientConfig` of a webhook. Rule: `ValidateWebhookURL`, `ValidateWebhookService`.
pub fn client_config(hook: &mut Check<'_, '_>) {
    let mut client = hook.child("clientConfig");
    match (client.has("url"), client.has("service")) {
        (true, false) => url(&mut client),
        (false, true) => client.within("service", |service| {
            service.need("name", "service name is required");
            service.need("namespace", "service namespace is required");
            let path = service.text("path");
            // Rule: `ValidateWebhookService`; an empty path is the root.
            if !path.is_empty() && !path.starts_with('/') {
                service.invalid("path", "must start with a '/'");
            }
            let port = service.int("port").unwrap_or(443);
            if !port_number(port).is_empty() {
                let why = format!("port is not valid: {}", port_number(port).join(", "));
                service.invalid("port", why);
            }
        }),
        _ => {
            let error = FieldError::required(&client.path, "exactly one of url or service is required");
            client.push(error);
        }
    }
}

fn url(client: &mut Check<'_, '_>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let url = client.text("url");
    let Some(rest) = url.strip_prefix("https://") else {
        let scheme = url.split("://").next().filter(|_| url.contains("://")).unwrap_or_default();
        let why = format!("'https' is the only allowed URL scheme{FORM}");
        client.push(FieldError::invalid(client.at("url"), scheme, why));
        if scheme.is_empty() {
            client.push(FieldError::invalid(client.at("url"), "", format!("host must be specified{FORM}")));
        }
        return;
    };
    if rest.split(['/', '?', '#']).next().unwrap_or_default().is_empty() {
        client.push(FieldError::invalid(client.at("url"), "", format!("host must be specified{FORM}")));
    }
    if rest.contains('@') {
        client.invalid("url", "user information is not permitted in the URL");
    }
    for (mark, word) in [('#', "fragments are"), ('?', "query parameters are")] {
        if rest.contains(mark) {
            client.invalid("url", format!("{word} not permitted in the URL"));
        }
    }
}
