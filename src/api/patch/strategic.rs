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
    match patch.get(DIRECTIVE) {
        None => {}
        Some(directive) if directive == "replace" => return Ok(clean_map(patch)),
        Some(directive) if directive == "delete" => return Ok(Map::new()),
        Some(directive) => return Err(unknown(directive, patch)),
    }
    retain(&mut original, patch)?;
    let mut ordered = Vec::new();
    for (key, order) in patch {
        let Some(name) = key.strip_prefix(ORDER) else { continue };
        let list = in_order(original.get(name), patch.get(name), order, schema.and_then(|s| s.field(name)))?;
        if let Some(list) = list {
            original.insert(name.to_owned(), Value::Array(list));
        }
        ordered.push(name);
    }
    for (key, remove) in patch {
        let Some(name) = key.strip_prefix(DELETE_FROM) else { continue };
        let remove = remove.as_array().ok_or_else(|| bad(format!("invalid patch format of {key}")))?;
        if let Some(Value::Array(list)) = original.get_mut(name) {
            let maps = list.iter().chain(remove).filter(|item| item.is_object()).count();
            if maps > 0 {
                return Err(bad(format!(
                    "{key} is for lists of primitive values, and this is a list of maps"
                )));
            }
            list.retain(|item| !remove.contains(item));
        }
    }
    for (key, value) in
        patch.iter().filter(|(key, _)| !key.starts_with('$') && !ordered.contains(&key.as_str()))
    {
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
            (_, new) => clean(new),
        };
        original.insert(key.clone(), merged);
    }
    Ok(original)
}

/// A directive that there is not, where there is one.
fn unknown(directive: &Value, patch: &Map<String, Value>) -> ApiError {
    let directive = print(directive);
    bad(format!("unknown patch type: {directive} in map: {}", print(&Value::Object(patch.clone()))))
}

/// Drops what a patch does not want to keep. It must not say what it does not keep.
fn retain(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), ApiError> {
    let Some(keep) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let wrong = || bad("invalid patch format of retainKeys");
    let keep = keep.as_array().ok_or_else(wrong)?;
    let kept = |key: &String| keep.iter().any(|one| one.as_str() == Some(key));
    let mut said = patch.iter().filter(|(key, value)| {
        let directive = *key == RETAIN_KEYS || key.starts_with(ORDER) || key.starts_with(DELETE_FROM);
        !directive && !value.is_null()
    });
    if said.any(|(key, _)| !kept(key)) {
        return Err(wrong());
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

/// The type below a field; a map's values have it too, but the map itself has no fields of its own.
fn inner(field: &Field) -> Option<&'static Schema> {
    if matches!(field.kind, Kind::Map(_)) { None } else { field.kind.schema() }
}

fn merges(field: Option<&Field>) -> bool {
    field.is_some_and(|f| f.patch_strategies.contains(&"merge"))
}

fn merge_list(original: Vec<Value>, patch: &[Value], field: Option<&Field>) -> Result<Vec<Value>, ApiError> {
    if !merges(field) {
        return Ok(patch.iter().map(clean).collect());
    }
    let Some((field, key)) = field.and_then(|f| Some((f, f.merge_key?))) else {
        let mut merged = original.clone();
        for item in patch {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(arrange(merged, patch, &original, None));
    };
    let (server, sent) = directed(original, patch, key)?;
    let mut merged = server.clone();
    for map in &sent {
        let id = key_of(map, key)?;
        match merged.iter_mut().find(|old| same_key(old.get(key), Some(id))) {
            Some(old) => {
                *old = match old.take() {
                    Value::Object(old) => Value::Object(merge_map(old, map, inner(field))?),
                    _ => Value::Object(clean_map(map)),
                };
            }
            None => merged.push(Value::Object(clean_map(map))),
        }
    }
    Ok(arrange(merged, patch, &server, Some(key)))
}

/// What stands of a list, and the items that are to be merged into it.
type Directed<'p> = (Vec<Value>, Vec<&'p Map<String, Value>>);

/// What directives among the items of a patch leave of a list, and the items that are none.
fn directed<'p>(mut original: Vec<Value>, patch: &'p [Value], key: &str) -> Result<Directed<'p>, ApiError> {
    let (mut sent, mut replace) = (Vec::new(), false);
    for item in patch {
        let map = item.as_object().ok_or_else(|| bad("expected all elements of the list to be maps"))?;
        match map.get(DIRECTIVE) {
            None => sent.push(map),
            Some(directive) if directive == "delete" => {
                let id = key_of(map, key)?;
                original.retain(|old| !same_key(old.get(key), Some(id)));
            }
            Some(directive) if directive == "replace" => replace = true,
            Some(directive) if directive == "merge" => {
                return Err(bad("merging lists cannot yet be specified in the patch"));
            }
            Some(directive) => return Err(unknown(directive, map)),
        }
    }
    if replace {
        let all = sent.into_iter().map(|map| Value::Object(clean_map(map))).collect();
        return Ok((all, Vec::new()));
    }
    Ok((original, sent))
}

