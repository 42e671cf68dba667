//! Who is a member of an etcd: for whoever runs one.

use std::time::Duration;

use tonic::Code;

use super::client::{CallError, Client};
use super::{Etcd, rpc, unreadable};
use crate::StorageError;

/// A change of members is confirmed by most of them within this, or counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    /// Empty until it has first started.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none until it has first started.
    pub client_urls: Vec<String>,
    /// It follows, and has no vote yet.
    pub learner: bool,
}

impl From<rpc::Member> for Member {
    fn from(member: rpc::Member) -> Self {
        Self {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_ur_ls,
            client_urls: member.client_ur_ls,
            learner: member.is_learner,
        }
    }
}

/// The members of an etcd.
pub struct Members {
    client: Client,
}

impl Members {
    /// Connects when first used. `Unavailable` if an address or the certificates cannot be used.
    pub fn of(etcd: &Etcd) -> Result<Self, StorageError> {
        Ok(Self { client: Client::new(etcd)? })
    }

    /// All members. `Unavailable` unless most of them agree.
    pub async fn list(&self) -> Result<Vec<Member>, StorageError> {
        Ok(all(bounded(self.client.members()).await?))
    }

    /// Lets another one in, as a learner; returns all members with it. `Unavailable` if etcd cannot, or will not now: there is a
    /// learner already, or too few members answer.
    pub async fn add(&self, peer_url: &str) -> Result<Vec<Member>, StorageError> {
        Ok(all(bounded(self.client.add_learner(peer_url)).await?))
    }

    /// Gives a learner its vote. `Unavailable` while it has not caught up.
    pub async fn promote(&self, id: u64) -> Result<(), StorageError> {
        bounded(self.client.promote(id)).await
    }

    /// Puts a member out; one that is out already is no error. `Unavailable` if too few others would be left to agree.
    pub async fn remove(&self, id: u64) -> Result<(), StorageError> {
        bounded(async {
            match self.client.remove_member(id).await {
                Err(CallError::Refused(status)) if status.code() == Code::NotFound => Ok(()),
                done => done,
            }
        })
        .await
    }
}

fn all(members: Vec<rpc::Member>) -> Vec<Member> {
    members.into_iter().map(Member::from).collect()
}

async fn bounded<T>(call: impl Future<Output = Result<T, CallError>>) -> Result<T, StorageError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|error| unreadable(&error)),
        Err(_) => Err(StorageError::unavailable("etcd did not answer in time")),
    }
}
