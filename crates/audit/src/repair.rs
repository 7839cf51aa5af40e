//! The loop: what was found is answered by candidates, the best is chosen on some rows and proved on others.
//!
//! Rows have one role each. Candidates learn from the training rows (and set some of them aside to stop early). The rows
//! under audit are dealt in two: some to choose on, and the rest for the proof, which nothing before it has seen. A
//! network that is not proved better is not given back.

mod compare;
mod making;
mod mending;
mod outcome;
mod summary;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use netproof_core::{AuditDocument, Card, CardKind, Challenge, Comparison, Finding, Verdict};
use netproof_data::{Dataset, split};
use netproof_graph::Model;
use netproof_stats::{Estimate, Level};
use netproof_train::{Recipe, Record};

use crate::progress::Progress;
use crate::remedy::{Aim, Candidate, Case, Change, Goal, Making, Remedy, Retraining, changed};
use crate::runner::{Work, run, work};
use crate::{AuditError, Configured, Context, Plan, RunFolder, Subject};

pub use compare::{Change as MetricChange, Judgement, compare};
pub use outcome::Outcome;
pub use summary::{PlanSummary, Proposed, SCHEMA};

/// The proof's own card, for reports.
pub static REPAIR: Card = Card {
    id: "repair",
    version: 1,
    kind: CardKind::Check,
    title: "Repair",
    challenge: Challenge::Overfitting,
    measures: "The repaired network against the network as it was given, on rows that took no part in training or choice: \
               every metric of every check, with the interval of its change.",
    reference: "Newcombe 1998, Statistics in Medicine 17, 2635–2650 (paired proportions); Zou and Donner 2008, Statistics \
                in Medicine 27, 1693–1702 (other metrics)",
    needs: &[],
    options: &[],
};

/// Fewest rows to choose on, and to prove on.
const FEWEST: usize = 20;
/// Most candidates whose changes are put together.
const TOGETHER: usize = 3;

/// What to repair and how.
pub struct Settings<'a> {
    /// What is to become better.
    pub goals: Vec<&'static Goal>,
    /// Goals that were not asked for: what the best candidate makes worse of them is mended where a remedy can without
    /// training.
    pub others: &'static [Goal],
    /// What may not become worse than `tolerance` on the way.
    pub guards: &'static [Aim],
    /// Remedies with their options.
    pub remedies: &'a [Configured<dyn Remedy>],
    /// Checks that measure goals and guards; run on the rows to choose on.
    pub measure: &'a Plan,
    /// Checks of the proof; run before and after.
    pub audit: &'a Plan,
    /// Part of the rows under audit to choose on; the rest is for the proof.
    pub choose: f64,
    /// How much of a guard (a fraction, for accuracy) a repair may cost.
    pub tolerance: f64,
    /// Time for all candidates.
    pub budget: Option<Duration>,
    /// Of every random draw.
    pub seed: u64,
    /// Of intervals.
    pub level: Level,
}

/// A candidate with the remedy that proposed it.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Id of the remedy.
    pub remedy: &'static str,
    /// The candidate.
    pub candidate: Candidate,
    /// Its recipe, where it is trained.
    pub recipe: Option<Recipe>,
}

/// What became of a candidate.
#[derive(Debug)]
pub enum State {
    /// It was made and measured.
    Measured {
        /// For each goal and then each guard, what was measured on the rows to choose on.
        aims: Vec<Option<MetricChange>>,
        /// Stored numbers.
        parameters: u64,
    },
    /// The remedy found nothing to do.
    Nothing,
    /// It could not be made, with the reason.
    Failed(String),
    /// The time was over before it was done; what was trained is kept.
    OutOfTime,
}

/// A candidate that was tried.
#[derive(Debug)]
pub struct Tried {
    /// What was tried.
    pub proposal: Proposal,
    /// What became of it.
    pub state: State,
    /// How much better it is, over the goals together; `None` where it is no choice.
    pub score: Option<f64>,
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    model: Model,
    trainings: Vec<(Recipe, Record)>,
}

/// A plan that can be carried out.
pub struct Prepared<'a> {
    settings: &'a Settings<'a>,
    subject: &'a Subject,
    choose: Subject,
    verify: Subject,
    proposals: Vec<Proposal>,
    notes: Vec<String>,
}

