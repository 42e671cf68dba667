//! A container runtime for tests, on a socket, with delays and faults.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tonic::Code;

use crate::cri::{Runtime, api};
use rt::Tasks;

/// What goes wrong with one call of a method.
#[derive(Clone, Debug)]
pub enum Fault {
    Delay(Duration),
    /// It does what it was told, and answers that much later.
    Late(Duration),
    Fail(Code),
    /// Never answers.
    Hang,
}

/// A container runtime that exists only on a unix socket: it speaks CRI, remembers what it was told, and goes wrong
/// when asked to. Commands of hooks are obeyed by their first word: `hang` never ends, `wait` ends when released.
#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    changed: mpsc::UnboundedSender<()>,
    released: watch::Sender<bool>,
    socket: PathBuf,
}

#[derive(Default)]
struct State {
    made: u32,
    sandboxes: Vec<api::PodSandbox>,
    containers: Vec<(api::Container, api::ContainerStatus)>,
    calls: Vec<String>,
    faults: HashMap<String, VecDeque<Fault>>,
}

impl FakeRuntime {
    /// Serves on a socket in `dir`. The receiver wakes at every change of a container or sandbox.
    pub fn start(dir: &std::path::Path, tasks: &Tasks) -> (Self, mpsc::UnboundedReceiver<()>) {
        let socket = dir.join("cri.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let (changed, changes) = mpsc::unbounded_channel();
        let fake = Self { state: Arc::default(), changed, released: watch::Sender::new(false), socket };
        let (served, inner) = (fake.clone(), tasks.clone());
        tasks.spawn_until_stop(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fake = served.clone();
                let service = service_fn(move |request| {
                    let fake = fake.clone();
                    async move { Ok::<_, std::convert::Infallible>(fake.answer(request).await) }
                });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                inner.spawn_until_stop(async move { drop(connection.await) });
            }
        });
        (fake, changes)
    }

    /// A client of it.
    pub fn client(&self) -> Runtime {
        Runtime::new(&self.socket)
    }

    /// The next call of `method` goes wrong like this; several queue up.
    pub fn fault(&self, method: &str, fault: Fault) {
        self.lock().faults.entry(method.to_owned()).or_default().push_back(fault);
    }

    /// Lets every `wait` end.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// What it was told, in order: the method, and the container it was about.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// How often it was told exactly this.
    pub fn count(&self, call: &str) -> usize {
        self.lock().calls.iter().filter(|have| *have == call).count()
    }

    /// Ends the running container of that name.
    pub fn exit(&self, name: &str, code: i32) {
        let running = |status: &api::ContainerStatus| {
            status.state() == api::ContainerState::ContainerRunning
                && status.metadata.as_ref().is_some_and(|metadata| metadata.name == name)
        };
        let mut state = self.lock();
        let ids: Vec<String> =
            state.containers.iter().filter(|(_, s)| running(s)).map(|(_, s)| s.id.clone()).collect();
        ids.iter().for_each(|id| state.end(id, code));
        drop(state);
        let _ = self.changed.send(());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked with it")
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Response<impl hyper::body::Body<Data = Bytes, Error = std::io::Error> + use<>> {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let body =
            request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let result = self.call(&method, body.slice(5.min(body.len())..)).await;
        let mut trailers = HeaderMap::new();
        let mut frames = Vec::new();
        match result {
            Ok(message) => {
                let mut framed = vec![0];
                framed.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
                framed.extend_from_slice(&message);
                frames.push(Ok(Frame::data(Bytes::from(framed))));
                trailers.insert("grpc-status", "0".parse().expect("a header"));
            }
            Err(code) => {
                trailers.insert("grpc-status", (code as i32).to_string().parse().expect("a header"));
                trailers.insert("grpc-message", "made-up".parse().expect("a header"));
            }
        }
        frames.push(Ok(Frame::trailers(trailers)));
        let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
        response.headers_mut().insert("content-type", "application/grpc".parse().expect("a header"));
        response
    }

    async fn call(&self, method: &str, body: Bytes) -> Result<Vec<u8>, Code> {
        let fault = self.lock().faults.get_mut(method).and_then(VecDeque::pop_front);
        let mut late = None;
        match fault {
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Late(time)) => late = Some(time),
            Some(Fault::Fail(code)) => {
                self.lock().calls.push(format!("{method} failed"));
                return Err(code);
            }
            Some(Fault::Hang) => {
                self.lock().calls.push(format!("{method} hung"));
                std::future::pending::<()>().await;
            }
            None => {}
        }
        if method == "ExecSync" {
            return self.exec(&decode(&body)).await;
        }
        let (answer, changed) = self.lock().call(method, &body)?;
        if changed {
            let _ = self.changed.send(());
        }
        if let Some(time) = late {
            tokio::time::sleep(time).await;
        }
        Ok(answer)
    }

    async fn exec(&self, request: &api::ExecSyncRequest) -> Result<Vec<u8>, Code> {
        let name = self.lock().name_of(&request.container_id);
        let word = request.cmd.first().cloned().unwrap_or_default();
        self.lock().calls.push(format!("ExecSync {name} {word}"));
        match word.as_str() {
            "hang" => std::future::pending().await,
            "wait" => drop(self.released.subscribe().wait_for(|released| *released).await),
            _ => {}
        }
        let exit_code = i32::from(word == "fail");
        Ok(api::ExecSyncResponse { exit_code, ..Default::default() }.encode_to_vec())
    }
}

