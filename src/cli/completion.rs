//! `minik completion`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::output::print;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The shell: `source <(minik completion bash)`.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "minik", &mut script);
    print(&String::from_utf8(script)?)
}