/// Asks the remedies what they would try, and deals the rows.
///
/// `validation` are rows to choose on, where there are some of their own; otherwise a part of the rows under audit is taken.
/// # Errors
/// There are too few rows; an option of a remedy makes no sense.
pub fn prepare<'a>(
    subject: &'a Subject,
    findings: &[Finding],
    validation: Option<Dataset>,
    settings: &'a Settings<'a>,
    progress: &dyn Progress,
) -> Result<Prepared<'a>, AuditError> {
    let (choose, verify) = deal(subject, validation, settings)?;
    let (choose, verify) = (subject.with_data(choose)?, subject.with_data(verify)?);
    let mut prepared = Prepared { settings, subject, choose, verify, proposals: Vec::new(), notes: Vec::new() };
    let mut names = HashSet::new();
    for remedy in settings.remedies {
        if !remedy.method.goals().iter().any(|id| settings.goals.iter().any(|g| g.id == *id)) {
            continue;
        }
        let cx = prepared.context(remedy.card, &remedy.options, None, progress, None)?;
        for mut candidate in remedy.method.propose(&Case { subject: &prepared.choose, findings }, &cx)? {
            if !names.insert(candidate.name.clone()) {
                candidate.name = format!("{}-{}", remedy.card.id, candidate.name);
                names.insert(candidate.name.clone());
            }
            match prepared.proposal(remedy.card.id, candidate) {
                Ok(p) => prepared.proposals.push(p),
                Err(why) => prepared.notes.push(why),
            }
        }
    }
    Ok(prepared)
}

fn deal(
    subject: &Subject,
    validation: Option<Dataset>,
    settings: &Settings<'_>,
) -> Result<(Dataset, Dataset), AuditError> {
    let data = subject.data();
    let few = |what: &str, n: usize| AuditError::Mismatch {
        message: format!("{n} rows are too few to {what}; {FEWEST} are needed"),
    };
    let (choose, verify) = match validation {
        Some(own) => (own, data.clone()),
        None => {
            let labels = data.annotations()?.labels;
            let parts = split(data.len(), &[settings.choose, 1.0 - settings.choose], settings.seed, labels.classes())?;
            (data.select(&parts[0])?, data.select(&parts[1])?)
        }
    };
    match (choose.len(), verify.len()) {
        (n, _) if n < FEWEST => Err(few("choose on", n)),
        (_, n) if n < FEWEST => Err(few("prove on", n)),
        _ => Ok((choose, verify)),
    }
}

