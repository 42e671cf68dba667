//! JSON alone, until the schema table is there: decoding without a schema, and patches that need none.

pub mod schema {
    use crate::api::meta::Gvk;
    use crate::api::status::ApiError;
    use serde_json::Value;
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum FieldValidation {
        Ignore,
        Warn,
        Strict,
    }
    pub struct Schema;
    static S: Schema = Schema;
    pub fn builtin(_: &Gvk) -> Option<&'static Schema> {
        Some(&S)
    }
    impl Schema {
        pub fn decode(&self, bytes: &[u8], _: FieldValidation) -> Result<(Value, Vec<String>), ApiError> {
            serde_json::from_slice(bytes)
                .map(|v| (v, Vec::new()))
                .map_err(|e| ApiError::bad_request(e.to_string()))
        }
    }
}
pub mod protobuf {
    use crate::api::status::ApiError;
    use serde_json::Value;
    pub fn is_protobuf(content_type: &str) -> bool {
        content_type == "application/vnd.kubernetes.protobuf"
    }
    pub fn decode(_: &[u8]) -> Result<Value, ApiError> {
        Err(ApiError::bad_request("no protobuf yet"))
    }
}
pub mod patch {
    use super::schema::Schema;
    use crate::api::status::ApiError;
    use serde_json::Value;
    pub fn json(object: &Value, patch: &Value) -> Result<Value, ApiError> {
        let p: json_patch::Patch =
            serde_json::from_value(patch.clone()).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let mut o = object.clone();
        json_patch::patch(&mut o, &p).map_err(|e| ApiError::bad_request(e.to_string()))?;
        Ok(o)
    }
    pub fn merge(object: &Value, patch: &Value) -> Result<Value, ApiError> {
        let mut o = object.clone();
        json_patch::merge(&mut o, patch);
        Ok(o)
    }
    pub fn strategic(object: &Value, patch: &Value, _: &Schema) -> Result<Value, ApiError> {
        merge(object, patch)
    }
}
