//! α-CROWN: slopes on the free side of each hinge, chosen by gradient ascent on the bound, for each unit of its own.
//!
//! Xu et al. 2021, arXiv:2011.13824, section 3.1. The bound is a minimum over the relaxed network; its gradient by a
//! coefficient is the value that the coefficient multiplies at the minimum. So one walk forward from the worst input, on
//! the sides of the relaxations that the walk back picked, gives the gradients of all slopes: λ · x at each hinge.
//!
//! Differs from the paper: slopes of the functions that were asked for are chosen, bounds of values between are those of
//! CROWN; curves that are not hinges keep the slopes of least area.

use super::backward::{Known, Trace, Units, slice};
use super::network::{Frame, Network};
use super::relaxation::Relaxation;
use super::{Chunk, Unit, each, seeds};
use crate::error::GraphError;
use crate::model::ValueId;
use crate::real::Real;

/// How slopes are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ascent {
    /// Steps of gradient ascent.
    pub steps: usize,
    /// First step of a slope, which lies between 0 and 1 for ReLU.
    pub rate: f64,
}

impl Default for Ascent {
    /// 20 steps of Adam from 0.5, each 0.98 of the one before: the defaults of the authors' code.
    fn default() -> Self {
        Self { steps: 20, rate: 0.5 }
    }
}

const DECAY: f64 = 0.98;

/// Slopes of one step with Adam's moments. Kingma and Ba 2015, arXiv:1412.6980.
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Chunk<'_, '_> {
    /// As [`Chunk::lowest`], with chosen slopes.
    pub(super) fn ascend(
        &self,
        units: &[Unit],
        value: ValueId,
        width: usize,
        seed: &dyn Fn(&Unit, &mut [f32]),
        ascent: Ascent,
    ) -> Result<Vec<f64>, GraphError> {
        let per_unit = self.network.sizes.iter().sum::<usize>() * 5 * size_of::<f32>();
        let at_once = self.network.batch((self.request.memory / 2 / per_unit.max(1)).max(1));
        let mut all = Vec::with_capacity(units.len());
        for units in units.chunks(at_once) {
            let frame = self.network.frame(units.len())?;
            let (rows, seeds) = seeds(units, &frame, value, width, seed);
            let best = self.ascend_some(&frame, &rows, &seeds, value, ascent)?;
            all.extend_from_slice(&best[..units.len()]);
        }
        Ok(all)
    }

    fn ascend_some(
        &self,
        frame: &Frame,
        rows: &[u32],
        seeds: &Real,
        value: ValueId,
        ascent: Ascent,
    ) -> Result<Vec<f64>, GraphError> {
        let known = self.known();
        let mut slopes: Vec<Option<Vec<f32>>> =
            self.relaxations.iter().map(|r| first_slopes(r.as_ref(), rows, self.frame.rows)).collect();
        let mut moments: Vec<Option<Moments>> = slopes
            .iter()
            .map(|s| s.as_ref().map(|s| Moments { first: vec![0.0; s.len()], second: vec![0.0; s.len()] }))
            .collect();
        let mut best = vec![f64::NEG_INFINITY; rows.len()];
        for at in 0..=ascent.steps {
            let coefficients = self.relaxations.iter().map(|_| None).collect();
            let mut trace = Trace { slopes: &slopes, coefficients, input: None, by_hull: Vec::new() };
            let units = Units { rows, seed: seeds.clone(), value, intervals_only: false };
            let below = self.network.below(frame, &known, units, Some(&mut trace))?;
            best.iter_mut().zip(below).for_each(|(b, v)| *b = if v > *b { v } else { *b });
            if at == ascent.steps {
                break;
            }
            let Trace { coefficients, input, by_hull, .. } = trace;
            let gradients = self.network.gradients(
                frame,
                &known,
                rows,
                &Taken { slopes: &slopes, coefficients: &coefficients, input: input.as_ref(), by_hull: &by_hull },
            )?;
            let rate = ascent.rate * DECAY.powi(at as i32);
            for (number, gradient) in gradients.into_iter().enumerate() {
                let (Some(g), Some(slopes), Some(moments)) = (gradient, &mut slopes[number], &mut moments[number])
                else {
                    continue;
                };
                let Some(Relaxation::Lines(lines)) = &self.relaxations[number] else { continue };
                let Some(free) = &lines.free else { continue };
                step(slopes, moments, &g, at, rate, free.limits);
            }
        }
        Ok(best)
    }
}

