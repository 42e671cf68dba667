//! Admission of Pods: priority, tolerations, runtime class.

use serde_json::{Value, json};

use super::{Attributes, Context, Operation, Plugin, pod};
use api::meta::ObjectExt;
use api::status::ApiError;

/// A Pod's priority, from its PriorityClass or the default one.
pub(super) struct Priority;

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn mutate(&self, attributes: &mut Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        match (attributes.operation, attributes.old) {
            (Operation::Create, _) => {}
            (Operation::Update, Some(old)) => {
                keep_priority(attributes.object.as_mut(), old);
                return Ok(());
            }
            _ => return Ok(()),
        }
        let Some(object) = attributes.object.as_mut() else { return Ok(()) };
        let named = object.str_at("/spec/priorityClassName").unwrap_or_default().to_owned();
        let class = if named.is_empty() {
            default_class(context)
        } else {
            let Some(class) = context.known.priority_class(&named) else {
                let why = format!("no PriorityClass with name {named} was found");
                return Err(attributes.forbidden(&why));
            };
            Some(&**class)
        };
        let priority = class.and_then(|class| class.int_at("/value")).unwrap_or(0);
        let policy =
            class.and_then(|class| class.str_at("/preemptionPolicy")).unwrap_or("PreemptLowerPriority");
        if let Some(given) = object.int_at("/spec/priority").filter(|given| *given != priority) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
            );
            return Err(attributes.forbidden(&why));
        }
        if let Some(given) = object.str_at("/spec/preemptionPolicy").filter(|given| *given != policy) {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            );
            return Err(attributes.forbidden(&why));
        }
        if let Some(class) = class.filter(|_| named.is_empty()) {
            pod::set_spec(object, "priorityClassName", class.name());
        }
        pod::set_spec(object, "priority", priority);
        pod::set_spec(object, "preemptionPolicy", policy);
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        let write = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !write || !attributes.is("scheduling.k8s.io", "priorityclasses") {
            return Ok(());
        }
        let default = attributes.object.as_ref().and_then(|class| class.bool_at("/globalDefault"));
        match default_class(context).map(|class| class.name()) {
            Some(other) if default == Some(true) && other != attributes.object_name() => {
                let why =
                    format!("PriorityClass {other} is already marked as default. Only one default can exist");
                Err(attributes.forbidden(&why))
            }
            _ => Ok(()),
        }
    }
}

/// What admission said of a Pod that was made stays, where an update leaves it out.
fn keep_priority(object: Option<&mut Value>, old: &Value) {
    let Some(object) = object else { return };
    for field in ["priority", "preemptionPolicy"] {
        if let (None, Some(said)) = (object["spec"].get(field), old["spec"].get(field)) {
            pod::set_spec(object, field, said.clone());
        }
    }
}

/// The class for Pods that name none; of several, the one with the lowest value.
fn default_class<'a>(context: &Context<'a>) -> Option<&'a Value> {
    let classes = context.known.priority_classes().map(|class| &**class);
    let defaults = classes.filter(|class| class.bool_at("/globalDefault") == Some(true));
    defaults.min_by_key(|class| class.int_at("/value").unwrap_or(0))
}

/// Pods stay five minutes on a node that is not ready or not reachable, unless they say otherwise.
pub(super) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutate(&self, attributes: &mut Attributes<'_>, _context: &Context<'_>) -> Result<(), ApiError> {
        let write = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !write || !attributes.is("", "pods") {
            return Ok(());
        }
        let Some(object) = attributes.object.as_mut() else { return Ok(()) };
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let tolerated = object.array_at("/spec/tolerations").iter().any(|toleration| {
                let own_key = toleration.str_at("/key").unwrap_or_default();
                let effect = toleration.str_at("/effect").unwrap_or_default();
                (own_key == key || own_key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
            });
            if !tolerated && let Some(spec) = object.get_mut("spec") {
                let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
                pod::push(spec, "tolerations", toleration);
            }
        }
        Ok(())
    }
}
