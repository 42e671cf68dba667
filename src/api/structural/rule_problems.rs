//! What is wrong with the rules of a definition's schema: texts that do not compile, and what would cost too much.

use std::sync::Arc;

use serde_json::Value;

use super::compile::{Additional, Structural};
use super::declare::{LARGEST_REQUEST, declare};
use super::field_path::field_path;
use super::rule::Rule;
use crate::cel::{Declared, escape};
use crate::meta::ObjectExt;
use crate::schema::ListType;
use crate::validate::FieldError;

/// One expression may cost so much, by estimate, over all places of an object. Rule: `StaticEstimatedCostLimit`.
const RULE_LIMIT: u64 = 10_000_000;
/// All expressions of a schema together. Rule: `StaticEstimatedCRDCostLimit`.
const SCHEMA_LIMIT: u64 = 100_000_000;
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// How often values of a schema may stand in an object, and whether what stood there before can be found.
#[derive(Clone)]
struct Place {
    /// `None`: as often as they fit into a request.
    often: Option<u64>,
    /// The list whose items are not known again after an update.
    lost_in: Option<String>,
}

#[derive(Default)]
struct Found {
    errors: Vec<FieldError>,
    total: u64,
    costly: Vec<(u64, String)>,
}

/// Everything wrong with the rules of a definition's schema at `path`. The schema itself must be good.
pub fn rule_problems(schema: &Structural, path: &str) -> Vec<FieldError> {
    let mut found = Found::default();
    if !schema.has_rules() {
        return found.errors;
    }
    let declared = declare(schema, true, "self");
    let place = Place { often: Some(1), lost_in: None };
    walk(schema, schema, declared.as_ref(), &place, path, &mut found);
    if found.total > SCHEMA_LIMIT {
        found.costly.sort_by(|a, b| b.cmp(a));
        for (_, at) in found.costly.iter().take(4) {
            let why =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            found.errors.push(FieldError::forbidden(at, why));
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        found.errors.push(FieldError::forbidden(path, over(name, found.total, SCHEMA_LIMIT)));
    }
    found.errors
}

fn over(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

fn walk(
    says: &Structural,
    schema: &Structural,
    declared: Option<&Declared>,
    place: &Place,
    path: &str,
    found: &mut Found,
) {
    if !says.rules.is_empty() {
        rules(says, schema, declared, place, &format!("{path}.x-kubernetes-validations"), found);
    }
    for (name, inner) in says.properties.iter().filter(|(_, inner)| inner.has_rules()) {
        let Some(below) = schema.properties.get(name) else { continue };
        let known = declared.zip(escape(name)).and_then(|(declared, name)| declared.fields.get(&name));
        let known = known.map(|(_, known)| known.clone()).or_else(|| declare(below, below.embedded, name));
        walk(inner, below, known.as_ref(), place, &format!("{path}.properties[{name}]"), found);
    }
    let inner = declared.and_then(|declared| declared.inner.as_deref());
    let repeated = |most: Option<u64>| place.often.zip(most).map(|(often, most)| often.saturating_mul(most));
    if let (Additional::Of(says), Additional::Of(below)) = (&says.additional, &schema.additional) {
        let place = Place { often: repeated(schema.max_properties), ..place.clone() };
        walk(says, below, inner, &place, &format!("{path}.additionalProperties"), found);
    }
    if let (Some(says), Some(below)) = (&says.items, &schema.items) {
        let lost = (schema.list_type != ListType::Map).then(|| path.to_owned());
        let place = Place { often: repeated(schema.max_items), lost_in: place.lost_in.clone().or(lost) };
        walk(says, below, inner, &place, &format!("{path}.items"), found);
    }
    for (at, inner) in says.all_of.iter().enumerate() {
        walk(inner, schema, declared, place, &format!("{path}.allOf[{at}]"), found);
    }
}

/// What is wrong with a rule's members, whatever its expressions say.
fn form(rule: &Value, schema: &Structural, at: &str, errors: &mut Vec<FieldError>) {
    let text = |key: &str| rule.text(key).unwrap_or_default();
    let given = |key: &str| !text(key).is_empty();
    let lines = |text: &str| text.contains(['\n', '\r']);
    let (said, own) = (text("message").trim(), text("rule").trim());
    if own.is_empty() {
        errors.push(FieldError::required(format!("{at}.rule"), "rule is not specified"));
    } else if given("message") && said.is_empty() {
        let why = "must be non-empty if specified";
        errors.push(FieldError::invalid(format!("{at}.message"), text("message"), why));
    } else if lines(said) {
        let why = "must not contain line breaks";
        errors.push(FieldError::invalid(format!("{at}.message"), text("message"), why));
    } else if lines(own) && said.is_empty() {
        let why = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(format!("{at}.message"), why));
    }
    if given("messageExpression") && text("messageExpression").trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(format!("{at}.messageExpression"), why));
    }
    if given("reason") && !REASONS.contains(&text("reason")) {
        errors.push(FieldError::not_supported(format!("{at}.reason"), text("reason"), &REASONS));
    }
    if given("fieldPath") && field_path(text("fieldPath"), schema).is_err() {
        errors.push(FieldError::invalid(
            format!("{at}.fieldPath"),
            text("fieldPath"),
            "must be a valid path",
        ));
    }
}