/// One step of Adam upward, kept within the limits.
fn step(slopes: &mut [f32], moments: &mut Moments, gradient: &[f32], at: usize, rate: f64, (low, high): (f32, f32)) {
    const FIRST: f32 = 0.9;
    const SECOND: f32 = 0.999;
    let t = at as i32 + 1;
    let scale = (rate * (1.0 - f64::from(SECOND).powi(t)).sqrt() / (1.0 - f64::from(FIRST).powi(t))) as f32;
    let moving = slopes.iter_mut().zip(&mut moments.first).zip(&mut moments.second).zip(gradient);
    for (((slope, m), v), &g) in moving {
        *m = FIRST * *m + (1.0 - FIRST) * g;
        *v = SECOND * *v + (1.0 - SECOND) * g * g;
        *slope = (*slope + scale * *m / (v.sqrt() + 1e-8)).clamp(low, high);
    }
}

/// The slopes of least area, of hinges that are not stable in some row.
fn first_slopes(relaxation: Option<&Relaxation>, rows: &[u32], all: usize) -> Option<Vec<f32>> {
    let Some(Relaxation::Lines(lines)) = relaxation else { return None };
    let free = lines.free.as_ref().filter(|f| f.crosses.contains(&true))?;
    let own = if free.upper { &lines.upper_slope } else { &lines.lower_slope };
    let count = own.len() / all.max(1);
    Some(rows.iter().flat_map(|&r| own[r as usize * count..(r as usize + 1) * count].iter().copied()).collect())
}

/// What a walk back picked.
struct Taken<'a> {
    slopes: &'a [Option<Vec<f32>>],
    coefficients: &'a [Option<Real>],
    input: Option<&'a Real>,
    by_hull: &'a [bool],
}

