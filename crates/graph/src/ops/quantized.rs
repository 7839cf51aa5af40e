//! Quantised networks: integers on the host, with exact sums.
//!
//! `real ≈ (quantised - zero point) · scale` (Jacob et al., 2018). Products are summed in 64 bits, so no input that fits
//! in memory overflows them; operators whose output is int32 wrap as two's complement.

use netproof_tensor::{DType, Elements, Tensor};

use crate::attributes::Attributes;
use crate::error::{OpError, OpResult, invalid, unsupported};
use crate::operator::{Args, Backward, Context, Entry, Fact, Operator, Value, axis, checked_shape, one};
use crate::real::{Real, broadcast};

pub(super) const ENTRIES: &[Entry] = &[
    Entry { name: "ConvInteger", build: ConvInteger::build },
    Entry { name: "DequantizeLinear", build: DequantizeLinear::build },
    Entry { name: "DynamicQuantizeLinear", build: DynamicQuantizeLinear::build },
    Entry { name: "MatMulInteger", build: MatMulInteger::build },
    Entry { name: "QLinearConv", build: QLinearConv::build },
    Entry { name: "QLinearMatMul", build: QLinearMatMul::build },
    Entry { name: "QuantizeLinear", build: QuantizeLinear::build },
];

fn integers(dtype: DType, shape: &[usize], values: Vec<i64>) -> OpResult<Value> {
    Ok(Value::host(Tensor::new(dtype, shape.to_vec(), Elements::Int(values))?))
}

/// Numbers of a scale: floats, or integers where the file has them so.
fn numbers(value: &Value) -> OpResult<Vec<f32>> {
    let t = value.to_host();
    match t.elements() {
        Elements::Float(v) => Ok(v.clone()),
        Elements::Int(v) => Ok(v.iter().map(|&i| i as f32).collect()),
        _ => invalid!("a scale must be numbers, got {}", t.dtype()),
    }
}

fn optional_ints(inputs: Args<'_, Value>, i: usize) -> OpResult<Vec<i64>> {
    if inputs.get(i).is_some() { inputs.ints(i) } else { Ok(vec![0]) }
}

/// Rounds half to even and keeps within the range of the type.
fn saturate(value: f64, zero_point: i64, dtype: DType) -> i64 {
    let (low, high) = dtype.int_range().unwrap_or((i64::MIN.into(), i64::MAX.into()));
    let sum = value.round_ties_even() as i128 + i128::from(zero_point);
    sum.clamp(low, high) as i64
}

fn element_type(code: i64, name: &str) -> OpResult<Option<DType>> {
    Ok(Some(match code {
        0 => return Ok(None),
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        10 => DType::F16,
        11 => DType::F64,
        16 => DType::BF16,
        17..=20 | 23 | 24 => unsupported!("attribute `{name}` = {code}, an 8-bit or 4-bit float"),
        21 => unsupported!("attribute `{name}` = {code} (uint4)"),
        22 => unsupported!("attribute `{name}` = {code} (int4)"),
        _ => unsupported!("attribute `{name}` = {code}, not a type of quantised values"),
    }))
}

// Quantising and back.

/// Which scale belongs to which element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grain {
    /// One for all.
    Tensor,
    /// One per entry of an axis.
    Axis { axis: usize, size: usize, inner: usize },
    /// One per run of `block` entries along an axis.
    Block { axis: usize, size: usize, inner: usize, block: usize, blocks: usize },
}

impl Grain {
    fn new(x: &[usize], scale: &Fact, axis_attribute: i64, block: usize) -> OpResult<Self> {
        if scale.count() == 1 && scale.rank() <= 1 {
            return Ok(Self::Tensor);
        }
        let axis = axis(axis_attribute, x.len())?;
        let (size, inner) = (x[axis], x[axis + 1..].iter().product());
        if block == 0 {
            if scale.shape != [size] {
                invalid!("the scale has shape {:?}, must be [] or [{size}] for axis {axis} of {x:?}", scale.shape);
            }
            return Ok(Self::Axis { axis, size, inner });
        }
        let mut want = x.to_vec();
        want[axis] = size.div_ceil(block);
        if scale.shape != want {
            invalid!("the scale has shape {:?}, must be {want:?} for blocks of {block} along axis {axis}", scale.shape);
        }
        Ok(Self::Block { axis, size, inner, block, blocks: want[axis] })
    }

    /// Position of the scale of the element at a flat position.
    fn at(self, i: usize) -> usize {
        match self {
            Self::Tensor => 0,
            Self::Axis { size, inner, .. } => i / inner % size,
            Self::Block { size, inner, block, blocks, .. } => {
                let (outer, along, within) = (i / (size * inner), i / inner % size, i % inner);
                (outer * blocks + along / block) * inner + within
            }
        }
    }

