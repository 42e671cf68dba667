//! Files of environment variables in a Pod's volumes.
//!
//! One assignment after the other, `NAME='value'`; what stands between the quotes is the value, lines and all. Empty lines
//! and those that begin with `#` say nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;

/// The files that one container's variables are read from, by volume and path: their variables, or why they cannot be
/// read. Those that do not exist are missing.
pub type EnvFiles = BTreeMap<(String, String), Result<BTreeMap<String, String>, String>>;

/// Upstream's limit of such a file, in bytes.
pub const ENV_FILE: u64 = 64 << 10;

/// Returns the files that a container's variables are read from: volume and path.
pub fn env_files(container: &Container) -> Vec<(String, String)> {
    let from = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let files = from.filter_map(|from| from.file_key_ref.as_ref());
    let mut all: Vec<_> = files.map(|file| (file.volume_name.clone(), file.path.clone())).collect();
    all.sort();
    all.dedup();
    all
}

/// Reads the variables of a file.
///
/// # Errors
///
/// The first line that is no assignment.
pub fn parse_env_file(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let said = first.trim();
        if said.is_empty() || said.starts_with('#') {
            (rest, line) = (after, line + 1);
            continue;
        }
        let wrong = |why: &str| format!("line {line}: {why}, expected NAME='value'");
        let (name, value) =
            rest.split_once('=').filter(|(name, _)| !name.contains('\n')).ok_or(wrong("no \"=\""))?;
        let value = value.strip_prefix('\'').ok_or(wrong("the value is not in single quotes"))?;
        let (value, behind) = value.split_once('\'').ok_or(wrong("the value has no end"))?;
        let (behind, after) = behind.split_once('\n').unwrap_or((behind, ""));
        if !behind.trim().is_empty() {
            return Err(wrong("something follows the value"));
        }
        all.insert(name.trim().to_owned(), value.to_owned());
        line += 1 + value.matches('\n').count();
        rest = after;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_one_after_the_other() {
        let check = |text: &str, expect: Result<&[(&str, &str)], &str>| {
            let found = parse_env_file(text);
            let expect = expect
                .map(|all| {
                    all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
                })
                .map_err(|why| format!("{why}, expected NAME='value'"));
            assert_eq!(found, expect, "{text:?}");
        };
        check("", Ok(&[]));
        check("# said\n\nA='1'\n  B='x y # z'\n", Ok(&[("A", "1"), ("B", "x y # z")]));
        check("A='one\ntwo'\nB=''", Ok(&[("A", "one\ntwo"), ("B", "")]));
        check("A='1'\nB=2", Err("line 2: the value is not in single quotes"));
        check("A='1\n\n", Err("line 1: the value has no end"));
        check("A='x\ny'\nB", Err("line 3: no \"=\""));
        check("A='1' B='2'", Err("line 1: something follows the value"));
    }
}
