//! The loop. It knows objectives, optimisers and all the rest by their traits only.
//!
//! # Guarantees
//! The same recipe, network and rows give the same bits, at any number of threads, and however often the training was
//! stopped and resumed on the way: what is drawn at random depends on the seed and the position alone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netproof_data::{Dataset, LabelKind};
use netproof_graph::Model;
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::augment::Augmentation;
use crate::averaging::Averaging;
use crate::batch::Batch;
use crate::checkpoint::{self, Draft};
use crate::error::TrainError;
use crate::job::Job;
use crate::layers::{Treatment, treatments};
use crate::method::Registry;
use crate::net::Net;
use crate::objective::{Objective, Sums, evaluate};
use crate::optimiser::{Optimiser, Update};
use crate::recipe::{Monitor, Recipe};
use crate::record::{Ended, EpochRecord, Metrics, Record, SCHEMA, Silent, StepReport, Watch};
use crate::rows::Rows;
use crate::rule::{Gradient, GradientRule, Step};
use crate::schedule::{Observation, Position, Schedule};
use crate::stopping::StoppingRule;
use crate::weights::{Weights, scale, squared_norm};

/// Rows of a batch of validation.
const VALIDATION_BATCH: usize = 256;
/// Most batches with which running statistics of averaged weights are measured again.
const STATISTICS_BATCHES: usize = 100;
/// A loss this many times that of the first step, or of 1 where that is more, has diverged.
const DIVERGED: f64 = 1000.0;

/// How a training is run: nothing here changes what it gives.
pub struct RunOptions<'a> {
    /// Where checkpoints are kept; none are written without it.
    pub checkpoint: Option<&'a Path>,
    /// A checkpoint whenever this time has passed since the last one; there is one after each epoch in any case.
    pub checkpoint_every: Duration,
    /// A checkpoint after so many steps.
    pub checkpoint_every_steps: Option<u64>,
    /// Go on from the checkpoint, where there is one.
    pub resume: bool,
    /// Once this is true the training saves a checkpoint and ends.
    pub interrupt: Option<&'a AtomicBool>,
    /// Hears how far it is.
    pub watch: &'a dyn Watch,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        Self {
            checkpoint: None,
            checkpoint_every: Duration::from_secs(60),
            checkpoint_every_steps: None,
            resume: false,
            interrupt: None,
            watch: &Silent,
        }
    }
}

/// What a training gives.
pub struct Trained {
    /// The network with the best weights.
    pub model: Model,
    /// What happened.
    pub record: Record,
}

/// Trains.
/// # Errors
/// Recipe, network and rows do not fit each other; a row cannot be read or holds NaN; a checkpoint cannot be written, is
/// damaged, or belongs to another training. A training that diverges is no error: see [`Ended::Diverged`].
pub fn train(recipe: &Recipe, job: Job, registry: &Registry, options: &RunOptions<'_>) -> Result<Trained, TrainError> {
    let mut trainer = Trainer::new(recipe, job, registry, options)?;
    trainer.begin()?;
    trainer.run()?;
    trainer.finish()
}

/// What tells a training from any other: a hash over recipe, network and rows.
/// # Errors
/// The rows cannot be read.
pub fn identity(recipe: &Recipe, job: &Job) -> Result<String, TrainError> {
    Ok(Hashes::new(recipe, &job.model, &job.train, job.validation.as_ref())?.identity)
}

/// What a network says about some rows.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Loss and accuracy, by the recipe's objective.
    pub metrics: Metrics,
    /// `[rows, width]`: logits where the network has them.
    pub values: Vec<f32>,
    /// Numbers per row.
    pub width: usize,
}

/// Metrics and answers of a network over some rows, in evaluation mode.
/// # Errors
/// Recipe, network and rows do not fit each other.
pub fn measure(recipe: &Recipe, model: Model, rows: &Dataset, registry: &Registry) -> Result<Answers, TrainError> {
    let objective = registry.objectives.build(&recipe.objective, registry)?;
    let net = Net::new(model, objective.takes_logits())?;
    let classes = usize::from(matches!(rows.label_kind(), LabelKind::Classes { .. }));
    let memory = recipe.data.memory_mib.saturating_mul(1 << 20);
    let rows = Rows::new(rows.clone(), net.row_shape(rows.feature_shape())?, classes, memory)?;
    let (mut values, mut width) = (Vec::new(), 0);
    let sums = over_rows(&net, &*objective, &rows, &net.weights, |outputs| {
        width = outputs.row_len();
        values.extend_from_slice(outputs.as_f32().unwrap_or_default());
    })?;
    Ok(Answers { metrics: Metrics::from(&sums), values, width })
}

