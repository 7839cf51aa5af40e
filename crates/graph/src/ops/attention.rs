//! Attention and rotary position embedding.

use netproof_tensor::{DType, Elements};

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Context, Entry, Fact, Operator, Value, checked_shape, one};
use crate::real::Real;

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "Attention", build: Attention::build },
    Entry { name: "RotaryEmbedding", build: RotaryEmbedding::build },
];

fn count(a: &Attributes<'_>, name: &str) -> OpResult<Option<usize>> {
    match a.optional_int(name)? {
        None | Some(0) => Ok(None),
        Some(n) => match usize::try_from(n) {
            Ok(n) => Ok(Some(n)),
            Err(_) => invalid!("attribute `{name}` must be at least 0, got {n}"),
        },
    }
}

// Inputs by number.
const Q: usize = 0;
const K: usize = 1;
const V: usize = 2;
const MASK: usize = 3;
const PAST_KEY: usize = 4;
const PAST_VALUE: usize = 5;
const KEY_LENGTHS: usize = 6;

/// What the fourth output shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Products,
    Capped,
    Masked,
    Probabilities,
}

/// softmax(cap(q · kᵀ · scale) + mask) · v for each head (Vaswani et al., 2017), with fewer key than query heads where
/// asked for (Ainslie et al., 2023).
struct Attention {
    causal: bool,
    q_heads: Option<usize>,
    kv_heads: Option<usize>,
    scale: Option<f32>,
    softcap: f32,
    shown: Shown,
    /// How many keys before and after a query's own position it sees.
    window: [Option<usize>; 2],
    opset: i64,
    outputs: usize,
}

/// Sizes of one call.
struct Sizes {
    /// Heads are side by side in the last axis.
    flat: bool,
    batch: usize,
    q_heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    past: usize,
    size: usize,
    value_size: usize,
}

impl Sizes {
    fn total(&self) -> usize {
        self.past + self.keys
    }
}

