//! Recurrent layers: RNN, GRU and LSTM, from differentiable steps.
//!
//! The input's part of all time steps is one large product; each step adds the product with the state.

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Context, Entry, Fact, Operator, Value, checked_shape};
use crate::real::Real;

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "GRU", build: |a| Recurrent::build(a, Cell::Gru) },
    Entry { name: "LSTM", build: |a| Recurrent::build(a, Cell::Lstm) },
    Entry { name: "RNN", build: |a| Recurrent::build(a, Cell::Rnn) },
];

/// Which inputs a recurrent operator has, by number.
const X: usize = 0;
const W: usize = 1;
const R: usize = 2;
const B: usize = 3;
const LENGTHS: usize = 4;
const INITIAL_H: usize = 5;
const INITIAL_C: usize = 6;
const PEEPHOLES: usize = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Rnn,
    Gru,
    Lstm,
}

impl Cell {
    /// Gates whose weights are stacked in W and R.
    fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }

    fn most_inputs(self) -> usize {
        if self == Self::Lstm { 8 } else { 6 }
    }

    fn most_outputs(self) -> usize {
        if self == Self::Lstm { 3 } else { 2 }
    }

    fn activations(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["Tanh"],
            Self::Gru => &["Sigmoid", "Tanh"],
            Self::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Activation {
    Affine(f32, f32),
    Elu(f32),
    HardSigmoid(f32, f32),
    LeakyRelu(f32),
    Relu,
    ScaledTanh(f32, f32),
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
    ThresholdedRelu(f32),
}

impl Activation {
    /// `alpha` and `beta` give the next number of their list; only functions that have such a parameter take one.
    fn new(name: &str, alpha: &mut impl Iterator<Item = f32>, beta: &mut impl Iterator<Item = f32>) -> OpResult<Self> {
        let mut a = |default: f32| alpha.next().unwrap_or(default);
        let mut b = |default: f32| beta.next().unwrap_or(default);
        Ok(match name.to_ascii_lowercase().as_str() {
            "affine" => Self::Affine(a(1.0), b(0.0)),
            "elu" => Self::Elu(a(1.0)),
            "hardsigmoid" => Self::HardSigmoid(a(0.2), b(0.5)),
            "leakyrelu" => Self::LeakyRelu(a(0.01)),
            "relu" => Self::Relu,
            "scaledtanh" => Self::ScaledTanh(a(1.0), b(1.0)),
            "sigmoid" => Self::Sigmoid,
            "softplus" => Self::Softplus,
            "softsign" => Self::Softsign,
            "tanh" => Self::Tanh,
            "thresholdedrelu" => Self::ThresholdedRelu(a(1.0)),
            _ => unsupported!("attribute `activations` names {name}"),
        })
    }

    fn apply(self, x: &Real) -> Real {
        match self {
            Self::Affine(alpha, beta) => x.mul_scalar(alpha).add_scalar(beta),
            Self::Elu(alpha) => x.relu().add(&x.clamp(None, Some(0.0)).exp().add_scalar(-1.0).mul_scalar(alpha)),
            Self::HardSigmoid(alpha, beta) => x.mul_scalar(alpha).add_scalar(beta).clamp(Some(0.0), Some(1.0)),
            Self::LeakyRelu(alpha) => x.relu().sub(&x.neg().relu().mul_scalar(alpha)),
            Self::Relu => x.relu(),
            Self::ScaledTanh(alpha, beta) => x.mul_scalar(beta).tanh().mul_scalar(alpha),
            Self::Sigmoid => x.sigmoid(),
            // log(1 + eˣ) without overflow.
            Self::Softplus => x.relu().add(&x.abs().neg().exp().log1p()),
            Self::Softsign => x.div(&x.abs().add_scalar(1.0)),
            Self::Tanh => x.tanh(),
            Self::ThresholdedRelu(alpha) => x.mul(&x.add_scalar(-alpha).sign().relu()),
        }
    }
}

/// One recurrent layer, in one or two directions.
struct Recurrent {
    cell: Cell,
    /// For each direction, whether it runs from the last step to the first.
    reverse: Vec<bool>,
    /// For each direction, the functions f, g and h.
    activations: Vec<Vec<Activation>>,
    clip: Option<f32>,
    hidden: Option<usize>,
    batch_first: bool,
    input_forget: bool,
    linear_before_reset: bool,
    outputs: usize,
}

/// Sizes of one call.
struct Sizes {
    steps: usize,
    batch: usize,
    features: usize,
    hidden: usize,
}

impl Recurrent {
    fn build(a: &Attributes<'_>, cell: Cell) -> OpResult<Box<dyn Operator>> {
        let reverse = match a.text("direction", "forward")?.to_ascii_lowercase().as_str() {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => invalid!("attribute `direction` must be forward, reverse or bidirectional, got {other}"),
        };
        let per_direction = cell.activations().len();
        let names = match a.texts("activations")? {
            Some(names) if !names.is_empty() => names,
            _ => cell.activations().repeat(reverse.len()).iter().map(|s| (*s).to_owned()).collect(),
        };
        if names.len() != per_direction * reverse.len() {
            invalid!("attribute `activations` names {}, must name {}", names.len(), per_direction * reverse.len());
        }
        let mut alpha = a.floats("activation_alpha")?.unwrap_or_default().into_iter();
        let mut beta = a.floats("activation_beta")?.unwrap_or_default().into_iter();
        let all = names.iter().map(|n| Activation::new(n, &mut alpha, &mut beta)).collect::<OpResult<Vec<_>>>()?;
        let clip = a.optional_float("clip")?;
        if clip.is_some_and(|c| c.is_nan() || c < 0.0) {
            invalid!("attribute `clip` must be at least 0, got {clip:?}");
        }
        let hidden = match a.optional_int("hidden_size")? {
            None => None,
            Some(h) => match usize::try_from(h) {
                Ok(h) if h > 0 => Some(h),
                _ => invalid!("attribute `hidden_size` must be at least 1, got {h}"),
            },
        };
        if a.opset < 7 {
            // All outputs that the node names are made.
            a.int("output_sequence", 0)?;
        }
        let batch_first = match a.int("layout", 0)? {
            0 => false,
            1 => true,
            other => invalid!("attribute `layout` must be 0 or 1, got {other}"),
        };
        let input_forget = cell == Cell::Lstm && a.flag("input_forget", false)?;
        let linear_before_reset = cell == Cell::Gru && a.flag("linear_before_reset", false)?;
        if a.outputs() > cell.most_outputs() {
            invalid!("has {} outputs, at most {} exist", a.outputs(), cell.most_outputs());
        }
        Ok(Box::new(Self {
            cell,
            activations: all.chunks(per_direction).map(<[_]>::to_vec).collect(),
            reverse,
            clip,
            hidden,
            batch_first,
            input_forget,
            linear_before_reset,
            outputs: a.outputs(),
        }))
    }

    fn sizes(&self, x: &[usize], r: &[usize]) -> Sizes {
        let (steps, batch) = if self.batch_first { (x[1], x[0]) } else { (x[0], x[1]) };
        Sizes { steps, batch, features: x[2], hidden: r[2] }
    }

    fn state_shape(&self, s: &Sizes) -> [usize; 3] {
        let d = self.reverse.len();
        if self.batch_first { [s.batch, d, s.hidden] } else { [d, s.batch, s.hidden] }
    }

    fn act(&self, direction: usize, which: usize, x: &Real) -> Real {
        let f = self.activations[direction][which];
        match self.clip {
            Some(c) => f.apply(&x.clamp(Some(-c), Some(c))),
            None => f.apply(x),
        }
    }

    /// One direction of a `[directions, ...]` input.
    fn part(&self, inputs: Args<'_, Value>, i: usize, direction: usize, cx: &Context) -> OpResult<Option<Real>> {
        Ok(inputs.optional_real(i, cx)?.map(|r| {
            let shape = r.shape()[1..].to_vec();
            r.narrow(0, direction, direction + 1).reshape(&shape)
        }))
    }

    fn initial(&self, inputs: Args<'_, Value>, i: usize, d: usize, s: &Sizes, cx: &Context) -> OpResult<Real> {
        Ok(match inputs.optional_real(i, cx)? {
            Some(r) => {
                let r = if self.batch_first { r.permute(&[1, 0, 2]) } else { r };
                r.narrow(0, d, d + 1).reshape(&[s.batch, s.hidden])
            }
            None => Real::full(&[s.batch, s.hidden], 0.0, &cx.device),
        })
    }

    /// Runs one direction over `x` `[steps, batch, features]`: output of each step in order, last state, last cell.
    fn run(
        &self,
        direction: usize,
        x: &Real,
        inputs: Args<'_, Value>,
        masks: Option<&[Real]>,
        s: &Sizes,
        cx: &Context,
    ) -> OpResult<(Vec<Real>, Real, Real)> {
        let (gates, h) = (self.cell.gates(), s.hidden);
        let part = |i: usize| self.part(inputs, i, direction, cx);
        let (Some(w), Some(r)) = (part(W)?, part(R)?) else { invalid!("weights are missing") };
        let r = r.transpose_last();
        let bias = part(B)?;
        let mut step = Step {
            layer: self,
            direction,
            hidden: h,
            recurrent_bias: None,
            peepholes: if self.cell == Cell::Lstm { part(PEEPHOLES)? } else { None },
            candidate: None,
            recurrent: r,
        };
        if self.cell == Cell::Gru && !self.linear_before_reset {
            // The candidate sees the state after the reset gate, in a product of its own.
            step.candidate = Some(step.recurrent.narrow(1, 2 * h, 3 * h));
            step.recurrent = step.recurrent.narrow(1, 0, 2 * h);
        }
        let mut fed = x.reshape(&[s.steps * s.batch, s.features]).matmul(&w.transpose_last());
        if let Some(b) = &bias {
            let (input, state) = (b.narrow(0, 0, gates * h), b.narrow(0, gates * h, 2 * gates * h));
            if self.cell == Cell::Gru && self.linear_before_reset {
                step.recurrent_bias = Some(state);
                fed = fed.add(&input);
            } else {
                fed = fed.add(&input.add(&state));
            }
        }
        let mut state = self.initial(inputs, INITIAL_H, direction, s, cx)?;
        let mut cell =
            if self.cell == Cell::Lstm { self.initial(inputs, INITIAL_C, direction, s, cx)? } else { state.clone() };
        let mut outputs = Vec::with_capacity(s.steps);
        let times: Vec<usize> =
            if self.reverse[direction] { (0..s.steps).rev().collect() } else { (0..s.steps).collect() };
        for t in times {
            let input = fed.narrow(0, t * s.batch, (t + 1) * s.batch);
            let (new_state, new_cell) = step.take(&input, &state, &cell);
            match masks {
                None => {
                    outputs.push(new_state.clone());
                    (state, cell) = (new_state, new_cell);
                }
                // Beyond the end of a sequence the state stays and the output is 0.
                Some(masks) => {
                    let live = &masks[t];
                    let rest = live.neg().add_scalar(1.0);
                    let seen = new_state.mul(live);
                    state = seen.add(&state.mul(&rest));
                    cell = new_cell.mul(live).add(&cell.mul(&rest));
                    outputs.push(seen);
                }
            }
        }
        if self.reverse[direction] {
            outputs.reverse();
        }
        Ok((outputs, state, cell))
    }
}

/// What one direction needs at each step.
struct Step<'a> {
    layer: &'a Recurrent,
    direction: usize,
    hidden: usize,
    /// `[hidden, gates · hidden]`
    recurrent: Real,
    recurrent_bias: Option<Real>,
    /// `[hidden, hidden]`, where the candidate has its own product.
    candidate: Option<Real>,
    /// `[3 · hidden]`, for input, output and forget gate.
    peepholes: Option<Real>,
}

