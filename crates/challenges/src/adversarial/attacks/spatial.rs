//! Rotations and translations: a search over a grid of them, or the worst of a few random ones. Engstrom, Tran,
//! Tsipras, Schmidt and Madry, ICML 2019, arXiv:1712.02779, section 3 (grid search, worst-of-k; the defaults are its
//! numbers). Checked against: a network that looks at one pixel, where the motions that move a bright pixel into it are
//! known. The interpolation is that of [`Motion`]: bilinear, black from outside. Differs from the paper: motions are
//! tried by size, smallest first, and a row leaves at its first wrong answer, so that its example is the least motion
//! of the grid. No gradient is used: the paper finds that gradients help little here.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Access, Attack, Batch};
use crate::adversarial::loss::{is_right, margin};
use crate::adversarial::motion::{DEGREES, Motion, SHIFT};
use crate::adversarial::oracle::Oracle;
use crate::adversarial::rows::{row, row_mut};
use crate::adversarial::square::planes;

pub(super) static CARD: Card = Card {
    id: "spatial",
    version: 1,
    kind: CardKind::Attack,
    title: "Rotation and translation",
    challenge: Challenge::Adversarial,
    measures: "Turns and moves the picture: all motions of a grid, or the worst of a few random ones. Epsilon 1 is up to 30 degrees \
               and a tenth of the side.",
    reference: "Engstrom et al., ICML 2019, arXiv:1712.02779, section 3",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "angles", default: "31", doc: "Angles of the grid, 1 to 1000; an odd number holds 0." },
        OptionDoc { name: "shifts", default: "5", doc: "Shifts of the grid in each direction, 1 to 100." },
        OptionDoc {
            name: "draws",
            default: "0",
            doc: "Random motions that are tried in place of the grid, 0 to 100000; 0 takes the grid. The paper's worst-of-k is 10.",
        },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Spatial {
    angles: usize,
    shifts: usize,
    draws: usize,
}

impl Default for Spatial {
    fn default() -> Self {
        Self { angles: 31, shifts: 5, draws: 0 }
    }
}

impl Attack for Spatial {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Spatial]
    }

    fn access(&self) -> Access {
        Access::Scores
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        self.check()?;
        let (shape, len, k) = (oracle.victim().row(), batch.row_len(), batch.classes());
        let low = threat.bounds[0] as f32;
        let mut out = batch.x.to_vec();
        let mut active = batch.right();
        let grid = self.grid(threat.epsilon, shape);
        let mut random: Vec<_> = active.iter().map(|&i| batch.rng(i, "spatial")).collect();
        let mut worst: Vec<f32> = active.iter().map(|&i| margin(batch.row_logits(i), batch.labels[i])).collect();
        let count = if self.draws > 0 { self.draws } else { grid.len() };
        for at in 0..count {
            if active.is_empty() {
                break;
            }
            let motions: Vec<Motion> = if self.draws > 0 {
                let draw = |rng: &mut netproof_stats::rng::Rng| threat.epsilon * (2.0 * rng.unit() - 1.0);
                random.iter_mut().map(|rng| scaled([draw(rng), draw(rng), draw(rng)], shape)).collect()
            } else {
                vec![grid[at]; active.len()]
            };
            let mut x = Vec::with_capacity(active.len() * len);
            for (&i, motion) in active.iter().zip(&motions) {
                x.append(&mut motion.apply(shape, batch.row(i), low));
            }
            let logits = oracle.logits(&active, &x)?;
            let mut stay = Vec::with_capacity(active.len());
            for (j, &i) in active.iter().enumerate() {
                let z = row(&logits, k, j);
                let wrong = !is_right(z, batch.labels[i]);
                if wrong || margin(z, batch.labels[i]) < worst[j] {
                    worst[j] = margin(z, batch.labels[i]);
                    oracle.declare(i, motions[j]);
                    row_mut(&mut out, len, i).copy_from_slice(row(&x, len, j));
                }
                if !wrong {
                    stay.push(j);
                }
            }
            if stay.len() < active.len() {
                active = stay.iter().map(|&j| active[j]).collect();
                worst = stay.iter().map(|&j| worst[j]).collect();
                random = stay.iter().map(|&j| random[j].clone()).collect();
            }
        }
        Ok(out)
    }
}

impl Spatial {
    fn check(&self) -> Result<(), AttackError> {
        for (name, value, most, allowed) in [
            ("angles", self.angles, 1000, "1 to 1000"),
            ("shifts", self.shifts, 100, "1 to 100"),
            ("draws", self.draws + 1, 100_001, "0 to 100000"),
        ] {
            if !(1..=most).contains(&value) {
                return Err(AttackError::Value { name, value: value as f64, allowed });
            }
        }
        Ok(())
    }

