//! Squares of pixels: the smallest one that holds a change, and the one that holds most of it.
//!
//! A row of shape `[.., height, width]` is a picture, channels on top of each other; one of any other shape is a picture one
//! pixel high, whose squares are stretches.

/// Planes, height and width of rows of this shape.
pub(crate) fn planes(row: &[usize]) -> [usize; 3] {
    match row {
        [front @ .., height, width] => [front.iter().product(), *height, *width],
        [width] => [1, 1, *width],
        [] => [1, 1, 1],
    }
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Window {
    /// Whether an element of a row lies in it.
    pub(crate) fn holds(&self, row: &[usize], element: usize) -> bool {
        let [_, height, width] = planes(row);
        let (x, y) = (element % width.max(1), element / width.max(1) % height.max(1));
        (self.left..self.left + self.width).contains(&x) && (self.top..self.top + self.height).contains(&y)
    }
}

/// Side of the smallest square that holds every element in which two rows of this shape differ; NaN where one holds one.
pub(crate) fn side(row: &[usize], a: &[f32], b: &[f32]) -> f64 {
    let [_, height, width] = planes(row);
    let (mut low, mut high) = ([usize::MAX; 2], [0; 2]);
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        if a.is_nan() || b.is_nan() {
            return f64::NAN;
        }
        if a != b {
            let at = [i % width.max(1), i / width.max(1) % height.max(1)];
            for d in 0..2 {
                (low[d], high[d]) = (low[d].min(at[d]), high[d].max(at[d] + 1));
            }
        }
    }
    (0..2).map(|d| high[d].saturating_sub(low[d])).max().unwrap_or(0) as f64
}

/// All places of a square of this side, and for each the sum of `weight` within it.
/// # Shapes   `weight [row]` → one entry per place
pub(crate) fn sums(row: &[usize], weight: &[f32], side: usize) -> Vec<(Window, f64)> {
    let [_, height, width] = planes(row);
    // Sums of all rectangles from the corner, over all planes.
    let mut corner = vec![0.0f64; (height + 1) * (width + 1)];
    for (i, w) in weight.iter().enumerate() {
        let (x, y) = (i % width.max(1), i / width.max(1) % height.max(1));
        corner[(y + 1) * (width + 1) + x + 1] += f64::from(*w);
    }
    for y in 1..=height {
        for x in 1..=width {
            corner[y * (width + 1) + x] += corner[y * (width + 1) + x - 1];
        }
        for x in 1..=width {
            corner[y * (width + 1) + x] += corner[(y - 1) * (width + 1) + x];
        }
    }
    let (h, w) = (side.min(height), side.min(width));
    let at = |y: usize, x: usize| corner[y * (width + 1) + x];
    let places = (0..=height - h).flat_map(|top| (0..=width - w).map(move |left| (top, left)));
    places
        .map(|(top, left)| {
            let sum = at(top + h, left + w) - at(top, left + w) - at(top + h, left) + at(top, left);
            (Window { top, left, height: h, width: w }, sum)
        })
        .collect()
}

/// Undoes all changes but those in the square of this side that holds most of them.
pub(crate) fn keep_largest(row: &[usize], origin: &[f32], x: &mut [f32], side: usize) {
    let change: Vec<f32> = x.iter().zip(origin).map(|(x, o)| (x - o).abs()).collect();
    let all = if side == 0 { Vec::new() } else { sums(row, &change, side) };
    let best = all.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|p| p.0);
    for (i, (x, o)) in x.iter_mut().zip(origin).enumerate() {
        if best.is_none_or(|w| !w.holds(row, i)) {
            *x = *o;
        }
    }
}

#[cfg(test)]
mod tests {
    use netproof_stats::rng::Rng;

    use super::*;

    #[test]
    fn the_side_is_that_of_the_smallest_square_around_the_change_in_all_planes() {
        let row = [2, 4, 5];
        let a = vec![0.0; 40];
        let mut b = a.clone();
        assert_eq!(side(&row, &a, &b), 0.0);
        b[6] = 1.0;
        assert_eq!(side(&row, &a, &b), 1.0);
        // Second plane, one row lower and two columns to the right.
        b[20 + 13] = 1.0;
        assert_eq!(side(&row, &a, &b), 3.0);
        b[0] = f32::NAN;
        assert!(side(&row, &a, &b).is_nan());
        assert_eq!(side(&[6], &[0.0; 6], &[0.0, 1.0, 0.0, 0.0, 1.0, 0.0]), 4.0);
    }

    #[test]
    fn sums_are_those_of_a_naive_loop() {
        let (row, mut rng) = ([2, 4, 5], Rng::new(3));
        let weight: Vec<f32> = (0..40).map(|_| rng.unit() as f32).collect();
        for size in 1..7 {
            let found = sums(&row, &weight, size);
            assert_eq!(found.len(), (4 - size.min(4) + 1) * (5 - size.min(5) + 1));
            for (w, sum) in found {
                let naive: f64 = (0..40).filter(|&i| w.holds(&row, i)).map(|i| f64::from(weight[i])).sum();
                assert!((naive - sum).abs() < 1e-5, "{w:?}");
            }
        }
    }

    #[test]
    fn what_is_kept_is_the_square_with_most_of_the_change() {
        let row = [1, 4, 4];
        let origin = vec![0.5; 16];
        let mut x = origin.clone();
        (x[0], x[10], x[11], x[15]) = (0.9, 0.1, 0.0, 0.9);
        keep_largest(&row, &origin, &mut x, 2);
        assert_eq!((x[0], x[10], x[11], x[15]), (0.5, 0.1, 0.0, 0.9));
        assert_eq!(side(&row, &origin, &x), 2.0);
        keep_largest(&row, &origin, &mut x, 0);
        assert_eq!(x, origin);
    }
}
