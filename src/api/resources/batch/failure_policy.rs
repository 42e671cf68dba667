//! Validation of a Job's pod failure policy.

use std::collections::BTreeSet;

use crate::meta::ObjectExt;
use crate::validate::{Check, FieldError, qualified_name};

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];
const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;

/// Rule: `validatePodFailurePolicy`. The cursor stands at the Job's spec.
pub fn failure_policy(spec: &mut Check<'_, '_>) {
    if !spec.has("podFailurePolicy") {
        return;
    }
    let restart = spec.value.str_at("/template/spec/restartPolicy").unwrap_or_default();
    if restart != "Never" {
        let at = spec.at("template").child("spec").child("restartPolicy");
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        spec.push(FieldError::invalid(at, restart, why));
    }
    let per_index = spec.has("backoffLimitPerIndex");
    let names: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.value.array_at(&format!("/template/spec/{list}")))
        .filter_map(|container| container.text("name"))
        .collect();
    spec.within("podFailurePolicy", |policy| {
        too_many(policy, "rules", MOST_RULES);
        policy.each("rules", |rule| failure_rule(rule, per_index, &names));
    });
}

fn too_many(check: &mut Check<'_, '_>, key: &str, most: usize) {
    let count = check.list(key).len();
    if count > most {
        check.push(FieldError::too_many(check.at(key), count, most));
    }
}

fn failure_rule(rule: &mut Check<'_, '_>, per_index: bool, names: &BTreeSet<&str>) {
    rule.need_one_of("action", ACTIONS, &format!("valid values: {ACTIONS:?}").replace(',', ""));
    if rule.text("action") == "FailIndex" && !per_index {
        rule.invalid("action", "requires the backoffLimitPerIndex to be set");
    }
    let conditions = !rule.list("onPodConditions").is_empty();
    match (rule.has("onExitCodes"), conditions) {
        (true, true) => {
            let (at, why) = (&rule.path, "specifying both OnExitCodes and OnPodConditions is not supported");
            let error = FieldError { value: None, ..FieldError::invalid(at, "", why) };
            rule.push(error);
        }
        (false, false) => {
            let (at, why) = (&rule.path, "specifying one of OnExitCodes and OnPodConditions is required");
            let error = FieldError { value: None, ..FieldError::invalid(at, "", why) };
            rule.push(error);
        }
        _ => {}
    }
    rule.within("onExitCodes", |codes| exit_codes(codes, names));
    too_many(rule, "onPodConditions", MOST_RULES);
    rule.each("onPodConditions", |condition| {
        let kind = condition.text("type");
        condition.follow("type", qualified_name(kind));
        condition.need_one_of("status", STATUSES, &format!("valid values: {STATUSES:?}").replace(',', ""));
    });
}

fn exit_codes(codes: &mut Check<'_, '_>, names: &BTreeSet<&str>) {
    codes.need_one_of("operator", OPERATORS, &format!("valid values: {OPERATORS:?}").replace(',', ""));
    let name = codes.text("containerName");
    if codes.has("containerName") && !names.contains(name) {
        codes.invalid(
            "containerName",
            "must be one of the container or initContainer names in the pod template",
        );
    }
    let values = codes.list("values");
    if values.is_empty() {
        codes.invalid("values", "at least one value is required");
    }
    too_many(codes, "values", MOST_CODES);
    let forbids_zero = codes.text("operator") == "In";
    let mut seen = BTreeSet::new();
    codes.each("values", |value| {
        let number = value.value.as_i64().unwrap_or_default();
        if forbids_zero && number == 0 {
            value.wrong("must not be 0 for the In operator");
        }
        if !seen.insert(number) {
            let error = FieldError::duplicate(&value.path, number);
            value.push(error);
        }
    });
    if !values.is_sorted_by_key(|value| value.as_i64()) {
        codes.invalid("values", "must be ordered");
    }
}

/// Rule: `validateSuccessPolicy`. The cursor stands at the Job's spec.
pub fn success_policy(spec: &mut Check<'_, '_>) {
    let completions = spec.int("completions").unwrap_or(0);
    let indexed = spec.text("completionMode") == "Indexed";
    if spec.has("successPolicy") && !indexed {
        spec.invalid("successPolicy", "requires indexed completion mode");
        return;
    }
    spec.within("successPolicy", |policy| {
        if policy.list("rules").is_empty() {
            policy.required("rules", "at least one rules must be specified when the successPolicy is specified");
        }
        too_many(policy, "rules", MOST_RULES);
        policy.each("rules", |rule| {
            if !rule.has("succeededCount") && !rule.has("succeededIndexes") {
                rule.push(FieldError::required(
                    &rule.path,
                    "at least one of succeededCount or succeededIndexes must be specified",
                ));
            }
            let mut total = completions;
            if rule.has("succeededIndexes") {
                match indexes(rule.text("succeededIndexes"), completions) {
                    Ok(count) => total = count,
                    Err(why) => rule.invalid("succeededIndexes", format!("error parsing succeededIndexes: {why}")),
                }
            }
            if let Some(count) = rule.int("succeededCount") {
                if count <= 0 {
                    rule.invalid("succeededCount", "must be greater than 0");
                }
                if count > completions {
                    let why = format!("must be less than or equal to {completions} (the number of specified completions)");
                    rule.invalid("succeededCount", why);
                } else if count > total {
                    let why = format!("must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)");
                    rule.invalid("succeededCount", why);
                }
            }
        });
    });
}

/// How many indexes `1,3-5` names; fails if they are not ascending numbers below the completions.
fn indexes(text: &str, completions: i64) -> Result<i64, String> {
    let mut last = -1;
    let mut count = 0;
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let number = |text: &str| {
            text.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))
        };
        let (low, high) = match part.split_once('-') {
            None => (number(part)?, number(part)?),
            Some((low, high)) => (number(low)?, number(high)?),
        };
        if low <= last {
            return Err(format!("non-increasing order, previous: {last}, current: {low}"));
        }
        if high < low {
            return Err(format!("non-increasing order, previous: {low}, current: {high}"));
        }
        if high >= completions {
            return Err(format!("too large index: {high:?}"));
        }
        count += high - low + 1;
        last = high;
    }
    Ok(count)
}
