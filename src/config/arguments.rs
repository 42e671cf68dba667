//! Arguments of upstream's components whose meaning minik has as well.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::eviction::{self, Thresholds};

/// What a person asked of the components of a cluster; what is absent is as upstream has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Arguments {
    /// Node ports that Services get, first and last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_ports: Option<(u16, u16)>,
    /// Seconds that a node may be silent before it counts as unreachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_monitor_grace: Option<u32>,
    /// Ended Pods above this number are deleted; 0 keeps all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated_pods: Option<u32>,
    /// Pods that a node takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pods: Option<u32>,
    /// What a node must have left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_hard: Option<Thresholds>,
    /// Seconds that a node is told to be short of something after it was last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure_transition: Option<u32>,
    /// Hundredths of the disk: when more is used, images that nobody uses go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_gc_high: Option<u32>,
    /// Hundredths of the disk: when no more is used, they stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_gc_low: Option<u32>,
}

/// Component and argument, as they are written.
type Known = (&'static str, &'static str);
const NODE_PORTS: Known = ("apiServer", "service-node-port-range");
const NODE_MONITOR_GRACE: Known = ("controllerManager", "node-monitor-grace-period");
const TERMINATED_PODS: Known = ("controllerManager", "terminated-pod-gc-threshold");
const MAX_PODS: Known = ("kubelet", "max-pods");
const EVICTION_HARD: Known = ("kubelet", "eviction-hard");
const PRESSURE_TRANSITION: Known = ("kubelet", "eviction-pressure-transition-period");
const IMAGE_GC_HIGH: Known = ("kubelet", "image-gc-high-threshold");
const IMAGE_GC_LOW: Known = ("kubelet", "image-gc-low-threshold");

/// A node's Pods have a /24: more would find no address.
const MOST_PODS: u32 = 250;

impl Arguments {
    /// All there are: component and argument.
    pub const ALL: [Known; 8] = [
        NODE_PORTS,
        NODE_MONITOR_GRACE,
        TERMINATED_PODS,
        MAX_PODS,
        EVICTION_HARD,
        PRESSURE_TRANSITION,
        IMAGE_GC_HIGH,
        IMAGE_GC_LOW,
    ];

    /// Everything is as upstream has it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Takes one argument as upstream writes it, without its dashes.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the value, or which arguments there are.
    pub fn set(&mut self, component: &str, name: &str, value: &str) -> Result<(), String> {
        let wrong = |expected: &str| format!("{name} is {value:?}: {expected} is expected");
        let known = Self::ALL.into_iter().find(|known| *known == (component, name));
        match known {
            Some(NODE_PORTS) => {
                let ports = port_range(value).ok_or_else(|| wrong("a range of ports, as 30000-32767,"))?;
                self.node_ports = Some(ports);
            }
            Some(NODE_MONITOR_GRACE) => {
                let grace = seconds(value).filter(|seconds| *seconds > 0);
                self.node_monitor_grace =
                    Some(grace.ok_or_else(|| wrong("a time of whole seconds, as 40s,"))?);
            }
            Some(TERMINATED_PODS) => {
                self.terminated_pods = Some(value.parse().map_err(|_| wrong("a number"))?);
            }
            Some(("kubelet", _)) => self.set_kubelet(name, value)?,
            _ => {
                let all = Self::ALL.map(|(component, name)| format!("{component}.{name}")).join(", ");
                return Err(format!("minik has nothing that {component}.{name} sets; there are {all}"));
            }
        }
        Ok(())
    }

