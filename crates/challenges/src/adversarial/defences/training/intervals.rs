//! Interval bounds through a network, with their gradients, node by node: the centre goes through a linear node as it is,
//! the radius through its absolute weights; both ends go through a monotone node.
//! Gowal et al. 2019, arXiv:1810.12715, equations 6 to 8.

use std::collections::HashMap;

use netproof_graph::{NodeInfo, Parameters, Request, Run, Wrt};
use netproof_tensor::Tensor;
use netproof_train::{Gradient, Net, Step, TrainError, combine};

use super::relaxation::Slopes;

/// Keeps sums of its inputs: what is stored beside is multiplied with, or added.
const LINEAR: [&str; 20] = [
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Flatten",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Dropout",
    "AveragePool",
    "GlobalAveragePool",
    "Pad",
    "Slice",
    "Concat",
    "ReduceMean",
];
/// Never falls where its input rises.
const MONOTONE: [&str; 10] =
    ["Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "Clip", "MaxPool", "GlobalMaxPool", "Softplus", "HardSigmoid"];

/// How bounds go through a network.
pub(super) struct Intervals {
    pub(super) input: String,
    pub(super) nodes: Vec<Planned>,
    /// The last linear layer, which is joined with the comparison of classes.
    pub(super) last: Last,
}

pub(super) struct Planned {
    pub(super) info: NodeInfo,
    pub(super) output: String,
    /// Inputs that depend on the row.
    pub(super) varying: Vec<String>,
    pub(super) linear: bool,
    /// Stored inputs that are multiplied with; the others that hold floats are added.
    pub(super) factors: Vec<String>,
    pub(super) terms: Vec<String>,
}

pub(super) struct Last {
    pub(super) features: String,
    pub(super) weight: String,
    pub(super) output: String,
    pub(super) terms: Vec<String>,
    classes: usize,
    width: usize,
    /// Weights are `[classes, width]`, not `[width, classes]`.
    by_class: bool,
}

/// Centre and radius.
pub(super) type Pair = (Tensor, Tensor);

/// Passes behind one node.
enum Passed<'m> {
    Linear { centre: Run<'m>, radius: Run<'m>, negative: Vec<bool> },
    Monotone { low: Run<'m>, high: Run<'m> },
}

/// Bounds of some rows, and the passes behind them.
pub(super) struct Bounds<'m> {
    passed: Vec<Passed<'m>>,
    /// Answers of the centres, `[rows, classes]`.
    answers: Run<'m>,
    centre: Tensor,
    features: Pair,
    /// `[classes, width]`
    pub(super) weight: Vec<f32>,
    pub(super) classes: usize,
    pub(super) width: usize,
    /// Of every value that depends on the row.
    pub(super) pairs: HashMap<String, Pair>,
}

impl Bounds<'_> {
    /// The largest values of `z_j − z_y` within the region, for every class j.
    pub(super) fn margins(&self, row: usize, y: usize) -> Vec<f64> {
        let (k, d) = (self.classes, self.width);
        let z = &self.centre.as_f32().unwrap_or_default()[row * k..(row + 1) * k];
        let r = &self.features.1.as_f32().unwrap_or_default()[row * d..(row + 1) * d];
        (0..k)
            .map(|j| {
                let reach: f64 =
                    (0..d).map(|i| f64::from((self.weight[j * d + i] - self.weight[y * d + i]).abs() * r[i])).sum();
                f64::from(z[j] - z[y]) + reach
            })
            .collect()
    }
}

pub(super) fn mismatch(message: String) -> TrainError {
    TrainError::Mismatch { message }
}

