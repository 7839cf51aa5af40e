//! What is minimised: one file per objective and one line in [`OBJECTIVES`].

mod binary;
mod cross_entropy;
mod focal;
mod huber;
mod squared;

use netproof_data::LabelKind;
use netproof_tensor::Tensor;
use rayon::prelude::*;

use crate::batch::{Batch, Target};
use crate::error::TrainError;
use crate::method::Entry;

/// Loss of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowLoss {
    /// Its loss.
    pub loss: f64,
    /// What it counts in the mean: the loss of a batch is the sum of losses over the sum of weights.
    pub weight: f64,
}

/// A loss of outputs against targets, row by row.
pub trait Objective: Send + Sync {
    /// Refuses outputs or labels that this objective has no value for.
    /// # Errors
    /// They do not fit; the message says what would.
    fn check(&self, width: usize, labels: &LabelKind) -> Result<(), TrainError>;

    /// The loss of one row and, in `gradient`, its gradient with respect to the outputs.
    /// # Shapes
    /// `outputs` and `gradient` have the width of the network's output
    fn row(&self, outputs: &[f32], target: Target<'_>, gradient: &mut [f32]) -> RowLoss;

    /// Whether it works on what goes into a softmax or sigmoid at the end of a network.
    fn takes_logits(&self) -> bool {
        true
    }

    /// Whether the answer is right; `None` where that makes no sense.
    fn is_correct(&self, outputs: &[f32], target: Target<'_>) -> Option<bool> {
        let wanted = match target {
            Target::Class(c) => c,
            Target::Soft(p) => largest(p),
            Target::Number(_) => return None,
        };
        Some(if outputs.len() == 1 { usize::from(outputs[0] > 0.0) == wanted } else { largest(outputs) == wanted })
    }
}

/// Every objective of this crate.
pub static OBJECTIVES: &[Entry<dyn Objective>] =
    &[cross_entropy::ENTRY, focal::ENTRY, binary::ENTRY, squared::ENTRY, huber::ENTRY];

/// Losses of the rows of a batch, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Sums {
    /// Of weighted losses.
    pub loss: f64,
    /// Of weights.
    pub weight: f64,
    /// Rows.
    pub rows: u64,
    /// Rows whose answer is right or wrong.
    pub judged: u64,
    /// Rows whose answer is right.
    pub correct: u64,
}

impl Sums {
    /// Adds the rows of another batch.
    pub fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.weight += other.weight;
        self.rows += other.rows;
        self.judged += other.judged;
        self.correct += other.correct;
    }

    /// Mean loss; NaN without rows that count.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.weight
    }

    /// Fraction of right answers.
    pub fn accuracy(&self) -> Option<f64> {
        (self.judged > 0).then(|| self.correct as f64 / self.judged as f64)
    }
}

/// Sums over a batch, and the gradient of the *sum* of its weighted losses with respect to the outputs.
/// # Shapes
/// `outputs [rows, …]` → gradient of the same shape
/// # Guarantees
/// The same bits at any number of threads: rows are computed alone and added in order.
/// # Errors
/// The outputs are no floats, or have another number of rows than the batch.
pub fn evaluate(objective: &dyn Objective, outputs: &Tensor, batch: &Batch) -> Result<(Sums, Tensor), TrainError> {
    let n = batch.len();
    let (Some(values), true) = (outputs.as_f32(), outputs.rows() == n && batch.targets.len() == n) else {
        let (shape, targets) = (outputs.shape(), batch.targets.len());
        let message = format!("the output is {} {shape:?} for {n} rows and {targets} targets", outputs.dtype());
        return Err(TrainError::Mismatch { message });
    };
    let width = outputs.row_len();
    let mut gradient = vec![0.0f32; values.len()];
    let one = |(row, gradient): (usize, &mut [f32])| {
        let answer = &values[row * width..(row + 1) * width];
        let target = batch.targets.row(row);
        let own = objective.row(answer, target, gradient);
        let weight = batch.weight(row);
        if weight != 1.0 {
            gradient.iter_mut().for_each(|g| *g = (f64::from(*g) * weight) as f32);
        }
        (own.loss * weight, own.weight * weight, objective.is_correct(answer, target))
    };
    let rows: Vec<_> = gradient.par_chunks_mut(width.max(1)).with_min_len(64).enumerate().map(one).collect();
    let mut sums = Sums { rows: n as u64, ..Sums::default() };
    for (loss, weight, correct) in rows {
        sums.loss += loss;
        sums.weight += weight;
        sums.judged += u64::from(correct.is_some());
        sums.correct += u64::from(correct == Some(true));
    }
    Ok((sums, Tensor::f32(outputs.shape().to_vec(), gradient)?))
}

