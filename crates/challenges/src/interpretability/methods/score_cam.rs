//! Score-CAM: maps of a layer weighted by the score that the image gets when the map is its mask. Wang et al., CVPR workshop
//! 2020, arXiv:1910.01279, algorithm 1. Needs no gradient. Checked against a naive version. Differs from the paper: what a mask
//! hides becomes the baseline (zeros by default, as in the paper).

use netproof_core::{Card, CardKind, Challenge};
use serde::{Deserialize, Serialize};

use super::grad_cam::{LAYER, map_of};
use crate::interpretability::explainer::enlarge;
use crate::interpretability::maps::choose;
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "score-cam",
    version: 1,
    kind: CardKind::Explanation,
    title: "Score-CAM",
    challenge: Challenge::Interpretability,
    measures: "As Grad-CAM, with weights from running the network on the image masked by each map of the layer.",
    reference: "Wang, Wang, Du, Yang, Zhang, Ding, Mardziel and Hu, CVPR workshop 2020, arXiv:1910.01279, algorithm 1",
    needs: &[netproof_core::Need::InputGradient],
    options: &[LAYER],
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ScoreCam {
    layer: String,
}

impl Explainer for ScoreCam {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let [_, height, width] = *net.row_shape() else {
            return Err(ExplainError::not_applicable("the input is no image [n, channels, height, width]"));
        };
        let (map, said) = choose(net, q, &self.layer)?;
        let (places, c) = (map.height * map.width, map.channels);
        let values = net.values(q, std::slice::from_ref(&map.name), q.len(), |i, row| {
            row.copy_from_slice(q.row(i));
            i
        })?;
        let per_row = values[0].row_len().max(1);
        let maps: Vec<Vec<f32>> =
            values[0].as_f32().unwrap_or_default().chunks(per_row).map(|r| map.channels_of(r)).collect();
        let scores = net.scores(q, q.len() * c, |i, row| {
            let (of, k) = (i / c, i % c);
            let map_k = &maps[of][k * places..(k + 1) * places];
            let mask = enlarge(&unit(map_k), [map.height, map.width], [height, width]);
            for (p, ((r, &x), &b)) in row.iter_mut().zip(q.row(of)).zip(q.baseline_row(of)).enumerate() {
                *r = b + mask[p % (height * width)] * (x - b);
            }
            of
        })?;
        let base = net.baseline_scores(q)?;
        let mut all = Vec::with_capacity(q.len() * places);
        for (of, scores) in scores.chunks(c).enumerate() {
            let gains: Vec<f64> = scores.iter().map(|s| s - base[of]).collect();
            let top = gains.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v));
            let powers: Vec<f64> = gains.iter().map(|g| (g - top).exp()).collect();
            let sum: f64 = powers.iter().sum();
            let mut cam = vec![0.0f32; places];
            for (k, power) in powers.iter().enumerate() {
                let map_k = &maps[of][k * places..(k + 1) * places];
                cam.iter_mut().zip(map_k).for_each(|(c, &a)| *c += (power / sum) as f32 * a);
            }
            all.extend(cam.into_iter().map(|v| v.max(0.0)));
        }
        map_of(&map, q.len(), all).map(|e| e.note(said))
    }
}

/// A map scaled to 0..1; nothing where it is constant.
fn unit(map: &[f32]) -> Vec<f32> {
    let (low, high) = map.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    if high > low { map.iter().map(|v| (v - low) / (high - low)).collect() } else { vec![0.0; map.len()] }
}
