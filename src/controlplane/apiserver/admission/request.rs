//! The request that is to be admitted, as webhooks and expressions see it: `AdmissionRequest`.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::matching::word;
use super::{Attributes, Operation};
use api::meta::ObjectExt;

/// The object of a write with its type, which storage does not always say.
pub fn typed<'a>(attributes: &Attributes<'_>, object: &'a Value) -> Cow<'a, Value> {
    let row = attributes.row;
    let says = object.text("kind") == Some(&row.kind) && object.text("apiVersion").is_some();
    // What is connected to says what it is.
    if says || attributes.operation == Operation::Connect {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    object["apiVersion"] = row.api_version().into();
    object["kind"] = row.kind.as_ref().into();
    Cow::Owned(object)
}

/// The request with the objects that it is about.
pub fn whole(attributes: &Attributes<'_>, uid: &str) -> Value {
    let of = |object: Option<&Value>| object.map(|object| typed(attributes, object).into_owned());
    let mut request = described(attributes);
    request["uid"] = uid.into();
    request["object"] = of(attributes.object.as_ref()).into();
    request["oldObject"] = of(attributes.old).into();
    request
}

/// The request without its objects.
pub fn described(attributes: &Attributes<'_>) -> Value {
    let (group, version) = (attributes.group, attributes.row.version.as_ref());
    let connects = attributes.operation == Operation::Connect;
    let body = attributes.object.as_ref().filter(|_| connects).and_then(|object| object.text("kind"));
    let kind = json!({"group": group, "version": version, "kind": body.unwrap_or(attributes.kind)});
    let resource = json!({"group": group, "version": version, "resource": attributes.resource});
    let user = attributes.user;
    let mut request = json!({
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "operation": word(attributes.operation),
        "userInfo": {"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra},
        "dryRun": attributes.dry_run,
        "options": options(attributes.operation, attributes.dry_run),
    });
    for (key, text) in [
        ("name", attributes.object_name()),
        ("namespace", attributes.namespace),
        ("subResource", attributes.subresource),
        ("requestSubResource", attributes.subresource),
    ] {
        if !text.is_empty() {
            request[key] = text.into();
        }
    }
    request
}

fn options(operation: Operation, dry_run: bool) -> Value {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
    if dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}