    /// The scales as a tensor that broadcasts against x.
    fn spread(self, scale: &Real, rank: usize) -> Real {
        match self {
            Self::Tensor => scale.reshape(&vec![1; rank]),
            Self::Axis { axis, size, .. } => {
                let mut shape = vec![1; rank];
                shape[axis] = size;
                scale.reshape(&shape)
            }
            Self::Block { axis, size, block, .. } => {
                scale.select(axis, &(0..size).map(|i| i / block).collect::<Vec<_>>())
            }
        }
    }
}

struct Scaling {
    axis: i64,
    block: usize,
    dtype: Option<DType>,
}

impl Scaling {
    fn new(a: &Attributes<'_>) -> OpResult<Self> {
        let axis = a.int("axis", 1)?;
        let block = a.int("block_size", 0)?;
        let Ok(block) = usize::try_from(block) else {
            invalid!("attribute `block_size` must be at least 0, got {block}")
        };
        let dtype = element_type(a.int("output_dtype", 0)?, "output_dtype")?;
        Ok(Self { axis, block, dtype })
    }

    fn grain(&self, inputs: Args<'_, Fact>) -> OpResult<Grain> {
        if !(2..=3).contains(&inputs.len()) {
            invalid!("has {} inputs, needs x, scale and optionally a zero point", inputs.len());
        }
        let (x, scale) = (inputs.need(0)?, inputs.need(1)?);
        if let Some(zero) = inputs.get(2) {
            let single = zero.count() == 1 && scale.count() == 1;
            if zero.shape != scale.shape && !single {
                invalid!("the zero point has shape {:?}, the scale {:?}; they must be equal", zero.shape, scale.shape);
            }
        }
        Grain::new(&x.shape, scale, self.axis, self.block)
    }

    fn grain_of(&self, inputs: Args<'_, Value>) -> OpResult<Grain> {
        let scale = inputs.need(1)?;
        Grain::new(inputs.need(0)?.shape(), &Fact::new(DType::F32, scale.shape().to_vec()), self.axis, self.block)
    }
}

/// y = saturate(round(x / scale) + zero point). Its gradient is zero wherever it exists, and none is passed on.
struct QuantizeLinear {
    scaling: Scaling,
    /// Type of the division, where the file names one.
    precision: Option<DType>,
}

impl QuantizeLinear {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        let scaling = Scaling::new(a)?;
        if scaling.dtype.is_some_and(|d| !is_quantised(d)) {
            invalid!("attribute `output_dtype` must be an integer type of 8 or 16 bits");
        }
        // Only the 8-bit floats, which are refused, can choose not to saturate.
        a.int("saturate", 1)?;
        let precision = element_type(a.int("precision", 0)?, "precision")?;
        if precision.is_some_and(|p| !p.is_float()) {
            invalid!("attribute `precision` must be a float type");
        }
        Ok(Box::new(Self { scaling, precision }))
    }
}

fn is_quantised(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::I8 | DType::U16 | DType::I16)
}

