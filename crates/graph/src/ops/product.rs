//! Matrix products.

use netproof_tensor::{Elements, Tensor};

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Backward, Context, Entry, Fact, Operator, Value, checked_shape, one};
use crate::real::{Finish, Real, broadcast};
use crate::rows::{Along, RowsOf};

pub(super) const ENTRIES: &[Entry] =
    &[Entry { name: "Gemm", build: Gemm::build }, Entry { name: "MatMul", build: MatMul::build }];

/// Both operands as numbers of one type.
fn numeric<'a>(inputs: Args<'a, Fact>) -> OpResult<(&'a Fact, &'a Fact)> {
    let (a, b) = (inputs.need(0)?, inputs.need(1)?);
    if !(a.dtype.is_float() || a.dtype.is_int()) {
        invalid!("input 0 must be numbers, got {}", a.dtype);
    }
    if a.dtype != b.dtype {
        invalid!("inputs 0 and 1 must have one type, got {} and {}", a.dtype, b.dtype);
    }
    Ok((a, b))
}

fn checked(shape: &[usize]) -> OpResult<Vec<usize>> {
    checked_shape(&shape.iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect::<Vec<_>>())
}

/// `a · b` of row-major `[m, k]` and `[k, n]`, modulo 2^64.
fn int_product(a: &[i64], b: &[i64], [m, k, n]: [usize; 3]) -> Vec<i64> {
    let mut out = vec![0i64; m * n];
    for i in 0..m {
        let row = &mut out[i * n..(i + 1) * n];
        for l in 0..k {
            let x = a[i * k + l];
            for (o, &y) in row.iter_mut().zip(&b[l * n..(l + 1) * n]) {
                *o = o.wrapping_add(x.wrapping_mul(y));
            }
        }
    }
    out
}

fn ints(value: &Value) -> OpResult<Vec<i64>> {
    match value.to_host().as_i64() {
        Some(v) => Ok(v.to_vec()),
        None => invalid!("needs an integer tensor"),
    }
}

/// numpy's `matmul`: batches over leading axes, vectors as rows or columns.
struct MatMul;

/// How two operands multiply: their shapes as batches of matrices, and the shape of the result.
struct Product {
    left: Vec<usize>,
    right: Vec<usize>,
    batch: Vec<usize>,
    output: Vec<usize>,
}

impl Product {
    fn new(a: &[usize], b: &[usize]) -> OpResult<Self> {
        if a.is_empty() || b.is_empty() {
            invalid!("operands must have at least 1 axis, got shapes {a:?} and {b:?}");
        }
        let left = if a.len() == 1 { vec![1, a[0]] } else { a.to_vec() };
        let right = if b.len() == 1 { vec![b[0], 1] } else { b.to_vec() };
        let (p, q) = (left.len(), right.len());
        let inner = (left[p - 1], right[q - 2]);
        let batch = broadcast(&left[..p - 2], &right[..q - 2]).filter(|_| inner.0 == inner.1);
        let Some(batch) = batch else { invalid!("shapes {a:?} and {b:?} do not multiply") };
        let mut output = batch.clone();
        if a.len() > 1 {
            output.push(left[p - 2]);
        }
        if b.len() > 1 {
            output.push(right[q - 1]);
        }
        Ok(Self { left, right, batch, output })
    }

    /// Rows, inner size and columns.
    fn sizes(&self) -> [usize; 3] {
        let (p, q) = (self.left.len(), self.right.len());
        [self.left[p - 2], self.left[p - 1], self.right[q - 1]]
    }

    /// Shape of the result as a batch of matrices.
    fn full(&self) -> Vec<usize> {
        let [m, _, n] = self.sizes();
        [&self.batch[..], &[m, n]].concat()
    }