/// Answers of all rows, in evaluation mode; their losses added up.
fn over_rows(
    net: &Net,
    objective: &dyn Objective,
    rows: &Rows,
    weights: &Weights,
    mut see: impl FnMut(&Tensor),
) -> Result<Sums, TrainError> {
    let size = net.model().fixed_batch().filter(|&b| b > 0).unwrap_or(VALIDATION_BATCH);
    let mut sums = Sums::default();
    for batch in rows.batches(size, None, 0)? {
        let batch = batch?;
        let outputs = net.answers(weights, &batch.features)?;
        see(&outputs);
        sums.add(&evaluate(objective, &outputs, &batch)?.0);
    }
    Ok(sums)
}

/// The best weights so far.
struct Best {
    /// 0: as they were before the training.
    epoch: u64,
    score: Option<f64>,
    weights: Weights,
}

/// What changes from step to step.
struct State {
    progress: Progress,
    /// For each trainable tensor, what the optimiser keeps.
    moments: Vec<Vec<Vec<f32>>>,
    best: Best,
}

/// The plain part of the state, as checkpoints hold it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Progress {
    /// Epochs that are done.
    epoch: u64,
    /// Batches of the current epoch that are done.
    batch: u64,
    /// Steps that are done.
    step: u64,
    /// Steps that each trainable tensor has taken part in.
    counts: Vec<u64>,
    /// Over the current epoch.
    sums: Sums,
    /// Over the current epoch.
    norm_sum: f64,
    /// Steps of the current epoch.
    epoch_steps: u64,
    learning_rate: f64,
    first_loss: Option<f64>,
    start: Option<Metrics>,
    #[serde(default)]
    start_robust: Option<Metrics>,
    epochs: Vec<EpochRecord>,
    /// Wall-clock seconds of the current epoch before the last resumption.
    seconds: f64,
    ended: Option<Ended>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    identity: String,
    progress: Progress,
    best_epoch: u64,
    best_score: Option<f64>,
    average_count: u64,
    schedule: Value,
    stopping: Value,
    rule: Value,
}

struct Trainer<'a> {
    recipe: &'a Recipe,
    options: &'a RunOptions<'a>,
    net: Net,
    train: Arc<Rows>,
    validation: Option<Arc<Rows>>,
    objective: Box<dyn Objective>,
    optimiser: Box<dyn Optimiser>,
    schedule: Box<dyn Schedule>,
    rule: Box<dyn GradientRule>,
    averaging: Box<dyn Averaging>,
    stopping: Box<dyn StoppingRule>,
    augmentations: Vec<Box<dyn Augmentation>>,
    treatments: Vec<Treatment>,
    /// Batches of an epoch, each counted as often as the rule takes it.
    batches_per_epoch: u64,
    steps_per_epoch: u64,
    /// Rows of an incomplete last batch are left out, since the network takes only full ones.
    full_batches: bool,
    state: State,
    hashes: Hashes,
    notes: Vec<String>,
    /// When the current epoch began or was resumed, and when the last checkpoint was written.
    clock: Instant,
    saved: Instant,
}

struct Hashes {
    initial: String,
    train: String,
    validation: Option<String>,
    identity: String,
}

