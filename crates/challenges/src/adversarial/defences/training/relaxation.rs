//! Linear relaxations of ReLU over interval bounds, and the largest margins that they allow, with gradients. Zhang,
//! Chen, Xiao, Gowal, Stanforth, Li, Boning and Hsieh, ICLR 2020, arXiv:1906.06316, section 3.2; the relaxation of
//! Zhang et al., NeurIPS 2018, arXiv:1811.00866, section 3.3, whose lower slope is 0 or 1, whichever is nearer.
//!
//! One walk back finds for each margin the coefficients of its linear bound, and with their signs the relaxation of
//! each ReLU and the corner of the box where the bound is largest. With these held, the bound is the value at that
//! corner of a network whose ReLUs are straight lines; its gradient is that of this network, and the lines pass on what
//! is due to the bounds that they rest on.

use std::collections::HashMap;

use netproof_graph::{Gradients, Run};
use netproof_tensor::Tensor;
use netproof_train::{Step, TrainError};

use super::intervals::{Bounds, Intervals, Pair, Planned, mismatch, request};

/// Straight lines in place of one ReLU, `[margins, ...]`, and what goes into it at the corners.
struct Lines {
    /// Position of the node.
    node: usize,
    slope: Vec<f32>,
    offset: Vec<f32>,
    /// Whether the line is the one above, whose slope rests on both bounds.
    above: Vec<bool>,
    at: Tensor,
}

/// The largest margins by linear bounds, and the passes behind them.
pub(super) struct Relaxed<'m> {
    /// `[rows, classes]`, 0 for the class of the row itself.
    pub(super) margins: Vec<f64>,
    /// Row and class of each margin that was looked at.
    specs: Vec<(usize, usize)>,
    lines: Vec<Lines>,
    passes: Vec<Option<Run<'m>>>,
    answers: Run<'m>,
}

/// Gradients with respect to stored tensors, by name, and to centre and radius of what goes into ReLUs.
pub(super) struct Slopes {
    pub(super) stored: Vec<(String, Tensor)>,
    pub(super) bounds: HashMap<String, Pair>,
}

impl Slopes {
    fn keep<'n>(&mut self, names: impl Iterator<Item = &'n String>, back: &mut Gradients) {
        for name in names {
            back.take(name).into_iter().for_each(|g| self.stored.push((name.clone(), g)));
        }
    }
}

/// Every row of `x` once for each of its margins.
fn repeated(x: &Tensor, specs: &[(usize, usize)]) -> Result<Tensor, TrainError> {
    let rows: Vec<usize> = specs.iter().map(|s| s.0).collect();
    Ok(x.select_rows(&rows)?)
}

fn sized(like: &Tensor, n: usize) -> Vec<usize> {
    [&[n], &like.shape()[1..]].concat()
}

/// Adds a tensor to what is known under a name.
fn gather(known: &mut HashMap<String, Tensor>, name: &str, more: Tensor) {
    match known.get_mut(name) {
        Some(own) => {
            let more = more.as_f32().unwrap_or_default();
            own.as_f32_mut().unwrap_or_default().iter_mut().zip(more).for_each(|(a, b)| *a += b);
        }
        None => drop(known.insert(name.to_owned(), more)),
    }
}

