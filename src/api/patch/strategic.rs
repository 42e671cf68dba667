//! Strategic merge: lists whose fields say so are merged by key, with directives in the patch.

use serde_json::{Map, Value};

use crate::schema::{Field, Kind, Schema};
use crate::status::ApiError;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of this type.
pub fn strategic(object: &Value, patch: &Value, schema: &Schema) -> Result<Value, ApiError> {
    let (Some(original), Some(patch)) = (object.as_object(), patch.as_object()) else {
        return Err(ApiError::bad_request("error decoding patch: a strategic merge patch is a JSON object"));
    };
    merge_map(original.clone(), patch, Some(schema)).map(Value::Object)
}

fn bad(why: impl Into<String>) -> ApiError {
    ApiError::bad_request(why)
}

fn merge_map(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&Schema>,
) -> Result<Map<String, Value>, ApiError> {
    match patch.get(DIRECTIVE).map(|d| d.as_str().unwrap_or_default()) {
        Some("replace") => return Ok(clean_map(patch)),
        Some("delete") => return Ok(Map::new()),
        Some("merge") | None => {}
        Some(other) => return Err(bad(format!("unknown patch type found: {other}"))),
    }
    if let Some(keep) = patch.get(RETAIN_KEYS) {
        let keep = keep.as_array().ok_or_else(|| bad("invalid patch format of retainKeys"))?;
        original.retain(|key, _| keep.iter().any(|k| k.as_str() == Some(key)));
    }
    for (key, remove) in patch {
        let Some(name) = key.strip_prefix(DELETE_FROM) else { continue };
        let remove = remove.as_array().ok_or_else(|| bad(format!("invalid patch format of {key}")))?;
        if let Some(Value::Array(list)) = original.get_mut(name) {
            list.retain(|item| !remove.contains(item));
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        if value.is_null() {
            original.remove(key);
            continue;
        }
        let field = schema.and_then(|s| s.field(key));
        let merged = match (original.remove(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                Value::Object(merge_map(old, new, field.and_then(inner))?)
            }
            (Some(Value::Array(old)), Value::Array(new)) => Value::Array(merge_list(old, new, field)?),
            (None, Value::Object(new)) => Value::Object(merge_map(Map::new(), new, field.and_then(inner))?),
            (None, Value::Array(new)) => Value::Array(merge_list(Vec::new(), new, field)?),
            (_, new) => new.clone(),
        };
        original.insert(key.clone(), merged);
    }
    for (key, order) in patch {
        let Some(name) = key.strip_prefix(ORDER) else { continue };
        let order = order.as_array().ok_or_else(|| bad(format!("invalid patch format of {key}")))?;
        let field = schema.and_then(|s| s.field(name));
        if let Some(Value::Array(list)) = original.get_mut(name) {
            sort_list(list, order, field.and_then(|f| f.merge_key));
        }
    }
    Ok(original)
}

/// The type below a field; a map's values have it too, but the map itself has no fields of its own.
fn inner(field: &Field) -> Option<&'static Schema> {
    if matches!(field.kind, Kind::Map(_)) { None } else { field.kind.schema() }
}

fn merges(field: Option<&Field>) -> bool {
    field.is_some_and(|f| f.patch_strategies.contains(&"merge"))
}

fn merge_list(
    mut original: Vec<Value>,
    patch: &[Value],
    field: Option<&Field>,
) -> Result<Vec<Value>, ApiError> {
    let replace = patch.iter().any(|item| item.get(DIRECTIVE).and_then(Value::as_str) == Some("replace"));
    if replace || !merges(field) {
        let kept = patch.iter().filter(|item| {
            !item.as_object().is_some_and(|map| map.contains_key(DIRECTIVE) && map.len() == 1)
        });
        return Ok(kept.map(clean).collect());
    }
    let Some((field, key)) = field.and_then(|f| Some((f, f.merge_key?))) else {
        let server = original.clone();
        for item in patch {
            if !original.contains(item) {
                original.push(item.clone());
            }
        }
        return Ok(arrange(original, patch, &server, |a, b| a == b));
    };
    let server = original.clone();
    for item in patch {
        let map = item.as_object().ok_or_else(|| bad("expected all elements of the list to be maps"))?;
        let id = map
            .get(key)
            .ok_or_else(|| bad(format!("map: {item} does not contain declared merge key: {key}")))?;
        let at = original.iter().position(|old| same_key(old.get(key), Some(id)));
        if map.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
            original.retain(|old| !same_key(old.get(key), Some(id)));
            continue;
        }
        match at.map(|at| (at, original[at].take())) {
            Some((at, Value::Object(old))) => {
                original[at] = Value::Object(merge_map(old, map, inner(field))?);
            }
            Some((at, _)) => original[at] = clean(item),
            None => original.push(Value::Object(merge_map(Map::new(), map, inner(field))?)),
        }
    }
    Ok(arrange(original, patch, &server, |a, b| same_key(a.get(key), b.get(key))))
}