impl Attention {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        let scale = a.optional_float("scale")?;
        if scale.is_some_and(|s| !(s.is_finite() && s >= 0.0)) {
            invalid!("attribute `scale` must be finite and at least 0, got {scale:?}");
        }
        let softcap = a.float("softcap", 0.0)?;
        if !(softcap.is_finite() && softcap >= 0.0) {
            invalid!("attribute `softcap` must be finite and at least 0, got {softcap}");
        }
        let shown = match a.int("qk_matmul_output_mode", 0)? {
            0 => Shown::Products,
            1 => Shown::Capped,
            2 => Shown::Masked,
            3 => Shown::Probabilities,
            other => invalid!("attribute `qk_matmul_output_mode` must be 0 to 3, got {other}"),
        };
        // The softmax is computed in float32 whatever narrower or wider type is named.
        if let Some(p) = a.optional_int("softmax_precision")?
            && !matches!(p, 1 | 10 | 11 | 16)
        {
            unsupported!("attribute `softmax_precision` = {p}; float types 1, 10, 11 and 16 are known");
        }
        let side = |name: &str| -> OpResult<Option<usize>> {
            match a.int(name, -1)? {
                -1 => Ok(None),
                n => match usize::try_from(n) {
                    Ok(n) => Ok(Some(n)),
                    Err(_) => invalid!("attribute `{name}` must be at least -1, got {n}"),
                },
            }
        };
        let window = [side("left_window_size")?, side("right_window_size")?];
        if a.outputs() > 4 {
            invalid!("has {} outputs, at most 4 exist", a.outputs());
        }
        Ok(Box::new(Self {
            causal: a.flag("is_causal", false)?,
            q_heads: count(a, "q_num_heads")?,
            kv_heads: count(a, "kv_num_heads")?,
            scale,
            softcap,
            shown,
            window,
            opset: a.opset,
            outputs: a.outputs(),
        }))
    }

    fn sizes(&self, q: &[usize], k: &[usize], v: &[usize], past: Option<&[usize]>) -> OpResult<Sizes> {
        let misfit = || invalid!("q, k and v of shapes {q:?}, {k:?} and {v:?} do not fit each other");
        let past = past.map_or(0, |p| p.get(2).copied().unwrap_or(0));
        let s = match (q, k, v) {
            (&[batch, queries, a], &[b, keys, c], &[d, more_keys, e]) => {
                let (Some(q_heads), Some(kv_heads)) = (self.q_heads, self.kv_heads) else {
                    invalid!("inputs with 3 axes need the attributes `q_num_heads` and `kv_num_heads`");
                };
                let divides = a.is_multiple_of(q_heads) && c.is_multiple_of(kv_heads) && e.is_multiple_of(kv_heads);
                if !divides || batch != b || b != d || keys != more_keys || a / q_heads != c / kv_heads {
                    return misfit();
                }
                let (size, value_size) = (a / q_heads, e / kv_heads);
                Sizes { flat: true, batch, q_heads, kv_heads, queries, keys, past, size, value_size }
            }
            (&[batch, q_heads, queries, size], &[b, kv_heads, keys, c], &[d, more_heads, more_keys, value_size]) => {
                if batch != b || b != d || kv_heads != more_heads || keys != more_keys || size != c {
                    return misfit();
                }
                let other = |given: Option<usize>, heads: usize| given.is_some_and(|n| n != heads);
                if other(self.q_heads, q_heads) || other(self.kv_heads, kv_heads) {
                    invalid!("the attributes `q_num_heads` and `kv_num_heads` contradict shapes {q:?} and {k:?}");
                }
                Sizes { flat: false, batch, q_heads, kv_heads, queries, keys, past, size, value_size }
            }
            _ => return misfit(),
        };
        if s.kv_heads == 0 || !s.q_heads.is_multiple_of(s.kv_heads) {
            invalid!("{} query heads do not divide among {} key heads", s.q_heads, s.kv_heads);
        }
        Ok(s)
    }

    fn sizes_of(&self, inputs: Args<'_, Value>) -> OpResult<Sizes> {
        let shape = |i: usize| inputs.need(i).map(Value::shape);
        self.sizes(shape(Q)?, shape(K)?, shape(V)?, inputs.get(PAST_KEY).map(Value::shape))
    }

    /// The mask's shape with 4 axes. A last axis that is too short leaves the keys beyond it unseen.
    fn mask_shape(&self, mask: &[usize], s: &Sizes) -> OpResult<[usize; 4]> {
        let full = [s.batch, s.q_heads, s.queries, s.total()];
        if mask.is_empty() || mask.len() > 4 {
            invalid!("the mask has shape {mask:?}, must have 1 to 4 axes");
        }
        let mut shape = [1; 4];
        shape[4 - mask.len()..].copy_from_slice(mask);
        let fits = shape[..3].iter().zip(&full).all(|(&m, &f)| m == 1 || m == f) && shape[3] <= full[3];
        if !fits || shape[3] == 0 {
            invalid!("the mask has shape {mask:?}, which does not broadcast to {full:?}");
        }
        Ok(shape)
    }

    /// `[batch, length, heads · size]` as `[batch, heads, length, size]`.
    fn split(r: &Real, heads: usize, flat: bool) -> Real {
        if !flat {
            return r.clone();
        }
        let [batch, length, width] = [r.shape()[0], r.shape()[1], r.shape()[2]];
        r.reshape(&[batch, length, heads, width / heads]).permute(&[0, 2, 1, 3])
    }

    fn joined(past: Option<Real>, new: Real) -> Real {
        match past {
            Some(past) if past.shape()[2] > 0 => Real::concat(&[past, new], 2),
            _ => new,
        }
    }
}

/// The mask's numbers, and which pairs of query and key may meet.
struct Mask {
    /// Added to the products; finite.
    bias: Option<Real>,
    live: Option<Live>,
}

struct Live {
    shape: [usize; 4],
    pairs: Vec<bool>,
}

impl Live {
    fn pairs(&self, cx: &Context, dead: f32, live: f32) -> Real {
        Real::new(&self.shape, self.pairs.iter().map(|&l| if l { live } else { dead }).collect(), &cx.device)
    }

