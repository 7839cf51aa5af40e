//! Normalisation over a batch, over features, over channels and over neighbouring channels.

use netproof_tensor::DType;

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Backward, Context, Entry, Fact, Operator, Trained, Value, axes, axis, one};
use crate::real::{Real, Statistics, broadcast};
use crate::rows::RowsOf;

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "BatchNormalization", build: BatchNormalization::build },
    Entry { name: "GroupNormalization", build: GroupNormalization::build },
    Entry { name: "InstanceNormalization", build: InstanceNormalization::build },
    Entry { name: "LRN", build: Lrn::build },
    Entry { name: "LayerNormalization", build: LayerNormalization::build },
    Entry { name: "LpNormalization", build: LpNormalization::build },
    Entry { name: "MeanVarianceNormalization", build: MeanVarianceNormalization::build },
    Entry { name: "RMSNormalization", build: RmsNormalization::build },
];

fn epsilon(a: &Attributes<'_>) -> OpResult<f32> {
    let epsilon = a.float("epsilon", 1e-5)?;
    if !(epsilon.is_finite() && epsilon >= 0.0) {
        invalid!("attribute `epsilon` must be finite and at least 0, got {epsilon}");
    }
    Ok(epsilon)
}

/// Type in which a normalisation is computed and its statistics are given (`stash_type`).
fn stash_type(a: &Attributes<'_>) -> OpResult<DType> {
    match a.int("stash_type", 1)? {
        1 => Ok(DType::F32),
        10 => Ok(DType::F16),
        11 => Ok(DType::F64),
        16 => Ok(DType::BF16),
        other => unsupported!("attribute `stash_type` = {other}; float types 1, 10, 11 and 16 are known"),
    }
}

/// Values with mean 0 and variance 1 over some axes, and what made them so.
struct Standard {
    /// (x - mean) · inverse deviation
    values: Real,
    mean: Real,
    variance: Real,
    inverse: Real,
}

impl Standard {
    fn new(x: &Real, axes: &[usize], epsilon: f32) -> Self {
        let mean = x.mean(axes);
        let centred = x.sub(&mean);
        let variance = centred.mul(&centred).mean(axes);
        let inverse = variance.add_scalar(epsilon).sqrt().recip();
        Self { values: centred.mul(&inverse), mean, variance, inverse }
    }

    /// Gradient of x where `g` is the gradient of the standardised values.
    fn gradient(&self, g: &Real, axes: &[usize]) -> Real {
        let along = self.values.mul(&g.mul(&self.values).mean(axes));
        g.sub(&g.mean(axes)).sub(&along).mul(&self.inverse)
    }
}

// Batch normalisation.

/// y = (x - mean) / √(variance + ε) · scale + bias, for each channel (Ioffe and Szegedy, 2015).
struct BatchNormalization {
    epsilon: f32,
    momentum: f32,
    /// The file itself asks for batch statistics.
    training: bool,
    /// One statistic per channel; otherwise one per activation (opset < 9).
    spatial: bool,
    opset: i64,
    outputs: usize,
}

