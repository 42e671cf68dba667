//! Which media type a client accepts.

use api::protobuf;
use api::status::ApiError;

/// How bytes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    /// Every format, in the order in which clients are told of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::Yaml, Self::Protobuf];

    /// The format of a body with this content type, parameters aside.
    pub fn of(content_type: &str) -> Option<Self> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|format| format.content_type().eq_ignore_ascii_case(media))
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => protobuf::CONTENT_TYPE,
        }
    }

    /// The type of a stream of watch events.
    pub fn stream_type(self) -> &'static str {
        match self {
            Self::Json | Self::Yaml => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

/// What objects are shown as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The objects themselves.
    #[default]
    Plain,
    /// `meta.k8s.io/v1` PartialObjectMetadata, or its list.
    Partial,
    /// `meta.k8s.io/v1` Table.
    Table,
}

/// What an answer is: how it is written, and what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaType {
    pub format: Format,
    pub shape: Shape,
    /// Whether a shape is asked for by its older version, `meta.k8s.io/v1beta1`; it says the same.
    pub older: bool,
}

/// What a request can be answered with, beside JSON objects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer {
    pub yaml: bool,
    /// The kind has protobuf field numbers.
    pub protobuf: bool,
    /// Tables and metadata alone.
    pub shapes: bool,
}

impl Offer {
    /// Any format, and objects only: what errors are answered in.
    pub const ERRORS: Self = Self { yaml: true, protobuf: true, shapes: false };
}

impl MediaType {
    /// The first media type in the header, by preference, that is on offer; 406 if there is none.
    pub fn negotiate(header: Option<&str>, offer: Offer) -> Result<Self, ApiError> {
        let Some(header) = header.filter(|header| !header.trim().is_empty()) else {
            return Ok(Self::default());
        };
        if header == "application/json" || header == "*/*" {
            return Ok(Self::default());
        }
        let found = clauses(header).into_iter().find_map(|clause| clause.media_type(offer));
        found.ok_or_else(|| {
            let mut offered = vec![Format::Json.content_type()];
            offered.extend(offer.yaml.then_some(Format::Yaml.content_type()));
            offered.extend(offer.protobuf.then_some(Format::Protobuf.content_type()));
            ApiError::not_acceptable(&offered)
        })
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

    fn media_type(&self, offer: Offer) -> Option<MediaType> {
        let format = match self.media {
            _ if self.is_json() => Format::Json,
            "application/yaml" if offer.yaml => Format::Yaml,
            protobuf::CONTENT_TYPE if offer.protobuf => Format::Protobuf,
            _ => return None,
        };
        let version = self.param("v").unwrap_or("v1");
        let meta =
            self.param("g").is_none_or(|group| group == "meta.k8s.io") && matches!(version, "v1" | "v1beta1");
        let shape = match self.param("as") {
            None => Shape::Plain,
            // Tables have no protobuf message.
            Some("Table") if offer.shapes && meta && format != Format::Protobuf => Shape::Table,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if offer.shapes && meta => {
                Shape::Partial
            }
            Some(_) => return None,
        };
        Some(MediaType { format, shape, older: shape != Shape::Plain && version == "v1beta1" })
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

    const ALL: Offer = Offer { yaml: true, protobuf: true, shapes: true };

    fn check(offer: Offer, header: &str, expect: Option<(Shape, Format)>) {
        let found = MediaType::negotiate(Some(header), offer).ok().map(|media| (media.shape, media.format));
        assert_eq!(found, expect, "{header}");
    }

    #[test]
    fn the_first_form_we_know_is_answered() {
        use Format::{Json, Protobuf, Yaml};
        use Shape::{Partial, Plain, Table};
        check(ALL, "", Some((Plain, Json)));
        check(ALL, "application/json, */*", Some((Plain, Json)));
        check(ALL, "application/vnd.kubernetes.protobuf,application/json", Some((Plain, Protobuf)));
        check(ALL, "application/vnd.kubernetes.protobuf;stream=watch", Some((Plain, Protobuf)));
        check(ALL, "application/yaml", Some((Plain, Yaml)));
        check(ALL, "text/html;q=0.9, application/json;q=0.5", Some((Plain, Json)));
        check(
            ALL,
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            Some((Table, Json)),
        );
        check(ALL, "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Some((Table, Json)));
        check(ALL, "application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Some((Plain, Json)));
        let older = |header| MediaType::negotiate(Some(header), ALL).is_ok_and(|media| media.older);
        assert!(older("application/json;as=Table;v=v1beta1;g=meta.k8s.io"));
        assert!(
            !older("application/json;as=Table;v=v1;g=meta.k8s.io") && !older("application/json;v=v1beta1")
        );
        check(ALL, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", Some((Partial, Json)));
        check(
            ALL,
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Some((Partial, Protobuf)),
        );
        check(ALL, "application/json;as=Unknown;v=v1;g=meta.k8s.io", None);
        check(ALL, "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None);
    }

    #[test]
    fn what_is_not_offered_is_not_answered() {
        let none = Offer::default();
        check(none, "application/json;as=Table;v=v1;g=meta.k8s.io", None);
        check(
            none,
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Some((Shape::Plain, Format::Json)),
        );
        check(none, "application/vnd.kubernetes.protobuf", None);
        check(none, "application/yaml", None);
        check(
            none,
            "application/vnd.kubernetes.protobuf,application/json",
            Some((Shape::Plain, Format::Json)),
        );
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
