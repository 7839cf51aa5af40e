//! Runs attacks and decides: clips each proposal, runs the network again, checks norm, bounds and finiteness, and counts.
//!
//! No attack reports its own success. What it proposes is projected into the threat where it is not within, and counts only if
//! the network is then wrong. Memory: 8 bytes per feature and row, and one batch.

use std::time::Instant;

use netproof_audit::{Configured, Progress};
use netproof_core::{Card, CardKind, Challenge, Norm, Threat};
use netproof_stats::interval::proportion::clopper_pearson;
use netproof_stats::rng::Rng;
use netproof_stats::{Estimate, Interval, Level};
use netproof_tensor::Tensor;

use super::AttackError;
use super::attack::{Attack, Batch, Goal};
use super::error::need_norm;
use super::loss::{is_right, margin};
use super::motion::Motion;
use super::oracle::{Count, Limits, Oracle};
use super::possible::Possible;
use super::projection::{Ball, size, tolerance};
use super::rows::{gather, row, row_mut};
use super::square;
use super::victim::Victim;

/// What is known of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The row or the network's answer holds a NaN: it counts as wrong.
    Undefined,
    /// Wrong without any change.
    Wrong,
    /// Wrong after a change within the threat; by which stage.
    Broken(usize),
    /// Proved right under every change within the threat.
    Certified,
    /// Right under all that was tried.
    Standing,
}

impl Fate {
    /// Name for people and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Undefined => "undefined",
            Self::Wrong => "wrong",
            Self::Broken(_) => "broken",
            Self::Certified => "certified",
            Self::Standing => "standing",
        }
    }

    /// Right after all attacks so far.
    pub fn is_robust(self) -> bool {
        matches!(self, Self::Certified | Self::Standing)
    }
}

/// Proposes given examples, batch after batch.
struct Replay {
    examples: std::sync::Mutex<(Vec<f32>, Vec<Motion>)>,
}

static REPLAY: Card = Card {
    id: "replay",
    version: 1,
    kind: CardKind::Attack,
    title: "Replay",
    challenge: Challenge::Adversarial,
    measures: "",
    reference: "",
    needs: &[],
    options: &[],
};

impl Attack for Replay {
    fn norms(&self) -> &'static [Norm] {
        &Norm::ALL
    }

    fn goal(&self) -> Goal {
        // What is beyond the threat is not clipped into it, but refused.
        Goal::SmallestNorm
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, _: &Threat) -> Result<Vec<f32>, AttackError> {
        let mut all = self.examples.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (taken, moved) = (batch.x.len().min(all.0.len()), batch.len().min(all.1.len()));
        all.1.drain(..moved).enumerate().for_each(|(i, motion)| oracle.declare(i, motion));
        let rest = all.0.split_off(taken);
        Ok(std::mem::replace(&mut all.0, rest))
    }
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// What is known of it.
    pub fate: Fate,
    /// Least margin of the right class, in logits, over the row itself and all proposals within the threat.
    pub margin: f32,
    /// Size of the change in the example that is kept; 0 where none is.
    pub norm: f64,
    /// Smallest change with a wrong answer that any attack found, also beyond epsilon.
    pub smallest: Option<f64>,
    /// Calls of the network by attacks.
    pub count: Count,
}

/// One attack on the rows that stood before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Id of the attack, and what distinguishes this run of it.
    pub id: String,
    /// Rows attacked.
    pub rows: u64,
    /// Rows broken by it.
    pub broken: u64,
    /// Rows right after it, of all.
    pub standing: u64,
    /// Calls of the network.
    pub count: Count,
    /// Proposals that were outside the threat and had to be clipped.
    pub clipped: u64,
    /// Why it did not run.
    pub skipped: Option<String>,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// Robust accuracy between what is proved and what was broken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RobustAccuracy {
    /// Right without any change.
    pub clean: Estimate,
    /// Right after all attacks: an upper bound.
    pub attacked: Estimate,
    /// Proved: a lower bound.
    pub certified: Estimate,
    /// From the lower end of what is proved to the upper end of what was not broken.
    pub interval: Option<Interval>,
}

