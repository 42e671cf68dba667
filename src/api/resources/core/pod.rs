//! What is particular to Pods.

use serde_json::{Value, json};

use super::container::{self, Role, Seen};
use super::label_keys;
use super::pod_spec::{default_pod, default_spec, default_template};
use super::requirements::requirements;
use super::scheduling;
use super::security::pod_security;
use super::volume;
use super::{pod_status, pod_update};
use crate::meta::ObjectExt;
use crate::quantity::Quantity;
use crate::resources::Strategy;
use crate::resources::descriptor::keep_meta;
use crate::resources::fill::Fill;
use crate::validate::{
    Check, FieldError, Path, Rule, annotations_errors, check_at, dns1123_label, dns1123_subdomain,
    ip_address, labels_errors, qualified_name,
};

const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];

pub struct Pod;

impl Strategy for Pod {
    fn default(&self, pod: &mut Value) {
        pod.within("spec", |spec| {
            default_spec(spec);
            default_pod(spec);
        });
    }

    fn checks_prefix(&self) -> bool {
        true
    }

    fn prepare_create(&self, pod: &mut Value) {
        label_keys::merge(pod);
        pod.put("status", json!({"phase": "Pending"}));
    }

    fn admitted(&self, pod: &mut Value) {
        let class = quality_of_service(pod);
        pod.open("status").put("qosClass", class);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        pod_status::prepare(new, old);
        // Rule: status updates do not touch owners.
        keep_meta(new, old, "ownerReferences");
        // Rule: a status update must not remove the grace that a delete has promised.
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
            let kept = old.meta().and_then(|meta| meta.get(field)).cloned();
            match kept {
                Some(value) => new.meta_mut().insert(field.to_owned(), value),
                None => new.meta_mut().remove(field),
            };
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let path = Path::new("spec");
        let mut errors = validate_spec(&new["spec"], &path);
        if old.is_none() && !new.array_at("/spec/ephemeralContainers").is_empty() {
            errors.push(FieldError::forbidden(path.child("ephemeralContainers"), "cannot be set on create"));
        }
        if let Some(old) = old {
            errors.extend(pod_update::validate(&new["spec"], &old["spec"], &path));
        }
        errors
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        pod_status::validate(new, old)
    }

    fn selectable_fields(&self, pod: &Value) -> Vec<(&'static str, String)> {
        let text = |pointer: &str| pod.str_at(pointer).unwrap_or_default().to_owned();
        let ip = pod.array_at("/status/podIPs").first().and_then(|ip| ip.text("ip"));
        vec![
            ("spec.hostNetwork", pod.bool_at("/spec/hostNetwork").unwrap_or(false).to_string()),
            ("spec.nodeName", text("/spec/nodeName")),
            ("spec.restartPolicy", text("/spec/restartPolicy")),
            ("spec.schedulerName", text("/spec/schedulerName")),
            ("spec.serviceAccountName", text("/spec/serviceAccountName")),
            ("status.nominatedNodeName", text("/status/nominatedNodeName")),
            ("status.phase", text("/status/phase")),
            ("status.podIP", ip.map_or_else(|| text("/status/podIP"), str::to_owned)),
        ]
    }

    /// Rule: `podStrategy.CheckGracefulDelete`. A Pod that no kubelet has, or that has ended, needs no grace.
    fn grace_period(&self, pod: &Value, asked: Option<i64>) -> Option<i64> {
        let own = pod.int_at("/spec/terminationGracePeriodSeconds").unwrap_or(30);
        let unassigned = pod.str_at("/spec/nodeName").unwrap_or_default().is_empty();
        let ended = matches!(pod.str_at("/status/phase"), Some("Succeeded" | "Failed"));
        let seconds = if unassigned || ended { 0 } else { asked.unwrap_or(own) };
        // A negative period means "at once, but let the kubelet know".
        Some(if seconds < 0 { 1 } else { seconds })
    }
}

