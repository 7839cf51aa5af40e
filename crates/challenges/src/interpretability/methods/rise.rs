//! RISE: the score of randomly masked images, averaged over the masks that show a pixel. Petsiuk, Das and Saenko, BMVC 2018,
//! arXiv:1806.07421, equation 6. Needs no gradient. Checked against a closed form on a linear network. Masks as in the paper: a
//! coarse random grid, enlarged bilinearly and shifted at random. Differs: scores are centred about their mean, which moves the
//! whole map by about a constant, so that pixels that lower the score are negative.

use netproof_core::{Card, CardKind, Challenge, OptionDoc};
use netproof_tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::interpretability::explainer::enlarge;
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "rise",
    version: 1,
    kind: CardKind::Explanation,
    title: "RISE",
    challenge: Challenge::Interpretability,
    measures: "Which pixels raise the score, from thousands of randomly masked copies of the image.",
    reference: "Petsiuk, Das and Saenko, BMVC 2018, arXiv:1806.07421, equation 6",
    needs: &[],
    options: &[
        OptionDoc { name: "masks", default: "2000", doc: "Random masks, at least 2." },
        OptionDoc { name: "grid", default: "7", doc: "Cells of a mask per side, at least 2." },
        OptionDoc {
            name: "probability",
            default: "0.5",
            doc: "Chance that a cell shows the image, above 0 and below 1.",
        },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rise {
    masks: usize,
    grid: usize,
    probability: f64,
}

impl Default for Rise {
    fn default() -> Self {
        Self { masks: 2000, grid: 7, probability: 0.5 }
    }
}

impl Explainer for Rise {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let [_, h, w] = *net.row_shape() else {
            return Err(ExplainError::not_applicable("the input is no image [n, channels, height, width]"));
        };
        if self.masks < 2 {
            return Err(ExplainError::option("masks", self.masks, "at least 2"));
        }
        if self.grid < 2 {
            return Err(ExplainError::option("grid", self.grid, "at least 2"));
        }
        if !(self.probability > 0.0 && self.probability < 1.0) {
            return Err(ExplainError::option("probability", self.probability, "above 0 and below 1"));
        }
        let (k, places) = (self.masks, h * w);
        // All rows share the masks, so they are drawn again for each row instead of kept.
        let mut mask = Vec::new();
        let scores = net.scores(q, q.len() * k, |i, row| {
            let (of, m) = (i / k, i % k);
            self.mask(q, m, h, w, &mut mask);
            for (e, ((r, &x), &b)) in row.iter_mut().zip(q.row(of)).zip(q.baseline_row(of)).enumerate() {
                *r = b + mask[e % places] * (x - b);
            }
            of
        })?;
        let channels = net.row_len() / places;
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        for scores in scores.chunks(k) {
            let mean = scores.iter().sum::<f64>() / k as f64;
            let (mut sum, mut squares) = (vec![0.0f64; places], vec![0.0f64; places]);
            for (m, score) in scores.iter().enumerate() {
                self.mask(q, m, h, w, &mut mask);
                for ((s, t), &shown) in sum.iter_mut().zip(&mut squares).zip(&mask) {
                    let v = (score - mean) * f64::from(shown) / self.probability;
                    *s += v;
                    *t += v * v;
                }
            }
            let n = k as f64;
            let map: Vec<f32> = sum.iter().map(|s| (s / n) as f32).collect();
            let error: Vec<f32> = sum
                .iter()
                .zip(&squares)
                .map(|(s, t)| ((t / n - (s / n) * (s / n)).max(0.0) / (n - 1.0)).sqrt() as f32)
                .collect();
            for _ in 0..channels {
                all.extend_from_slice(&map);
                errors.extend_from_slice(&error);
            }
        }
        let mut e = Explanation::of_input(net, q.len(), all)?;
        e.standard_error = Some(Tensor::f32(e.attributions.shape().to_vec(), errors)?);
        Ok(e)
    }
}

impl Rise {
    fn mask(&self, q: &Question, m: usize, h: usize, w: usize, out: &mut Vec<f32>) {
        let mut rng = netproof_stats::rng::Rng::stream(q.shared_rng("rise").next_u64(), m as u64);
        let g = self.grid;
        let cells: Vec<f32> =
            (0..(g + 1) * (g + 1)).map(|_| if rng.unit() < self.probability { 1.0 } else { 0.0 }).collect();
        let (cell_h, cell_w) = (h.div_ceil(g), w.div_ceil(g));
        let (tall, wide) = ((g + 1) * cell_h, (g + 1) * cell_w);
        let large = enlarge(&cells, [g + 1, g + 1], [tall, wide]);
        let (dy, dx) = (rng.below(cell_h), rng.below(cell_w));
        out.clear();
        for y in 0..h {
            let at = (y + dy) * wide + dx;
            out.extend_from_slice(&large[at..at + w]);
        }
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use crate::interpretability::test_support::{ask, net_of, network, stored};

    #[test]
    fn the_pixels_that_count_stand_out_with_their_sign() {
        // Only the top left quarter raises the score, the bottom right one lowers it.
        let model = network(&[1, 8, 8], 1, |f, x| {
            let flat = f.node("Flatten", "flat", &[x], &[]);
            let w: Vec<f32> = (0..64)
                .map(|p| match (p / 8 < 4, p % 8 < 4) {
                    (true, true) => 1.0,
                    (false, false) => -1.0,
                    _ => 0.0,
                })
                .collect();
            let w = stored(f, "w", &[64, 1], &w);
            f.node("MatMul", "y", &[&flat, &w], &[])
        });
        let x = Tensor::f32(vec![1, 1, 8, 8], vec![1.0; 64]).unwrap();
        let e = ask("rise", &net_of(&model, &x), x, vec![0], "masks = 3000\ngrid = 4");
        let v = e.attributions.as_f32().unwrap();
        let error = e.standard_error.as_ref().unwrap().as_f32().unwrap()[9];
        assert!(v[9] > 0.3 && v[54] < -0.3, "{} {}", v[9], v[54]);
        assert!(v[7].abs() < 0.5 * v[9], "{} {}", v[7], v[9]);
        assert!(error > 0.0 && error < 0.2 * v[9]);
    }
}