    /// 1 for queries that see a key, or `None` where all do.
    fn rows(&self, cx: &Context) -> Option<Real> {
        let [a, b, c, keys] = self.shape;
        let rows: Vec<f32> =
            self.pairs.chunks(keys.max(1)).map(|row| f32::from(u8::from(row.contains(&true)))).collect();
        (rows.contains(&0.0)).then(|| Real::new(&[a, b, c, 1], rows, &cx.device))
    }
}

impl Attention {
    fn mask(&self, inputs: Args<'_, Value>, s: &Sizes, cx: &Context) -> OpResult<Mask> {
        let total = s.total();
        let lengths = match inputs.get(KEY_LENGTHS) {
            None => None,
            Some(_) => {
                let lengths = inputs.ints(KEY_LENGTHS)?;
                if let Some(n) = lengths.iter().find(|n| !(0..=total as i64).contains(n)) {
                    invalid!("key length {n} is outside 0..={total}");
                }
                Some(lengths)
            }
        };
        let given = match inputs.get(MASK) {
            None => None,
            Some(value) => Some((value, self.mask_shape(value.shape(), s)?)),
        };
        // What the mask itself lets through, with its own shape.
        let mut open: Option<Vec<bool>> = None;
        let mut bias = None;
        if let Some((value, shape)) = given {
            let host = value.to_host();
            match host.elements() {
                Elements::Bool(v) => open = Some(v.clone()),
                Elements::Float(v) => {
                    if v.contains(&f32::NEG_INFINITY) {
                        open = Some(v.iter().map(|&x| x != f32::NEG_INFINITY).collect());
                    }
                    bias = Some(value.real(cx)?.clamp(Some(f32::MIN), None));
                }
                Elements::Int(v) => {
                    bias = Some(Real::new(host.shape(), v.iter().map(|&i| i as f32).collect(), &cx.device));
                }
                Elements::Text(_) => invalid!("the mask must be bool or numbers, got {}", host.dtype()),
            }
            if let Some(b) = bias.take() {
                let b = b.reshape(&shape);
                bias = Some(if self.short(shape[3], total) {
                    let gap = Real::full(&[shape[0], shape[1], shape[2], total - shape[3]], 0.0, &cx.device);
                    Real::concat(&[b, gap], 3)
                } else {
                    b
                });
            }
        }
        let short = given.is_some_and(|(_, shape)| self.short(shape[3], total));
        let limited = self.causal || self.window.iter().any(Option::is_some) || lengths.is_some();
        if open.is_none() && !short && !limited {
            return Ok(Mask { bias, live: None });
        }
        let mask = given.map(|(_, shape)| shape);
        let lead = mask.unwrap_or([1; 4]);
        let shape = [if lengths.is_some() { s.batch } else { lead[0] }, lead[1], s.queries, total];
        checked_shape(&shape.map(|d| d as i64))?;
        let mut pairs = Vec::with_capacity(shape.iter().product());
        for b in 0..shape[0] {
            // Position of the first query among the keys.
            let offset = match &lengths {
                Some(l) => l[b] - s.queries as i64,
                None => s.past as i64,
            };
            for h in 0..shape[1] {
                for q in 0..s.queries {
                    for k in 0..total {
                        let behind = q as i64 + offset - k as i64;
                        let seen = (!self.causal || behind >= 0)
                            && self.window[0].is_none_or(|left| behind <= left as i64)
                            && self.window[1].is_none_or(|right| -behind <= right as i64)
                            && lengths.as_ref().is_none_or(|l| (k as i64) < l[b])
                            && mask.is_none_or(|m| (k < m[3] || !short) && open_at(open.as_deref(), m, [b, h, q, k]));
                        pairs.push(seen);
                    }
                }
            }
        }
        Ok(Mask { bias, live: Some(Live { shape, pairs }) })
    }

    /// Whether keys beyond the mask's last axis are unseen; in opset 23 a last axis of 1 stands for all keys.
    fn short(&self, last: usize, total: usize) -> bool {
        last < total && (last > 1 || self.opset > 23)
    }
}

