//! Gives Ingresses the default class.

use super::{Attributes, Context, Operation, Plugin, pod};
use api::meta::ObjectExt;
use api::status::ApiError;

const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

/// Ingresses that name no class get the default one.
pub(super) struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn mutate(&self, attributes: &mut Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        if !attributes.is("networking.k8s.io", "ingresses") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(ingress) = attributes.object.as_mut() else { return Ok(()) };
        let said = ingress.pointer("/spec/ingressClassName").is_some_and(|class| !class.is_null());
        if said || ingress.annotation(OLD_CLASS).is_some() {
            return Ok(());
        }
        let defaults =
            context.known.ingress_classes().filter(|class| class.annotation(IS_DEFAULT) == Some("true"));
        // Rule: of several, the newest, and of equally new ones the first by name.
        let newest = defaults.max_by(|a, b| {
            let age = a.creation_timestamp().cmp(&b.creation_timestamp());
            age.then_with(|| b.name().cmp(a.name()))
        });
        if let Some(class) = newest {
            pod::set_spec(ingress, "ingressClassName", class.name());
        }
        Ok(())
    }
}
