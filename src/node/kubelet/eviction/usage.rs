//! What one Pod uses of the node.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use crate::kubelet::container::log_directory;
use crate::kubelet::stats::PodUse;
use crate::kubelet::{ephemeral, spec};

/// Room on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    pub inodes: u64,
}

impl std::iter::Sum for Room {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            bytes: sum.bytes + one.bytes,
            inodes: sum.inodes + one.inodes,
        })
    }
}

/// What one Pod uses of the node.
#[derive(Clone, Debug, Default)]
pub struct Use {
    /// By container: writable layer and logs, and bytes of memory.
    pub containers: Vec<(String, Room, u64)>,
    /// By emptyDir volume on disk.
    pub volumes: Vec<(String, Room)>,
    pub memory: u64,
    pub processes: u64,
}

impl Use {
    pub fn disk(&self) -> Room {
        let containers = self.containers.iter().map(|(_, room, _)| *room);
        containers.chain(self.volumes.iter().map(|(_, room)| *room)).sum()
    }
}

/// Measures a Pod: `told` is what the runtime says of it, `dir` its own folder.
pub fn measure(pod: &Pod, told: Option<&PodUse>, dir: &Path) -> Use {
    let logs = log_directory(pod);
    let spec = spec(pod);
    let beside: Vec<String> = ephemeral(pod).into_iter().map(|(container, _)| container.name).collect();
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let names = all.map(|container| container.name.clone()).chain(beside);
    let container = |name: String| {
        let own = told.and_then(|told| told.containers.iter().find(|container| container.name == name));
        let layer = own.map_or(Room::default(), |own| Room { bytes: own.layer, inodes: own.layer_inodes });
        let room = [layer, below(&logs.join(&name))].into_iter().sum();
        (name, room, own.map_or(0, |own| own.used.working_set))
    };
    let on_disk = spec.volumes.iter().flatten().filter(|volume| {
        volume.empty_dir.as_ref().is_some_and(|empty| empty.medium.as_deref() != Some("Memory"))
    });
    let folder = |name: &str| dir.join("volumes/kubernetes.io~empty-dir").join(name);
    Use {
        containers: names.map(container).collect(),
        volumes: on_disk.map(|volume| (volume.name.clone(), below(&folder(&volume.name)))).collect(),
        memory: told.map_or(0, |told| told.used.working_set),
        processes: told.map_or(0, |told| told.processes),
    }
}

/// Room that everything below `dir` takes; links are not followed. Folders may be nested as deep as a Pod likes.
fn below(dir: &Path) -> Room {
    use std::os::unix::fs::MetadataExt;
    let mut room = Room::default();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            room.inodes += 1;
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                room.bytes += metadata.blocks() * 512;
            }
        }
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_counted_below() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::create_dir(dir.path().join("sub")).expect("folder");
        std::fs::write(dir.path().join("sub/file"), vec![1; 10_000]).expect("file");
        std::os::unix::fs::symlink("/", dir.path().join("sub/link")).expect("link");
        let room = below(dir.path());
        assert!((8192..1 << 20).contains(&room.bytes), "{room:?}");
        assert_eq!(room.inodes, 3);
        assert_eq!(below(&dir.path().join("none")), Room::default());
    }
}
