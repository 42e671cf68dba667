//! Rules through `iptables-restore`: one run per sync, only the chains that changed.

mod chains;
mod text;
mod written;

use futures::future::BoxFuture;

use super::backend::{Applied, Backend};
use super::plan::Plan;
use crate::network::Changed;
use chains::Table;
use sys::exec::ExecError;
use sys::iptables::PacketFilter;
use sys::nftables::{Deleted, Transaction};
use written::{Known, Written};

/// The program that writes, as the kernel tells it.
const TOOL: &str = "iptables-restor";

/// A rule in one of the kernel's own chains that leads to ours.
struct Jump {
    table: Table,
    from: &'static str,
    matching: &'static str,
    to: &'static str,
}

const fn jump(table: Table, from: &'static str, matching: &'static str, to: &'static str) -> Jump {
    Jump { table, from, matching, to }
}

const NEW_PORTALS: &str = r#"-m conntrack --ctstate NEW -m comment --comment "kubernetes service portals""#;
const PORTALS: &str = r#"-m comment --comment "kubernetes service portals""#;
const VISIBLE: &str =
    r#"-m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals""#;
const LOAD_BALANCERS: &str =
    r#"-m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall""#;

/// In the order in which they must stand; they are put before what others have put there.
const JUMPS: &[Jump] = &[
    jump(Table::Filter, "INPUT", LOAD_BALANCERS, "KUBE-PROXY-FIREWALL"),
    jump(
        Table::Filter,
        "INPUT",
        r#"-m comment --comment "kubernetes health check service ports""#,
        "KUBE-NODEPORTS",
    ),
    jump(Table::Filter, "INPUT", VISIBLE, "KUBE-EXTERNAL-SERVICES"),
    jump(Table::Filter, "INPUT", "", "KUBE-FIREWALL"),
    jump(Table::Filter, "FORWARD", LOAD_BALANCERS, "KUBE-PROXY-FIREWALL"),
    jump(Table::Filter, "FORWARD", r#"-m comment --comment "kubernetes forwarding rules""#, "KUBE-FORWARD"),
    jump(Table::Filter, "FORWARD", NEW_PORTALS, "KUBE-SERVICES"),
    jump(Table::Filter, "FORWARD", VISIBLE, "KUBE-EXTERNAL-SERVICES"),
    jump(Table::Filter, "OUTPUT", LOAD_BALANCERS, "KUBE-PROXY-FIREWALL"),
    jump(Table::Filter, "OUTPUT", NEW_PORTALS, "KUBE-SERVICES"),
    jump(Table::Filter, "OUTPUT", VISIBLE, "KUBE-EXTERNAL-SERVICES"),
    jump(Table::Filter, "OUTPUT", "", "KUBE-FIREWALL"),
    jump(Table::Nat, "PREROUTING", PORTALS, "KUBE-SERVICES"),
    jump(Table::Nat, "OUTPUT", PORTALS, "KUBE-SERVICES"),
    jump(
        Table::Nat,
        "POSTROUTING",
        r#"-m comment --comment "kubernetes postrouting rules""#,
        "KUBE-POSTROUTING",
    ),
    jump(
        Table::Nat,
        "POSTROUTING",
        r#"-m comment --comment "pods to the world beyond the cluster""#,
        "MINIK-MASQ",
    ),
];

/// The backend over iptables-restore.
pub struct Iptables {
    filter: PacketFilter,
    /// Taken while a batch is on its way: after an error the kernel is looked at again.
    written: Option<Written>,
}

impl Iptables {
    /// A backend that has not looked at the kernel yet.
    pub fn new(filter: PacketFilter) -> Self {
        Self { filter, written: None }
    }

    async fn sync(&mut self, plan: &Plan, changed: &Changed) -> Result<Applied, ExecError> {
        let mut written = match self.written.take() {
            Some(written) => written,
            None => Written::over(self.look().await?),
        };
        let batch = written.batch(plan, changed);
        // Each table is a transaction of its own.
        let transactions = batch.lines().filter(|line| *line == "COMMIT").count();
        if transactions > 0 {
            self.filter.restore(batch).await?;
        }
        self.written = Some(written);
        Ok(Applied { by: TOOL, transactions })
    }

    /// Adopts what an earlier process, or another proxy of these names, left behind.
    async fn look(&self) -> Result<Known, ExecError> {
        let mut known = Known::default();
        for table in Table::ALL {
            let saved = self.filter.save(table.name()).await?;
            for line in saved.lines() {
                if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next())
                    && (chain.starts_with("KUBE-") || chain.starts_with("MINIK-"))
                {
                    known.chains.insert((table, chain.to_owned()), None);
                }
                let found = JUMPS.iter().position(|j| j.table == table && is_jump(line, j));
                known.jumps.extend(found);
            }
        }
        Ok(known)
    }
}