impl Network<'_> {
    /// Gradients of the bounds by the free slopes of each step.
    fn gradients(
        &self,
        frame: &Frame,
        known: &Known<'_>,
        rows: &[u32],
        taken: &Taken<'_>,
    ) -> Result<Vec<Option<Vec<f32>>>, GraphError> {
        let mut gradients: Vec<Option<Vec<f32>>> = self.steps.iter().map(|_| None).collect();
        let Some(last) = taken.slopes.iter().rposition(Option::is_some) else { return Ok(gradients) };
        let mut points: Vec<Option<Real>> = vec![None; self.model.names.len()];
        points[self.input] = Some(self.worst(frame, known, rows, taken));
        for (number, step) in self.steps.iter().enumerate().take(last + 1) {
            let node = self.node(step);
            if step.rule.is_linear() {
                if node.inputs.iter().zip(&step.varies).any(|(id, v)| *v && id.is_some_and(|id| points[id].is_none())) {
                    continue;
                }
                let inputs = self.inputs(frame, step, |_, id| points[id].clone())?;
                for (id, y) in node.outputs.iter().zip(self.eval(frame, step, &inputs)?) {
                    if let Some(id) = id {
                        points[*id] = y;
                    }
                }
                continue;
            }
            let (Some(Some(output)), Some(lambda)) = (node.outputs.first(), &taken.coefficients[number]) else {
                continue;
            };
            let lambda = slice(lambda);
            let n = self.sizes[*output];
            let shape = [&[rows.len()], &frame.shape(*output)[1..]].concat();
            let x = node.inputs.first().copied().flatten().and_then(|id| points[id].as_ref()).map(slice);
            let other = node.inputs.get(1).copied().flatten().and_then(|id| points[id].as_ref()).map(slice);
            let interval = known.values[*output].as_ref();
            let relaxation = known.relaxations[number].as_ref();
            let mut y = vec![0.0f32; rows.len() * n];
            match (relaxation, x, other) {
                (Some(Relaxation::Lines(lines)), Some(x), _) => {
                    let own = taken.slopes[number].as_ref();
                    let mut pairs = vec![(0.0f32, 0.0f32); rows.len() * n];
                    each(&mut pairs, |i, pair| {
                        let (u, r) = (i / n, rows[i / n] as usize * n + i % n);
                        debug_assert!(u < rows.len());
                        let below = lambda[i] >= 0.0;
                        let (mut slope, shift) = if below {
                            (lines.lower_slope[r], lines.lower_shift[r])
                        } else {
                            (lines.upper_slope[r], lines.upper_shift[r])
                        };
                        if let (Some(free), Some(own)) = (&lines.free, own)
                            && free.crosses[r]
                            && below != free.upper
                        {
                            slope = own[i];
                            pair.1 = lambda[i] * x[i];
                        }
                        pair.0 = slope * x[i] + shift;
                    });
                    y.iter_mut().zip(&pairs).for_each(|(y, p)| *y = p.0);
                    if own.is_some() {
                        gradients[number] = Some(pairs.into_iter().map(|p| p.1).collect());
                    }
                }
                (Some(Relaxation::Picks(picks)), Some(x), _) => {
                    let m = x.len() / rows.len().max(1);
                    each(&mut y, |i, y| {
                        let (u, r) = (i / n, rows[i / n] as usize * n + i % n);
                        *y = if lambda[i] >= 0.0 {
                            x[u * m + picks.lower[r] as usize]
                        } else {
                            picks.slope[r] * x[u * m + picks.upper[r] as usize] + picks.shift[r]
                        };
                    });
                }
                (Some(Relaxation::Planes(planes)), Some(a), Some(b)) => {
                    each(&mut y, |i, y| {
                        let r = rows[i / n] as usize * n + i % n;
                        let plane = &planes[usize::from(lambda[i] < 0.0)];
                        *y = plane.a[r] * a[i] + plane.b[r] * b[i] + plane.shift[r];
                    });
                }
                _ => {
                    let Some(interval) = interval else { continue };
                    let (low, high) = (slice(&interval.low), slice(&interval.high));
                    each(&mut y, |i, y| {
                        let r = rows[i / n] as usize * n + i % n;
                        *y = if lambda[i] >= 0.0 { low[r] } else { high[r] };
                    });
                }
            }
            points[*output] = Some(Real::new(&shape, y, &self.model.device));
        }
        Ok(gradients)
    }

    /// The inputs at which the bounds of the units are reached.
    fn worst(&self, frame: &Frame, known: &Known<'_>, rows: &[u32], taken: &Taken<'_>) -> Real {
        let n = self.sizes[self.input];
        let shape = [&[rows.len()], &frame.shape(self.input)[1..]].concat();
        let mut x = vec![0.0f32; rows.len() * n];
        if let (Some(lambda), Some(hull)) = (taken.input, &known.values[self.input]) {
            let (lambda, low, high) = (slice(lambda), slice(&hull.low), slice(&hull.high));
            for (u, x) in x.chunks_mut(n.max(1)).enumerate() {
                let (r, lambda) = (rows[u] as usize, &lambda[u * n..(u + 1) * n]);
                match known.ball.filter(|_| !taken.by_hull[u]) {
                    Some(ball) => x.copy_from_slice(&ball.lowest(lambda, r)),
                    None => {
                        for (j, x) in x.iter_mut().enumerate() {
                            *x = if lambda[j] >= 0.0 { low[r * n + j] } else { high[r * n + j] };
                        }
                    }
                }
            }
        }
        Real::new(&shape, x, &self.model.device)
    }
}
