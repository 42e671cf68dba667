//! Paths of the API, and the names and digests in them.

use super::error::Refusal;

/// What a path speaks of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    Version,
    Catalog,
    Tags(String),
    Referrers(String, Digest),
    Blob(String, Digest),
    Uploads(String),
    Upload(String, String),
    Manifest(String, Reference),
}

/// `sha256:<hex>` or `sha512:<hex>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Digest(String);

impl Digest {
    /// Fails when it is of another form, or of an algorithm that is not known here.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let (algorithm, hex) = text.split_once(':').unwrap_or_default();
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(Refusal::digest(format!("{text:?} is no digest of sha256 or sha512"))),
        };
        let lower = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        match hex.len() == length && hex.bytes().all(lower) {
            true => Ok(Self(text.to_owned())),
            false => Err(Refusal::digest(format!("{text:?} is no digest"))),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn algorithm(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    pub(super) fn hex(&self) -> &str {
        self.0.split(':').next_back().unwrap_or_default()
    }

    /// As a file may be called.
    pub(super) fn file(&self) -> String {
        self.0.replace(':', "-")
    }

    /// The digest of which [`Digest::file`] is the file.
    pub(super) fn of_file(file: &str) -> Option<Self> {
        Self::parse(&file.replacen('-', ":", 1)).ok()
    }
}

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Tag(String),
    Digest(Digest),
}

impl Reference {
    fn parse(text: &str) -> Result<Self, Refusal> {
        if text.contains(':') {
            return Digest::parse(text).map(Self::Digest);
        }
        let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
        let first = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_');
        match first && text.len() <= 128 && text.bytes().all(inner) {
            true => Ok(Self::Tag(text.to_owned())),
            false => Err(Refusal::manifest(format!("{text:?} is no tag"))),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag,
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

/// Reads a path; `None`: it is not of this API. Fails when a name or a digest in it is wrong.
pub(super) fn parse(path: &str) -> Result<Option<Target>, Refusal> {
    let Some(rest) = path.strip_prefix("/v2") else { return Ok(None) };
    if rest.is_empty() || rest == "/" {
        return Ok(Some(Target::Version));
    }
    let Some(rest) = rest.strip_prefix('/') else { return Ok(None) };
    if rest == "_catalog" {
        return Ok(Some(Target::Catalog));
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Ok(Some(Target::Tags(checked(name)?)));
    }
    if let Some((name, id)) = rest.rsplit_once("/blobs/uploads/") {
        let name = checked(name)?;
        return Ok(Some(match id {
            "" => Target::Uploads(name),
            id => Target::Upload(name, id.to_owned()),
        }));
    }
    if let Some(name) = rest.strip_suffix("/blobs/uploads") {
        return Ok(Some(Target::Uploads(checked(name)?)));
    }
    let Some((front, last)) = rest.rsplit_once('/') else { return Ok(None) };
    let Some((name, kind)) = front.rsplit_once('/') else { return Ok(None) };
    Ok(Some(match kind {
        "blobs" => Target::Blob(checked(name)?, Digest::parse(last)?),
        "referrers" => Target::Referrers(checked(name)?, Digest::parse(last)?),
        "manifests" => Target::Manifest(checked(name)?, Reference::parse(last)?),
        _ => return Ok(None),
    }))
}

/// A repository's name: parts of lower-case letters and digits, with single `.`, `_`, `__` or dashes between them. So no
/// part begins with `_`, as the store's own folders do, and none is `..`.
pub(super) fn checked(name: &str) -> Result<String, Refusal> {
    let good = |part: &str| {
        let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = part.as_bytes();
        let ends = [bytes.first(), bytes.last()].iter().all(|c| c.is_some_and(|c| alphanumeric(*c)));
        let between = part.split(|c: char| alphanumeric(u8::try_from(c).unwrap_or(0)));
        let separator = |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|c| c == b'-');
        ends && between.into_iter().all(separator)
    };
    match name.len() <= 255 && name.split('/').all(good) {
        true => Ok(name.to_owned()),
        false => Err(Refusal::name(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "library/redis", "a/b/c", "my-app", "a.b_c__d--e", "0"] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in
            ["", "/a", "a/", "a//b", "A", "..", "a/../b", "_a", "a_", "a..b", "a___b", "-a", "a b", "ä"]
        {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_read() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let parsed = Digest::parse(&digest).expect("good");
        let check = |path: &str, expect: Target| assert_eq!(parse(path), Ok(Some(expect)), "{path}");
        check("/v2/", Target::Version);
        check("/v2", Target::Version);
        check("/v2/_catalog", Target::Catalog);
        check("/v2/a/b/tags/list", Target::Tags("a/b".into()));
        check(&format!("/v2/a/blobs/{digest}"), Target::Blob("a".into(), parsed.clone()));
        check("/v2/a/blobs/uploads/", Target::Uploads("a".into()));
        check("/v2/a/blobs/uploads/7", Target::Upload("a".into(), "7".into()));
        check("/v2/a/manifests/1.0", Target::Manifest("a".into(), Reference::Tag("1.0".into())));
        check(&format!("/v2/a/referrers/{digest}"), Target::Referrers("a".into(), parsed.clone()));
        // Names may hold the API's own words.
        check("/v2/blobs/manifests/tags/list", Target::Tags("blobs/manifests".into()));
        for other in ["/", "/v1/", "/v2x", "/v2/a", "/v2/a/b", "/v2/a/other/b"] {
            assert_eq!(parse(other), Ok(None), "{other}");
        }
        for wrong in ["/v2/A/tags/list", "/v2/a/blobs/sha256:0", "/v2/a/blobs/md5:00", "/v2/a/manifests/-x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Digest::of_file(&parsed.file()), Some(parsed));
    }
}
