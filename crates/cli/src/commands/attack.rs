use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use netproof_audit::{Part, context};
use netproof_challenges::adversarial::checks::surrogates;
use netproof_challenges::adversarial::harness::Harness;
use netproof_challenges::adversarial::motion::Motion;
use netproof_challenges::adversarial::possible::Possible;
use netproof_challenges::adversarial::protocol::Method;
use netproof_challenges::adversarial::report::{AttackReport, ROBUST};
use netproof_challenges::adversarial::victim::Victim;
use netproof_challenges::certifiers;
use netproof_core::{Norm, Threat};
use netproof_data::{Limits, read_npz, write_npz};
use netproof_stats::Level;
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::args::{SubjectArgs, duration};
use crate::output::write_json;
use crate::progress::Terminal;

/// Name of the record in a run's folder.
pub(crate) const RECORD: &str = "attack.json";
/// Name of the examples in a run's folder.
pub(crate) const EXAMPLES: &str = "adversarial.npz";

/// Array that says how each example was turned and moved: degrees, pixels to the right, pixels down.
const MOTION: &str = "motion";

/// Attack a network: how many rows stay right under small deliberate changes.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof attack model.onnx --data images.gz:labels.gz --norm linf --eps 0.1 --limit 500
  netproof attack model.onnx --data test.npz --method autoattack --norm linf --eps 0.031 --dir run
  netproof attack model.onnx --data test.npz --norm l2 --eps 0.5 --budget 10m --out adversarial.npz --resume
  netproof attack model.onnx --data test.npz --norm patch --eps 5 --dir run
  netproof attack model.onnx --data test.npz --norm spatial --eps 1 --dir run
  netproof attack model.onnx --data test.npz --method transfer --surrogate other.onnx --norm linf --eps 0.1
  netproof attack model.onnx --data table.parquet --norm linf --eps 5 --bounds -1e6,1e6 --constraints constraints.toml

`netproof methods` lists the attacks. --out holds `adversarial`, `robust` (still right after the attack), `norm`, and `label`,
`row` and `clean` for who wants to check. `netproof verify DIR` replays the examples of --dir. With --budget the result is what
is known when the time is over; --resume goes on from the examples in --out or --dir.")]
pub(crate) struct Attack {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Which attack or protocol [default: the cascade; for l0, patch and spatial the attack that is made for it].
    #[arg(long, value_name = "ID")]
    method: Option<String>,
    /// How the size of a change is measured.
    #[arg(long, value_enum, default_value = "linf")]
    norm: NormArg,
    /// Largest change, in units of the features after reading (pixels are 0 to 1); for l0 a number of features.
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    eps: f64,
    /// Least and largest value of a feature.
    #[arg(long, value_delimiter = ',', default_value = "0,1", allow_hyphen_values = true, value_name = "LOW,HIGH")]
    bounds: Vec<f64>,
    /// Time for all attacks, such as 90s, 10m or 2h; rows that are not decided then count as right.
    #[arg(long, value_parser = duration)]
    budget: Option<Duration>,
    /// Go on from the examples that an earlier run left in --out or --dir; each is checked again.
    #[arg(long)]
    resume: bool,
    /// Where the examples go (NPZ).
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Folder for all that `netproof verify` needs.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write the result here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NormArg {
    /// The largest change of a feature.
    Linf,
    /// The root of the sum of squares.
    L2,
    /// The sum of absolute changes.
    L1,
    /// The number of features that change.
    L0,
    /// The side of the square of pixels in which everything may change.
    Patch,
    /// Rotation and shift: 1 is up to 30 degrees and a tenth of the side.
    Spatial,
}

impl From<NormArg> for Norm {
    fn from(n: NormArg) -> Self {
        match n {
            NormArg::Linf => Self::Linf,
            NormArg::L2 => Self::L2,
            NormArg::L1 => Self::L1,
            NormArg::L0 => Self::L0,
            NormArg::Patch => Self::Patch,
            NormArg::Spatial => Self::Spatial,
        }
    }
}

/// What a run was about: enough to check its examples.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The network's file.
    pub(crate) model: PathBuf,
    /// SHA-256 of the network, normalisation included.
    pub(crate) model_sha256: String,
    /// Normalisation in front of it.
    pub(crate) mean: Option<Vec<f32>>,
    pub(crate) std: Option<Vec<f32>>,
    /// The data, as given.
    pub(crate) data: String,
    /// SHA-256 over the content of the rows.
    pub(crate) data_sha256: String,
    #[serde(flatten)]
    pub(crate) report: AttackReport,
}

