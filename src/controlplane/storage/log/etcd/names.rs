//! Names that only one entry may hold: an address, a port. Each is a key of its own beside the entries, which comes and goes in
//! the very transaction that writes the entry: so no two servers can give out one name, and none is left over.
//!
//! A turn is such a key, too: who takes it writes the key, and whoever asked for it before and comes later finds it written.

use std::time::Duration;

use bytes::Bytes;

use super::rpc;
use super::{Shared, Write, unreadable};
use crate::{StorageError, Turn};

/// Where names are, behind the prefix; upstream keeps its own record of addresses and ports there.
pub(super) const FOLDER: &str = "/ranges/";

/// Where turns are, behind that.
const TURNS: &str = "turns/";
/// What is known of a turn goes after so long without a write: much later than a write that asked for it can still come.
const TURN: Duration = Duration::from_secs(60);

/// What a write changes of the names that an entry holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub takes: Vec<String>,
    pub gives: Vec<String>,
}

impl Change {
    fn between(before: Vec<String>, after: Vec<String>) -> Self {
        let but = |from: &[String], these: &[String]| -> Vec<String> {
            from.iter().filter(|name| !these.contains(name)).cloned().collect()
        };
        Self { takes: but(&after, &before), gives: but(&before, &after) }
    }
}

pub(super) fn equal(key: Bytes, expected: rpc::compare::TargetUnion) -> rpc::Compare {
    use rpc::compare::{CompareTarget, TargetUnion};
    let target = match expected {
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        _ => CompareTarget::Mod,
    };
    rpc::Compare {
        result: rpc::compare::CompareResult::Equal.into(),
        target: target.into(),
        key,
        target_union: Some(expected),
    }
}

pub(super) fn step(request: rpc::request_op::Request) -> rpc::RequestOp {
    rpc::RequestOp { request: Some(request) }
}

fn delete(key: Bytes) -> rpc::RequestOp {
    step(rpc::request_op::Request::RequestDeleteRange(rpc::DeleteRangeRequest { key, prev_kv: false }))
}

impl Shared {
    /// Whether a key of etcd is that of a name.
    pub(super) fn is_name(&self, path: &[u8]) -> bool {
        path.strip_prefix(self.prefix.as_bytes()).is_some_and(|rest| rest.starts_with(FOLDER.as_bytes()))
    }

    fn name_path(&self, name: &str) -> Bytes {
        format!("{}{FOLDER}{name}", self.prefix).into_bytes().into()
    }

    /// What a write changes of the names that its entry holds.
    pub(super) fn names(&self, key: &str, write: &Write) -> Change {
        let of = |data: &[u8]| (self.holds)(key, data);
        let standing = |expected: u64| {
            let known = self.cache.read().get(key).cloned();
            // At another revision the write is refused anyway.
            known.filter(|entry| entry.revision == expected).map_or_else(Vec::new, |entry| of(&entry.data))
        };
        match write {
            Write::Create(payload) => Change::between(Vec::new(), of(&payload.data)),
            Write::UpdateIf(expected, payload) => Change::between(standing(*expected), of(&payload.data)),
            Write::DeleteIf(expected) => Change::between(standing(*expected), Vec::new()),
        }
    }

    /// Makes a transaction take and give the names, too; `path` is the entry's. If one is held by somebody else, the answer
    /// says by whom, behind what stands at the entry's own key.
    pub(super) fn add_names(&self, request: &mut rpc::TxnRequest, change: &Change, path: &Bytes) {
        use rpc::compare::TargetUnion;
        use rpc::request_op::Request;
        for key in change.takes.iter().map(|name| self.name_path(name)) {
            request.compare.push(equal(key.clone(), TargetUnion::CreateRevision(0)));
            let put = rpc::PutRequest { key: key.clone(), value: path.clone(), ..Default::default() };
            request.success.push(step(Request::RequestPut(put)));
            let look = rpc::RangeRequest { key, ..Default::default() };
            request.failure.push(step(Request::RequestRange(look)));
        }
        request.success.extend(change.gives.iter().map(|name| delete(self.name_path(name))));
    }

    /// The next turn of a name, as etcd knows it now.
    pub(super) async fn turn(&self, name: &str) -> Result<Turn, StorageError> {
        let key = self.name_path(&format!("{TURNS}{name}"));
        let request = rpc::RangeRequest { key, ..Default::default() };
        let answer = self.client.ask(request).await.map_err(|error| unreadable(&error))?;
        let last = answer.kvs.first().map_or(0, |kv| kv.mod_revision as u64);
        Ok(Turn { name: name.into(), last })
    }

    /// Makes a transaction take a turn, too; `path` is the entry's.
    pub(super) async fn add_turn(
        &self,
        request: &mut rpc::TxnRequest,
        turn: &Turn,
        path: &Bytes,
    ) -> Result<(), StorageError> {
        use rpc::compare::TargetUnion;
        let key = self.name_path(&format!("{TURNS}{}", turn.name));
        let lease = self.expiries.lease(&self.client, TURN).await.map_err(|error| unreadable(&error))?;
        request.compare.push(equal(key.clone(), TargetUnion::ModRevision(turn.last as i64)));
        let put = rpc::PutRequest { key, value: path.clone(), lease, ..Default::default() };
        request.success.push(step(rpc::request_op::Request::RequestPut(put)));
        Ok(())
    }

    /// Which name was held by somebody else, of a write that was refused; `None`: none of them. A name whose holder is gone, by the
    /// hand of somebody who writes to etcd directly, is free from then on.
    pub(super) async fn taken(
        &self,
        change: Change,
        answers: impl Iterator<Item = rpc::ResponseOp>,
    ) -> Option<String> {
        use rpc::compare::TargetUnion;
        let mut taken = None;
        for (name, answer) in change.takes.into_iter().zip(answers) {
            let Some(rpc::response_op::Response::ResponseRange(range)) = answer.response else { continue };
            let Some(held) = range.kvs.into_iter().next() else { continue };
            let free = rpc::TxnRequest {
                compare: vec![
                    equal(held.key.clone(), TargetUnion::ModRevision(held.mod_revision)),
                    equal(held.value, TargetUnion::CreateRevision(0)),
                ],
                success: vec![delete(held.key)],
                failure: Vec::new(),
            };
            if let Err(error) = self.client.txn(free).await {
                tracing::debug!(?error, name, "whether its holder is gone is not known");
            }
            taken = Some(name);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_taken_and_given() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let change = Change::between(names(&["a", "b"]), names(&["b", "c"]));
        assert_eq!(change, Change { takes: names(&["c"]), gives: names(&["a"]) });
        assert_eq!(Change::between(names(&["a"]), names(&["a"])), Change::default());
    }
}