impl BatchNormalization {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        let epsilon = epsilon(a)?;
        let momentum = a.float("momentum", 0.9)?;
        if !momentum.is_finite() {
            invalid!("attribute `momentum` must be finite, got {momentum}");
        }
        let spatial = a.opset >= 9 || a.flag("spatial", true)?;
        if a.opset < 6 {
            // A hint for buffer reuse, without influence on the result.
            a.ints("consumed_inputs")?;
        }
        let training = match a.opset {
            ..7 => !a.flag("is_test", false)?,
            7..14 => a.outputs() > 1,
            _ => a.flag("training_mode", false)?,
        };
        let most = if a.opset < 14 { 5 } else { 3 };
        if a.outputs() > most {
            invalid!("has {} outputs, at most {most} exist", a.outputs());
        }
        Ok(Box::new(Self { epsilon, momentum, training, spatial, opset: a.opset, outputs: a.outputs() }))
    }

    /// The axes that share a statistic, and the shape in which parameters broadcast against x.
    fn layout(&self, x: &[usize]) -> (Vec<usize>, Vec<usize>) {
        if !self.spatial {
            let mut shape = x.to_vec();
            shape[0] = 1;
            return (vec![0], shape);
        }
        let channel = usize::from(x.len() > 1);
        let axes = (0..x.len()).filter(|&i| i != channel || x.len() == 1).collect();
        let shape = x.iter().enumerate().map(|(i, &d)| if i == channel { d } else { 1 }).collect();
        // A vector is one channel.
        (axes, if x.len() == 1 { vec![1] } else { shape })
    }

    fn parameter_shape(&self, x: &[usize]) -> Vec<usize> {
        match (self.spatial, x.len()) {
            (_, 1) => vec![1],
            (true, _) => vec![x[1]],
            (false, _) => x[1..].to_vec(),
        }
    }

    fn batch(&self, cx: &Context) -> bool {
        self.training || cx.training
    }

    fn running(&self, old: &Real, batch: &Real) -> Real {
        old.mul_scalar(self.momentum).add(&batch.mul_scalar(1.0 - self.momentum))
    }

    /// All outputs by the statistics of the batch, and the new running mean and variance.
    fn standardised(
        &self,
        inputs: Args<'_, Value>,
        outputs: &[Fact],
        cx: &Context,
    ) -> OpResult<(Vec<Value>, [Real; 2])> {
        let (x, scale, bias) = (inputs.real(0, cx)?, inputs.real(1, cx)?, inputs.real(2, cx)?);
        let (old_mean, old_variance) = (inputs.real(3, cx)?, inputs.real(4, cx)?);
        let kernel = || {
            let of = x.channel_statistics().filter(|_| self.spatial)?;
            let y = x.batch_norm(&of, self.epsilon, &scale, &bias)?;
            let (mean, variance) = of.tensors(old_mean.shape());
            Some((y, mean, variance))
        };
        let (y, mean, variance) = kernel().unwrap_or_else(|| {
            let (axes, shape) = self.layout(x.shape());
            let s = Standard::new(&x, &axes, self.epsilon);
            let y = s.values.mul(&scale.reshape(&shape)).add(&bias.reshape(&shape));
            (y, s.mean.reshape(old_mean.shape()), s.variance.reshape(old_variance.shape()))
        });
        let new = [self.running(&old_mean, &mean), self.running(&old_variance, &variance)];
        let all = [y, new[0].clone(), new[1].clone(), mean, variance];
        Ok((all.into_iter().take(outputs.len()).map(Value::Real).collect(), new))
    }
}

