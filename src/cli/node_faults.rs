//! `minik node pause|kill|partition|slow|heal`: nodes broken on purpose; and, hidden, what carries it out inside a node.

use std::net::Ipv4Addr;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::cluster::duration;
use super::completion::nodes;
use super::node::NamesArgs;
use super::options::{Form, OfCluster};
use super::output::{Format, Output, print};
use super::progress::reporter;
use cluster::{
    Broken, ClusterError, ClusterName, Docker, SpecError, begin_fault, find_node, heal, node_ip, wait_healed,
};
use config::FaultKind;
use node::faults::Faults;
use rt::Stop;
use sys::init;

#[derive(Args)]
pub(super) struct FaultArgs {
    /// The nodes, for example agent-0.
    #[arg(required = true, value_name = "NODE", add = nodes())]
    nodes: Vec<String>,
    /// When the node heals itself, also without minik: for example 90s or 5m.
    #[arg(long = "for", default_value = "30s", value_name = "TIME", value_parser = duration)]
    lasting: Duration,
    /// Stay until the nodes are healed and Ready again; Ctrl-C heals them at once.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    of: OfCluster,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(super) struct PartitionArgs {
    #[command(flatten)]
    fault: FaultArgs,
    /// Cut off only from this node and its Pods; may be given several times. Without it: from everybody.
    #[arg(long, value_name = "NODE", add = nodes())]
    from: Vec<String>,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("how").required(true).multiple(true).args(["delay", "loss", "rate"]))]
pub(super) struct SlowArgs {
    #[command(flatten)]
    fault: FaultArgs,
    /// Packets that the node sends come late by so much, for example 200ms. Needs the kernel's module sch_netem.
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    delay: Option<u32>,
    /// How much the delay varies, for example 50ms.
    #[arg(long, value_name = "TIME", value_parser = milliseconds, requires = "delay")]
    jitter: Option<u32>,
    /// Packets that get lost, in each direction, for example 5% or 0.5%.
    #[arg(long, value_name = "PERCENT", value_parser = per_mille)]
    loss: Option<u32>,
    /// What the node may send, for example 1Mbit or 500kbit a second.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<u32>,
}

/// `200ms` or `1s`, in milliseconds.
fn milliseconds(text: &str) -> Result<u32, String> {
    let wrong = || "a time such as 200ms or 1s is expected".to_owned();
    let (digits, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1000),
        (None, None) => return Err(wrong()),
    };
    let number: u32 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|ms| (1..=60_000).contains(ms)).ok_or_else(wrong)
}

/// `5%` or `0.5%`, in thousandths.
fn per_mille(text: &str) -> Result<u32, String> {
    let wrong = || "a part of a hundred such as 5% or 0.5% is expected".to_owned();
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let (whole, part): (u32, u32) = (
        whole.parse().map_err(|_| wrong())?,
        part.parse().ok().filter(|_| part.len() == 1).ok_or_else(wrong)?,
    );
    let lost = whole.checked_mul(10).and_then(|whole| whole.checked_add(part)).ok_or_else(wrong)?;
    if (1..=1000).contains(&lost) { Ok(lost) } else { Err(wrong()) }
}

/// `1Mbit` or `500kbit`, in thousands of bits a second.
fn rate(text: &str) -> Result<u32, String> {
    let wrong = || "a rate such as 500kbit or 1Mbit is expected".to_owned();
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = ["kbit", "mbit", "gbit"]
        .iter()
        .zip([1_u32, 1_000, 1_000_000])
        .find_map(|(suffix, unit)| Some((lower.strip_suffix(suffix)?.to_owned(), unit)))
        .ok_or_else(wrong)?;
    let number: u32 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|kbit| (8..=10_000_000).contains(kbit)).ok_or_else(wrong)
}

pub(super) async fn pause(docker: &Docker, args: FaultArgs, to: &Output, stop: &Stop) -> anyhow::Result<()> {
    run(docker, args, FaultKind::Pause, to, stop).await
}

pub(super) async fn kill(docker: &Docker, args: FaultArgs, to: &Output, stop: &Stop) -> anyhow::Result<()> {
    run(docker, args, FaultKind::Kill, to, stop).await
}

pub(super) async fn partition(
    docker: &Docker,
    args: PartitionArgs,
    to: &Output,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut from: Vec<Ipv4Addr> = Vec::new();
    for node in &args.from {
        from.push(node_ip(docker, &args.fault.of.cluster, node).await?);
    }
    run(docker, args.fault, FaultKind::Partition { from }, to, stop).await
}

