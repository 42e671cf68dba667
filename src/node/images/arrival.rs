//! What the shared store has, on its way to a node that starts. A node is Ready without it; who needs an image waits for it.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::{Images, Wanted};
use rt::Tasks;

/// Held by whoever changes or lists the node's images: the role while they are on their way, and commands on the host.
const LOCK: &str = "/run/minik/images.lock";
/// A node that does not become Ready takes them all the same.
const LATEST: Duration = Duration::from_secs(10);

/// Images that are on their way. Cheap to clone.
#[derive(Clone)]
pub struct Arrival {
    wanted: watch::Sender<bool>,
    there: watch::Receiver<bool>,
    images: Option<Arc<Images>>,
    /// Names of images that the node has given up to make room: the store may have them still.
    given_up: Arc<Mutex<HashSet<String>>>,
}

impl Arrival {
    /// Nothing is on its way.
    pub fn none() -> Self {
        let (_, there) = watch::channel(true);
        Self { wanted: watch::Sender::new(true), there, images: None, given_up: Arc::default() }
    }

    /// Takes everything that the store has, once somebody says that it is time, or needs an image.
    pub fn expect(images: Images, tasks: &Tasks) -> Self {
        let wanted = watch::Sender::new(false);
        let (done, there) = watch::channel(false);
        let mut begin = wanted.subscribe();
        let images = Arc::new(images);
        let own = Some(Arc::clone(&images));
        // From now on: a command that comes earlier than the images waits for them. One that is at it already is left alone.
        let lock = file().filter(|file| file.try_lock().is_ok());
        tasks.spawn_until_stop(async move {
            let _ = tokio::time::timeout(LATEST, begin.wait_for(|wanted| *wanted)).await;
            // A store that cannot be read is no reason to be no node.
            match images.take_all().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "images taken from the store"),
                Err(error) => tracing::warn!(%error, "the store of images cannot be used"),
            }
            drop(lock);
            done.send_replace(true);
        });
        Self { wanted, there, images: own, given_up: Arc::default() }
    }

    /// It is time to take them: nothing is in a hurry any more.
    pub fn begin(&self) {
        self.wanted.send_replace(true);
    }

    /// Has them taken now, and waits until they are there.
    pub async fn over(&self) {
        self.begin();
        // Who would say so has gone only when the node stops.
        let _ = self.there.clone().wait_for(|there| *there).await;
    }

    /// These names mean nothing here any more, because there was no room.
    pub fn give_up(&self, names: &[String]) {
        self.given_up().extend(names.iter().cloned());
    }

    /// Takes an image again that was given up; returns whether it came. One that somebody removed stays away.
    pub async fn come_back(&self, name: &str) -> bool {
        let Some(images) = self.images.as_ref().filter(|_| self.given_up().remove(name)) else {
            return false;
        };
        let wanted = Wanted { name: name.to_owned(), source: None };
        match images.ensure(&[wanted]).await {
            Ok(missing) => missing.is_empty(),
            Err(error) => {
                tracing::warn!(%error, name, "the store of images cannot be used");
                self.give_up(&[name.to_owned()]);
                false
            }
        }
    }

    fn given_up(&self) -> MutexGuard<'_, HashSet<String>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until nobody else on this node changes its images, and keeps others from it. `None` where no lock can be made.
pub fn lock() -> Option<File> {
    file().filter(|file| file.lock().is_ok())
}

fn file() -> Option<File> {
    let path = Path::new(LOCK);
    std::fs::create_dir_all(path.parent()?).ok()?;
    File::options().create(true).truncate(false).write(true).open(path).ok()
}
