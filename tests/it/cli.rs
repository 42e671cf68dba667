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

/// An engine that has nothing and says this of itself. Returns where it listens; what it was asked for comes through the channel.
fn engine_that_says(info: &'static str) -> (String, std::sync::mpsc::Receiver<String>) {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = format!("tcp://{}", listener.local_addr().expect("an address"));
    let (asked, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(client.try_clone().expect("a second handle")).lines();
            let line = lines.next().and_then(Result::ok).unwrap_or_default();
            lines.map_while(Result::ok).take_while(|header| !header.is_empty()).for_each(drop);
            let path = line.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
            let (status, body) = match path.trim_start_matches("/v1.41") {
                "/info" => ("200 OK", info),
                "/version" => ("200 OK", r#"{"ApiVersion": "1.41", "Version": "20.10.24"}"#),
                "/volumes" => ("200 OK", r#"{"Volumes": []}"#),
                "/containers/json" | "/networks" => ("200 OK", "[]"),
                _ => ("404 Not Found", r#"{"message": "no such thing"}"#),
            };
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
            let _ = write!(client, "{head}Content-Length: {length}\r\n\r\n{body}");
            if asked.send(format!("{} {path}", line.split(' ').next().unwrap_or_default())).is_err() {
                return;
            }
        }
    });
    (at, seen)
}

#[test]
fn an_engine_without_control_groups_is_refused_before_an_image_is_made() {
    let home = tempfile::tempdir().expect("a folder");
    let info = r#"{"CgroupVersion": "1", "CgroupDriver": "none", "SecurityOptions": ["name=seccomp", "name=rootless"]}"#;
    let (engine, seen) = engine_that_says(info);
    let output = Command::new(env!("CARGO_BIN_EXE_minik"))
        .args(["cluster", "create"])
        .env_clear()
        .env("HOME", home.path())
        .env("DOCKER_HOST", engine)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("rootless Docker needs cgroup version 2") && said.contains("hint: "), "{said}");
    let asked: Vec<String> = seen.try_iter().collect();
    assert!(asked.iter().any(|call| call.ends_with("/info")), "{asked:?}");
    assert!(asked.iter().all(|call| call.starts_with("GET ") && !call.contains("/images/")), "{asked:?}");
}