fn open_at(open: Option<&[bool]>, shape: [usize; 4], index: [usize; 4]) -> bool {
    let Some(open) = open else { return true };
    let at = shape.iter().zip(index).fold(0, |n, (&d, i)| n * d + if d == 1 { 0 } else { i });
    open[at]
}

impl Operator for Attention {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if !(3..=7).contains(&inputs.len()) {
            invalid!("has {} inputs, needs q, k, v and at most 4 more", inputs.len());
        }
        let (q, k, v) = (inputs.float(Q)?, inputs.float(K)?, inputs.float(V)?);
        let past = inputs.get(PAST_KEY).map(|f| f.shape.as_slice());
        let s = self.sizes(&q.shape, &k.shape, &v.shape, past)?;
        if s.queries == 0 || s.total() == 0 || s.size == 0 || s.value_size == 0 {
            invalid!("needs at least one query, key and feature, got {:?}, {:?} and {:?}", q.shape, k.shape, v.shape);
        }
        if inputs.get(PAST_KEY).is_some() != inputs.get(PAST_VALUE).is_some() {
            invalid!("past keys and past values must be given together");
        }
        for (i, size) in [(PAST_KEY, s.size), (PAST_VALUE, s.value_size)] {
            let want = [s.batch, s.kv_heads, s.past, size];
            if inputs.get(i).is_some() && inputs.float(i)?.shape != want {
                invalid!("input {i} has shape {:?}, must be {want:?}", inputs.float(i)?.shape);
            }
        }
        if let Some(mask) = inputs.get(MASK) {
            self.mask_shape(&mask.shape, &s)?;
            if mask.dtype == DType::Text {
                invalid!("the mask must be bool or numbers, got {}", mask.dtype);
            }
        }
        if let Some(lengths) = inputs.get(KEY_LENGTHS) {
            if inputs.get(PAST_KEY).is_some() {
                invalid!("key lengths (input {KEY_LENGTHS}) and past keys exclude each other");
            }
            if !lengths.dtype.is_int() || lengths.shape != [s.batch] {
                invalid!(
                    "key lengths are {} of shape {:?}, must be int64 of shape [{}]",
                    lengths.dtype,
                    lengths.shape,
                    s.batch
                );
            }
        }
        let shape = |dims: &[usize]| checked_shape(&dims.iter().map(|&d| d as i64).collect::<Vec<_>>());
        let scores = shape(&[s.batch, s.q_heads, s.queries, s.total()])?;
        let y = if s.flat {
            shape(&[s.batch, s.queries, s.q_heads * s.value_size])?
        } else {
            shape(&[s.batch, s.q_heads, s.queries, s.value_size])?
        };
        let all = [
            Fact::new(q.dtype, y),
            Fact::new(k.dtype, shape(&[s.batch, s.kv_heads, s.total(), s.size])?),
            Fact::new(v.dtype, shape(&[s.batch, s.kv_heads, s.total(), s.value_size])?),
            Fact::new(q.dtype, scores),
        ];
        Ok(all.into_iter().take(self.outputs).collect())
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let s = self.sizes_of(inputs)?;
        let q = Self::split(&inputs.real(Q, cx)?, s.q_heads, s.flat);
        let new_keys = Self::split(&inputs.real(K, cx)?, s.kv_heads, s.flat);
        let new_values = Self::split(&inputs.real(V, cx)?, s.kv_heads, s.flat);
        let keys = Self::joined(inputs.optional_real(PAST_KEY, cx)?, new_keys);
        let values = Self::joined(inputs.optional_real(PAST_VALUE, cx)?, new_values);
        // The root on both sides keeps half-precision products in range, and is what the definition asks for.
        let root = self.scale.unwrap_or(1.0 / (s.size as f32).sqrt()).sqrt();
        // Query heads that share a key head are rows of one product.
        let together = s.q_heads / s.kv_heads * s.queries;
        let grouped = q.mul_scalar(root).reshape(&[s.batch, s.kv_heads, together, s.size]);
        let full = [s.batch, s.q_heads, s.queries, s.total()];
        let products = grouped.matmul(&keys.mul_scalar(root).transpose_last()).reshape(&full);
        let capped = if self.softcap > 0.0 {
            products.mul_scalar(1.0 / self.softcap).tanh().mul_scalar(self.softcap)
        } else {
            products.clone()
        };
        let mask = self.mask(inputs, &s, cx)?;
        let biased = match &mask.bias {
            Some(b) => capped.add(b),
            None => capped.clone(),
        };
        // Pairs that may not meet get the lowest finite number: its exponential is 0, and no difference is undefined.
        let scores = match &mask.live {
            Some(live) => biased.mul(&live.pairs(cx, 0.0, 1.0)).add(&live.pairs(cx, f32::MIN, 0.0)),
            None => biased.clone(),
        };
        let mut probabilities = scores.softmax(3);
        // A query that sees no key gets 0.
        if let Some(rows) = mask.live.as_ref().and_then(|l| l.rows(cx)) {
            probabilities = probabilities.mul(&rows);
        }
        let y = probabilities.reshape(&[s.batch, s.kv_heads, together, s.total()]).matmul(&values).reshape(&[
            s.batch,
            s.q_heads,
            s.queries,
            s.value_size,
        ]);
        let y =
            if s.flat { y.permute(&[0, 2, 1, 3]).reshape(&[s.batch, s.queries, s.q_heads * s.value_size]) } else { y };
        let mut all = vec![y, keys, values];
        if outputs.len() > 3 {
            all.push(match self.shown {
                Shown::Products => products,
                Shown::Capped => capped,
                Shown::Probabilities => probabilities,
                Shown::Masked => match &mask.live {
                    Some(live) => biased.add(&live.pairs(cx, f32::NEG_INFINITY, 0.0)),
                    None => biased,
                },
            });
        }
        Ok(all.into_iter().take(outputs.len()).map(Value::Real).collect())
    }

    fn macs(&self, inputs: Args<'_, Fact>, _outputs: &[Fact]) -> u64 {
        let shape = |i: usize| inputs.get(i).map(|f| f.shape.as_slice());
        let (Some(q), Some(k), Some(v)) = (shape(Q), shape(K), shape(V)) else { return 0 };
        let Ok(s) = self.sizes(q, k, v, shape(PAST_KEY)) else { return 0 };
        [s.q_heads, s.queries, s.total(), s.size + s.value_size]
            .iter()
            .fold(s.batch as u64, |t, &n| t.saturating_mul(n as u64))
    }
}