impl Operator for QuantizeLinear {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        self.scaling.grain(inputs)?;
        let (x, scale) = (inputs.need(0)?, inputs.need(1)?);
        if !(x.dtype.is_float() || x.dtype == DType::I32) {
            invalid!("x must be a float tensor or int32, got {}", x.dtype);
        }
        if !(scale.dtype.is_float() || scale.dtype == DType::I32) {
            invalid!("the scale must be a float tensor, got {}", scale.dtype);
        }
        let dtype = match (self.scaling.dtype, inputs.get(2)) {
            (Some(d), Some(zero)) if d != zero.dtype => {
                invalid!("attribute `output_dtype` is {d}, the zero point is {}; they must be equal", zero.dtype)
            }
            (_, Some(zero)) => zero.dtype,
            (d, None) => d.unwrap_or(DType::U8),
        };
        if !is_quantised(dtype) {
            unsupported!("quantised values of type {dtype}; int8, uint8, int16 and uint16 are known");
        }
        Ok(vec![Fact::new(dtype, x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        let Some(out) = outputs.first() else { return Ok(Vec::new()) };
        let grain = self.scaling.grain_of(inputs)?;
        let scale = inputs.need(1)?.to_host();
        let precision = self.precision.unwrap_or(scale.dtype());
        let scales = numbers(inputs.need(1)?)?;
        let zeros = optional_ints(inputs, 2)?;
        let zero = |at: usize| zeros[if zeros.len() == 1 { 0 } else { at }];
        let x = inputs.need(0)?.to_host();
        let put = |i: usize, quotient: f64| {
            let at = grain.at(i);
            saturate(quotient, zero(at), out.dtype)
        };
        let values = match x.elements() {
            Elements::Float(v) => v
                .iter()
                .enumerate()
                .map(|(i, &x)| put(i, f64::from(precision.round(x / scales[grain.at(i)]))))
                .collect(),
            Elements::Int(v) => {
                v.iter().enumerate().map(|(i, &x)| put(i, x as f64 / f64::from(scales[grain.at(i)]))).collect()
            }
            _ => invalid!("x must be a float tensor or int32, got {}", x.dtype()),
        };
        Ok(vec![integers(out.dtype, &out.shape, values)?])
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        Ok(Some(vec![None; call.inputs.len()]))
    }
}

/// y = (x - zero point) · scale. Differentiable with respect to the scale.
struct DequantizeLinear(Scaling);

impl DequantizeLinear {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        let scaling = Scaling::new(a)?;
        if scaling.dtype.is_some_and(|d| !d.is_float()) {
            invalid!("attribute `output_dtype` must be a float type");
        }
        Ok(Box::new(Self(scaling)))
    }
}

impl Operator for DequantizeLinear {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        self.0.grain(inputs)?;
        let (x, scale) = (inputs.need(0)?, inputs.float(1)?);
        if !(is_quantised(x.dtype) || x.dtype == DType::I32) {
            invalid!("x must be int8, uint8, int16, uint16 or int32, got {}", x.dtype);
        }
        if let Some(zero) = inputs.get(2)
            && zero.dtype != x.dtype
        {
            invalid!("the zero point is {}, x is {}; they must be equal", zero.dtype, x.dtype);
        }
        Ok(vec![Fact::new(self.0.dtype.unwrap_or(scale.dtype), x.shape.clone())])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let grain = self.0.grain_of(inputs)?;
        let x = inputs.need(0)?;
        let zeros = optional_ints(inputs, 2)?;
        let centred = inputs
            .ints(0)?
            .iter()
            .enumerate()
            .map(|(i, v)| (v - zeros[if zeros.len() == 1 { 0 } else { grain.at(i) }]) as f32)
            .collect();
        let shape = x.shape();
        let scale = grain.spread(&inputs.real(1, cx)?, shape.len());
        one(Real::new(shape, centred, &cx.device).mul(&scale))
    }
}

/// Quantises to uint8 with the scale and zero point that the values themselves ask for.
struct DynamicQuantizeLinear;

impl DynamicQuantizeLinear {
    fn build(_: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self))
    }
}

impl Operator for DynamicQuantizeLinear {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if inputs.len() != 1 {
            invalid!("has {} inputs, needs 1", inputs.len());
        }
        let x = inputs.float(0)?;
        Ok(vec![
            Fact::new(DType::U8, x.shape.clone()),
            Fact::new(DType::F32, Vec::new()),
            Fact::new(DType::U8, Vec::new()),
        ])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let host = inputs.need(0)?.to_host();
        let Some(x) = host.as_f32() else { invalid!("x must be a float tensor, got {}", host.dtype()) };
        // The range holds 0, so that 0 has an exact code.
        let low = x.iter().fold(0.0f32, |m, &v| m.min(v));
        let high = x.iter().fold(0.0f32, |m, &v| m.max(v));
        let scale = if low == high { 1.0 } else { high - low } / 255.0;
        let zero = saturate(f64::from(-low / scale), 0, DType::U8);
        let y = x.iter().map(|v| saturate(f64::from(v / scale), zero, DType::U8)).collect();
        let all = vec![
            integers(DType::U8, host.shape(), y)?,
            Value::Real(Real::new(&[], vec![scale], &cx.device)),
            integers(DType::U8, &[], vec![zero])?,
        ];
        Ok(all.into_iter().take(outputs.len()).collect())
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        Ok(Some(vec![None; call.inputs.len()]))
    }
}

// Checks that products share.

fn eight_bits<'a>(inputs: Args<'a, Fact>, i: usize) -> OpResult<&'a Fact> {
    let fact = inputs.need(i)?;
    if !matches!(fact.dtype, DType::U8 | DType::I8) {
        invalid!("input {i} must be int8 or uint8, got {}", fact.dtype);
    }
    Ok(fact)
}