fn decode<M: Message + Default>(body: &Bytes) -> M {
    M::decode(body.clone()).expect("a message")
}

type Answer = Result<(Vec<u8>, bool), Code>;

impl State {
    fn name_of(&self, id: &str) -> String {
        let named = self.containers.iter().find(|(container, _)| container.id == id);
        named.and_then(|(container, _)| container.metadata.clone()).map(|m| m.name).unwrap_or_default()
    }

    fn end(&mut self, id: &str, code: i32) {
        let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default();
        for (container, status) in self.containers.iter_mut().filter(|(container, _)| container.id == id) {
            container.set_state(api::ContainerState::ContainerExited);
            status.set_state(api::ContainerState::ContainerExited);
            status.exit_code = code;
            status.finished_at = now;
        }
    }

    fn call(&mut self, method: &str, body: &Bytes) -> Answer {
        match method {
            "ListPodSandbox" => {
                let items = self.sandboxes.clone();
                Ok((api::ListPodSandboxResponse { items }.encode_to_vec(), false))
            }
            "ListContainers" => {
                let containers = self.containers.iter().map(|(container, _)| container.clone()).collect();
                Ok((api::ListContainersResponse { containers }.encode_to_vec(), false))
            }
            "PodSandboxStatus" => {
                let network =
                    Some(api::PodSandboxNetworkStatus { ip: "10.42.0.9".into(), ..Default::default() });
                let status = Some(api::PodSandboxStatus { network, ..Default::default() });
                let info = HashMap::new();
                Ok((api::PodSandboxStatusResponse { status, info }.encode_to_vec(), false))
            }
            "ContainerStatus" => {
                let request: api::ContainerStatusRequest = decode(body);
                let found =
                    self.containers.iter().find(|(container, _)| container.id == request.container_id);
                let status = Some(found.ok_or(Code::NotFound)?.1.clone());
                Ok((api::ContainerStatusResponse { status }.encode_to_vec(), false))
            }
            "ImageStatus" => {
                let image = Some(api::Image { id: "sha256:1".into(), ..Default::default() });
                Ok((api::ImageStatusResponse { image }.encode_to_vec(), false))
            }
            _ => self.change(method, body),
        }
    }

    fn change(&mut self, method: &str, body: &Bytes) -> Answer {
        match method {
            "RunPodSandbox" => {
                self.calls.push(method.to_owned());
                self.made += 1;
                let id = format!("sandbox-{}", self.made);
                let created_at = i64::from(self.made);
                self.sandboxes.push(api::PodSandbox { id: id.clone(), created_at, ..Default::default() });
                Ok((api::RunPodSandboxResponse { pod_sandbox_id: id }.encode_to_vec(), true))
            }
            "StopPodSandbox" => {
                let request: api::StopPodSandboxRequest = decode(body);
                self.calls.push(method.to_owned());
                for sandbox in self.sandboxes.iter_mut().filter(|s| s.id == request.pod_sandbox_id) {
                    sandbox.set_state(api::PodSandboxState::SandboxNotready);
                }
                Ok((Vec::new(), true))
            }
            "RemovePodSandbox" => {
                let request: api::RemovePodSandboxRequest = decode(body);
                self.calls.push(method.to_owned());
                self.sandboxes.retain(|sandbox| sandbox.id != request.pod_sandbox_id);
                self.containers.retain(|(container, _)| container.pod_sandbox_id != request.pod_sandbox_id);
                Ok((Vec::new(), true))
            }
            "CreateContainer" => self.create(decode(body)),
            "StartContainer" => {
                let request: api::StartContainerRequest = decode(body);
                self.note(method, &request.container_id);
                let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default();
                for (container, status) in
                    self.containers.iter_mut().filter(|(container, _)| container.id == request.container_id)
                {
                    container.set_state(api::ContainerState::ContainerRunning);
                    status.set_state(api::ContainerState::ContainerRunning);
                    status.started_at = now;
                }
                Ok((Vec::new(), true))
            }
            "StopContainer" => {
                let request: api::StopContainerRequest = decode(body);
                self.note(method, &request.container_id);
                self.end(&request.container_id, 143);
                Ok((Vec::new(), true))
            }
            "RemoveContainer" => {
                let request: api::RemoveContainerRequest = decode(body);
                self.note(method, &request.container_id);
                self.containers.retain(|(container, _)| container.id != request.container_id);
                Ok((Vec::new(), true))
            }
            _ => Err(Code::Unimplemented),
        }
    }

    fn note(&mut self, method: &str, id: &str) {
        let name = self.name_of(id);
        self.calls.push(format!("{method} {name}"));
    }

    fn create(&mut self, request: api::CreateContainerRequest) -> Answer {
        let config = request.config.unwrap_or_default();
        self.made += 1;
        let id = format!("container-{}", self.made);
        let created_at = i64::from(self.made);
        let (metadata, labels, annotations) = (config.metadata, config.labels, config.annotations);
        self.containers.push((
            api::Container {
                id: id.clone(),
                pod_sandbox_id: request.pod_sandbox_id,
                metadata: metadata.clone(),
                created_at,
                labels: labels.clone(),
                annotations: annotations.clone(),
                ..Default::default()
            },
            api::ContainerStatus {
                id: id.clone(),
                metadata,
                created_at,
                labels,
                annotations,
                ..Default::default()
            },
        ));
        self.note("CreateContainer", &id);
        Ok((api::CreateContainerResponse { container_id: id }.encode_to_vec(), true))
    }
}