/// A list for which the patch says the order: what it has, and the patch has of it, in that order. `None`: neither has it.
fn in_order(
    original: Option<&Value>,
    patch: Option<&Value>,
    order: &Value,
    field: Option<&Field>,
) -> Result<Option<Vec<Value>>, ApiError> {
    let wrong =
        |value: &Value| bad(format!("expected a []interface {{}}, but received a {}", type_of(value)));
    let list = |value: &Value| value.as_array().cloned().ok_or_else(|| wrong(value));
    let order = list(order)?;
    let (server, sent) = (original.map(list).transpose()?, patch.map(list).transpose()?);
    let key = field.and_then(|field| field.merge_key);
    if let Some(sent) = &sent {
        check_order(sent, &order, key)?;
    }
    let merged = match (&server, sent) {
        (None, None) => return Ok(None),
        (Some(server), None) => server.clone(),
        (None, Some(sent)) => sent.iter().map(clean).collect(),
        (Some(server), Some(sent)) => merge_list(server.clone(), &sent, field)?,
    };
    if let Some(key) = key {
        merged.iter().chain(&order).try_for_each(|item| keyed(item, key).map(|_| ()))?;
    }
    Ok(Some(arrange(merged, &order, server.as_deref().unwrap_or_default(), key)))
}

/// What the patch sends must be part of the order that it says, and stand in it.
fn check_order(sent: &[Value], order: &[Value], key: Option<&str>) -> Result<(), ApiError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for item in sent.iter().filter(|item| key.is_none() || item.get(DIRECTIVE).is_none()) {
        let mut found = false;
        for place in places.by_ref() {
            found = match key {
                Some(key) => same_key(Some(keyed(item, key)?), Some(keyed(place, key)?)),
                None => item == place,
            };
            if found {
                break;
            }
        }
        if !found {
            let lists = [sent, order].map(|list| print(&Value::Array(list.to_vec())));
            let [sent, order] = lists;
            let why =
                format!("The order in patch list:\n{sent}\n doesn't match $setElementOrder list:\n{order}\n");
            return Err(bad(why));
        }
    }
    Ok(())
}

/// The value of an item's key.
fn keyed<'a>(item: &'a Value, key: &str) -> Result<&'a Value, ApiError> {
    let wrong = || bad(format!("expected a map[string]interface {{}}, but received a {}", type_of(item)));
    key_of(item.as_object().ok_or_else(wrong)?, key)
}

fn key_of<'a>(map: &'a Map<String, Value>, key: &str) -> Result<&'a Value, ApiError> {
    let missing = || {
        let map = print(&Value::Object(map.clone()));
        bad(format!("map: {map} does not contain declared merge key: {key}"))
    };
    map.get(key).ok_or_else(missing)
}

/// Brings a merged list in upstream's order: what `order` names stands in that order, what only the server has as it stood there,
/// and before what is named only where both were there and stood so.
fn arrange(merged: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let same = |a: &Value, b: &Value| match key {
        Some(key) => same_key(a.get(key), b.get(key)),
        None => a == b,
    };
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut named, mut own): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(order, item).is_some());
    settle(&mut named, |item| place(order, item));
    settle(&mut own, |item| place(server, item));
    let (mut named, mut own) = (named.into_iter().peekable(), own.into_iter().peekable());
    let mut all = Vec::with_capacity(named.len() + own.len());
    loop {
        let own_first = match (own.peek(), named.peek()) {
            (None, None) => return all,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(left), Some(right)) => {
                matches!((place(server, left), place(server, right)), (Some(left), Some(right)) if left < right)
            }
        };
        all.extend(if own_first { own.next() } else { named.next() });
    }
}

/// Sorts by place. An item without one goes before all that it meets: upstream compares so, and its way to sort makes that of it.
fn settle(list: &mut [Value], place: impl Fn(&Value) -> Option<usize>) {
    for end in 1..list.len() {
        for at in (1..=end).rev() {
            let before = match (place(&list[at]), place(&list[at - 1])) {
                (Some(this), Some(other)) => this < other,
                _ => true,
            };
            if !before {
                break;
            }
            list.swap(at, at - 1);
        }
    }
}

/// Keys are compared as they print: a port may be written 80 and "80".
fn same_key(a: Option<&Value>, b: Option<&Value>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if print(a) == print(b))
}

/// The type of a value, as upstream names it in its sentences.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as upstream prints it in its sentences.
fn print(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(print).collect())),
        Value::Object(map) => {
            let members = map.iter().map(|(key, value)| format!("{key}:{}", print(value)));
            format!("map[{}]", joined(members.collect()))
        }
        other => other.to_string(),
    }
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
        refused(
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
            "invalid patch format of retainKeys",
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

    fn refused(patch: Value, why: &str) {
        let schema = named("apps.v1.Deployment").unwrap();
        let object = json!({"spec": {"strategy": {}, "template": {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}}});
        assert_eq!(strategic(&object, &patch, schema).unwrap_err().message, why, "{patch}");
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said() {
        refused(
            with_containers(json!([{"image": "x"}])),
            "map: map[image:x] does not contain declared merge key: name",
        );
        refused(
            with_containers(json!([{"name": "a", "$patch": "merge"}])),
            "merging lists cannot yet be specified in the patch",
        );
        refused(json!({"spec": {"$patch": "odd"}}), "unknown patch type: odd in map: map[$patch:odd]");
        refused(
            json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [{"name": "a"}, {"name": "b"}]}}}}),
            "The order in patch list:\n[map[name:a] map[name:b]]\n doesn't match $setElementOrder list:\n\
             [map[name:b] map[name:a]]\n",
        );
    }
}