impl Intervals {
    /// # Errors
    /// A node is neither linear nor monotone, or the network does not end in a linear layer with stored weights.
    pub(super) fn of(net: &Net) -> Result<Self, TrainError> {
        let (model, input) = (net.model(), net.input().to_owned());
        let infos: Vec<NodeInfo> = model.nodes().collect();
        let mut varies: Vec<String> = vec![input.clone()];
        let mut nodes = Vec::new();
        for info in infos {
            let varying: Vec<String> = info.inputs.iter().filter(|i| varies.contains(i)).cloned().collect();
            if varying.is_empty() {
                continue;
            }
            let [output] = info.outputs.as_slice() else {
                return Err(mismatch(format!("`ibp` has no bound for {} with several outputs", info.operator)));
            };
            let output = output.clone();
            varies.push(output.clone());
            let op = info.operator.as_str();
            let products = matches!(op, "Mul" | "Div" | "MatMul" | "Gemm" | "Conv") && varying.len() > 1;
            let linear = LINEAR.contains(&op) && !products && !(op == "Sub" && varying.len() > 1);
            let monotone = MONOTONE.contains(&op) && varying.len() == 1;
            if !linear && !monotone {
                let node = &info.name;
                return Err(mismatch(format!(
                    "`ibp` has no bound for node `{node}` ({op}): neither linear nor monotone"
                )));
            }
            let stored = info.inputs.iter().enumerate().filter(|(_, i)| !varying.contains(i));
            let (mut factors, mut terms) = (Vec::new(), Vec::new());
            for (at, name) in stored {
                let floats = model.parameter(name).is_none_or(|p| p.dtype().is_float());
                match op {
                    "Conv" | "Gemm" if at == 2 => terms.push(name.clone()),
                    "Conv" | "Gemm" | "MatMul" | "Mul" | "Div" => factors.push(name.clone()),
                    "Add" | "Sub" | "Concat" if floats => terms.push(name.clone()),
                    _ => {}
                }
            }
            let done = output == net.output();
            nodes.push(Planned { info, output, varying, linear, factors, terms });
            if done {
                break;
            }
        }
        let last =
            nodes.pop().filter(|n| n.output == net.output() && matches!(n.info.operator.as_str(), "Gemm" | "MatMul"));
        let Some(last) = last else { return Err(mismatch("`ibp` needs a linear layer at the end".to_owned())) };
        let weight = last.factors.first().cloned().unwrap_or_default();
        let Some(&[a, b]) = model.parameter(&weight).map(Tensor::shape) else {
            return Err(mismatch(format!(
                "`ibp`: the weights of the last layer, `{weight}`, are not stored in the file"
            )));
        };
        // What is added tells how many classes there are, else the declared output.
        let term = last.terms.first().and_then(|t| model.parameter(t)).and_then(|t| t.shape().last().copied());
        let declared = model.outputs().first().and_then(|o| match o.shape.as_ref()?.last()? {
            netproof_graph::Dim::Fixed(n) => Some(*n),
            _ => None,
        });
        let classes = term
            .or(declared)
            .filter(|k| *k == a || *k == b)
            .ok_or_else(|| mismatch(format!("`ibp`: the number of classes behind `{weight}` {a}×{b} is not known")))?;
        // A square matrix is taken as exporters write it: classes first for Gemm.
        let by_class = if a == b { last.info.operator == "Gemm" } else { classes == a };
        let width = if by_class { b } else { a };
        let last = Last {
            features: last.varying[0].clone(),
            weight,
            output: last.output,
            terms: last.terms,
            classes,
            width,
            by_class,
        };
        Ok(Self { input, nodes, last })
    }

