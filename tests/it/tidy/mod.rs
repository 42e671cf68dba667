//! The house rules, checked: which layer may import which, and how long files and functions may be.

mod cycles;

use std::fs;
use std::path::{Path, PathBuf};

/// Everything a crate of the lowest layers may use.
const LOW: &[&str] = &["api", "pki", "config", "metrics", "sys", "rt"];

/// Each crate, where it is, and the crates it may import besides those of its row's end. Order is the layer table's, top first.
const LAYERS: &[(&str, &str, &[&str])] = &[
    ("cli", "src/cli", &["cluster", "roles", "edge", "node", "client", LOWER]),
    ("cluster", "src/cluster", &["edge", "client", LOWER]),
    (
        "roles",
        "src/roles",
        &["edge", "node", "apiserver", "controllers", "scheduler", "storage", "client", LOWER],
    ),
    ("edge", "src/edge", &["client", LOWER]),
    ("node", "src/node", &["client", LOWER]),
    // Controllers and scheduler are clients of the API: they know neither the store nor each other.
    ("apiserver", "src/controlplane/apiserver", &["storage", "client", LOWER]),
    ("controllers", "src/controlplane/controllers", &["client", LOWER]),
    ("scheduler", "src/controlplane/scheduler", &["client", LOWER]),
    ("storage", "src/controlplane/storage", &["client", LOWER]),
    ("client", "src/client", &[LOWER]),
    ("api", "src/api", &["rt"]),
    ("pki", "src/pki", &["rt"]),
    ("config", "src/config", &["rt"]),
    ("metrics", "src/metrics", &["rt"]),
    ("sys", "src/sys", &["rt"]),
    ("rt", "src/rt", &[]),
];

/// Stands for [`LOW`] in a row.
const LOWER: &str = "(the lowest)";

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

/// The folder of the crate that a source file belongs to; `None` for those of the package itself.
fn crate_of(path: &str) -> Option<&'static str> {
    LAYERS
        .iter()
        .map(|(_, folder, _)| *folder)
        .find(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
}

#[test]
fn layers_only_look_down() {
    let mut wrong = Vec::new();
    for (name, folder, allowed) in LAYERS {
        let manifest =
            fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a crate for each layer");
        let used = manifest.lines().filter_map(|line| line.strip_suffix(".workspace = true"));
        for used in used.filter(|used| LAYERS.iter().any(|(known, ..)| known == used)) {
            let low = allowed.contains(&LOWER) && LOW.contains(&used);
            if !low && !allowed.contains(&used) {
                wrong.push(format!("{folder}: `{name}` may not import `{used}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_source_file_is_in_a_layer() {
    let own = ["src/main.rs", "src/lib.rs"];
    let wrong: Vec<_> = sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| crate_of(path).is_none() && !own.contains(&path.as_str()))
        .collect();
    assert!(wrong.is_empty(), "in no layer: {wrong:?}");
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