impl Step<'_> {
    fn act(&self, which: usize, x: &Real) -> Real {
        self.layer.act(self.direction, which, x)
    }

    fn gate(&self, x: &Real, number: usize) -> Real {
        x.narrow(1, number * self.hidden, (number + 1) * self.hidden)
    }

    /// Next state and cell.
    fn take(&self, input: &Real, state: &Real, cell: &Real) -> (Real, Real) {
        let fed = state.matmul(&self.recurrent);
        match self.layer.cell {
            Cell::Rnn => {
                let new = self.act(0, &input.add(&fed));
                (new.clone(), new)
            }
            Cell::Gru => {
                let new = self.gru(input, &fed, state);
                (new.clone(), new)
            }
            Cell::Lstm => self.lstm(&input.add(&fed), cell),
        }
    }

    fn gru(&self, input: &Real, fed: &Real, state: &Real) -> Real {
        let fed = match &self.recurrent_bias {
            Some(b) => fed.add(b),
            None => fed.clone(),
        };
        let update = self.act(0, &self.gate(input, 0).add(&self.gate(&fed, 0)));
        let reset = self.act(0, &self.gate(input, 1).add(&self.gate(&fed, 1)));
        let from_state = match &self.candidate {
            Some(r) => reset.mul(state).matmul(r),
            None => reset.mul(&self.gate(&fed, 2)),
        };
        let candidate = self.act(1, &self.gate(input, 2).add(&from_state));
        candidate.add(&update.mul(&state.sub(&candidate)))
    }

    fn lstm(&self, sum: &Real, cell: &Real) -> (Real, Real) {
        let peep = |x: Real, which: usize, cell: &Real| match &self.peepholes {
            Some(p) => x.add(&cell.mul(&p.narrow(0, which * self.hidden, (which + 1) * self.hidden))),
            None => x,
        };
        let input = self.act(0, &peep(self.gate(sum, 0), 0, cell));
        let forget = if self.layer.input_forget {
            input.neg().add_scalar(1.0)
        } else {
            self.act(0, &peep(self.gate(sum, 2), 2, cell))
        };
        let candidate = self.act(1, &self.gate(sum, 3));
        let new_cell = forget.mul(cell).add(&input.mul(&candidate));
        let output = self.act(0, &peep(self.gate(sum, 1), 1, &new_cell));
        (output.mul(&self.act(2, &new_cell)), new_cell)
    }
}

