use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use netproof_audit::repair::{Outcome, Settings, State, goals_of, prepare};
use netproof_audit::{
    Aim, Check, Configured, Goal, Making, Plan, Policy, Progress as _, RunFolder, run, select, write_atomically,
};
use netproof_challenges::{CHECKS, GOALS, QUALITY, REMEDIES};
use netproof_core::{AuditDocument, Finding, Need};
use netproof_stats::Level;
use netproof_train::Recipe;
use serde_json::{Value, json};

use crate::args::{Loaded, SubjectArgs, duration};
use crate::commands::audit::{TOOL, write_reports};
use crate::output::write_json;
use crate::progress::Terminal;
use crate::project::AuditSection;

/// Repair a network: plan remedies for what an audit found, try them, and prove the best on rows that none has seen.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof audit model.onnx --data test.npz --train-data train.npz --out audit
  netproof fix audit --dry-run
  netproof fix audit --budget 30m --out fixed
  netproof fix model.onnx --data test.npz --train-data train.npz --goal overfitting
  netproof fix project.toml --only temperature-scaling --goal calibrated

The rows under audit are dealt in two: some to choose on (--choose), the rest for the proof. Candidates learn from the
training rows. Writes plan.json before anything is tried, and after it report.html, fix.json, and, where the proof holds,
the repaired network with the recipe that repeats it. Ctrl-C keeps what is done, a checkpoint of the training included: the
same command goes on from there.
Exit code 0: repaired, or nothing to repair; 1: nothing helps beyond noise, and nothing is changed, or interrupted; 2: could
not run.")]
pub(crate) struct Fix {
    #[command(flatten)]
    subject: SubjectArgs,
    /// What to repair [default: what the audit is concerned about].
    #[arg(long = "goal", value_delimiter = ',', value_name = "GOAL,…")]
    goals: Vec<String>,
    /// Try only these remedies.
    #[arg(long, value_delimiter = ',', value_name = "REMEDY,…")]
    only: Vec<String>,
    /// Leave these remedies out.
    #[arg(long, value_delimiter = ',', value_name = "REMEDY,…")]
    skip: Vec<String>,
    /// Print and save the plan, and end.
    #[arg(long)]
    dry_run: bool,
    /// Time for all candidates, such as 90s, 10m or 2h.
    #[arg(long, value_parser = duration)]
    budget: Option<Duration>,
    /// Rows to choose on; without them, a part of the rows under audit is taken.
    #[arg(long, value_name = "DATA")]
    validation: Option<String>,
    /// Part of the rows under audit to choose on.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.3)]
    choose: f64,
    /// How much accuracy a repair may cost, as a fraction.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.05)]
    tolerance: f64,
    /// Where the repaired network and the proof go.
    #[arg(long, value_name = "DIR", default_value = "netproof-fix")]
    out: PathBuf,
    /// Also write the result here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Fix {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        ensure!(self.choose > 0.0 && self.choose < 1.0, "--choose is {}, it must be between 0 and 1", self.choose);
        ensure!(self.tolerance >= 0.0, "--tolerance is {}, it must be 0 or more", self.tolerance);
        let audited = self.subject.model.is_dir().then(|| self.subject.model.clone());
        let loaded = self.subject.clone().load()?;
        // Options of checks are not for remedies, and the other way round.
        let of = |ids: Vec<&str>| -> toml::Table {
            let own = loaded.options.iter().filter(|(id, _)| ids.contains(&id.as_str()));
            own.map(|(id, v)| (id.clone(), v.clone())).collect()
        };
        let check_options = of(CHECKS.iter().map(|e| e.card.id).collect());
        let remedies =
            select("remedy", REMEDIES, &self.only, &self.skip, &of(REMEDIES.iter().map(|e| e.card.id).collect()))?;
        let progress = Terminal::listening()?;
        let folder = RunFolder::open(&self.out)?;
        let plan = |checks| Plan {
            checks,
            seed: loaded.seed,
            level: Level::P95,
            budget: None,
            may_train: false,
            policy: Policy::default(),
            tool: TOOL.to_owned(),
        };
        let audit = plan(audit_checks(&check_options, &loaded.project.audit)?);
        let findings = match (&audited, self.goals.is_empty()) {
            (Some(dir), _) => earlier(dir, &loaded)?,
            // What is wanted is said, so that nothing need be found first.
            (None, false) => Vec::new(),
            (None, true) => {
                let own = RunFolder::open(&self.out.join("audit"))?;
                let document = run(&loaded.subject, &audit, Some(&own), &progress)?;
                write_reports(&own, &document)?;
                document.findings
            }
        };
        let goals = if self.goals.is_empty() { goals_of(&findings, GOALS) } else { named(&self.goals)? };
        if goals.is_empty() {
            let ids: Vec<&str> = GOALS.iter().map(|g| g.id).collect();
            eprintln!("nothing of concern that a remedy answers; --goal names what to improve: {}", ids.join(", "));
            return self.finish(&json!({ "outcome": "nothing-to-do", "models": [], "findings": [] })).map(|()| true);
        }
        let measure = plan(checks_of(&goals, QUALITY, &check_options)?);
        let settings = Settings {
            goals,
            others: GOALS,
            guards: QUALITY,
            remedies: &remedies,
            measure: &measure,
            audit: &audit,
            choose: self.choose,
            tolerance: self.tolerance,
            budget: self.budget,
            seed: loaded.seed,
            level: Level::P95,
        };
        let validation = self
            .validation
            .as_ref()
            .map(|spec| loaded.resolved.data.reading.open(spec, loaded.subject.model()))
            .transpose()?;
        let prepared = prepare(&loaded.subject, &findings, validation, &settings, &progress)?;
        let summary = prepared.summary();
        write_json(&self.out.join("plan.json"), &summary)?;
        eprint!("{}", summary.text());
        if summary.candidates.is_empty() {
            let advice = if loaded.subject.training().is_none() { "; give --train-data or --recipe" } else { "" };
            eprintln!("no remedy has anything to offer here{advice}");
            let result = json!({ "outcome": "nothing-to-try", "plan": summary, "models": [], "findings": [] });
            return self.finish(&result).map(|()| false);
        }
        if self.dry_run {
            eprintln!("dry run: the plan is in {}", self.out.join("plan.json").display());
            let result = json!({ "outcome": "dry-run", "plan": summary, "models": [], "findings": [] });
            return self.finish(&result).map(|()| true);
        }
        let outcome = prepared.carry_out(&folder, &progress)?;
        let models = self.save(&outcome, &loaded)?;
        let document = outcome.document();
        let files = write_reports(&folder, &document)?;
        for f in &outcome.findings {
            progress.note(&format!("{} ({}): {}", f.title, f.verdict, f.explanation));
        }
        models.iter().chain(&files[..1]).for_each(|f| eprintln!("saved {f}"));
        let repaired = outcome.model.is_some();
        let result = json!({
            "outcome": if repaired { "repaired" } else { "nothing-helped" },
            "plan": summary,
            "chosen": outcome.chosen.map(|c| outcome.tried[c].proposal.candidate.name.clone()),
            "models": models,
            "candidates": outcome.tried.iter().map(tried).collect::<Vec<_>>(),
            "changes": outcome.changes.iter().map(change).collect::<Vec<_>>(),
            "findings": outcome.findings,
        });
        self.finish(&result)?;
        Ok(repaired)
    }

    fn finish(&self, result: &Value) -> anyhow::Result<()> {
        write_json(&self.out.join("fix.json"), result)?;
        self.json.as_ref().map_or(Ok(()), |path| write_json(path, result))
    }

    /// The repaired network, and the recipe that repeats its training.
    fn save(&self, outcome: &Outcome, loaded: &Loaded) -> anyhow::Result<Vec<String>> {
        let Some(model) = &outcome.model else { return Ok(Vec::new()) };
        let stem = &loaded.stem;
        // What was put in front of the network is part of what was trained, but not of its file.
        let start = (loaded.resolved.mean.is_some() && loaded.subject.training().is_some_and(|t| !t.is_given()))
            .then(|| std::path::absolute(self.out.join("start.onnx")))
            .transpose()?;
        if let Some(start) = &start {
            write_atomically(start, &loaded.subject.model().to_file()?.to_bytes())?;
        }
        let path = self.out.join(format!("{stem}-repaired.onnx"));
        write_atomically(&path, &model.to_file()?.to_bytes())?;
        for (i, (recipe, record)) in outcome.trainings.iter().enumerate() {
            let number = if outcome.trainings.len() > 1 { format!(".member{}", i + 1) } else { String::new() };
            write_json(&self.out.join(format!("{stem}-repaired{number}.train.json")), record)?;
            if i > 0 {
                continue;
            }
            // Members differ in nothing but their seeds, which count on from that of the first.
            let mut recipe = Recipe { members: outcome.trainings.len() as u64, ..recipe.clone() };
            if let Some(start) = &start {
                recipe.network.options.insert("path".to_owned(), start.display().to_string().into());
            }
            // A treatment after the training is in no recipe, so it is said.
            let after = outcome.chosen.map(|c| &outcome.tried[c].proposal.candidate);
            let after = after.filter(|c| matches!(c.making, Making::Direct(_)));
            let head = after.map_or_else(String::new, |c| format!("# {}\n", c.what));
            let text = head + &recipe.to_toml();
            write_atomically(&self.out.join(format!("{stem}-repaired.recipe.toml")), text.as_bytes())?;
        }
        Ok(vec![path.display().to_string()])
    }
}

