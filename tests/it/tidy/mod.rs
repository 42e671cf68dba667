//! The house rules, checked: which layer may import which, and how long files and functions may be.

mod cycles;

use std::fs;
use std::path::{Path, PathBuf};

/// Each area, and the areas it may import besides itself. Order is the layer table's, top first.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "cluster",
            "roles",
            "edge",
            "node",
            "controlplane",
            "client",
            "api",
            "pki",
            "config",
            "metrics",
            "sys",
            "rt",
        ],
    ),
    ("cluster", &["edge", "client", "api", "pki", "config", "metrics", "sys", "rt"]),
    ("roles", &["edge", "node", "controlplane", "client", "api", "pki", "config", "metrics", "sys", "rt"]),
    ("edge", &["client", "api", "pki", "config", "metrics", "sys", "rt"]),
    ("node", &["client", "api", "pki", "config", "metrics", "sys", "rt"]),
    ("controlplane", &["client", "api", "pki", "config", "metrics", "sys", "rt"]),
    ("client", &["api", "pki", "config", "metrics", "sys", "rt"]),
    ("api", &["rt"]),
    ("pki", &["rt"]),
    ("config", &["rt"]),
    ("metrics", &["rt"]),
    ("sys", &["rt"]),
    ("rt", &[]),
];

/// Inside `controlplane`: the parts, and the sibling parts each may import.
const CONTROL_PLANE: &[(&str, &[&str])] =
    &[("apiserver", &["storage"]), ("controllers", &[]), ("scheduler", &[]), ("storage", &[])];

/// Lines of a file without its `#[cfg(test)]` tail.
const FILE_LINES: usize = 600;
/// Lines of a function, signature to closing brace.
const FUNCTION_LINES: usize = 80;

/// What stands at the top level, and nothing else.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".dockerignore",
    ".git",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "NOTICE",
    "README.md",
    "benches",
    "build.rs",
    "clippy.toml",
    "deny.toml",
    "docs",
    "node-image",
    "rustfmt.toml",
    "scripts",
    "src",
    "target",
    "templates",
    "tests",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("readable folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
    into.sort();
}

fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    let relative = |p: &PathBuf| p.strip_prefix(root()).expect("below the root").display().to_string();
    files.iter().map(|p| (relative(p), fs::read_to_string(p).expect("UTF-8"))).collect()
}

/// The part of a source file that is not tests.
fn without_tests(text: &str) -> &str {
    let at = ["\n#[cfg(test)]\nmod tests {", "\n#[cfg(test)]\nmod "]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min();
    at.map_or(text, |at| &text[..at])
}

fn area_of(path: &str) -> &str {
    let rest = path.strip_prefix("src/").expect("a source file");
    rest.split('/').next().expect("not empty").trim_end_matches(".rs")
}

/// Every `crate::a::b` of a file, as (a, b).
fn crate_paths(text: &str) -> Vec<(String, String)> {
    let ident = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut paths = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, mark) in line.match_indices("crate::") {
            let rest = &line[at + mark.len()..];
            let first = ident(rest);
            let second = rest[first.len()..].strip_prefix("::").map(ident).unwrap_or_default();
            paths.push((first, second));
        }
    }
    paths
}

#[test]
fn layers_only_look_down() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let area = area_of(&path);
        if area == "lib" {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == area) else {
            wrong.push(format!("{path}: `{area}` is not in the layer table"));
            continue;
        };
        for (target, _) in crate_paths(&text) {
            let known = LAYERS.iter().any(|(name, _)| *name == target);
            if known && target != area && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{path}: `{area}` may not import `{target}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_api_server_imports_storage() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(part) = path.strip_prefix("src/controlplane/").and_then(|rest| rest.split('/').next())
        else {
            continue;
        };
        let Some((_, allowed)) = CONTROL_PLANE.iter().find(|(name, _)| *name == part) else { continue };
        for (target, inner) in crate_paths(&text) {
            let sibling = CONTROL_PLANE.iter().any(|(name, _)| *name == inner);
            if target == "controlplane" && sibling && inner != part && !allowed.contains(&inner.as_str()) {
                wrong.push(format!("{path}: `{part}` may not import `{inner}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_docker_rs_names_bollard() {
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| !path.starts_with("src/cluster/docker") && text.contains("bollard"))
        .filter(|(_, text)| text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("bollard")))
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "bollard outside src/cluster/docker: {wrong:?}");
}

#[test]
fn files_keep_their_length() {
    let long: Vec<_> = sources()
        .iter()
        .map(|(path, text)| (path.clone(), without_tests(text).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES)
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES} lines without tests; split by concept: {long:?}");
}

#[test]
fn functions_keep_their_length() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let lines: Vec<&str> = without_tests(&text).lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let body = line.trim_start();
            let indent = line.len() - body.len();
            let is_fn = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) fn ",
                "pub(super) fn ",
                "pub(crate) async fn ",
                "pub(super) async fn ",
            ]
            .iter()
            .any(|start| body.starts_with(start));
            if !is_fn {
                continue;
            }
            let close = format!("{}}}", " ".repeat(indent));
            let Some(length) = lines[start..].iter().position(|l| *l == close) else { continue };
            if length + 1 > FUNCTION_LINES {
                long.push(format!("{path}:{}: {} lines", start + 1, length + 1));
            }
        }
    }
    assert!(long.is_empty(), "functions over {FUNCTION_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn files_say_what_they_are_for() {
    let wrong: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(wrong.is_empty(), "a file opens with what it is for: {wrong:#?}");
}

#[test]
fn no_promises_instead_of_behaviour() {
    let marks =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    let wrong: Vec<_> = sources()
        .iter()
        .flat_map(|(path, text)| {
            text.lines().enumerate().map(move |(n, line)| (path.clone(), n + 1, line.to_owned()))
        })
        .filter(|(_, _, line)| marks.iter().any(|mark| line.contains(mark)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_top_level_holds_what_was_agreed() {
    let wrong: Vec<_> = fs::read_dir(root())
        .expect("readable root")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    assert!(wrong.is_empty(), "not agreed at the top level: {wrong:?}");
}