impl Operator for Recurrent {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if !(3..=self.cell.most_inputs()).contains(&inputs.len()) {
            invalid!("has {} inputs, needs 3 to {}", inputs.len(), self.cell.most_inputs());
        }
        let (x, w, r) = (inputs.float(X)?, inputs.float(W)?, inputs.float(R)?);
        if x.rank() != 3 || w.rank() != 3 || r.rank() != 3 {
            invalid!("x, w and r must have 3 axes, got {:?}, {:?} and {:?}", x.shape, w.shape, r.shape);
        }
        let s = self.sizes(&x.shape, &r.shape);
        let (d, gates, h) = (self.reverse.len(), self.cell.gates(), s.hidden);
        if h == 0 || s.features == 0 {
            invalid!("x has {} features, the state {h}; both must be at least 1", s.features);
        }
        if self.hidden.is_some_and(|n| n != h) {
            invalid!("attribute `hidden_size` is {:?}, r has shape {:?}", self.hidden, r.shape);
        }
        let must = |i: usize, name: &str, shape: &[usize]| -> OpResult<()> {
            if inputs.get(i).is_some() && inputs.float(i)?.shape != shape {
                invalid!("{name} has shape {:?}, must be {shape:?}", inputs.float(i)?.shape);
            }
            Ok(())
        };
        let Some(rows) = gates.checked_mul(h) else { invalid!("r has shape {:?}", r.shape) };
        must(W, "w", &[d, rows, s.features])?;
        must(R, "r", &[d, rows, h])?;
        must(B, "the bias", &[d, 2 * rows])?;
        let state = self.state_shape(&s);
        must(INITIAL_H, "the initial state", &state)?;
        must(INITIAL_C, "the initial cell", &state)?;
        must(PEEPHOLES, "the peephole weights", &[d, 3 * h])?;
        if let Some(lengths) = inputs.get(LENGTHS)
            && (!lengths.dtype.is_int() || lengths.shape != [s.batch])
        {
            invalid!(
                "the sequence lengths are {} of shape {:?}, must be int32 of shape [{}]",
                lengths.dtype,
                lengths.shape,
                s.batch
            );
        }
        let size = |v: usize| v as i64;
        let y = if self.batch_first { [s.batch, s.steps, d, h] } else { [s.steps, d, s.batch, h] };
        // All gates of all steps are one tensor.
        checked_shape(&[size(s.steps), size(s.batch), size(rows)])?;
        let y = checked_shape(&y.map(size))?;
        let fact = |shape: &[usize]| Fact::new(x.dtype, shape.to_vec());
        let all = [fact(&y), fact(&state), fact(&state)];
        Ok(all.into_iter().take(self.outputs).collect())
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(X, cx)?;
        let s = self.sizes(x.shape(), inputs.need(R)?.shape());
        let x = if self.batch_first { x.permute(&[1, 0, 2]) } else { x };
        let masks = masks(inputs, &s, cx)?;
        let d = self.reverse.len();
        let (mut sequences, mut states, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for direction in 0..d {
            if s.steps == 0 {
                states.push(self.initial(inputs, INITIAL_H, direction, &s, cx)?.reshape(&[1, s.batch, s.hidden]));
                cells.push(self.initial(inputs, INITIAL_C, direction, &s, cx)?.reshape(&[1, s.batch, s.hidden]));
                continue;
            }
            let (steps, state, cell) = self.run(direction, &x, inputs, masks.as_deref(), &s, cx)?;
            let steps: Vec<Real> = steps.iter().map(|y| y.reshape(&[1, 1, s.batch, s.hidden])).collect();
            sequences.push(join(&steps, 0));
            states.push(state.reshape(&[1, s.batch, s.hidden]));
            cells.push(cell.reshape(&[1, s.batch, s.hidden]));
        }
        let y = if s.steps == 0 {
            Real::new(&[0, d, s.batch, s.hidden], Vec::new(), &cx.device)
        } else {
            join(&sequences, 1)
        };
        let y = if self.batch_first { y.permute(&[2, 0, 1, 3]) } else { y };
        let state = |parts: &[Real]| {
            let joined = join(parts, 0);
            if self.batch_first { joined.permute(&[1, 0, 2]) } else { joined }
        };
        let all = [y, state(&states), state(&cells)];
        Ok(all.into_iter().take(outputs.len()).map(Value::Real).collect())
    }

