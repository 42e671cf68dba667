//! A server in this process, behind TLS on a port of its own, and kubectl to try it with.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use minik::apiserver::{self, ApiServer, UserInfo, serve};
use minik::client::informer::Informers;
use minik::config::{BuildInfo, NodeConfig, Role};
use minik::controllers;
use minik::pki::{Authority, Identity, ServerPki};
use minik::rt::{SystemClock, Tasks};
use minik::storage::{self, Store};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// How long kubectl may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// The output of a command that must have worked.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// What a command complained of that must have failed.
    #[track_caller]
    pub fn err(self) -> String {
        assert_ne!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr
    }
}

/// A control plane's API server in this process, with everything that a cluster begins with. Its tasks stop with it.
pub struct TestApi {
    pub api: ApiServer,
    pub pki: ServerPki,
    pub config: NodeConfig,
    pub tasks: Tasks,
}

impl TestApi {
    /// A server that forgets everything with the process, and keeps its certificates in `dir`.
    pub async fn start(dir: &Path) -> Self {
        Self::start_on(storage::memory(), dir, 6443).await
    }

    /// A server over a store of the caller's.
    pub async fn start_on(store: Arc<dyn Store>, dir: &Path, port: u16) -> Self {
        Self::start_as(Self::config(port), store, dir).await
    }

    /// What a server is told.
    pub fn config(port: u16) -> NodeConfig {
        NodeConfig {
            cluster: "test".to_owned(),
            node: "server".to_owned(),
            role: Role::Server,
            server_port: port,
            ..NodeConfig::example()
        }
    }

    /// A server that was told something else.
    pub async fn start_as(config: NodeConfig, store: Arc<dyn Store>, dir: &Path) -> Self {
        let tasks = Tasks::new();
        let sans = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let pki = ServerPki::prepare(dir, "test", &sans).expect("certificates");
        let config = NodeConfig { ca_hash: pki.authority.spki_hash().expect("a hash"), ..config };
        let api = apiserver::start(store, Arc::new(SystemClock), &pki, &config, BuildInfo::UNKNOWN, &tasks)
            .await
            .expect("a server");
        Self { api, pki, config, tasks }
    }

    /// Starts every controller; nodes that are silent for `grace` are lost. Answers the caches that they read.
    pub fn run_controllers(&self, grace: Duration) -> Informers {
        let user = UserInfo::new("system:kube-controller-manager", &["system:authenticated"]);
        let client = self.api.client(user);
        let informers = Informers::new(client.clone(), &self.tasks);
        controllers::run(client, &informers, self.settings(grace), &self.tasks);
        informers
    }

    /// What the controllers are told.
    pub fn settings(&self, grace: Duration) -> controllers::Settings {
        controllers::Settings {
            pod_cidr: self.config.pod_cidr,
            lb_first: self.config.lb_first,
            lb_last: self.config.lb_last,
            authority: Arc::new(Authority::generate("test").expect("an authority")),
            node_monitor_grace: grace,
            terminated_pod_threshold: controllers::Settings::TERMINATED_POD_THRESHOLD,
            without: Vec::new(),
            clock: Arc::new(SystemClock),
        }
    }

    /// A client in this process that acts as the administrator.
    pub fn admin(&self) -> kube::Client {
        self.api.client(UserInfo::new("kubernetes-admin", &[UserInfo::MASTERS]))
    }
}

impl Drop for TestApi {
    fn drop(&mut self) {
        self.tasks.stop().cancel();
    }
}

/// Such a server behind TLS on a port of its own, with durable storage, all in one folder.
pub struct TestServer {
    pub port: u16,
    pub server: TestApi,
    dir: TempDir,
}

impl TestServer {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let store =
            storage::open(storage::Config::embedded(dir.path().join("store"))).await.expect("a store");
        let server = TestApi::start_on(store, &dir.path().join("pki"), port).await;
        let tls = serve::tls(&server.pki.serving, server.pki.authority.certificate_pem()).expect("TLS");
        serve::serve(listener, server.api.router(), tls, &server.tasks);
        let server = Self { port, server, dir };
        server.kubeconfig_of("kubeconfig", Some(&server.server.pki.admin), "");
        server
    }

    /// The same, with the controllers.
    pub async fn with_controllers() -> Self {
        let server = Self::start().await;
        server.server.run_controllers(controllers::Settings::NODE_MONITOR_GRACE);
        server
    }

    /// Writes a kubeconfig for an identity, or for a token.
    pub fn kubeconfig_of(&self, name: &str, identity: Option<&Identity>, token: &str) -> PathBuf {
        use base64::Engine as _;
        let base64 = |text: &str| base64::prelude::BASE64_STANDARD.encode(text);
        let user = match identity {
            Some(identity) => serde_json::json!({
                "client-certificate-data": base64(&identity.certificate_pem),
                "client-key-data": base64(&identity.key_pem),
            }),
            None => serde_json::json!({ "token": token }),
        };
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority-data": base64(self.server.pki.authority.certificate_pem()),
            }}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
        });
        let path = self.dir.path().join(name);
        std::fs::write(&path, config.to_string()).expect("a kubeconfig");
        path
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Runs kubectl as the administrator.
    pub fn kubectl(&self, args: &[&str]) -> Said {
        self.kubectl_with(args, "")
    }

    /// Runs a command line as whose kubeconfig it is.
    pub fn kubectl_as(&self, kubeconfig: &Path, line: &str) -> Said {
        let args: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        self.run(kubeconfig, &args, "")
    }

    /// The same, with something to read.
    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> Said {
        self.run(&self.kubeconfig(), args, stdin)
    }

    fn run(&self, kubeconfig: &Path, args: &[&str], stdin: &str) -> Said {
        tokio::task::block_in_place(|| {
            let mut command = assert_cmd::Command::new("kubectl");
            command
                .env("KUBECONFIG", kubeconfig)
                .env("HOME", self.dir.path())
                .env_remove("KUBERNETES_SERVICE_HOST");
            let output =
                command.args(args).write_stdin(stdin).timeout(PATIENCE).output().expect("kubectl runs");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Said {
                code: output.status.code().unwrap_or(-1),
                stdout: text(&output.stdout),
                stderr: text(&output.stderr),
            }
        })
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !holds() {
            assert!(std::time::Instant::now() < deadline, "waited too long: {what}");
        }
    }

    /// Writes a file that a command can be given.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        let mut file = std::fs::File::create(&path).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        path.display().to_string()
    }

    /// Stops the server, and expects that it does.
    pub async fn stop(self) {
        self.server.tasks.drain(Duration::from_secs(10)).await.expect("everything ends");
    }
}
