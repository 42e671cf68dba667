//! Gives Pods the overhead and scheduling of their RuntimeClass.

use serde_json::Value;

use super::{Attributes, Context, Operation, Plugin, pod};
use api::meta::ObjectExt;
use api::status::ApiError;

/// What a Pod's RuntimeClass takes of the node, and where its Pods may run.
pub(super) struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn mutate(&self, attributes: &mut Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(object) = attributes.object.as_ref() else { return Ok(()) };
        let name = object.str_at("/spec/runtimeClassName").unwrap_or_default();
        let said = object.pointer("/spec/overhead").cloned().unwrap_or_default();
        if name.is_empty() {
            if said.as_object().is_some_and(|overhead| !overhead.is_empty()) {
                let why =
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                return Err(attributes.forbidden(why));
            }
            return Ok(());
        }
        let Some(class) = context.known.runtime_class(name).cloned() else {
            return Err(attributes.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found")));
        };
        let own = class.pointer("/overhead/podFixed").cloned().unwrap_or_default();
        if !said.is_null() && said != own {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(attributes.forbidden(why));
        }
        let clash = node_selector(object, &class);
        if let Some(clash) = clash {
            let why = format!(
                "pod rejected: conflict: runtimeClass.scheduling.nodeSelector[{clash}] and pod.spec.nodeSelector[{clash}] have different values"
            );
            return Err(attributes.forbidden(&why.replace("pod rejected: ", "")));
        }
        let Some(object) = attributes.object.as_mut() else { return Ok(()) };
        if !own.is_null() {
            pod::set_spec(object, "overhead", own);
        }
        place(object, &class);
        Ok(())
    }
}

/// The label of which class and Pod want different values.
fn node_selector(object: &Value, class: &Value) -> Option<String> {
    let wanted = class.map_at("/scheduling/nodeSelector")?;
    let own = object.map_at("/spec/nodeSelector")?;
    wanted
        .iter()
        .find(|(key, value)| own.get(*key).is_some_and(|own| own != *value))
        .map(|(key, _)| key.clone())
}

fn place(object: &mut Value, class: &Value) {
    let mut selector = object.map_at("/spec/nodeSelector").cloned().unwrap_or_default();
    if let Some(wanted) = class.map_at("/scheduling/nodeSelector") {
        selector.extend(wanted.clone());
        pod::set_spec(object, "nodeSelector", selector);
    }
    let have = object.array_at("/spec/tolerations").to_vec();
    if let Some(spec) = object.get_mut("spec") {
        for toleration in class.array_at("/scheduling/tolerations").iter().filter(|own| !have.contains(own)) {
            pod::push(spec, "tolerations", toleration.clone());
        }
    }
}