    /// Bounds over boxes from `low` to `high`.
    /// # Errors
    /// The rows do not fit the network.
    pub(super) fn forward<'a>(
        &self,
        step: &'a Step<'_>,
        low: &Tensor,
        high: &Tensor,
    ) -> Result<Bounds<'a>, TrainError> {
        let mut known: HashMap<String, Pair> = HashMap::new();
        known.insert(self.input.clone(), middle(low, high)?);
        let mut passed = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let pair = |i: &String| known.get(i).ok_or_else(|| mismatch(format!("`{i}` has no bounds")));
            let (next, pass) = if node.linear {
                let centres = node
                    .varying
                    .iter()
                    .map(|i| Ok((i.clone(), pair(i)?.0.clone())))
                    .collect::<Result<_, TrainError>>()?;
                let radii = node
                    .varying
                    .iter()
                    .map(|i| Ok((i.clone(), pair(i)?.1.clone())))
                    .collect::<Result<_, TrainError>>()?;
                let centre = self.run(step, low, node, centres, false, false)?;
                let radius = self.run(step, low, node, radii, true, false)?;
                let (c, mut r) = (centre.output(&node.output)?, radius.output(&node.output)?);
                // A subtraction from something stored turns the sign of the radius.
                let negative: Vec<bool> = r.as_f32().unwrap_or_default().iter().map(|v| *v < 0.0).collect();
                r.as_f32_mut().unwrap_or_default().iter_mut().for_each(|v| *v = v.abs());
                ((c, r), Passed::Linear { centre, radius, negative })
            } else {
                let name = &node.varying[0];
                let (c, r) = pair(name)?;
                let end = |sign: f32| {
                    let mut x = c.clone();
                    combine(x.as_f32_mut().unwrap_or_default(), r.as_f32().unwrap_or_default(), |c, r| c + sign * r);
                    self.run(step, low, node, vec![(name.clone(), x)], false, false)
                };
                let (l, h) = (end(-1.0)?, end(1.0)?);
                let pair = middle(&l.output(&node.output)?, &h.output(&node.output)?)?;
                (pair, Passed::Monotone { low: l, high: h })
            };
            known.insert(node.output.clone(), next);
            passed.push(pass);
        }
        let features = known.get(&self.last.features).cloned().ok_or_else(|| mismatch("no features".to_owned()))?;
        if features.0.row_len() != self.last.width {
            return Err(mismatch(format!("`ibp`: the last layer takes {} features per row", features.0.row_len())));
        }
        let names = [vec![self.last.weight.clone()], self.last.terms.clone()].concat();
        let given = vec![(self.last.features.clone(), features.0.clone())];
        let wanted = vec![self.last.features.clone()];
        let at = (self.input.as_str(), low);
        let answers = request(step, at, &self.last.output, given, wanted, &names, &names, &[])?;
        let stored = value_of(step, &self.last.weight)?;
        let w = stored.as_f32().unwrap_or_default();
        let (k, d) = (self.last.classes, self.last.width);
        let weight = if self.last.by_class { w.to_vec() } else { (0..k * d).map(|i| w[i % d * k + i / d]).collect() };
        let centre = answers.output(&self.last.output)?;
        Ok(Bounds { passed, centre, answers, features, weight, classes: k, width: d, pairs: known })
    }

    /// The gradient with respect to the weights, from slopes with respect to the margins to `labels`,
    /// `[rows, classes]`, and from what linear bounds that rest on these owe to stored tensors and bounds.
    /// # Errors
    /// See [`Intervals::forward`].
    pub(super) fn backward(
        &self,
        step: &Step<'_>,
        bounds: &Bounds<'_>,
        labels: &[usize],
        slopes: &[f64],
        linear: Option<Slopes>,
    ) -> Result<Gradient, TrainError> {
        let (k, d) = (bounds.classes, bounds.width);
        let names = &step.net.weights.names()[..step.net.weights.trainable()];
        let mut total: Vec<Option<Tensor>> = vec![None; names.len()];
        let mut to_weights = |name: &str, gradient: Tensor| add(names, &mut total, name, gradient);
        let mut slopes_of: HashMap<String, Pair> = HashMap::new();
        if let Some(linear) = linear {
            linear.stored.into_iter().for_each(|(name, g)| to_weights(&name, g));
            slopes_of = linear.bounds;
        }
        let r = bounds.features.1.as_f32().unwrap_or_default();
        let mut to_answers = vec![0.0f32; slopes.len()];
        let mut to_radius = vec![0.0f32; r.len()];
        let mut to_last = vec![0.0f32; k * d];
        for (row, (s, &y)) in slopes.chunks(k).zip(labels).enumerate() {
            let sum: f64 = s.iter().sum();
            for (j, &s) in s.iter().enumerate() {
                to_answers[row * k + j] += s as f32;
                let s = s as f32;
                for i in 0..d {
                    let difference = bounds.weight[j * d + i] - bounds.weight[y * d + i];
                    to_radius[row * d + i] += s * difference.abs();
                    let slope = s * r[row * d + i] * sign(difference);
                    to_last[j * d + i] += slope;
                    to_last[y * d + i] -= slope;
                }
            }
            to_answers[row * k + y] -= sum as f32;
        }
        let turned =
            if self.last.by_class { to_last } else { (0..k * d).map(|i| to_last[i % k * d + i / k]).collect() };
        let shape = value_of(step, &self.last.weight)?.shape().to_vec();
        to_weights(&self.last.weight, Tensor::f32(shape, turned)?);
        let to_answers = Tensor::f32(bounds.centre.shape().to_vec(), to_answers)?;
        let mut gradients = bounds.answers.backward(&[(&self.last.output, &to_answers)])?;
        let mut slopes = slopes_of;
        let zeros =
            |name: &str| Tensor::zeros(bounds.pairs.get(name).map(|p| p.0.shape().to_vec()).unwrap_or_default());
        let to_centre = gradients.take(&self.last.features).map_or_else(|| zeros(&self.last.features), Ok)?;
        for name in std::iter::once(&self.last.weight).chain(&self.last.terms) {
            gradients.take(name).into_iter().for_each(|g| to_weights(name, g));
        }
        slopes.insert(
            self.last.features.clone(),
            (to_centre, Tensor::f32(bounds.features.1.shape().to_vec(), to_radius)?),
        );
        for (node, pass) in self.nodes.iter().zip(&bounds.passed).rev() {
            let Some((to_c, to_r)) = slopes.remove(&node.output) else { continue };
            let mut back = |name: &str, c: Tensor, r: Tensor| -> Result<(), TrainError> {
                if name == self.input {
                    return Ok(());
                }
                match slopes.get_mut(name) {
                    Some((own_c, own_r)) => {
                        combine(own_c.as_f32_mut().unwrap_or_default(), c.as_f32().unwrap_or_default(), |a, b| a + b);
                        combine(own_r.as_f32_mut().unwrap_or_default(), r.as_f32().unwrap_or_default(), |a, b| a + b);
                    }
                    None => {
                        slopes.insert(name.to_owned(), (c, r));
                    }
                }
                Ok(())
            };
            match pass {
                Passed::Linear { centre, radius, negative } => {
                    let mut of_centre = centre.backward(&[(&node.output, &to_c)])?;
                    let mut to_r = to_r;
                    let turn = to_r.as_f32_mut().unwrap_or_default().iter_mut().zip(negative).filter(|(_, n)| **n);
                    turn.for_each(|(v, _)| *v = -*v);
                    let mut of_radius = radius.backward(&[(&node.output, &to_r)])?;
                    for name in &node.varying {
                        let c = of_centre.take(name).map_or_else(|| zeros(name), Ok)?;
                        let r = of_radius.take(name).map_or_else(|| zeros(name), Ok)?;
                        back(name, c, r)?;
                    }
                    for name in &node.terms {
                        of_centre.take(name).into_iter().for_each(|g| to_weights(name, g));
                    }
                    for name in &node.factors {
                        of_centre.take(name).into_iter().for_each(|g| to_weights(name, g));
                        if let Some(mut g) = of_radius.take(name) {
                            // The radius went through the absolute weights.
                            let w = value_of(step, name)?;
                            combine(g.as_f32_mut().unwrap_or_default(), w.as_f32().unwrap_or_default(), |g, w| {
                                g * sign(w)
                            });
                            to_weights(name, g);
                        }
                    }
                }
                Passed::Monotone { low, high } => {
                    let name = &node.varying[0];
                    // Centre and radius are half the sum and half the difference of the ends.
                    let end = |run: &Run<'_>, side: f32| -> Result<Tensor, TrainError> {
                        let mut seed = to_c.clone();
                        let of_r = to_r.as_f32().unwrap_or_default();
                        combine(seed.as_f32_mut().unwrap_or_default(), of_r, |c, r| 0.5 * (c + side * r));
                        Ok(run.backward(&[(&node.output, &seed)])?.take(name).map_or_else(|| zeros(name), Ok)?)
                    };
                    let (l, mut h) = (end(low, -1.0)?, end(high, 1.0)?);
                    let mut c = h.clone();
                    let of_l = l.as_f32().unwrap_or_default();
                    combine(c.as_f32_mut().unwrap_or_default(), of_l, |h, l| h + l);
                    combine(h.as_f32_mut().unwrap_or_default(), of_l, |h, l| h - l);
                    back(name, c, h)?;
                }
            }
        }
        Ok(Gradient { tensors: total, ..Gradient::default() })
    }

    /// One node, from given values of its varying inputs; with `absolute`, through absolute factors and without terms. Gradients
    /// with respect to the network's input are kept only if they are asked for.
    pub(super) fn run<'a>(
        &self,
        step: &'a Step<'_>,
        x: &Tensor,
        node: &Planned,
        given: Vec<(String, Tensor)>,
        absolute: bool,
        to_input: bool,
    ) -> Result<Run<'a>, TrainError> {
        let stored = [&node.factors[..], &node.terms[..]].concat();
        let (factors, terms) = if absolute { (&node.factors[..], &node.terms[..]) } else { (&[][..], &[][..]) };
        let mut changed = Vec::new();
        for name in factors {
            let mut w = value_of(step, name)?;
            w.as_f32_mut().unwrap_or_default().iter_mut().for_each(|v| *v = v.abs());
            changed.push((name.clone(), w));
        }
        for name in terms {
            changed.push((name.clone(), Tensor::zeros(value_of(step, name)?.shape().to_vec())?));
        }
        let plain: Vec<String> = stored.iter().filter(|n| !changed.iter().any(|(c, _)| c == *n)).cloned().collect();
        let differentiated = if absolute { factors } else { &stored };
        let mut wanted: Vec<String> = given.iter().map(|g| g.0.clone()).collect();
        wanted.retain(|n| to_input || *n != self.input);
        request(step, (&self.input, x), &node.output, given, wanted, &plain, differentiated, &changed)
    }
}

