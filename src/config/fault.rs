//! Failures that somebody asks for: as they travel to a node, and as the node keeps them.

use std::fmt;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is broken on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FaultKind {
    /// Every process stands still: the node is there, and says nothing.
    Pause,
    /// Every process is dead, as after a power cut; the node starts when it is healed.
    Kill,
    /// No packet comes in or goes out.
    Partition {
        /// Only those of these nodes; none: of anybody.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        from: Vec<Ipv4Addr>,
    },
    /// Packets come late, seldom or not at all.
    Slow {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delay_ms: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        jitter_ms: Option<u32>,
        /// Lost packets of a thousand, in each direction.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loss_per_mille: Option<u32>,
        /// What the node may send, in thousands of bits a second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_kbit: Option<u32>,
    },
}

impl FaultKind {
    /// The verb; a node has at most one fault of each.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Kill => "kill",
            Self::Partition { .. } => "partition",
            Self::Slow { .. } => "slow",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause => f.write_str("paused"),
            Self::Kill => f.write_str("dead"),
            Self::Partition { from } if from.is_empty() => f.write_str("cut off from the network"),
            Self::Partition { from } => {
                let from: Vec<String> = from.iter().map(ToString::to_string).collect();
                write!(f, "cut off from {}", from.join(", "))
            }
            Self::Slow { delay_ms, jitter_ms, loss_per_mille, rate_kbit } => {
                let parts = [
                    delay_ms.map(|ms| format!("{ms} ms late")),
                    jitter_ms.map(|ms| format!("give or take {ms} ms")),
                    loss_per_mille.map(|n| format!("losing {}.{} %", n / 10, n % 10)),
                    rate_kbit.map(|kbit| format!("at {kbit} kbit/s")),
                ];
                write!(f, "slow ({})", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A failure in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    #[serde(flatten)]
    pub kind: FaultKind,
    /// When the node heals it, by its own clock.
    pub until: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_travel_as_json_and_are_said_in_words() {
        let check = |kind: FaultKind, json: &str, words: &str| {
            let fault = Fault { kind, until: Timestamp::UNIX_EPOCH };
            assert_eq!(serde_json::to_string(&fault).expect("plain data"), json);
            assert_eq!(serde_json::from_str::<Fault>(json).expect("readable"), fault);
            assert_eq!(fault.kind.to_string(), words);
        };
        check(FaultKind::Pause, r#"{"fault":"pause","until":"1970-01-01T00:00:00Z"}"#, "paused");
        check(
            FaultKind::Partition { from: vec![Ipv4Addr::new(10, 0, 0, 2)] },
            r#"{"fault":"partition","from":["10.0.0.2"],"until":"1970-01-01T00:00:00Z"}"#,
            "cut off from 10.0.0.2",
        );
        check(
            FaultKind::Slow {
                delay_ms: Some(20),
                jitter_ms: None,
                loss_per_mille: Some(15),
                rate_kbit: None,
            },
            r#"{"fault":"slow","delayMs":20,"lossPerMille":15,"until":"1970-01-01T00:00:00Z"}"#,
            "slow (20 ms late, losing 1.5 %)",
        );
    }
}