impl Operator for BatchNormalization {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if inputs.len() != 5 {
            invalid!("has {} inputs, needs 5: x, scale, bias, mean, variance", inputs.len());
        }
        let x = inputs.float(0)?;
        if x.rank() == 0 {
            invalid!("input 0 must have at least one axis");
        }
        let want = self.parameter_shape(&x.shape);
        for (i, name) in [(1, "scale"), (2, "bias"), (3, "mean"), (4, "variance")] {
            let p = inputs.float(i)?;
            if p.shape != want {
                invalid!("{name} has shape {:?}, must be {want:?} for x of shape {:?}", p.shape, x.shape);
            }
        }
        let statistic = if self.opset < 14 { x.dtype } else { inputs.float(3)?.dtype };
        if self.outputs > 1 {
            if !self.training {
                invalid!("names {} outputs, has 1 unless it is in training mode", self.outputs);
            }
            let (axes, _) = self.layout(&x.shape);
            if axes.iter().any(|&a| x.shape[a] == 0) {
                invalid!("batch statistics need at least one value per channel, x has shape {:?}", x.shape);
            }
        }
        let mut facts = vec![Fact::new(x.dtype, x.shape.clone())];
        facts.extend((1..self.outputs).map(|_| Fact::new(statistic, want.clone())));
        Ok(facts)
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (scale, bias) = (inputs.real(1, cx)?, inputs.real(2, cx)?);
        if self.batch(cx) {
            return Ok(self.standardised(inputs, outputs, cx)?.0);
        }
        let x = inputs.real(0, cx)?;
        let (mean, variance) = (inputs.real(3, cx)?, inputs.real(4, cx)?);
        if self.spatial
            && let Some(of) = Statistics::kept(&mean, &variance)
            && let Some(y) = x.batch_norm(&of, self.epsilon, &scale, &bias)
        {
            return one(y);
        }
        let (_, shape) = self.layout(x.shape());
        let factor = scale.mul(&variance.add_scalar(self.epsilon).sqrt().recip());
        let shift = bias.sub(&mean.mul(&factor));
        one(x.mul(&factor.reshape(&shape)).add(&shift.reshape(&shape)))
    }

    /// Running statistics become `momentum · running + (1 - momentum) · batch`, with the variance over the population as
    /// ONNX has it.
    fn eval_training(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Trained> {
        let (values, [mean, variance]) = self.standardised(inputs, outputs, cx)?;
        let updates = if inputs.need(0)?.shape().contains(&0) { Vec::new() } else { vec![(3, mean), (4, variance)] };
        Ok((values, updates))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        if call.gradients.iter().skip(1).any(Option::is_some) {
            return Ok(None);
        }
        let (cx, g) = (call.cx, call.gradient());
        let x = call.inputs.real(0, cx)?;
        let (axes, shape) = self.layout(x.shape());
        let scale = call.inputs.real(1, cx)?;
        if self.batch(cx)
            && self.spatial
            && let Some((of_x, of_scale, of_bias)) = x.batch_norm_backward(self.epsilon, &scale, g, call.wants(0))
        {
            let wanted = |i: usize, r: Real| call.wants(i).then_some(r);
            return Ok(Some(vec![of_x, wanted(1, of_scale), wanted(2, of_bias), None, None]));
        }
        let own = scale.shape().to_vec();
        let scale = scale.reshape(&shape);
        if self.batch(cx) {
            let s = Standard::new(&x, &axes, self.epsilon);
            return Ok(Some(vec![
                call.when(0, || Ok(s.gradient(&g.mul(&scale), &axes)))?,
                call.when(1, || Ok(g.mul(&s.values).sum(&axes).reshape(&own)))?,
                call.when(2, || Ok(g.sum(&axes).reshape(&own)))?,
                None,
                None,
            ]));
        }
        let variance = call.inputs.real(4, cx)?.reshape(&shape);
        let inverse = variance.add_scalar(self.epsilon).sqrt().recip();
        let factor = scale.mul(&inverse);
        let centred = || -> OpResult<Real> { Ok(x.sub(&call.inputs.real(3, cx)?.reshape(&shape))) };
        // Shared by scale and variance: the sum of g · (x - mean) over each channel.
        let moment = if call.wants(1) || call.wants(4) { Some(g.mul(&centred()?).sum(&axes)) } else { None };
        let total = if call.wants(2) || call.wants(3) { Some(g.sum(&axes)) } else { None };
        let of = |r: &Option<Real>, factor: Option<Real>| {
            r.as_ref().map(|r| factor.map_or_else(|| r.clone(), |f| r.mul(&f)).reshape(&own))
        };
        let cube = factor.mul(&inverse).mul(&inverse).mul_scalar(-0.5);
        let wanted = |i: usize, r: Option<Real>| if call.wants(i) { r } else { None };
        Ok(Some(vec![
            call.when(0, || Ok(g.mul(&factor)))?,
            wanted(1, of(&moment, Some(inverse))),
            wanted(2, of(&total, None)),
            wanted(3, of(&total, Some(factor.neg()))),
            wanted(4, of(&moment, Some(cube))),
        ]))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.only(0).filter(|&axis| axis == 0 && !self.training)
    }
}

// Layer normalisation.

/// Standardises over the axes from `axis` on (Ba, Kiros and Hinton, 2016).
struct LayerNormalization {
    axis: i64,
    epsilon: f32,
    stash: DType,
    outputs: usize,
}

impl LayerNormalization {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        if a.outputs() > 3 {
            invalid!("has {} outputs, at most 3 exist", a.outputs());
        }
        let (axis, epsilon, stash) = (a.int("axis", -1)?, epsilon(a)?, stash_type(a)?);
        Ok(Box::new(Self { axis, epsilon, stash, outputs: a.outputs() }))
    }
}

/// The axes from `first` to the last.
fn trailing(first: i64, rank: usize) -> OpResult<Vec<usize>> {
    Ok((axis(first, rank)?..rank).collect())
}

