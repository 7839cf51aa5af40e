use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

/// Print shell completions.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof completions bash > ~/.local/share/bash-completion/completions/netproof
  netproof completions zsh > ~/.zfunc/_netproof")]
pub(crate) struct Completions {
    /// For which shell.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let mut text = Vec::new();
        generate(self.shell, &mut crate::Cli::command(), "netproof", &mut text);
        crate::output::print(&String::from_utf8_lossy(&text))?;
        Ok(true)
    }
}