/// Rows under attack, and what is known of them.
pub struct Harness<'v, 'm> {
    victim: Victim<'m>,
    judge: Victim<'m>,
    threat: Threat,
    x: Vec<f32>,
    labels: Vec<usize>,
    row_ids: Vec<u64>,
    seeds: Vec<u64>,
    logits: Vec<f32>,
    outcomes: Vec<Outcome>,
    adversarial: Vec<f32>,
    motions: Vec<Motion>,
    possible: Option<Possible>,
    surrogates: Vec<(String, Victim<'m>)>,
    stages: Vec<Stage>,
    notes: Vec<String>,
    progress: &'v dyn Progress,
    deadline: Option<Instant>,
}

impl std::fmt::Debug for Harness<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Harness").field("threat", &self.threat).field("rows", &self.len()).finish_non_exhaustive()
    }
}

impl<'v, 'm> Harness<'v, 'm> {
    /// Runs the network on the rows as they are.
    /// # Shapes
    /// `x [n, ...]`, `labels [n]`, `row_ids [n]`
    /// # Errors
    /// A value is outside the bounds, a label is no class, or the network refuses.
    pub fn new(
        victim: &Victim<'m>,
        threat: Threat,
        x: &Tensor,
        labels: &[usize],
        row_ids: &[u64],
        seed: u64,
        progress: &'v dyn Progress,
    ) -> Result<Self, AttackError> {
        let (values, len, n) = (x.as_f32().unwrap_or_default().to_vec(), victim.row_len(), labels.len());
        if values.len() != n * len || row_ids.len() != n {
            let message = format!("{n} labels and {} row ids for features of shape {:?}", row_ids.len(), x.shape());
            return Err(AttackError::Mismatch(message));
        }
        let [low, high] = threat.bounds.map(|b| b as f32);
        if let Some(i) = values.iter().position(|v| *v < low || *v > high) {
            return Err(AttackError::Mismatch(format!(
                "row {} holds {}, outside the bounds {low},{high}; give the bounds that the features have",
                row_ids[i / len],
                values[i]
            )));
        }
        if let Some(i) = labels.iter().position(|l| *l >= victim.classes()) {
            return Err(AttackError::Mismatch(format!(
                "row {} has class {}, the network has {} classes",
                row_ids[i],
                labels[i],
                victim.classes()
            )));
        }
        let judge = victim.clone().salted(0x006a_7564_6765);
        let logits = judge.logits(&values)?;
        let outcomes = logits
            .chunks_exact(victim.classes())
            .zip(values.chunks_exact(len.max(1)))
            .zip(labels)
            .map(|((z, x), &label)| {
                let fate = if z.iter().chain(x).any(|v| v.is_nan()) {
                    Fate::Undefined
                } else if is_right(z, label) {
                    Fate::Standing
                } else {
                    Fate::Wrong
                };
                Outcome { fate, margin: margin(z, label), norm: 0.0, smallest: None, count: Count::default() }
            })
            .collect();
        Ok(Self {
            victim: victim.clone(),
            judge,
            threat,
            adversarial: values.clone(),
            motions: vec![Motion::default(); n],
            possible: None,
            surrogates: Vec::new(),
            x: values,
            labels: labels.to_vec(),
            row_ids: row_ids.to_vec(),
            seeds: row_ids.iter().map(|&id| Rng::stream(seed, id.wrapping_add(1)).next_u64()).collect(),
            logits,
            outcomes,
            stages: Vec::new(),
            notes: victim.notes().to_vec(),
            progress,
            deadline: None,
        })
    }

    /// The same with a time by which attacks must end; rows that were not decided then stand.
    #[must_use]
    pub fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same where a changed row must keep something: what attacks ask about and propose is moved to the nearest row that can
    /// be.
    #[must_use]
    pub fn keeping(mut self, possible: Option<Possible>) -> Self {
        self.possible = possible;
        self
    }