impl<'m> Relaxed<'m> {
    /// # Errors
    /// The network holds a curve other than ReLU.
    pub(super) fn of(
        intervals: &Intervals,
        step: &'m Step<'_>,
        bounds: &Bounds<'_>,
        [low, high]: [&Tensor; 2],
        labels: &[usize],
    ) -> Result<Self, TrainError> {
        let (k, d) = (bounds.classes, bounds.width);
        let specs: Vec<(usize, usize)> = labels
            .iter()
            .enumerate()
            .flat_map(|(r, &y)| (0..k).filter(move |&j| j != y).map(move |j| (r, j)))
            .collect();
        let n = specs.len();
        let pair = |name: &str| bounds.pairs.get(name).ok_or_else(|| mismatch(format!("`{name}` has no bounds")));
        // The walk back: coefficients of the margins with respect to each value.
        let mut first = Vec::with_capacity(n * d);
        for &(row, j) in &specs {
            let y = labels[row];
            first.extend((0..d).map(|i| bounds.weight[j * d + i] - bounds.weight[y * d + i]));
        }
        let mut coefficients = HashMap::new();
        let features = pair(&intervals.last.features)?;
        coefficients.insert(intervals.last.features.clone(), Tensor::f32(sized(&features.0, n), first)?);
        let mut lines = Vec::new();
        for (at, node) in intervals.nodes.iter().enumerate().rev() {
            let Some(a) = coefficients.remove(&node.output) else { continue };
            if node.linear {
                let zeros = |name: &String| -> Result<(String, Tensor), TrainError> {
                    Ok((name.clone(), Tensor::zeros(sized(&pair(name)?.0, n))?))
                };
                let given = node.varying.iter().map(zeros).collect::<Result<_, TrainError>>()?;
                let run = intervals.run(step, low, node, given, false, true)?;
                let mut back = run.backward(&[(&node.output, &a)])?;
                for name in &node.varying {
                    let zeros = || Tensor::zeros(sized(&pair(name)?.0, n)).map_err(TrainError::from);
                    let more = back.take(name).map_or_else(zeros, Ok)?;
                    gather(&mut coefficients, name, more);
                }
                continue;
            }
            need_relu(node)?;
            let name = &node.varying[0];
            let own = Lines::of(at, pair(name)?, &specs, &a)?;
            let moved = a.as_f32().unwrap_or_default().iter().zip(&own.slope).map(|(a, s)| a * s).collect();
            gather(&mut coefficients, name, Tensor::f32(a.shape().to_vec(), moved)?);
            lines.push(own);
        }
        lines.reverse();
        // The corner where each bound is largest, and the network of straight lines there.
        let (mut corner, top) = (repeated(low, &specs)?, repeated(high, &specs)?);
        if let Some(a) = coefficients.get(&intervals.input) {
            let pairs = top.as_f32().unwrap_or_default().iter().zip(a.as_f32().unwrap_or_default());
            let up = |(x, (t, a)): (&mut f32, (&f32, &f32))| *x = if *a > 0.0 { *t } else { *x };
            corner.as_f32_mut().unwrap_or_default().iter_mut().zip(pairs).for_each(up);
        }
        let mut values = HashMap::from([(intervals.input.clone(), corner)]);
        let value = |values: &HashMap<String, Tensor>, name: &str| {
            values.get(name).cloned().ok_or_else(|| mismatch(format!("`{name}` has no value")))
        };
        let mut passes: Vec<Option<Run<'m>>> = Vec::with_capacity(intervals.nodes.len());
        let mut next = lines.iter_mut().peekable();
        for (at, node) in intervals.nodes.iter().enumerate() {
            if node.linear {
                let given = node.varying.iter().map(|i| Ok((i.clone(), value(&values, i)?)));
                let run = intervals.run(step, low, node, given.collect::<Result<_, TrainError>>()?, false, false)?;
                values.insert(node.output.clone(), run.output(&node.output)?);
                passes.push(Some(run));
                continue;
            }
            passes.push(None);
            if let Some(own) = next.next_if(|l| l.node == at) {
                own.at = value(&values, &node.varying[0])?;
                let x = own.at.as_f32().unwrap_or_default().iter().zip(&own.slope).zip(&own.offset);
                let out = x.map(|((x, s), t)| s * x + t).collect();
                values.insert(node.output.clone(), Tensor::f32(own.at.shape().to_vec(), out)?);
            }
        }
        let last = &intervals.last;
        let names = [vec![last.weight.clone()], last.terms.clone()].concat();
        let given = vec![(last.features.clone(), value(&values, &last.features)?)];
        let wanted = vec![last.features.clone()];
        let corner = (intervals.input.as_str(), low);
        let answers = request(step, corner, &last.output, given, wanted, &names, &names, &[])?;
        let z = answers.output(&last.output)?;
        let mut margins = vec![0.0; labels.len() * k];
        for (&(row, j), z) in specs.iter().zip(z.as_f32().unwrap_or_default().chunks(k)) {
            margins[row * k + j] = f64::from(z[j]) - f64::from(z[labels[row]]);
        }
        Ok(Self { margins, specs, lines, passes, answers })
    }