    fn macs(&self, inputs: Args<'_, Fact>, _outputs: &[Fact]) -> u64 {
        let (Some(x), Some(r)) = (inputs.get(X), inputs.get(R)) else { return 0 };
        let s = self.sizes(&x.shape, &r.shape);
        [s.batch, self.reverse.len(), self.cell.gates(), s.hidden, s.features + s.hidden]
            .iter()
            .fold(s.steps as u64, |t, &n| t.saturating_mul(n as u64))
    }
}

fn join(parts: &[Real], axis: usize) -> Real {
    if parts.len() == 1 { parts[0].clone() } else { Real::concat(parts, axis) }
}

/// For each step, 1 where a sequence is still running, as `[batch, 1]`.
fn masks(inputs: Args<'_, Value>, s: &Sizes, cx: &Context) -> OpResult<Option<Vec<Real>>> {
    if inputs.get(LENGTHS).is_none() {
        return Ok(None);
    }
    let lengths = inputs.ints(LENGTHS)?;
    if let Some(n) = lengths.iter().find(|n| !(0..=s.steps as i64).contains(n)) {
        invalid!("sequence length {n} is outside 0..={}", s.steps);
    }
    if lengths.iter().all(|&n| n == s.steps as i64) {
        return Ok(None);
    }
    let mask = |t: usize| {
        let live = lengths.iter().map(|&n| f32::from(u8::from((t as i64) < n))).collect();
        Real::new(&[s.batch, 1], live, &cx.device)
    };
    Ok(Some((0..s.steps).map(mask).collect()))
}