    fn ints(&self, a: &[i64], b: &[i64]) -> Vec<i64> {
        let [m, k, n] = self.sizes();
        let rank = self.batch.len();
        // Step over an operand's matrices for each batch axis; 0 where it is broadcast.
        let steps = |shape: &[usize]| {
            let lead = &shape[..shape.len() - 2];
            let mut steps = vec![0; rank];
            let mut step = 1;
            for (i, &d) in lead.iter().enumerate().rev() {
                steps[rank - lead.len() + i] = if d == 1 { 0 } else { step };
                step *= d;
            }
            steps
        };
        let (sa, sb) = (steps(&self.left), steps(&self.right));
        let mut out = Vec::with_capacity(self.batch.iter().product::<usize>() * m * n);
        for number in 0..self.batch.iter().product::<usize>() {
            let (mut rest, mut ia, mut ib) = (number, 0, 0);
            for (i, &d) in self.batch.iter().enumerate().rev() {
                ia += rest % d * sa[i];
                ib += rest % d * sb[i];
                rest /= d;
            }
            let (x, y) = (&a[ia * m * k..(ia + 1) * m * k], &b[ib * k * n..(ib + 1) * k * n]);
            out.extend(int_product(x, y, [m, k, n]));
        }
        out
    }
}

impl MatMul {
    fn build(_: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        Ok(Box::new(Self))
    }
}