impl Attack {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let (mean, std) = (self.subject.mean.clone(), self.subject.std.clone());
        let (model, data) = (self.subject.model.clone(), self.subject.data.clone());
        let loaded = self.subject.load()?;
        let bounds = match self.bounds[..] {
            [low, high] => [low, high],
            _ => bail!("--bounds needs two numbers, such as 0,1"),
        };
        let threat = Threat::new(self.norm.into(), self.eps, bounds)?;
        let method = Method::find(self.method.as_deref().unwrap_or(Method::default_for(threat.norm)), &loaded.options)?;
        let progress = Terminal::default();
        let subject = &loaded.subject;
        let cx = context(subject, method.card(), method.options(), loaded.seed, Level::P95, &progress)?;
        let scan = subject.scan(Part::Test, &cx)?.context("there are no data")?;
        let rows = subject.data().load()?;
        let Some(labels) = rows.labels.classes() else {
            bail!("the labels are numbers; an attack needs classes, see --task and --label")
        };
        let victim = Victim::of(subject)?;
        let deadline = self.budget.and_then(|b| Instant::now().checked_add(b));
        let mut harness = Harness::new(&victim, threat, &rows.features, labels, &rows.row_ids, loaded.seed, &progress)?
            .keeping(Possible::of_subject(subject, victim.row_len())?)
            .with_surrogates(surrogates(subject, &victim, &rows.features)?)
            .until(deadline);
        let examples = self.dir.as_ref().map(|d| d.join(EXAMPLES));
        let kept = self.out.iter().chain(&examples).find(|p| p.is_file());
        if self.resume
            && let Some(path) = kept
        {
            let found = earlier(path, &rows.features, &rows.row_ids)?;
            let motions = if threat.norm == Norm::Spatial { earlier_motions(path)? } else { Vec::new() };
            harness.replay("earlier run", &found, &motions)?;
        }
        method.run(&mut harness, &certifiers())?;
        let report = AttackReport::of(&harness, &method, loaded.seed, Level::P95)?;
        eprint!("{}", text(&report));
        for path in self.out.iter().chain(&examples) {
            if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
            }
            write_examples(path, &harness, rows.features.shape())?;
            eprintln!("examples written to {}", path.display());
        }
        let project = &loaded.project;
        let record = Record {
            model: absolute(project.model.clone().unwrap_or(model)),
            model_sha256: subject.model_digest().to_owned(),
            mean: mean.or_else(|| project.mean.clone()),
            std: std.or_else(|| project.std.clone()),
            data: data.or_else(|| project.data.path.clone()).unwrap_or_default(),
            data_sha256: scan.content.clone(),
            report,
        };
        if let Some(dir) = &self.dir {
            write_json(&dir.join(RECORD), &record)?;
        }
        if let Some(path) = &self.json {
            write_json(path, &record)?;
        }
        Ok(true)
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Examples of an earlier run, for the same rows.
fn earlier(path: &Path, features: &Tensor, row_ids: &[u64]) -> anyhow::Result<Vec<f32>> {
    let arrays = read_npz(path, &["adversarial", "row"], Limits::default())
        .with_context(|| format!("reading the examples of the earlier run, {}", path.display()))?;
    let [examples, rows] = &arrays[..] else { bail!("{} lacks an array", path.display()) };
    let ids: Vec<i64> = row_ids.iter().map(|&r| r as i64).collect();
    ensure!(
        examples.len() == features.len() && rows.as_i64() == Some(&ids),
        "{} is of other rows; leave --resume out, or give the same data and --limit",
        path.display()
    );
    examples.as_f32().map(<[f32]>::to_vec).context("the examples are no floats")
}