pub(super) async fn slow(docker: &Docker, args: SlowArgs, to: &Output, stop: &Stop) -> anyhow::Result<()> {
    let kind = FaultKind::Slow {
        delay_ms: args.delay,
        jitter_ms: args.jitter,
        loss_per_mille: args.loss,
        rate_kbit: args.rate,
    };
    run(docker, args.fault, kind, to, stop).await
}

async fn run(
    docker: &Docker,
    args: FaultArgs,
    kind: FaultKind,
    output: &Output,
    stop: &Stop,
) -> anyhow::Result<()> {
    let seconds = u32::try_from(args.lasting.as_secs()).unwrap_or(u32::MAX);
    let mut containers = Vec::new();
    for node in &args.nodes {
        containers.push(find_node(docker, &args.of.cluster, node).await?);
    }
    let mut broken = Vec::new();
    for container in &containers {
        broken.push(begin_fault(docker, container, &kind, seconds).await?);
    }
    let told = || broken.iter().map(|broken| text(broken, &args.of.cluster)).collect::<String>();
    if !args.wait {
        return output.result(args.form.output, &broken, told);
    }
    if args.form.output == Format::Text && !output.quiet {
        print(&told())?;
    }
    let progress = reporter(output.quiet);
    let latest = broken.iter().map(|broken| broken.fault.until).max().unwrap_or_default();
    let waited = wait_healed(docker, &args.of.cluster, &containers, latest, progress.as_ref(), stop).await;
    if let Err(ClusterError::Interrupted) = waited {
        for container in &containers {
            heal(docker, container).await?;
        }
    }
    waited?;
    output.result(args.form.output, &broken, || "Healed, and Ready again.\n".to_owned())
}

fn text(broken: &Broken, cluster: &ClusterName) -> String {
    let until = broken.fault.until.to_zoned(TimeZone::system()).strftime("%H:%M:%S");
    let short = broken.node.strip_prefix(&format!("minik-{cluster}-")).unwrap_or(&broken.node);
    let sooner = format!("minik node heal {short} --cluster {cluster}");
    format!("{} is {} until {until}. Sooner: {sooner}\n", broken.node, broken.fault.kind)
}

pub(super) async fn run_heal(docker: &Docker, args: NamesArgs, output: &Output) -> anyhow::Result<()> {
    let mut healed = Vec::new();
    for node in &args.nodes {
        let container = find_node(docker, &args.of.cluster, node).await?;
        if container.running {
            healed.extend(heal(docker, &container).await?);
        }
    }
    output.result(args.form.output, &healed, || match healed.as_slice() {
        [] => "Nothing is broken on purpose.\n".to_owned(),
        healed => healed
            .iter()
            .map(|healed| format!("{} is no longer {}.\n", healed.node, healed.fault.kind))
            .collect(),
    })
}

/// Inside a node.
#[derive(Subcommand)]
pub(super) enum Inside {
    /// Break this node: what, as JSON, and for how many seconds.
    Begin { kind: String, seconds: u32 },
    /// Mend everything that is broken on purpose.
    Heal,
    /// What is broken on purpose.
    List,
    /// Wait until then, and heal.
    Keep { name: String, until: Timestamp },
    /// When the input ends, end process 1.
    Strike,
}

pub(super) async fn run_inside(command: &Inside) -> anyhow::Result<()> {
    let here = Faults::of_this_node();
    match command {
        Inside::Begin { kind, seconds } => {
            let kind: FaultKind =
                serde_json::from_str(kind).map_err(|error| SpecError::Node(error.to_string()))?;
            let begun = here.begin(kind, *seconds).await?;
            print(&format!("{}\n", json!(begun.fault)))?;
            drop(begun.strike);
            Ok(())
        }
        Inside::Heal => print(&format!("{}\n", json!(here.heal(None).await?))),
        Inside::List => print(&format!("{}\n", json!(here.list()))),
        Inside::Keep { name, until } => Ok(here.keep(name, *until).await?),
        Inside::Strike => {
            // What went wrong with the input ends it as well.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
            Ok(init::end_at_once()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_slow_is_written_as_people_do() {
        assert_eq!((milliseconds("200ms"), milliseconds("2s")), (Ok(200), Ok(2000)));
        assert_eq!((per_mille("5%"), per_mille("0.5%"), per_mille("100%")), (Ok(50), Ok(5), Ok(1000)));
        assert_eq!((rate("500kbit"), rate("1Mbit"), rate("1gbit")), (Ok(500), Ok(1000), Ok(1_000_000)));
        for bad in ["", "200", "0ms", "ms", "61s", "-1s"] {
            assert!(milliseconds(bad).is_err(), "{bad}");
        }
        for bad in ["", "5", "0%", "101%", "0.05%", "x%"] {
            assert!(per_mille(bad).is_err(), "{bad}");
        }
        for bad in ["", "1", "1bit", "1kbit", "99gbit", "fastmbit"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
