//! The driver: gRPC over unix sockets, written out; volumes are directories that it bind-mounts.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use minik::node::csi::api::{self, node_service_capability as capability};
use minik::node::csi::registration as plugin;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use prost::Message;
use tokio::net::UnixListener;

const NAME: &str = "test.csi.minik.dev";
const HOME: &str = "/var/lib/kubelet/plugins/test.csi.minik.dev";
const REGISTRATION: &str = "/var/lib/kubelet/plugins_registry/test.csi.minik.dev-reg.sock";

/// Serves until it is told to end.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut end =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a signal");
        fs::create_dir_all(format!("{HOME}/data")).expect("a folder");
        let socket = format!("{HOME}/csi.sock");
        tokio::select! {
            () = serve(Path::new(&socket)) => {}
            () = serve(Path::new(REGISTRATION)) => {}
            _ = end.recv() => {}
        }
        let _ = (fs::remove_file(REGISTRATION), fs::remove_file(socket));
    });
}

async fn serve(socket: &Path) {
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket).expect("a socket");
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move { drop(connection.await) });
    }
}

async fn answer(
    request: Request<Incoming>,
) -> Response<impl hyper::body::Body<Data = Bytes, Error = std::io::Error>> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let body =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body = body.slice(5.min(body.len())..);
    let place = place(&method, &body);
    let result = call(&method, body);
    println!("{method} {place} {result:?}");
    let mut trailers = HeaderMap::new();
    let mut frames = Vec::new();
    match result {
        Ok(message) => {
            let length = u32::try_from(message.len()).expect("short").to_be_bytes();
            frames.push(Ok(Frame::data(Bytes::from([&[0][..], &length, &message].concat()))));
            trailers.insert("grpc-status", "0".parse().expect("a header"));
        }
        Err(why) => {
            trailers.insert("grpc-status", "13".parse().expect("a header"));
            trailers.insert(
                "grpc-message",
                why.replace(|c: char| !c.is_ascii_graphic(), "_").parse().expect("a header"),
            );
        }
    }
    frames.push(Ok(Frame::trailers(trailers)));
    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
    response.headers_mut().insert("content-type", "application/grpc".parse().expect("a header"));
    response
}

fn decode<M: Message + Default>(body: Bytes) -> Result<M, String> {
    M::decode(body).map_err(|error| error.to_string())
}

fn call(method: &str, body: Bytes) -> Result<Vec<u8>, String> {
    let node = std::env::var("NODE").unwrap_or_default();
    match method {
        "GetInfo" => Ok(plugin::PluginInfo {
            r#type: "CSIPlugin".into(),
            name: NAME.into(),
            endpoint: format!("{HOME}/csi.sock"),
            supported_versions: vec!["1.0.0".into()],
        }
        .encode_to_vec()),
        "NotifyRegistrationStatus" => {
            let status: plugin::RegistrationStatus = decode(body)?;
            if status.plugin_registered { Ok(Vec::new()) } else { Err(status.error) }
        }
        "NodeGetInfo" => Ok(api::NodeGetInfoResponse {
            accessible_topology: Some(api::Topology {
                segments: [(format!("{NAME}/node"), node.clone())].into(),
            }),
            node_id: node,
            max_volumes_per_node: 3,
        }
        .encode_to_vec()),
        "NodeGetCapabilities" => {
            use capability::rpc::Type::{ExpandVolume, StageUnstageVolume};
            let one = |feature: capability::rpc::Type| api::NodeServiceCapability {
                r#type: Some(capability::Type::Rpc(capability::Rpc { r#type: feature.into() })),
            };
            let capabilities = [StageUnstageVolume, ExpandVolume].map(one).into();
            Ok(api::NodeGetCapabilitiesResponse { capabilities }.encode_to_vec())
        }
        "NodeStageVolume" => {
            let request: api::NodeStageVolumeRequest = decode(body)?;
            bind(&data(&request.volume_id), Path::new(&request.staging_target_path))
        }
        "NodePublishVolume" => publish(&decode(body)?),
        "NodeUnpublishVolume" => {
            let request: api::NodeUnpublishVolumeRequest = decode(body)?;
            unmount(Path::new(&request.target_path))?;
            let _ = fs::remove_dir(&request.target_path);
            Ok(Vec::new())
        }
        "NodeUnstageVolume" => {
            let request: api::NodeUnstageVolumeRequest = decode(body)?;
            unmount(Path::new(&request.staging_target_path))
        }
        "NodeExpandVolume" => {
            let request: api::NodeExpandVolumeRequest = decode(body)?;
            let capacity_bytes = request.capacity_range.unwrap_or_default().required_bytes;
            Ok(api::NodeExpandVolumeResponse { capacity_bytes }.encode_to_vec())
        }
        _ => Err(format!("{method} is not served")),
    }
}

/// Where a call mounts something for a Pod, or unmounts it.
fn place(method: &str, body: &Bytes) -> String {
    let path = match method {
        "NodePublishVolume" => decode::<api::NodePublishVolumeRequest>(body.clone()).map(|r| r.target_path),
        "NodeUnpublishVolume" => {
            decode::<api::NodeUnpublishVolumeRequest>(body.clone()).map(|r| r.target_path)
        }
        _ => return String::new(),
    };
    path.unwrap_or_default()
}

fn publish(request: &api::NodePublishVolumeRequest) -> Result<Vec<u8>, String> {
    let target = Path::new(&request.target_path);
    fs::create_dir_all(target).map_err(|error| error.to_string())?;
    if !request.staging_target_path.is_empty() {
        return bind(Path::new(&request.staging_target_path), target);
    }
    let source = data(&request.volume_id);
    fs::create_dir_all(&source).map_err(|error| error.to_string())?;
    let told = |key: &str| request.volume_context.get(&format!("csi.storage.k8s.io/{key}")).cloned();
    let pod =
        format!("{}/{}\n", told("pod.namespace").unwrap_or_default(), told("pod.name").unwrap_or_default());
    fs::write(source.join("pod"), pod).map_err(|error| error.to_string())?;
    bind(&source, target)
}

fn data(volume: &str) -> PathBuf {
    Path::new(HOME).join("data").join(volume)
}

/// As often as it is asked for, a volume is mounted at a place once.
fn bind(source: &Path, target: &Path) -> Result<Vec<u8>, String> {
    fs::create_dir_all(source).map_err(|error| error.to_string())?;
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if !mounted.lines().any(|line| line.split(' ').nth(4) == target.to_str()) {
        mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|errno| errno.to_string())?;
    }
    Ok(Vec::new())
}

fn unmount(target: &Path) -> Result<Vec<u8>, String> {
    match umount2(target, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(Vec::new()),
        Err(errno) => Err(errno.to_string()),
    }
}