/// Checks that a parameter broadcasts to x without changing the shape of x.
fn fits(p: &Fact, x: &Fact, name: &str) -> OpResult<()> {
    if broadcast(&p.shape, &x.shape).as_ref() != Some(&x.shape) {
        invalid!("{name} has shape {:?}, which does not broadcast to {:?}", p.shape, x.shape);
    }
    Ok(())
}

impl Operator for LayerNormalization {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if !(2..=3).contains(&inputs.len()) {
            invalid!("has {} inputs, needs x, scale and optionally bias", inputs.len());
        }
        let x = inputs.float(0)?;
        let axes = trailing(self.axis, x.rank())?;
        fits(inputs.float(1)?, x, "scale")?;
        if inputs.get(2).is_some() {
            fits(inputs.float(2)?, x, "bias")?;
        }
        let mut facts = vec![Fact::new(x.dtype, x.shape.clone())];
        if self.outputs > 1 {
            let mut shape = x.shape.clone();
            for &a in &axes {
                if shape[a] == 0 {
                    invalid!("a mean over no elements was asked for, x has shape {:?}", x.shape);
                }
                shape[a] = 1;
            }
            facts.extend((1..self.outputs).map(|_| Fact::new(self.stash, shape.clone())));
        }
        Ok(facts)
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let axes = trailing(self.axis, x.rank())?;
        if outputs.len() == 1 {
            let n = axes.iter().map(|&a| x.shape()[a]).product();
            let (scale, bias) = (inputs.real(1, cx)?, inputs.optional_real(2, cx)?);
            if let Some(y) = x.layer_norm(n, self.epsilon, &scale, bias.as_ref()) {
                return one(y);
            }
        }
        let s = Standard::new(&x, &axes, self.epsilon);
        let mut y = s.values.mul(&inputs.real(1, cx)?);
        if let Some(bias) = inputs.optional_real(2, cx)? {
            y = y.add(&bias);
        }
        Ok([y, s.mean, s.inverse].into_iter().take(outputs.len()).map(Value::Real).collect())
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        if call.gradients.iter().skip(1).any(Option::is_some) {
            return Ok(None);
        }
        let (cx, g) = (call.cx, call.gradient());
        let x = call.inputs.real(0, cx)?;
        let axes = trailing(self.axis, x.rank())?;
        let scale = call.inputs.real(1, cx)?;
        let n = axes.iter().map(|&a| x.shape()[a]).product();
        let bias = call.inputs.get(2).map(|b| b.shape().to_vec());
        let counts = |shape: &[usize]| shape.iter().product::<usize>() == n;
        if bias.as_deref().is_none_or(counts)
            && let Some([of_x, of_scale, of_bias]) =
                x.layer_norm_backward(n, self.epsilon, &scale, g, [call.wants(0), call.wants(1) || call.wants(2)])
        {
            let mut gradients = vec![of_x, of_scale.filter(|_| call.wants(1)).map(|g| g.reshape(scale.shape()))];
            if let Some(shape) = bias {
                gradients.push(of_bias.filter(|_| call.wants(2)).map(|g| g.reshape(&shape)));
            }
            return Ok(Some(gradients));
        }
        let s = Standard::new(&x, &axes, self.epsilon);
        let mut gradients = vec![
            call.when(0, || Ok(s.gradient(&g.mul(&scale), &axes)))?,
            call.when(1, || Ok(g.mul(&s.values).sum_to(scale.shape())))?,
        ];
        if let Some(bias) = call.inputs.get(2) {
            gradients.push(call.when(2, || Ok(g.sum_to(bias.shape())))?);
        }
        gradients.resize(call.inputs.len(), None);
        Ok(Some(gradients))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        let first = axis(self.axis, call.output.rank()).ok()?;
        call.only(0).filter(|&rows| rows < first)
    }
}

// Instance and group normalisation.

fn three_inputs<'a>(inputs: Args<'a, Fact>, least_rank: usize) -> OpResult<(&'a Fact, &'a Fact, &'a Fact)> {
    if inputs.len() != 3 {
        invalid!("has {} inputs, needs 3: x, scale, bias", inputs.len());
    }
    let x = inputs.float(0)?;
    if x.rank() < least_rank {
        invalid!("input 0 must have at least {least_rank} axes, got shape {:?}", x.shape);
    }
    Ok((x, inputs.float(1)?, inputs.float(2)?))
}

