//! `minik version`.

use serde::Serialize;

use super::options::Form;
use super::output::Output;
use cluster::{Docker, labels};
use config::BuildInfo;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    form: Form,
}

/// Of which state of the source this program is made.
pub(super) const BUILD: BuildInfo = BuildInfo { commit: env!("MINIK_COMMIT"), date: env!("MINIK_DATE") };

/// The level of the Kubernetes API.
const KUBERNETES: &str = "v1.36";

#[derive(Serialize)]
struct Versions {
    minik: &'static str,
    /// Forty digits; zeros where it was not built from a checkout.
    commit: &'static str,
    kubernetes: &'static str,
    /// Absent where no engine answers.
    docker: Option<String>,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let docker = match Docker::connect().await {
        Ok(docker) => docker.engine_version().await.ok(),
        Err(_) => None,
    };
    let versions =
        Versions { minik: labels::THIS_VERSION, commit: BUILD.commit, kubernetes: KUBERNETES, docker };
    Output::told(args.form.output, &versions, || {
        let docker = versions.docker.as_deref().unwrap_or("not reachable");
        format!(
            "minik       {}\ncommit      {}\nKubernetes  {KUBERNETES}\nDocker      {docker}\n",
            versions.minik, versions.commit
        )
    })
}
