//! The clean forward pass: what the network answers on every row, kept in bounded memory.

use netproof_data::{Batch, Labels};
use netproof_stats::descriptive::Moments;
use netproof_stats::probability::{Probabilities, brier_scores, log_losses, log_losses_of_logits, undefined_rows};
use netproof_tensor::Tensor;

use crate::AuditError;

/// Most numbers of the kept sample of logits: 64 MiB.
const SAMPLE_VALUES: usize = 16 << 20;

/// Most rows of it.
const SAMPLE_ROWS: usize = 1 << 20;

/// Rows with the highest loss that are kept.
const HARDEST: usize = 50;

/// No class: the network's answer holds a NaN.
pub const UNDEFINED: u32 = u32::MAX;

/// What the numbers of a network's output mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// One logit per class.
    Logits,
    /// One probability per class.
    Probabilities,
    /// One logit of class 1.
    BinaryLogit,
    /// One probability of class 1.
    BinaryProbability,
    /// One predicted number.
    Value,
}

impl Head {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Probabilities => "probabilities",
            Self::BinaryLogit => "one logit of class 1",
            Self::BinaryProbability => "one probability of class 1",
            Self::Value => "a predicted number",
        }
    }
}

/// A row that the network finds hard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HardRow {
    /// Row number in the source.
    pub row: u64,
    /// Log loss in nats.
    pub loss: f64,
    /// Its class.
    pub label: usize,
    /// The class that the network says.
    pub predicted: usize,
    /// How sure it is.
    pub confidence: f64,
}

/// Logits and labels of all rows, or of evenly spaced ones where there are over a million or they would take over 64 MiB.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Positions of the rows.
    pub rows: Vec<usize>,
    /// `[rows, classes]`, one after the other; logarithms of probabilities where the network gives these.
    pub logits: Vec<f32>,
    /// One per row.
    pub labels: Vec<usize>,
}

/// Answers of a classifier on labelled rows. Memory: 12 bytes per row, 64 MiB of logits.
#[derive(Debug, Clone)]
pub struct Classified {
    /// What the network gives.
    pub head: Head,
    /// Number of classes.
    pub classes: usize,
    /// Class of each row.
    pub labels: Vec<u32>,
    /// Class that the network says, or [`UNDEFINED`].
    pub predicted: Vec<u32>,
    /// Probability of that class; NaN where undefined.
    pub confidence: Vec<f32>,
    /// Log losses in nats, of the rows that are defined.
    pub log_loss: Moments,
    /// Brier scores (sum over classes), of the rows that are defined.
    pub brier: Moments,
    /// Rows where the answer holds a NaN, or the input does.
    pub undefined: u64,
    /// Rows with the highest loss, hardest first.
    pub hardest: Vec<HardRow>,
    /// Logits of all rows or of evenly spaced ones.
    pub sample: Sample,
}

/// Answers of a regression network on rows with targets. Memory: 8 bytes per row.
#[derive(Debug, Clone, Default)]
pub struct Regressed {
    /// Predicted numbers.
    pub predicted: Vec<f32>,
    /// Targets.
    pub actual: Vec<f32>,
    /// Rows whose answer is not a finite number; left out of both.
    pub undefined: u64,
}

/// What the network answered on a data set.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one per data set")]
pub enum Outputs {
    /// Labels are classes.
    Classified(Classified),
    /// Labels are numbers.
    Regressed(Regressed),
}

impl Outputs {
    /// The answers of a classifier, or `None`.
    pub fn classified(&self) -> Option<&Classified> {
        if let Self::Classified(c) = self { Some(c) } else { None }
    }

    /// The answers of a regression network, or `None`.
    pub fn regressed(&self) -> Option<&Regressed> {
        if let Self::Regressed(r) = self { Some(r) } else { None }
    }
}

/// Fills [`Outputs`] batch by batch.
pub(crate) struct Collector {
    outputs: Outputs,
    stride: usize,
    position: usize,
    label_error: Option<(u64, usize)>,
}

impl Collector {
    /// `rows` in all; `width` numbers per row.
    pub(crate) fn new(head: Head, width: usize, rows: usize) -> Self {
        let classes = match head {
            Head::BinaryLogit | Head::BinaryProbability => 2,
            _ => width,
        };
        let outputs = match head {
            Head::Value => Outputs::Regressed(Regressed::default()),
            _ => Outputs::Classified(Classified {
                head,
                classes,
                labels: Vec::with_capacity(rows),
                predicted: Vec::with_capacity(rows),
                confidence: Vec::with_capacity(rows),
                log_loss: Moments::default(),
                brier: Moments::default(),
                undefined: 0,
                hardest: Vec::new(),
                sample: Sample::default(),
            }),
        };
        let stride = rows.saturating_mul(classes).div_ceil(SAMPLE_VALUES).max(rows.div_ceil(SAMPLE_ROWS)).max(1);
        Self { outputs, stride, position: 0, label_error: None }
    }

