//! Matrix products of quantised values.

use netproof_tensor::DType;

use super::{Requantise, eight_bits, integers, optional_ints, scale, zero_point};
use crate::attributes::Attributes;
use crate::error::{OpError, OpResult, invalid};
use crate::operator::{Args, Context, Fact, Operator, Value, checked_shape};
use crate::real::broadcast;

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
pub(super) struct MatMulInteger;

impl MatMulInteger {
    pub(super) fn build(_: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
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
pub(super) struct QLinearMatMul;

impl QLinearMatMul {
    pub(super) fn build(_: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
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

#[cfg(test)]
mod tests {
    use super::super::tests::codes;
    use super::*;
    use crate::ops::test_support::run;

    #[test]
    fn sums_are_exact_and_wrap_only_at_the_end() {
        // 255 · 255 · 70000 is over 2^31: the answer is what two's complement leaves of it.
        let k = 70_000;
        let a = codes(DType::U8, &[1, k], vec![255; k]);
        let b = codes(DType::U8, &[k, 1], vec![255; k]);
        let y = run("MatMulInteger", 10, &[], &[Some(a), Some(b)]).unwrap();
        assert_eq!(y[0].as_i64().unwrap(), [i64::from((255i64 * 255 * k as i64) as i32)]);
    }

    #[test]
    fn zero_points_may_differ_by_row_and_column() {
        let a = codes(DType::I8, &[2, 2], vec![1, 2, 3, 4]);
        let b = codes(DType::U8, &[2, 3], vec![5, 6, 7, 8, 9, 10]);
        let a_zero = codes(DType::I8, &[2], vec![1, -1]);
        let b_zero = codes(DType::U8, &[3], vec![5, 0, 1]);
        let y = run("MatMulInteger", 10, &[], &[Some(a), Some(b), Some(a_zero), Some(b_zero)]).unwrap();
        assert_eq!(y[0].as_i64().unwrap(), [3, 9, 9, 15, 69, 69]);
    }

    #[test]
    fn leading_axes_broadcast() {
        let a = codes(DType::U8, &[2, 1, 1, 2], vec![1, 2, 3, 4]);
        let b = codes(DType::U8, &[2, 2, 1], vec![5, 6, 7, 8]);
        let y = run("MatMulInteger", 10, &[], &[Some(a), Some(b)]).unwrap();
        assert_eq!(y[0].shape(), [2, 2, 1, 1]);
        assert_eq!(y[0].as_i64().unwrap(), [17, 23, 39, 53]);
    }

    #[test]
    fn each_matrix_of_a_batch_has_its_own_zero_points() {
        let a = codes(DType::U8, &[2, 1, 2], vec![1, 2, 3, 4]);
        let b = codes(DType::U8, &[2, 2, 1], vec![5, 6, 7, 8]);
        let a_zero = codes(DType::U8, &[2, 1, 1], vec![0, 1]);
        let b_zero = codes(DType::U8, &[2, 1, 1], vec![5, 6]);
        let y = run("MatMulInteger", 10, &[], &[Some(a), Some(b), Some(a_zero), Some(b_zero)]).unwrap();
        assert_eq!(y[0].as_i64().unwrap(), [2, 2 + 3 * 2]);
    }
}