    fn set_kubelet(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |expected: &str| format!("{name} is {value:?}: {expected} is expected");
        let percent = || {
            let number = value.parse::<u32>().ok().filter(|number| *number <= 100);
            number.map(Some).ok_or_else(|| wrong("a number up to 100"))
        };
        match ("kubelet", name) {
            MAX_PODS => {
                let number = value.parse().ok().filter(|number| (1..=MOST_PODS).contains(number));
                let range =
                    format!("a number up to {MOST_PODS}, as a node's range of Pod addresses is a /24,");
                self.max_pods = Some(number.ok_or_else(|| wrong(&range))?);
            }
            EVICTION_HARD => {
                let read = eviction::parse(value).map_err(|why| format!("{name}: {why}"))?;
                self.eviction_hard = Some(read);
            }
            PRESSURE_TRANSITION => {
                self.pressure_transition =
                    Some(seconds(value).ok_or_else(|| wrong("a time of whole seconds, as 5m0s,"))?);
            }
            IMAGE_GC_HIGH => self.image_gc_high = percent()?,
            _ => self.image_gc_low = percent()?,
        }
        match (self.image_gc_low, self.image_gc_high) {
            (Some(low), Some(high)) if low >= high => {
                Err(format!("{}: {low} is not below {} {high}", IMAGE_GC_LOW.1, IMAGE_GC_HIGH.1))
            }
            _ => Ok(()),
        }
    }

    pub fn node_ports(&self) -> Option<RangeInclusive<u16>> {
        self.node_ports.map(|(first, last)| first..=last)
    }

    pub fn node_monitor_grace(&self) -> Option<Duration> {
        self.node_monitor_grace.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// `FIRST-LAST`, or `FIRST+MORE`, as upstream takes them.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let (first, last) = match (text.split_once('-'), text.split_once('+')) {
        (Some((first, last)), _) => (number(first)?, number(last)?),
        (None, Some((first, more))) => (number(first)?, number(first)?.checked_add(number(more)?)?),
        (None, None) => (number(text)?, number(text)?),
    };
    (first > 0 && first <= last).then_some((first, last))
}

fn seconds(text: &str) -> Option<u32> {
    let time: SignedDuration = text.parse().ok()?;
    u32::try_from(time.as_secs()).ok().filter(|_| time.subsec_nanos() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(component: &str, name: &str, value: &str) -> Result<Arguments, String> {
        let mut arguments = Arguments::default();
        arguments.set(component, name, value).map(|()| arguments)
    }

    #[test]
    fn arguments_are_written_as_upstream_does() {
        let ports = |text: &str| set("apiServer", "service-node-port-range", text).map(|a| a.node_ports);
        assert_eq!(ports("30000-30100"), Ok(Some((30_000, 30_100))));
        assert_eq!(ports("30000+10"), Ok(Some((30_000, 30_010))));
        assert!(ports("40000-30000").is_err() && ports("0-1").is_err() && ports("65535+1").is_err());
        let grace = |text: &str| set("controllerManager", "node-monitor-grace-period", text);
        assert_eq!(grace("1m30s").map(|a| a.node_monitor_grace()), Ok(Some(Duration::from_secs(90))));
        assert!(grace("0s").is_err() && grace("1.5s").is_err() && grace("soon").is_err());
        assert_eq!(set("kubelet", "max-pods", "200").map(|a| a.max_pods), Ok(Some(200)));
        assert!(set("kubelet", "max-pods", "251").expect_err("too many").contains("/24"));
        assert_eq!(
            set("controllerManager", "terminated-pod-gc-threshold", "0").map(|a| a.terminated_pods),
            Ok(Some(0))
        );
    }

    #[test]
    fn what_nodes_keep_free_is_read() {
        let hard = set("kubelet", "eviction-hard", "nodefs.available<1Gi").expect("read");
        assert_eq!(hard.eviction_hard.map(|all| all.len()), Some(1));
        assert!(set("kubelet", "eviction-hard", "imagefs.available<5%").is_err());
        let period = set("kubelet", "eviction-pressure-transition-period", "30s").expect("read");
        assert_eq!(period.pressure_transition, Some(30));
        assert_eq!(set("kubelet", "image-gc-high-threshold", "90").map(|a| a.image_gc_high), Ok(Some(90)));
        assert!(set("kubelet", "image-gc-high-threshold", "101").is_err());
        let mut both = set("kubelet", "image-gc-low-threshold", "90").expect("read");
        assert!(both.set("kubelet", "image-gc-high-threshold", "90").is_err());
    }

    #[test]
    fn others_are_refused_with_those_there_are() {
        let said = set("kubelet", "cpu-manager-policy", "static").expect_err("unknown");
        assert!(said.contains("kubelet.cpu-manager-policy") && said.contains("kubelet.max-pods"), "{said}");
        assert!(set("scheduler", "max-pods", "1").is_err());
    }
}
