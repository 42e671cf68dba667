//! Commands in containers.

use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bytes::Bytes;
use futures::future::join_all;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::io::StreamReader;

use super::{Docker, DockerError};

/// What a command in a container wrote, and how it ended.
#[derive(Clone, Debug, Default)]
pub struct ExecOutput {
    pub exit_code: i64,
    pub stdout: String,
    pub stderr: String,
}

/// A command that runs in a container.
struct Session {
    id: String,
    output: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
    input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Docker {
    /// Runs a command in a running container to its end.
    pub async fn exec(&self, container: &str, command: &[&str]) -> Result<ExecOutput, DockerError> {
        let session = self.start_exec(container, command, false).await?;
        self.finish_exec(session.id, session.output).await
    }

    /// The same; the command's standard input ends when this is dropped or this program is killed, and never before: one that
    /// takes long can end then.
    pub async fn exec_held(&self, container: &str, command: &[&str]) -> Result<ExecOutput, DockerError> {
        let Session { id, output, input } = self.start_exec(container, command, true).await?;
        let answer = self.finish_exec(id, output).await;
        drop(input);
        answer
    }

    /// Runs one command in several containers, each fed with the same input, read once. A container whose command
    /// ends early does not hold the others up; its answer says why it ended.
    pub async fn exec_fed<E>(
        &self,
        containers: &[String],
        command: &[&str],
        mut input: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Vec<Result<ExecOutput, DockerError>>, E> {
        let started = join_all(containers.iter().map(|name| self.start_exec(name, command, true))).await;
        let mut writers = Vec::new();
        let mut readers = Vec::new();
        for session in started {
            match session {
                Ok(Session { id, output, input }) => {
                    writers.push(Some(input));
                    readers.push(Ok((id, output)));
                }
                Err(error) => readers.push(Err(error)),
            }
        }
        let feed = async {
            while let Some(chunk) = input.next().await {
                let chunk = chunk?;
                let written = writers.iter_mut().map(|writer| write_or_drop(writer, &chunk));
                join_all(written).await;
            }
            // The end of the input is what the command waits for.
            join_all(writers.iter_mut().flatten().map(|writer| writer.shutdown())).await;
            Ok(())
        };
        let answers = join_all(readers.into_iter().map(|reader| async {
            let (id, output) = reader?;
            self.finish_exec(id, output).await
        }));
        let (fed, answers) = futures::join!(feed, answers);
        fed.map(|()| answers)
    }

    /// Runs a command that goes on until nobody listens: its lines, as they come. It must end when its standard input does.
    pub async fn exec_lines(
        &self,
        container: &str,
        command: &[&str],
    ) -> Result<impl Stream<Item = Result<String, DockerError>> + use<>, DockerError> {
        let session = self.start_exec(container, command, true).await?;
        let parts = session.output.map(|part| part.map(LogOutput::into_bytes).map_err(std::io::Error::other));
        let lines = tokio::io::BufReader::new(StreamReader::new(parts)).lines();
        // The input is kept open for as long as somebody listens.
        let state = (lines, session.input);
        Ok(futures::stream::try_unfold(state, |(mut lines, input)| async move {
            let line = lines.next_line().await.map_err(|error| DockerError::Client(error.to_string()))?;
            Ok(line.map(|line| (line, (lines, input))))
        }))
    }

    /// Runs a command in a running container; what it writes to its standard output streams. The stream ends with an error
    /// when the command fails.
    pub async fn exec_stream(
        &self,
        container: &str,
        command: &[&str],
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>, DockerError> {
        let Session { id, output, .. } = self.start_exec(container, command, false).await?;
        let first = (self.clone(), id, output, String::new());
        Ok(futures::stream::try_unfold(first, |(docker, id, mut output, mut said)| async move {
            while let Some(part) = output.next().await {
                match part.map_err(std::io::Error::other)? {
                    LogOutput::StdErr { message } => said.push_str(&String::from_utf8_lossy(&message)),
                    other => return Ok(Some((other.into_bytes(), (docker, id, output, said)))),
                }
            }
            let ended = docker.api.inspect_exec(&id).await.map_err(std::io::Error::other)?;
            match ended.exit_code {
                Some(0) => Ok(None),
                _ => Err(std::io::Error::other(said.trim().to_owned())),
            }
        }))
    }

    async fn start_exec(
        &self,
        container: &str,
        command: &[&str],
        stdin: bool,
    ) -> Result<Session, DockerError> {
        let config = ExecConfig {
            attach_stdin: Some(stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.iter().map(ToString::to_string).collect()),
            ..Default::default()
        };
        let id = self.api.create_exec(container, config).await?.id;
        match self.api.start_exec(&id, None::<StartExecOptions>).await? {
            StartExecResults::Attached { output, input } => Ok(Session { id, output, input }),
            StartExecResults::Detached => Err(DockerError::Client("the command was detached".to_owned())),
        }
    }

    async fn finish_exec(
        &self,
        id: String,
        mut output: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
    ) -> Result<ExecOutput, DockerError> {
        let mut answer = ExecOutput::default();
        while let Some(part) = output.next().await {
            match part? {
                LogOutput::StdErr { message } => answer.stderr.push_str(&String::from_utf8_lossy(&message)),
                other => answer.stdout.push_str(&String::from_utf8_lossy(&other.into_bytes())),
            }
        }
        answer.exit_code = self.api.inspect_exec(&id).await?.exit_code.unwrap_or(-1);
        Ok(answer)
    }
}

/// Writes to a command's input; one that stopped reading gets nothing more.
async fn write_or_drop(writer: &mut Option<Pin<Box<dyn AsyncWrite + Send>>>, chunk: &Bytes) {
    if let Some(open) = writer
        && open.write_all(chunk).await.is_err()
    {
        *writer = None;
    }
}
