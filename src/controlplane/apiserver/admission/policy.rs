//! Rules that other people write as expressions.
//!
//! This server evaluates no expressions yet. Whatever would have none of its effect is refused, so that nobody relies on a
//! rule that does not hold.

use super::{Attributes, Context, Operation, Plugin};
use crate::api::meta::ObjectExt;
use crate::api::status::ApiError;

const GROUP: &str = "admissionregistration.k8s.io";
const WHY: &str = "this server does not evaluate CEL expressions in admission";

/// Refuses what makes expressions count: bindings of policies, and webhooks with conditions.
pub(super) struct Expressions;

impl Plugin for Expressions {
    fn name(&self) -> &'static str {
        "Expressions"
    }

    fn validate(&self, attributes: &Attributes<'_>, _context: &Context<'_>) -> Result<(), ApiError> {
        let write = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !write || attributes.group != GROUP || !attributes.subresource.is_empty() {
            return Ok(());
        }
        let conditions = attributes.object.as_ref().is_some_and(|object| {
            object.array_at("/webhooks").iter().any(|hook| !hook.array_at("/matchConditions").is_empty())
        });
        match attributes.resource {
            "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => {
                Err(attributes.forbidden(&format!("{WHY}: a policy that is bound would bind nothing")))
            }
            _ if conditions => {
                let what =
                    "webhooks are called without matchConditions, for what their rules and selectors choose";
                Err(attributes.forbidden(&format!("{WHY}: {what}")))
            }
            _ => Ok(()),
        }
    }
}
