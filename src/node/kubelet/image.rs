//! Image names and pull policy.

/// The name is not one a registry could have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": invalid reference format"
)]
pub struct InvalidName {
    pub name: String,
}

/// The full name of an image: registry and repository as Docker completes them, `latest` where there is no tag.
pub fn normalize(name: &str) -> Result<String, InvalidName> {
    let invalid = || InvalidName { name: name.to_owned() };
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    let (domain, path) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (first.to_owned(), rest.to_owned())
        }
        Some(_) => ("docker.io".to_owned(), path.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{path}")),
    };
    if !path.split('/').all(is_component) || !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest) {
        return Err(invalid());
    }
    let tag = match (tag, digest) {
        (Some(tag), _) => format!(":{tag}"),
        (None, Some(_)) => String::new(),
        (None, None) => ":latest".to_owned(),
    };
    let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
    Ok(format!("{domain}/{path}{tag}{digest}"))
}

fn is_component(part: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || "._-".contains(c))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.starts_with(word) && tag.len() <= 128 && tag.chars().all(|c| word(c) || ".-".contains(c))
}

fn is_digest(digest: &str) -> bool {
    digest
        .split_once(':')
        .is_some_and(|(_, hex)| hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit()))
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// The policy for an image; unset means Always for `latest` and IfNotPresent for the others.
pub fn policy(policy: Option<&str>, name: &str) -> Policy {
    match policy {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        Some(_) => Policy::IfNotPresent,
        None => {
            let latest = normalize(name).is_ok_and(|full| full.ends_with(":latest"));
            if latest { Policy::Always } else { Policy::IfNotPresent }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let check = |name: &str, expect: Option<&str>| {
            assert_eq!(normalize(name).ok().as_deref(), expect, "{name}");
        };
        check("redis", Some("docker.io/library/redis:latest"));
        check("redis:6.0", Some("docker.io/library/redis:6.0"));
        check("me/web", Some("docker.io/me/web:latest"));
        check("localhost:5000/web:1", Some("localhost:5000/web:1"));
        check("registry.k8s.io/pause:3.10", Some("registry.k8s.io/pause:3.10"));
        let digest = format!("sha256:{}", "a".repeat(64));
        check(&format!("redis@{digest}"), Some(&format!("docker.io/library/redis@{digest}")));
        check("Redis", None);
        check("a b", None);
        check("", None);
        check("redis:", None);
    }
}
