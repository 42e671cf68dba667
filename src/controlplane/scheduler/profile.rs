//! Profiles: which filters and scores place the Pods of a scheduler's name.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

/// The scheduler's name in Pods that name none.
pub(super) const DEFAULT: &str = "default-scheduler";

/// How the Pods of one name are placed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Profile {
    /// Names of the filters that rule nodes out; `None`: all.
    pub filters: Option<Vec<&'static str>>,
    /// Names of the scores that count, with their weights; `None`: all, with upstream's weights.
    pub scores: Option<Vec<(&'static str, f64)>>,
    /// The fuller a node, the better.
    pub fullest: bool,
    /// Spread constraints of Pods that name none; `None`: the built-in ones.
    pub spread: Option<Vec<TopologySpreadConstraint>>,
}

/// Returns the profile of Pods that nobody configured anything for.
pub(super) fn default() -> Arc<Profile> {
    static DEFAULT: LazyLock<Arc<Profile>> = LazyLock::new(Arc::default);
    Arc::clone(&DEFAULT)
}

/// Profiles by the name that Pods ask for.
pub(super) type Profiles = BTreeMap<String, Arc<Profile>>;

/// Returns the only profile of a cluster that configures none.
pub(super) fn built_in() -> Profiles {
    Profiles::from([(DEFAULT.to_owned(), default())])
}
