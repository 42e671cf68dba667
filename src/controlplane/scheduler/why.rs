//! Why a Pod fits nowhere, in upstream's words.

use std::collections::BTreeMap;
use std::fmt;

/// Why one node does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Every reason, as the user reads it.
    pub reasons: Vec<String>,
    /// False when removing Pods from the node would not help.
    pub preemptible: bool,
    /// True when it has nothing to do with this node: it is told once, without a number.
    pub everywhere: bool,
}

impl Refusal {
    /// A reason that Pods on the node have to do with.
    pub(super) fn of_pods(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], preemptible: true, everywhere: false }
    }

    /// A reason in the node itself.
    pub(super) fn of_node(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], preemptible: false, everywhere: false }
    }

    /// A reason in the Pod alone.
    pub(super) fn of_all(reason: impl Into<String>) -> Self {
        Self { everywhere: true, ..Self::of_node(reason) }
    }
}

/// Why no node does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Why {
    pub refusals: BTreeMap<String, Refusal>,
}

fn histogram(texts: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    let mut parts: Vec<String> = counts.into_iter().map(|(text, count)| format!("{count} {text}")).collect();
    parts.sort();
    parts.join(", ")
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.refusals.len();
        if total == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let everywhere = self.refusals.values().find(|refusal| refusal.everywhere);
        let reasons = match everywhere {
            Some(refusal) => refusal.reasons.join(", "),
            None => histogram(self.refusals.values().flat_map(|refusal| refusal.reasons.clone())),
        };
        let preemption = histogram(self.refusals.values().map(|refusal| {
            let text = match refusal.preemptible {
                true => "No preemption victims found for incoming pod",
                false => "Preemption is not helpful for scheduling",
            };
            text.to_owned()
        }));
        write!(
            f,
            "0/{total} nodes are available: {reasons}. preemption: 0/{total} nodes are available: {preemption}."
        )
    }
}