impl Backend for Iptables {
    fn apply<'a>(
        &'a mut self,
        plan: &'a Plan,
        changed: &'a Changed,
    ) -> BoxFuture<'a, Result<Applied, ExecError>> {
        Box::pin(self.sync(plan, changed))
    }

    fn forget(&mut self) {
        self.written = None;
    }

    fn concerns(&self, transaction: &Transaction) -> bool {
        transaction.deleted.iter().any(is_ours)
    }
}

/// Something of ours, or a jump to it, may have gone. What others (the port mapping plugin, say) delete in chains of their
/// own is no concern.
fn is_ours(deleted: &Deleted) -> bool {
    let table = i32::from(deleted.family) == nix::libc::AF_INET
        && Table::ALL.iter().any(|table| table.name() == deleted.table);
    let chain = deleted.chain.as_deref();
    table
        && chain.is_none_or(|chain| {
            chain.starts_with("KUBE-")
                || chain.starts_with("MINIK-")
                || JUMPS.iter().any(|jump| jump.from == chain)
        })
}

/// Matches by chain and target: iptables-save reorders and respells the rest.
fn is_jump(line: &str, jump: &Jump) -> bool {
    line.strip_prefix("-A ")
        .and_then(|rest| rest.strip_prefix(jump.from))
        .is_some_and(|rest| rest.starts_with(' ') && rest.ends_with(&format!("-j {}", jump.to)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::json;

    use super::*;
    use crate::network::{self, ServiceKey, View};
    use crate::proxy::plan::{Settings, plan};
    use sys::exec::{Output, Recorder};

    const WEB: &str = "10.43.0.20";

    /// A plan with one Service at `WEB`, with these endpoints; without any Service for None.
    fn planned(endpoints: Option<&[&str]>) -> Plan {
        let mut view = View::default();
        if let Some(endpoints) = endpoints {
            let of = |value| serde_json::from_value::<Service>(value).expect("a Service");
            view.put_service(network::Service::from_api(&of(
                json!({ "metadata": { "namespace": "shop", "name": "web" },
                "spec": { "clusterIP": WEB, "ports": [{ "port": 80 }] } }),
            )));
            let all: Vec<_> = endpoints.iter().map(|ip| json!({ "addresses": [ip] })).collect();
            let slice = json!({ "addressType": "IPv4", "endpoints": all, "ports": [{ "port": 80 }], "metadata": {
                "namespace": "shop", "name": "web", "labels": { "kubernetes.io/service-name": "web" } } });
            let slice: EndpointSlice = serde_json::from_value(slice).expect("a slice");
            view.put_slice(network::Slice::from_api(&slice).expect("of a Service"));
        }
        let settings = Settings {
            node: "here".into(),
            node_ip: [172, 18, 0, 3].into(),
            pod_cidr: "10.42.0.0/16".parse().expect("a network"),
            service_cidr: None,
            answered_here: [].into(),
        };
        plan(&view, &settings)
    }

    fn open() -> (Recorder, Iptables) {
        let recorder = Recorder::default();
        (recorder.clone(), Iptables::new(PacketFilter::new(Arc::new(recorder))))
    }

    fn batches(recorder: &Recorder) -> Vec<String> {
        let batches = recorder.take().into_iter().filter_map(|invocation| invocation.stdin);
        batches.map(|bytes| String::from_utf8(bytes).expect("text")).collect()
    }

    fn saved(text: &str) -> Result<Output, ExecError> {
        Ok(Output { stdout: text.into(), stderr: Vec::new() })
    }

    async fn sync(backend: &mut Iptables, endpoints: Option<&[&str]>) {
        backend.sync(&planned(endpoints), &Changed::Everything).await.expect("applied");
    }

    #[tokio::test]
    async fn a_sync_writes_only_what_changed() {
        let (recorder, mut backend) = open();
        sync(&mut backend, Some(&["10.42.0.1"])).await;
        assert_eq!(batches(&recorder).len(), 1);
        sync(&mut backend, Some(&["10.42.0.1"])).await;
        assert_eq!(batches(&recorder), Vec::<String>::new());

        sync(&mut backend, Some(&["10.42.0.2"])).await;
        let batch = batches(&recorder).concat();
        let mut chains: Vec<&str> =
            batch.lines().filter_map(|line| line.strip_prefix(':')?.split('-').nth(1)).collect();
        chains.sort_unstable();
        assert_eq!(chains, ["SEP", "SEP", "SVC"], "the Service's own, what comes and what goes: {batch}");
        assert_eq!(batch.lines().filter(|line| line.starts_with("-X KUBE-SEP-")).count(), 1, "{batch}");

        sync(&mut backend, None).await;
        let batch = batches(&recorder).concat();
        assert!(batch.contains(":KUBE-SERVICES ") && batch.contains("-X KUBE-SVC-"), "{batch}");
        assert!(!batch.contains(WEB), "{batch}");
        assert!(!batch.contains("KUBE-POSTROUTING"), "what did not change stays: {batch}");
    }

    #[tokio::test]
    async fn what_is_said_to_have_changed_is_all_that_is_looked_at() {
        let (recorder, mut backend) = open();
        sync(&mut backend, Some(&["10.42.0.1"])).await;
        batches(&recorder);
        let next = planned(Some(&["10.42.0.1", "10.42.0.2"]));
        let other = Changed::Of([ServiceKey::new("shop", "other")].into());
        backend.sync(&next, &other).await.expect("applied");
        assert_eq!(batches(&recorder), Vec::<String>::new());
        let web = Changed::Of([ServiceKey::new("shop", "web")].into());
        backend.sync(&next, &web).await.expect("applied");
        assert!(batches(&recorder).concat().contains("10.42.0.2"));
    }

    #[tokio::test]
    async fn leftovers_go_and_foreign_chains_stay() {
        let (recorder, mut backend) = open();
        recorder.answer(saved(""));
        recorder.answer(saved(
            "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SVC-OLD - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n\
             :CNI-HOSTPORT-DNAT - [0:0]\n-A PREROUTING -m comment --comment \"kubernetes service portals\" -j \
             KUBE-SERVICES\nCOMMIT\n",
        ));
        sync(&mut backend, None).await;
        let batch = batches(&recorder).concat();
        assert!(batch.contains(":KUBE-SVC-OLD - [0:0]\n") && batch.contains("-X KUBE-SVC-OLD\n"), "{batch}");
        assert!(!batch.contains("CANARY") && !batch.contains("CNI-"), "{batch}");
        assert!(!batch.contains("-I PREROUTING"), "the jump is there already: {batch}");
        assert!(
            batch.contains("-I OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES")
        );
    }

    #[tokio::test]
    async fn a_failed_sync_is_followed_by_a_full_one() {
        let (recorder, mut backend) = open();
        sync(&mut backend, None).await;
        let full = batches(&recorder);
        let refused = ExecError::Failed {
            line: "iptables-restore".into(),
            status: "exit status: 1".into(),
            stderr: "refused".into(),
        };
        recorder.answer(Err(refused));
        let web = planned(Some(&["10.42.0.1"]));
        backend.sync(&web, &Changed::Everything).await.expect_err("refused");
        recorder.take();
        // Nothing is said to have changed, and all is written.
        backend.sync(&planned(None), &Changed::nothing()).await.expect("applied");
        assert_eq!(batches(&recorder), full);
    }
}
