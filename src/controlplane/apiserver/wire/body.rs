//! Reads request bodies, within limits.

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::negotiate::Format;
use api::meta::{Gvk, ObjectExt, join_api_version, split_api_version};
use api::protobuf;
use api::schema::{FieldValidation, Schema};
use api::status::ApiError;

/// Upstream's limit on request bodies, and ours on what one comes to.
pub const LIMIT: usize = 3 * 1024 * 1024;

/// The whole request body; 413 above the limit.
pub async fn read_body(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::too_large(&format!("limit is {LIMIT}")))
        }
        Err(error) => Err(ApiError::bad_request(format!("the request body could not be read: {error}"))),
    }
}

fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let header = headers.get(CONTENT_TYPE).and_then(|header| header.to_str().ok()).unwrap_or_default();
    if header.trim().is_empty() {
        return Ok(Format::Json);
    }
    Format::of(header).ok_or_else(|| ApiError::unsupported_media_type(&Format::ALL.map(Format::content_type)))
}

/// Decodes an object that must be of the type `expected`; where it names no type, it is taken to be.
/// Answers the object and what to warn the client of.
pub fn decode_object(
    headers: &HeaderMap,
    bytes: &[u8],
    expected: &Gvk,
    schema: &Schema,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    let (mut object, warnings) = match format(headers)? {
        Format::Json => schema.decode(bytes, validation)?,
        Format::Yaml => schema.decode(&json_of_yaml(bytes)?, validation)?,
        Format::Protobuf => {
            // The kind first: what another kind's fields would make of the body is nobody's business here. Then the same pass
            // as for JSON: ranges of numbers and the like are no matter of the encoding.
            let (api_version, kind) = protobuf::type_of(bytes)?;
            check_said(&kind, &api_version, expected)?;
            schema.convert(&protobuf::decode(bytes)?, validation)?
        }
    };
    check_type(&mut object, expected)?;
    Ok((object, warnings))
}

fn json_of_yaml(bytes: &[u8]) -> Result<Vec<u8>, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let value: Value = serde_yaml::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("error converting YAML to JSON: {error}")))?;
    let json = serde_json::to_vec(&value).map_err(|error| ApiError::bad_request(error.to_string()))?;
    // Aliases make much of a small text.
    if json.len() > LIMIT {
        return Err(ApiError::too_large(&format!("limit is {LIMIT}")));
    }
    Ok(json)
}

/// What a body says it is, each empty if it does not, must be what is expected.
fn check_said(kind: &str, version: &str, expected: &Gvk) -> Result<(), ApiError> {
    let api_version = join_api_version(&expected.group, &expected.version);
    let kind = if kind.is_empty() { expected.kind.as_ref() } else { kind };
    let (group, short) = split_api_version(if version.is_empty() { &api_version } else { version });
    let known = api::schema::builtin(&Gvk::new(group.to_owned(), short.to_owned(), kind.to_owned()))
        .is_some()
        || (kind == expected.kind && group == expected.group && short == expected.version);
    if kind != expected.kind || !known {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {short:?} cannot be handled as a {}: it is of another kind",
            expected.kind
        )));
    }
    if !version.is_empty() && version != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({api_version})"
        )));
    }
    Ok(())
}

/// What an object says it is must be what is expected; what it does not say is filled in.
pub fn check_type(object: &mut Value, expected: &Gvk) -> Result<(), ApiError> {
    let Some(map) = object.as_object_mut() else {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): it is not an object",
            expected.kind
        )));
    };
    let said = |name: &str| map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let api_version = join_api_version(&expected.group, &expected.version);
    check_said(said("kind").unwrap_or_default(), said("apiVersion").unwrap_or_default(), expected)?;
    if said("kind").is_none() {
        map.insert("kind".to_owned(), Value::String(expected.kind.to_string()));
    }
    if !map.contains_key("apiVersion") || map["apiVersion"].as_str().is_none_or(str::is_empty) {
        map.insert("apiVersion".to_owned(), Value::String(api_version));
    }
    Ok(())
}

/// Parses a body as it is, whatever its kind. Fails with what is wrong with it.
pub fn parse(format: Format, bytes: &[u8]) -> Result<Value, ApiError> {
    let json = |bytes: &[u8]| {
        serde_json::from_slice(bytes)
            .map_err(|error| ApiError::bad_request(format!("the body could not be decoded: {error}")))
    };
    match format {
        Format::Json => json(bytes),
        Format::Yaml => json(&json_of_yaml(bytes)?),
        Format::Protobuf => Ok(protobuf::decode(bytes)?),
    }
}

/// Decodes request options (DeleteOptions and the like); `None` for an empty body.
pub fn decode_options(headers: &HeaderMap, bytes: &[u8]) -> Result<Option<Value>, ApiError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let format = format(headers)?;
    if format == Format::Protobuf {
        check_options(&protobuf::type_of(bytes)?.1)?;
    }
    let options = parse(format, bytes)?;
    check_options(options.text("kind").unwrap_or_default())?;
    // An option of a wrong type must not pass for one that was not given: what was to be a dry run would be none.
    if let Some(schema) = api::schema::named("meta.v1.DeleteOptions") {
        schema.convert(&options, FieldValidation::Ignore)?;
    }
    Ok(Some(options))
}

fn check_options(kind: &str) -> Result<(), ApiError> {
    if kind.is_empty() || kind.ends_with("Options") {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("expect a DeleteOptions object in the body, not {kind}")))
}
