//! Images that nobody uses go when the disk is full: those first that were used least lately.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use crate::cri::api::Image;
use crate::kubelet::context::Context;
use crate::kubelet::pods::Manager;
use crate::kubelet::{image, spec};
use config::Arguments;

/// How often it is noted which images are used, as upstream does.
const NOTE: SignedDuration = SignedDuration::from_mins(5);
/// A younger image may be about to be used, as upstream has it.
const YOUNG: SignedDuration = SignedDuration::from_mins(2);
/// The disk is the host's, so that without a word images go only before Pods would have to: with so much left, until twice
/// as much is.
const LEAST: u64 = 256 << 20;

/// What is known of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    seen: Timestamp,
    used: Timestamp,
}

/// When which image was used.
pub struct Images {
    high: Option<u32>,
    low: Option<u32>,
    records: HashMap<String, Record>,
    noted: Option<Timestamp>,
}

/// Bytes of a disk.
#[derive(Clone, Copy, Debug)]
struct Disk {
    capacity: u64,
    available: u64,
}

impl Images {
    pub fn new(arguments: &Arguments) -> Self {
        // One that stands alone is held against upstream's other one: 85 and 80 of a hundred.
        let high = arguments.image_gc_high.or(arguments.image_gc_low.map(|low| 85.max(low + 1)));
        let low = arguments.image_gc_low.or(high.map(|high| 80.min(high.saturating_sub(1))));
        Self { high, low, records: HashMap::new(), noted: None }
    }

    /// Notes what is used, and makes room when the disk is fuller than it may be.
    pub async fn look(&mut self, context: &Context, manager: &Manager, now: Timestamp) {
        let due = self.noted.is_none_or(|noted| now.duration_since(noted) >= NOTE);
        let Ok(stat) = nix::sys::statvfs::statvfs(&context.dir) else { return };
        let unit = stat.fragment_size();
        let disk = Disk { capacity: stat.blocks() * unit, available: stat.blocks_available() * unit };
        match self.wanted(disk) {
            Some(bytes) => {
                let freed = self.remove_unused(context, manager, bytes, now).await;
                if freed < bytes && due {
                    let text = format!(
                        "Failed to garbage collect required amount of images. Attempted to free {bytes} bytes, but only found {freed} bytes eligible to free."
                    );
                    context.events.warning(context.node_reference(), "FreeDiskSpaceFailed", text);
                }
            }
            None if due => drop(self.note(context, manager, now).await),
            None => {}
        }
    }