#[cfg(test)]
mod tests {
    use netproof_tensor::{DType, Elements, Tensor};

    use super::*;
    use crate::ops::test_support::{Attr, run_outputs};
    use crate::real::RealDevice;

    #[test]
    fn activations_follow_their_formulas() {
        let x = [-2.5f32, -0.3, 0.4, 3.0];
        let on_device = Real::new(&[4], x.to_vec(), &RealDevice::cpu());
        type Formula = fn(f32) -> f32;
        let cases: [(Activation, Formula); 11] = [
            (Activation::Affine(2.0, 0.5), |x| 2.0 * x + 0.5),
            (Activation::Elu(1.5), |x| if x < 0.0 { 1.5 * (x.exp() - 1.0) } else { x }),
            (Activation::HardSigmoid(0.2, 0.5), |x| (0.2 * x + 0.5).clamp(0.0, 1.0)),
            (Activation::LeakyRelu(0.1), |x| if x < 0.0 { 0.1 * x } else { x }),
            (Activation::Relu, |x| x.max(0.0)),
            (Activation::ScaledTanh(1.7, 0.6), |x| 1.7 * (0.6 * x).tanh()),
            (Activation::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
            (Activation::Softplus, |x| (1.0 + x.exp()).ln()),
            (Activation::Softsign, |x| x / (1.0 + x.abs())),
            (Activation::Tanh, f32::tanh),
            (Activation::ThresholdedRelu(0.5), |x| if x > 0.5 { x } else { 0.0 }),
        ];
        for (activation, formula) in cases {
            for (got, x) in activation.apply(&on_device).to_vec().into_iter().zip(x) {
                assert!((got - formula(x)).abs() < 1e-6, "{activation:?}({x}) = {got}, must be {}", formula(x));
            }
        }
    }

    #[test]
    fn parameters_go_to_the_functions_that_have_them() {
        let (mut alpha, mut beta) = ([0.3, 0.7].into_iter(), [0.9].into_iter());
        let mut next = |name| Activation::new(name, &mut alpha, &mut beta).unwrap();
        assert_eq!(next("Sigmoid"), Activation::Sigmoid);
        assert_eq!(next("LeakyRelu"), Activation::LeakyRelu(0.3));
        assert_eq!(next("hardsigmoid"), Activation::HardSigmoid(0.7, 0.9));
        assert_eq!(next("HardSigmoid"), Activation::HardSigmoid(0.2, 0.5));
    }

    const FEATURES: usize = 2;
    const HIDDEN: usize = 2;
    const STEPS: usize = 3;

    /// Numbers that differ from each other.
    fn numbers(start: u32, shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::f32(shape.to_vec(), (0..n as u32).map(|i| ((start + i) as f32 * 2.399).sin()).collect()).unwrap()
    }

    /// The equations of one cell for one sequence, scalar by scalar: outputs of all steps and the last cell.
    fn by_definition(t: &[Tensor; 7], cell: Cell, example: usize, times: &[usize], clip: f32) -> (Vec<f32>, Vec<f32>) {
        let v: Vec<&[f32]> = t.iter().map(|t| t.as_f32().unwrap()).collect();
        let (gates, at) = (cell.gates(), example * HIDDEN);
        let mut h = v[4][at..at + HIDDEN].to_vec();
        let mut c = v[5][at..at + HIDDEN].to_vec();
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x.clamp(-clip, clip)).exp());
        let tanh = |x: f32| x.clamp(-clip, clip).tanh();
        let mut y = vec![0.0; STEPS * HIDDEN];
        for &time in times {
            let x = &v[0][(time * 2 + example) * FEATURES..][..FEATURES];
            let input = |gate: usize, u: usize| -> f32 {
                let row = gate * HIDDEN + u;
                v[3][row] + (0..FEATURES).map(|j| v[1][row * FEATURES + j] * x[j]).sum::<f32>()
            };
            let state = |gate: usize, u: usize, h: &[f32]| -> f32 {
                let row = gate * HIDDEN + u;
                v[3][gates * HIDDEN + row] + (0..HIDDEN).map(|j| v[2][row * HIDDEN + j] * h[j]).sum::<f32>()
            };
            let both = |gate: usize, u: usize| input(gate, u) + state(gate, u, &h);
            let peep = |which: usize, u: usize, c: f32| v[6][which * HIDDEN + u] * c;
            let mut next = h.clone();
            for u in 0..HIDDEN {
                next[u] = match cell {
                    Cell::Rnn => tanh(both(0, u)),
                    Cell::Gru => {
                        let update = sigmoid(both(0, u));
                        let gated: Vec<f32> = (0..HIDDEN).map(|j| sigmoid(both(1, j)) * h[j]).collect();
                        (1.0 - update) * tanh(input(2, u) + state(2, u, &gated)) + update * h[u]
                    }
                    Cell::Lstm => {
                        let gate_in = sigmoid(both(0, u) + peep(0, u, c[u]));
                        let forget = sigmoid(both(2, u) + peep(2, u, c[u]));
                        c[u] = forget * c[u] + gate_in * tanh(both(3, u));
                        sigmoid(both(1, u) + peep(1, u, c[u])) * tanh(c[u])
                    }
                };
            }
            h = next;
            y[time * HIDDEN..][..HIDDEN].copy_from_slice(&h);
        }
        (y, c)
    }

    #[test]
    fn cells_follow_their_equations_in_both_directions_up_to_the_end_of_each_sequence() {
        for (cell, name) in [(Cell::Rnn, "RNN"), (Cell::Gru, "GRU"), (Cell::Lstm, "LSTM")] {
            let rows = cell.gates() * HIDDEN;
            let t = [
                numbers(1, &[STEPS, 2, FEATURES]),
                numbers(50, &[1, rows, FEATURES]),
                numbers(90, &[1, rows, HIDDEN]),
                numbers(130, &[1, 2 * rows]),
                numbers(170, &[1, 2, HIDDEN]),
                numbers(180, &[1, 2, HIDDEN]),
                numbers(190, &[1, 3 * HIDDEN]),
            ];
            let lengths = Tensor::new(DType::I32, vec![2], Elements::Int(vec![3, 2])).unwrap();
            let [x, w, r, b, h, c, p] = t.clone().map(Some);
            let mut inputs = vec![x, w, r, b, Some(lengths), h];
            if cell == Cell::Lstm {
                inputs.extend([c, p]);
            }
            for direction in ["forward", "reverse"] {
                for clip in [0.4f32, 100.0] {
                    let attributes = [("direction", Attr::Text(direction)), ("clip", Attr::Float(clip))];
                    let got = run_outputs(name, 14, cell.most_outputs(), &attributes, &inputs).unwrap();
                    for (example, length) in [(0, 3), (1, 2)] {
                        let mut times: Vec<usize> = (0..length).collect();
                        if direction == "reverse" {
                            times.reverse();
                        }
                        let (y, c) = by_definition(&t, cell, example, &times, clip);
                        let last = times[length - 1] * HIDDEN;
                        let near = |got: f32, want: f32| {
                            assert!((got - want).abs() < 1e-5, "{name} {direction} clip {clip}: {got}, must be {want}");
                        };
                        for u in 0..HIDDEN {
                            for time in 0..STEPS {
                                near(got[0].as_f32().unwrap()[(time * 2 + example) * HIDDEN + u], y[time * HIDDEN + u]);
                            }
                            near(got[1].as_f32().unwrap()[example * HIDDEN + u], y[last + u]);
                            if cell == Cell::Lstm {
                                near(got[2].as_f32().unwrap()[example * HIDDEN + u], c[u]);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn coupled_gates_forget_what_they_do_not_take_in() {
        // All weights 0: the input gate is a half, and so is what stays of the cell.
        let zeros = |shape: &[usize]| Some(Tensor::zeros(shape.to_vec()).unwrap());
        let mut bias = vec![0.0; 8];
        bias[2] = 50.0;
        let cell = Some(Tensor::f32(vec![1, 1, 1], vec![0.6]).unwrap());
        let bias = Some(Tensor::f32(vec![1, 8], bias).unwrap());
        let inputs = [zeros(&[1, 1, 1]), zeros(&[1, 4, 1]), zeros(&[1, 4, 1]), bias, None, None, cell];
        for (coupled, want) in [(0, 0.6), (1, 0.3)] {
            let y = run_outputs("LSTM", 14, 3, &[("input_forget", Attr::Int(coupled))], &inputs).unwrap();
            assert!((y[2].as_f32().unwrap()[0] - want).abs() < 1e-6, "{:?}", y[2]);
        }
    }
}
