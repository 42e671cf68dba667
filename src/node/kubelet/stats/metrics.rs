//! Samples in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::sample::{ContainerUse, PodUse, Sample};
use crate::kubelet::probe::Answered;

/// A family of samples in Prometheus' text form.
struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
    /// Milliseconds since 1970; `None` leaves the time to who asks.
    at: Option<i64>,
}

impl<'a> Family<'a> {
    fn new(out: &'a mut String, name: &'static str, kind: &str, help: &str, at: Option<i64>) -> Self {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Self { out, name, at }
    }

    fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let at = self.at.map(|at| format!(" {at}")).unwrap_or_default();
        let _ = writeln!(self.out, "{}{labels} {value}{at}", self.name);
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// Calls `each` for every container with its Pod.
fn containers(sample: &Sample, mut each: impl FnMut(&PodUse, &ContainerUse)) {
    for pod in &sample.pods {
        pod.containers.iter().for_each(|container| each(pod, container));
    }
}

/// The answer of `/metrics/probes`.
pub fn probes(answers: &BTreeMap<Answered, u64>) -> String {
    let mut out = String::new();
    let help = "Cumulative number of a liveness, readiness or startup probe for a container by result";
    let mut family = Family::new(&mut out, "prober_probe_total", "counter", help, None);
    for (of, count) in answers {
        let labels = [
            ("container", &*of.container),
            ("namespace", &*of.namespace),
            ("pod", &*of.pod),
            ("pod_uid", &*of.uid),
            ("probe_type", of.kind),
            ("result", of.result),
        ];
        family.add(&labels, *count as f64);
    }
    out
}

/// The answer of `/metrics/resource`: what metrics-server reads.
pub fn resource(sample: &Sample) -> String {
    let mut out = String::new();
    let at = Some(sample.at.as_millisecond());
    let counter = "counter";
    let mut family = Family::new(
        &mut out,
        "container_cpu_usage_seconds_total",
        counter,
        "Cumulative cpu time consumed by the container in core-seconds",
        at,
    );
    containers(sample, |pod, c| {
        let labels = [("container", &*c.name), ("namespace", &*pod.namespace), ("pod", &*pod.name)];
        family.add(&labels, seconds(c.used.cpu_nanos));
    });
    let help = "Current working set of the container in bytes";
    let mut family = Family::new(&mut out, "container_memory_working_set_bytes", "gauge", help, at);
    containers(sample, |pod, c| {
        let labels = [("container", &*c.name), ("namespace", &*pod.namespace), ("pod", &*pod.name)];
        family.add(&labels, c.used.working_set as f64);
    });
    let help = "Cumulative cpu time consumed by the node in core-seconds";
    Family::new(&mut out, "node_cpu_usage_seconds_total", counter, help, at)
        .add(&[], seconds(sample.node.cpu_nanos));
    let help = "Current working set of the node in bytes";
    Family::new(&mut out, "node_memory_working_set_bytes", "gauge", help, at)
        .add(&[], sample.node.working_set as f64);
    let help = "Cumulative cpu time consumed by the pod in core-seconds";
    let mut family = Family::new(&mut out, "pod_cpu_usage_seconds_total", counter, help, at);
    for pod in &sample.pods {
        family.add(&[("namespace", &pod.namespace), ("pod", &pod.name)], seconds(pod.used.cpu_nanos));
    }
    let help = "Current working set of the pod in bytes";
    let mut family = Family::new(&mut out, "pod_memory_working_set_bytes", "gauge", help, at);
    for pod in &sample.pods {
        family.add(&[("namespace", &pod.namespace), ("pod", &pod.name)], pod.used.working_set as f64);
    }
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    Family::new(&mut out, "resource_scrape_error", "gauge", help, None).add(&[], 0.0);
    out
}

/// The answer of `/metrics/cadvisor`: the families dashboards ask for most.
pub fn cadvisor(sample: &Sample) -> String {
    type Value = fn(&ContainerUse) -> f64;
    const FAMILIES: &[(&str, &str, &str, Value)] = &[
        ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", |c| {
            seconds(c.used.cpu_nanos)
        }),
        ("container_memory_usage_bytes", "gauge", "Current memory usage in bytes.", |c| c.used.memory as f64),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |c| {
            c.used.working_set as f64
        }),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |c| c.used.rss as f64),
        ("container_fs_usage_bytes", "gauge", "Bytes consumed by the container on this filesystem.", |c| {
            c.layer as f64
        }),
    ];
    let mut out = String::new();
    let at = Some(sample.at.as_millisecond());
    for (name, kind, help, value) in FAMILIES {
        let mut family = Family::new(&mut out, name, kind, help, at);
        containers(sample, |pod, c| {
            let labels = [
                ("container", &*c.name),
                ("id", &*c.id),
                ("namespace", &*pod.namespace),
                ("pod", &*pod.name),
            ];
            family.add(&labels, value(c));
        });
    }
    type PodValue = fn(&PodUse) -> f64;
    const PODS: &[(&str, &str, PodValue)] = &[
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |p| {
            p.received as f64
        }),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |p| {
            p.sent as f64
        }),
    ];
    for (name, help, value) in PODS {
        let mut family = Family::new(&mut out, name, "counter", help, at);
        for pod in &sample.pods {
            let labels = [("interface", "eth0"), ("namespace", &*pod.namespace), ("pod", &*pod.name)];
            family.add(&labels, value(pod));
        }
    }
    let help = "Number of processes running inside the Pod.";
    let mut family = Family::new(&mut out, "container_processes", "gauge", help, at);
    for pod in &sample.pods {
        family.add(&[("namespace", &pod.namespace), ("pod", &pod.name)], pod.processes as f64);
    }
    out
}

/// The answer of `/metrics`: the kubelet about itself.
pub fn own(node: &str, version: &str, pods: usize, containers: usize) -> String {
    let mut out = String::new();
    let help = "Build information of the kubelet";
    Family::new(&mut out, "kubernetes_build_info", "gauge", help, None).add(&[("git_version", version)], 1.0);
    let help = "The node's name. The count is always 1.";
    Family::new(&mut out, "kubelet_node_name", "gauge", help, None).add(&[("node", node)], 1.0);
    let help = "Number of pods that have a running pod sandbox";
    Family::new(&mut out, "kubelet_running_pods", "gauge", help, None).add(&[], pods as f64);
    let help = "Number of containers currently running";
    Family::new(&mut out, "kubelet_running_containers", "gauge", help, None)
        .add(&[("container_state", "running")], containers as f64);
    let used = sys::cgroups::own_process();
    let help = "Total user and system CPU time spent in seconds.";
    Family::new(&mut out, "process_cpu_seconds_total", "counter", help, None).add(&[], used.0);
    let help = "Resident memory size in bytes.";
    Family::new(&mut out, "process_resident_memory_bytes", "gauge", help, None).add(&[], used.1 as f64);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::stats::sample::tests::sample;

    #[test]
    fn the_text_is_prometheus_own() {
        let text = resource(&sample(10, 1_500_000_000));
        let line =
            "container_cpu_usage_seconds_total{container=\"web\",namespace=\"shop\",pod=\"p\"} 1.5 10000\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("\nnode_memory_working_set_bytes 2000 10000\n"), "{text}");
        let text = cadvisor(&sample(10, 0));
        let line =
            "container_memory_rss{container=\"web\",id=\"c1\",namespace=\"shop\",pod=\"p\"} 1000 10000";
        assert!(text.contains(line), "{text}");
        assert!(own("n", "v", 2, 3).contains("kubelet_running_pods 2\n"));
    }
}
