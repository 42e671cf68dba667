//! `minik registry`: registries that the host pushes to and all clusters pull from.

use std::net::Ipv4Addr;

use clap::{Args, Subcommand};
use serde_json::json;

use super::cluster::{api_port, name};
use super::completion::registries;
use super::options::Form;
use super::output::{self, Output};
use super::progress::reporter;
use cluster::{
    ClusterError, ClusterName, Docker, create_registry, delete_registry, list_registries, start_registry,
    stop_registry,
};
use rt::Stop;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a registry that all clusters know, those that come later as well.
    Create(CreateArgs),
    /// Remove registries with all their images.
    #[command(visible_alias = "rm")]
    Delete(NamesArgs),
    /// List registries.
    #[command(visible_alias = "ls")]
    List(Form),
    /// Start registries that were stopped.
    Start(NamesArgs),
    /// Stop registries; their images are kept.
    Stop(NamesArgs),
}

#[derive(Args)]
pub(super) struct CreateArgs {
    /// Its name; in clusters it is minik-registry-NAME.
    #[arg(default_value = ClusterName::DEFAULT, value_parser = name)]
    name: ClusterName,
    /// Its port on the host, with the address to listen on if it is another than 127.0.0.1: [IP:]PORT.
    #[arg(short, long, default_value = "5000", value_name = "PORT", value_parser = api_port)]
    port: (Option<Ipv4Addr>, u16),
    /// Make it from this image instead of the node image that minik builds.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    #[command(flatten)]
    form: Form,
}

#[derive(Args)]
pub(super) struct NamesArgs {
    /// The registries.
    #[arg(default_value = ClusterName::DEFAULT, value_parser = name, add = registries())]
    names: Vec<ClusterName>,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(command: Command, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let docker = Docker::connect().await.map_err(ClusterError::from)?;
    match command {
        Command::Create(args) => create(&docker, &args, output, stop).await,
        Command::List(form) => list(&docker, &form).await,
        Command::Delete(args) => {
            let progress = reporter(output.quiet);
            let mut done = Vec::new();
            for name in &args.names {
                if delete_registry(&docker, name.as_str(), progress.as_ref()).await? {
                    done.push(name.to_string());
                }
            }
            say(&args, output, "deleted", &done)
        }
        Command::Start(args) => {
            let mut done = Vec::new();
            for name in &args.names {
                if start_registry(&docker, name.as_str()).await? {
                    done.push(name.to_string());
                }
            }
            say(&args, output, "started", &done)
        }
        Command::Stop(args) => {
            let mut done = Vec::new();
            for name in &args.names {
                if stop_registry(&docker, name.as_str()).await? {
                    done.push(name.to_string());
                }
            }
            say(&args, output, "stopped", &done)
        }
    }
}

async fn create(docker: &Docker, args: &CreateArgs, output: &Output, stop: &Stop) -> anyhow::Result<()> {
    let progress = reporter(output.quiet);
    let at = (args.port.0.unwrap_or(Ipv4Addr::LOCALHOST), args.port.1);
    let image = args.image.as_deref();
    let (registry, fresh) = create_registry(docker, &args.name, at, image, progress.as_ref(), stop).await?;
    output.result(args.form.output, &registry, || {
        let is = if fresh { "is there" } else { "was there already" };
        format!(
            "Registry {:?} {is}: docker push {}/IMAGE. In clusters it has the same name, and {}.\n",
            registry.name, registry.host, registry.inside
        )
    })
}

async fn list(docker: &Docker, form: &Form) -> anyhow::Result<()> {
    let found = list_registries(docker).await?;
    Output::told(form.output, &found, || match found.as_slice() {
        [] => "No registries. Make one: minik registry create\n".to_owned(),
        found => {
            let state = |running| if running { "Running" } else { "Stopped" };
            let rows: Vec<Vec<String>> = found
                .iter()
                .map(|r| vec![r.name.clone(), state(r.running).to_owned(), r.host.clone(), r.inside.clone()])
                .collect();
            output::table(&["NAME", "STATE", "HOST", "IN CLUSTERS"], &rows)
        }
    })
}

fn say(args: &NamesArgs, output: &Output, what: &str, names: &[String]) -> anyhow::Result<()> {
    output.result(args.form.output, &json!({ what: names }), || match names {
        [] => format!("Already {what}.\n"),
        names => names.iter().map(|name| format!("Registry {name:?} is {what}.\n")).collect(),
    })
}