/// Checks of the proof: those of the audit, or all, as far as they train nothing.
fn audit_checks(options: &toml::Table, settings: &AuditSection) -> anyhow::Result<Vec<Configured<dyn Check>>> {
    let trains = |id: &String| CHECKS.iter().any(|e| e.card.id == id && e.card.needs.contains(&Need::Training));
    let all = || CHECKS.iter().map(|e| e.card.id.to_owned());
    let only: Vec<String> = settings.only.iter().filter(|id| !trains(id)).cloned().collect();
    let skip: Vec<String> = all().filter(|id| trains(id) || settings.skip.contains(id)).collect();
    Ok(select("check", CHECKS, &only, &skip, options)?)
}

/// Checks that measure goals and guards.
fn checks_of(goals: &[&Goal], guards: &[Aim], options: &toml::Table) -> anyhow::Result<Vec<Configured<dyn Check>>> {
    let mut ids: Vec<String> = Vec::new();
    for aim in goals.iter().flat_map(|g| g.aims).chain(guards) {
        if !ids.iter().any(|id| id == aim.check) {
            ids.push(aim.check.to_owned());
        }
    }
    Ok(select("check", CHECKS, &ids, &[], options)?)
}

fn named(ids: &[String]) -> anyhow::Result<Vec<&'static Goal>> {
    ids.iter()
        .map(|id| {
            let known: Vec<&str> = GOALS.iter().map(|g| g.id).collect();
            let found = GOALS.iter().find(|g| g.id == id);
            found.with_context(|| format!("there is no goal `{id}`; there are {}", known.join(", ")))
        })
        .collect()
}

