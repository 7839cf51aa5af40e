//! Maxima of windows of planes, and where their gradient goes.

use super::vectors::arch;
use super::{Shared, parallel, with_scratch};

/// Windows over planes. What lies outside a plane does not count; a window that sees nothing gives -∞.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Images times channels.
    pub(crate) planes: usize,
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    /// Padding at the beginning of each axis.
    pub(crate) padding: [usize; 2],
}

impl Pool {
    fn sizes(&self) -> (usize, usize) {
        (self.input[0] * self.input[1], self.output[0] * self.output[1])
    }

    /// Windows of two by two that touch but do not overlap, with nothing outside.
    fn halves(&self) -> bool {
        self.kernel == [2, 2]
            && self.stride == [2, 2]
            && self.dilation == [1, 1]
            && self.padding == [0, 0]
            && (0..2).all(|i| 2 * self.output[i] <= self.input[i])
    }

    /// The elements of the input that window `o` of an axis sees: the first one and how many.
    #[inline(always)]
    fn seen(&self, axis: usize, o: usize) -> (usize, usize) {
        let start = (o * self.stride[axis]) as isize - self.padding[axis] as isize;
        let step = self.dilation[axis] as isize;
        let skipped = if start < 0 { (-start + step - 1) / step } else { 0 };
        let first = start + skipped * step;
        let room = self.input[axis] as isize - first;
        let count = if room <= 0 { 0 } else { (room + step - 1) / step };
        (first.max(0) as usize, count.min(self.kernel[axis] as isize - skipped).max(0) as usize)
    }
}

/// The larger one; NaN wins over every number.
#[inline(always)]
fn larger(old: f32, new: f32) -> f32 {
    if new > old || new.is_nan() { new } else { old }
}

/// `y [planes, output]` of `x [planes, input]`.
pub(crate) fn forward(p: Pool, x: &[f32], y: &mut [f32]) {
    let (inside, outside) = p.sizes();
    assert!(x.len() == p.planes * inside && y.len() == p.planes * outside, "shapes were checked by infer");
    if y.is_empty() {
        return;
    }
    tasks(p, y, outside, |first, y| {
        with_scratch(p.input[1], |row| {
            arch().dispatch(
                #[inline(always)]
                || {
                    for (i, y) in y.chunks_exact_mut(outside).enumerate() {
                        plane_maxima(p, &x[(first + i) * inside..][..inside], row, y);
                    }
                },
            );
        });
    });
}

#[inline(always)]
fn plane_maxima(p: Pool, x: &[f32], row: &mut [f32], y: &mut [f32]) {
    let width = p.input[1];
    if p.halves() {
        for (x, y) in x.chunks_exact(2 * width).zip(y.chunks_exact_mut(p.output[1])) {
            let (top, bottom) = x.split_at(width);
            for ((y, a), b) in y.iter_mut().zip(top.chunks_exact(2)).zip(bottom.chunks_exact(2)) {
                *y = larger(larger(a[0], a[1]), larger(b[0], b[1]));
            }
        }
        return;
    }
    for (o, y) in y.chunks_exact_mut(p.output[1]).enumerate() {
        let (first, count) = p.seen(0, o);
        row.fill(f32::NEG_INFINITY);
        for k in 0..count {
            let line = &x[(first + k * p.dilation[0]) * width..][..width];
            row.iter_mut().zip(line).for_each(|(m, &x)| *m = larger(*m, x));
        }
        for (o, y) in y.iter_mut().enumerate() {
            let (first, count) = p.seen(1, o);
            *y = (0..count).fold(f32::NEG_INFINITY, |m, k| larger(m, row[first + k * p.dilation[1]]));
        }
    }
}

/// The gradient of the input: each window gives its own to the first of its largest elements.
pub(crate) fn backward(p: Pool, x: &[f32], gradient: &[f32], dx: &mut [f32]) {
    let (inside, outside) = p.sizes();
    assert!(x.len() == p.planes * inside && gradient.len() == p.planes * outside && dx.len() == x.len());
    if dx.is_empty() {
        return;
    }
    tasks(p, dx, inside, |first, dx| {
        arch().dispatch(
            #[inline(always)]
            || {
                for (i, dx) in dx.chunks_exact_mut(inside).enumerate() {
                    let x = &x[(first + i) * inside..][..inside];
                    let gradient = &gradient[(first + i) * outside..][..outside];
                    if p.halves() { halves_back(p, x, gradient, dx) } else { plane_back(p, x, gradient, dx) }
                }
            },
        );
    });
}

#[inline(always)]
fn plane_back(p: Pool, x: &[f32], gradient: &[f32], dx: &mut [f32]) {
    dx.fill(0.0);
    for (i, &g) in gradient.iter().enumerate() {
        let (rows, columns) = (p.seen(0, i / p.output[1]), p.seen(1, i % p.output[1]));
        let mut best: Option<usize> = None;
        for r in 0..rows.1 {
            for c in 0..columns.1 {
                let at = (rows.0 + r * p.dilation[0]) * p.input[1] + columns.0 + c * p.dilation[1];
                if best.is_none_or(|b| x[at] > x[b] || (x[at].is_nan() && !x[b].is_nan())) {
                    best = Some(at);
                }
            }
        }
        if let Some(at) = best {
            dx[at] += g;
        }
    }
}