    /// Adds the answers `[rows, width]` on a batch.
    pub(crate) fn add(&mut self, batch: &Batch, answers: &Tensor) -> Result<(), AuditError> {
        let values = answers.as_f32().unwrap_or_default();
        match (&mut self.outputs, &batch.labels) {
            (Outputs::Regressed(r), Labels::Targets(targets)) => {
                for (&v, &t) in values.iter().zip(targets) {
                    if v.is_finite() && t.is_finite() {
                        r.predicted.push(v);
                        r.actual.push(t);
                    } else {
                        r.undefined += 1;
                    }
                }
            }
            (Outputs::Classified(c), Labels::Classes(labels)) => {
                if let Some(i) = labels.iter().position(|&l| l >= c.classes) {
                    self.label_error.get_or_insert((batch.row_ids[i], labels[i]));
                }
                if let Some((row, label)) = self.label_error {
                    return Err(AuditError::Mismatch {
                        message: format!(
                            "row {row} has label {label}, the network has {} classes; check the label column",
                            c.classes
                        ),
                    });
                }
                c.add(batch, labels, values, self.position, self.stride)?;
            }
            _ => {
                return Err(AuditError::Mismatch { message: "the labels are of another kind than before".to_owned() });
            }
        }
        self.position += batch.len();
        Ok(())
    }

    pub(crate) fn finish(self) -> Outputs {
        self.outputs
    }
}

impl Classified {
    fn add(
        &mut self,
        batch: &Batch,
        labels: &[usize],
        values: &[f32],
        position: usize,
        stride: usize,
    ) -> Result<(), AuditError> {
        let k = self.classes;
        let wide = self.two_columns(values);
        let undefined = undefined_rows(&wide, k);
        let mut bad = vec![false; labels.len()];
        undefined.iter().for_each(|&i| bad[i] = true);
        self.undefined += undefined.len() as u64;
        let good: Vec<usize> = (0..labels.len()).filter(|&i| !bad[i]).collect();
        let own: Vec<usize> = good.iter().map(|&i| labels[i]).collect();
        let rows: Vec<f32> = good.iter().flat_map(|&i| wide[i * k..(i + 1) * k].iter().copied()).collect();
        let probabilities_given = matches!(self.head, Head::Probabilities | Head::BinaryProbability);
        let (probabilities, losses) = if probabilities_given {
            let p: Vec<f64> = rows.iter().map(|&v| f64::from(v)).collect();
            let p = Probabilities::new(&p, k, &own)?;
            let losses = log_losses(&p);
            (p.values().to_vec(), losses)
        } else {
            let p = Probabilities::from_logits(&rows, k, &own)?;
            (p.values().to_vec(), log_losses_of_logits(&rows, k, &own)?)
        };
        for score in brier_scores(&Probabilities::new(&probabilities, k, &own)?) {
            self.brier.add(score);
        }
        let mut at = 0;
        for (i, &label) in labels.iter().enumerate() {
            self.labels.push(label as u32);
            if bad[i] {
                self.predicted.push(UNDEFINED);
                self.confidence.push(f32::NAN);
                continue;
            }
            let row = &rows[at * k..(at + 1) * k];
            let mut best = 0;
            for (class, &v) in row.iter().enumerate() {
                if v > row[best] {
                    best = class;
                }
            }
            let confidence = probabilities[at * k + best];
            self.predicted.push(best as u32);
            self.confidence.push(confidence as f32);
            self.log_loss.add(losses[at]);
            self.note_hard(HardRow { row: batch.row_ids[i], loss: losses[at], label, predicted: best, confidence });
            if (position + i).is_multiple_of(stride) {
                self.sample.rows.push(position + i);
                self.sample.labels.push(label);
                if probabilities_given {
                    // Their logarithms are logits of the same distribution.
                    self.sample.logits.extend(row.iter().map(|&v| v.max(f32::MIN_POSITIVE).ln()));
                } else {
                    self.sample.logits.extend_from_slice(row);
                }
            }
            at += 1;
        }
        Ok(())
    }

    /// One number per row becomes two columns that mean the same.
    fn two_columns(&self, values: &[f32]) -> Vec<f32> {
        match self.head {
            Head::BinaryLogit => values.iter().flat_map(|&z| [if z.is_nan() { z } else { 0.0 }, z]).collect(),
            Head::BinaryProbability => values.iter().flat_map(|&p| [1.0 - p, p]).collect(),
            _ => values.to_vec(),
        }
    }

    fn note_hard(&mut self, row: HardRow) {
        // Equal losses keep the order of rows.
        let at = self.hardest.partition_point(|h| h.loss >= row.loss);
        if at < HARDEST {
            self.hardest.insert(at, row);
            self.hardest.truncate(HARDEST);
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    /// Whether the sample holds every row that is defined.
    pub fn sample_is_complete(&self) -> bool {
        self.sample.rows.len() as u64 + self.undefined == self.rows() as u64
    }
}
