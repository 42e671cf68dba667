//! A server in this process, behind TLS on a port of its own, and kubectl to try it with.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use minik::client::informer::Informers;
use minik::config::{NodeConfig, Role};
use minik::controlplane::apiserver::{ApiServer, Options, UserInfo, bootstrap, serve};
use minik::controlplane::{controllers, storage};
use minik::pki::{Authority, Identity, Key};
use minik::rt::{SystemClock, Tasks};
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

/// A server with durable storage in a folder of its own.
pub struct TestServer {
    pub port: u16,
    dir: TempDir,
    tasks: Tasks,
    api: ApiServer,
    authority: Arc<Authority>,
}

fn node_config(port: u16, ca_hash: String) -> NodeConfig {
    NodeConfig {
        cluster: "test".to_owned(),
        node: "server".to_owned(),
        role: Role::Server,
        node_ip: [10, 9, 0, 2].into(),
        server_ip: [10, 9, 0, 2].into(),
        server_port: port,
        token: "abcdef.0123456789abcdef".to_owned(),
        ca_hash,
        pod_cidr: "10.244.0.0/16".parse().expect("a network"),
        service_cidr: "10.96.0.0/16".parse().expect("a network"),
        dns_ip: [10, 96, 0, 10].into(),
        cluster_domain: "cluster.local".to_owned(),
        lb_first: [172, 18, 255, 1].into(),
        lb_last: [172, 18, 255, 250].into(),
        api_sans: vec!["localhost".to_owned()],
        settings: Default::default(),
    }
}

impl TestServer {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let tasks = Tasks::new();
        let authority = Arc::new(Authority::generate("minik-test").expect("an authority"));
        let sans = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let serving = authority.sign_server("kube-apiserver", &sans).expect("a serving identity");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let config = node_config(port, authority.spki_hash().expect("a hash"));
        let store = storage::open(storage::Config::embedded(dir.path().join("store"))).expect("a store");
        let options = Options {
            store: store.clone(),
            clock: Arc::new(SystemClock),
            tasks: tasks.clone(),
            token_key: Key::generate().expect("a key"),
            service_cidr: config.service_cidr,
            reserved: vec![[10, 96, 0, 1].into(), config.dns_ip],
            streams: None,
        };
        let api = ApiServer::build(options).await.expect("a server");
        let authority_pem = authority.certificate_pem();
        bootstrap::run(&api.router(), store.as_ref(), &config, authority_pem)
            .await
            .expect("the first objects");
        let tls = serve::tls(&serving, authority_pem).expect("TLS");
        serve::serve(listener, api.router(), tls, &tasks);
        let admin = authority.sign_client("kubernetes-admin", &["system:masters"]).expect("an identity");
        let server = Self { port, dir, tasks, api, authority };
        server.write_kubeconfig("admin", server.authority.certificate_pem(), &admin);
        server
    }

    /// The same, with the controllers.
    pub async fn with_controllers() -> Self {
        let server = Self::start().await;
        let user = UserInfo::new("system:kube-controller-manager", &["system:authenticated"]);
        let client = server.api.client(user);
        let settings = controllers::Settings {
            pod_cidr: "10.244.0.0/16".parse().expect("a network"),
            lb_first: [172, 18, 255, 1].into(),
            lb_last: [172, 18, 255, 250].into(),
            authority: server.authority.clone(),
            node_monitor_grace: controllers::Settings::NODE_MONITOR_GRACE,
            terminated_pod_threshold: controllers::Settings::TERMINATED_POD_THRESHOLD,
            clock: Arc::new(SystemClock),
        };
        let informers = Informers::new(client.clone(), &server.tasks);
        controllers::run(client, &informers, settings, &server.tasks);
        server
    }

    fn write_kubeconfig(&self, user: &str, authority_pem: &str, identity: &Identity) {
        use base64::Engine as _;
        let base64 = |text: &str| base64::prelude::BASE64_STANDARD.encode(text);
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority-data": base64(authority_pem),
            }}],
            "users": [{"name": user, "user": {
                "client-certificate-data": base64(&identity.certificate_pem),
                "client-key-data": base64(&identity.key_pem),
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": "default"}}],
        });
        std::fs::write(self.kubeconfig(), config.to_string()).expect("a kubeconfig");
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Runs kubectl as the administrator.
    pub fn kubectl(&self, args: &[&str]) -> Said {
        self.kubectl_with(args, "")
    }

    /// The same, with something to read.
    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> Said {
        tokio::task::block_in_place(|| {
            let mut command = assert_cmd::Command::new("kubectl");
            command
                .env("KUBECONFIG", self.kubeconfig())
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

    /// Writes a file that a command can be given.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        let mut file = std::fs::File::create(&path).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        path.display().to_string()
    }

    /// Stops the server, and expects that it does.
    pub async fn stop(self) {
        self.tasks.drain(Duration::from_secs(10)).await.expect("everything ends");
    }
}
