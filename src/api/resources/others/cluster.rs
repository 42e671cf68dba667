//! Leases, runtime and priority classes, and services of other API servers.

use serde_json::Value;

use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::core::toleration;
use crate::resources::fill::Fill;
use crate::validate::{
    Check, FieldError, Path, check, check_at, dns1035_label, dns1123_label, dns1123_subdomain, labels_errors,
    port_number,
};

const HIGHEST_PRIORITY: i64 = 1_000_000_000;
/// Priority classes that are the system's own, with their values.
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, class: &mut Value) {
        class.fill("preemptionPolicy", "PreemptLowerPriority");
    }

    /// Rule: `ValidatePriorityClass`.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let value = new.int_at("/value").unwrap_or_default();
        check_at(new, &Path::default(), |class| {
            let system = SYSTEM_CLASSES.iter().any(|(name, own)| *name == new.name() && *own == value);
            if new.name().starts_with("system-") {
                if !system && old.is_none() {
                    let why = "priority class names with 'system-' prefix are reserved for system use only";
                    class.push(FieldError::forbidden("metadata.name", why));
                }
            } else if value > HIGHEST_PRIORITY {
                let why = format!("maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}");
                class.forbidden("value", why);
            }
            class.maybe_one_of("preemptionPolicy", &["Never", "PreemptLowerPriority"]);
            if let Some(old) = old {
                if old.int_at("/value") != new.int_at("/value") {
                    class.forbidden("value", "may not be changed in an update.");
                }
                class.immutable("preemptionPolicy", old);
            }
        })
    }
}

pub struct Lease;

impl Strategy for Lease {
    /// Rule: `ValidateLeaseSpec`. An empty holder is none: so leaders of client-go let their Lease go.
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            spec.positive(&["leaseDurationSeconds"]);
            if spec.int("leaseTransitions").is_some_and(|count| count < 0) {
                spec.invalid("leaseTransitions", "must be greater than or equal to 0");
            }
        })
    }
}

pub struct RuntimeClass;

impl Strategy for RuntimeClass {
    /// Rule: `ValidateRuntimeClass`.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check_at(new, &Path::default(), |class| {
            let handler = class.text("handler");
            for why in dns1123_label(handler) {
                class.push(FieldError::invalid("handler", handler, why));
            }
            if let Some(old) = old {
                class.immutable("handler", old);
            }
            class.within("overhead", |overhead| {
                overhead.each_key("podFixed", |amount, name| {
                    crate::resources::core::amount(amount, name);
                });
            });
            class.within("scheduling", |scheduling| {
                let errors =
                    labels_errors(Some(scheduling.get("nodeSelector")), &scheduling.at("nodeSelector"));
                scheduling.extend(errors);
                scheduling.each("tolerations", toleration);
            });
        })
    }
}

pub struct ApiService;

impl Strategy for ApiService {
    fn default(&self, service: &mut Value) {
        service.within("spec", |spec| {
            spec.within("service", |service| service.fill("port", 443));
        });
    }

    /// Rule: `ValidateAPIService`.
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        let text = |key: &str| new["spec"].text(key).unwrap_or_default().to_owned();
        let expected = format!("{}.{}", text("version"), text("group"));
        let mut errors = Vec::new();
        if new.name() != expected {
            let why = format!("must be `spec.version+\".\"+spec.group`: {expected:?}");
            errors.push(FieldError::invalid("metadata.name", new.name(), why));
        }
        errors.extend(check(new, "spec", |spec| {
            if spec.text("group").is_empty() && spec.text("version") != "v1" {
                spec.required("group", "only v1 may have an empty group and it better be legacy kube");
            }
            spec.named("group", dns1123_subdomain);
            spec.follow("version", dns1035_label(spec.text("version")));
            priority(spec, "groupPriorityMinimum", 20_000);
            priority(spec, "versionPriority", 1000);
            if spec.has("service") {
                let mut service = spec.child("service");
                service.need("namespace", "");
                service.need("name", "");
                let port = service.int("port").unwrap_or(443);
                if !port_number(port).is_empty() {
                    let why = format!("port is not valid: {}", port_number(port).join(", "));
                    service.invalid("port", why);
                }
                if spec.flag("insecureSkipTLSVerify") && !spec.text("caBundle").is_empty() {
                    spec.invalid("insecureSkipTLSVerify", "may not be true if caBundle is present");
                }
            } else {
                for field in ["caBundle", "insecureSkipTLSVerify"] {
                    if spec.flag(field) || !spec.text(field).is_empty() {
                        spec.invalid(field, format!("local APIServices may not have {}", article(field)));
                    }
                }
            }
        }));
        errors
    }
}

fn article(field: &str) -> String {
    if field == "caBundle" { format!("a {field}") } else { field.to_owned() }
}

fn priority(spec: &mut Check<'_, '_>, key: &str, most: i64) {
    let number = spec.int(key).unwrap_or(0);
    if !(1..=most).contains(&number) {
        let why = format!("must be positive and less than {most}");
        spec.push(FieldError::invalid(spec.at(key), number, why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::strategy::testing::check;

    #[test]
    fn classes_and_leases() {
        check(&PriorityClass, json!({"metadata": {"name": "p"}, "value": 5}), &[]);
        check(
            &PriorityClass,
            json!({"metadata": {"name": "p"}, "value": 1_000_000_001}),
            &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
        );
        check(
            &PriorityClass,
            json!({"metadata": {"name": "system-x"}, "value": 5}),
            &[
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only",
            ],
        );
        check(
            &PriorityClass,
            json!({"metadata": {"name": "p"}, "preemptionPolicy": "Odd"}),
            &[
                "preemptionPolicy: Unsupported value: \"Odd\": supported values: \"Never\", \"PreemptLowerPriority\"",
            ],
        );
        check(
            &Lease,
            json!({"spec": {"leaseDurationSeconds": 0}}),
            &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
        );
        check(&Lease, json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}), &[]);
        check(&RuntimeClass, json!({"handler": "runc"}), &[]);
        assert_eq!(RuntimeClass.validate(&json!({"handler": "&"}), None).len(), 1);
    }

    #[test]
    fn api_services() {
        let service = |spec: Value| json!({"metadata": {"name": "v1.a.io"}, "spec": spec});
        check(
            &ApiService,
            service(
                json!({"group": "a.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}),
            ),
            &[],
        );
        check(
            &ApiService,
            service(
                json!({"group": "b.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}),
            ),
            &[
                "metadata.name: Invalid value: \"v1.a.io\": must be `spec.version+\".\"+spec.group`: \"v1.b.io\"",
            ],
        );
        check(
            &ApiService,
            service(json!({"group": "a.io", "version": "v1"})),
            &[
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
            ],
        );
        check(
            &ApiService,
            service(
                json!({"group": "a.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1, "caBundle": "eA=="}),
            ),
            &["spec.caBundle: Invalid value: \"eA==\": local APIServices may not have a caBundle"],
        );
    }
}
