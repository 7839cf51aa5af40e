//! Scaled dot-product attention, `softmax(scale · q kᵀ + mask) · v`, one head after the other (Vaswani et al.,
//! arXiv:1706.03762, equation 1).
//!
//! The scores of some queries of one head stay in the cache until they are used, and nothing of their size is kept: the way
//! back computes them again, as Dao et al., arXiv:2205.14135, section 3.1, do. Scratch per thread: at most [`SCORES`] scores,
//! three times that on the way back, or those of one query where there are more keys.

use super::epilogue::Epilogue;
use super::product::{Matrix, product};
use super::softmax::{softmax, softmax_gradient};
use super::{PRODUCTS, Shared, elementwise, parallel, with_scratch};

/// Scores that are in memory at once.
const SCORES: usize = if cfg!(test) { 1 << 9 } else { 1 << 16 };

/// Sizes of `q [heads, queries, size]`, `k [heads, keys, size]`, `v [heads, keys, values]`; all at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) size: usize,
    pub(crate) values: usize,
    /// Whether k is stored `[heads, size, keys]`.
    pub(crate) turned: bool,
}

/// What is added to the scores: head `h` reads `rows · keys` numbers from `at(h)` on, where `rows` is 1 or all queries.
pub(crate) struct Mask<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) starts: &'a [usize],
    pub(crate) rows: usize,
}

/// What an attention is of.
pub(crate) struct Attention<'a> {
    pub(crate) sizes: Sizes,
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) scale: f32,
    pub(crate) mask: Option<Mask<'a>>,
}

/// Where the gradients of q, k and v go; each may be left out.
pub(crate) struct Gradients<'a> {
    pub(crate) q: Option<&'a mut [f32]>,
    pub(crate) k: Option<&'a mut [f32]>,
    pub(crate) v: Option<&'a mut [f32]>,
}

impl Attention<'_> {
    /// Queries that are taken together.
    fn block(&self) -> usize {
        (SCORES / self.sizes.keys).clamp(1, self.sizes.queries)
    }

    fn operations(&self) -> usize {
        let s = self.sizes;
        s.heads * s.queries * s.keys * (s.size + s.values + 8 * PRODUCTS) / PRODUCTS
    }

    /// `[keys, size]` of a head.
    fn keys(&self, head: usize) -> Matrix<'_> {
        let Sizes { keys, size, turned, .. } = self.sizes;
        let data = &self.k[head * keys * size..][..keys * size];
        if turned { Matrix::new(data, size, keys).transposed() } else { Matrix::new(data, keys, size) }
    }

    fn values(&self, head: usize) -> Matrix<'_> {
        let Sizes { keys, values, .. } = self.sizes;
        Matrix::new(&self.v[head * keys * values..][..keys * values], keys, values)
    }

    fn queries(&self, head: usize, first: usize, count: usize) -> Matrix<'_> {
        let Sizes { queries, size, .. } = self.sizes;
        Matrix::new(&self.q[(head * queries + first) * size..][..count * size], count, size)
    }

    /// Writes the probabilities of some queries.
    fn probabilities(&self, head: usize, first: usize, count: usize, scores: &mut [f32], to: &mut [f32]) {
        let keys = self.sizes.keys;
        product(self.queries(head, first, count), self.keys(head).transposed(), Epilogue::default(), scores);
        let mut scale = self.scale;
        if let Some(mask) = &self.mask {
            let skipped = if mask.rows == 1 { 0 } else { first * keys };
            let rows = if mask.rows == 1 { 1 } else { count };
            let numbers = &mask.numbers[mask.starts[head] + skipped..][..rows * keys];
            for (scores, mask) in scores.chunks_exact_mut(rows * keys).zip(std::iter::repeat(numbers)) {
                elementwise::update(scores, mask, |s, m| s * scale + m);
            }
            scale = 1.0;
        }
        softmax(keys, scale, scores, to);
    }

    /// `y [heads, queries, values]`.
    pub(crate) fn forward(&self, y: &mut [f32]) {
        let s = self.sizes;
        self.check();
        assert!(y.len() == s.heads * s.queries * s.values, "shapes were checked by infer");
        let each = self.block();
        let to = Shared::new(y);
        parallel(s.heads, self.operations(), |head| {
            with_scratch(2 * each * s.keys, |scratch| {
                let (scores, probabilities) = scratch.split_at_mut(each * s.keys);
                for first in (0..s.queries).step_by(each) {
                    let count = each.min(s.queries - first);
                    let (scores, p) = (&mut scores[..count * s.keys], &mut probabilities[..count * s.keys]);
                    self.probabilities(head, first, count, scores, p);
                    // SAFETY: each head has its own part, and each block of queries its rows of it.
                    let y = unsafe { to.part((head * s.queries + first) * s.values, count * s.values) };
                    product(Matrix::new(p, count, s.keys), self.values(head), Epilogue::default(), y);
                }
            });
        });
    }

    /// Gradients from that of the output: with `P` the probabilities and `D = scale · P ∘ (g vᵀ − rows' Σ P ∘ g vᵀ)`,
    /// they are `D k`, `Dᵀ q` and `Pᵀ g`.
    pub(crate) fn backward(&self, g: &[f32], to: Gradients<'_>) {
        let s = self.sizes;
        self.check();
        assert!(g.len() == s.heads * s.queries * s.values, "shapes were checked by infer");
        let each = self.block();
        let (block, of_k, of_v) = (each * s.keys, s.keys * s.size, s.keys * s.values);
        let q = to.q.map(Shared::new);
        let k = to.k.map(Shared::new);
        let v = to.v.map(Shared::new);
        parallel(s.heads, 3 * self.operations(), |head| {
            with_scratch(3 * block + of_k.max(of_v), |scratch| {
                let (scratch, part) = scratch.split_at_mut(3 * block);
                for first in (0..s.queries).step_by(each) {
                    let count = each.min(s.queries - first);
                    let mut parts = scratch.chunks_exact_mut(block).map(|p| &mut p[..count * s.keys]);
                    let (Some(a), Some(p), Some(d)) = (parts.next(), parts.next(), parts.next()) else { return };
                    self.probabilities(head, first, count, a, p);
                    let g =
                        Matrix::new(&g[(head * s.queries + first) * s.values..][..count * s.values], count, s.values);
                    let probabilities = Matrix::new(p, count, s.keys);
                    if let Some(v) = v {
                        // SAFETY: each head has its own part.
                        let to = unsafe { v.part(head * of_v, of_v) };
                        add(first, probabilities.transposed(), g, &mut part[..of_v], to);
                    }
                    if q.is_none() && k.is_none() {
                        continue;
                    }
                    product(g, self.values(head).transposed(), Epilogue::default(), a);
                    softmax_gradient(s.keys, self.scale, p, a, d);
                    let slopes = Matrix::new(d, count, s.keys);
                    if let Some(q) = q {
                        // SAFETY: each head has its own part, and each block of queries its rows of it.
                        let to = unsafe { q.part((head * s.queries + first) * s.size, count * s.size) };
                        product(slopes, self.keys(head), Epilogue::default(), to);
                    }
                    if let Some(k) = k {
                        let queries = self.queries(head, first, count);
                        // SAFETY: each head has its own part.
                        let to = unsafe { k.part(head * of_k, of_k) };
                        match s.turned {
                            true => add(first, queries.transposed(), slopes, &mut part[..of_k], to),
                            false => add(first, slopes.transposed(), queries, &mut part[..of_k], to),
                        }
                    }
                }
            });
        });
    }

    fn check(&self) {
        let s = self.sizes;
        let sound = self.q.len() == s.heads * s.queries * s.size
            && self.k.len() == s.heads * s.keys * s.size
            && self.v.len() == s.heads * s.keys * s.values
            && self.mask.as_ref().is_none_or(|m| m.starts.len() == s.heads);
        assert!(sound, "shapes were checked by infer");
    }
}

