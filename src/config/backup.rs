//! What servers and the command line agree on about backups.

use serde::{Deserialize, Serialize};

/// The path at which a server gives its whole state: a store's file, as [`STORE`] takes it. Only who may get this path is told,
/// by default administrators: it holds every Secret.
pub const PATH: &str = "/minik.dev/backup";
/// The header that says which revision the state is of.
pub const REVISION: &str = "minik-revision";
/// The header that says how many entries the file has.
pub const ENTRIES: &str = "minik-entries";

/// A store's file that takes the place of the state that a server has when it starts. An empty one lets a server forget its part
/// of the etcd that it shares with others.
pub const STORE: &str = "/var/lib/minik/restore.redb";
/// Where [`Restore`] is beside that, as JSON.
pub const RESTORE: &str = "/var/lib/minik/restore.json";

/// How a state is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// The revision that clients may have seen: those of what is restored go on after it.
    pub after: u64,
    /// Another cluster goes on with it: its nodes have other keys, which somebody else signs.
    pub other_cluster: bool,
}
