//! Pictures, and what several corruptions do to them: filters, zoom, sampling between pixels.

/// A picture of values 0 to 1, channel by channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Picture {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// `[channels, height, width]`
    pub(crate) pixels: Vec<f32>,
}

/// What lies beside a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// The nearest pixel.
    Nearest,
    /// The picture mirrored at its outer pixels, which are not repeated.
    Mirror,
    /// The picture mirrored at its edge, so that outer pixels are repeated.
    Reflect,
}

impl Edge {
    fn index(self, i: isize, n: usize) -> usize {
        let n = n as isize;
        let (period, reflected) = match self {
            Self::Nearest => return i.clamp(0, n - 1) as usize,
            Self::Mirror if n == 1 => return 0,
            Self::Mirror => (2 * n - 2, i.rem_euclid(2 * n - 2)),
            Self::Reflect => (2 * n, i.rem_euclid(2 * n)),
        };
        let last = if self == Self::Mirror { period } else { period - 1 };
        (if reflected < n { reflected } else { last - reflected }) as usize
    }
}

impl Picture {
    /// One plane of the same size.
    pub(super) fn plane(&self, f: impl FnMut(usize) -> f32) -> Self {
        let pixels = (0..self.height * self.width).map(f).collect();
        Self { channels: 1, height: self.height, width: self.width, pixels }
    }

    pub(super) fn at(&self, c: usize, y: isize, x: isize, edge: Edge) -> f32 {
        let (y, x) = (edge.index(y, self.height), edge.index(x, self.width));
        self.pixels[(c * self.height + y) * self.width + x]
    }

    /// The value between pixels, bilinear.
    pub(super) fn between(&self, c: usize, y: f64, x: f64, edge: Edge) -> f32 {
        let (top, left) = (y.floor(), x.floor());
        let (below, beside) = ((y - top) as f32, (x - left) as f32);
        let pixel = |dy: isize, dx: isize| self.at(c, top as isize + dy, left as isize + dx, edge);
        let line = |dy: isize| {
            if beside == 0.0 { pixel(dy, 0) } else { pixel(dy, 0) * (1.0 - beside) + pixel(dy, 1) * beside }
        };
        if below == 0.0 { line(0) } else { line(0) * (1.0 - below) + line(1) * below }
    }

    /// Every pixel made anew from its channel and place.
    pub(super) fn remade(&self, mut f: impl FnMut(usize, usize, usize) -> f32) -> Self {
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for c in 0..self.channels {
            for y in 0..self.height {
                for x in 0..self.width {
                    pixels.push(f(c, y, x));
                }
            }
        }
        Self { pixels, ..*self }
    }

    /// Weighted sums of what lies around each pixel.
    pub(super) fn filtered(&self, taps: &[(isize, isize, f32)], edge: Edge) -> Self {
        self.remade(|c, y, x| {
            taps.iter().map(|&(dy, dx, w)| w * self.at(c, y as isize + dy, x as isize + dx, edge)).sum()
        })
    }

    /// A Gaussian filter, cut off after `truncate` standard deviations.
    pub(super) fn smoothed(&self, sigma: f64, truncate: f64, edge: Edge) -> Self {
        let kernel = gaussian(sigma, truncate);
        let radius = (kernel.len() / 2) as isize;
        let taps = |down: bool| -> Vec<(isize, isize, f32)> {
            let step = |i: usize| i as isize - radius;
            kernel.iter().enumerate().map(|(i, &w)| if down { (step(i), 0, w) } else { (0, step(i), w) }).collect()
        };
        self.filtered(&taps(true), edge).filtered(&taps(false), edge)
    }

    /// The middle of the picture enlarged, in the same size.
    pub(super) fn zoomed(&self, factor: f64) -> Self {
        // The cut is rounded up, enlarged with its corners kept, and cut again in the middle.
        let axis = |n: usize| {
            let cut = ((n as f64 / factor).ceil() as usize).clamp(1, n);
            let large = ((cut as f64 * factor).round() as usize).max(n);
            let step = if large > 1 { (cut - 1) as f64 / (large - 1) as f64 } else { 0.0 };
            ((n - cut) / 2, (large - n) / 2, step)
        };
        let ((top, trim_y, step_y), (left, trim_x, step_x)) = (axis(self.height), axis(self.width));
        self.remade(|c, y, x| {
            let at = |first: usize, trim: usize, i: usize, step: f64| first as f64 + (trim + i) as f64 * step;
            self.between(c, at(top, trim_y, y, step_y), at(left, trim_x, x, step_x), Edge::Nearest)
        })
    }