/// Turns pairs of features by an angle that grows with the position (Su et al., 2021).
struct RotaryEmbedding {
    interleaved: bool,
    /// How many features turn; all where absent.
    turned: Option<usize>,
    heads: Option<usize>,
}

/// How a rotary embedding sees its input: with four axes, heads before or after positions.
struct Turn {
    view: [usize; 4],
    /// The cosines with four axes.
    cache: [usize; 4],
    half: usize,
}

impl RotaryEmbedding {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self {
            interleaved: a.flag("interleaved", false)?,
            turned: count(a, "rotary_embedding_dim")?,
            heads: count(a, "num_heads")?,
        }))
    }

    fn turn(&self, x: &[usize]) -> OpResult<Turn> {
        let (view, batch, length, before) = match *x {
            [b, h, s, d] => ([b, h, s, d], b, s, false),
            [b, s, width] => {
                let Some(h) = self.heads else { invalid!("an input with 3 axes needs the attribute `num_heads`") };
                if !width.is_multiple_of(h) {
                    invalid!("{width} features do not divide into {h} heads");
                }
                ([b, s, h, width / h], b, s, true)
            }
            _ => invalid!("input 0 must have 3 or 4 axes, got shape {x:?}"),
        };
        if self.heads.is_some_and(|h| !before && h != view[1]) {
            invalid!("attribute `num_heads` is {:?}, the input has shape {x:?}", self.heads);
        }
        let turned = self.turned.unwrap_or(view[3]);
        if turned > view[3] || !turned.is_multiple_of(2) {
            invalid!("{turned} of {} features cannot turn in pairs", view[3]);
        }
        let half = turned / 2;
        let cache = if before { [batch, length, 1, half] } else { [batch, 1, length, half] };
        Ok(Turn { view, cache, half })
    }
}