/// A scale or zero point: one number, or one of the given shapes.
fn parameter<'a>(inputs: Args<'a, Fact>, i: usize, shapes: &[&[usize]]) -> OpResult<&'a Fact> {
    let p = inputs.need(i)?;
    let single = p.count() == 1 && p.rank() <= 1;
    if !single && !shapes.contains(&p.shape.as_slice()) {
        invalid!("input {i} has shape {:?}, must be one number or have a shape of {shapes:?}", p.shape);
    }
    Ok(p)
}

fn zero_point<'a>(inputs: Args<'a, Fact>, i: usize, dtype: DType, shapes: &[&[usize]]) -> OpResult<&'a Fact> {
    let p = parameter(inputs, i, shapes)?;
    if p.dtype != dtype {
        invalid!("the zero point (input {i}) is {}, must be {dtype}", p.dtype);
    }
    Ok(p)
}

fn scale(inputs: Args<'_, Fact>, i: usize, shapes: &[&[usize]]) -> OpResult<()> {
    parameter(inputs, i, shapes)?;
    inputs.float(i)?;
    Ok(())
}

/// What turns a sum of products of codes into a code: `scale a · scale b / scale y`, in the type of the scales.
struct Requantise {
    a: Vec<f32>,
    b: Vec<f32>,
    y: Vec<f32>,
    precision: DType,
    zeros: Vec<i64>,
    dtype: DType,
}

impl Requantise {
    fn new(inputs: Args<'_, Value>, [a, b, y, zero]: [usize; 4], dtype: DType) -> OpResult<Self> {
        Ok(Self {
            a: numbers(inputs.need(a)?)?,
            b: numbers(inputs.need(b)?)?,
            y: numbers(inputs.need(y)?)?,
            precision: inputs.need(a)?.to_host().dtype(),
            zeros: inputs.ints(zero)?,
            dtype,
        })
    }

    /// Numbers of row of a, column of b and row of y; each parameter repeats along them.
    fn code(&self, sum: i64, a: usize, b: usize, y: usize) -> i64 {
        let pick = |v: &[f32], i: usize| v[i % v.len()];
        let product = self.precision.round(pick(&self.a, a) * pick(&self.b, b));
        let factor = self.precision.round(product / pick(&self.y, y));
        saturate(sum as f64 * f64::from(factor), self.zeros[y % self.zeros.len()], self.dtype)
    }
}

// Matrix products.

/// Shapes of a matrix product with broadcasting, as numpy's `matmul` has it.
struct Product {
    batch: Vec<usize>,
    a_batch: Vec<usize>,
    b_batch: Vec<usize>,
    m: usize,
    k: usize,
    n: usize,
    shape: Vec<usize>,
    /// Shape of one parameter per row of a.
    rows: Vec<usize>,
    /// Shape of one parameter per column of b.
    columns: Vec<usize>,
}

impl Product {
    fn new(a: &[usize], b: &[usize]) -> OpResult<Self> {
        let misfit = || OpError::Invalid(format!("shapes {a:?} and {b:?} do not fit a matrix product"));
        if a.is_empty() || b.is_empty() {
            return Err(misfit());
        }
        let left = if a.len() == 1 { vec![1, a[0]] } else { a.to_vec() };
        let right = if b.len() == 1 { vec![b[0], 1] } else { b.to_vec() };
        let (a_batch, b_batch) = (left[..left.len() - 2].to_vec(), right[..right.len() - 2].to_vec());
        let (m, k) = (left[left.len() - 2], left[left.len() - 1]);
        let n = right[right.len() - 1];
        if right[right.len() - 2] != k {
            return Err(misfit());
        }
        let batch = broadcast(&a_batch, &b_batch).ok_or_else(misfit)?;
        let mut shape = batch.clone();
        if a.len() > 1 {
            shape.push(m);
        }
        if b.len() > 1 {
            shape.push(n);
        }
        checked_shape(&shape.iter().map(|&d| d as i64).collect::<Vec<_>>())?;
        let (mut rows, mut columns) = (a_batch.clone(), b_batch.clone());
        rows.extend([m, 1]);
        columns.extend([1, n]);
        Ok(Self { batch, a_batch, b_batch, m, k, n, shape, rows, columns })
    }

    /// For each matrix of the result, the numbers of the matrices of a and b.
    fn pairs(&self) -> Vec<(usize, usize)> {
        let number = |own: &[usize], index: &[usize]| {
            let lead = index.len() - own.len();
            own.iter().zip(&index[lead..]).fold(0, |n, (&d, &i)| n * d + if d == 1 { 0 } else { i })
        };
        let mut index = vec![0; self.batch.len()];
        (0..self.batch.iter().product())
            .map(|_| {
                let pair = (number(&self.a_batch, &index), number(&self.b_batch, &index));
                for (i, &d) in index.iter_mut().zip(&self.batch).rev() {
                    *i += 1;
                    if *i < d {
                        break;
                    }
                    *i = 0;
                }
                pair
            })
            .collect()
    }

