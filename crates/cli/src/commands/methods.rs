use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use netproof_challenges::cards;
use netproof_core::Card;

use crate::output::{print, write_json};

/// List every method with its source, or show one.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof methods
  netproof methods calibration
  netproof methods --json -")]
pub(crate) struct Methods {
    /// Only this one, with its options.
    id: Option<String>,
    /// Write the cards here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Methods {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let all = cards();
        let chosen: Vec<Card> = match &self.id {
            None => all,
            Some(id) => {
                let known: Vec<&str> = all.iter().map(|c| c.id).collect();
                match all.iter().find(|c| c.id == id) {
                    Some(card) => vec![*card],
                    None => bail!("there is no method `{id}`; there are {}", known.join(", ")),
                }
            }
        };
        if let Some(path) = self.json {
            write_json(&path, &chosen)?;
            return Ok(true);
        }
        let mut text = String::new();
        if self.id.is_some() {
            chosen.iter().for_each(|c| one(&mut text, c));
        } else {
            for c in &chosen {
                let _ = writeln!(text, "{:<22} {:<8} {:<20} {}", c.id, c.kind.name(), c.challenge.title(), c.title);
            }
        }
        print(&text)?;
        Ok(true)
    }
}

fn one(text: &mut String, c: &Card) {
    let needs: Vec<_> = c.needs.iter().map(|n| n.name()).collect();
    let needs = if needs.is_empty() { "nothing but a network and data".to_owned() } else { needs.join(", ") };
    let _ = writeln!(text, "{} ({}, {})\n\n{}\n", c.title, c.kind.name(), c.challenge.title(), c.measures);
    let _ = writeln!(text, "Source: {}\nNeeds: {needs}", c.reference);
    if !c.options.is_empty() {
        let _ = writeln!(text, "\nOptions (--set {}.NAME=VALUE):", c.id);
    }
    for o in c.options {
        let _ = writeln!(text, "  {} = {}\n      {}", o.name, o.default, o.doc);
    }
}