impl Prepared<'_> {
    /// What will be tried.
    pub fn proposals(&self) -> &[Proposal] {
        &self.proposals
    }

    fn context<'c>(
        &self,
        card: &'static Card,
        options: &str,
        deadline: Option<Instant>,
        progress: &'c dyn Progress,
        folder: Option<&'c RunFolder>,
    ) -> Result<Context<'c>, AuditError> {
        let s = self.settings;
        let how = Work { seed: s.seed, level: s.level, deadline, may_train: true, folder };
        work(&self.choose, card, options, &how, progress)
    }

    /// A candidate with its recipe; the reason where it cannot be.
    fn proposal(&self, remedy: &'static str, candidate: Candidate) -> Result<Proposal, String> {
        let recipe = match &candidate.making {
            Making::Direct(_) => None,
            Making::Train(retraining) => {
                let Some(training) = self.subject.training() else {
                    return Err(format!("{}: needs training data or a recipe", candidate.name));
                };
                let recipe = changed(training.recipe(), &retraining.changes, training.registry());
                let recipe = recipe.map_err(|e| format!("{}: {e}", candidate.name))?;
                Some(Recipe { seed: self.settings.seed, ..recipe })
            }
        };
        Ok(Proposal { remedy, candidate, recipe })
    }

    /// Makes all candidates, chooses and proves. What is done is kept in the folder, and taken from there next time.
    /// # Errors
    /// The network as it was given cannot be measured; the folder cannot be written; a person asked to end.
    pub fn carry_out(&self, folder: &RunFolder, progress: &dyn Progress) -> Result<Outcome, AuditError> {
        let deadline = self.settings.budget.and_then(|b| Instant::now().checked_add(b));
        let bench = Bench { folder, progress, deadline, given: self.measure(&self.choose, folder, progress)? };
        let mut tried: Vec<Tried> = Vec::new();
        let mut best: Option<usize> = None;
        let mut add = |tried: &mut Vec<Tried>, mut own: Tried| {
            let score = |t: &Tried| t.score.filter(|s| *s > 0.0).unwrap_or(f64::NEG_INFINITY);
            // Of equals the first, which the plan lists first. Only the best network so far is held in memory.
            let limit = best.map_or(f64::NEG_INFINITY, |b| score(&tried[b]));
            if score(&own) > limit {
                if let Some(old) = best.replace(tried.len()) {
                    tried[old].made = None;
                }
            } else {
                own.made = None;
            }
            tried.push(own);
        };
        for proposal in &self.proposals {
            let own = self.attempt(proposal.clone(), &bench)?;
            add(&mut tried, own);
        }
        for proposal in self.together(&tried) {
            let own = self.attempt(proposal, &bench)?;
            add(&mut tried, own);
        }
        if let Some(b) = best
            && let Some(mended) = self.mended(&tried[b], &bench)?
        {
            tried[b].made = None;
            best = Some(tried.len());
            tried.push(mended);
        }
        outcome::prove(self, tried, best, &bench)
    }

    fn measure(
        &self,
        subject: &Subject,
        folder: &RunFolder,
        progress: &dyn Progress,
    ) -> Result<AuditDocument, AuditError> {
        run(subject, self.settings.measure, Some(folder), progress)
    }

    fn attempt(&self, proposal: Proposal, bench: &Bench<'_>) -> Result<Tried, AuditError> {
        let name = proposal.candidate.name.clone();
        let tried = |proposal, state| Tried { proposal, state, score: None, made: None };
        let made = match self.make(&proposal, bench) {
            Ok(Some(made)) => made,
            Ok(None) => {
                bench.progress.note(&format!("{name}: nothing to do"));
                return Ok(tried(proposal, State::Nothing));
            }
            Err(AuditError::Interrupted) => return Err(AuditError::Interrupted),
            Err(AuditError::OutOfTime) => {
                bench.progress.note(&format!("{name}: out of time; the next run goes on from here"));
                return Ok(tried(proposal, State::OutOfTime));
            }
            Err(e) => {
                bench.progress.note(&format!("{name}: {e}"));
                return Ok(tried(proposal, State::Failed(e.to_string())));
            }
        };
        self.judged(proposal, made, bench)
    }

    /// Measures what was made.
    fn judged(&self, proposal: Proposal, made: Made, bench: &Bench<'_>) -> Result<Tried, AuditError> {
        let name = proposal.candidate.name.clone();
        let parameters = made.model.parameters().map(|p| p.shape.iter().product::<usize>() as u64).sum();
        let own = self.choose.with_model(Model::from_file(made.model.to_file()?)?)?;
        let after = self.measure(&own, bench.folder, bench.progress)?;
        let aims = self.aims().map(|a| a.and_then(|a| self.change(a, [&self.choose, &own], [&bench.given, &after])));
        let aims: Vec<Option<MetricChange>> = aims.collect();
        let score = self.score(&aims);
        let told: Vec<String> =
            aims.iter().take(self.settings.goals.len()).flatten().map(ToString::to_string).collect();
        bench.progress.note(&format!("{name}: {}", told.join("; ")));
        Ok(Tried { proposal, state: State::Measured { aims, parameters }, score, made: Some(made) })
    }

    /// For each goal and then each guard, the aim that this network can be measured by.
    fn aims(&self) -> impl Iterator<Item = Option<Aim>> + '_ {
        let measured = |aims: &'static [Aim]| aims.iter().copied().find(|a| self.is_measured(a));
        let goals = self.settings.goals.iter().map(move |g| measured(g.aims));
        goals.chain([measured(self.settings.guards)])
    }

    fn is_measured(&self, aim: &Aim) -> bool {
        self.settings.measure.checks.iter().any(|c| c.card.id == aim.check) && self.fits(aim)
    }

    /// Whether the metric is one of this kind of network: those of classifiers are the first in each list.
    fn fits(&self, aim: &Aim) -> bool {
        let regression = self.subject.head() == crate::Head::Value;
        regression == matches!(aim.metric, "mae" | "rmse" | "r_squared")
    }

    fn change(&self, aim: Aim, subjects: [&Subject; 2], documents: [&AuditDocument; 2]) -> Option<MetricChange> {
        let [before, after] = documents
            .map(|d| d.all_findings().find(|f| f.check == aim.check && f.metric.as_deref() == Some(aim.metric)));
        let cx = self.context(&REPAIR, "", None, &crate::Silent, None).ok()?;
        compare::change(before?, after?, Some(aim.better), subjects, &cx)
    }

    /// How much better a candidate is; `None` where it may not be chosen.
    fn score(&self, aims: &[Option<MetricChange>]) -> Option<f64> {
        let (goals, guards) = aims.split_at(self.settings.goals.len().min(aims.len()));
        let mut score = None;
        for change in goals.iter().flatten() {
            if change.judgement == Judgement::Worse {
                return None;
            }
            // In units of the noise of the network as it was given, so that goals of different units can be added.
            let noise = change.noise.filter(|n| *n > 0.0).unwrap_or(1.0);
            *score.get_or_insert(0.0) += change.gain() / noise;
        }
        let costs = guards.iter().flatten().any(|g| -g.gain() > self.settings.tolerance * g.scale());
        score.filter(|_| !costs)
    }

    /// Candidates of a second round: the changes of the best together, each of another remedy.
    fn together(&self, tried: &[Tried]) -> Vec<Proposal> {
        let mut best: Vec<(&Tried, &Retraining)> = tried
            .iter()
            .filter(|t| t.score.is_some_and(|s| s > 0.0))
            .filter_map(|t| match &t.proposal.candidate.making {
                Making::Train(r) if r.members < 2 && r.before.is_none() && r.after.is_none() => Some((t, r)),
                _ => None,
            })
            .filter(|(_, r)| !r.changes.is_empty())
            .collect();
        best.sort_by(|a, b| b.0.score.unwrap_or(0.0).total_cmp(&a.0.score.unwrap_or(0.0)));
        let mut remedies = HashSet::new();
        best.retain(|(t, _)| remedies.insert(t.proposal.remedy));
        let members = tried.iter().filter_map(|t| match &t.proposal.candidate.making {
            Making::Train(r) if r.members > 1 => Some((t.proposal.remedy, r.members)),
            _ => None,
        });
        let members = members.max_by_key(|m| m.1);
        let mut found = Vec::new();
        let mut add = |remedy, candidate| found.extend(self.proposal(remedy, candidate).ok());
        for count in 2..=TOGETHER.min(best.len()) {
            add(REPAIR.id, merged(&best[..count], 1));
        }
        if let (Some((remedy, members)), false) = (members, best.is_empty()) {
            add(remedy, merged(&best[..TOGETHER.min(best.len())], members));
        }
        found
    }
}