    /// The result, where `take(sum, row of a, column of b, row of y)` gives each element.
    fn run(
        &self,
        (a, a_zero): (&[i64], &[i64]),
        (b, b_zero): (&[i64], &[i64]),
        mut take: impl FnMut(i64, usize, usize, usize) -> i64,
    ) -> Vec<i64> {
        let (m, k, n) = (self.m, self.k, self.n);
        let centred_b: Vec<i64> =
            b.iter().enumerate().map(|(i, v)| v - b_zero[(i / (k * n) * n + i % n) % b_zero.len()]).collect();
        let mut out = Vec::with_capacity(self.shape.iter().product());
        let mut sums = vec![0i64; n];
        for (number, (i, j)) in self.pairs().into_iter().enumerate() {
            let right = &centred_b[j * k * n..(j + 1) * k * n];
            for row in 0..m {
                let a_row = i * m + row;
                let zero = a_zero[a_row % a_zero.len()];
                sums.fill(0);
                for (at, v) in a[a_row * k..(a_row + 1) * k].iter().enumerate() {
                    let v = v - zero;
                    for (s, w) in sums.iter_mut().zip(&right[at * n..(at + 1) * n]) {
                        *s = s.wrapping_add(v * w);
                    }
                }
                out.extend(sums.iter().enumerate().map(|(c, &s)| take(s, a_row, j * n + c, number * m + row)));
            }
        }
        out
    }

    fn macs(&self) -> u64 {
        let n = |v: usize| v as u64;
        self.batch
            .iter()
            .fold(n(self.m), |t, &d| t.saturating_mul(n(d)))
            .saturating_mul(n(self.k))
            .saturating_mul(n(self.n))
    }
}

/// (a - zero point) × (b - zero point) in int32.
struct MatMulInteger;

impl MatMulInteger {
    fn build(_: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self))
    }
}

impl Operator for MatMulInteger {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if !(2..=4).contains(&inputs.len()) {
            invalid!("has {} inputs, needs a, b and optionally their zero points", inputs.len());
        }
        let (a, b) = (eight_bits(inputs, 0)?, eight_bits(inputs, 1)?);
        let p = Product::new(&a.shape, &b.shape)?;
        if inputs.get(2).is_some() {
            zero_point(inputs, 2, a.dtype, &[&[p.m], &p.rows])?;
        }
        if inputs.get(3).is_some() {
            zero_point(inputs, 3, b.dtype, &[&[p.n], &p.columns])?;
        }
        Ok(vec![Fact::new(DType::I32, p.shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        let p = Product::new(inputs.need(0)?.shape(), inputs.need(1)?.shape())?;
        let (a_zero, b_zero) = (optional_ints(inputs, 2)?, optional_ints(inputs, 3)?);
        let out = p.run((&inputs.ints(0)?, &a_zero), (&inputs.ints(1)?, &b_zero), |s, _, _, _| DType::I32.wrap(s));
        Ok(vec![integers(DType::I32, &p.shape, out)?])
    }

    fn macs(&self, inputs: Args<'_, Fact>, _outputs: &[Fact]) -> u64 {
        product_macs(inputs, 0, 1)
    }
}

fn product_macs(inputs: Args<'_, Fact>, a: usize, b: usize) -> u64 {
    match (inputs.get(a), inputs.get(b)) {
        (Some(a), Some(b)) => Product::new(&a.shape, &b.shape).map_or(0, |p| p.macs()),
        _ => 0,
    }
}

/// A matrix product of quantised values, quantised again. Inputs: a, scale, zero point, b, scale, zero point, y's scale
/// and zero point; one number each, or one per row of a, column of b and row of y.
struct QLinearMatMul;

impl QLinearMatMul {
    fn build(_: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self))
    }
}

