//! Quantised networks: integers on the host, with exact sums.
//!
//! `real ≈ (quantised - zero point) · scale` (Jacob et al., 2018). Products are summed in 64 bits, so no input that fits
//! in memory overflows them; operators whose output is int32 wrap as two's complement.

mod convolution;
mod product;

use netproof_tensor::{DType, Elements, Tensor};

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Backward, Context, Entry, Fact, Operator, Value, axis, one};
use crate::real::Real;

use convolution::{ConvInteger, QLinearConv};
use product::{MatMulInteger, QLinearMatMul};

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
        let precision = self.precision.unwrap_or(DType::F32);
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

// What products share.

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

/// What turns a sum of products of codes into a code: `scale a · scale b / scale y`.
struct Requantise {
    a: Vec<f32>,
    b: Vec<f32>,
    y: Vec<f32>,
    zeros: Vec<i64>,
    dtype: DType,
}

impl Requantise {
    fn new(inputs: Args<'_, Value>, [a, b, y, zero]: [usize; 4], dtype: DType) -> OpResult<Self> {
        Ok(Self {
            a: numbers(inputs.need(a)?)?,
            b: numbers(inputs.need(b)?)?,
            y: numbers(inputs.need(y)?)?,
            zeros: inputs.ints(zero)?,
            dtype,
        })
    }

    /// Numbers of row of a, column of b and row of y; each parameter repeats along them.
    fn code(&self, sum: i64, a: usize, b: usize, y: usize) -> i64 {
        let pick = |v: &[f32], i: usize| v[i % v.len()];
        let factor = pick(&self.a, a) * pick(&self.b, b) / pick(&self.y, y);
        saturate(sum as f64 * f64::from(factor), self.zeros[y % self.zeros.len()], self.dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{Attr, run};

    /// A tensor of codes.
    pub(super) fn codes(dtype: DType, shape: &[usize], values: Vec<i64>) -> Tensor {
        Tensor::new(dtype, shape.to_vec(), Elements::Int(values)).unwrap()
    }

    fn floats(shape: &[usize], values: &[f32]) -> Option<Tensor> {
        Some(Tensor::f32(shape.to_vec(), values.to_vec()).unwrap())
    }

    #[test]
    fn ties_go_to_even_and_ends_saturate() {
        let x = floats(&[8], &[0.5, 1.5, 2.5, -0.5, -1.5, 1e30, f32::NEG_INFINITY, f32::NAN]);
        let zero = Some(codes(DType::I8, &[], vec![1]));
        let y = run("QuantizeLinear", 13, &[], &[x, floats(&[], &[1.0]), zero]).unwrap();
        assert_eq!(y[0].dtype(), DType::I8);
        assert_eq!(y[0].as_i64().unwrap(), [1, 3, 3, 1, -1, 127, -128, 1]);
    }

    #[test]
    fn blocks_have_scales_of_their_own_and_the_last_may_be_short() {
        let attributes = [("axis", Attr::Int(0)), ("block_size", Attr::Int(2))];
        let x = Some(codes(DType::I16, &[3, 2], vec![1, 2, 3, 4, 5, 6]));
        let scale = floats(&[2, 2], &[1.0, 10.0, 100.0, 1000.0]);
        let y = run("DequantizeLinear", 21, &attributes, &[x, scale.clone()]).unwrap();
        assert_eq!(y[0].as_f32().unwrap(), [1.0, 20.0, 3.0, 40.0, 500.0, 6000.0]);
        let back = run("QuantizeLinear", 21, &attributes, &[Some(y[0].clone()), scale]).unwrap();
        assert_eq!(back[0].as_i64().unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn narrow_types_are_refused_by_name() {
        let x = || [floats(&[1], &[1.0]), floats(&[], &[1.0])];
        for (code, name) in [(21, "uint4"), (22, "int4"), (17, "float")] {
            let refusal = run("QuantizeLinear", 21, &[("output_dtype", Attr::Int(code))], &x()).unwrap_err();
            assert!(refusal.contains("unsupported") && refusal.contains(name), "{refusal}");
        }
        run("QuantizeLinear", 21, &[("output_dtype", Attr::Int(7))], &x()).unwrap_err();
        run("QuantizeLinear", 21, &[("block_size", Attr::Int(-1))], &x()).unwrap_err();
    }
}
