//! Rules through `iptables-restore`: one run per sync, only the chains that changed.

mod chains;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use futures::future::BoxFuture;

use super::backend::{Applied, Backend};
use super::plan::Plan;
use crate::sys::exec::ExecError;
use crate::sys::iptables::PacketFilter;
use crate::sys::nftables::{Deleted, Transaction};
use chains::{Rules, Table};

/// Chains that come and go with Services: found without a plan for them, they are left over.
const PER_SERVICE: &[&str] = &["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-"];

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

/// What the kernel is known to hold.
#[derive(Debug, Default)]
struct Known {
    /// Chains and a hash of their rules; None where the chain is there with rules nobody knows.
    chains: BTreeMap<(Table, String), Option<u64>>,
    /// The jumps that are in place, as positions in `JUMPS`.
    jumps: BTreeSet<usize>,
}

/// The backend over iptables-restore.
pub struct Iptables {
    filter: PacketFilter,
    known: Option<Known>,
}

impl Iptables {
    /// A backend that has not looked at the kernel yet.
    pub fn new(filter: PacketFilter) -> Self {
        Self { filter, known: None }
    }

    async fn sync(&mut self, rules: &Rules) -> Result<Applied, ExecError> {
        // Unknown until the batch is in: an error leaves it so, and the next sync looks again.
        let known = match self.known.take() {
            Some(known) => known,
            None => self.look().await?,
        };
        let (batch, next) = batch(rules, &known);
        // Each table is a transaction of its own.
        let transactions = batch.lines().filter(|line| *line == "COMMIT").count();
        if transactions > 0 {
            self.filter.restore(batch).await?;
        }
        self.known = Some(next);
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
    fn apply<'a>(&'a mut self, plan: &'a Plan) -> BoxFuture<'a, Result<Applied, ExecError>> {
        let rules = text::write(plan);
        Box::pin(async move { self.sync(&rules).await })
    }

    fn forget(&mut self) {
        self.known = None;
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

fn hash(rules: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    rules.hash(&mut hasher);
    hasher.finish()
}

/// The text that leads from what is known to `rules`, and what is known once it is applied.
fn batch(rules: &Rules, known: &Known) -> (String, Known) {
    let mut text = String::new();
    let mut next = Known { chains: BTreeMap::new(), jumps: (0..JUMPS.len()).collect() };
    for table in Table::ALL {
        let mut chains = String::new();
        let mut body = String::new();
        for (chain, chain_rules) in rules.table(table) {
            let key = (table, chain.clone());
            let sum = Some(hash(chain_rules));
            if known.chains.get(&key) != Some(&sum) {
                let _ = writeln!(chains, ":{chain} - [0:0]");
                for rule in chain_rules {
                    let _ = writeln!(body, "-A {chain} {rule}");
                }
            }
            next.chains.insert(key, sum);
        }
        let missing = (0..JUMPS.len()).filter(|at| !known.jumps.contains(at) && JUMPS[*at].table == table);
        for jump in missing.rev().map(|at| &JUMPS[at]) {
            let matching = if jump.matching.is_empty() { "" } else { " " };
            let _ = writeln!(body, "-I {}{matching}{} -j {}", jump.from, jump.matching, jump.to);
        }
        for (key, chain) in known.chains.keys().filter(|k| k.0 == table).map(|k| (k, &k.1)) {
            if next.chains.contains_key(key) {
                continue;
            }
            if PER_SERVICE.iter().any(|prefix| chain.starts_with(prefix)) {
                // Emptied first: a chain can only be deleted when nothing leads to it, leftovers among themselves included.
                let _ = writeln!(chains, ":{chain} - [0:0]");
                let _ = writeln!(body, "-X {chain}");
            } else {
                // Somebody else's (the kubelet's canary, say): not ours to delete.
                next.chains.insert(key.clone(), None);
            }
        }
        if !chains.is_empty() || !body.is_empty() {
            let _ = write!(text, "*{}\n{chains}{body}COMMIT\n", table.name());
        }
    }
    (text, next)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sys::exec::{Output, Recorder};

    fn rules(nat: &[(&str, &[&str])]) -> Rules {
        let mut rules = Rules::default();
        for (chain, lines) in nat {
            rules.chain(Table::Nat, chain);
            for line in *lines {
                rules.push(Table::Nat, chain, (*line).to_owned());
            }
        }
        rules
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

    #[tokio::test]
    async fn a_sync_writes_only_what_changed() {
        let (recorder, mut backend) = open();
        let first = rules(&[("KUBE-SERVICES", &["-j KUBE-SVC-A"]), ("KUBE-SVC-A", &["-j KUBE-SEP-A"])]);
        backend.sync(&first).await.expect("first");
        assert_eq!(batches(&recorder).len(), 1);

        backend.sync(&first).await.expect("nothing new");
        assert_eq!(batches(&recorder), Vec::<String>::new());

        let second = rules(&[("KUBE-SERVICES", &["-j KUBE-SVC-A"]), ("KUBE-SVC-A", &["-j KUBE-SEP-B"])]);
        backend.sync(&second).await.expect("one chain");
        let expect = "*nat\n:KUBE-SVC-A - [0:0]\n-A KUBE-SVC-A -j KUBE-SEP-B\nCOMMIT\n";
        assert_eq!(batches(&recorder), [expect]);

        backend.sync(&rules(&[("KUBE-SERVICES", &[])])).await.expect("the service goes");
        let expect = "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n-X KUBE-SVC-A\nCOMMIT\n";
        assert_eq!(batches(&recorder), [expect]);
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
        backend.sync(&rules(&[("KUBE-SERVICES", &[])])).await.expect("applied");
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
        let wanted = rules(&[("KUBE-SERVICES", &[])]);
        backend.sync(&wanted).await.expect("applied");
        let full = batches(&recorder);
        let refused = ExecError::Failed {
            line: "iptables-restore".into(),
            status: "exit status: 1".into(),
            stderr: "refused".into(),
        };
        recorder.answer(Err(refused));
        backend.sync(&rules(&[("KUBE-SERVICES", &["-j X"])])).await.expect_err("refused");
        recorder.take();
        backend.sync(&wanted).await.expect("applied");
        assert_eq!(batches(&recorder), full);
    }
}