    /// Bytes that images should give back.
    fn wanted(&self, disk: Disk) -> Option<u64> {
        let left = |used: u32| {
            let part = u128::from(disk.capacity) * u128::from(100 - used.min(100)) / 100;
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        let (begin, end) = match (self.high, self.low) {
            (Some(high), Some(low)) => (left(high), left(low)),
            _ => (LEAST, 2 * LEAST),
        };
        (disk.available < begin).then(|| end.saturating_sub(disk.available)).filter(|bytes| *bytes > 0)
    }

    /// Which images there are, and which of them are used now.
    async fn note(
        &mut self,
        context: &Context,
        manager: &Manager,
        now: Timestamp,
    ) -> Option<(Vec<Image>, HashSet<String>)> {
        let runtime = &context.runtime;
        let (images, containers) = tokio::join!(runtime.images(), runtime.containers(None));
        let (images, containers) = (images.ok()?, containers.ok()?);
        let pods = manager.pods();
        let volumes = pods.iter().flat_map(|pod| spec(pod).volumes.iter().flatten());
        let mounted =
            volumes.filter_map(|volume| image::normalize(volume.image.as_ref()?.reference.as_deref()?).ok());
        let run = containers.into_iter().flat_map(|container| {
            [Some(container.image_ref), container.image.map(|image| image.image)].into_iter().flatten()
        });
        let names: HashSet<String> = mounted.chain(run).collect();
        let used = self.take(&images, &names, now);
        Some((images, used))
    }

    /// Brings the records up to date; the images in use, by id.
    fn take(&mut self, images: &[Image], names: &HashSet<String>, now: Timestamp) -> HashSet<String> {
        // What was here before the first look may be as old as can be.
        let seen = if self.noted.is_some() { now } else { Timestamp::UNIX_EPOCH };
        self.noted = Some(now);
        self.records.retain(|id, _| images.iter().any(|image| image.id == *id));
        let mut used = HashSet::new();
        for image in images {
            let record =
                self.records.entry(image.id.clone()).or_insert(Record { seen, used: Timestamp::UNIX_EPOCH });
            let mut all = image.repo_digests.iter().chain(&image.repo_tags).chain(std::iter::once(&image.id));
            if all.any(|name| names.contains(name)) {
                record.used = now;
                used.insert(image.id.clone());
            }
        }
        used
    }

    /// What may go, the one first that was used least lately. Pinned ones (the sandbox's) stay.
    fn removable<'a>(&self, images: &'a [Image], used: &HashSet<String>, now: Timestamp) -> Vec<&'a Image> {
        let record = |image: &Image| self.records.get(&image.id).copied();
        let idle = |image: &&Image| {
            let old = record(image).is_some_and(|record| now.duration_since(record.seen) >= YOUNG);
            !image.pinned && !used.contains(&image.id) && old
        };
        let mut idle: Vec<&Image> = images.iter().filter(idle).collect();
        idle.sort_by_key(|image| record(image).map(|record| (record.used, record.seen)));
        idle
    }

    /// Removes images that no container and no volume uses until so many bytes are free; how many that was.
    pub async fn remove_unused(
        &mut self,
        context: &Context,
        manager: &Manager,
        bytes: u64,
        now: Timestamp,
    ) -> u64 {
        let Some((images, used)) = self.note(context, manager, now).await else { return 0 };
        let mut freed = 0_u64;
        for image in self.removable(&images, &used, now) {
            tracing::warn!(image = ?image.repo_tags, bytes = image.size, "the disk is full: removing an unused image");
            match context.runtime.remove_image(&image.id).await {
                Ok(()) => {
                    freed = freed.saturating_add(image.size);
                    context.images.give_up(&image.repo_tags);
                }
                Err(error) => tracing::warn!(%error, "an image is not removed"),
            }
            if freed >= bytes {
                break;
            }
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, pinned: bool) -> Image {
        Image {
            id: id.into(),
            repo_tags: vec![format!("docker.io/library/{id}:1")],
            pinned,
            ..Image::default()
        }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).expect("time")
    }

    #[test]
    fn the_image_used_least_lately_goes_first() {
        let mut images = Images::new(&Arguments::default());
        let mut have = vec![image("old", false), image("lately", false), image("pause", true)];
        let names = |name: &str| HashSet::from([format!("docker.io/library/{name}:1")]);
        images.take(&have, &names("old"), at(10));
        images.take(&have, &names("lately"), at(15));
        have.push(image("new", false));
        let used = images.take(&have, &names("none"), at(20));
        let order = |images: &Images, used: &HashSet<String>, now| {
            images.removable(&have, used, now).iter().map(|image| image.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(order(&images, &used, at(21)), ["old", "lately"], "a new one may be about to be used");
        assert_eq!(
            order(&images, &used, at(22)),
            ["new", "old", "lately"],
            "one that was never used goes first"
        );
        let used = images.take(&have, &names("old"), at(23));
        assert_eq!(order(&images, &used, at(30)), ["new", "lately"], "one in use stays");
    }

    #[test]
    fn room_is_made_between_two_marks() {
        let wanted = |high: Option<u32>, low: Option<u32>, available: u64| {
            let arguments = Arguments { image_gc_high: high, image_gc_low: low, ..Arguments::default() };
            Images::new(&arguments).wanted(Disk { capacity: 100 << 30, available })
        };
        assert_eq!(wanted(Some(90), Some(70), 11 << 30), None);
        assert_eq!(wanted(Some(90), Some(70), 9 << 30), Some(21 << 30));
        assert_eq!(wanted(Some(50), None, 49 << 30), Some((51 << 30) - (49 << 30)));
        assert_eq!(wanted(None, None, 300 << 20), None, "the host's disk may be full");
        assert_eq!(wanted(None, None, 200 << 20), Some(312 << 20));
    }
}