/// What an audit found earlier, of the same network and data.
fn earlier(dir: &Path, loaded: &Loaded) -> anyhow::Result<Vec<Finding>> {
    let path = dir.join("audit.json");
    let bytes = std::fs::read(&path).with_context(|| format!("reading the audit {}", path.display()))?;
    let document: AuditDocument =
        serde_json::from_slice(&bytes).with_context(|| format!("the audit {} cannot be read", path.display()))?;
    let known = document.model.get("sha256").and_then(Value::as_str).unwrap_or_default();
    if known != loaded.subject.model_digest() {
        bail!("the network has changed since the audit in {}; audit it again", dir.display());
    }
    Ok(document.findings)
}

fn tried(t: &netproof_audit::repair::Tried) -> Value {
    let (state, reason) = match &t.state {
        State::Measured { .. } => ("measured", None),
        State::Nothing => ("nothing-to-do", None),
        State::Failed(why) => ("failed", Some(why.clone())),
        State::OutOfTime => ("out-of-time", None),
    };
    let aims = match &t.state {
        State::Measured { aims, .. } => aims.iter().flatten().map(change).collect(),
        _ => Vec::new(),
    };
    json!({
        "name": t.proposal.candidate.name, "remedy": t.proposal.remedy, "state": state, "reason": reason,
        "score": t.score, "aims": aims,
    })
}

fn change(c: &netproof_audit::repair::MetricChange) -> Value {
    let side = |(value, interval): (f64, Option<[f64; 2]>)| json!({ "value": value, "interval": interval });
    json!({
        "id": c.id, "metric": c.metric, "before": side(c.before), "after": side(c.after),
        "change": c.change.value, "interval": c.change.interval.map(|i| [i.low, i.high]), "n": c.change.n,
        "method": c.change.interval.map(|i| i.method), "judgement": c.judgement.name(),
    })
}
