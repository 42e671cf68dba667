use crate::api::status::ApiError;

/// In which form objects are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The objects themselves.
    #[default]
    Plain,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata, or its list.
    Partial,
}

/// What the client accepts, and we answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    pub shape: Shape,
    pub yaml: bool,
}

impl Accept {
    /// The first form in the header, by preference, that we can answer; 406 if there is none.
    pub fn negotiate(header: Option<&str>) -> Result<Self, ApiError> {
        let Some(header) = header.filter(|header| !header.trim().is_empty()) else {
            return Ok(Self::default());
        };
        if header == "application/json" || header == "*/*" {
            return Ok(Self::default());
        }
        let found = clauses(header).into_iter().find_map(|clause| clause.accept());
        found.ok_or_else(|| ApiError::not_acceptable(&["application/json", "application/yaml"]))
    }

    pub fn content_type(self) -> &'static str {
        if self.yaml { "application/yaml" } else { "application/json" }
    }
}

/// Whether the first discovery form in the header that we can answer is the aggregated one.
pub fn wants_aggregated_discovery(header: Option<&str>) -> bool {
    let first = clauses(header.unwrap_or_default()).into_iter().filter(Clause::is_json).find_map(|clause| {
        match (clause.param("as"), clause.param("g"), clause.param("v")) {
            (None, ..) => Some(false),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Some(true),
            _ => None,
        }
    });
    first.unwrap_or(false)
}

struct Clause<'a> {
    media: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn is_json(&self) -> bool {
        matches!(self.media, "application/json" | "*/*" | "application/*")
    }

    fn accept(&self) -> Option<Accept> {
        let yaml = self.media == "application/yaml";
        if !yaml && !self.is_json() {
            return None;
        }
        let meta = self.param("g").is_none_or(|group| group == "meta.k8s.io")
            && self.param("v").is_none_or(|version| version == "v1");
        let shape = match self.param("as") {
            None => Shape::Plain,
            Some("Table") if meta => Shape::Table,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta => Shape::Partial,
            Some(_) => return None,
        };
        Some(Accept { shape, yaml })
    }
}

/// The header's clauses, best quality first, else in the order written.
fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<(f32, Clause<'_>)> = header
        .split(',')
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let params: Vec<_> = parts.filter_map(|param| param.split_once('=')).collect();
            let clause = Clause { media, params };
            (clause.param("q").and_then(|q| q.parse().ok()).unwrap_or(1.0), clause)
        })
        .collect();
    clauses.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    clauses.into_iter().map(|(_, clause)| clause).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expect: Option<(Shape, bool)>) {
        let found = Accept::negotiate(Some(header)).ok().map(|accept| (accept.shape, accept.yaml));
        assert_eq!(found, expect, "{header}");
    }

    #[test]
    fn the_first_form_we_know_is_answered() {
        check("", Some((Shape::Plain, false)));
        check("application/json, */*", Some((Shape::Plain, false)));
        check("application/vnd.kubernetes.protobuf,application/json", Some((Shape::Plain, false)));
        check("application/vnd.kubernetes.protobuf", None);
        check("application/yaml", Some((Shape::Plain, true)));
        check("text/html;q=0.9, application/json;q=0.5", Some((Shape::Plain, false)));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            Some((Shape::Table, false)),
        );
        check(
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            Some((Shape::Plain, false)),
        );
        check(
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            Some((Shape::Partial, false)),
        );
        check("application/json;as=Unknown;v=v1;g=meta.k8s.io", None);
    }

    #[test]
    fn aggregated_discovery_is_asked_for_by_form() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                       application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert!(wants_aggregated_discovery(Some(kubectl)));
        assert!(!wants_aggregated_discovery(Some("application/json")));
        assert!(!wants_aggregated_discovery(None));
    }
}