    /// Gradients, from slopes with respect to the margins, `[rows, classes]`.
    /// # Errors
    /// The engine refuses.
    pub(super) fn backward(
        &self,
        intervals: &Intervals,
        bounds: &Bounds<'_>,
        labels: &[usize],
        slopes: &[f64],
    ) -> Result<Slopes, TrainError> {
        let (k, n) = (bounds.classes, self.specs.len());
        let mut seed = vec![0.0f32; n * k];
        for (i, &(row, j)) in self.specs.iter().enumerate() {
            let s = slopes[row * k + j] as f32;
            seed[i * k + j] += s;
            seed[i * k + labels[row]] -= s;
        }
        let last = &intervals.last;
        let mut found = Slopes { stored: Vec::new(), bounds: HashMap::new() };
        let mut back = self.answers.backward(&[(&last.output, &Tensor::f32(vec![n, k], seed)?)])?;
        found.keep(std::iter::once(&last.weight).chain(&last.terms), &mut back);
        let mut slopes: HashMap<String, Tensor> = HashMap::new();
        if let Some(g) = back.take(&last.features) {
            slopes.insert(last.features.clone(), g);
        }
        for (at, node) in intervals.nodes.iter().enumerate().rev() {
            let Some(g) = slopes.remove(&node.output) else { continue };
            if let Some(run) = &self.passes[at] {
                let mut back = run.backward(&[(&node.output, &g)])?;
                found.keep(node.terms.iter().chain(&node.factors), &mut back);
                for name in node.varying.iter().filter(|n| **n != intervals.input) {
                    back.take(name).into_iter().for_each(|more| gather(&mut slopes, name, more));
                }
                continue;
            }
            let Some(lines) = self.lines.iter().find(|l| l.node == at) else { continue };
            let name = &node.varying[0];
            let pair = bounds.pairs.get(name).ok_or_else(|| mismatch(format!("`{name}` has no bounds")))?;
            let own = lines.to_bounds(pair, &self.specs, &g)?;
            found.bounds.insert(name.clone(), own);
            let moved = g.as_f32().unwrap_or_default().iter().zip(&lines.slope).map(|(g, s)| g * s).collect();
            if *name != intervals.input {
                gather(&mut slopes, name, Tensor::f32(g.shape().to_vec(), moved)?);
            }
        }
        Ok(found)
    }
}

impl Lines {
    /// Above where the coefficient is positive, since the bound is an upper one; below elsewhere.
    fn of(node: usize, (centre, radius): &Pair, specs: &[(usize, usize)], a: &Tensor) -> Result<Self, TrainError> {
        let (c, r) = (centre.as_f32().unwrap_or_default(), radius.as_f32().unwrap_or_default());
        let (width, a) = (centre.row_len(), a.as_f32().unwrap_or_default());
        let mut own = Self {
            node,
            slope: Vec::with_capacity(a.len()),
            offset: Vec::with_capacity(a.len()),
            above: Vec::with_capacity(a.len()),
            at: Tensor::zeros(vec![0])?,
        };
        for (s, &(row, _)) in specs.iter().enumerate() {
            for i in 0..width {
                let (l, u) = (c[row * width + i] - r[row * width + i], c[row * width + i] + r[row * width + i]);
                let unstable = l < 0.0 && u > 0.0;
                let above = unstable && a[s * width + i] >= 0.0;
                let slope = if above {
                    u / (u - l)
                } else if unstable {
                    f32::from(u8::from(u >= -l))
                } else {
                    f32::from(u8::from(l >= 0.0))
                };
                own.slope.push(slope);
                own.offset.push(if above { -l * slope } else { 0.0 });
                own.above.push(above);
            }
        }
        Ok(own)
    }

    /// What is due to centre and radius, from the gradient with respect to what comes out. The line above has slope
    /// `s = u / (u - l)` and offset `-l s`.
    fn to_bounds(&self, (centre, radius): &Pair, specs: &[(usize, usize)], g: &Tensor) -> Result<Pair, TrainError> {
        let (c, r) = (centre.as_f32().unwrap_or_default(), radius.as_f32().unwrap_or_default());
        let (width, g) = (centre.row_len(), g.as_f32().unwrap_or_default());
        let at = self.at.as_f32().unwrap_or_default();
        let (mut to_c, mut to_r) = (vec![0.0f32; c.len()], vec![0.0f32; r.len()]);
        for (s, &(row, _)) in specs.iter().enumerate() {
            for i in 0..width {
                let (e, p) = (row * width + i, s * width + i);
                if !self.above[p] {
                    continue;
                }
                let (l, u) = (c[e] - r[e], c[e] + r[e]);
                let square = (u - l) * (u - l);
                let (by_l, by_u) = (u / square, -l / square);
                let to_slope = g[p] * at[p];
                let to_l = to_slope * by_l + g[p] * (-self.slope[p] - l * by_l);
                let to_u = to_slope * by_u - g[p] * l * by_u;
                to_c[e] += to_l + to_u;
                to_r[e] += to_u - to_l;
            }
        }
        let shape = centre.shape().to_vec();
        Ok((Tensor::f32(shape.clone(), to_c)?, Tensor::f32(shape, to_r)?))
    }
}

fn need_relu(node: &Planned) -> Result<(), TrainError> {
    if node.info.operator == "Relu" {
        return Ok(());
    }
    let (name, op) = (&node.info.name, &node.info.operator);
    Err(mismatch(format!("`crown-ibp` has straight lines for Relu only, node `{name}` is {op}; use `ibp`")))
}
