//! Square: random search over square patches, by scores alone.
//! Andriushchenko et al., ECCV 2020, arXiv:1912.00049, algorithms 1 to 3; parameters of AutoAttack. Checked against: recorded
//! masks of AutoAttack (it breaks a row of `mnist-trades` that no gradient attack breaks).
//!
//! Differs from the published implementation: place and colours are drawn per row there is, where the implementation shares one
//! draw among the batch, so that a row's fate does not depend on its neighbours. Rows that are not images are searched by
//! intervals of neighbouring features. AutoAttack's implementation spends queries on patches that change nothing, the paper's
//! draws their colours again: `redraw` chooses between the two. Weak on large images with few queries. Needs no gradient, so
//! it tells where gradients lie: where it beats them, they are masked.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use netproof_stats::rng::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Access, Attack, Batch};
use crate::adversarial::loss::{is_right, margin};
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::Ball;
use crate::adversarial::rows::row_mut;

pub(super) static CARD: Card = Card {
    id: "square",
    version: 1,
    kind: CardKind::Attack,
    title: "Square attack",
    challenge: Challenge::Adversarial,
    measures: "Random search over square patches of shrinking size that keeps what lowers the margin; it queries scores and \
               needs no gradient.",
    reference: "Andriushchenko, Croce, Flammarion and Hein, ECCV 2020, arXiv:1912.00049, algorithms 1 to 3",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "queries", default: "5000", doc: "Queries of each row, 1 to 10000000." },
        OptionDoc {
            name: "p_init",
            default: "0.8",
            doc: "Fraction of the features that the first patches cover, above 0 to 1.",
        },
        OptionDoc {
            name: "rescale",
            default: "false",
            doc: "Whether patches shrink by the fraction of the queries that is spent, as if there were 10000, instead of by \
                  their number.",
        },
        OptionDoc {
            name: "redraw",
            default: "false",
            doc: "For l-infinity, whether a patch that would change nothing is drawn again and costs no query.",
        },
    ],
};

/// Options; the defaults are those of AutoAttack.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Square {
    pub(crate) queries: usize,
    pub(crate) p_init: f64,
    pub(crate) rescale: bool,
    pub(crate) redraw: bool,
    /// Whether this is another search after one that ended, with draws of its own.
    #[serde(skip)]
    pub(crate) again: bool,
}

impl Default for Square {
    fn default() -> Self {
        Self { queries: 5000, p_init: 0.8, rescale: false, redraw: false, again: false }
    }
}

/// Most patches that are drawn for one query.
const DRAWS: usize = 16;

/// One row under search.
struct Search {
    owner: usize,
    rng: Rng,
    best: Vec<f32>,
    tried: Vec<f32>,
    margin: f32,
}

/// A row as channels of planes.
#[derive(Debug, Clone, Copy)]
struct Planes {
    channels: usize,
    height: usize,
    width: usize,
}

impl Attack for Square {
    fn norms(&self) -> &'static [Norm] {
        &[Norm::Linf, Norm::L2]
    }

    fn access(&self) -> Access {
        Access::Scores
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        if !(1..=10_000_000).contains(&self.queries) {
            return Err(AttackError::Value { name: "queries", value: self.queries as f64, allowed: "1 to 10000000" });
        }
        if !(self.p_init > 0.0 && self.p_init <= 1.0) {
            return Err(AttackError::Value { name: "p_init", value: self.p_init, allowed: "above 0 and at most 1" });
        }
        let (len, k, ball) = (batch.row_len(), batch.classes(), Ball::from(threat));
        let planes = Planes::of(oracle.victim().row());
        let mut out = batch.x.to_vec();
        let mut searches: Vec<Search> = Vec::new();
        for owner in batch.right() {
            let mut rng = batch.rng(owner, if self.again { "square again" } else { "square" });
            let tried = if ball.norm == Norm::L2 {
                planes.tiles(&ball, batch.row(owner), &mut rng)
            } else {
                planes.stripes(&ball, batch.row(owner), &mut rng)
            };
            searches.push(Search { owner, rng, best: batch.row(owner).to_vec(), tried, margin: f32::INFINITY });
        }
        // The first query is the starting point, `queries` more follow.
        for i in 0..=self.queries {
            if searches.is_empty() {
                break;
            }
            if i > 0 {
                let p = self.fraction(i - 1);
                searches.par_iter_mut().for_each(|s| s.propose(p, planes, &ball, batch.row(s.owner), self.redraw));
            }
            let owners: Vec<usize> = searches.iter().map(|s| s.owner).collect();
            let mut x = Vec::with_capacity(searches.len() * len);
            searches.iter().for_each(|s| x.extend_from_slice(&s.tried));
            let logits = oracle.logits(&owners, &x)?;
            let mut done = false;
            for (s, z) in searches.iter_mut().zip(logits.chunks_exact(k)) {
                let label = batch.labels[s.owner];
                let m = margin(z, label);
                let wrong = !is_right(z, label);
                if m < s.margin || wrong {
                    std::mem::swap(&mut s.best, &mut s.tried);
                    s.margin = if wrong { f32::NEG_INFINITY } else { m };
                }
                done |= wrong;
            }
            if done || i == self.queries {
                for s in &searches {
                    row_mut(&mut out, len, s.owner).copy_from_slice(&s.best);
                }
                searches.retain(|s| s.margin > f32::NEG_INFINITY);
            }
        }
        Ok(out)
    }
}