impl<'a> Trainer<'a> {
    fn new(recipe: &'a Recipe, job: Job, registry: &Registry, options: &'a RunOptions<'a>) -> Result<Self, TrainError> {
        recipe.check()?;
        let Job { model, train, validation, notes } = job;
        let objective = registry.objectives.build(&recipe.objective, registry)?;
        let hashes = Hashes::new(recipe, &model, &train, validation.as_ref())?;
        let mut net = Net::new(model, objective.takes_logits())?;
        net.checkpoints = recipe.gradient_checkpointing;
        let shape = net.row_shape(train.feature_shape())?;
        let labels = train.label_kind().clone();
        let memory = recipe.data.memory_mib.saturating_mul(1 << 20);
        let fixed = net.model().fixed_batch().filter(|&b| b > 0);
        if let Some(fixed) = fixed.filter(|&b| b != recipe.batch_size) {
            let message = format!(
                "the network takes batches of {fixed} rows only; set `batch_size = {fixed}` or export it with an open \
                 first dimension"
            );
            return Err(TrainError::Mismatch { message });
        }
        // One row says how wide the answers are; the graph may not declare it.
        let probe = train.batches(1).next().transpose()?;
        let Some(probe) = probe else {
            return Err(TrainError::Mismatch { message: "the data has no rows to train on".to_owned() });
        };
        let row: Vec<usize> = std::iter::once(1).chain(shape.iter().copied()).collect();
        let answer = net.answers(&net.weights, &probe.features.reshape(row)?)?;
        let width = answer.row_len();
        objective.check(width, &labels)?;
        let classes = if matches!(labels, LabelKind::Classes { .. }) { width.max(2) } else { 0 };
        let train = Arc::new(Rows::new(train, shape.clone(), classes, memory)?);
        let validation = validation.map(|v| Rows::new(v, shape, classes, memory).map(Arc::new)).transpose()?;
        let full_batches = fixed.is_some();
        let batches =
            if full_batches { train.len() / recipe.batch_size } else { train.len().div_ceil(recipe.batch_size) };
        if batches == 0 {
            let message = format!("{} rows are less than a batch of {}", train.len(), recipe.batch_size);
            return Err(TrainError::Mismatch { message });
        }
        if recipe.monitor == Monitor::RobustAccuracy && validation.is_none() {
            let message =
                "`monitor = \"robust-accuracy\"` needs validation rows; name some or set `validation_fraction`";
            return Err(TrainError::Mismatch { message: message.to_owned() });
        }
        let rule = registry.rules.build(&recipe.gradient, registry)?;
        let batches = (batches as u64).saturating_mul(rule.repeats().max(1));
        let optimiser = registry.optimisers.build(&recipe.optimiser, registry)?;
        let names = &net.weights.names()[..net.weights.trainable()];
        let treatments = treatments(&recipe.layers, names)?;
        let moments = (0..net.weights.trainable())
            .map(|i| vec![vec![0.0; net.weights.tensors()[i].len()]; optimiser.slots()])
            .collect();
        let counts = vec![0; net.weights.trainable()];
        let augmentations =
            recipe.augmentation.iter().map(|m| registry.augmentations.build(m, registry)).collect::<Result<_, _>>()?;
        let best = Best { epoch: 0, score: None, weights: net.weights.clone() };
        Ok(Self {
            recipe,
            options,
            objective,
            optimiser,
            schedule: registry.schedules.build(&recipe.schedule, registry)?,
            rule,
            averaging: registry.averaging.build(&recipe.averaging, registry)?,
            stopping: registry.stopping.build(&recipe.stopping, registry)?,
            augmentations,
            treatments,
            batches_per_epoch: batches,
            steps_per_epoch: batches.div_ceil(recipe.accumulate),
            full_batches,
            state: State { progress: Progress { counts, ..Progress::default() }, moments, best },
            net,
            train,
            validation,
            hashes,
            notes,
            clock: Instant::now(),
            saved: Instant::now(),
        })
    }

    /// Measures the network as it is, or takes up a checkpoint.
    fn begin(&mut self) -> Result<(), TrainError> {
        for note in &self.notes {
            self.options.watch.note(note);
        }
        if let Some(path) = self.options.checkpoint.filter(|p| self.options.resume && p.exists()) {
            return self.resume(path);
        }
        if let Some(rows) = &self.validation {
            let start = self.measure(rows, &self.net.weights)?;
            let weights = self.net.weights.clone();
            let robust = self.measure_robust(&weights)?;
            self.state.best.score = Some(self.score(&start, robust.as_ref())).filter(|s| s.is_finite());
            self.state.progress.start = Some(start).filter(|s| s.loss.is_finite());
            self.state.progress.start_robust = robust.filter(|s| s.loss.is_finite());
        }
        self.clock = Instant::now();
        Ok(())
    }