impl Operator for QLinearMatMul {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if inputs.len() != 8 {
            invalid!("has {} inputs, needs 8", inputs.len());
        }
        let (a, b) = (eight_bits(inputs, 0)?, eight_bits(inputs, 3)?);
        let p = Product::new(&a.shape, &b.shape)?;
        let mut y_rows = p.batch.clone();
        y_rows.extend([p.m, 1]);
        scale(inputs, 1, &[&[p.m], &p.rows])?;
        zero_point(inputs, 2, a.dtype, &[&[p.m], &p.rows])?;
        scale(inputs, 4, &[&[p.n], &p.columns])?;
        zero_point(inputs, 5, b.dtype, &[&[p.n], &p.columns])?;
        scale(inputs, 6, &[&[p.m], &y_rows])?;
        let y = eight_bits(inputs, 7)?;
        zero_point(inputs, 7, y.dtype, &[&[p.m], &y_rows])?;
        Ok(vec![Fact::new(y.dtype, p.shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        let Some(out) = outputs.first() else { return Ok(Vec::new()) };
        let p = Product::new(inputs.need(0)?.shape(), inputs.need(3)?.shape())?;
        let code = Requantise::new(inputs, [1, 4, 6, 7], out.dtype)?;
        let (a_zero, b_zero) = (inputs.ints(2)?, inputs.ints(5)?);
        let values =
            p.run((&inputs.ints(0)?, &a_zero), (&inputs.ints(3)?, &b_zero), |s, a, b, y| code.code(s, a, b, y));
        Ok(vec![integers(out.dtype, &out.shape, values)?])
    }

    fn macs(&self, inputs: Args<'_, Fact>, _outputs: &[Fact]) -> u64 {
        product_macs(inputs, 0, 3)
    }
}

// Convolutions.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pad {
    Given,
    None,
    Upper,
    Lower,
}

/// Attributes of a convolution.
struct Convolution {
    pad: Pad,
    dilations: Option<Vec<i64>>,
    groups: usize,
    kernel: Option<Vec<i64>>,
    pads: Option<Vec<i64>>,
    strides: Option<Vec<i64>>,
}

/// A convolution of known shapes, with three spatial axes; missing ones have size 1.
struct Sizes {
    groups: usize,
    batch: usize,
    channels: usize,
    filters: usize,
    input: [usize; 3],
    kernel: [usize; 3],
    output: [usize; 3],
    stride: [usize; 3],
    dilation: [usize; 3],
    before: [usize; 3],
    shape: Vec<usize>,
}

impl Convolution {
    fn new(a: &Attributes<'_>) -> OpResult<Self> {
        let pad = match a.text("auto_pad", "NOTSET")?.as_str() {
            "NOTSET" | "" => Pad::Given,
            "VALID" => Pad::None,
            "SAME_UPPER" => Pad::Upper,
            "SAME_LOWER" => Pad::Lower,
            other => invalid!("attribute `auto_pad` must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, got {other}"),
        };
        let groups = a.int("group", 1)?;
        let Some(groups) = usize::try_from(groups).ok().filter(|&g| g > 0) else {
            invalid!("attribute `group` must be at least 1, got {groups}");
        };
        Ok(Self {
            pad,
            dilations: a.ints("dilations")?,
            groups,
            kernel: a.ints("kernel_shape")?,
            pads: a.ints("pads")?,
            strides: a.ints("strides")?,
        })
    }

    /// An attribute with one entry per spatial axis.
    fn entries(list: Option<&Vec<i64>>, count: usize, name: &str, default: i64, least: i64) -> OpResult<Vec<i64>> {
        /// Keeps all products of sizes and steps within 64 bits.
        const MOST: i64 = 1 << 31;
        let list = match list {
            Some(list) if !list.is_empty() => list.clone(),
            _ => vec![default; count],
        };
        if list.len() != count || list.iter().any(|v| !(least..MOST).contains(v)) {
            invalid!("attribute `{name}` must be {count} numbers in {least}..{MOST}, got {list:?}");
        }
        Ok(list)
    }