impl Square {
    /// The fraction of features that a patch covers at this query. Section 3.3 of the paper.
    fn fraction(&self, query: usize) -> f64 {
        let at = if self.rescale { (query as f64 / self.queries as f64 * 10_000.0) as usize } else { query };
        let halvings = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000].iter().filter(|&&limit| at > limit).count();
        self.p_init / f64::from(1u32 << halvings)
    }
}

impl Search {
    fn propose(&mut self, p: f64, planes: Planes, ball: &Ball, origin: &[f32], redraw: bool) {
        self.tried.copy_from_slice(&self.best);
        if ball.norm == Norm::L2 {
            return planes.move_mass(p, ball, origin, &mut self.tried, &mut self.rng);
        }
        for _ in 0..if redraw { DRAWS } else { 1 } {
            if planes.patch(p, ball, origin, &mut self.tried, &mut self.rng) {
                break;
            }
        }
    }
}

impl Planes {
    fn of(row: &[usize]) -> Self {
        match *row {
            [channels, height, width] => Self { channels, height, width },
            [height, width] => Self { channels: 1, height, width },
            _ => Self { channels: 1, height: 1, width: row.iter().product() },
        }
    }

    /// Side of a patch that covers this fraction: height and width.
    fn side(self, p: f64, least: usize) -> [usize; 2] {
        let area = p * (self.height * self.width) as f64;
        if self.height == 1 || self.width == 1 {
            let side = (area.round() as usize).max(least);
            return [side.min(self.height), side.min(self.width)];
        }
        let side = (area.sqrt().round_ties_even() as usize).max(least);
        [side.min(self.height), side.min(self.width)]
    }

    /// A corner for a patch, each equally likely. The published implementation never draws the last row and column of them;
    /// the paper does.
    fn corner(self, [h, w]: [usize; 2], rng: &mut Rng) -> [usize; 2] {
        [rng.below(self.height - h + 1), rng.below(self.width - w + 1)]
    }

    fn index(self, c: usize, y: usize, x: usize) -> usize {
        (c * self.height + y) * self.width + x
    }

    /// Vertical stripes at plus or minus epsilon.
    fn stripes(self, ball: &Ball, origin: &[f32], rng: &mut Rng) -> Vec<f32> {
        let mut x = origin.to_vec();
        for c in 0..self.channels {
            for column in 0..self.width {
                let by = sign(rng) * ball.epsilon;
                (0..self.height).for_each(|y| x[self.index(c, y, column)] += by);
            }
        }
        ball.project(origin, &mut x);
        x
    }

    /// One square of one colour per channel; whether it changes anything. Algorithm 2.
    fn patch(self, p: f64, ball: &Ball, origin: &[f32], x: &mut [f32], rng: &mut Rng) -> bool {
        let [h, w] = self.side(p, 1);
        let [top, left] = self.corner([h, w], rng);
        let e = ball.epsilon;
        let mut changed = false;
        for c in 0..self.channels {
            let by = sign(rng) * 2.0 * e;
            for y in top..top + h {
                let from = self.index(c, y, left);
                for (x, o) in x[from..from + w].iter_mut().zip(&origin[from..from + w]) {
                    let new = (*x + by).clamp(o - e, o + e).clamp(ball.low, ball.high);
                    changed |= new != *x;
                    *x = new;
                }
            }
        }
        changed
    }

    /// Tiles of the pattern of algorithm 3 over the whole row, scaled to epsilon.
    fn tiles(self, ball: &Ball, origin: &[f32], rng: &mut Rng) -> Vec<f32> {
        let (h, w) = ((self.height / 5).max(1), (self.width / 5).max(1));
        let (h, w) = if self.height == 1 || self.width == 1 { (h, w) } else { (h.min(w), h.min(w)) };
        let mut delta = vec![0.0; origin.len()];
        for top in ((self.height % h) / 2..).step_by(h).take(self.height / h) {
            for left in ((self.width % w) / 2..).step_by(w).take(self.width / w) {
                let pattern = pattern(h, w, rng);
                for c in 0..self.channels {
                    let s = sign(rng);
                    for y in 0..h {
                        for x in 0..w {
                            delta[self.index(c, top + y, left + x)] += s * pattern[y * w + x];
                        }
                    }
                }
            }
        }
        scaled(ball, origin, &delta)
    }

