//! What is asked of the program inside a node.

use serde::de::DeserializeOwned;

use super::docker::{Docker, DockerError, ExecOutput};

/// The program inside a node.
const PROGRAM: &[&str] = &["/usr/bin/minik", "node"];

/// Asks one node; returns what it printed, or why it failed. Its standard input ends when nobody waits any more.
pub(super) async fn ask<T: DeserializeOwned>(
    docker: &Docker,
    node: &str,
    words: &[&str],
) -> Result<T, String> {
    let command: Vec<&str> = PROGRAM.iter().chain(words).copied().collect();
    let answer: ExecOutput =
        docker.exec_held(node, &command).await.map_err(|error: DockerError| error.to_string())?;
    if answer.exit_code != 0 {
        let said = if answer.stderr.trim().is_empty() { &answer.stdout } else { &answer.stderr };
        let last = said.trim().lines().last().unwrap_or("it failed and said nothing");
        return Err(last.trim_start_matches("error: ").to_owned());
    }
    serde_json::from_str(&answer.stdout).map_err(|error| format!("it answered something else: {error}"))
}