    fn run(&mut self) -> Result<(), TrainError> {
        while self.state.progress.ended.is_none() {
            if self.state.progress.epoch == self.recipe.epochs {
                self.state.progress.ended = Some(Ended::Completed);
                return self.save();
            }
            if let Some(ended) = self.epoch()? {
                let goes_on = ended == Ended::Interrupted;
                if goes_on {
                    self.save()?;
                }
                self.state.progress.ended = Some(ended);
                if !goes_on {
                    self.save()?;
                }
            }
        }
        Ok(())
    }

    /// The rest of the current epoch.
    fn epoch(&mut self) -> Result<Option<Ended>, TrainError> {
        let epoch = self.state.progress.epoch;
        let names = &self.net.weights.names()[..self.net.weights.trainable()];
        let active: Vec<String> = names
            .iter()
            .zip(&self.treatments)
            .filter(|(_, t)| t.is_active(epoch + 1))
            .map(|(name, _)| name.clone())
            .collect();
        let shuffle = self.recipe.shuffle.then_some((self.recipe.seed, epoch));
        let skip = (self.state.progress.batch / self.repeats()) as usize;
        // The rows are lent to the iterator, and the loop changes the rest.
        let train = self.train.clone();
        let batches = train.batches(self.recipe.batch_size, shuffle, skip)?;
        match self.batches(batches, &active)? {
            Some(ended) => Ok(Some(ended)),
            None => self.end_epoch(),
        }
    }

    fn batches(
        &mut self,
        batches: Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_>,
        active: &[String],
    ) -> Result<Option<Ended>, TrainError> {
        let mut total = Gradient::default();
        let repeats = self.repeats();
        let left = (self.batches_per_epoch - self.state.progress.batch).div_ceil(repeats);
        for batch in batches.take(left as usize) {
            let batch = batch?;
            debug_assert!(!self.full_batches || batch.len() == self.recipe.batch_size);
            for _ in self.state.progress.batch % repeats..repeats {
                total.add(self.gradient(batch.clone(), active)?);
                self.state.progress.batch += 1;
                let done = self.state.progress.batch;
                if !done.is_multiple_of(self.recipe.accumulate) && done < self.batches_per_epoch {
                    continue;
                }
                if let Some(ended) = self.step(std::mem::take(&mut total), active)? {
                    return Ok(Some(ended));
                }
            }
        }
        Ok(None)
    }

    fn repeats(&self) -> u64 {
        self.rule.repeats().max(1)
    }

    /// A step, and what is due after it.
    fn step(&mut self, total: Gradient, active: &[String]) -> Result<Option<Ended>, TrainError> {
        if let Some(reason) = self.update(total, active)? {
            return Ok(Some(Ended::Diverged { step: self.state.progress.step, reason }));
        }
        if self.options.interrupt.is_some_and(|i| i.load(Ordering::Relaxed)) {
            return Ok(Some(Ended::Interrupted));
        }
        let steps = self.options.checkpoint_every_steps.filter(|&n| n > 0);
        let due = steps.is_some_and(|n| self.state.progress.step.is_multiple_of(n))
            || self.saved.elapsed() >= self.options.checkpoint_every;
        if due {
            self.save()?;
        }
        Ok(None)
    }

    /// The gradient of one batch, after augmentation.
    fn gradient(&mut self, mut batch: Batch, active: &[String]) -> Result<Gradient, TrainError> {
        let p = &self.state.progress;
        let number = p.epoch * self.batches_per_epoch + p.batch;
        if !self.augmentations.is_empty() {
            let base = Rng::named(self.recipe.seed, "augmentation").next_u64();
            let mut rng = Rng::stream(base, number / self.repeats() + 1);
            self.augmentations.iter().try_for_each(|a| a.apply(&mut batch, &mut rng))?;
        }
        let base = Rng::named(self.recipe.seed, "step").next_u64();
        let seed = Rng::stream(base, number + 1).next_u64();
        let mut step = Step { net: &mut self.net, objective: &*self.objective, number, seed, active };
        let gradient = self.rule.gradient(&mut step, &batch)?;
        for (name, tensor) in &gradient.statistics {
            self.net.weights.set_statistic(name, tensor);
        }
        Ok(gradient)
    }