impl Operator for RotaryEmbedding {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if !(3..=4).contains(&inputs.len()) {
            invalid!("has {} inputs, needs x, cosines, sines and optionally positions", inputs.len());
        }
        let (x, cos, sin) = (inputs.float(0)?, inputs.float(1)?, inputs.float(2)?);
        let t = self.turn(&x.shape)?;
        let (batch, length) = (t.cache[0], t.cache[1] * t.cache[2]);
        if cos.shape != sin.shape {
            invalid!("cosines and sines have shapes {:?} and {:?}, must be equal", cos.shape, sin.shape);
        }
        match inputs.get(3) {
            Some(p) => {
                if !p.dtype.is_int() || p.shape != [batch, length] {
                    invalid!(
                        "positions are {} of shape {:?}, must be int64 of shape [{batch}, {length}]",
                        p.dtype,
                        p.shape
                    );
                }
                if cos.rank() != 2 || cos.shape[1] != t.half {
                    invalid!("cosines have shape {:?}, must be [positions, {}]", cos.shape, t.half);
                }
            }
            None => {
                if cos.shape != [batch, length, t.half] {
                    invalid!("cosines have shape {:?}, must be [{batch}, {length}, {}]", cos.shape, t.half);
                }
            }
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let x = inputs.real(0, cx)?;
        let t = self.turn(x.shape())?;
        if t.half == 0 {
            return one(x);
        }
        let (mut cos, mut sin) = (inputs.real(1, cx)?, inputs.real(2, cx)?);
        if inputs.get(3).is_some() {
            let most = cos.shape()[0];
            let rows = inputs
                .ints(3)?
                .into_iter()
                .map(|p| match usize::try_from(p) {
                    Ok(p) if p < most => Ok(p),
                    _ => invalid!("position {p} is outside 0..{most}"),
                })
                .collect::<OpResult<Vec<usize>>>()?;
            (cos, sin) = (cos.select(0, &rows), sin.select(0, &rows));
        }
        let (cos, sin) = (cos.reshape(&t.cache), sin.reshape(&t.cache));
        let view = x.reshape(&t.view);
        let (size, turned) = (t.view[3], 2 * t.half);
        let moving = view.narrow(3, 0, turned);
        let [a, b, c, _] = t.view;
        // The two features of a pair are neighbours, or half the width apart.
        let pairs = if self.interleaved { [a, b, c, t.half, 2] } else { [a, b, c, 2, t.half] };
        let axis = if self.interleaved { 4 } else { 3 };
        let split = moving.reshape(&pairs);
        let member = |i: usize| split.narrow(axis, i, i + 1).reshape(&[a, b, c, t.half]);
        let (first, second) = (member(0), member(1));
        let real = cos.mul(&first).sub(&sin.mul(&second));
        let imaginary = sin.mul(&first).add(&cos.mul(&second));
        let mut part = pairs;
        part[axis] = 1;
        let mut y = Real::concat(&[real.reshape(&part), imaginary.reshape(&part)], axis).reshape(&[a, b, c, turned]);
        if turned < size {
            y = Real::concat(&[y, view.narrow(3, turned, size)], 3);
        }
        one(y.reshape(x.shape()))
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::Tensor;

    use crate::ops::test_support::{Attr, run, run_outputs};

    fn floats(shape: &[usize], values: &[f32]) -> Option<Tensor> {
        Some(Tensor::f32(shape.to_vec(), values.to_vec()).unwrap())
    }

    /// Queries of zeros see every key alike, so the output is the mean of the values seen.
    fn mean_of_seen(opset: i64, attributes: &[(&str, Attr)], mask: Option<Tensor>, past: bool) -> Vec<f32> {
        let q = floats(&[1, 1, 2, 1], &[0.0; 2]);
        let old = |v: f32| if past { floats(&[1, 1, 1, 1], &[v]) } else { None };
        let inputs =
            [q, floats(&[1, 1, 2, 1], &[1.0, 2.0]), floats(&[1, 1, 2, 1], &[10.0, 20.0]), mask, old(3.0), old(60.0)];
        let y = run("Attention", opset, attributes, &inputs).unwrap();
        // A third and two thirds do not add up to 1 exactly.
        y[0].as_f32().unwrap().iter().map(|v| (v * 1e3).round() / 1e3).collect()
    }

    #[test]
    fn causal_queries_see_the_past_and_themselves() {
        let causal = [("is_causal", Attr::Int(1))];
        assert_eq!(mean_of_seen(23, &[], None, false), [15.0, 15.0]);
        assert_eq!(mean_of_seen(23, &causal, None, false), [10.0, 15.0]);
        assert_eq!(mean_of_seen(23, &causal, None, true), [35.0, 30.0]);
    }

    #[test]
    fn masks_hide_keys_and_a_query_without_keys_gives_zero() {
        let bools = |shape: &[usize], v: &[bool]| Some(Tensor::bool(shape.to_vec(), v.to_vec()).unwrap());
        let mask = bools(&[2, 2], &[false, true, false, false]);
        assert_eq!(mean_of_seen(23, &[], mask, false), [20.0, 0.0]);
        let mask = floats(&[2, 2], &[f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
        assert_eq!(mean_of_seen(23, &[], mask, false), [20.0, 0.0]);
        // A mask of one key: all keys in opset 23; since opset 24 the others are hidden.
        let narrow = || bools(&[2, 1], &[true, true]);
        assert_eq!(mean_of_seen(23, &[], narrow(), false), [15.0, 15.0]);
        assert_eq!(mean_of_seen(24, &[], narrow(), false), [10.0, 10.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let t = |shape: &[usize]| Some(Tensor::zeros(shape.to_vec()).unwrap());
        let refused = |attributes: &[(&str, Attr)], inputs: &[Option<Tensor>]| {
            run_outputs("Attention", 23, 4, attributes, inputs).unwrap_err();
        };
        refused(&[], &[t(&[1, 2, 4]), t(&[1, 2, 4]), t(&[1, 2, 4])]);
        let heads = [("q_num_heads", Attr::Int(2)), ("kv_num_heads", Attr::Int(3))];
        refused(&heads, &[t(&[1, 2, 4]), t(&[1, 2, 6]), t(&[1, 2, 6])]);
        refused(&[], &[t(&[1, 3, 2, 4]), t(&[1, 2, 2, 4]), t(&[1, 2, 2, 4])]);
        refused(&[], &[t(&[1, 1, 2, 4]), t(&[1, 1, 0, 4]), t(&[1, 1, 0, 4])]);
        let four = || t(&[1, 1, 2, 4]);
        refused(&[], &[four(), four(), four(), t(&[3, 2])]);
        refused(&[], &[four(), four(), four(), None, four()]);
        refused(&[("scale", Attr::Float(f32::NAN))], &[four(), four(), four()]);
    }

    #[test]
    fn a_quarter_turn_swaps_the_members_of_a_pair() {
        let x = || floats(&[1, 1, 1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
        let (cos, sin) = (|| floats(&[1, 1, 2], &[0.0, 0.0]), || floats(&[1, 1, 2], &[1.0, 1.0]));
        for (interleaved, want) in [(0, [-3.0, -4.0, 1.0, 2.0, 5.0]), (1, [-2.0, 1.0, -4.0, 3.0, 5.0])] {
            let attributes = [("interleaved", Attr::Int(interleaved)), ("rotary_embedding_dim", Attr::Int(4))];
            let y = run("RotaryEmbedding", 23, &attributes, &[x(), cos(), sin()]).unwrap();
            assert_eq!(y[0].as_f32().unwrap(), want);
        }
        let positions = Some(Tensor::i64(vec![1, 1], vec![1]).unwrap());
        let attributes = [("rotary_embedding_dim", Attr::Int(4))];
        let one_row = || floats(&[1, 2], &[1.0, 1.0]);
        run("RotaryEmbedding", 23, &attributes, &[x(), one_row(), one_row(), positions]).unwrap_err();
        run("RotaryEmbedding", 23, &[], &[x(), cos(), sin()]).unwrap_err();
    }
}