/// How the examples of an earlier run were turned and moved.
fn earlier_motions(path: &Path) -> anyhow::Result<Vec<Motion>> {
    let arrays = read_npz(path, &[MOTION], Limits::default())
        .with_context(|| format!("reading how the examples of {} were turned and moved", path.display()))?;
    let values = arrays.first().and_then(Tensor::as_f32).context("the motions are no floats")?;
    Ok(values.chunks_exact(3).map(|m| Motion { degrees: m[0], right: m[1], down: m[2] }).collect())
}

fn write_examples(path: &Path, harness: &Harness<'_, '_>, shape: &[usize]) -> anyhow::Result<()> {
    let n = harness.len();
    let floats = |shape: &[usize], v: &[f32]| Tensor::f32(shape.to_vec(), v.to_vec());
    let adversarial = floats(shape, harness.adversarial())?;
    let clean = floats(shape, harness.clean())?;
    let robust = Tensor::bool(vec![n], harness.outcomes().iter().map(|o| o.fate.is_robust()).collect())?;
    let norms: Vec<f32> = harness.outcomes().iter().map(|o| o.norm as f32).collect();
    let norm = floats(&[n], &norms)?;
    let label = Tensor::i64(vec![n], harness.labels().iter().map(|&l| l as i64).collect())?;
    let row = Tensor::i64(vec![n], harness.row_ids().iter().map(|&r| r as i64).collect())?;
    let motions: Vec<f32> = harness.motions().iter().flat_map(|m| [m.degrees, m.right, m.down]).collect();
    let motion = floats(&[n, 3], &motions)?;
    let mut arrays = vec![
        ("adversarial", &adversarial),
        (ROBUST, &robust),
        ("norm", &norm),
        ("label", &label),
        ("row", &row),
        ("clean", &clean),
    ];
    if harness.threat().norm == Norm::Spatial {
        arrays.push((MOTION, &motion));
    }
    Ok(write_npz(path, &arrays)?)
}

fn text(r: &AttackReport) -> String {
    use std::fmt::Write as _;
    let percent = |v: f64| format!("{:.2} %", 100.0 * v);
    let mut out = String::new();
    let _ = writeln!(out, "{} rows, {}: {} right without a change", r.rows, r.threat, percent(r.clean_accuracy));
    for s in &r.stages {
        let _ = writeln!(
            out,
            "  {:<18} {:>6} rows {:>6} broken  {:>8} robust  {:>7.0} forward {:>6.0} backward per row  {:>7.1} s{}",
            s.id,
            s.rows,
            s.broken,
            percent(s.robust_accuracy),
            s.forward_per_row,
            s.backward_per_row,
            s.seconds,
            s.skipped.as_ref().map_or_else(String::new, |why| format!("  ({why})"))
        );
    }
    let robust = &r.robust_accuracy;
    let _ =
        write!(out, "robust accuracy: {} proved, {} not broken", percent(robust.certified), percent(robust.attacked));
    if let Some(i) = &robust.interval {
        let _ = write!(out, "; {:.0} % interval {} to {}", 100.0 * i.level, percent(i.low), percent(i.high));
    }
    let _ = writeln!(out, "; {:.1} s", r.seconds);
    for f in r.flags.iter().filter(|f| f.raised) {
        let _ = writeln!(out, "flag {}: {}", f.id, f.text);
    }
    for n in &r.notes {
        let _ = writeln!(out, "note: {n}");
    }
    out
}

/// The record and the arrays `clean`, `adversarial`, `robust`, `norm`, `label`, `row` and, where pictures were moved, `motion`
/// of a run's folder.
pub(crate) fn read_examples(dir: &Path) -> anyhow::Result<(Record, Vec<Tensor>)> {
    let path = dir.join(RECORD);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}; `netproof attack --dir` writes it", path.display()))?;
    let record: Record =
        serde_json::from_str(&text).with_context(|| format!("{} is no record of a run", path.display()))?;
    let mut names = vec!["clean", "adversarial", ROBUST, "norm", "label", "row"];
    if record.report.threat.norm == Norm::Spatial {
        names.push(MOTION);
    }
    let arrays = read_npz(&dir.join(EXAMPLES), &names, Limits::default()).context("reading the examples")?;
    Ok((record, arrays))
}