fn vector_of(p: &Fact, n: usize, name: &str) -> OpResult<()> {
    if p.shape != [n] {
        invalid!("{name} has shape {:?}, must be [{n}]", p.shape);
    }
    Ok(())
}

/// Standardises each channel of each example over its spatial axes (Ulyanov, Vedaldi and Lempitsky, 2016).
struct InstanceNormalization {
    epsilon: f32,
}

impl InstanceNormalization {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        if a.opset < 6 {
            a.ints("consumed_inputs")?;
        }
        Ok(Box::new(Self { epsilon: epsilon(a)? }))
    }
}

/// Shape in which a vector over channels broadcasts against `[n, c, ...]`.
fn per_channel(rank: usize, channels: usize) -> Vec<usize> {
    let mut shape = vec![1; rank];
    shape[1] = channels;
    shape
}

impl Operator for InstanceNormalization {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let (x, scale, bias) = three_inputs(inputs, 3)?;
        vector_of(scale, x.shape[1], "scale")?;
        vector_of(bias, x.shape[1], "bias")?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let axes: Vec<usize> = (2..x.rank()).collect();
        let shape = per_channel(x.rank(), x.shape()[1]);
        let s = Standard::new(&x, &axes, self.epsilon);
        one(s.values.mul(&inputs.real(1, cx)?.reshape(&shape)).add(&inputs.real(2, cx)?.reshape(&shape)))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let (cx, g) = (call.cx, call.gradient());
        let x = call.inputs.real(0, cx)?;
        let (rank, channels) = (x.rank(), x.shape()[1]);
        let axes: Vec<usize> = (2..rank).collect();
        let shape = per_channel(rank, channels);
        let s = Standard::new(&x, &axes, self.epsilon);
        let scale = call.inputs.real(1, cx)?.reshape(&shape);
        Ok(Some(vec![
            call.when(0, || Ok(s.gradient(&g.mul(&scale), &axes)))?,
            call.when(1, || Ok(g.mul(&s.values).sum_to(&shape).reshape(&[channels])))?,
            call.when(2, || Ok(g.sum_to(&shape).reshape(&[channels])))?,
        ]))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.only(0).filter(|&axis| axis == 0)
    }
}

/// Standardises groups of neighbouring channels of each example (Wu and He, 2018).
struct GroupNormalization {
    epsilon: f32,
    groups: usize,
    /// Scale and bias per channel (opset 21), not per group.
    per_channel: bool,
}

impl GroupNormalization {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        let Some(groups) = a.optional_int("num_groups")? else { invalid!("attribute `num_groups` is missing") };
        let Some(groups) = usize::try_from(groups).ok().filter(|&g| g > 0) else {
            invalid!("attribute `num_groups` must be at least 1, got {groups}");
        };
        stash_type(a)?;
        Ok(Box::new(Self { epsilon: epsilon(a)?, groups, per_channel: a.opset >= 21 }))
    }
}

impl Operator for GroupNormalization {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let (x, scale, bias) = three_inputs(inputs, 2)?;
        let channels = x.shape[1];
        if !channels.is_multiple_of(self.groups) {
            invalid!("{channels} channels do not divide into {} groups", self.groups);
        }
        let n = if self.per_channel { channels } else { self.groups };
        vector_of(scale, n, "scale")?;
        vector_of(bias, n, "bias")?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let (n, channels, groups) = (x.shape()[0], x.shape()[1], self.groups);
        let size = x.count() / (n * groups);
        let s = Standard::new(&x.reshape(&[n, groups, size]), &[2], self.epsilon).values;
        let (scale, bias) = (inputs.real(1, cx)?, inputs.real(2, cx)?);
        let (view, shape) = if self.per_channel {
            ([n, channels, size * groups / channels], [1, channels, 1])
        } else {
            ([n, groups, size], [1, groups, 1])
        };
        one(s.reshape(&view).mul(&scale.reshape(&shape)).add(&bias.reshape(&shape)).reshape(x.shape()))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.only(0).filter(|&axis| axis == 0)
    }
}

/// y = x / √(mean of x² + ε) · scale over the axes from `axis` on (Zhang and Sennrich, 2019).
struct RmsNormalization {
    axis: i64,
    epsilon: f32,
}

