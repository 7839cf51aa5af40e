use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use netproof_audit::write_atomically;
use netproof_challenges::training_registry;
use netproof_data::write_png;
use netproof_train::logs::{MlflowFolder, TensorBoard};
use netproof_train::{
    EXAMPLE, Ended, EpochRecord, Job, Metrics, Recipe, Record, Registry, RunOptions, StepReport, Watch, average,
    preview, train,
};

use crate::args::{Threads, read_recipe};
use crate::output::{print, write_json};
use crate::progress::interrupts;

/// Train a network, or fine-tune one, as a recipe says.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof train --example > recipe.toml
  netproof train recipe.toml --out model.onnx
  netproof train recipe.toml --out model.onnx --resume
  netproof train recipe.toml --preview sheet.png
  netproof train recipe.toml --tensorboard runs --mlflow mlruns

Writes the network with the best weights, unless those are the first, and beside it MODEL.train.json: every epoch, the recipe, hashes. A training that is
interrupted (Ctrl-C, or by force) goes on with --resume and ends with the same bits. Paths in a recipe are relative to it.
Exit code 0: trained; 1: interrupted, diverged, or no epoch was better than the beginning; 2: could not run.")]
pub(crate) struct Train {
    /// The recipe (TOML).
    #[arg(value_name = "RECIPE.toml", required_unless_present = "example")]
    recipe: Option<PathBuf>,
    /// Print an annotated recipe and end.
    #[arg(long, conflicts_with = "recipe")]
    example: bool,
    /// Where the network goes [default: the recipe's name with .onnx].
    #[arg(long, value_name = "MODEL")]
    out: Option<PathBuf>,
    /// Go on from the checkpoint of an interrupted training.
    #[arg(long)]
    resume: bool,
    /// Seed of every random draw, instead of the recipe's.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Number of epochs, instead of the recipe's.
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Also write TensorBoard event files into this folder.
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
    /// Also write a run into this folder, laid out as MLflow's file store.
    #[arg(long, value_name = "DIR")]
    mlflow: Option<PathBuf>,
    /// Write a picture (PNG) of some training images and of what augmentation makes of them, and end.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "resume"])]
    preview: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
    /// Also write the training record here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Train {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let Some(path) = self.recipe.as_deref().filter(|_| !self.example) else {
            print(EXAMPLE)?;
            return Ok(true);
        };
        self.threads.start()?;
        let registry = training_registry();
        let mut recipe = read_recipe(path, &registry)?;
        recipe.seed = self.seed.unwrap_or(recipe.seed);
        recipe.epochs = self.epochs.unwrap_or(recipe.epochs);
        if let Some(file) = &self.preview {
            let job = Job::open(&recipe, &registry)?;
            let sheet = preview(&recipe, &job, &registry, PREVIEW[0], PREVIEW[1])?;
            write_png(file, [sheet.width, sheet.height, sheet.channels], &sheet.pixels)?;
            eprintln!("saved {}: the first column is as it is, the others are changed", file.display());
            return Ok(true);
        }
        let out = self.out.clone().unwrap_or_else(|| path.with_extension("onnx"));
        ensure!(!out.is_dir(), "--out {} is a folder; name a file such as model.onnx", out.display());
        if recipe.members > 1 {
            return self.members(&recipe, &registry, &out);
        }
        let checkpoint = beside(&out, "checkpoint");
        if self.resume && !checkpoint.exists() {
            eprintln!("there is no checkpoint {}; training from the beginning", checkpoint.display());
        }
        let lines = Lines::new(self.logs(&recipe)?);
        let interrupt = interrupts("saving a checkpoint")?;
        let job = Job::open(&recipe, &registry)?;
        let options = RunOptions {
            checkpoint: Some(&checkpoint),
            resume: self.resume,
            interrupt: Some(&interrupt),
            watch: &lines,
            ..RunOptions::default()
        };
        let trained = train(&recipe, job, &registry, &options)?;
        lines.clear();
        lines.check()?;
        let record = &trained.record;
        // Weights that are no better than those of the beginning replace nothing.
        if record.best_epoch > 0 {
            write_atomically(&out, &trained.model.to_file()?.to_bytes())?;
        }
        write_json(&beside(&out, "train.json"), record)?;
        if let Some(path) = &self.json {
            write_json(path, record)?;
        }
        if record.ended != Ended::Interrupted {
            // What is finished needs no checkpoint; one that cannot be removed does no harm.
            let _ = std::fs::remove_file(&checkpoint);
        }
        Ok(tell(record, &out, &checkpoint))
    }

    /// Trains members one by one, each with its own checkpoint and record, and writes their average.
    fn members(&self, recipe: &Recipe, registry: &Registry, out: &Path) -> anyhow::Result<bool> {
        let interrupt = interrupts("saving a checkpoint")?;
        let (mut models, mut fine) = (Vec::new(), true);
        for member in 0..recipe.members {
            eprintln!("member {} of {}", member + 1, recipe.members);
            let own = Recipe { seed: recipe.seed + member, members: 1, ..recipe.clone() };
            let checkpoint = beside(out, &format!("member{}.checkpoint", member + 1));
            let lines = Lines::new(self.logs(&own)?);
            let options = RunOptions {
                checkpoint: Some(&checkpoint),
                resume: self.resume,
                interrupt: Some(&interrupt),
                watch: &lines,
                ..RunOptions::default()
            };
            let trained = train(&own, Job::open(&own, registry)?, registry, &options)?;
            lines.clear();
            lines.check()?;
            write_json(&beside(out, &format!("member{}.train.json", member + 1)), &trained.record)?;
            if trained.record.ended == Ended::Interrupted {
                eprintln!("interrupted: --resume goes on with member {}", member + 1);
                return Ok(false);
            }
            fine &= trained.record.best_epoch > 0 && !matches!(trained.record.ended, Ended::Diverged { .. });
            models.push(trained.model);
        }
        let model = average(recipe, models, registry)?;
        write_atomically(out, &model.to_file()?.to_bytes())?;
        for member in 1..=recipe.members {
            let _ = std::fs::remove_file(beside(out, &format!("member{member}.checkpoint")));
        }
        eprintln!("saved {}: the average of {} networks", out.display(), recipe.members);
        Ok(fine)
    }

    fn logs(&self, recipe: &Recipe) -> anyhow::Result<Vec<Box<dyn Watch + Send>>> {
        let mut logs: Vec<Box<dyn Watch + Send>> = Vec::new();
        if let Some(folder) = &self.tensorboard {
            let log = TensorBoard::create(folder);
            logs.push(Box::new(log.with_context(|| format!("writing events into {}", folder.display()))?));
        }
        if let Some(folder) = &self.mlflow {
            let log = MlflowFolder::create(folder, recipe);
            logs.push(Box::new(log.with_context(|| format!("writing a run into {}", folder.display()))?));
        }
        Ok(logs)
    }
}