/// What a repair works with while it is carried out.
struct Bench<'a> {
    folder: &'a RunFolder,
    progress: &'a dyn Progress,
    deadline: Option<Instant>,
    /// The network as it was given, on the rows to choose on.
    given: AuditDocument,
}

/// The changes of several candidates as one; where two set the same field, the better candidate's value counts.
fn merged(parts: &[(&Tried, &Retraining)], members: usize) -> Candidate {
    let mut changes: Vec<Change> = Vec::new();
    let mut without: Vec<usize> = Vec::new();
    for (_, r) in parts {
        for change in &r.changes {
            let list = change.field.ends_with('+');
            if if list { !changes.contains(change) } else { changes.iter().all(|c| c.field != change.field) } {
                changes.push(change.clone());
            }
        }
        without.extend(&r.without);
    }
    without.sort_unstable();
    without.dedup();
    let names: Vec<&str> = parts.iter().map(|(t, _)| t.proposal.candidate.name.as_str()).collect();
    let (name, what) = match members {
        0 | 1 => (names.join("+"), "These together.".to_owned()),
        n => (format!("{n}x({})", names.join("+")), format!("{n} networks with these together, averaged into one.")),
    };
    Candidate { name, what, making: Making::Train(Retraining { changes, without, members, ..Retraining::default() }) }
}

/// Which goals concerns ask for.
pub fn goals_of(findings: &[Finding], goals: &'static [Goal]) -> Vec<&'static Goal> {
    let asked =
        |g: &&Goal| findings.iter().any(|f| f.verdict == Verdict::Concern && g.checks.contains(&f.check.as_str()));
    goals.iter().filter(asked).collect()
}

/// The estimate of a finding with the side on which it is good, for outcomes.
fn good_side(better: Comparison) -> f64 {
    match better {
        Comparison::AtLeast => 1.0,
        Comparison::AtMost => -1.0,
    }
}

/// For tables: a value with its interval.
fn shown(e: &Estimate) -> [Option<f64>; 3] {
    [Some(e.value), e.interval.map(|i| i.low), e.interval.map(|i| i.high)]
}
