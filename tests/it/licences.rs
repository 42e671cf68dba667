//! The list of licences names what becomes part of the binary.

use std::collections::BTreeSet;
use std::path::Path;

/// Names in a table of the list, or of the lock file.
fn names(text: &str, before: &str, after: &str) -> BTreeSet<String> {
    let of = |line: &str| Some(line.strip_prefix(before)?.split(after).next()?.to_owned());
    text.lines().filter_map(of).collect()
}

#[test]
fn every_dependency_of_ours_is_on_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).expect(file);
    let (manifest, list, lock) = (read("Cargo.toml"), read("docs/LICENCES.md"), read("Cargo.lock"));
    let listed = names(&list, "| ", " |");
    let locked = names(&lock, "name = \"", "\"");
    let section = manifest.split("\n[workspace.dependencies]\n").nth(1).expect("a section");
    // Our own crates stand there too; what only builds or tests use stands last.
    let section = section.split("\n# While building").next().expect("not empty");
    let asked = section
        .lines()
        .filter(|line| !line.contains("path = "))
        .filter_map(|line| Some((line.split_once(" = ")?.0, line)));
    // A dependency may go by another name here.
    let own = asked.map(|(name, line)| {
        line.split("package = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or(name)
    });
    let missing: Vec<&str> = own.filter(|name| !listed.contains(*name)).collect();
    assert!(missing.is_empty(), "run scripts/licences: {missing:?} are not in docs/LICENCES.md");
    let headings = ["crate", "package", "---"].map(ToOwned::to_owned);
    let packages = names(&read("node-image/packages"), "", "\n");
    let known =
        |name: &&String| locked.contains(*name) || packages.contains(*name) || headings.contains(name);
    let gone: Vec<&String> = listed.iter().filter(|name| !known(name)).collect();
    assert!(gone.is_empty(), "run scripts/licences: {gone:?} are no longer there");
}