    /// Moves the weights; gives the reason where the training has diverged.
    fn update(&mut self, mut total: Gradient, active: &[String]) -> Result<Option<String>, TrainError> {
        let number = self.state.progress.epoch * self.batches_per_epoch + self.state.progress.batch - 1;
        let base = Rng::named(self.recipe.seed, "finish").next_u64();
        let seed = Rng::stream(base, number + 1).next_u64();
        let mut step = Step { net: &mut self.net, objective: &*self.objective, number, seed, active };
        self.rule.finish(&mut step, &mut total)?;
        let loss = total.sums.mean_loss();
        let r = &self.recipe.regularisation;
        for (tensor, weights) in total.tensors.iter_mut().zip(self.net.weights.tensors()) {
            if let Some(tensor) = tensor.as_mut().filter(|t| r.is_about(t.shape())) {
                let weights = weights.as_f32().unwrap_or_default();
                r.add_penalties(tensor.as_f32_mut().unwrap_or_default(), weights);
            }
        }
        let values = |t: &Tensor| squared_norm(t.as_f32().unwrap_or_default());
        let norm = total.tensors.iter().flatten().map(values).sum::<f64>().sqrt();
        if let Some(reason) = self.divergence(loss, norm) {
            return Ok(Some(reason));
        }
        // The small number is PyTorch's, which keeps a norm of exactly the limit from being changed by rounding.
        let clip = r.clip_norm_l2.map(|limit| limit / (norm + 1e-6)).filter(|&c| c < 1.0);
        let at = Position {
            step: self.state.progress.step,
            total: self.steps_per_epoch * self.recipe.epochs,
            steps_per_epoch: self.steps_per_epoch,
        };
        let setting = self.schedule.setting(&at);
        let rate = self.optimiser.learning_rate() * setting.factor;
        let epoch = self.state.progress.epoch + 1;
        for (i, tensor) in total.tensors.iter_mut().enumerate() {
            let treatment = self.treatments[i];
            let Some(gradient) = tensor.as_mut().filter(|_| treatment.is_active(epoch)) else { continue };
            let shape = gradient.shape().to_vec();
            let gradient = gradient.as_f32_mut().unwrap_or_default();
            if let Some(clip) = clip {
                scale(gradient, clip as f32);
            }
            self.state.progress.counts[i] += 1;
            let update = Update {
                number: self.state.progress.counts[i],
                learning_rate: rate * treatment.rate,
                weight_decay_scale: treatment.decay,
                momentum: setting.momentum,
            };
            let weights = self.net.weights.values_mut(i);
            if r.is_about(&shape) {
                r.decay(weights, update.learning_rate);
            }
            self.optimiser.update(&update, weights, gradient, &mut self.state.moments[i]);
            if r.is_about(&shape) {
                r.limit_units(weights, &shape);
            }
        }
        let p = &mut self.state.progress;
        p.step += 1;
        p.epoch_steps += 1;
        p.norm_sum += norm;
        p.learning_rate = rate;
        p.first_loss.get_or_insert(loss);
        p.sums.add(&total.sums);
        self.averaging.after_step(p.step, &self.net.weights);
        let report = StepReport {
            epoch,
            step: p.step,
            total: at.total,
            loss,
            rows: total.sums.rows,
            learning_rate: rate,
            gradient_norm: norm,
        };
        self.options.watch.step(&report);
        Ok(None)
    }

    fn divergence(&self, loss: f64, norm: f64) -> Option<String> {
        let advice = "try a smaller learning rate, a warm-up or `clip_norm_l2`";
        let limit = DIVERGED * self.state.progress.first_loss.unwrap_or(f64::MAX / DIVERGED).max(1.0);
        if !loss.is_finite() {
            Some(format!("the loss is {loss}; {advice}"))
        } else if !norm.is_finite() {
            Some(format!("the gradient is not finite; {advice}"))
        } else if loss > limit {
            Some(format!("the loss has grown to {loss:.3e}, it began at {:.3e}; {advice}", limit / DIVERGED))
        } else {
            None
        }
    }