    /// Takes the change out of one window and puts it, with what budget is left, into another. Algorithm 3.
    fn move_mass(self, p: f64, ball: &Ball, origin: &[f32], x: &mut [f32], rng: &mut Rng) {
        let [mut h, mut w] = self.side(p, 3);
        // Odd sides, so that a pattern has a middle.
        h = (h + usize::from(h % 2 == 0)).min(self.height);
        w = (w + usize::from(w % 2 == 0)).min(self.width);
        let mut delta: Vec<f32> = x.iter().zip(origin).map(|(x, o)| x - o).collect();
        let [top, left] = self.corner([h, w], rng);
        let [top2, left2] = self.corner([h, w], rng);
        let (pattern, area) = (pattern(h, w, rng), h * w);
        let inside = |t: usize, l: usize, y: usize, x: usize| (t..t + h).contains(&y) && (l..l + w).contains(&x);
        let square = |v: f32| f64::from(v) * f64::from(v);
        let whole: f64 = delta.iter().map(|d| square(*d)).sum();
        let mut in_windows = 0.0;
        for c in 0..self.channels {
            for y in 0..self.height {
                for x in 0..self.width {
                    if inside(top, left, y, x) || inside(top2, left2, y, x) {
                        in_windows += square(delta[self.index(c, y, x)]);
                    }
                }
            }
        }
        let spare = (square(ball.epsilon) - whole).max(0.0);
        let budget = (spare / self.channels as f64 + in_windows).sqrt();
        let mut new = vec![0.0f32; self.channels * area];
        for c in 0..self.channels {
            let s = sign(rng);
            let old: Vec<f32> = (0..area).map(|i| delta[self.index(c, top + i / w, left + i % w)]).collect();
            let size = old.iter().map(|v| square(*v)).sum::<f64>().sqrt() + 1e-12;
            let sum: Vec<f64> = (0..area).map(|i| f64::from(s * pattern[i]) + f64::from(old[i]) / size).collect();
            let length = sum.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-12;
            sum.iter().enumerate().for_each(|(i, v)| new[c * area + i] = (v / length * budget) as f32);
        }
        for c in 0..self.channels {
            for i in 0..area {
                delta[self.index(c, top2 + i / w, left2 + i % w)] = 0.0;
            }
            for i in 0..area {
                delta[self.index(c, top + i / w, left + i % w)] = new[c * area + i];
            }
        }
        x.copy_from_slice(&scaled(ball, origin, &delta));
    }
}

fn sign(rng: &mut Rng) -> f32 {
    if rng.next_u64() >> 63 == 0 { 1.0 } else { -1.0 }
}

/// The origin plus a change of length epsilon, within the box.
fn scaled(ball: &Ball, origin: &[f32], delta: &[f32]) -> Vec<f32> {
    let size = delta.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>().sqrt() + 1e-12;
    let scale = (f64::from(ball.epsilon) / size) as f32;
    origin.iter().zip(delta).map(|(o, d)| (o + d * scale).clamp(ball.low, ball.high)).collect()
}

/// Two bumps of opposite sign side by side, upright or lying, of length 1. Section 3.4.
fn pattern(h: usize, w: usize, rng: &mut Rng) -> Vec<f32> {
    let lying = h == w && rng.unit() > 0.5;
    let mut p = vec![0.0; h * w];
    if h == 1 {
        // A row of features: the two halves lie side by side.
        let (a, b) = (bump(1, w / 2), bump(1, w - w / 2));
        p[..w / 2].copy_from_slice(&a);
        p[w / 2..].iter_mut().zip(b).for_each(|(p, b)| *p = -b);
    } else {
        let (a, b) = (bump(h / 2, w), bump(h - h / 2, w));
        p[..h / 2 * w].copy_from_slice(&a);
        p[h / 2 * w..].iter_mut().zip(b).for_each(|(p, b)| *p = -b);
    }
    let length = p.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12) as f32;
    p.iter_mut().for_each(|v| *v /= length);
    if lying {
        let upright = p.clone();
        (0..h * w).for_each(|i| p[i] = upright[i % w * w + i / w]);
    }
    p
}

