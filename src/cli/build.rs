//! Tells the program which commit it is made of.

#![allow(clippy::disallowed_types)] // git is asked while building, not by the program

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    tell_commit();
}

/// Sets `MINIK_COMMIT` (forty digits, zeros outside a checkout) and `MINIK_DATE` (of that commit, in UTC) for the compiler.
fn tell_commit() {
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "0".repeat(40));
    let format = "--format=%cd";
    let date = git(&["show", "--no-patch", format, "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "HEAD"]);
    println!("cargo:rustc-env=MINIK_COMMIT={commit}");
    println!("cargo:rustc-env=MINIK_DATE={}", date.unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned()));
    for log in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", log]) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
}

/// Returns what git prints, if there is a git and a checkout.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").env("TZ", "UTC").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
