//! Basic authentication against a file as `htpasswd` writes it.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap};
use md5::{Digest, Md5};

/// How many answers are remembered: the slow hashes are made to cost much.
const REMEMBERED: usize = 1024;

/// People and what their passwords were made into.
#[derive(Debug, Default)]
pub struct Users {
    hashes: HashMap<String, Hash>,
    /// Digests of credentials that were right.
    right: RwLock<HashSet<Vec<u8>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hash {
    /// `$2y$`: bcrypt.
    Bcrypt(String),
    /// `$apr1$salt$…`: a thousand rounds of MD5, as Apache does them.
    Apr1 { salt: String, hash: String },
    /// `{SHA}`: base64 of SHA-1.
    Sha(String),
    /// `{PLAIN}`: the password.
    Plain(String),
}

impl Hash {
    fn read(text: &str) -> Option<Self> {
        if ["$2y$", "$2a$", "$2b$"].iter().any(|kind| text.starts_with(kind)) {
            return Some(Self::Bcrypt(text.to_owned()));
        }
        if let Some((salt, hash)) = text.strip_prefix("$apr1$").and_then(|rest| rest.split_once('$')) {
            return Some(Self::Apr1 { salt: salt.to_owned(), hash: hash.to_owned() });
        }
        let sha = text.strip_prefix("{SHA}").map(|hash| Self::Sha(hash.to_owned()));
        sha.or_else(|| text.strip_prefix("{PLAIN}").map(|password| Self::Plain(password.to_owned())))
    }

    fn is(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Apr1 { salt, hash } => same(&apr1(password.as_bytes(), salt.as_bytes()), hash),
            Self::Sha(hash) => {
                let made = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
                same(&STANDARD.encode(made), hash)
            }
            Self::Plain(own) => same(own, password),
        }
    }
}

/// Compares without telling by its time where the difference is.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

impl Users {
    /// Reads lines of `name:hash`. The second answer names people whose hash is of a kind that is not known: they are
    /// not let in.
    pub fn read(file: &str) -> (Self, Vec<String>) {
        let (mut hashes, mut unknown) = (HashMap::new(), Vec::new());
        for line in file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((name, hash)) = line.split_once(':') else { continue };
            match Hash::read(hash) {
                Some(hash) => drop(hashes.insert(name.to_owned(), hash)),
                None => unknown.push(name.to_owned()),
            }
        }
        (Self { hashes, right: RwLock::default() }, unknown)
    }

    /// Whether the request gives a name and its password. It may take long: the hashes are made so.
    pub(super) fn know(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
        let Some(text) = given.and_then(|(_, text)| STANDARD.decode(text.trim()).ok()) else { return false };
        let Some((name, password)) = std::str::from_utf8(&text).ok().and_then(|text| text.split_once(':'))
        else {
            return false;
        };
        let Some(hash) = self.hashes.get(name) else { return false };
        let digest = ring::digest::digest(&ring::digest::SHA256, &text).as_ref().to_vec();
        if self.right.read().unwrap_or_else(PoisonError::into_inner).contains(&digest) {
            return true;
        }
        let right = hash.is(password);
        if right {
            let mut known = self.right.write().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(digest);
        }
        right
    }
}

/// Apache's variant of the MD5 crypt.
fn apr1(password: &[u8], salt: &[u8]) -> String {
    let salt = &salt[..salt.len().min(8)];
    let of = |parts: &[&[u8]]| parts.iter().fold(Md5::new(), |sum, part| sum.chain_update(part)).finalize();
    let inner = of(&[password, salt, password]);
    let mut first = Md5::new().chain_update(password).chain_update(b"$apr1$").chain_update(salt);
    for at in (0..password.len()).step_by(16) {
        first.update(&inner[..(password.len() - at).min(16)]);
    }
    let mut length = password.len();
    while length > 0 {
        first.update(if length & 1 == 1 { &[0] } else { &password[..1] });
        length >>= 1;
    }
    let mut sum = first.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        next.update(if round & 1 == 1 { password } else { sum.as_slice() });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if round & 1 == 1 { sum.as_slice() } else { password });
        sum = next.finalize();
    }
    let triple = |a: usize, b: usize, c: usize| {
        letters(u32::from(sum[a]) << 16 | u32::from(sum[b]) << 8 | u32::from(sum[c]), 4)
    };
    let groups = [triple(0, 6, 12), triple(1, 7, 13), triple(2, 8, 14), triple(3, 9, 15), triple(4, 10, 5)];
    groups.concat() + &letters(u32::from(sum[11]), 2)
}

/// The lowest bits first, six to a letter.
fn letters(mut bits: u32, count: usize) -> String {
    const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::new();
    for _ in 0..count {
        text.push(char::from(LETTERS[(bits & 0x3f) as usize]));
        bits >>= 6;
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Hashes as `openssl passwd -apr1`, `htpasswd -s` and `htpasswd -B` make them.
    #[test]
    fn people_are_known_by_what_htpasswd_writes() {
        let file = "# people\nanna:$apr1$lZL6V/ci$PR6QJXkRFUzdUuaYcwrI//\nlong:$apr1$abcdefgh$CWmSdRXg6.q2WlUC6/oKv1\nben:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n\
            cora:$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i\ndora:{PLAIN}a:b\nemil:rl.3StKT.4T8M\n";
        let (users, unknown) = Users::read(file);
        assert_eq!(unknown, ["emil"]);
        let check = |given: &str, expect: bool| {
            let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(given))).expect("a value");
            let headers: HeaderMap = [(AUTHORIZATION, value)].into_iter().collect();
            assert_eq!(users.know(&headers), expect, "{given}");
            assert_eq!(users.know(&headers), expect, "{given}, again");
        };
        check("anna:secret", true);
        check("long:a much longer password than sixteen", true);
        check("cora:abc", true);
        check("ben:password", true);
        check("ben:Password", false);
        check("dora:a:b", true);
        check("dora:a", false);
        check("emil:password", false);
        check("nobody:password", false);
        check("anna:wrong", false);
        check("cora:wrong", false);
        assert!(!users.know(&HeaderMap::new()));
    }
}