    fn sizes(&self, x: &[usize], w: &[usize]) -> OpResult<Sizes> {
        let rank = x.len();
        if !(3..=5).contains(&rank) {
            unsupported!("a convolution of x with shape {x:?}; 1 to 3 spatial axes are known");
        }
        if w.len() != rank || x[1] != w[1].saturating_mul(self.groups) || !w[0].is_multiple_of(self.groups) {
            invalid!("weights of shape {w:?} in {} groups do not fit x of shape {x:?}", self.groups);
        }
        let spatial = rank - 2;
        let kernel: Vec<i64> = w[2..].iter().map(|&d| d as i64).collect();
        if self.kernel.as_ref().is_some_and(|k| *k != kernel) {
            invalid!("attribute `kernel_shape` is {:?}, the weights have shape {w:?}", self.kernel);
        }
        if kernel.contains(&0) {
            invalid!("the kernel is empty: weights have shape {w:?}");
        }
        let strides = Self::entries(self.strides.as_ref(), spatial, "strides", 1, 1)?;
        let dilations = Self::entries(self.dilations.as_ref(), spatial, "dilations", 1, 1)?;
        let pads = match self.pad {
            Pad::Given => Self::entries(self.pads.as_ref(), 2 * spatial, "pads", 0, 0)?,
            _ => vec![0; 2 * spatial],
        };
        let lead = 3 - spatial;
        let mut s = Sizes {
            groups: self.groups,
            batch: x[0],
            channels: w[1],
            filters: w[0],
            input: [1; 3],
            kernel: [1; 3],
            output: [1; 3],
            stride: [1; 3],
            dilation: [1; 3],
            before: [0; 3],
            shape: Vec::new(),
        };
        let mut shape = vec![x[0] as i64, w[0] as i64];
        for i in 0..spatial {
            let (size, stride) = (x[i + 2] as i64, strides[i]);
            let span = (kernel[i] - 1).saturating_mul(dilations[i]).saturating_add(1);
            let (out, before) = match self.pad {
                Pad::Given | Pad::None => {
                    let free = size + pads[i] + pads[i + spatial] - span;
                    (if free < 0 { 0 } else { free / stride + 1 }, pads[i])
                }
                Pad::Upper | Pad::Lower => {
                    let out = (size + stride - 1) / stride;
                    let total = ((out - 1) * stride).saturating_add(span).saturating_sub(size).max(0);
                    (out, if self.pad == Pad::Upper { total / 2 } else { total - total / 2 })
                }
            };
            if out <= 0 {
                invalid!("the kernel of span {span} is larger than the padded axis {} of x with shape {x:?}", i + 2);
            }
            shape.push(out);
            s.input[lead + i] = x[i + 2];
            s.kernel[lead + i] = w[i + 2];
            s.output[lead + i] = out as usize;
            s.stride[lead + i] = stride as usize;
            s.dilation[lead + i] = dilations[i] as usize;
            s.before[lead + i] = before as usize;
        }
        s.shape = checked_shape(&shape)?;
        Ok(s)
    }
}

impl Sizes {
    /// Output positions whose tap `k` along axis `i` is inside the input.
    fn inside(&self, i: usize, k: usize) -> std::ops::Range<usize> {
        let (offset, before, stride) = (k * self.dilation[i], self.before[i], self.stride[i]);
        let start = before.saturating_sub(offset).div_ceil(stride);
        let end = (self.input[i] + before).saturating_sub(offset).div_ceil(stride);
        start.min(self.output[i])..end.min(self.output[i])
    }

    /// Sums of products for every output; `x` and `w` have their zero points subtracted, so padding counts as 0.
    fn run(&self, x: &[i64], w: &[i64]) -> Vec<i64> {
        let (plane_in, plane_out) = (self.input.iter().product::<usize>(), self.output.iter().product::<usize>());
        let taps: usize = self.kernel.iter().product();
        let per_group = self.filters / self.groups;
        let mut out = vec![0i64; self.batch * self.filters * plane_out];
        let [_, height, width] = self.input;
        let [_, out_height, out_width] = self.output;
        let from = |i: usize, o: usize, k: usize| o * self.stride[i] + k * self.dilation[i] - self.before[i];
        for (number, sums) in out.chunks_exact_mut(plane_out.max(1)).enumerate() {
            let (n, f) = (number / self.filters, number % self.filters);
            for c in 0..self.channels {
                let channel = n * self.channels * self.groups + f / per_group * self.channels + c;
                let image = &x[channel * plane_in..(channel + 1) * plane_in];
                let kernel = &w[(f * self.channels + c) * taps..(f * self.channels + c + 1) * taps];
                for (tap, &weight) in kernel.iter().enumerate().filter(|(_, w)| **w != 0) {
                    let k = [
                        tap / (self.kernel[1] * self.kernel[2]),
                        tap / self.kernel[2] % self.kernel[1],
                        tap % self.kernel[2],
                    ];
                    for d in self.inside(0, k[0]) {
                        for h in self.inside(1, k[1]) {
                            let line = (from(0, d, k[0]) * height + from(1, h, k[1])) * width;
                            let target = (d * out_height + h) * out_width;
                            for o in self.inside(2, k[2]) {
                                let s = &mut sums[target + o];
                                *s = s.wrapping_add(weight * image[line + from(2, o, k[2])]);
                            }
                        }
                    }
                }
            }
        }
        out
    }

    fn macs(&self) -> u64 {
        let taps = self.kernel.iter().fold(self.channels as u64, |t, &k| t.saturating_mul(k as u64));
        self.shape.iter().fold(taps, |t, &d| t.saturating_mul(d as u64))
    }
}

/// Codes with the zero points of the weights subtracted: one number, or one per filter.
fn centred_weights(values: &[i64], zeros: &[i64], filters: usize) -> Vec<i64> {
    let size = (values.len() / filters.max(1)).max(1);
    values.iter().enumerate().map(|(i, v)| v - zeros[i / size % zeros.len()]).collect()
}

fn centred(values: &[i64], zeros: &[i64]) -> Vec<i64> {
    values.iter().map(|v| v - zeros[0]).collect()
}

/// Convolution of integers in int32.
struct ConvInteger(Convolution);

impl ConvInteger {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self(Convolution::new(a)?)))
    }
}