    fn end_epoch(&mut self) -> Result<Option<Ended>, TrainError> {
        let epoch = self.state.progress.epoch + 1;
        let step = self.state.progress.step;
        let stopped = self.judge_epoch()?;
        self.averaging.after_epoch(epoch, &self.net.weights);
        let candidate = self.candidate()?;
        if !candidate.are_finite() {
            let reason = "weights are not finite; try a smaller learning rate, a warm-up or `clip_norm_l2`".to_owned();
            return Ok(Some(Ended::Diverged { step, reason }));
        }
        let validation = self.validation.as_ref().map(|rows| self.measure(rows, &candidate)).transpose()?;
        let robust = self.measure_robust(&candidate)?;
        let train = Metrics::from(&self.state.progress.sums);
        let watched = validation.unwrap_or(train);
        let score = self.score(&watched, robust.as_ref());
        if !watched.loss.is_finite() || !score.is_finite() {
            let reason = format!("the loss of the validation rows is {}; try a smaller learning rate", watched.loss);
            return Ok(Some(Ended::Diverged { step, reason }));
        }
        let higher_is_better = self.recipe.monitor != Monitor::Loss;
        let is_best = stopped.is_none()
            && self.rule.counts()
            && self.state.best.score.is_none_or(|b| if higher_is_better { score > b } else { score < b });
        if is_best {
            self.state.best = Best { epoch, score: Some(score), weights: candidate };
        }
        let r = &self.recipe.regularisation;
        let weights = self.net.weights.tensors().iter().take(self.net.weights.trainable());
        let penalty =
            weights.filter(|t| r.is_about(t.shape())).map(|t| r.penalty(t.as_f32().unwrap_or_default())).sum();
        let p = &mut self.state.progress;
        let record = EpochRecord {
            epoch,
            steps: p.step,
            learning_rate: p.learning_rate,
            train,
            validation,
            robust,
            penalty,
            gradient_norm: p.norm_sum / p.epoch_steps.max(1) as f64,
            is_best,
            seconds: p.seconds + self.clock.elapsed().as_secs_f64(),
        };
        self.options.watch.epoch(&record);
        p.epochs.push(record);
        p.epoch = epoch;
        (p.batch, p.sums, p.norm_sum, p.epoch_steps, p.seconds) = (0, Sums::default(), 0.0, 0, 0.0);
        self.clock = Instant::now();
        if let Some(reason) = stopped {
            return Ok(Some(Ended::Stopped { reason }));
        }
        let seen = Observation { epoch, score, higher_is_better };
        self.schedule.observe(&seen);
        if let Some(reason) = self.stopping.observe(&seen)
            && epoch < self.recipe.epochs
        {
            return Ok(Some(Ended::Stopped { reason }));
        }
        self.save()?;
        Ok(None)
    }

    /// The weights as they would be given back now: the average where there is one.
    fn candidate(&mut self) -> Result<Weights, TrainError> {
        let Some(average) = self.averaging.average() else { return Ok(self.net.weights.clone()) };
        let mut candidate = self.net.weights.clone();
        candidate.tensors = average.to_vec();
        let statistics = candidate.names().len() > candidate.trainable();
        if !(statistics && self.averaging.needs_statistics()) {
            return Ok(candidate);
        }
        // Izmailov et al. 2018, section 3.2: averaged weights need statistics of their own.
        let kept = std::mem::replace(&mut self.net.weights, candidate);
        let mut again = || -> Result<(), TrainError> {
            let shuffle = Some((self.recipe.seed, u64::MAX));
            for batch in self.train.batches(self.recipe.batch_size, shuffle, 0)?.take(STATISTICS_BATCHES) {
                let batch = batch?;
                if self.full_batches && batch.len() < self.recipe.batch_size {
                    break;
                }
                let run = self.net.forward(&batch.features, 0, netproof_graph::Parameters::None)?;
                let updates = run.updates()?;
                drop(run);
                for (name, tensor) in &updates {
                    self.net.weights.set_statistic(name, tensor);
                }
            }
            Ok(())
        };
        let done = again();
        let measured = std::mem::replace(&mut self.net.weights, kept);
        done.map(|()| measured)
    }

    fn measure(&self, rows: &Rows, weights: &Weights) -> Result<Metrics, TrainError> {
        let sums = over_rows(&self.net, &*self.objective, rows, weights, |_| {})?;
        Ok(Metrics::from(&sums))
    }

