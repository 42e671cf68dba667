use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::docker::{self, docker};
use super::{Run, run};

const MINIK: &str = env!("CARGO_BIN_EXE_minik");
const IMAGES: &[&str] = &["minik-test/web:1", "minik-test/web:2", "redis:6.0", "busybox:1.36", "nginx:1.27"];

/// What all tests of one run share. Names carry the process id, so runs do not meet each other.
pub struct Env {
    home: tempfile::TempDir,
    shared: OnceLock<Cluster>,
    namespaces: AtomicU32,
}

/// A cluster, and how to speak with it.
#[derive(Clone)]
pub struct Cluster {
    pub name: String,
    kubeconfig: PathBuf,
}

impl Env {
    pub fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        Self { home, shared: OnceLock::new(), namespaces: AtomicU32::new(0) }
    }

    /// A name no other run uses.
    pub fn name(&self, part: &str) -> String {
        format!("t{}-{part}", std::process::id())
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// Runs `minik` with this run's kubeconfig and folder of backups.
    pub fn minik(&self, args: &[&str]) -> Run {
        self.minik_with(args, &[])
    }

    pub fn minik_with(&self, args: &[&str], vars: &[(&str, &str)]) -> Run {
        let (kubeconfig, data) =
            (self.kubeconfig().display().to_string(), self.home.path().display().to_string());
        let own = [("KUBECONFIG", kubeconfig.as_str()), ("XDG_DATA_HOME", data.as_str())];
        let all: Vec<_> = own.into_iter().chain(vars.iter().copied()).collect();
        run(MINIK, args, &all)
    }

    /// `minik` as a process of its own, for tests that interrupt it.
    pub fn minik_command(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(MINIK);
        command.args(args).env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// The shared cluster of three nodes with all images on it; made by the first test that asks.
    pub fn cluster(&self) -> &Cluster {
        self.shared.get_or_init(|| {
            test_images();
            let name = self.name("shared");
            self.minik(&["cluster", "create", &name, "--nodes", "3", "--timeout", "5m"]).ok();
            let cluster = self.attach(&name);
            self.minik(&[&["image", "load", "--cluster", &name], IMAGES].concat()).ok();
            cluster
        })
    }

    /// A cluster that exists, with a kubeconfig of its own.
    pub fn attach(&self, name: &str) -> Cluster {
        let kubeconfig = self.home.path().join(name);
        std::fs::write(&kubeconfig, self.minik(&["kubeconfig", "get", name]).ok()).expect("written");
        Cluster { name: name.to_owned(), kubeconfig }
    }

    /// A fresh namespace in the shared cluster.
    pub fn namespace(&self, part: &str) -> String {
        let number = self.namespaces.fetch_add(1, Ordering::Relaxed);
        let name = format!("{part}-{number}");
        self.cluster().kubectl(&["create", "namespace", &name]).ok();
        name
    }

    /// Removes what runs that were killed left behind.
    pub fn remove_leftovers(&self) {
        for name in self.clusters() {
            let pid = name.strip_prefix('t').and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
            let dead =
                pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists());
            if dead {
                self.minik(&["cluster", "delete", &name]).ok();
            }
        }
    }

    /// Removes everything this run made.
    pub fn clean_up(&self) {
        let own = self.name("");
        for name in self.clusters().iter().filter(|name| name.starts_with(&own)) {
            if let Err(why) = self.minik(&["cluster", "delete", name]).try_ok() {
                eprintln!("could not remove {name}: {why}");
            }
        }
    }

    fn clusters(&self) -> Vec<String> {
        let list: Value =
            serde_json::from_str(&self.minik(&["cluster", "list", "-o", "json"]).ok()).expect("JSON");
        let names = list.as_array().expect("a list").iter();
        names.filter_map(|cluster| Some(cluster["name"].as_str()?.to_owned())).collect()
    }

    /// Fails unless nothing is left of a cluster, in Docker and in the kubeconfig.
    #[track_caller]
    pub fn assert_gone(&self, cluster: &str) {
        let remains = docker::remains(cluster);
        assert!(remains.is_empty(), "left behind: {remains:?}");
        let text = std::fs::read_to_string(self.kubeconfig()).unwrap_or_default();
        assert!(!text.contains(cluster), "left in the kubeconfig:\n{text}");
    }
}

/// The images that the tests run; made when they are missing or outdated.
pub fn test_images() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| make_images(&[]));
}

/// Those that only the long tutorials run.
pub fn tutorial_images() {
    make_images(&["tutorials"]);
}

fn make_images(arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test-images");
    run(&script.display().to_string(), arguments, &[]).ok();
}

impl Cluster {
    fn var(&self) -> String {
        self.kubeconfig.display().to_string()
    }

    /// Runs kubectl against this cluster.
    pub fn kubectl(&self, args: &[&str]) -> Run {
        run("kubectl", args, &[("KUBECONFIG", &self.var())])
    }

    /// Runs kubectl on a terminal, and types `input`.
    pub fn kubectl_in_terminal(&self, args: &[&str], input: &str) -> Run {
        super::run_in_terminal("kubectl", args, &[("KUBECONFIG", &self.var())], input)
    }

    /// What `kubectl get ... -o json` answers.
    pub fn get(&self, args: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], args].concat()).ok();
        serde_json::from_str(&text).expect("JSON")
    }

    /// Names of the nodes' containers.
    pub fn nodes(&self) -> Vec<String> {
        let filter = format!("label=dev.minik.cluster={}", self.name);
        let list = docker(&["ps", "--format", "{{.Names}}", "--filter", &filter]);
        list.lines().map(ToOwned::to_owned).collect()
    }
}