/// Writes the product of the first block of queries, and adds those of the others.
fn add(first: usize, a: Matrix<'_>, b: Matrix<'_>, part: &mut [f32], to: &mut [f32]) {
    if first == 0 {
        return product(a, b, Epilogue::default(), to);
    }
    product(a, b, Epilogue::default(), part);
    elementwise::update(to, part, |a, b| a + b);
}

#[cfg(test)]
mod tests {
    use netproof_stats::rng::Rng;

    use super::super::reference::{close, in_pools};
    use super::*;

    /// Numbers between -1 and 1. Drawn, since a pattern can make the sums of the way back cancel.
    fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = Rng::stream(1, seed);
        (0..n).map(|_| rng.unit() as f32 * 2.0 - 1.0).collect()
    }

    /// Heads, queries, keys, size, size of a value; the largest are several blocks of queries.
    const SIZES: [[usize; 5]; 7] = [
        [1, 1, 1, 1, 1],
        [3, 5, 7, 4, 2],
        [4, 50, 50, 16, 16],
        [2, 1, 33, 8, 8],
        [1, 70, 9, 3, 20],
        [2, 40, 600, 8, 5],
        [5, 17, 1, 2, 3],
    ];

    /// Rows of the mask of each head; 0 for no mask.
    fn masks(s: Sizes) -> [usize; 3] {
        [0, 1, s.queries]
    }

    struct Case {
        s: Sizes,
        q: Vec<f32>,
        k: Vec<f32>,
        v: Vec<f32>,
        g: Vec<f32>,
        mask: Vec<f32>,
        starts: Vec<usize>,
        rows: usize,
    }

    impl Case {
        fn new([heads, queries, keys, size, values_of]: [usize; 5], turned: bool, rows: usize) -> Self {
            let s = Sizes { heads, queries, keys, size, values: values_of, turned };
            // Two masks that the heads share.
            let mask: Vec<f32> = values(2 * rows * keys, 7)
                .into_iter()
                .map(|m| if m > 0.8 { f32::NEG_INFINITY } else { 3.0 * m })
                .collect();
            let mask = mask
                .chunks(keys.max(1))
                .flat_map(|row| {
                    let dead = row.iter().all(|m| *m == f32::NEG_INFINITY);
                    row.iter().map(move |&m| if dead { 0.0 } else { m })
                })
                .collect();
            Self {
                s,
                q: values(heads * queries * size, 1),
                k: values(heads * keys * size, 2),
                v: values(heads * keys * values_of, 3),
                g: values(heads * queries * values_of, 4),
                mask,
                starts: (0..heads).map(|h| h % 2 * rows * keys).collect(),
                rows,
            }
        }

        fn attention(&self) -> Attention<'_> {
            let mask = (self.rows > 0).then_some(Mask { numbers: &self.mask, starts: &self.starts, rows: self.rows });
            Attention { sizes: self.s, q: &self.q, k: &self.k, v: &self.v, scale: 1.7, mask }
        }

        fn run(&self) -> [Vec<f32>; 4] {
            let mut all = [self.g.len(), self.q.len(), self.k.len(), self.v.len()].map(|n| vec![f32::NAN; n]);
            let [y, q, k, v] = &mut all;
            self.attention().forward(y);
            self.attention().backward(&self.g, Gradients { q: Some(q), k: Some(k), v: Some(v) });
            all
        }

        /// By definition, in double precision.
        fn truth(&self) -> [Vec<f64>; 4] {
            let s = self.s;
            let mut all = [self.g.len(), self.q.len(), self.k.len(), self.v.len()].map(|n| vec![0.0; n]);
            let [y, dq, dk, dv] = &mut all;
            for h in 0..s.heads {
                let at_q = |i: usize, d: usize| (h * s.queries + i) * s.size + d;
                let at_k =
                    |j: usize, d: usize| h * s.keys * s.size + if s.turned { d * s.keys + j } else { j * s.size + d };
                let at_v = |j: usize, e: usize| (h * s.keys + j) * s.values + e;
                let at_y = |i: usize, e: usize| (h * s.queries + i) * s.values + e;
                for i in 0..s.queries {
                    let scores: Vec<f64> = (0..s.keys)
                        .map(|j| {
                            let dot: f64 = (0..s.size)
                                .map(|d| f64::from(self.q[at_q(i, d)]) * f64::from(self.k[at_k(j, d)]))
                                .sum();
                            let row = if self.rows == 1 { 0 } else { i };
                            let m = if self.rows == 0 {
                                0.0
                            } else {
                                f64::from(self.mask[self.starts[h] + row * s.keys + j])
                            };
                            dot * f64::from(1.7f32) + m
                        })
                        .collect();
                    let top = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                    let e: Vec<f64> = scores.iter().map(|x| (x - top).exp()).collect();
                    let sum: f64 = e.iter().sum();
                    let p: Vec<f64> = e.iter().map(|e| e / sum).collect();
                    let dp: Vec<f64> = (0..s.keys)
                        .map(|j| {
                            (0..s.values).map(|e| f64::from(self.g[at_y(i, e)]) * f64::from(self.v[at_v(j, e)])).sum()
                        })
                        .collect();
                    let along: f64 = p.iter().zip(&dp).map(|(a, b)| a * b).sum();
                    for j in 0..s.keys {
                        let d = f64::from(1.7f32) * p[j] * (dp[j] - along);
                        for e in 0..s.values {
                            y[at_y(i, e)] += p[j] * f64::from(self.v[at_v(j, e)]);
                            dv[at_v(j, e)] += p[j] * f64::from(self.g[at_y(i, e)]);
                        }
                        for c in 0..s.size {
                            dq[at_q(i, c)] += d * f64::from(self.k[at_k(j, c)]);
                            dk[at_k(j, c)] += d * f64::from(self.q[at_q(i, c)]);
                        }
                    }
                }
            }
            all
        }
    }

    #[test]
    fn values_and_gradients_match_float64() {
        for sizes in SIZES {
            for turned in [false, true] {
                let s = Case::new(sizes, turned, 0).s;
                for rows in masks(s) {
                    let case = Case::new(sizes, turned, rows);
                    let names = ["values", "gradient of q", "gradient of k", "gradient of v"];
                    for ((got, want), name) in case.run().iter().zip(case.truth()).zip(names) {
                        // With one key the probabilities are 1 and their gradients only rounding.
                        if s.keys > 1 || !matches!(name, "gradient of q" | "gradient of k") {
                            close(got, &want, 1e-5, &format!("{s:?}, {rows} rows of a mask, {name}"));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn only_what_is_wanted_is_written_and_is_the_same() {
        let case = Case::new([3, 40, 30, 4, 6], false, 1);
        let [_, q, k, v] = case.run();
        let mut alone = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
        let [a, b, c] = &mut alone;
        case.attention().backward(&case.g, Gradients { q: Some(a), k: None, v: None });
        case.attention().backward(&case.g, Gradients { q: None, k: Some(b), v: None });
        case.attention().backward(&case.g, Gradients { q: None, k: None, v: Some(c) });
        assert_eq!(alone, [q, k, v]);
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for sizes in SIZES {
            let case = Case::new(sizes, true, 1);
            in_pools(&format!("{:?}", case.s), || case.run().concat());
        }
    }
}