impl RmsNormalization {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        stash_type(a)?;
        Ok(Box::new(Self { axis: a.int("axis", -1)?, epsilon: epsilon(a)? }))
    }
}

impl Operator for RmsNormalization {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if inputs.len() != 2 {
            invalid!("has {} inputs, needs 2: x, scale", inputs.len());
        }
        let (x, scale) = (inputs.float(0)?, inputs.float(1)?);
        axis(self.axis, x.rank())?;
        fits(scale, x, "scale")?;
        Ok(vec![Fact::new(scale.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let axes = trailing(self.axis, x.rank())?;
        let inverse = x.mul(&x).mean(&axes).add_scalar(self.epsilon).sqrt().recip();
        one(x.mul(&inverse).mul(&inputs.real(1, cx)?))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        let first = axis(self.axis, call.output.rank()).ok()?;
        call.only(0).filter(|&rows| rows < first)
    }
}

// Local response, mean-variance and norm.

/// y = x / (bias + α / size · sum of x² over neighbouring channels)^β (Krizhevsky et al., 2012, section 3.3).
struct Lrn {
    alpha: f32,
    beta: f32,
    bias: f32,
    size: usize,
}

impl Lrn {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        let (alpha, beta, bias) = (a.float("alpha", 1e-4)?, a.float("beta", 0.75)?, a.float("bias", 1.0)?);
        let Some(size) = a.optional_int("size")? else { invalid!("attribute `size` is missing") };
        let Some(size) = usize::try_from(size).ok().filter(|&s| s > 0) else {
            invalid!("attribute `size` must be at least 1, got {size}");
        };
        Ok(Box::new(Self { alpha, beta, bias, size }))
    }
}

impl Operator for Lrn {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = only_float(inputs)?;
        if x.rank() < 2 {
            invalid!("input 0 must have a channel axis, got shape {:?}", x.shape);
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let channels = x.shape()[1];
        // An even window reaches further up than down. Beyond the first and last channel nothing is added.
        let (down, up) = ((self.size - 1) / 2, self.size / 2);
        let (down, up) = (down.min(channels - 1), up.min(channels - 1));
        let edge = |n: usize| {
            let mut shape = x.shape().to_vec();
            shape[1] = n;
            Real::full(&shape, 0.0, &cx.device)
        };
        let squares = x.mul(&x);
        let parts: Vec<Real> =
            [(down > 0).then(|| edge(down)), Some(squares), (up > 0).then(|| edge(up))].into_iter().flatten().collect();
        let padded = if parts.len() == 1 { parts[0].clone() } else { Real::concat(&parts, 1) };
        let mut sum = padded.narrow(1, 0, channels);
        for shift in 1..=down + up {
            sum = sum.add(&padded.narrow(1, shift, shift + channels));
        }
        let base = sum.mul_scalar(self.alpha / self.size as f32).add_scalar(self.bias);
        one(x.mul(&base.powf_scalar(-self.beta)))
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        call.only(0).filter(|&axis| axis == 0)
    }
}

fn only_float<'a>(inputs: Args<'a, Fact>) -> OpResult<&'a Fact> {
    if inputs.len() != 1 {
        invalid!("has {} inputs, needs 1", inputs.len());
    }
    inputs.float(0)
}

/// y = (x - mean) / (√variance + 1e-9) over the given axes.
struct MeanVarianceNormalization {
    axes: Vec<i64>,
}

impl MeanVarianceNormalization {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self { axes: a.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]) }))
    }
}

impl Operator for MeanVarianceNormalization {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = only_float(inputs)?;
        axes(&self.axes, x.rank())?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        /// Keeps a constant channel from a division by zero; the operator's definition fixes it.
        const FLOOR: f32 = 1e-9;
        let x = inputs.real(0, cx)?;
        let axes = axes(&self.axes, x.rank())?;
        let centred = x.sub(&x.mean(&axes));
        let deviation = centred.mul(&centred).mean(&axes).sqrt();
        one(centred.div(&deviation.add_scalar(FLOOR)))
    }
}

/// Divides by the 1-norm or the 2-norm along an axis; a zero vector stays zero.
struct LpNormalization {
    axis: i64,
    p: i64,
}