    /// The same with other networks, by name, that an attacker holds: attacks on them may carry over.
    #[must_use]
    pub fn with_surrogates(mut self, surrogates: Vec<(String, Victim<'m>)>) -> Self {
        self.surrogates = surrogates;
        self
    }

    /// Other networks that an attacker holds.
    pub fn surrogates(&self) -> &[(String, Victim<'m>)] {
        &self.surrogates
    }

    /// What a changed row must keep.
    pub fn possible(&self) -> Option<&Possible> {
        self.possible.as_ref()
    }

    /// How the example of each row was turned and moved, where that is what the threat allows.
    pub fn motions(&self) -> &[Motion] {
        &self.motions
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The network.
    pub fn victim(&self) -> &Victim<'m> {
        &self.victim
    }

    /// From now on attacks average over this many draws of a random victim (EOT).
    pub fn set_draws(&mut self, draws: usize) {
        self.victim = self.victim.clone().with_draws(draws);
    }

    /// Adds something that a reader of the result should know; once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// What a reader of the result should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where attacks say how far they are.
    pub fn progress(&self) -> &'v dyn Progress {
        self.progress
    }

    /// What the attacker may do.
    pub fn threat(&self) -> &Threat {
        &self.threat
    }

    /// What is known of each row.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The attacks so far.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Numbers of the rows in the data source.
    pub fn row_ids(&self) -> &[u64] {
        &self.row_ids
    }

    /// True classes.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// Rows as they are, `[n, row]`.
    pub fn clean(&self) -> &[f32] {
        &self.x
    }

    /// Clean logits, `[n, classes]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Clean logits of a row.
    pub fn row_logits(&self, i: usize) -> &[f32] {
        row(&self.logits, self.victim.classes(), i)
    }

    /// The seed of a row's draws.
    pub fn seed_of(&self, i: usize) -> u64 {
        self.seeds[i]
    }

    /// Some rows as they are, and their labels.
    pub fn pick(&self, rows: &[usize]) -> (Vec<f32>, Vec<usize>) {
        (gather(&self.x, self.victim.row_len(), rows), rows.iter().map(|&r| self.labels[r]).collect())
    }

    /// The example that broke each row, the row itself where none did, `[n, row]`.
    pub fn adversarial(&self) -> &[f32] {
        &self.adversarial
    }

    /// Whether attacks must end.
    pub fn is_out_of_time(&self) -> bool {
        self.deadline.is_some_and(|end| Instant::now() >= end)
    }

    /// When attacks must end.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Rows that are right under all that was tried, and not certified.
    pub fn standing(&self) -> Vec<usize> {
        (0..self.len()).filter(|&i| self.outcomes[i].fate == Fate::Standing).collect()
    }

    /// Marks rows as proved; they are not attacked any more.
    /// # Errors
    /// One of them was broken already, or is wrong without a change: then the certificate is not sound.
    pub fn certify(&mut self, rows: &[usize]) -> Result<(), AttackError> {
        for &i in rows {
            match self.outcomes[i].fate {
                Fate::Standing | Fate::Certified => self.outcomes[i].fate = Fate::Certified,
                Fate::Broken(stage) => return Err(self.contradiction(i, self.stages[stage].id.clone())),
                Fate::Wrong | Fate::Undefined => return Err(self.contradiction(i, "no change".to_owned())),
            }
        }
        Ok(())
    }

    /// Takes over what an earlier evaluation found: its examples are replayed, and count only if the network is wrong on
    /// them. Answers how many rows were broken.
    /// # Shapes
    /// `[n, row]`: the row itself where nothing was found; `motions [n]`, empty unless they are what the threat allows
    /// # Errors
    /// The shape does not fit, or the network refuses.
    pub fn replay(&mut self, name: &str, examples: &[f32], motions: &[Motion]) -> Result<usize, AttackError> {
        if !motions.is_empty() && motions.len() != self.len() {
            let message = format!("{} earlier motions for {} rows", motions.len(), self.len());
            return Err(AttackError::Mismatch(message));
        }
        if examples.len() != self.x.len() {
            let message = format!(
                "{} values of earlier examples for {} rows of {}",
                examples.len(),
                self.len(),
                self.victim.row_len()
            );
            return Err(AttackError::Mismatch(message));
        }
        let len = self.victim.row_len();
        let rows: Vec<usize> =
            self.standing().into_iter().filter(|&i| row(examples, len, i) != row(&self.x, len, i)).collect();
        let motions = rows.iter().filter_map(|&r| motions.get(r).copied()).collect();
        let replay = Replay { examples: std::sync::Mutex::new((gather(examples, len, &rows), motions)) };
        self.attack(&REPLAY, name, &replay, &rows)
    }

    /// Runs an attack on the rows that stand.
    /// # Errors
    /// See [`Harness::attack`].
    pub fn run(&mut self, attack: &Configured<dyn Attack>) -> Result<usize, AttackError> {
        let rows = self.standing();
        self.attack(attack.card, attack.card.id, &*attack.method, &rows)
    }

    /// Runs an attack on some rows, whatever is known of them; `name` tells this run from others. Answers how many rows of
    /// those that stood it broke.
    /// # Errors
    /// The attack is not made for the norm, needs a gradient that is not there, answers with the wrong number of values, or
    /// breaks a certified row; the network refuses. Running out of time is no error here: what was found counts.
    pub fn attack(
        &mut self,
        card: &'static Card,
        name: &str,
        attack: &dyn Attack,
        rows: &[usize],
    ) -> Result<usize, AttackError> {
        let (started, index) = (Instant::now(), self.stages.len());
        need_norm(card, attack.norms(), self.threat.norm)?;
        let mut stage = Stage {
            id: name.to_owned(),
            rows: rows.len() as u64,
            broken: 0,
            standing: 0,
            count: Count::default(),
            clipped: 0,
            skipped: None,
            seconds: 0.0,
        };
        let size = attack.batch_rows(self.victim.batch_rows()).max(1);
        self.progress.start(name, rows.len() as u64);
        let mut failed = None;
        for chunk in rows.chunks(size) {
            match self.attack_batch(card, attack, chunk, index, &mut stage) {
                Ok(()) => self.progress.advance(chunk.len() as u64),
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        self.progress.finish();
        stage.standing = self.outcomes.iter().filter(|o| o.fate.is_robust()).count() as u64;
        stage.seconds = started.elapsed().as_secs_f64();
        match failed {
            None => {}
            Some(AttackError::OutOfTime) => {
                stage.skipped = Some("out of time before all rows were attacked".to_owned())
            }
            Some(e @ AttackError::NotDifferentiable(_)) => stage.skipped = Some(e.to_string()),
            Some(e) => return Err(e),
        }
        let broken = stage.broken as usize;
        self.stages.push(stage);
        Ok(broken)
    }

    fn attack_batch(
        &mut self,
        card: &'static Card,
        attack: &dyn Attack,
        rows: &[usize],
        index: usize,
        stage: &mut Stage,
    ) -> Result<(), AttackError> {
        let (len, k) = (self.victim.row_len(), self.victim.classes());
        let (x, logits) = (gather(&self.x, len, rows), gather(&self.logits, k, rows));
        let labels: Vec<usize> = rows.iter().map(|&r| self.labels[r]).collect();
        let seeds: Vec<u64> = rows.iter().map(|&r| self.seeds[r]).collect();
        let batch = Batch { x: &x, logits: &logits, labels: &labels, seeds: &seeds };
        let (victim, possible) = (self.victim.clone(), self.possible.clone());
        let (ball, within) = (Ball::from(&self.threat), attack.goal() == Goal::WithinEpsilon);
        // Attacks for the smallest change may ask beyond epsilon.
        let room = if within { ball } else { Ball { epsilon: f32::INFINITY, ..ball } };
        let limits = |possible| Limits { possible, origins: &x, ball: room };
        let limits = possible.as_ref().map(limits);
        let oracle = Oracle::new(&victim, rows.len(), self.deadline).within(limits);
        let proposed = attack.propose(&oracle, &batch, &self.threat);
        for (&r, count) in rows.iter().zip(oracle.counts()) {
            self.outcomes[r].count += count;
            stage.count += count;
        }
        let mut proposed = proposed?;
        if proposed.len() != x.len() {
            let message = format!("{} values for {} rows of {len}", proposed.len(), rows.len());
            return Err(AttackError::Contract { attack: card.id, message });
        }
        let mut sizes = Vec::with_capacity(rows.len());
        for (i, p) in proposed.chunks_exact_mut(len.max(1)).enumerate() {
            let origin = batch.row(i);
            if self.threat.norm == Norm::Spatial {
                let (said, shape) = (oracle.motion(i).unwrap_or_default(), victim.row());
                let motion = said.within(self.threat.epsilon, shape);
                let made = motion.apply(shape, origin, ball.low);
                if motion != said || made != *p {
                    stage.clipped += 1;
                    p.copy_from_slice(&made);
                }
                sizes.push((motion.size(shape), motion));
                continue;
            }
            if !self.is_within(p, self.size(origin, p), within) {
                stage.clipped += 1;
                if within {
                    ball.project(origin, p);
                    if self.threat.norm == Norm::Patch {
                        square::keep_largest(victim.row(), origin, p, self.threat.epsilon as usize);
                    }
                } else {
                    let clip =
                        |(v, o): (&mut f32, &f32)| *v = if v.is_nan() { *o } else { v.clamp(ball.low, ball.high) };
                    p.iter_mut().zip(origin).for_each(clip);
                }
            }
            if let Some(limits) = &limits {
                limits.possible.project(origin, p, Some(&limits.ball));
            }
            sizes.push((self.size(origin, p), Motion::default()));
        }
        let answers = self.judge.logits(&proposed)?;
        for (i, &r) in rows.iter().enumerate() {
            let (z, p) = (row(&answers, k, i), row(&proposed, len, i));
            self.judge_row(card, r, (p, z, sizes[i]), index, stage)?;
        }
        Ok(())
    }

    fn size(&self, origin: &[f32], p: &[f32]) -> f64 {
        size(self.threat.norm, self.victim.row(), origin, p)
    }

    /// Whether a point this far from its row is within the threat up to rounding; only within the bounds where `epsilon` does
    /// not matter.
    fn is_within(&self, p: &[f32], size: f64, epsilon: bool) -> bool {
        let [low, high] = self.threat.bounds.map(|b| b as f32);
        let near = size <= self.threat.epsilon + tolerance(&self.threat, p.len());
        p.iter().all(|v| *v >= low && *v <= high) && (near || (!epsilon && size.is_finite()))
    }

    fn judge_row(
        &mut self,
        card: &'static Card,
        r: usize,
        (p, z, (size, motion)): (&[f32], &[f32], (f64, Motion)),
        index: usize,
        stage: &mut Stage,
    ) -> Result<(), AttackError> {
        let (len, label) = (self.victim.row_len(), self.labels[r]);
        let within = self.is_within(p, size, true);
        let wrong = !is_right(z, label);
        let o = &mut self.outcomes[r];
        if within && margin(z, label) < o.margin {
            o.margin = margin(z, label);
        }
        if !wrong || matches!(o.fate, Fate::Wrong | Fate::Undefined) {
            return Ok(());
        }
        let smaller = o.smallest.is_none_or(|s| size < s);
        if smaller {
            o.smallest = Some(size);
        }
        if !within {
            return Ok(());
        }
        match o.fate {
            Fate::Certified => return Err(self.contradiction(r, card.id.to_owned())),
            Fate::Standing => {
                o.fate = Fate::Broken(index);
                stage.broken += 1;
            }
            Fate::Broken(_) if !smaller => return Ok(()),
            _ => {}
        }
        o.norm = size;
        self.motions[r] = motion;
        row_mut(&mut self.adversarial, len, r).copy_from_slice(p);
        Ok(())
    }

    fn contradiction(&self, row: usize, attack: String) -> AttackError {
        AttackError::CertifiedBroken { row: self.row_ids[row], threat: self.threat.to_string(), attack }
    }

    /// Clean and robust accuracy, with Clopper–Pearson intervals.
    pub fn accuracy(&self, level: Level) -> RobustAccuracy {
        let n = self.len() as u64;
        let of = |keep: &dyn Fn(Fate) -> bool| {
            let k = self.outcomes.iter().filter(|o| keep(o.fate)).count() as u64;
            let interval = clopper_pearson(k, n, level);
            Estimate { value: k as f64 / n.max(1) as f64, n, standard_error: None, interval }
        };
        let clean = of(&|f| !matches!(f, Fate::Wrong | Fate::Undefined));
        let attacked = of(&Fate::is_robust);
        let certified = of(&|f| f == Fate::Certified);
        let interval = certified.interval.zip(attacked.interval).map(|(low, high)| Interval { low: low.low, ..high });
        RobustAccuracy { clean, attacked, certified, interval }
    }
}