impl Operator for MatMul {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if inputs.len() != 2 {
            invalid!("has {} inputs, needs 2", inputs.len());
        }
        let (a, b) = numeric(inputs)?;
        let product = Product::new(&a.shape, &b.shape)?;
        Ok(vec![Fact::new(a.dtype, checked(&product.output)?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let (a, b) = (inputs.need(0)?, inputs.need(1)?);
        let product = Product::new(a.shape(), b.shape())?;
        if !outputs[0].dtype.is_float() {
            let dtype = outputs[0].dtype;
            let values = product.ints(&ints(a)?, &ints(b)?).into_iter().map(|v| dtype.wrap(v)).collect();
            return Ok(vec![Value::host(Tensor::new(dtype, product.output, Elements::Int(values))?)]);
        }
        if product.sizes()[1] == 0 {
            return one(Real::full(&product.output, 0.0, &cx.device));
        }
        let (a, b) = (a.real(cx)?.reshape(&product.left), b.real(cx)?.reshape(&product.right));
        one(a.matmul(&b).reshape(&product.output))
    }

    fn eval_finished(
        &self,
        inputs: Args<'_, Value>,
        _output: &Fact,
        finish: Finish<'_>,
        cx: &Context,
    ) -> OpResult<Option<Real>> {
        let (a, b) = (inputs.real(0, cx)?, inputs.real(1, cx)?);
        let product = Product::new(a.shape(), b.shape())?;
        let [_, k, n] = product.sizes();
        if product.right.len() != 2 || a.count() == 0 || b.count() == 0 {
            return Ok(None);
        }
        let rows = a.reshape(&[a.count() / k, k]);
        let y = rows.linear(false, &b.reshape(&[k, n]), false, finish);
        Ok(y.map(|y| y.reshape(&product.output)))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let (a, b) = (call.inputs.real(0, call.cx)?, call.inputs.real(1, call.cx)?);
        let product = Product::new(a.shape(), b.shape())?;
        let [m, k, n] = product.sizes();
        let zeros = |x: &Real| Ok(Real::full(x.shape(), 0.0, &call.cx.device));
        let empty = k == 0 || call.gradient().count() == 0;
        let gradient = call.gradient().reshape(&product.full());
        let left = call.when(0, || {
            if empty {
                return zeros(&a);
            }
            let b = b.reshape(&product.right);
            Ok(gradient.product(false, &b, true).sum_to(&product.left).reshape(a.shape()))
        })?;
        let right = call.when(1, || {
            if empty {
                return zeros(&b);
            }
            let x = a.reshape(&product.left);
            let g = if product.right.len() == 2 {
                // One large product over all rows of all batches, which also sums over the batches.
                let rows = product.batch.iter().product::<usize>() * m;
                x.reshape(&[rows, k]).product(true, &gradient.reshape(&[rows, n]), false)
            } else {
                x.product(true, &gradient, false).sum_to(&product.right)
            };
            Ok(g.reshape(b.shape()))
        })?;
        Ok(Some(vec![left, right]))
    }

    fn macs(&self, inputs: Args<'_, Fact>, outputs: &[Fact]) -> u64 {
        let k = inputs.get(0).and_then(|a| a.shape.last().copied()).unwrap_or(0);
        outputs.first().map_or(0, |o| o.count() as u64).saturating_mul(k as u64)
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        let (a, b, out) = (call.inputs.get(0)?.rank(), call.inputs.get(1)?.rank(), call.output.rank());
        if a < 2 || b < 2 {
            return None;
        }
        // Rows of the left factor meet all of the right one.
        if let Some(axis) = call.only(0).filter(|&axis| axis == a - 2) {
            return Some(axis + out - a);
        }
        // Otherwise rows are numbers of matrices.
        let matrix = |along: &Along, rank: usize| matches!(along, Along::Axis(axis) if axis + 2 >= rank);
        if call.along.iter().zip([a, b]).any(|(along, rank)| matrix(along, rank)) {
            return None;
        }
        call.elementwise()
    }
}

/// y = α · A · B + β · C, where A and B may be transposed and C is broadcast to the product's shape.
struct Gemm {
    alpha: f32,
    beta: f32,
    transposed: [bool; 2],
    needs_c: bool,
}

impl Gemm {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        if a.opset < 7 {
            // Says that C may have fewer rows, columns or axes. That is harmless where it has as many.
            a.flag("broadcast", false)?;
        }
        Ok(Box::new(Self {
            alpha: a.float("alpha", 1.0)?,
            beta: a.float("beta", 1.0)?,
            transposed: [a.flag("transA", false)?, a.flag("transB", false)?],
            needs_c: a.opset < 11,
        }))
    }

    /// Rows, inner size and columns.
    fn sizes(&self, a: &[usize], b: &[usize]) -> OpResult<[usize; 3]> {
        let (&[a0, a1], &[b0, b1]) = (a, b) else {
            invalid!("inputs 0 and 1 must have 2 axes, got shapes {a:?} and {b:?}");
        };
        let (m, k) = if self.transposed[0] { (a1, a0) } else { (a0, a1) };
        let (l, n) = if self.transposed[1] { (b1, b0) } else { (b0, b1) };
        if k != l {
            let [ta, tb] = self.transposed;
            invalid!("shapes {a:?} and {b:?} do not multiply (transA = {}, transB = {})", u8::from(ta), u8::from(tb));
        }
        Ok([m, k, n])
    }

    fn ints(&self, inputs: Args<'_, Value>, fact: &Fact, [m, k, n]: [usize; 3]) -> OpResult<Vec<Value>> {
        let whole = |v: f32, name: &str| {
            if v.fract() != 0.0 || v.abs() > 16_777_216.0 {
                unsupported!("attribute `{name}` = {v} with integer inputs; only whole numbers up to 2^24 are exact");
            }
            Ok(v as i64)
        };
        let (alpha, beta) = (whole(self.alpha, "alpha")?, whole(self.beta, "beta")?);
        let turned = |v: Vec<i64>, rows: usize, columns: usize, turn: bool| -> Vec<i64> {
            if !turn {
                return v;
            }
            (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c))).map(|(r, c)| v[r * columns + c]).collect()
        };
        let a = turned(ints(inputs.need(0)?)?, k, m, self.transposed[0]);
        let b = turned(ints(inputs.need(1)?)?, n, k, self.transposed[1]);
        let mut out = int_product(&a, &b, [m, k, n]);
        for o in &mut out {
            *o = o.wrapping_mul(alpha);
        }
        if let Some(c) = inputs.get(2) {
            let rank = c.shape().len();
            let columns = if rank > 0 { c.shape()[rank - 1] } else { 1 };
            let rows = if rank > 1 { c.shape()[rank - 2] } else { 1 };
            let values = ints(c)?;
            for (i, o) in out.iter_mut().enumerate() {
                let (r, s) = (if rows == 1 { 0 } else { i / n }, if columns == 1 { 0 } else { i % n });
                *o = o.wrapping_add(values[r * columns + s].wrapping_mul(beta));
            }
        }
        let values = out.into_iter().map(|v| fact.dtype.wrap(v)).collect();
        Ok(vec![Value::host(Tensor::new(fact.dtype, vec![m, n], Elements::Int(values))?)])
    }
}