    /// All motions of the grid but none at all, smallest first.
    fn grid(&self, epsilon: f64, shape: &[usize]) -> Vec<Motion> {
        let [_, height, _] = planes(shape);
        let parts = |n: usize| -> Vec<f64> {
            let at = |i: usize| if n == 1 { 0.0 } else { epsilon * (2.0 * i as f64 / (n - 1) as f64 - 1.0) };
            (0..n).map(at).collect()
        };
        // What is one pixel high can be moved to the side only.
        let (angles, shifts) = (parts(self.angles), parts(self.shifts));
        let none = vec![0.0];
        let (turns, downs) = if height == 1 { (&none, &none) } else { (&angles, &shifts) };
        let across = if height == 1 { &angles } else { &shifts };
        let mut all = Vec::with_capacity(turns.len() * across.len() * downs.len());
        for &a in turns {
            for &r in across {
                all.extend(downs.iter().map(|&d| scaled([a, r, d], shape)));
            }
        }
        all.retain(|m| m.size(shape) > 0.0);
        all.sort_by(|a, b| a.size(shape).total_cmp(&b.size(shape)));
        all
    }
}

/// A motion from parts in units of its size.
fn scaled([turn, right, down]: [f64; 3], shape: &[usize]) -> Motion {
    let [_, height, width] = planes(shape);
    let flat = height == 1;
    Motion {
        degrees: if flat { 0.0 } else { (turn * DEGREES) as f32 },
        right: (right * SHIFT * width as f64) as f32,
        down: if flat { 0.0 } else { (down * SHIFT * height as f64) as f32 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::test_support::{linear_on, propose, victim};

    /// Class 1 where pixel (5, 5) of 11×11 is over one half.
    fn spot() -> netproof_graph::Model {
        let mut w = [[0.0f32; 121]; 2];
        w[1][5 * 11 + 5] = 1.0;
        linear_on(&[1, 11, 11], &w, &[0.5, 0.0])
    }

    fn bright() -> Vec<f32> {
        let mut x = vec![0.0; 121];
        x[5 * 11 + 5] = 1.0;
        x
    }

    fn attacked(attack: &Spatial, epsilon: f64) -> (Vec<f32>, Option<Motion>) {
        let model = spot();
        let v = victim(&model, &[1, 11, 11]);
        let x = bright();
        let logits = v.logits(&x).unwrap();
        let oracle = Oracle::new(&v, 1, None);
        let threat = Threat::new(Norm::Spatial, epsilon, [0.0, 1.0]).unwrap();
        let batch = Batch { x: &x, logits: &logits, labels: &[1], seeds: &[3] };
        (attack.propose(&oracle, &batch, &threat).unwrap(), oracle.motion(0))
    }

    #[test]
    fn the_least_motion_of_the_grid_that_moves_the_spot_away_is_found() {
        // Rotations leave the middle where it is; a shift by more than half a pixel, 0.55 of the unit, empties it.
        let (y, motion) = attacked(&Spatial::default(), 1.0);
        let motion = motion.unwrap();
        assert!(y[60] < 0.5 && y != bright());
        assert!((motion.right.abs().max(motion.down.abs()) - 0.55).abs() < 1e-6, "{motion:?}");
        assert_eq!(motion.apply(&[1, 11, 11], &bright(), 0.0), y);
        // Two shifts by a fifth of the unit together leave 0.61 of it.
        let (y, motion) = attacked(&Spatial::default(), 0.2);
        assert!(y[60] >= 0.5, "{motion:?}");
    }

    #[test]
    fn random_motions_are_within_the_threat() {
        let worst = Spatial { draws: 20, ..Spatial::default() };
        let (y, motion) = attacked(&worst, 2.0);
        assert!(y[60] < 0.5 && motion.unwrap().size(&[1, 11, 11]) <= 2.0 + 1e-6);
        let (_, small) = attacked(&worst, 0.1);
        assert!(small.is_none_or(|m| m.size(&[1, 11, 11]) <= 0.1 + 1e-6));
    }

    #[test]
    fn options_are_checked() {
        let model = spot();
        let v = victim(&model, &[1, 11, 11]);
        let logits = v.logits(&bright()).unwrap();
        let oracle = Oracle::new(&v, 1, None);
        let threat = Threat::new(Norm::Spatial, 1.0, [0.0, 1.0]).unwrap();
        let x = bright();
        for bad in [Spatial { angles: 0, ..Spatial::default() }, Spatial { shifts: 101, ..Spatial::default() }] {
            let b = Batch { x: &x, logits: &logits, labels: &[1], seeds: &[0] };
            assert!(matches!(bad.propose(&oracle, &b, &threat), Err(AttackError::Value { .. })), "{bad:?}");
        }
        let (_, z) = propose(&Spatial::default(), &v, &x, &[1], &[0], &threat);
        assert_eq!(z.len(), 2);
    }
}