impl LpNormalization {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        let p = a.int("p", 2)?;
        if !(1..=2).contains(&p) {
            invalid!("attribute `p` must be 1 or 2, got {p}");
        }
        Ok(Box::new(Self { axis: a.int("axis", -1)?, p }))
    }
}

impl Operator for LpNormalization {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        let x = only_float(inputs)?;
        axis(self.axis, x.rank())?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let axes = [axis(self.axis, x.rank())?];
        let sum = if self.p == 1 { x.abs() } else { x.mul(&x) }.sum(&axes);
        // 1 where the sum is 0, so that a zero vector gives 0 and not 0 / 0.
        let safe = sum.add(&sum.sign().neg().add_scalar(1.0));
        one(x.div(&if self.p == 1 { safe } else { safe.sqrt() }))
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use crate::ops::test_support::{Attr, run, run_outputs};

    fn floats(shape: &[usize], values: &[f32]) -> Option<Tensor> {
        Some(Tensor::f32(shape.to_vec(), values.to_vec()).unwrap())
    }

    #[test]
    fn an_even_window_of_channels_reaches_further_up() {
        let attributes = [
            ("size", Attr::Int(2)),
            ("alpha", Attr::Float(2.0)),
            ("beta", Attr::Float(1.0)),
            ("bias", Attr::Float(0.0)),
        ];
        let y = run("LRN", 13, &attributes, &[floats(&[1, 3], &[1.0, 2.0, 4.0])]).unwrap();
        for (got, want) in y[0].as_f32().unwrap().iter().zip([1.0 / 5.0, 2.0 / 20.0, 4.0 / 16.0]) {
            assert!((got - want).abs() < 1e-6, "{got}, must be {want}");
        }
    }

    #[test]
    fn the_norm_of_a_zero_vector_divides_nothing() {
        for (p, want) in [(1, [0.0, 0.0, 3.0 / 7.0, -4.0 / 7.0]), (2, [0.0, 0.0, 0.6, -0.8])] {
            let x = floats(&[2, 2], &[0.0, 0.0, 3.0, -4.0]);
            let y = run("LpNormalization", 1, &[("p", Attr::Int(p))], &[x]).unwrap();
            for (got, want) in y[0].as_f32().unwrap().iter().zip(want) {
                assert!((got - want).abs() < 1e-6, "{got}, must be {want}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let t = |shape: &[usize]| Some(Tensor::zeros(shape.to_vec()).unwrap());
        let refused = |operator: &str, opset: i64, attributes: &[(&str, Attr)], inputs: &[Option<Tensor>]| {
            run_outputs(operator, opset, 1, attributes, inputs).expect_err(operator);
        };
        let c = |n: usize| t(&[n]);
        refused("BatchNormalization", 15, &[], &[t(&[2, 3, 4]), c(3), c(3), c(3), c(4)]);
        refused("BatchNormalization", 15, &[], &[t(&[]), c(1), c(1), c(1), c(1)]);
        refused("BatchNormalization", 15, &[("epsilon", Attr::Float(-1.0))], &[t(&[2, 3]), c(3), c(3), c(3), c(3)]);
        refused("LayerNormalization", 17, &[("axis", Attr::Int(2))], &[t(&[2, 3]), c(3)]);
        refused("LayerNormalization", 17, &[], &[t(&[2, 3]), t(&[2, 2, 3])]);
        refused("LayerNormalization", 17, &[("stash_type", Attr::Int(7))], &[t(&[2, 3]), c(3)]);
        refused("InstanceNormalization", 6, &[], &[t(&[2, 3]), c(3), c(3)]);
        let groups = |n: i64| [("num_groups", Attr::Int(n))];
        refused("GroupNormalization", 21, &groups(2), &[t(&[2, 3, 4]), c(3), c(3)]);
        refused("GroupNormalization", 21, &groups(0), &[t(&[2, 3, 4]), c(3), c(3)]);
        refused("GroupNormalization", 18, &groups(3), &[t(&[2, 6, 4]), c(6), c(6)]);
        refused("LRN", 13, &[("size", Attr::Int(0))], &[t(&[2, 3, 4])]);
        refused("LpNormalization", 1, &[("p", Attr::Int(3))], &[t(&[2, 3])]);
        refused("MeanVarianceNormalization", 13, &[], &[t(&[2, 3])]);
    }
}