fn scaled(x: Real, factor: f32) -> Real {
    if factor == 1.0 { x } else { x.mul_scalar(factor) }
}

impl Operator for Gemm {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        if !(2..=3).contains(&inputs.len()) {
            invalid!("has {} inputs, needs 2 or 3", inputs.len());
        }
        let (a, b) = numeric(inputs)?;
        let [m, _, n] = self.sizes(&a.shape, &b.shape)?;
        match inputs.get(2) {
            None if self.needs_c => invalid!("input 2 is missing; it may be left out from opset 11 on"),
            None => {}
            Some(c) => {
                if c.dtype != a.dtype {
                    invalid!("input 2 must be {}, got {}", a.dtype, c.dtype);
                }
                if broadcast(&c.shape, &[m, n]).is_none_or(|s| s != [m, n]) {
                    invalid!("input 2 of shape {:?} does not broadcast to [{m}, {n}]", c.shape);
                }
            }
        }
        Ok(vec![Fact::new(a.dtype, checked(&[m, n])?)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let [m, k, n] = self.sizes(inputs.need(0)?.shape(), inputs.need(1)?.shape())?;
        if !outputs[0].dtype.is_float() {
            return self.ints(inputs, &outputs[0], [m, k, n]);
        }
        let (a, b) = (inputs.real(0, cx)?, inputs.real(1, cx)?);
        let c = inputs.optional_real(2, cx)?;
        let [turn_a, turn_b] = self.transposed;
        // The usual case in one pass.
        let lined = c.as_ref().is_none_or(|c| c.count() == n && c.shape().last() == Some(&n));
        if self.alpha == 1.0
            && self.beta == 1.0
            && lined
            && k > 0
            && let Some(y) = a.linear(turn_a, &b, turn_b, Finish { bias: c.as_ref(), ..Finish::default() })
        {
            return one(y);
        }
        let product = if k == 0 {
            Real::full(&[m, n], 0.0, &cx.device)
        } else {
            scaled(a.product(turn_a, &b, turn_b), self.alpha)
        };
        one(match c {
            Some(c) => product.add(&scaled(c, self.beta)),
            None => product,
        })
    }

    fn eval_finished(
        &self,
        inputs: Args<'_, Value>,
        output: &Fact,
        finish: Finish<'_>,
        cx: &Context,
    ) -> OpResult<Option<Real>> {
        let (a, b, c) = (inputs.real(0, cx)?, inputs.real(1, cx)?, inputs.optional_real(2, cx)?);
        let n = output.shape.last();
        let lined = c.as_ref().is_none_or(|c| Some(&c.count()) == n && c.shape().last() == n);
        if self.alpha != 1.0 || self.beta != 1.0 || !lined || a.count() == 0 || finish.bias.is_some() {
            return Ok(None);
        }
        let [turn_a, turn_b] = self.transposed;
        Ok(a.linear(turn_a, &b, turn_b, Finish { bias: c.as_ref(), ..finish }))
    }

    fn backward(&self, call: &Backward<'_>) -> OpResult<Option<Vec<Option<Real>>>> {
        let (a, b) = (call.inputs.real(0, call.cx)?, call.inputs.real(1, call.cx)?);
        let gradient = call.gradient();
        let empty = a.count() == 0 || gradient.count() == 0;
        let zeros = |x: &Real| Ok(Real::full(x.shape(), 0.0, &call.cx.device));
        let [turn_a, turn_b] = self.transposed;
        let left = call.when(0, || {
            if empty {
                return zeros(&a);
            }
            let g = if turn_a { b.product(turn_b, gradient, true) } else { gradient.product(false, &b, !turn_b) };
            Ok(scaled(g, self.alpha))
        })?;
        let right = call.when(1, || {
            if empty {
                return zeros(&b);
            }
            let g = if turn_b { gradient.product(true, &a, turn_a) } else { a.product(!turn_a, gradient, false) };
            Ok(scaled(g, self.alpha))
        })?;
        let mut all = vec![left, right];
        if let Some(c) = call.inputs.get(2) {
            let shape = c.shape();
            all.push(call.when(2, || {
                if gradient.count() == 0 {
                    return Ok(Real::full(shape, 0.0, &call.cx.device));
                }
                Ok(scaled(gradient.sum_to(shape), self.beta))
            })?);
        }
        Ok(Some(all))
    }

    fn macs(&self, inputs: Args<'_, Fact>, outputs: &[Fact]) -> u64 {
        let k = inputs.get(0).and_then(|a| a.shape.get(usize::from(!self.transposed[0])).copied()).unwrap_or(0);
        outputs.first().map_or(0, |o| o.count() as u64).saturating_mul(k as u64)
    }

    fn rows(&self, call: &RowsOf<'_>) -> Option<usize> {
        let shared = call.inputs.get(2).is_none_or(|c| c.rank() < 2 || c.shape[0] == 1);
        call.only(0).filter(|&axis| shared && axis == usize::from(self.transposed[0])).map(|_| 0)
    }
}

#[cfg(test)]
mod tests {
    use netproof_tensor::DType;

