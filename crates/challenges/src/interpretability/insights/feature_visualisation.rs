//! Feature visualisation: an input that makes the score of a target as high as it gets, by gradient ascent. Erhan et al. 2009;
//! Olah, Mordvintsev and Schubert, Distill 2017, doi:10.23915/distill.00007 (jitter, penalties against noise). Checked: the score
//! rises. Steps of normalised gradients (Adam) on shifted copies, with a penalty on differences of neighbours; elements stay within
//! bounds. Weak: what excites most need not be what occurs.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Examiner, Inquiry, Insight, floats, table};
use crate::interpretability::{ExplainError, Explained, Question};

pub(crate) static CARD: Card = Card {
    id: "feature-visualisation",
    version: 1,
    kind: CardKind::Explanation,
    title: "Feature visualisation",
    challenge: Challenge::Interpretability,
    measures: "An image that makes the score of a class, or a unit of any layer, as high as gradient ascent gets it.",
    reference: "Erhan, Bengio, Courville and Vincent 2009; Olah, Mordvintsev and Schubert, Distill 2017, doi:10.23915/distill.00007",
    needs: &[Need::InputGradient],
    options: &[
        OptionDoc { name: "steps", default: "200", doc: "Steps of gradient ascent, at least 1." },
        OptionDoc { name: "rate", default: "0.05", doc: "Size of a step as a fraction of the range, above 0." },
        OptionDoc {
            name: "smoothness",
            default: "0.5",
            doc: "Penalty on squared differences of neighbours, at least 0.",
        },
        OptionDoc { name: "jitter", default: "2", doc: "Most pixels that a copy is shifted by." },
        OptionDoc { name: "low", default: "0.0", doc: "Lowest value of an element." },
        OptionDoc { name: "high", default: "1.0", doc: "Highest value of an element; above low." },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FeatureVisualisation {
    steps: usize,
    rate: f32,
    smoothness: f32,
    jitter: usize,
    low: f32,
    high: f32,
}

impl Default for FeatureVisualisation {
    fn default() -> Self {
        Self { steps: 200, rate: 0.05, smoothness: 0.5, jitter: 2, low: 0.0, high: 1.0 }
    }
}

impl Examiner for FeatureVisualisation {
    fn examine(&self, net: &Explained<'_>, asked: &Inquiry) -> Result<Insight, ExplainError> {
        let [c, h, w] = *net.row_shape() else {
            return Err(ExplainError::not_applicable(
                "feature visualisation is for images [n, channels, height, width]",
            ));
        };
        if self.steps == 0 {
            return Err(ExplainError::option("steps", 0, "at least 1"));
        }
        if !(self.rate > 0.0 && self.smoothness >= 0.0) {
            return Err(ExplainError::option("rate", self.rate, "above 0, and smoothness at least 0"));
        }
        if self.low.partial_cmp(&self.high) != Some(std::cmp::Ordering::Less) {
            return Err(ExplainError::option("high", self.high, "above low"));
        }
        let mut targets = asked.q.targets.clone();
        targets.sort_unstable();
        targets.dedup();
        let (n, width) = (targets.len(), net.row_len());
        let range = self.high - self.low;
        let mut rng = asked.q.shared_rng("feature-visualisation");
        let middle = 0.5 * (self.low + self.high);
        let mut x: Vec<f32> = (0..n * width).map(|_| middle + 0.01 * range * rng.normal() as f32).collect();
        let (mut first, mut second) = (vec![0.0f32; n * width], vec![0.0f32; n * width]);
        let mut q = Question::new(Tensor::zeros([&[n], net.row_shape()].concat())?, targets.clone())?;
        q.context.clone_from(&asked.q.context);
        if !q.context.is_empty() {
            return Err(ExplainError::not_applicable("this method needs a network with one input"));
        }
        let mut begun = Vec::new();
        for step in 0..self.steps {
            let reach = 2 * self.jitter + 1;
            let (dy, dx) = (rng.below(reach), rng.below(reach));
            // A shift that wraps around, so that nothing is lost; place p of the copy shows place from(p) of the image.
            let from = |p: usize| {
                let (k, y, x) = (p / (h * w), p / w % h, p % w);
                let back = |v: usize, d: usize, n: usize| (v + n * self.jitter + d - self.jitter) % n;
                k * h * w + back(y, dy, h) * w + back(x, dx, w)
            };
            let mut gradient = vec![0.0f32; n * width];
            let fill = |i: usize, row: &mut [f32]| {
                row.iter_mut().enumerate().for_each(|(p, r)| *r = x[i * width + from(p)]);
                i
            };
            let mut scores = vec![0.0; n];
            net.gradients(&q, n, fill, |i, score, g| {
                scores[i] = score;
                g.iter().enumerate().for_each(|(p, &g)| gradient[i * width + from(p)] += g);
            })?;
            if step == 0 {
                begun = scores;
            }
            for i in 0..n {
                let part = i * width..(i + 1) * width;
                let largest = gradient[part.clone()].iter().fold(0f32, |m, g| m.max(g.abs())).max(f32::MIN_POSITIVE);
                let image = x[part.clone()].to_vec();
                for p in 0..width {
                    let at = i * width + p;
                    let (y, col) = (p / w % h, p % w);
                    let mut rough = 0.0;
                    for (there, near) in [
                        (y > 0, p.wrapping_sub(w)),
                        (y + 1 < h, p + w),
                        (col > 0, p.wrapping_sub(1)),
                        (col + 1 < w, p + 1),
                    ] {
                        if there {
                            rough += image[p] - image[near];
                        }
                    }
                    let g = gradient[at] / largest - self.smoothness * rough / range;
                    // Adam, Kingma and Ba 2015, algorithm 1.
                    first[at] = 0.9 * first[at] + 0.1 * g;
                    second[at] = 0.999 * second[at] + 0.001 * g * g;
                    let t = (step + 1) as i32;
                    let (m, v) = (first[at] / (1.0 - 0.9f32.powi(t)), second[at] / (1.0 - 0.999f32.powi(t)));
                    x[at] = (x[at] + self.rate * range * m / (v.sqrt() + 1e-8)).clamp(self.low, self.high);
                }
            }
        }
        let done = net.scores(&q, n, |i, row| {
            row.copy_from_slice(&x[i * width..(i + 1) * width]);
            i
        })?;
        let mut t =
            table("Scores of the images that were found", &["target", "score at the beginning", "score of the image"]);
        t.rows = targets
            .iter()
            .zip(begun.iter().zip(&done))
            .map(|(&k, (a, b))| vec![k.into(), (*a).into(), (*b).into()])
            .collect();
        Ok(Insight {
            tables: vec![t],
            arrays: vec![
                ("images".to_owned(), Tensor::f32(vec![n, c, h, w], x)?),
                ("targets".to_owned(), Tensor::i64(vec![n], targets.iter().map(|&v| v as i64).collect())?),
                ("scores".to_owned(), floats(vec![n], done)?),
            ],
            notes: vec![format!("{} steps from noise about the middle of the range", self.steps)],
        })
    }
}