/// Rule: Guaranteed if every container has equal limits and requests of cpu and memory, Burstable if any is said. What the
/// Pod says as a whole counts instead of its containers'.
pub(super) fn quality_of_service(pod: &Value) -> &'static str {
    let whole = pod.get("spec").filter(|spec| {
        spec.pointer("/resources/requests").is_some() || spec.pointer("/resources/limits").is_some()
    });
    let containers: Vec<&Value> = match whole {
        Some(whole) => vec![whole],
        None => pod.array_at("/spec/containers").iter().chain(pod.array_at("/spec/initContainers")).collect(),
    };
    let amount = |container: &Value, kind: &str, name: &str| {
        let found = container.pointer(&format!("/resources/{kind}/{name}"))?;
        Quantity::from_value(found).ok().filter(|amount| !amount.is_zero())
    };
    let said = |container: &&Value, kind: &str, name: &str| amount(container, kind, name).is_some();
    let any = containers.iter().any(|container| {
        ["cpu", "memory"]
            .iter()
            .any(|name| said(container, "requests", name) || said(container, "limits", name))
    });
    let all = containers.iter().all(|container| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = amount(container, "limits", name);
            limit.is_some()
                && amount(container, "requests", name).is_none_or(|request| Some(request) == limit)
        })
    });
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Value) {
        default_template(object, "template");
    }

    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        validate_template(&new["template"], &Path::new("template"))
    }
}

/// Everything wrong with a Pod template.
pub fn validate_template(template: &Value, path: &Path) -> Vec<FieldError> {
    let meta = template.get("metadata");
    let member = |key: &str| meta.and_then(|meta| meta.get(key));
    let mut errors = labels_errors(member("labels"), &path.child("labels"));
    errors.extend(annotations_errors(member("annotations"), &path.child("annotations")));
    errors.extend(validate_spec(template.get("spec").unwrap_or(&Value::Null), &path.child("spec")));
    if !template.array_at("/spec/ephemeralContainers").is_empty() {
        let at = path.child("spec").child("ephemeralContainers");
        errors.push(FieldError::forbidden(at, "ephemeral containers not allowed in pod template"));
    }
    errors
}

/// Everything wrong with a Pod's spec. Rule: `ValidatePodSpec`.
pub fn validate_spec(spec: &Value, path: &Path) -> Vec<FieldError> {
    check_at(spec, path, |spec| {
        let volumes = volume::validate(spec);
        if spec.list("containers").is_empty() {
            spec.required("containers", "");
        }
        let mut seen = Seen::default();
        let lists = [
            ("containers", Role::App),
            ("initContainers", Role::Init),
            ("ephemeralContainers", Role::Ephemeral),
        ];
        let pod = spec.value;
        for (list, role) in lists {
            spec.each(list, |container| container::validate(container, &volumes, pod, &mut seen, role));
        }
        spec.need_one_of("restartPolicy", RESTART_POLICIES, "");
        spec.need_one_of("dnsPolicy", DNS_POLICIES, "");
        names(spec);
        pod_security(spec);
        requirements(&mut spec.child("resources"), Some(pod));
        scheduling::validate(spec);
        dns(spec);
        host_aliases(spec);
        spec.each("imagePullSecrets", |secret| {
            secret.need("name", "");
        });
        spec.each("readinessGates", |gate| {
            gate.follow("conditionType", qualified_name(gate.text("conditionType")));
        });
        spec.in_range("activeDeadlineSeconds", 1, 2_147_483_647);
        spec.not_negative(&["terminationGracePeriodSeconds"]);
        if spec.has("preemptionPolicy") {
            spec.one_of("preemptionPolicy", &["Never", "PreemptLowerPriority"]);
        }
        spec.within("os", |os| os.need_one_of("name", &["linux", "windows"], ""));
        spec.each("resourceClaims", |claim| {
            claim.need_named("name", dns1123_label);
            if claim.has("resourceClaimName") == claim.has("resourceClaimTemplateName") {
                let why = if claim.has("resourceClaimName") {
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
                } else {
                    "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
                };
                claim.wrong(why);
            }
        });
    })
}

fn names(spec: &mut Check<'_, '_>) {
    let rules: [(&str, Rule); 6] = [
        ("nodeName", dns1123_subdomain),
        ("serviceAccountName", dns1123_subdomain),
        ("priorityClassName", dns1123_subdomain),
        ("runtimeClassName", dns1123_subdomain),
        ("hostname", dns1123_label),
        ("subdomain", dns1123_label),
    ];
    for (field, rule) in rules {
        spec.named(field, rule);
    }
}

