//! How many requests may be on their way at once. Beyond that a client is told to come back, so that a flood ends at the door.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::user::UserInfo;
use crate::api::status::ApiError;

/// Upstream's limits.
const READING: usize = 400;
const WRITING: usize = 200;
/// Users in these groups are never told to wait: what keeps the cluster alive must get through.
const EXEMPT: [&str; 3] = [UserInfo::MASTERS, "system:nodes", "system:serviceaccounts:kube-system"];
/// Nor are the control plane's own components.
const COMPONENTS: &str = "system:kube-";
const RETRY_AFTER_SECONDS: u32 = 1;

/// The places there are, for requests that read and for those that write. Watches and streams take none.
pub struct InFlight {
    reading: Semaphore,
    writing: Semaphore,
}

impl Default for InFlight {
    fn default() -> Self {
        Self::new(READING, WRITING)
    }
}

impl InFlight {
    fn new(reading: usize, writing: usize) -> Self {
        Self { reading: Semaphore::new(reading), writing: Semaphore::new(writing) }
    }

    /// A place for a request, held until it is answered; `None` for who needs none. Fails with 429 if all are taken.
    pub fn admit(&self, user: &UserInfo, verb: &str) -> Result<Option<SemaphorePermit<'_>>, ApiError> {
        let exempt = EXEMPT.iter().any(|group| user.groups.iter().any(|own| own == group));
        if exempt || user.name.starts_with(COMPONENTS) {
            return Ok(None);
        }
        let places = if matches!(verb, "get" | "list" | "head") { &self.reading } else { &self.writing };
        let busy = |_| {
            let why = "too many requests, please try again later";
            ApiError::too_many_requests(why, RETRY_AFTER_SECONDS)
        };
        places.try_acquire().map(Some).map_err(busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_floods_is_told_to_come_back() {
        let places = InFlight::new(1, 1);
        let (user, node) = (UserInfo::new("jane", &[]), UserInfo::new("system:node:a", &["system:nodes"]));
        let held = places.admit(&user, "list").expect("a place");
        let refused = places.admit(&user, "get").expect_err("all are taken");
        assert_eq!((refused.code, refused.details.map(|it| it.retry_after_seconds)), (429, Some(1)));
        assert!(places.admit(&user, "create").is_ok(), "writes have places of their own");
        assert!(places.admit(&node, "get").expect("always").is_none(), "nodes need none");
        drop(held);
        assert!(places.admit(&user, "get").is_ok());
    }
}
