//! Copies that change where elements lie: exchanged axes, parts of axes, repeated axes.

use super::elementwise::pieces;
use super::transpose::transpose;
use super::{Shared, parallel};

/// Sizes and steps of axes, fewest possible: size 1 is dropped, axes that stay together are one.
fn merged(sizes: &[usize], steps: &[usize]) -> Vec<(usize, usize)> {
    let mut all: Vec<(usize, usize)> = Vec::with_capacity(sizes.len());
    for (&size, &step) in sizes.iter().zip(steps).filter(|(size, _)| **size != 1) {
        match all.last_mut() {
            Some(last) if last.1 == step * size => *last = (last.0 * size, step),
            _ => all.push((size, step)),
        }
    }
    all
}

/// Copies `x[start + Σ index · step]` to `y`, row-major over `sizes`; a step of 0 repeats.
pub(crate) fn strided(x: &[f32], start: usize, sizes: &[usize], steps: &[usize], y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    let axes = merged(sizes, steps);
    let Some((&(inner, step), outer)) = axes.split_last() else {
        y[0] = x[start];
        return;
    };
    let place = |mut number: usize, axes: &[(usize, usize)]| {
        let mut at = start;
        for &(size, step) in axes.iter().rev() {
            at += number % size * step;
            number /= size;
        }
        at
    };
    // Two axes exchanged: blocks that are turned.
    if step > 1
        && let Some((&(rows, 1), rest)) = outer.split_last()
    {
        let one = inner * rows;
        let shared = Shared::new(y);
        let count = rest.iter().map(|a| a.0).product::<usize>();
        return parallel(count, count * one * 8, |i| {
            // SAFETY: each block has its own part.
            let to = unsafe { shared.part(i * one, one) };
            transpose(inner, rows, &x[place(i, rest)..], step, to, inner);
        });
    }
    let lines = ((1 << 14) / inner).max(1);
    pieces(y, lines * inner, |at, y| {
        for (i, y) in y.chunks_exact_mut(inner).enumerate() {
            let from = place(at / inner + i, outer);
            match step {
                1 => y.copy_from_slice(&x[from..from + inner]),
                0 => y.fill(x[from]),
                _ => y.iter_mut().zip(x[from..].iter().step_by(step)).for_each(|(y, x)| *y = *x),
            }
        }
    });
}

/// Copies `[outer, own, inner]` to the places `at..at + own` of the middle axis of `y [outer, all, inner]`.
pub(crate) fn place(x: &[f32], own: usize, inner: usize, at: usize, all: usize, y: &mut [f32]) {
    if x.is_empty() {
        return;
    }
    for (x, y) in x.chunks_exact(own * inner).zip(y.chunks_exact_mut(all * inner)) {
        y[at * inner..(at + own) * inner].copy_from_slice(x);
    }
}

/// Steps of a row-major tensor.
pub(crate) fn steps(shape: &[usize]) -> Vec<usize> {
    let mut steps = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        steps[i - 1] = steps[i] * shape[i];
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: &[usize], start: usize, sizes: &[usize], steps: &[usize]) {
        let x: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32).collect();
        let count: usize = sizes.iter().product();
        let mut y = vec![f32::NAN; count];
        strided(&x, start, sizes, steps, &mut y);
        for (number, y) in y.into_iter().enumerate() {
            let (mut rest, mut at) = (number, start);
            for (&size, &step) in sizes.iter().zip(steps).rev() {
                at += rest % size * step;
                rest /= size;
            }
            assert_eq!(y, x[at], "{sizes:?} {steps:?} at {number}");
        }
    }

    #[test]
    fn any_order_of_axes() {
        for shape in [[2, 3, 4, 5], [1, 17, 33, 2], [5, 1, 1, 7], [2, 50, 3, 16], [3, 64, 49, 1]] {
            let all = steps(&shape);
            for number in 0..24 {
                let (mut left, mut n, mut order) = ((0..4).collect::<Vec<_>>(), number, vec![]);
                for radix in (1..=4).rev() {
                    order.push(left.remove(n % radix));
                    n /= radix;
                }
                let sizes: Vec<usize> = order.iter().map(|&a| shape[a]).collect();
                let steps: Vec<usize> = order.iter().map(|&a| all[a]).collect();
                check(&shape, 0, &sizes, &steps);
            }
        }
    }

    #[test]
    fn parts_and_repeats() {
        check(&[4, 6, 5], 37, &[2, 3, 4], &[30, 5, 1]);
        check(&[4, 6, 5], 1, &[4, 3, 2], &[30, 10, 2]);
        check(&[6], 0, &[3, 6, 2], &[0, 1, 0]);
        check(&[3], 0, &[4, 3, 1], &[0, 1, 1]);
        check(&[1], 0, &[], &[]);
        check(&[5], 2, &[0, 3], &[1, 1]);
    }
}