/// Rule: `validatePodDNSConfig`.
fn dns(spec: &mut Check<'_, '_>) {
    if spec.text("dnsPolicy") == "None" {
        if !spec.has("dnsConfig") {
            spec.required("dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None");
        } else if spec.value.array_at("/dnsConfig/nameservers").is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            spec.child("dnsConfig").required("nameservers", why);
        }
    }
    spec.within("dnsConfig", |config| {
        if config.list("nameservers").len() > 3 {
            config.invalid("nameservers", "must not have more than 3 nameservers");
        }
        config.each("nameservers", |server| {
            server.follow_here(ip_address(server.value.as_str().unwrap_or_default()));
        });
        if config.list("searches").len() > 32 {
            config.invalid("searches", "must not have more than 32 search paths");
        }
        let length: usize = config.texts("searches").map(|search| search.len() + 1).sum();
        if length > 2049 {
            let why = "must not have more than 2048 characters (including spaces) in the search list";
            config.invalid("searches", why);
        }
        config.each("searches", |search| {
            let name = search.value.as_str().unwrap_or_default();
            let name = name.strip_suffix('.').unwrap_or(name);
            if !name.is_empty() {
                search.follow_here(dns1123_subdomain(&name.replace('_', "-")));
            }
        });
        config.each("options", |option| {
            if option.text("name").is_empty() {
                option.push(FieldError::required(&option.path, "must not be empty"));
            }
        });
    });
}

fn host_aliases(spec: &mut Check<'_, '_>) {
    spec.each("hostAliases", |alias| {
        alias.follow("ip", ip_address(alias.text("ip")));
        alias.each("hostnames", |name| {
            name.follow_here(dns1123_subdomain(name.value.as_str().unwrap_or_default()));
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": spec});
        Pod.default(&mut pod);
        pod
    }

    fn errors(spec: Value) -> Vec<String> {
        Pod.validate(&pod(spec), None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_minimal_pod_gets_everything_it_needs() {
        let pod = pod(json!({"containers": [{"name": "a", "image": "b"}]}));
        assert_eq!(pod["spec"]["restartPolicy"], "Always");
        assert_eq!(pod["spec"]["dnsPolicy"], "ClusterFirst");
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30);
        assert_eq!(pod["spec"]["enableServiceLinks"], true);
        assert_eq!(Pod.validate(&pod, None), []);
    }

    #[test]
    fn limits_are_requests_where_none_are_said() {
        let pod = pod(
            json!({"containers": [{"name": "a", "image": "b", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]}),
        );
        assert_eq!(
            pod["spec"]["containers"][0]["resources"]["requests"],
            json!({"cpu": "1", "memory": "1Gi"})
        );
        assert_eq!(quality_of_service(&pod), "Guaranteed");
    }

    #[test]
    fn classes_follow_from_resources() {
        let class = |resources: Value| {
            quality_of_service(&pod(
                json!({"containers": [{"name": "a", "image": "b", "resources": resources}]}),
            ))
        };
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1"}})), "Guaranteed");
        let whole = json!({"containers": [{"name": "a", "image": "b"}], "resources": {"limits": {"cpu": "1", "memory": "1"}}});
        assert_eq!(quality_of_service(&pod(whole)), "Guaranteed");
    }

    #[test]
    fn a_pod_without_containers_is_refused() {
        assert_eq!(errors(json!({})), ["spec.containers: Required value"]);
        assert_eq!(
            errors(json!({"containers": [{"name": "a", "image": "b"}], "restartPolicy": "Sometimes"})),
            [
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""
            ]
        );
        assert_eq!(
            errors(json!({"containers": [{"name": "a", "image": "b"}, {"name": "a", "image": "b"}]})),
            ["spec.containers[1].name: Duplicate value: \"a\""]
        );
    }

    #[test]
    fn grace_ends_with_the_kubelet() {
        let mut running = pod(json!({"nodeName": "n", "containers": []}));
        running["status"] = json!({"phase": "Running"});
        assert_eq!(Pod.grace_period(&running, None), Some(30));
        assert_eq!(Pod.grace_period(&running, Some(5)), Some(5));
        assert_eq!(Pod.grace_period(&running, Some(-1)), Some(1));
        running["status"]["phase"] = json!("Succeeded");
        assert_eq!(Pod.grace_period(&running, None), Some(0));
        assert_eq!(Pod.grace_period(&pod(json!({"containers": []})), None), Some(0));
    }
}
