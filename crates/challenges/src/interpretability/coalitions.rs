//! A row as a game: which parts are there, and what the network then says. What is not there comes from typical rows.

use netproof_tensor::Tensor;

use super::segments::Partition;
use super::{ExplainError, Explained, Question};

/// The game of the question's rows.
pub(crate) struct Game<'a> {
    net: &'a Explained<'a>,
    q: &'a Question,
    partitions: &'a [Partition],
}

/// A row with some parts of it.
#[derive(Debug, Clone)]
pub(crate) struct Coalition {
    /// Which row of the question.
    pub(crate) row: usize,
    /// For each part whether it is there.
    pub(crate) present: Vec<bool>,
    /// Which typical row stands for what is not there; `None`: the mean over all.
    pub(crate) stand_in: Option<usize>,
}

impl<'a> Game<'a> {
    pub(crate) fn new(net: &'a Explained<'a>, q: &'a Question, partitions: &'a [Partition]) -> Self {
        Self { net, q, partitions }
    }

    /// Parts of a row.
    pub(crate) fn parts(&self, row: usize) -> usize {
        self.partitions[row].count
    }

    /// How many rows stand in for what is not there.
    pub(crate) fn stand_ins(&self) -> usize {
        self.q.background.as_ref().map_or(1, Tensor::rows)
    }

    /// What a coalition's row says: the score of its target, averaged over the stand-ins where none is named.
    pub(crate) fn values(&self, coalitions: &[Coalition]) -> Result<Vec<f64>, ExplainError> {
        let all = self.stand_ins();
        let width = self.net.row_len();
        let mut starts = Vec::with_capacity(coalitions.len() + 1);
        let mut total = 0;
        for c in coalitions {
            starts.push(total);
            total += if c.stand_in.is_some() { 1 } else { all };
        }
        starts.push(total);
        let mut at = 0;
        let scores = self.net.scores(self.q, total, |i, out| {
            while i >= starts[at + 1] {
                at += 1;
            }
            let c = &coalitions[at];
            let b = c.stand_in.unwrap_or(i - starts[at]);
            let stand_in = match &self.q.background {
                Some(t) => &t.as_f32().unwrap_or_default()[b * width..(b + 1) * width],
                None => self.q.baseline_row(c.row),
            };
            let parts = &self.partitions[c.row].of;
            for (((o, &x), &b), &part) in out.iter_mut().zip(self.q.row(c.row)).zip(stand_in).zip(parts) {
                *o = if c.present[part] { x } else { b };
            }
            c.row
        })?;
        Ok(starts.windows(2).map(|s| scores[s[0]..s[1]].iter().sum::<f64>() / (s[1] - s[0]) as f64).collect())
    }

    /// The scores of nothing and of everything, per row.
    pub(crate) fn ends(&self) -> Result<(Vec<f64>, Vec<f64>), ExplainError> {
        let end = |there: bool| {
            let all: Vec<Coalition> = (0..self.q.len())
                .map(|row| Coalition { row, present: vec![there; self.parts(row)], stand_in: None })
                .collect();
            self.values(&all)
        };
        Ok((end(false)?, end(true)?))
    }
}

/// Solves `a x = b` for a symmetric positive definite `a` (`n × n`, row-major) by Cholesky; `None` where it is not.
pub(crate) fn solve(a: &[f64], b: &[f64]) -> Option<Vec<f64>> {
    let n = b.len();
    let mut l = a.to_vec();
    for j in 0..n {
        for i in j..n {
            let dot: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
            let v = a[i * n + j] - dot;
            if i == j {
                if !(v > 1e-14 * a[j * n + j].abs().max(f64::MIN_POSITIVE)) {
                    return None;
                }
                l[j * n + j] = v.sqrt();
            } else {
                l[i * n + j] = v / l[j * n + j];
            }
        }
    }
    let mut x = b.to_vec();
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| l[i * n + k] * x[k]).sum();
        x[i] = (x[i] - dot) / l[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| l[k * n + i] * x[k]).sum();
        x[i] = (x[i] - dot) / l[i * n + i];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_solved() {
        let x = solve(&[4.0, 2.0, 2.0, 3.0], &[10.0, 8.0]).unwrap();
        assert!((x[0] - 1.75).abs() < 1e-12 && (x[1] - 1.5).abs() < 1e-12);
        assert!(solve(&[1.0, 1.0, 1.0, 1.0], &[1.0, 1.0]).is_none());
    }
}