impl Operator for ConvInteger {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if !(2..=4).contains(&inputs.len()) {
            invalid!("has {} inputs, needs x, w and optionally their zero points", inputs.len());
        }
        let (x, w) = (eight_bits(inputs, 0)?, eight_bits(inputs, 1)?);
        let s = self.0.sizes(&x.shape, &w.shape)?;
        if inputs.get(2).is_some() {
            zero_point(inputs, 2, x.dtype, &[])?;
        }
        if inputs.get(3).is_some() {
            zero_point(inputs, 3, w.dtype, &[&[s.filters]])?;
        }
        Ok(vec![Fact::new(DType::I32, s.shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, _outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        let s = self.0.sizes(inputs.need(0)?.shape(), inputs.need(1)?.shape())?;
        let x = centred(&inputs.ints(0)?, &optional_ints(inputs, 2)?);
        let w = centred_weights(&inputs.ints(1)?, &optional_ints(inputs, 3)?, s.filters);
        let out = s.run(&x, &w).into_iter().map(|v| DType::I32.wrap(v)).collect();
        Ok(vec![integers(DType::I32, &s.shape, out)?])
    }

    fn macs(&self, inputs: Args<'_, Fact>, _outputs: &[Fact]) -> u64 {
        convolution_macs(&self.0, inputs, 0, 1)
    }
}

fn convolution_macs(c: &Convolution, inputs: Args<'_, Fact>, x: usize, w: usize) -> u64 {
    match (inputs.get(x), inputs.get(w)) {
        (Some(x), Some(w)) => c.sizes(&x.shape, &w.shape).map_or(0, |s| s.macs()),
        _ => 0,
    }
}

/// A convolution of quantised values, quantised again. Inputs: x, scale, zero point, w, scale, zero point, y's scale and
/// zero point, and an int32 bias whose scale is x's times w's.
struct QLinearConv(Convolution);

impl QLinearConv {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self(Convolution::new(a)?)))
    }
}

impl Operator for QLinearConv {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if !(8..=9).contains(&inputs.len()) {
            invalid!("has {} inputs, needs 8 and optionally a bias", inputs.len());
        }
        let (x, w) = (eight_bits(inputs, 0)?, eight_bits(inputs, 3)?);
        let s = self.0.sizes(&x.shape, &w.shape)?;
        scale(inputs, 1, &[])?;
        zero_point(inputs, 2, x.dtype, &[])?;
        scale(inputs, 4, &[&[s.filters]])?;
        zero_point(inputs, 5, w.dtype, &[&[s.filters]])?;
        scale(inputs, 6, &[])?;
        let y = eight_bits(inputs, 7)?;
        zero_point(inputs, 7, y.dtype, &[])?;
        if let Some(bias) = inputs.get(8)
            && (bias.dtype != DType::I32 || bias.shape != [s.filters])
        {
            invalid!("the bias is {} of shape {:?}, must be int32 of shape [{}]", bias.dtype, bias.shape, s.filters);
        }
        Ok(vec![Fact::new(y.dtype, s.shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], _cx: &Context) -> OpResult<Vec<Value>> {
        let Some(out) = outputs.first() else { return Ok(Vec::new()) };
        let s = self.0.sizes(inputs.need(0)?.shape(), inputs.need(3)?.shape())?;
        let code = Requantise::new(inputs, [1, 4, 6, 7], out.dtype)?;
        let bias = optional_ints(inputs, 8)?;
        let x = centred(&inputs.ints(0)?, &inputs.ints(2)?);
        let w = centred_weights(&inputs.ints(3)?, &inputs.ints(5)?, s.filters);
        let plane: usize = s.output.iter().product();
        let values = s
            .run(&x, &w)
            .into_iter()
            .enumerate()
            .map(|(i, sum)| {
                let filter = i / plane % s.filters;
                code.code(sum.wrapping_add(bias[filter % bias.len()]), 0, filter, 0)
            })
            .collect();
        Ok(vec![integers(out.dtype, &out.shape, values)?])
    }

    fn macs(&self, inputs: Args<'_, Fact>, _outputs: &[Fact]) -> u64 {
        convolution_macs(&self.0, inputs, 0, 3)
    }
}