#[inline(always)]
fn halves_back(p: Pool, x: &[f32], gradient: &[f32], dx: &mut [f32]) {
    let (width, half) = (p.input[1], p.output[1]);
    let wins = |new: f32, old: f32| new > old || (new.is_nan() && !old.is_nan());
    let pairs = x.chunks_exact(2 * width).zip(dx.chunks_exact_mut(2 * width));
    for ((x, dx), g) in pairs.zip(gradient.chunks_exact(half)) {
        let (top, bottom) = x.split_at(width);
        let (up, down) = dx.split_at_mut(width);
        let above = top.chunks_exact(2).zip(up.chunks_exact_mut(2));
        let below = bottom.chunks_exact(2).zip(down.chunks_exact_mut(2));
        for (((a, up), (b, down)), &g) in above.zip(below).zip(g) {
            // The second of a pair, and the lower pair, win only where they are larger.
            let (second, fourth) = (wins(a[1], a[0]), wins(b[1], b[0]));
            let (high, low) = (if second { a[1] } else { a[0] }, if fourth { b[1] } else { b[0] });
            let lower = wins(low, high);
            up[0] = if !lower && !second { g } else { 0.0 };
            up[1] = if !lower && second { g } else { 0.0 };
            down[0] = if lower && !fourth { g } else { 0.0 };
            down[1] = if lower && fourth { g } else { 0.0 };
        }
        up[2 * half..].fill(0.0);
        down[2 * half..].fill(0.0);
    }
    dx[2 * p.output[0] * width..].fill(0.0);
}

/// Runs `work(first plane, its part)` on blocks of planes of `size` elements each.
fn tasks(p: Pool, out: &mut [f32], size: usize, work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    let each = ((1 << 14) / (p.input[0] * p.input[1]).max(1)).max(1);
    let shared = Shared::new(out);
    parallel(p.planes.div_ceil(each), p.planes * p.input[0] * p.input[1] * 8, |task| {
        let planes = task * each..((task + 1) * each).min(p.planes);
        // SAFETY: each task has its own planes.
        work(planes.start, unsafe { shared.part(planes.start * size, planes.len() * size) });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> Vec<Pool> {
        let mut all = Vec::new();
        for input in [[4usize, 4], [5, 7], [1, 9], [28, 28], [13, 3]] {
            for (kernel, stride, dilation, padding) in [
                ([2usize, 2], [2usize, 2], [1, 1], [0usize, 0]),
                ([3, 3], [2, 2], [1, 1], [1, 1]),
                ([1, 3], [1, 1], [1, 2], [0, 1]),
                ([2, 2], [1, 3], [2, 1], [0, 0]),
                ([3, 2], [3, 1], [1, 1], [2, 1]),
            ] {
                // Rounded up, so that windows hang over the end.
                let output = std::array::from_fn(|i| (input[i] + padding[i]).div_ceil(stride[i]).max(1));
                all.push(Pool { planes: 3, input, output, kernel, stride, dilation, padding });
            }
            if input[0] > 1 {
                let output = [input[0] / 2, input[1] / 2];
                let one = [1, 1];
                let two = [2, 2];
                all.push(Pool { planes: 90, input, output, kernel: two, stride: two, dilation: one, padding: [0, 0] });
            }
        }
        all
    }

    /// The element that each window takes, by definition.
    fn taken(p: &Pool, x: &[f32], plane: usize, i: usize) -> Option<usize> {
        let mut best: Option<usize> = None;
        for ky in 0..p.kernel[0] {
            for kx in 0..p.kernel[1] {
                let y = (i / p.output[1] * p.stride[0] + ky * p.dilation[0]) as i64 - p.padding[0] as i64;
                let c = (i % p.output[1] * p.stride[1] + kx * p.dilation[1]) as i64 - p.padding[1] as i64;
                if y < 0 || c < 0 || y >= p.input[0] as i64 || c >= p.input[1] as i64 {
                    continue;
                }
                let at = (plane * p.input[0] + y as usize) * p.input[1] + c as usize;
                if best.is_none_or(|b| x[at] > x[b] || (x[at].is_nan() && !x[b].is_nan())) {
                    best = Some(at);
                }
            }
        }
        best
    }

    #[test]
    fn maxima_and_their_gradients_are_those_of_the_definition() {
        for p in pools() {
            let (inside, outside) = p.sizes();
            // Few different values, so that equal maxima occur; and some NaN.
            let value = |i: usize| if i % 23 == 5 { f32::NAN } else { (i * 7919 % 5) as f32 };
            let x: Vec<f32> = (0..p.planes * inside).map(value).collect();
            let g: Vec<f32> = (0..p.planes * outside).map(|i| i as f32 + 1.0).collect();
            let (mut y, mut dx) = (vec![7.0; g.len()], vec![7.0; x.len()]);
            forward(p, &x, &mut y);
            backward(p, &x, &g, &mut dx);
            let mut want = vec![0.0; x.len()];
            for i in 0..g.len() {
                let at = taken(&p, &x, i / outside, i % outside);
                let top = at.map_or(f32::NEG_INFINITY, |at| x[at]);
                assert!(y[i] == top || (y[i].is_nan() && top.is_nan()), "{p:?} at {i}: {} {top}", y[i]);
                if let Some(at) = at {
                    want[at] += g[i];
                }
            }
            assert_eq!(dx, want, "{p:?}");
        }
    }
}
