//! Where a server keeps the cluster's state, and how it comes there: what the server has kept itself before the servers had an
//! etcd, or what is put there to be restored.
//!
//! ```text
//! restore.redb (how: restore.json) --> etcd's data goes, store.redb is that file
//! no etcd:  store.redb is the state
//! etcd:     store.redb, if there is one, --written into etcd--> store.redb.moved, for the way back
//! ```

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::etcd;
use config::backup::{self, Restore};
use config::{Datastore, NodeConfig};
use pki::{Identity, files};
use rt::Tasks;
use storage::{Engine, Etcd};

/// The server's own store, in the state folder of the node.
pub(super) const STORE: &str = "store.redb";
/// What it was when it was written into etcd. A server that is to keep the state itself again goes on with it.
const MOVED: &str = "store.redb.moved";

/// Returns where the state is kept: in the server's own file, in the etcd that the servers run, or in one that somebody named.
pub(super) async fn engine(config: &NodeConfig, tasks: &Tasks) -> anyhow::Result<Engine> {
    if let Some(datastore) = config.settings.datastore.clone() {
        return Ok(Engine::Etcd(named(datastore)));
    }
    let state = Path::new(NodeConfig::STATE_DIR);
    restore(state, Path::new(backup::STORE), Path::new(backup::RESTORE))?;
    let (store, moved) = (state.join(STORE), state.join(MOVED));
    if !config.settings.etcd {
        // Of a change that was taken back: what it holds is not what this server goes on with.
        etcd::forget(state)?;
        if moved.exists() && !store.exists() {
            fs::rename(&moved, &store)?;
        }
        return Ok(Engine::Embedded(store));
    }
    let etcd = etcd::run(config, tasks).await.context("starting etcd")?;
    if store.exists() {
        let engine = Engine::Etcd(etcd.clone());
        let target = storage::open(storage::Config { engine, ..storage::Config::default() }).await?;
        let saved =
            storage::load(store.clone(), target.as_ref()).await.context("writing the state into etcd")?;
        fs::rename(&store, &moved)?;
        tracing::info!(entries = saved.entries, revision = saved.revision, "the state is in etcd");
    }
    Ok(Engine::Etcd(etcd))
}

/// Puts what is to be restored in the place of the state, if there is such a thing. An interrupted call is made up for by the
/// next one.
fn restore(state: &Path, file: &Path, how_file: &Path) -> anyhow::Result<()> {
    let Ok(size) = fs::metadata(file).map(|about| about.len()) else { return Ok(()) };
    let how = files::read_if_there(how_file)?.unwrap_or_default();
    let how: Restore = serde_json::from_str(&how).context("reading how to restore")?;
    etcd::forget(state)?;
    match size {
        // Another server has it, and lets this one join.
        0 => fs::remove_file(file)?,
        _ => {
            let forget = |key: &str| how.other_cluster && apiserver::is_of_one_cluster(key);
            storage::put_in_place(file, &state.join(STORE), how.after, forget).context("restoring")?;
        }
    }
    fs::remove_file(how_file)?;
    tracing::info!(?how, "the state is what was put there to be restored");
    Ok(())
}

/// The etcd that somebody named.
fn named(datastore: Datastore) -> Etcd {
    let pair = datastore.certificate_pem.zip(datastore.key_pem);
    Etcd {
        endpoints: datastore.endpoints,
        authority_pem: datastore.authority_pem,
        identity: pair.map(|(certificate_pem, key_pem)| Identity { certificate_pem, key_pem }),
        prefix: etcd::PREFIX.to_owned(),
        spelling: apiserver::upstream_path,
        holds: apiserver::held_names,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_there_takes_the_place_of_what_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let state = folder.path();
        let restored = || restore(state, &at("restore.redb"), &at("how"));
        restored().expect("nothing to do");

        let saved = storage::memory();
        saved.create("/core/pods/default/a".into(), storage::Payload::default()).await.expect("a create");
        saved.create("/core/nodes/n".into(), storage::Payload::default()).await.expect("a create");
        storage::save(saved.as_ref(), at("restore.redb")).await.expect("saved");
        fs::write(at("how"), r#"{"after":77,"otherCluster":true}"#).expect("a file");
        fs::create_dir_all(at("etcd/member/wal")).expect("a folder");
        restored().expect("restored");
        assert!(!at("etcd").exists() && !at("restore.redb").exists());
        let store = storage::open(storage::Config::embedded(at(STORE))).await.expect("a store");
        assert!(store.get("/core/pods/default/a").await.expect("a read").is_some());
        assert!(store.get("/core/nodes/n").await.expect("a read").is_none());
        assert_eq!(store.revision(), 77);
        drop(store);

        fs::create_dir_all(at("etcd/member/wal")).expect("a folder");
        fs::write(at("restore.redb"), "").expect("a file");
        fs::write(at("how"), r#"{"after":77,"otherCluster":false}"#).expect("a file");
        restored().expect("only forgotten");
        assert!(!at("etcd").exists() && !at("restore.redb").exists() && at(STORE).exists());
    }
}