/// The first of the largest.
fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    best
}

/// Logarithms of softmax, in double precision.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&z| f64::from(z - max).exp()).sum();
    let log_sum = f64::from(max) + sum.ln();
    logits.iter().map(|&z| f64::from(z) - log_sum).collect()
}

/// The probability that a target gives to a class.
fn share(target: Target<'_>, class: usize) -> f64 {
    match target {
        Target::Class(c) => f64::from(u8::from(c == class)),
        Target::Soft(p) => p.get(class).map_or(0.0, |&p| f64::from(p)),
        Target::Number(t) => f64::from(t),
    }
}

/// What the `output`-th of `width` outputs should be: the target itself for one output, one or zero per class for several.
fn wanted(target: Target<'_>, output: usize, width: usize) -> f64 {
    match target {
        Target::Number(t) => f64::from(t),
        _ if width == 1 => share(target, 1),
        _ => share(target, output),
    }
}

/// Refuses anything but classes, and fewer outputs than classes.
fn need_classes(what: &str, width: usize, labels: &LabelKind) -> Result<usize, TrainError> {
    let LabelKind::Classes { count, .. } = labels else {
        return Err(TrainError::Mismatch {
            message: format!(
                "objective `{what}` needs classes as labels; for numbers choose `mean-squared` or `huber`"
            ),
        });
    };
    if width < *count {
        let message =
            format!("the network has {width} outputs, the labels have {count} classes; replace its last layer");
        return Err(TrainError::Mismatch { message });
    }
    Ok(*count)
}

/// Refuses labels that are neither as many classes as outputs nor one number.
fn need_numbers(what: &str, width: usize, labels: &LabelKind) -> Result<(), TrainError> {
    match labels {
        LabelKind::Target if width == 1 => Ok(()),
        LabelKind::Classes { count, .. } if *count <= width || (width == 1 && *count == 2) => Ok(()),
        LabelKind::None => Err(TrainError::Mismatch { message: "the data has no labels to learn from".to_owned() }),
        LabelKind::Classes { count, .. } => Err(TrainError::Mismatch {
            message: format!(
                "the network has {width} outputs, the labels have {count} classes; replace its last layer"
            ),
        }),
        _ => Err(TrainError::Mismatch {
            message: format!("objective `{what}` predicts one number per row, the network has {width} outputs"),
        }),
    }
}

/// Weights by class, checked.
fn check_class_weights(weights: &[f64], count: usize) -> Result<(), TrainError> {
    if !weights.is_empty() && weights.len() != count {
        let message = format!("`class_weights` has {} entries, the network has {count} outputs", weights.len());
        return Err(TrainError::Mismatch { message });
    }
    Ok(())
}