/// Images of a preview, and how often each is changed.
const PREVIEW: [usize; 2] = [10, 9];

/// `model.onnx` and `checkpoint` give `model.checkpoint`.
fn beside(out: &Path, extension: &str) -> PathBuf {
    out.with_extension(extension)
}

/// Says how it ended; answers whether there is nothing of concern.
fn tell(record: &Record, out: &Path, checkpoint: &Path) -> bool {
    let best = match record.best_epoch {
        0 => "the weights are those of the beginning, since no epoch was better".to_owned(),
        n => format!("the weights are those of epoch {n}, the best"),
    };
    let fine = match &record.ended {
        Ended::Completed => {
            eprintln!("trained: {best}");
            record.best_epoch > 0
        }
        Ended::Stopped { reason } => {
            eprintln!("ended early: {reason}; {best}");
            record.best_epoch > 0
        }
        Ended::Interrupted => {
            eprintln!("interrupted: {best}; --resume goes on from {}", checkpoint.display());
            false
        }
        Ended::Diverged { step, reason } => {
            eprintln!("diverged at step {step}: {reason}; {best}");
            false
        }
    };
    let network = if record.best_epoch > 0 { format!("{} and ", out.display()) } else { String::new() };
    eprintln!("saved {network}{} after {:.1} s", beside(out, "train.json").display(), record.seconds);
    fine
}

/// What a person sees: a line per epoch, and on a terminal one that changes in between.
struct Lines {
    logs: Vec<Box<dyn Watch + Send>>,
    shown: Mutex<Shown>,
}

struct Shown {
    last: Option<Instant>,
    /// When the first step of this process was done, and its number.
    started: Option<(Instant, u64)>,
    line: bool,
}

const INTERVAL: Duration = Duration::from_millis(200);

impl Lines {
    fn new(logs: Vec<Box<dyn Watch + Send>>) -> Self {
        Self { logs, shown: Mutex::new(Shown { last: None, started: None, line: false }) }
    }

    fn clear(&self) {
        let Ok(mut shown) = self.shown.lock() else { return };
        if std::mem::take(&mut shown.line) {
            eprint!("\r\x1b[2K");
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        for log in &self.logs {
            if let Some(error) = log.failure() {
                bail!("the network was trained and saved, but a log could not be written: {error}");
            }
        }
        Ok(())
    }
}

fn said(name: &str, m: &Metrics) -> String {
    let accuracy = m.accuracy.map(|a| format!(", accuracy {:.2} %", a * 100.0)).unwrap_or_default();
    format!("{name} loss {:.4}{accuracy}", m.loss)
}

impl Watch for Lines {
    fn step(&self, step: &StepReport) {
        self.logs.iter().for_each(|l| l.step(step));
        let Ok(mut shown) = self.shown.lock() else { return };
        let now = Instant::now();
        let (began, first) = *shown.started.get_or_insert((now, step.step));
        if !std::io::stderr().is_terminal() || shown.last.is_some_and(|l| now - l < INTERVAL) {
            return;
        }
        shown.last = Some(now);
        shown.line = true;
        let done = (step.step - first).max(1) as f64;
        let left = (now - began).as_secs_f64() / done * step.total.saturating_sub(step.step) as f64;
        eprint!(
            "\r\x1b[2Kepoch {}, step {} of {}, loss {:.4}, rate {:.2e}, {left:.0} s left",
            step.epoch, step.step, step.total, step.loss, step.learning_rate
        );
        let _ = std::io::stderr().flush();
    }

    fn epoch(&self, e: &EpochRecord) {
        self.logs.iter().for_each(|l| l.epoch(e));
        self.clear();
        let validation = e.validation.as_ref().map(|v| format!("; {}", said("validation", v))).unwrap_or_default();
        let robust = e.robust.as_ref().map(|v| format!("; {}", said("under attack", v))).unwrap_or_default();
        let best = if e.is_best { ", best so far" } else { "" };
        eprintln!("epoch {}: {}{validation}{robust}{best}, {:.1} s", e.epoch, said("training", &e.train), e.seconds);
    }

    fn note(&self, text: &str) {
        self.logs.iter().for_each(|l| l.note(text));
        self.clear();
        eprintln!("note: {text}");
    }
}