    use super::super::test_support::{Attr, run};
    use super::*;

    fn floats(shape: &[usize]) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::f32(shape.to_vec(), (0..n).map(|i| (i * 7 % 11) as f32 - 4.0).collect()).unwrap()
    }

    fn ints_of(t: &Tensor) -> Tensor {
        let values = t.as_f32().unwrap().iter().map(|&v| v as i64).collect();
        Tensor::new(DType::I32, t.shape().to_vec(), Elements::Int(values)).unwrap()
    }

    fn only(out: Result<Vec<Tensor>, String>) -> Tensor {
        out.unwrap().remove(0)
    }

    #[test]
    fn floats_on_the_device_and_integers_on_the_host_agree_over_shapes() {
        for (a, b, shape) in [
            (&[3][..], &[3][..], &[][..]),
            (&[3], &[3, 2], &[2]),
            (&[2, 3], &[3], &[2]),
            (&[4, 2, 3], &[3], &[4, 2]),
            (&[3], &[4, 3, 2], &[4, 2]),
            (&[4, 1, 2, 3], &[5, 3, 2], &[4, 5, 2, 2]),
            (&[2, 3], &[4, 3, 5], &[4, 2, 5]),
            (&[4, 2, 3], &[3, 5], &[4, 2, 5]),
            (&[1, 2, 3], &[6, 3, 1], &[6, 2, 1]),
            (&[2, 0], &[0, 3], &[2, 3]),
        ] {
            let (x, y) = (floats(a), floats(b));
            let real = only(run("MatMul", 13, &[], &[Some(x.clone()), Some(y.clone())]));
            let host = only(run("MatMul", 13, &[], &[Some(ints_of(&x)), Some(ints_of(&y))]));
            assert_eq!(real.shape(), shape, "{a:?} {b:?}");
            let values: Vec<i64> = real.as_f32().unwrap().iter().map(|&v| v as i64).collect();
            assert_eq!(values, host.as_i64().unwrap(), "{a:?} {b:?}");
        }
        for (a, b) in [(&[][..], &[3][..]), (&[2, 3], &[2, 3]), (&[2, 2, 3], &[3, 3, 2])] {
            assert!(run("MatMul", 13, &[], &[Some(floats(a)), Some(floats(b))]).is_err(), "{a:?} {b:?}");
        }
        let bomb = run("MatMul", 13, &[], &[Some(floats(&[65536, 1])), Some(floats(&[1, 65536]))]);
        assert!(bomb.unwrap_err().contains("limit"));
    }