/// Rectangles around the middle, each of a weight that falls with its size, of length 1.
fn bump(h: usize, w: usize) -> Vec<f32> {
    let mut d = vec![0.0f32; h * w];
    if h * w == 0 {
        return d;
    }
    let (mid_y, mid_x) = (h / 2 + 1, w / 2 + 1);
    for n in 0..mid_y.max(mid_x) {
        let weight = 1.0 / ((n + 1) * (n + 1)) as f32;
        let span = |mid: usize, size: usize| {
            let from = mid as isize - 1 - n as isize;
            (from.max(0) as usize, ((from + 2 * n as isize + 1).max(0) as usize).min(size))
        };
        let ((y0, y1), (x0, x1)) = (span(mid_y, h), span(mid_x, w));
        for y in y0..y1.max(y0) {
            (x0..x1.max(x0)).for_each(|x| d[y * w + x] += weight);
        }
    }
    let length = d.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12) as f32;
    d.iter_mut().for_each(|v| *v /= length);
    d
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversarial::projection::distance;
    use crate::adversarial::test_support::{linear, run};

    #[test]
    fn patches_shrink_by_the_published_schedule() {
        let s = Square::default();
        let sides: Vec<usize> = [0, 10, 11, 51, 201, 501, 1001, 2001, 4001]
            .map(|q| Planes { channels: 1, height: 28, width: 28 }.side(s.fraction(q), 1)[0])
            .to_vec();
        assert_eq!(sides, [25, 25, 18, 13, 9, 6, 4, 3, 2]);
        let rescaled = Square { queries: 100, rescale: true, ..s };
        assert_eq!(rescaled.fraction(1), 0.8 / 4.0);
    }

    #[test]
    fn every_change_has_the_size_of_the_ball_and_touches_one_window() {
        let planes = Planes { channels: 3, height: 9, width: 7 };
        let n = 3 * 63;
        let origin = vec![0.5; n];
        for norm in [Norm::Linf, Norm::L2] {
            let ball = Ball { norm, epsilon: 0.2, low: 0.0, high: 1.0 };
            let mut rng = Rng::new(4);
            let mut x = if norm == Norm::L2 {
                planes.tiles(&ball, &origin, &mut rng)
            } else {
                planes.stripes(&ball, &origin, &mut rng)
            };
            assert!((distance(norm, &x, &origin) - 0.2).abs() < 1e-5);
            for _ in 0..50 {
                let before = x.clone();
                if norm == Norm::L2 {
                    planes.move_mass(0.1, &ball, &origin, &mut x, &mut rng);
                } else {
                    let some = planes.patch(0.1, &ball, &origin, &mut x, &mut rng);
                    let changed = x.iter().zip(&before).filter(|(a, b)| a != b).count();
                    // Two by two or three by three in each of three channels.
                    assert!(changed <= 27 && some == (changed > 0), "{changed} {some}");
                }
                assert!((distance(norm, &x, &origin) - 0.2).abs() < 1e-5, "{norm}");
            }
        }
    }

    #[test]
    fn patterns_have_length_1_and_two_signs() {
        let mut rng = Rng::new(1);
        for (h, w) in [(5, 5), (3, 3), (7, 5), (1, 9), (6, 6)] {
            let p = pattern(h, w, &mut rng);
            assert!((p.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(p.iter().any(|v| *v > 0.0) && p.iter().any(|v| *v < 0.0), "{h} {w} {p:?}");
        }
    }

    /// Where a patch alone is drawn, of one pixel and one channel, every second one is what is there already.
    #[test]
    fn patches_that_change_nothing_are_drawn_again() {
        let planes = Planes { channels: 1, height: 4, width: 4 };
        let ball = Ball { norm: Norm::Linf, epsilon: 0.2, low: 0.0, high: 1.0 };
        let origin = [0.5; 16];
        let changes = |redraw| {
            let rng = Rng::new(2);
            let best = vec![0.7; 16];
            let mut s = Search { owner: 0, rng, tried: best.clone(), best, margin: 1.0 };
            let changed = |_: &usize| {
                s.propose(0.05, planes, &ball, &origin, redraw);
                s.tried != s.best
            };
            (0..200).filter(changed).count()
        };
        assert_eq!(changes(true), 200);
        assert!((80..120).contains(&changes(false)));
    }

    /// On a linear model the best point of the cube is a corner, which patches of one pixel reach.
    #[test]
    fn on_a_linear_model_it_comes_close_to_the_closed_form() {
        let w: [f32; 16] = std::array::from_fn(|i| if i % 3 == 0 { 1.0 } else { -0.5 });
        let model = linear(&[[0.0; 16], w], &[0.0, 1.5]);
        let x = [0.5; 16];
        // w·x + b = 0.5 (6 - 5) + 1.5 = 2, out of reach of epsilon 0.1, which lowers it by 1.1.
        let threat = Threat::new(Norm::Linf, 0.1, [0.0, 1.0]).unwrap();
        let (_, z) = run(&Square { queries: 2000, ..Square::default() }, &model, &[16], &x, &[1], &threat, 0);
        assert!(z[1] < 2.0 - 0.9 * 1.1 && z[1] > 2.0 - 1.1 - 1e-4, "{}", z[1]);
    }
}
