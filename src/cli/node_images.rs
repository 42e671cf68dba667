//! `minik node images`, hidden: what the command line on the host asks of the program inside a node.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;
use tokio::net::unix::pipe;

use super::output::print;
use config::image_store;
use node::images::{self, Images, Wanted};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Take images from the store; returns those it does not have.
    Ensure {
        /// A list of names and sources, as JSON.
        wanted: String,
    },
    /// Read back what a load wrote.
    Verify { load: String },
    /// What the node has.
    List,
    /// Fetch an image from its registry.
    Pull { name: String },
    /// Remove an image; returns whether it was there.
    Remove { name: String },
    /// Remove what no container uses.
    Prune,
    /// Clear the store; for the container that has it to write.
    Compact,
}

pub(super) async fn run(command: &Command) -> anyhow::Result<()> {
    let here = Images::of_this_node();
    // A node that has just started may still be taking what the store has. The store itself is another matter.
    let _alone = match command {
        Command::Ensure { .. } | Command::List | Command::Remove { .. } | Command::Prune => images::lock(),
        Command::Verify { .. } | Command::Pull { .. } | Command::Compact => None,
    };
    let store = Path::new(image_store::DIR);
    let answer = match command {
        Command::Ensure { wanted } => {
            let wanted: Vec<Wanted> = serde_json::from_str(wanted)?;
            json!(here.ensure(&wanted).await?)
        }
        Command::Verify { load } => {
            images::verify(store, load)?;
            json!(true)
        }
        Command::List => {
            let images = here.list().await?;
            let told = |image: &node::cri::api::Image| {
                let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
                json!({"id": image.id, "names": names, "size": image.size})
            };
            json!(images.iter().map(told).collect::<Vec<_>>())
        }
        Command::Pull { name } => tokio::select! {
            pulled = here.pull(name) => json!(pulled?),
            () = nobody_waits() => bail!("nobody waits for {name} any more"),
        },
        Command::Remove { name } => json!(here.remove(name).await?),
        Command::Prune => json!(here.prune().await?),
        Command::Compact => json!(images::compact(store, |_| true)?),
    };
    print(&format!("{answer}\n"))
}

/// Resolves when the command on the host has gone: the pipe that it holds open ends.
async fn nobody_waits() {
    let own = std::io::stdin().as_fd().try_clone_to_owned();
    match own.and_then(pipe::Receiver::from_owned_fd) {
        Ok(mut input) => drop(tokio::io::copy(&mut input, &mut tokio::io::sink()).await),
        // Somebody calls it by hand.
        Err(_) => std::future::pending().await,
    }
}
