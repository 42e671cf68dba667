//! Pods' network as the runtime asks for it: this very program, called under a network plugin's name.
//!
//! ```text
//! ADD: address (leases) -> pair of interfaces -> address and routes on both ends -> host ports (portmap) -> answer
//! DEL: host ports -> pair -> address
//! ```
//!
//! One short process does what the reference plugins ptp and host-local do in two, and speaks with the kernel itself.
//! portmap is called where a Pod has host ports, and only there. The protocol is the Container Network Interface's, up to 1.0.

use std::env;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use serde_json::{Value, json};

use super::leases::{LeaseError, Leases, Owner, gateway};
use rt::Tasks;
use sys::exec::{Exec, ExecError, Invocation, System};
use sys::netlink::{self, Link, Netlink};
use sys::netns::Namespace;
use sys::veth::Pair;

/// The name of Pods' network plugin.
pub const NAME: &str = "minik";
/// The plugin that the runtime calls for every Pod, whatever its network is.
pub const LOOPBACK: &str = "loopback";
const PORTMAP: &str = "portmap";
const VERSIONS: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0"];

/// Why a Pod gets no network, or keeps it. Numbers are the protocol's, and above 99 our own.
#[derive(Debug, thiserror::Error)]
enum PluginError {
    #[error("version {0:?} of the network interface is not spoken here")]
    Version(String),
    #[error("the environment variable {0} is missing or wrong")]
    Environment(&'static str),
    #[error("reading the configuration: {0}")]
    Read(#[from] io::Error),
    #[error("the configuration is malformed: {0}")]
    Decode(#[from] serde_json::Error),
    #[error("Pods' network {0} is not one of IPv4, which is all that is served")]
    Family(IpNet),
    #[error("the configuration names no network for Pods")]
    NoNetwork,
    #[error("the network namespace {path}: {source}")]
    Namespace { path: String, source: io::Error },
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error("host ports: {0}")]
    Ports(#[from] ExecError),
    #[error("{0} is not there")]
    Missing(&'static str),
}

impl PluginError {
    fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Environment(_) => 4,
            Self::Read(_) => 5,
            Self::Decode(_) => 6,
            Self::Family(_) | Self::NoNetwork => 7,
            // Another Pod's end may free one.
            Self::Lease(LeaseError::Exhausted(_)) => 11,
            _ => 100,
        }
    }
}

/// What the runtime says on standard input.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conf {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    data_dir: PathBuf,
    /// One for each address family.
    #[serde(default)]
    subnets: Vec<IpNet>,
    #[serde(default)]
    runtime_config: RuntimeConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    #[serde(default)]
    port_mappings: Vec<Value>,
}

/// What the runtime says in the environment.
struct Call {
    command: String,
    container: String,
    interface: String,
    namespace: String,
    plugins: Vec<PathBuf>,
}

/// The exit code, where this program was called as a network plugin; nothing has happened otherwise.
pub fn called() -> Option<ExitCode> {
    let command = env::var("CNI_COMMAND").ok()?;
    let program = PathBuf::from(env::args_os().next()?);
    let plugins: Vec<PathBuf> = env::split_paths(&env::var_os("CNI_PATH").unwrap_or_default()).collect();
    let dir = program.parent()?;
    if command != "VERSION" && !plugins.iter().any(|path| path == dir) {
        return None;
    }
    let var = |name| env::var(name).unwrap_or_default();
    let call = Call {
        command,
        container: var("CNI_CONTAINERID"),
        interface: var("CNI_IFNAME"),
        namespace: var("CNI_NETNS"),
        plugins,
    };
    let loopback = program.file_name()? == LOOPBACK;
    Some(match answer(&call, loopback) {
        Ok(answer) => {
            if !answer.is_null() {
                println!("{answer}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", json!({"cniVersion": "1.0.0", "code": error.code(), "msg": error.to_string()}));
            ExitCode::FAILURE
        }
    })
}

fn answer(call: &Call, loopback: bool) -> Result<Value, PluginError> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    if call.command == "VERSION" {
        return Ok(json!({"cniVersion": "1.0.0", "supportedVersions": VERSIONS}));
    }
    let conf: Conf = serde_json::from_slice(&text)?;
    if !VERSIONS.contains(&conf.cni_version.as_str()) {
        return Err(PluginError::Version(conf.cni_version));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match (call.command.as_str(), loopback) {
            ("ADD", true) => add_loopback(call, &conf).await,
            ("DEL" | "CHECK", true) => Ok(Value::Null),
            ("ADD", false) => add(call, &conf).await,
            ("DEL", false) => remove(call, &conf).await.map(|()| Value::Null),
            ("CHECK", false) => check(call, &conf).await.map(|()| Value::Null),
            _ => Err(PluginError::Environment("CNI_COMMAND")),
        }
    })
}