/// Brings a merged list in upstream's order: what the patch names stands in the patch's order, and before what only the server
/// has, unless both were there and stood the other way round.
fn arrange(
    merged: Vec<Value>,
    patch: &[Value],
    server: &[Value],
    same: impl Fn(&Value, &Value) -> bool,
) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut sent, own): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(patch, item).is_some());
    sent.sort_by_key(|item| place(patch, item));
    let (mut sent, mut own) = (sent.into_iter().peekable(), own.into_iter().peekable());
    let mut all = Vec::with_capacity(sent.len() + own.len());
    loop {
        let own_first = match (own.peek(), sent.peek()) {
            (None, None) => return all,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(left), Some(right)) => {
                matches!((place(server, left), place(server, right)), (Some(left), Some(right)) if left < right)
            }
        };
        all.extend(if own_first { own.next() } else { sent.next() });
    }
}

/// Keys are compared as they print: a port may be written 80 and "80".
fn same_key(a: Option<&Value>, b: Option<&Value>) -> bool {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    matches!((a, b), (Some(a), Some(b)) if text(a) == text(b))
}

/// Brings a merged list in the order the patch asks for. Items that only the server has keep their place behind the listed
/// item they followed.
fn sort_list(list: &mut Vec<Value>, order: &[Value], key: Option<&str>) {
    let same = |item: &Value, wanted: &Value| match key {
        Some(key) => same_key(item.get(key), wanted.get(key)),
        None => item == wanted,
    };
    let rank = |item: &Value| order.iter().position(|wanted| same(item, wanted));
    let mut ranked = Vec::with_capacity(list.len());
    let mut last = None;
    for (at, item) in list.drain(..).enumerate() {
        let own = rank(&item);
        last = own.or(last);
        let place = own.map_or_else(|| last.map_or(0, |rank: usize| 2 * rank + 2), |rank| 2 * rank + 1);
        ranked.push((place, at, item));
    }
    ranked.sort_by_key(|(place, at, _)| (*place, *at));
    list.extend(ranked.into_iter().map(|(_, _, item)| item));
}

/// Without directives, at any depth.
fn clean(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(clean_map(map)),
        Value::Array(items) => items.iter().map(clean).collect(),
        other => other.clone(),
    }
}

fn clean_map(map: &Map<String, Value>) -> Map<String, Value> {
    let kept = map.iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    kept.map(|(key, value)| (key.clone(), clean(value))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::named;

    fn check(object: Value, patch: Value, expect: Value) {
        let schema = named("apps.v1.Deployment").unwrap();
        assert_eq!(strategic(&object, &patch, schema).unwrap(), expect, "{patch}");
    }

    fn with_containers(containers: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    }

    #[test]
    fn containers_merge_by_name() {
        check(
            with_containers(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}])),
            with_containers(
                json!([{"name": "a", "image": "z"}, {"name": "b", "$patch": "delete"}, {"name": "c"}]),
            ),
            with_containers(json!([{"name": "a", "image": "z"}, {"name": "c"}])),
        );
    }

    #[test]
    fn what_is_new_stands_first() {
        check(
            with_containers(json!([{"name": "a"}, {"name": "b"}])),
            with_containers(json!([{"name": "c"}])),
            with_containers(json!([{"name": "c"}, {"name": "a"}, {"name": "b"}])),
        );
        check(
            with_containers(json!([{"name": "a"}, {"name": "b"}])),
            with_containers(json!([{"name": "b", "image": "x"}, {"name": "c"}])),
            with_containers(json!([{"name": "a"}, {"name": "b", "image": "x"}, {"name": "c"}])),
        );
    }

    #[test]
    fn apply_says_the_order() {
        check(
            with_containers(json!([{"name": "a"}, {"name": "b"}])),
            json!({"spec": {"template": {"spec": {
                "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}],
                "containers": [{"name": "c"}]}}}}),
            with_containers(json!([{"name": "c"}, {"name": "a"}, {"name": "b"}])),
        );
    }

    #[test]
    fn strategies_retain_keys() {
        check(
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        );
    }

    #[test]
    fn primitive_lists_and_directives() {
        check(
            json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1"}}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"],
                "labels": {"$patch": "replace", "y": "2"}}}),
            json!({"metadata": {"finalizers": ["c", "b"], "labels": {"y": "2"}}}),
        );
        check(
            with_containers(json!([{"name": "a", "args": ["1", "2"]}])),
            with_containers(json!([{"name": "a", "args": ["3"]}])),
            with_containers(json!([{"name": "a", "args": ["3"]}])),
        );
    }

    #[test]
    fn a_missing_merge_key_is_said() {
        let schema = named("apps.v1.Deployment").unwrap();
        let object = with_containers(json!([{"name": "a"}]));
        let error = strategic(&object, &with_containers(json!([{"image": "x"}])), schema).unwrap_err();
        assert!(error.message.contains("does not contain declared merge key: name"));
    }
}