fn rules(
    says: &Structural,
    schema: &Structural,
    declared: Option<&Declared>,
    place: &Place,
    path: &str,
    found: &mut Found,
) {
    let before = found.errors.len();
    for (index, rule) in says.rules.iter().enumerate() {
        form(rule, schema, &format!("{path}[{index}]"), &mut found.errors);
    }
    if found.errors.len() > before {
        return;
    }
    let Some(declared) = declared else {
        let why = "internal error: failed to retrieve type information for x-kubernetes-validations";
        found.errors.push(FieldError::internal(path, why));
        return;
    };
    let often = place.often.unwrap_or(LARGEST_REQUEST / (declared.least_bytes + 1));
    let declared = Arc::new(declared.clone());
    for (index, rule) in says.rules.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let compiled = match Rule::compile(rule, schema, &declared) {
            Ok(Some(compiled)) => compiled,
            Ok(None) => continue,
            Err(error) => {
                found.errors.push(FieldError::invalid(
                    format!("{at}.{}", error.member),
                    rule.clone(),
                    error.why,
                ));
                continue;
            }
        };
        let cost = compiled.program.cost.saturating_mul(often);
        found.count(cost, "estimated rule cost", format!("{at}.rule"));
        if let Some(said) = &compiled.message_program {
            found.count(said.cost, "estimated messageExpression cost", format!("{at}.messageExpression"));
        }
        if compiled.is_transition() {
            if let Some(list) = &place.lost_in {
                let why = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
                );
                let text = rule.text("rule").unwrap_or_default();
                found.errors.push(FieldError::invalid(format!("{at}.rule"), text, why));
            }
        } else if let Some(given) = rule.bool_at("/optionalOldSelf") {
            let why = "may not be set if oldSelf is not used in rule";
            found.errors.push(FieldError::invalid(format!("{at}.optionalOldSelf"), given, why));
        }
    }
}

impl Found {
    fn count(&mut self, cost: u64, name: &str, at: String) {
        if cost > RULE_LIMIT {
            self.errors.push(FieldError::forbidden(&at, over(name, cost, RULE_LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        self.costly.push((cost, at));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_that_cannot_be_kept_are_refused() {
        let case = |schema: Value, expect: &[&str]| {
            let said = rule_problems(&Structural::of(&schema), "s");
            let said: Vec<String> = said.iter().map(ToString::to_string).collect();
            assert_eq!(said.len(), expect.len(), "{schema}: {said:#?}");
            for (said, expect) in said.iter().zip(expect) {
                assert!(said.starts_with(expect), "{schema}: {said}");
            }
        };
        let spec = |extra: Value, rule: Value| {
            let mut spec = json!({"type": "object", "properties": {
                "replicas": {"type": "integer"}, "name": {"type": "string"},
                "l": {"type": "array", "items": {"type": "string"}}}, "x-kubernetes-validations": [rule]});
            json_patch::merge(&mut spec, &extra);
            json!({"type": "object", "properties": {"spec": spec}})
        };
        let at = "s.properties[spec].x-kubernetes-validations[0]";
        case(spec(json!({}), json!({"rule": "self.replicas > 0", "fieldPath": ".replicas"})), &[]);
        case(
            spec(json!({}), json!({"rule": "self.x > 0"})),
            &[&format!(
                "{at}.rule: Invalid value: {{\"rule\":\"self.x > 0\"}}: compilation failed: ERROR: <input>:1:5: undefined field 'x'"
            )],
        );
        case(
            spec(json!({}), json!({"rule": "self.replicas +"})),
            &[&format!(
                "{at}.rule: Invalid value: {{\"rule\":\"self.replicas +\"}}: compilation failed: ERROR: <input>:1:16: Syntax error"
            )],
        );
        case(
            spec(json!({}), json!({"rule": "self.replicas"})),
            &[&format!(
                "{at}.rule: Invalid value: {{\"rule\":\"self.replicas\"}}: cel expression must evaluate to a bool"
            )],
        );
        case(
            spec(json!({}), json!({"rule": " "})),
            &[&format!("{at}.rule: Required value: rule is not specified")],
        );
        case(
            spec(json!({}), json!({"rule": "true", "message": "a\nb"})),
            &[&format!("{at}.message: Invalid value: \"a\\nb\": must not contain line breaks")],
        );
        case(
            spec(json!({}), json!({"rule": "true", "fieldPath": ".z", "reason": "Odd"})),
            &[
                &format!(
                    "{at}.reason: Unsupported value: \"Odd\": supported values: \"FieldValueDuplicate\""
                ),
                &format!("{at}.fieldPath: Invalid value: \".z\": must be a valid path"),
            ],
        );
        case(
            spec(json!({}), json!({"rule": "true", "optionalOldSelf": true})),
            &[&format!(
                "{at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"
            )],
        );
        case(
            spec(json!({}), json!({"rule": "self.l.all(x, self.l.all(y, x == y))"})),
            &[
                &format!(
                    "{at}.rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x"
                ),
                &format!("{at}.rule: Forbidden: contributed to estimated rule cost total"),
                "s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x",
            ],
        );
        let bounded = json!({"properties": {"l": {"maxItems": 100, "items": {"maxLength": 10}}}});
        case(spec(bounded, json!({"rule": "self.l.all(x, self.l.all(y, x == y))"})), &[]);
        let items = json!({"properties": {"l": {"maxItems": 5, "items": {"maxLength": 9,
            "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}});
        let lost = "s.properties[spec].properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec].properties[l]";
        case(spec(items, json!({"rule": "true"})), &[lost]);
    }
}
