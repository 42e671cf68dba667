//! Programs that are fed through a pipe.

use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout};
use tokio_util::io::ReaderStream;

/// A program that could not be started, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: std::io::Error },
    #[error("{program} failed ({status}): {said}")]
    Failed { program: String, status: String, said: String },
    #[error("cannot read what {program} writes: {source}")]
    Read { program: String, source: std::io::Error },
}

/// What a program writes to its standard output, as it writes it. A bad exit status is the stream's last item, so a
/// reader cannot take half of the output for the whole. Dropping the stream tells the program to end; it is not waited for.
pub struct Pipe(Pin<Box<dyn Stream<Item = Result<Bytes, PipeError>> + Send>>);

impl Pipe {
    /// Starts `program`, with variables beside those of this process.
    #[allow(clippy::disallowed_types)] // the kernel seam
    pub fn start(program: &str, args: &[&str], vars: &[(String, String)]) -> Result<Self, PipeError> {
        let mut child = tokio::process::Command::new(program)
            .args(args)
            .envs(vars.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| PipeError::Start { program: program.to_owned(), source })?;
        let stdout = child.stdout.take();
        Ok(Self(Box::pin(output(program.to_owned(), Program(child), stdout))))
    }
}

/// A program that is told to end when nobody wants its output any more. Not SIGKILL: it may have things of its own to
/// take away first.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            // It may have ended in this moment.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Stream for Pipe {
    type Item = Result<Bytes, PipeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

/// Standard output first; then standard error and the exit status are looked at. Standard error is read beside it by
/// the same stream, as a program that fills that pipe would wait for ever.
fn output(
    program: String,
    mut child: Program,
    stdout: Option<ChildStdout>,
) -> impl Stream<Item = Result<Bytes, PipeError>> + Send {
    use futures::StreamExt;

    enum Part {
        Out(Bytes),
        Said(String),
    }
    let stderr = child.0.stderr.take();
    let named = program.clone();
    let out = futures::stream::iter(stdout).flat_map(ReaderStream::new).map(move |chunk| {
        chunk.map(Part::Out).map_err(|source| PipeError::Read { program: named.clone(), source })
    });
    let said = futures::stream::once(async move {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            // What cannot be read is only missing in an error message.
            let _ = stderr.read_to_end(&mut text).await;
        }
        Ok(Part::Said(String::from_utf8_lossy(&text).into_owned()))
    });
    let both = futures::stream::select(out, said).boxed();
    futures::stream::unfold(
        (both, child, String::new(), program, false),
        |(mut both, mut child, mut said, program, over)| async move {
            if over {
                return None;
            }
            loop {
                match both.next().await {
                    Some(Ok(Part::Out(chunk))) => {
                        return Some((Ok(chunk), (both, child, said, program, false)));
                    }
                    Some(Ok(Part::Said(text))) => said = text,
                    Some(Err(error)) => return Some((Err(error), (both, child, said, program, true))),
                    None => break,
                }
            }
            let failed = match child.0.wait().await {
                Ok(status) if status.success() => return None,
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            let tail: Vec<&str> = said.trim().lines().rev().take(5).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            let error = PipeError::Failed { program: program.clone(), status: failed, said: tail };
            Some((Err(error), (both, child, said, program, true)))
        },
    )
}

/// The path of a program that `PATH` leads to.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn output_comes_whole() {
        let pipe = Pipe::start(
            "sh",
            &["-c", "echo noise >&2; echo one; echo $TWO"],
            &[("TWO".into(), "two".into())],
        )
        .expect("sh starts");
        let parts: Vec<Bytes> = pipe.try_collect().await.expect("good end");
        assert_eq!(parts.concat(), b"one\ntwo\n");
    }

    #[tokio::test]
    async fn a_bad_end_is_an_error_after_the_output() {
        let pipe = Pipe::start("sh", &["-c", "echo half; echo because >&2; exit 3"], &[]).expect("sh starts");
        let error = pipe.try_collect::<Vec<_>>().await.expect_err("bad end");
        assert!(error.to_string().contains("because") && error.to_string().contains('3'), "{error}");
    }

    /// What makes a root file system has mounts and a folder of its own to take away.
    #[tokio::test]
    async fn a_program_nobody_listens_to_may_clean_up() {
        let dir = tempfile::tempdir().expect("a folder");
        let mark = dir.path().join("mark");
        let script = format!(
            "trap 'rm {0}; exit' TERM; touch {0}; echo ready; while :; do sleep 0.05; done",
            mark.display()
        );
        let mut pipe = Pipe::start("sh", &["-c", &script], &[]).expect("sh starts");
        pipe.try_next().await.expect("readable").expect("it is ready");
        assert!(mark.exists());
        drop(pipe);
        let gone = async {
            while mark.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("cleaned up");
    }

    #[tokio::test]
    async fn a_missing_program_is_said() {
        assert!(matches!(Pipe::start("no-such-program", &[], &[]), Err(PipeError::Start { .. })));
        assert!(find_program("sh").is_some() && find_program("no-such-program").is_none());
    }
}
