//! `minik node images`, hidden: what the command line on the host asks of the program inside a node.

use std::path::Path;

use clap::Subcommand;
use serde_json::json;

use super::output::print;
use crate::config::image_store;
use crate::node::images::{self, Images, Wanted};

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
            let told = |image: &crate::node::cri::api::Image| {
                let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
                json!({"id": image.id, "names": names, "size": image.size})
            };
            json!(images.iter().map(told).collect::<Vec<_>>())
        }
        Command::Pull { name } => json!(here.pull(name).await?),
        Command::Remove { name } => json!(here.remove(name).await?),
        Command::Prune => json!(here.prune().await?),
        Command::Compact => json!(images::compact(store, |_| true)?),
    };
    print(&format!("{answer}\n"))
}