    #[test]
    fn integers_wrap_to_the_declared_width() {
        let byte = |v: Vec<i64>, shape| Some(Tensor::new(DType::I8, shape, Elements::Int(v)).unwrap());
        let y = only(run("MatMul", 13, &[], &[byte(vec![100, 100], vec![1, 2]), byte(vec![1, 1], vec![2, 1])]));
        assert_eq!(y.as_i64().unwrap(), [200 - 256]);
    }

    #[test]
    fn gemm_transposes_scales_and_broadcasts() {
        let plain = floats(&[2, 3]);
        let transposed = |t: &Tensor| {
            let (r, c) = (t.shape()[0], t.shape()[1]);
            let v = t.as_f32().unwrap();
            Tensor::f32(vec![c, r], (0..r * c).map(|i| v[i % r * c + i / r]).collect()).unwrap()
        };
        let (right, column) = (floats(&[3, 4]), floats(&[2, 1]));
        let product = only(run("MatMul", 13, &[], &[Some(plain.clone()), Some(right.clone())]));
        let p = product.as_f32().unwrap();
        let want: Vec<f32> = (0..8).map(|i| 2.0 * p[i] - 3.0 * column.as_f32().unwrap()[i / 4]).collect();
        for (ta, tb) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let a = if ta == 1 { transposed(&plain) } else { plain.clone() };
            let b = if tb == 1 { transposed(&right) } else { right.clone() };
            let attributes = [
                ("alpha", Attr::Float(2.0)),
                ("beta", Attr::Float(-3.0)),
                ("transA", Attr::Int(ta)),
                ("transB", Attr::Int(tb)),
            ];
            let y = only(run("Gemm", 13, &attributes, &[Some(a.clone()), Some(b.clone()), Some(column.clone())]));
            assert_eq!(y.as_f32().unwrap(), want, "{ta} {tb}");
            let host = [Some(ints_of(&a)), Some(ints_of(&b)), Some(ints_of(&column))];
            let y = only(run("Gemm", 13, &attributes, &host));
            assert_eq!(y.as_i64().unwrap(), want.iter().map(|&v| v as i64).collect::<Vec<_>>(), "{ta} {tb}");
        }
    }

    #[test]
    fn products_are_counted() {
        let fact = |s: &[usize]| Fact::new(DType::F32, s.to_vec());
        let inputs = [Some(fact(&[4, 1, 2, 3])), Some(fact(&[5, 3, 7]))];
        let outputs = MatMul.infer(Args(&inputs)).unwrap();
        assert_eq!(MatMul.macs(Args(&inputs), &outputs), 4 * 5 * 2 * 3 * 7);
        let gemm = Gemm { alpha: 1.0, beta: 1.0, transposed: [true, true], needs_c: false };
        let inputs = [Some(fact(&[3, 2])), Some(fact(&[7, 3]))];
        let outputs = gemm.infer(Args(&inputs)).unwrap();
        assert_eq!(gemm.macs(Args(&inputs), &outputs), 2 * 3 * 7);
    }

    #[test]
    fn gemm_refuses_what_does_not_fit() {
        let (a, b) = (Some(floats(&[2, 3])), Some(floats(&[3, 4])));
        assert!(run("Gemm", 9, &[], &[a.clone(), b.clone()]).unwrap_err().contains("opset 11"));
        assert!(run("Gemm", 13, &[], &[a.clone(), b.clone()]).is_ok());
        assert!(run("Gemm", 13, &[], &[a.clone(), a.clone()]).is_err());
        assert!(run("Gemm", 13, &[], &[a.clone(), b.clone(), Some(floats(&[4, 2]))]).is_err());
        assert!(run("Gemm", 13, &[], &[a, b, Some(floats(&[1, 2, 4]))]).is_err());
    }
}
