//! The command line without Docker: wrong calls, exit codes, help.

#![allow(deprecated)]

use assert_cmd::Command;

/// `minik` where no Docker can be reached and no kubeconfig is touched.
fn minik(args: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_minik"))
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .output()
        .expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let left: Vec<_> = std::fs::read_dir(home.path()).expect("a folder").collect();
    assert!(left.is_empty(), "something was made: {left:?}");
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn check(args: &[&str], code: i32, parts: &[&str]) {
    let (got, stdout, stderr) = minik(args);
    assert_eq!(got, code, "{args:?}\n{stdout}{stderr}");
    for part in parts {
        let stream = if code == 0 { &stdout } else { &stderr };
        assert!(stream.contains(part), "{args:?}: {part:?} is missing in\n{stream}");
    }
}

#[test]
fn wrong_calls_are_usage_errors() {
    check(&[], 2, &["Usage: minik"]);
    check(&["nonsense"], 2, &["unrecognized subcommand 'nonsense'"]);
    check(&["cluster", "create", "--frobnicate"], 2, &["unexpected argument '--frobnicate'"]);
    check(&["cluster", "create", "Bad_Name"], 2, &["invalid cluster name \"Bad_Name\"", "lower-case"]);
    check(&["cluster", "create", "-n", "many"], 2, &["invalid value 'many'"]);
    check(&["cluster", "create", &"x".repeat(41)], 2, &["41 characters", "at most 40"]);
    check(&["cluster", "create", "--nodes", "0"], 2, &["error: a cluster has 1 to 100 nodes, not 0"]);
    check(&["cluster", "create", "--nodes", "-3"], 2, &["1 to 100 nodes"]);
    check(&["cluster", "create", "--nodes", "1000"], 2, &["1 to 100 nodes, not 1000"]);
    check(&["cluster", "create", "--timeout", "0s"], 2, &["positive number"]);
    check(&["cluster", "delete", "a", "--all"], 2, &["cannot be used with"]);
    check(&["image", "load"], 2, &["<IMAGE>"]);
    check(&["cluster", "list", "-o", "xml"], 2, &["invalid value 'xml'", "json"]);
    check(&["cluster", "create", "--port", "80"], 2, &["invalid port \"80\"", "HOST-PORT:PORT"]);
    check(
        &["cluster", "create", "--port", "80:80", "--port", "80:81"],
        2,
        &["host port 80/tcp is asked for twice"],
    );
    check(&["cluster", "create", "--node-memory", "1"], 2, &["at least 128Mi"]);
    check(&["cluster", "create", "--volume", "here:/there"], 2, &["absolute path of the host"]);
    check(&["cluster", "create", "--label", "a=b@agent:3"], 2, &["not there"]);
    check(&["cluster", "edit", "--port-delete", "x"], 2, &["port of the host"]);
    check(&["node", "add", "--taint", "a"], 2, &["KEY=VALUE:EFFECT"]);
    check(&["node", "delete"], 2, &["<NODE>"]);
    check(&["node", "slow", "agent-0"], 2, &["--delay", "--loss", "--rate"]);
    check(&["node", "slow", "agent-0", "--loss", "200%"], 2, &["5% or 0.5%"]);
    check(&["node", "pause", "agent-0", "--for", "0s"], 2, &["positive number"]);
}

#[test]
fn without_docker_every_command_says_so() {
    for args in [
        &["cluster", "create"][..],
        &["cluster", "delete"],
        &["cluster", "delete", "--all"],
        &["cluster", "list"],
        &["kubeconfig", "get"],
        &["kubeconfig", "merge"],
        &["image", "load", "busybox"],
        &["image", "list"],
        &["image", "remove", "busybox"],
        &["image", "prune"],
        &["cluster", "start"],
        &["cluster", "stop"],
        &["cluster", "restart"],
        &["cluster", "inspect"],
        &["cluster", "edit"],
        &["node", "add"],
        &["node", "list"],
        &["node", "stop", "agent-0"],
        &["node", "pause", "agent-0"],
        &["node", "kill", "agent-0"],
        &["node", "partition", "agent-0"],
        &["node", "slow", "agent-0", "--rate", "1Mbit"],
        &["node", "heal", "agent-0"],
    ] {
        check(args, 3, &["error: cannot reach Docker at unix:///nonexistent/docker.sock", "hint:"]);
    }
}

#[test]
fn help_and_version_need_no_docker() {
    check(&["--help"], 0, &["Exit codes:", "cluster", "node", "kubeconfig", "image", "completion"]);
    check(&["--version"], 0, &[env!("CARGO_PKG_VERSION"), "(commit "]);
    check(&["version"], 0, &["minik", "Kubernetes", "not reachable"]);
    check(&["version", "-o", "json"], 0, &["\"docker\": null", "\"kubernetes\": \"v1."]);
    check(&["completion", "bash"], 0, &["_minik"]);
    check(&["cluster", "create", "--help"], 0, &["--nodes", "--no-rollback", "--timeout"]);
}

#[test]
fn the_node_command_runs_inside_a_node_only() {
    check(&["node", "run"], 1, &["MINIK_NODE is not set"]);
}

/// What a shell is answered at Tab.
fn completed(words: &[&str]) -> Vec<String> {
    let index = (words.len() - 1).to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_minik"))
        .arg("--")
        .args(words)
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", index)
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned).collect()
}

#[test]
fn words_are_completed() {
    assert_eq!(completed(&["minik", "clu"]), ["cluster"]);
    assert_eq!(completed(&["minik", "cluster", "cre"]), ["create"]);
    assert!(completed(&["minik", "node", ""]).contains(&"partition".to_owned()));
    assert_eq!(completed(&["minik", "cluster", "create", "--no-r"]), ["--no-rollback"]);
    // Where no engine answers there are no names, and no error in the middle of the line.
    assert_eq!(completed(&["minik", "cluster", "stop", "x"]), Vec::<String>::new());
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().expect("a folder");
    check(&["man", &dir.path().display().to_string()], 0, &[]);
    for page in ["minik.1", "minik-cluster-create.1", "minik-node-partition.1"] {
        let text = std::fs::read_to_string(dir.path().join(page)).expect(page);
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(!dir.path().join("minik-node-init.1").exists(), "what is hidden has no page");
}
