//! What the shared store has, on its way to a node that starts. A node is Ready without it; who needs an image waits for it.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use super::Images;
use rt::Tasks;

/// Held by whoever changes or lists the node's images: the role while they are on their way, and commands on the host.
const LOCK: &str = "/run/minik/images.lock";
/// A node that does not become Ready takes them all the same.
const LATEST: Duration = Duration::from_secs(10);

/// Images that are on their way. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Arrival {
    wanted: watch::Sender<bool>,
    there: watch::Receiver<bool>,
}

impl Arrival {
    /// Nothing is on its way.
    pub fn none() -> Self {
        let (_, there) = watch::channel(true);
        Self { wanted: watch::Sender::new(true), there }
    }

    /// Takes everything that the store has, once somebody says that it is time, or needs an image.
    pub fn expect(images: Images, tasks: &Tasks) -> Self {
        let wanted = watch::Sender::new(false);
        let (done, there) = watch::channel(false);
        let mut begin = wanted.subscribe();
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
        Self { wanted, there }
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
