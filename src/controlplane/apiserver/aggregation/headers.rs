//! How another API server is told who a request is from. It believes them because of the certificate that comes with them.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::user::UserInfo;

pub const USER: &str = "x-remote-user";
pub const UID: &str = "x-remote-uid";
pub const GROUP: &str = "x-remote-group";
pub const EXTRA: &str = "x-remote-extra-";
/// What cannot stand in a header's name, and what would change its meaning.
const UNFIT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'(')
    .add(b')')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'{')
    .add(b'}');

/// Says who the user is, and takes away what the client said of it.
pub(super) fn tell(headers: &mut HeaderMap, user: &UserInfo) {
    let claimed: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    user.groups.iter().for_each(|group| add(GROUP, group));
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", utf8_percent_encode(key, UNFIT)).to_lowercase();
        values.iter().for_each(|value| add(&name, value));
    }
}

/// Says where the request came from.
pub(super) fn tell_origin(headers: &mut HeaderMap, parts: &Parts) {
    let peer = parts.extensions.get::<std::net::SocketAddr>().map(|peer| peer.ip().to_string());
    let before = parts.headers.get("x-forwarded-for").and_then(|before| before.to_str().ok());
    let chain = match (before, peer) {
        (Some(before), Some(peer)) => Some(format!("{before}, {peer}")),
        (_, peer) => peer,
    };
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or(parts.uri.authority().map(http::uri::Authority::as_str)).map(str::to_owned);
    let told = [
        ("x-forwarded-for", chain),
        ("x-forwarded-host", host),
        ("x-forwarded-uri", Some(parts.uri.path().to_owned())),
        ("x-forwarded-proto", Some("https".to_owned())),
    ];
    for (name, value) in told {
        if let Some(Ok(value)) = value.map(|value| HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_told_and_nobody_else() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let mut user = UserInfo::new("jane", &["dev"]);
        user.uid = "u".to_owned();
        user.extra.insert("example.com/A b".to_owned(), vec!["1".to_owned(), "2".to_owned()]);
        tell(&mut headers, &user);
        let all = |name: &str| -> Vec<String> {
            headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!((all(USER), all(UID)), (vec!["jane".to_owned()], vec!["u".to_owned()]));
        assert_eq!(all(GROUP), ["dev", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-example.com%2fa%20b"), ["1", "2"]);
        assert!(all("x-remote-extra-scopes").is_empty() && all("accept") == ["*/*"]);
    }
}