async fn add_loopback(call: &Call, conf: &Conf) -> Result<Value, PluginError> {
    const INDEX: u32 = 1; // in every namespace
    inside(&call.open()?, &call.namespace)?.set_up(INDEX).await?;
    let interface = json!({"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": call.namespace});
    Ok(conf.result(vec![interface], "127.0.0.1/8", None, 0))
}

async fn add(call: &Call, conf: &Conf) -> Result<Value, PluginError> {
    let owner = call.owner()?;
    let network = conf.network()?;
    let namespace = call.open()?;
    let leases = conf.leases();
    let address = leases.take(network, owner)?;
    let result = match connect(call, conf, &namespace, network, address).await {
        Ok(result) => map_ports(call, conf, Some(&result)).await.map(|mapped| mapped.unwrap_or(result)),
        Err(error) => Err(error),
    };
    if result.is_err() {
        // What there is of it goes; that this failed first is what counts.
        let _ = disconnect(call).await;
        let _ = leases.release(owner);
    }
    result
}

/// Makes the pair and what leads to both of its ends.
async fn connect(
    call: &Call,
    conf: &Conf,
    namespace: &Namespace,
    network: Ipv4Net,
    address: Ipv4Addr,
) -> Result<Value, PluginError> {
    let name = call.host_interface();
    let netlink = Netlink::open(&Tasks::new())?;
    let there = inside(namespace, &call.namespace)?;
    netlink.add_pair(Pair { here: &name, there: &call.interface, mtu: conf.mtu }, namespace).await?;
    let pod = there.link(&call.interface).await?;
    let host = netlink.link(&name).await?;

    let gateway = gateway(network);
    there.add_address_alone(&pod, with_length(address, network.prefix_len())).await?;
    there.set_up(pod.index).await?;
    // Neighbours are reached through the node as well: nothing but the gateway is at the other end.
    there.add_route_at(Ipv4Net::from(gateway), &pod).await?;
    there.add_route_via(network, gateway).await?;
    there.add_route_via(Ipv4Net::default(), gateway).await?;

    netlink.add_address(&host, gateway).await?;
    netlink.add_route_at(Ipv4Net::from(address), &host).await?;
    let interfaces = vec![
        json!({"name": name, "mac": mac(&host)}),
        json!({"name": call.interface, "mac": mac(&pod), "sandbox": call.namespace}),
    ];
    Ok(conf.result(interfaces, &with_length(address, network.prefix_len()).to_string(), Some(gateway), 1))
}

async fn remove(call: &Call, conf: &Conf) -> Result<(), PluginError> {
    let owner = call.owner()?;
    // Each is tried, whatever becomes of the one before: what is left over is in a later Pod's way.
    let ports = map_ports(call, conf, None).await.map(drop);
    let links = disconnect(call).await;
    let lease = conf.leases().release(owner).map_err(PluginError::from);
    ports.and(links).and(lease)
}

async fn disconnect(call: &Call) -> Result<(), PluginError> {
    Ok(Netlink::open(&Tasks::new())?.remove_link(&call.host_interface()).await?)
}

async fn check(call: &Call, conf: &Conf) -> Result<(), PluginError> {
    if !conf.leases().has(call.owner()?)? {
        return Err(PluginError::Missing("the container's address"));
    }
    Netlink::open(&Tasks::new())?.link(&call.host_interface()).await?;
    inside(&call.open()?, &call.namespace)?.link(&call.interface).await?;
    Ok(())
}

/// Lets the reference plugin map host ports, where there are any. Returns the result it passes on.
async fn map_ports(call: &Call, conf: &Conf, result: Option<&Value>) -> Result<Option<Value>, PluginError> {
    if conf.runtime_config.port_mappings.is_empty() {
        return Ok(None);
    }
    let program = call.plugins.iter().map(|dir| dir.join(PORTMAP)).find(|path| path.exists());
    let program = program.ok_or(PluginError::Missing("the network plugin portmap"))?;
    let mut input = json!({
        "cniVersion": conf.cni_version,
        "name": conf.name,
        "type": PORTMAP,
        "runtimeConfig": {"portMappings": conf.runtime_config.port_mappings},
    });
    if let Some(result) = result {
        input["prevResult"] = result.clone();
    }
    let invocation = Invocation::new(&program.display().to_string(), []).with_stdin(input.to_string());
    let output = System.run(invocation).await?;
    Ok(serde_json::from_slice(&output.stdout).ok())
}