    /// Metrics where the rule finds the validation rows hardest, where that is monitored.
    fn measure_robust(&mut self, weights: &Weights) -> Result<Option<Metrics>, TrainError> {
        let (Monitor::RobustAccuracy, Some(rows)) = (self.recipe.monitor, self.validation.clone()) else {
            return Ok(None);
        };
        let kept = std::mem::replace(&mut self.net.weights, weights.clone());
        let done = self.over_hardest(&rows);
        self.net.weights = kept;
        done.map(|sums| Some(Metrics::from(&sums)))
    }

    fn over_hardest(&mut self, rows: &Rows) -> Result<Sums, TrainError> {
        let size = self.net.model().fixed_batch().filter(|&b| b > 0).unwrap_or(VALIDATION_BATCH);
        // The same draws after every epoch, so that epochs are compared by their weights alone.
        let base = Rng::named(self.recipe.seed, "robust").next_u64();
        let mut sums = Sums::default();
        for (number, batch) in (0..).zip(rows.batches(size, None, 0)?) {
            let mut batch = batch?;
            let seed = Rng::stream(base, number + 1).next_u64();
            let mut step = Step { net: &mut self.net, objective: &*self.objective, number, seed, active: &[] };
            let Some(features) = self.rule.hardest(&mut step, &batch)? else {
                let kind = &self.recipe.gradient.kind;
                let message = format!(
                    "`monitor = \"robust-accuracy\"` needs a gradient rule that attacks, such as `pgd-at`; `{kind}` does not"
                );
                return Err(TrainError::Mismatch { message });
            };
            batch.features = features;
            let outputs = self.net.answers(&self.net.weights, &batch.features)?;
            sums.add(&evaluate(&*self.objective, &outputs, &batch)?.0);
        }
        Ok(sums)
    }

    /// What the rule says to the end of an epoch.
    fn judge_epoch(&mut self) -> Result<Option<String>, TrainError> {
        let epoch = self.state.progress.epoch;
        let number = (epoch + 1) * self.batches_per_epoch;
        let seed = Rng::stream(Rng::named(self.recipe.seed, "epoch").next_u64(), epoch + 1).next_u64();
        let shuffle = self.recipe.shuffle.then_some((self.recipe.seed, epoch));
        let (rows, size) = (self.train.clone(), self.recipe.batch_size);
        let first = || {
            let none = || TrainError::Mismatch { message: "the data has no rows to train on".to_owned() };
            rows.batches(size, shuffle, 0)?.next().ok_or_else(none)?
        };
        let mut step = Step { net: &mut self.net, objective: &*self.objective, number, seed, active: &[] };
        self.rule.end_epoch(&mut step, &first)
    }

    fn score(&self, metrics: &Metrics, robust: Option<&Metrics>) -> f64 {
        match self.recipe.monitor {
            Monitor::RobustAccuracy => robust.and_then(|r| r.accuracy).unwrap_or(-metrics.loss),
            Monitor::Loss => metrics.loss,
            // Where answers are neither right nor wrong, the loss is all there is.
            Monitor::Accuracy => metrics.accuracy.unwrap_or(-metrics.loss),
        }
    }

    fn save(&mut self) -> Result<(), TrainError> {
        let Some(path) = self.options.checkpoint else { return Ok(()) };
        let s = &self.state;
        let seconds = s.progress.seconds + self.clock.elapsed().as_secs_f64();
        let header = Header {
            identity: self.hashes.identity.clone(),
            progress: Progress { seconds, ..s.progress.clone() },
            best_epoch: s.best.epoch,
            best_score: s.best.score,
            average_count: self.averaging.count(),
            schedule: self.schedule.state(),
            stopping: self.stopping.state(),
            rule: self.rule.state(),
        };
        let names = self.net.weights.names();
        let mut tensors: Vec<(String, &[f32])> = Vec::new();
        let average = self.averaging.average().unwrap_or_default();
        let groups =
            [("weights", self.net.weights.tensors()), ("best", s.best.weights.tensors()), ("average", average)];
        for (prefix, all) in groups {
            let own = names.iter().zip(all);
            tensors.extend(own.map(|(name, t)| (format!("{prefix}/{name}"), t.as_f32().unwrap_or_default())));
        }
        for (i, slots) in s.moments.iter().enumerate() {
            for (k, slot) in slots.iter().enumerate() {
                tensors.push((format!("optimiser.{k}/{}", names[i]), slot));
            }
        }
        Draft { header: &header, tensors }.save(path)?;
        self.saved = Instant::now();
        Ok(())
    }

