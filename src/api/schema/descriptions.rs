//! What is to be said of the built-in types and their fields. It is made when this program is built, and packed: few ask for it.

use std::collections::HashMap;
use std::io::Read as _;

use flate2::read::GzDecoder;

/// Under the name of each type, what it is and what its fields are.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.json.gz"));

/// Sentences about types, by the names under which clients know them.
#[derive(Debug, Default)]
pub struct Descriptions(HashMap<String, (String, HashMap<String, String>)>);

impl Descriptions {
    /// Unpacks them. Whoever calls keeps them no longer than the document takes to make.
    pub fn unpack() -> Self {
        let mut text = String::new();
        let types = GzDecoder::new(PACKED).read_to_string(&mut text).ok();
        Self(types.and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Returns what a type is.
    pub fn of_type(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|(said, _)| said.as_str()).filter(|said| !said.is_empty())
    }

    /// Returns what a field of a type is.
    pub fn of_field(&self, name: &str, field: &str) -> Option<&str> {
        let (_, fields) = self.0.get(name)?;
        fields.get(field).map(String::as_str).filter(|said| !said.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_are_described() {
        let said = Descriptions::unpack();
        let pod = said.of_type("io.k8s.api.core.v1.Pod").expect("a description");
        assert!(pod.starts_with("Pod is a collection of containers"), "{pod}");
        let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
        let made = said.of_field(meta, "creationTimestamp").expect("a description");
        assert!(made.starts_with("CreationTimestamp is a timestamp"), "{made}");
        assert_eq!(said.of_field(meta, "none"), None);
    }
}