/// A connection to the kernel in a Pod's namespace.
fn inside(namespace: &Namespace, path: &str) -> Result<Netlink, PluginError> {
    let opened = namespace.enter(|| Netlink::open(&Tasks::new()));
    opened.map_err(|source| PluginError::Namespace { path: path.to_owned(), source })?.map_err(Into::into)
}

fn with_length(address: Ipv4Addr, length: u8) -> Ipv4Net {
    Ipv4Net::new(address, length).unwrap_or_else(|_| Ipv4Net::from(address))
}

fn mac(link: &Link) -> String {
    link.mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Call {
    fn owner(&self) -> Result<Owner<'_>, PluginError> {
        for (value, name) in [(&self.container, "CNI_CONTAINERID"), (&self.interface, "CNI_IFNAME")] {
            if value.is_empty() {
                return Err(PluginError::Environment(name));
            }
        }
        Ok(Owner { container: &self.container, interface: &self.interface, namespace: &self.namespace })
    }

    fn open(&self) -> Result<Namespace, PluginError> {
        Namespace::open(Path::new(&self.namespace))
            .map_err(|source| PluginError::Namespace { path: self.namespace.clone(), source })
    }

    /// The same at every call for this Pod: its end needs nothing that was written down.
    fn host_interface(&self) -> String {
        let whose = format!("{}/{}", self.container, self.interface);
        let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, whose.as_bytes()));
        // As long as the kernel lets names be.
        format!("veth{}", hash.get(..11).unwrap_or_default())
    }
}

impl Conf {
    fn leases(&self) -> Leases {
        Leases::at(self.data_dir.join(&self.name))
    }

    /// The network that Pods' addresses come from.
    fn network(&self) -> Result<Ipv4Net, PluginError> {
        match self.subnets.as_slice() {
            [IpNet::V4(network)] => Ok(*network),
            [] => Err(PluginError::NoNetwork),
            [first, rest @ ..] => Err(PluginError::Family(*rest.first().unwrap_or(first))),
        }
    }

    fn result(
        &self,
        interfaces: Vec<Value>,
        address: &str,
        gateway: Option<Ipv4Addr>,
        index: usize,
    ) -> Value {
        let mut ip = json!({"address": address, "interface": index});
        if let Some(gateway) = gateway {
            ip["gateway"] = json!(gateway);
        }
        if self.cni_version.starts_with("0.") {
            ip["version"] = json!("4");
        }
        let routes = gateway.map(|_| json!([{"dst": "0.0.0.0/0"}])).unwrap_or(json!([]));
        json!({"cniVersion": self.cni_version, "interfaces": interfaces, "ips": [ip], "routes": routes, "dns": {}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(value: Value) -> Conf {
        serde_json::from_value(value).expect("a configuration")
    }

    fn call(container: &str) -> Call {
        Call {
            command: "ADD".to_owned(),
            container: container.to_owned(),
            interface: "eth0".to_owned(),
            namespace: String::new(),
            plugins: Vec::new(),
        }
    }

    #[test]
    fn one_network_of_ipv4() {
        let check = |subnets: Value, expect: Result<&str, u32>| {
            let network = conf(json!({"subnets": subnets})).network();
            let seen = network.map(|network| network.to_string()).map_err(|error| error.code());
            assert_eq!(seen, expect.map(str::to_owned));
        };
        check(json!(["10.42.1.0/24"]), Ok("10.42.1.0/24"));
        check(json!([]), Err(7));
        check(json!(["fd00::/64"]), Err(7));
        check(json!(["10.42.1.0/24", "fd00::/64"]), Err(7));
    }

    #[test]
    fn results_are_of_the_version_asked_for() {
        let gateway = Some(Ipv4Addr::new(10, 42, 1, 1));
        let old = conf(json!({"cniVersion": "0.3.1"})).result(vec![], "10.42.1.2/24", gateway, 1);
        assert_eq!(
            old["ips"][0],
            json!({"version": "4", "address": "10.42.1.2/24", "gateway": "10.42.1.1", "interface": 1})
        );
        let new = conf(json!({"cniVersion": "1.0.0"})).result(vec![], "10.42.1.2/24", gateway, 1);
        assert_eq!(new["ips"][0]["version"], Value::Null);
        assert_eq!(new["routes"], json!([{"dst": "0.0.0.0/0"}]));
    }

    #[test]
    fn a_pod_s_interface_is_known_by_its_container() {
        let name = call("abc").host_interface();
        assert_eq!(name, call("abc").host_interface());
        assert_ne!(name, call("abd").host_interface());
        assert_eq!(name.len(), 15, "{name}");
        assert!(matches!(call("").owner(), Err(PluginError::Environment("CNI_CONTAINERID"))));
    }
}
