//! What of a policy's expressions cannot be, by the types of the objects it speaks of. Rule: `TypeChecker`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::compiled::{compile, given, variables};
use crate::cel::Declared;
use crate::meta::{Gvk, ObjectExt};

/// Expressions that make no sense for one of the kinds the policy matches, as `status.typeChecking.expressionWarnings`. Nothing is
/// refused for that. `kinds`: what is known of each; `params`: of the parameters.
pub fn warnings(
    policy: &Value,
    kinds: &[(Gvk, Arc<Declared>)],
    params: Option<&Arc<Declared>>,
) -> Vec<Value> {
    let spec = policy.get("spec").unwrap_or(&Value::Null);
    let mut warnings = Vec::new();
    for (at, validation) in spec.array_at("/validations").iter().enumerate() {
        for member in ["expression", "messageExpression"] {
            let text = validation.text(member).unwrap_or_default();
            if text.is_empty() {
                continue;
            }
            let mut said = Vec::new();
            for (kind, declared) in kinds {
                let mut given = given(spec, false);
                given.object = Some(Arc::clone(declared));
                given.params_type = params.cloned();
                variables(spec, &mut given);
                if let Err(why) = compile(text, &given) {
                    let why = why.strip_prefix("compilation failed: ").unwrap_or(&why).to_owned();
                    let Gvk { group, version, kind } = kind;
                    said.push(format!("{group}/{version}, Kind={kind}: {why}\n"));
                }
            }
            if !said.is_empty() {
                let field = format!("spec.validations[{at}].{member}");
                warnings.push(json!({"fieldRef": field, "warning": said.join("\n")}));
            }
        }
    }
    warnings
}
