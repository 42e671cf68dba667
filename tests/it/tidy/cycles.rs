//! Which folder uses which: no two folders beside each other may need each other, directly or round about.

use std::collections::{BTreeMap, BTreeSet};

use super::{crate_of, sources, without_tests};

/// A module as the folders and the file that lead to it, `["api", "schema", "decode"]`.
type Module = Vec<String>;
/// For two folders beside each other, the file and the path in it that says the first uses the second.
type Uses = BTreeMap<(Module, Module), String>;

/// The module that a source file holds.
fn module_of(path: &str) -> Module {
    let path = path.strip_prefix("src/").expect("a source file").trim_end_matches(".rs");
    let mut module: Module = path.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib")) {
        module.pop();
    }
    module
}

/// The code of a file, without line comments and tests.
fn code(text: &str) -> String {
    without_tests(text)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Every path of `text` that begins with one of `crate::` and `super::`, with its groups in braces spread out.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut before = ' ';
    while let Some(at) = ["crate::", "super::"].iter().filter_map(|mark| rest.find(mark)).min() {
        before = rest[..at].chars().next_back().unwrap_or(before);
        let tail = &rest[at..];
        let used = if before.is_alphanumeric() || before == '_' || before == ':' {
            "crate::".len()
        } else {
            read(tail, &mut Vec::new(), &mut found)
        };
        before = ':';
        rest = &tail[used..];
    }
    found
}

/// Reads one path, or one group, from the start of `text`; returns how many bytes it took.
fn read(text: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    let mut at = 0;
    loop {
        let word: String = text[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if word.is_empty() {
            break;
        }
        at += word.len();
        prefix.push(word);
        if !text[at..].starts_with("::") {
            break;
        }
        at += 2;
        if text[at..].starts_with('{') {
            at += group(&text[at..], prefix, found);
            prefix.truncate(depth);
            return at;
        }
    }
    found.push(prefix.clone());
    prefix.truncate(depth);
    at
}

fn group(text: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let mut at = 1;
    while let Some(next) = text[at..].chars().next() {
        match next {
            '}' => return at + 1,
            c if c.is_alphanumeric() || c == '_' => at += read(&text[at..], prefix, found),
            c => at += c.len_utf8(),
        }
    }
    at
}

/// Where a path that stands in `module` of the crate at `root` leads to; `None` if it leaves the crate.
fn resolve(root: &Module, module: &Module, path: &[String]) -> Option<Module> {
    let from_root = path.first().is_some_and(|first| first == "crate");
    let mut target = if from_root { root.clone() } else { module.clone() };
    for (index, word) in path.iter().enumerate() {
        match word.as_str() {
            "crate" if index == 0 => {}
            "super" => {
                target.pop()?;
            }
            "self" => {}
            word => target.push(word.to_owned()),
        }
    }
    Some(target)
}

/// The two folders beside each other through which `from` reaches into `to`, if both are folders.
fn siblings(from: &Module, to: &Module, folders: &BTreeSet<Module>) -> Option<(Module, Module)> {
    let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let (left, right) = (from.get(..=common)?.to_vec(), to.get(..=common)?.to_vec());
    (folders.contains(&left) && folders.contains(&right)).then_some((left, right))
}

fn uses(files: &[(String, String)]) -> Uses {
    let mut folders = BTreeSet::new();
    for (path, _) in files {
        let mut folder: Module = path.split('/').skip(1).map(str::to_owned).collect();
        while folder.pop().is_some() && !folder.is_empty() {
            folders.insert(folder.clone());
        }
    }
    let mut uses = Uses::new();
    for (path, text) in files {
        let module = module_of(path);
        let root = crate_of(path).map(module_of).unwrap_or_default();
        for spoken in paths(&code(text)) {
            let Some(target) = resolve(&root, &module, &spoken) else { continue };
            if let Some(pair) = siblings(&module, &target, &folders) {
                uses.entry(pair).or_insert_with(|| format!("{path} names {}", spoken.join("::")));
            }
        }
    }
    uses
}

/// A way from `from` back to `from`, as the pairs on it.
fn round_trip(from: &Module, uses: &Uses) -> Option<Vec<(Module, Module)>> {
    let mut ways = vec![vec![from.clone()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        let last = way.last()?;
        for (_, next) in uses.keys().filter(|(user, _)| user == last) {
            let mut longer = way.clone();
            longer.push(next.clone());
            if next == from {
                return Some(longer.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect());
            }
            if seen.insert(next.clone()) {
                ways.insert(0, longer);
            }
        }
    }
    None
}

/// One line for every ring of folders, each ring once.
fn rings(files: &[(String, String)]) -> Vec<String> {
    let uses = uses(files);
    let folders: BTreeSet<&Module> = uses.keys().map(|(user, _)| user).collect();
    let mut told: BTreeSet<Module> = BTreeSet::new();
    let mut rings = Vec::new();
    for folder in folders {
        if told.contains(folder) {
            continue;
        }
        let Some(ring) = round_trip(folder, &uses) else { continue };
        told.extend(ring.iter().map(|(user, _)| user.clone()));
        let steps =
            ring.iter().map(|pair| format!("  {} -> {}: {}", pair.0.join("/"), pair.1.join("/"), uses[pair]));
        rings.push(steps.collect::<Vec<_>>().join("\n"));
    }
    rings
}

#[test]
fn folders_need_each_other_in_one_direction_only() {
    let rings = rings(&sources());
    assert!(rings.is_empty(), "folders in a ring:\n{}", rings.join("\n\n"));
}

#[test]
fn a_ring_is_found() {
    let check = |files: &[(&str, &str)], expect: usize| {
        let files: Vec<_> =
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        assert_eq!(rings(&files).len(), expect, "{files:?}");
    };
    let a = ("src/x/a/mod.rs", "use super::b::{One, two::Three};");
    check(&[a, ("src/x/b/mod.rs", "use crate::y::Other;")], 0);
    check(&[a, ("src/x/b/mod.rs", "fn f() { crate::x::a::g() }")], 1);
    check(&[a, ("src/x/b/deep.rs", "use super::super::{c::X, a};"), ("src/x/c/mod.rs", "")], 1);
    check(&[a, ("src/x/b/mod.rs", "use super::c::X;"), ("src/x/c/mod.rs", "use super::a;")], 1);
    check(&[a, ("src/x/b/mod.rs", "// crate::x::a\n#[cfg(test)]\nmod tests {\nuse crate::x::a;\n}")], 0);
    check(&[("src/x/a.rs", "use super::b;"), ("src/x/b.rs", "use super::a;")], 0);
}
