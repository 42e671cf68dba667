//! Bootstrap tokens, with which nodes join.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use crate::user::UserInfo;
use api::meta::ObjectExt;
use config::JoinToken;

/// The user of a bootstrap token, judged by its Secret.
pub(super) fn user(token: &JoinToken, object: &Value, now: Timestamp) -> Option<UserInfo> {
    let field = |name: &str| {
        let bytes = STANDARD.decode(object.pointer("/data")?.get(name)?.as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let valid = object.str_at("/type") == Some("bootstrap.kubernetes.io/token")
        && object.deletion_timestamp().is_none()
        && field("token-id").as_deref() == Some(token.id())
        && same(field("token-secret")?.as_bytes(), token.secret().as_bytes())
        && field("usage-bootstrap-authentication").as_deref() == Some("true");
    if !valid {
        return None;
    }
    if let Some(expiration) = field("expiration") {
        // A time that cannot be read is a token that cannot be used.
        if expiration.parse::<Timestamp>().ok()? <= now {
            return None;
        }
    }
    let extra = field("auth-extra-groups").unwrap_or_default();
    let groups = extra.split(',').filter(|group| group.starts_with("system:bootstrappers:"));
    let groups: Vec<&str> = ["system:bootstrappers"].into_iter().chain(groups).collect();
    Some(UserInfo::new(format!("system:bootstrap:{}", token.id()), &groups))
}

/// Compares in a time that does not tell where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(token: &str, change: (&str, &str), now: &str, expect: Option<&[&str]>) {
        let mut data = json!({
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "expiration": "2030-01-01T00:00:00Z",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token,system:masters",
        });
        data[change.0] = change.1.into();
        for value in data.as_object_mut().unwrap().values_mut() {
            *value = STANDARD.encode(value.as_str().unwrap()).into();
        }
        let secret = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": data});
        let got = JoinToken::parse(token).and_then(|token| user(&token, &secret, now.parse().unwrap()));
        let groups = got.map(|user| user.groups);
        assert_eq!(
            groups.as_deref().map(|g| g.iter().map(String::as_str).collect::<Vec<_>>()),
            expect.map(<[_]>::to_vec),
            "{token} {change:?} {now}"
        );
    }

    #[test]
    fn tokens_are_judged_by_their_secret() {
        let good = "abcdef.0123456789abcdef";
        let groups = [
            "system:bootstrappers",
            "system:bootstrappers:kubeadm:default-node-token",
            "system:authenticated",
        ];
        let day = "2029-01-01T00:00:00Z";
        check(good, ("description", "x"), day, Some(&groups));
        check(good, ("description", "x"), "2031-01-01T00:00:00Z", None);
        check(good, ("expiration", "soon"), day, None);
        check(good, ("usage-bootstrap-authentication", "false"), day, None);
        check("abcdef.0123456789abcdee", ("description", "x"), day, None);
        check("ABCDEF.0123456789abcdef", ("description", "x"), day, None);
        check("abcdef", ("description", "x"), day, None);
    }
}
