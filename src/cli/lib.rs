//! The command line: one file per noun, output forms and exit codes.

mod backup;
mod cluster;
mod completion;
mod config;
mod doctor;
mod exit;
mod image;
mod inspect;
mod kubeconfig;
mod logs;
mod man;
mod node;
mod node_faults;
mod node_images;
mod options;
mod output;
mod progress;
mod registry;
mod run;
mod snapshot;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use ::node::cni::plugin;
pub use exit::Exit;
use output::Output;
use rt::{Stop, Tasks};

/// The version, and the commit it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("MINIK_COMMIT"), ")");

/// A local Kubernetes: every node a Docker container.
#[derive(Parser)]
#[command(name = "minik", version = VERSION, about, propagate_version = true, after_help = exit::HELP)]
struct Cli {
    /// Say nothing but results and errors.
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make, remove and list clusters.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Kubeconfig entries of clusters.
    #[command(subcommand)]
    Kubeconfig(kubeconfig::Command),
    /// Images on the nodes of a cluster.
    #[command(subcommand)]
    Image(image::Command),
    /// Registries that the host pushes to and all clusters pull from.
    #[command(subcommand)]
    Registry(registry::Command),
    /// What clusters were: kept, put back, made into new clusters.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// The objects of clusters in files: kept, put back, made into new clusters.
    #[command(subcommand)]
    Backup(backup::Command),
    /// What would happen in a cluster, and why.
    #[command(subcommand)]
    Inspect(inspect::Command),
    /// The version of minik, of the Kubernetes API it offers, and of Docker.
    Version(version::Args),
    /// A completion script for a shell.
    Completion(completion::Args),
    /// Run one command with a cluster of its own, which is removed afterwards.
    Run(run::RunArgs),
    /// The configuration file of a cluster.
    #[command(subcommand)]
    Config(config::Command),
    /// Look for what keeps clusters from working on this machine, and say what mends it.
    Doctor(doctor::Args),
    /// What a cluster wrote.
    #[command(subcommand)]
    Logs(logs::Command),
    /// Single nodes of a cluster.
    #[command(subcommand)]
    Node(node::Command),
    /// Write the manual pages.
    #[command(hide = true)]
    Man(man::Args),
}

/// Parses the arguments, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    // Once for every Pod and its end: nothing else is set up before.
    if let Some(exit) = plugin::called() {
        return exit;
    }
    completion::answer();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; everything else is a wrong call. Nothing is lost when nobody reads it.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    // An init has to exist before any thread does.
    if let Command::Node(command) = &cli.command
        && let Some(exit) = node::inside(command)
    {
        return exit;
    }
    output::log_to_stderr();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::print_error(&anyhow::Error::new(error).context("cannot start the runtime"));
            return Exit::Failure.into();
        }
    };
    let result = runtime.block_on(dispatch(cli));
    runtime.shutdown_background();
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            output::print_error(&error);
            Exit::of(&error).into()
        }
    }
}

/// Answers the exit code.
async fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    // The TLS library is compiled without a default; a second call would only find it set.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tasks = Tasks::new();
    let stop = stop_on_signals(&tasks)?;
    let output = Output { quiet: cli.quiet };
    let done = match cli.command {
        Command::Cluster(command) => cluster::run(command, &output, &stop).await,
        Command::Kubeconfig(command) => kubeconfig::run(command, &output).await,
        Command::Inspect(command) => inspect::run(command, &output, &stop).await,
        Command::Image(command) => image::run(command, &output, &stop).await,
        Command::Snapshot(command) => snapshot::run(command, &output, &stop).await,
        Command::Backup(command) => backup::run(command, &output, &stop).await,
        Command::Registry(command) => registry::run(command, &output, &stop).await,
        Command::Run(args) => return run::run(args, &output, &stop).await,
        Command::Config(command) => config::run(&command, &output),
        Command::Doctor(args) => return doctor::run(&args).await,
        Command::Logs(command) => logs::run(command, &output).await,
        Command::Version(args) => version::run(&args).await,
        Command::Completion(args) => completion::run(&args),
        Command::Node(command) => node::run(command, &output, &stop).await,
        Command::Man(args) => man::run(&args),
    };
    done.map(|()| Exit::Ok.code())
}

/// A token that the first Ctrl-C or SIGTERM cancels; the second one ends the program at once.
fn stop_on_signals(tasks: &Tasks) -> anyhow::Result<Stop> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = Stop::new();
    let cancel = stop.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                std::process::exit(i32::from(Exit::Interrupted.code()));
            }
            cancel.cancel();
        }
    });
    Ok(stop)
}