fn read_class_weights(weights: &[f64]) -> Result<(), TrainError> {
    match weights.iter().find(|w| !w.is_finite() || **w < 0.0) {
        Some(w) => Err(crate::error::refuse("class_weights", w, "numbers of 0 or more")),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod test_support {
    use super::*;

    /// Compares the gradient of a row with differences of its loss.
    pub(crate) fn check_gradient(objective: &dyn Objective, outputs: &[f32], target: Target<'_>) {
        let mut gradient = vec![0.0; outputs.len()];
        objective.row(outputs, target, &mut gradient);
        for i in 0..outputs.len() {
            let step = 1e-2f32;
            let at = |d: f32| {
                let mut moved = outputs.to_vec();
                moved[i] += d;
                let real = f64::from(moved[i]);
                (real, objective.row(&moved, target, &mut vec![0.0; outputs.len()]).loss)
            };
            let ((a, low), (b, high)) = (at(-step), at(step));
            let slope = (high - low) / (b - a);
            let g = f64::from(gradient[i]);
            assert!((g - slope).abs() < 2e-4 * (1.0 + slope.abs()), "output {i} of {outputs:?}: {g} against {slope}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Targets;
    use crate::method::{Method, Registry};

    fn batch(rows: usize, weights: Option<Vec<f32>>) -> Batch {
        Batch {
            row_ids: (0..rows as u64).collect(),
            features: Tensor::zeros(vec![rows, 1]).unwrap(),
            targets: Targets::Classes((0..rows).map(|r| r % 3).collect()),
            weights,
            groups: Vec::new(),
            classes: 3,
        }
    }

    fn outputs(rows: usize) -> Tensor {
        Tensor::f32(vec![rows, 3], (0..rows * 3).map(|i| ((i * 7 % 11) as f32 - 5.0) / 3.0).collect()).unwrap()
    }

    #[test]
    fn a_batch_is_the_sum_of_its_rows_however_it_is_cut() {
        let registry = Registry::default();
        for entry in registry.objectives.entries() {
            let objective = registry.objectives.build(&Method::new(entry.id), &registry).unwrap();
            let weights: Vec<f32> = (0..300).map(|i| (i % 4) as f32).collect();
            let (whole, gradient) = evaluate(&*objective, &outputs(300), &batch(300, Some(weights.clone()))).unwrap();
            let mut sums = Sums::default();
            for (row, &weight) in weights.iter().enumerate() {
                let one = Batch { targets: Targets::Classes(vec![row % 3]), ..batch(1, Some(vec![weight])) };
                let (s, g) = evaluate(&*objective, &outputs(300).slice_rows(row, row + 1).unwrap(), &one).unwrap();
                assert_eq!(g.as_f32().unwrap(), &gradient.as_f32().unwrap()[row * 3..row * 3 + 3], "{}", entry.id);
                sums.add(&s);
            }
            assert_eq!(sums, whole, "{}", entry.id);
        }
    }

    #[test]
    fn rows_count_what_they_weigh() {
        let registry = Registry::default();
        for entry in registry.objectives.entries() {
            let objective = registry.objectives.build(&Method::new(entry.id), &registry).unwrap();
            let run = |w| evaluate(&*objective, &outputs(1), &batch(1, Some(vec![w]))).unwrap();
            let ((one, g), (three, g3)) = (run(1.0), run(3.0));
            assert_eq!((three.loss, three.weight), (3.0 * one.loss, 3.0 * one.weight), "{}", entry.id);
            for (a, b) in g.as_f32().unwrap().iter().zip(g3.as_f32().unwrap()) {
                assert!((3.0 * a - b).abs() < 1e-6, "{}", entry.id);
            }
        }
    }

    #[test]
    fn a_certain_distribution_is_its_class() {
        let registry = Registry::default();
        for entry in registry.objectives.entries() {
            let objective = registry.objectives.build(&Method::new(entry.id), &registry).unwrap();
            let (mut hard, mut soft) = ([0.0; 3], [0.0; 3]);
            let y = [0.3, -1.2, 2.0];
            let a = objective.row(&y, Target::Class(1), &mut hard);
            let b = objective.row(&y, Target::Soft(&[0.0, 1.0, 0.0]), &mut soft);
            assert_eq!((a, hard), (b, soft), "{}", entry.id);
        }
    }

    #[test]
    fn an_output_of_another_size_is_refused() {
        let registry = Registry::default();
        let objective = registry.objectives.build(&Method::new("cross-entropy"), &registry).unwrap();
        assert!(evaluate(&*objective, &outputs(4), &batch(5, None)).is_err());
        let ten = LabelKind::Classes { count: 10, names: None };
        let error = objective.check(3, &ten).unwrap_err().to_string();
        assert_eq!(error, "the network has 3 outputs, the labels have 10 classes; replace its last layer");
        assert!(objective.check(10, &LabelKind::Target).is_err());
    }
}