/// A pass of one node, in evaluation mode, with the weights as they are.
#[expect(clippy::too_many_arguments, reason = "all of it makes one request")]
pub(super) fn request<'a>(
    step: &'a Step<'_>,
    (input, x): (&str, &Tensor),
    output: &str,
    given: Vec<(String, Tensor)>,
    wanted: Vec<String>,
    plain: &[String],
    differentiated: &[String],
    changed: &[(String, Tensor)],
) -> Result<Run<'a>, TrainError> {
    let mut inputs = vec![(input.to_owned(), x.clone())];
    let mut overrides = Vec::new();
    for (name, tensor) in given {
        if name == input {
            inputs[0].1 = tensor;
        } else {
            overrides.push((name, tensor));
        }
    }
    for name in plain {
        overrides.push((name.clone(), value_of(step, name)?));
    }
    overrides.extend(changed.iter().cloned());
    let parameters = differentiated.iter().filter(|n| step.active.contains(n)).cloned().collect();
    let request = Request {
        inputs,
        overrides,
        outputs: vec![output.to_owned()],
        wrt: Wrt { values: wanted, parameters: Parameters::Named(parameters) },
        ..Request::default()
    };
    Ok(step.net.model().forward(&request)?)
}

/// A stored tensor as it is now.
pub(super) fn value_of(step: &Step<'_>, name: &str) -> Result<Tensor, TrainError> {
    let weights = &step.net.weights;
    if let Some(i) = weights.names().iter().position(|n| n == name) {
        return Ok(weights.tensors()[i].clone());
    }
    let stored = step.net.model().parameter(name).cloned();
    stored.ok_or_else(|| mismatch(format!("`ibp`: `{name}` is not stored in the file")))
}

fn middle(low: &Tensor, high: &Tensor) -> Result<Pair, TrainError> {
    let (l, h) = (low.as_f32().unwrap_or_default(), high.as_f32().unwrap_or_default());
    let half = |f: fn(f32, f32) -> f32| l.iter().zip(h).map(|(&l, &h)| f(l, h)).collect::<Vec<f32>>();
    let c = Tensor::f32(low.shape().to_vec(), half(|l, h| 0.5 * (l + h)))?;
    let r = Tensor::f32(low.shape().to_vec(), half(|l, h| 0.5 * (h - l)))?;
    Ok((c, r))
}

fn sign(v: f32) -> f32 {
    if v == 0.0 { 0.0 } else { v.signum() }
}

fn add(names: &[String], total: &mut [Option<Tensor>], name: &str, gradient: Tensor) {
    let Some(i) = names.iter().position(|n| n == name) else { return };
    match &mut total[i] {
        Some(own) => combine(own.as_f32_mut().unwrap_or_default(), gradient.as_f32().unwrap_or_default(), |a, b| a + b),
        slot => *slot = Some(gradient),
    }
}