    /// Motion blur as ImageMagick makes it: half a Gaussian along a line, its longest tap at `radius`.
    pub(super) fn dragged(&self, radius: usize, sigma: f64, degrees: f64) -> Self {
        let weights: Vec<f64> = (0..=2 * radius).map(|i| (-((i * i) as f64) / (2.0 * sigma * sigma)).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let (sin, cos) = degrees.to_radians().sin_cos();
        let tap = |i: usize, w: f64| {
            let along = |part: f64| (i as f64 * part - 0.5).ceil() as isize;
            (along(sin), along(cos), (w / sum) as f32)
        };
        let taps: Vec<_> = weights.into_iter().enumerate().map(|(i, w)| tap(i, w)).collect();
        self.filtered(&taps, Edge::Nearest)
    }

    /// Brightness: ITU-R 601 for colours, the value itself for grey.
    pub(super) fn grey(&self) -> Self {
        let n = self.height * self.width;
        if self.channels != 3 {
            return self.plane(|i| self.pixels[i]);
        }
        self.plane(|i| 0.299 * self.pixels[i] + 0.587 * self.pixels[n + i] + 0.114 * self.pixels[2 * n + i])
    }
}

/// Weights of a Gaussian filter; they sum to 1.
fn gaussian(sigma: f64, truncate: f64) -> Vec<f32> {
    if sigma <= 0.0 {
        return vec![1.0];
    }
    let radius = (truncate * sigma + 0.5) as isize;
    let weights: Vec<f64> = (-radius..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| (w / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(height: usize, width: usize) -> Picture {
        let pixels = (0..height * width).map(|i| (i % width) as f32 / width as f32).collect();
        Picture { channels: 1, height, width, pixels }
    }

    #[test]
    fn edges_are_those_of_their_definitions() {
        let of = |edge: Edge| (-3..7).map(|i| edge.index(i, 4)).collect::<Vec<_>>();
        assert_eq!(of(Edge::Nearest), [0, 0, 0, 0, 1, 2, 3, 3, 3, 3]);
        assert_eq!(of(Edge::Mirror), [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]);
        assert_eq!(of(Edge::Reflect), [2, 1, 0, 0, 1, 2, 3, 3, 2, 1]);
        assert_eq!(Edge::Mirror.index(-5, 1), 0);
    }

    #[test]
    fn filters_that_sum_to_one_leave_a_flat_picture_alone() {
        let flat = Picture { channels: 2, height: 7, width: 5, pixels: vec![0.4; 70] };
        for p in [flat.smoothed(1.3, 4.0, Edge::Nearest), flat.dragged(6, 1.5, 33.0), flat.zoomed(1.11)] {
            assert!(p.pixels.iter().all(|v| (v - 0.4).abs() < 1e-6));
        }
    }

    #[test]
    fn a_zoom_of_one_is_the_picture_and_a_larger_one_keeps_the_middle() {
        let p = ramp(9, 9);
        assert_eq!(p.zoomed(1.0), p);
        let q = p.zoomed(1.5);
        assert!((q.at(0, 4, 4, Edge::Nearest) - p.at(0, 4, 4, Edge::Nearest)).abs() < 0.06);
        assert!(q.at(0, 4, 8, Edge::Nearest) < p.at(0, 4, 8, Edge::Nearest));
    }

    #[test]
    fn smoothing_a_point_gives_the_gaussian() {
        let mut p = Picture { channels: 1, height: 9, width: 9, pixels: vec![0.0; 81] };
        p.pixels[4 * 9 + 4] = 1.0;
        let q = p.smoothed(1.0, 4.0, Edge::Nearest);
        let ratio = q.at(0, 4, 5, Edge::Nearest) / q.at(0, 4, 4, Edge::Nearest);
        assert!((ratio - (-0.5f32).exp()).abs() < 1e-5, "{ratio}");
    }
}