    fn resume(&mut self, path: &Path) -> Result<(), TrainError> {
        let fail = |message: String| TrainError::Checkpoint { path: path.to_path_buf(), message };
        let loaded: checkpoint::Checkpoint<Header> = checkpoint::load(path)?;
        let Header { identity, progress, best_epoch, best_score, average_count, schedule, stopping, rule } =
            loaded.header;
        if identity != self.hashes.identity {
            return Err(fail(
                "belongs to another training: recipe, network or data have changed; delete it to start again"
                    .to_owned(),
            ));
        }
        let mut stored: std::collections::HashMap<String, Vec<f32>> = loaded.tensors.into_iter().collect();
        let names = self.net.weights.names().to_vec();
        let mut group = |prefix: &str| -> Result<Option<Vec<Tensor>>, TrainError> {
            let mut all = Vec::new();
            for (name, own) in names.iter().zip(self.net.weights.tensors()) {
                match stored.remove(&format!("{prefix}/{name}")) {
                    Some(values) => all.push(Tensor::f32(own.shape().to_vec(), values)?),
                    None => return Ok(None),
                }
            }
            Ok(Some(all))
        };
        let missing = || fail("lacks a tensor; delete it to start again".to_owned());
        let weights = group("weights")?.ok_or_else(missing)?;
        let best = group("best")?.ok_or_else(missing)?;
        let average = group("average")?;
        for (name, slots) in names.iter().zip(&mut self.state.moments) {
            for (k, slot) in slots.iter_mut().enumerate() {
                let values = stored.remove(&format!("optimiser.{k}/{name}")).filter(|v| v.len() == slot.len());
                *slot = values.ok_or_else(missing)?;
            }
        }
        if progress.counts.len() != self.net.weights.trainable() {
            return Err(missing());
        }
        self.net.weights.tensors = weights;
        self.state.best.weights.tensors = best;
        (self.state.best.epoch, self.state.best.score) = (best_epoch, best_score);
        self.state.progress = progress;
        self.averaging.restore(average_count, average);
        let state = |what: &str, e: String| fail(format!("the state of the {what} cannot be read: {e}"));
        self.schedule.restore(&schedule).map_err(|e| state("schedule", e))?;
        self.stopping.restore(&stopping).map_err(|e| state("stopping rule", e))?;
        self.rule.restore(&rule).map_err(|e| state("gradient rule", e))?;
        self.clock = Instant::now();
        Ok(())
    }

    fn finish(self) -> Result<Trained, TrainError> {
        let Best { epoch: best_epoch, weights, .. } = self.state.best;
        let p = self.state.progress;
        let model = self.net.finish(&weights)?;
        let mut notes = self.notes;
        if best_epoch == 0 && !p.epochs.is_empty() {
            notes.push("no epoch was better than the network as it was given, which is what is given back".to_owned());
        }
        let record = Record {
            schema: SCHEMA.to_owned(),
            recipe: self.recipe.to_toml(),
            initial_sha256: self.hashes.initial,
            result_sha256: model.sha256()?,
            train_sha256: self.hashes.train,
            validation_sha256: self.hashes.validation,
            start: p.start,
            start_robust: p.start_robust,
            seconds: p.epochs.iter().map(|e| e.seconds).sum::<f64>() + p.seconds,
            epochs: p.epochs,
            best_epoch,
            ended: p.ended.unwrap_or(Ended::Interrupted),
            notes,
        };
        Ok(Trained { model, record })
    }
}

impl Hashes {
    fn new(recipe: &Recipe, model: &Model, train: &Dataset, validation: Option<&Dataset>) -> Result<Self, TrainError> {
        let initial = model.sha256()?;
        let train = train.content_hash()?;
        let validation = validation.map(Dataset::content_hash).transpose()?;
        let mut digest = Sha256::new();
        for part in [recipe.to_toml().as_str(), &initial, &train, validation.as_deref().unwrap_or("none")] {
            digest.update(part);
            digest.update([0]);
        }
        let identity = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { initial, train, validation, identity })
    }
}

#[cfg(test)]
mod tests;
