//! Convolutions over two spatial axes and their gradients.

use super::direct::{Direct, Target};
use super::epilogue::Epilogue;
use super::{Shared, parallel, weights, winograd, with_scratch};

/// Sizes of a convolution over two spatial axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    /// Channels of one group.
    pub(crate) inside: usize,
    /// Output channels of one group.
    pub(crate) outside: usize,
    pub(crate) groups: usize,
    pub(crate) input: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    /// Padding at the beginning of each axis.
    pub(crate) padding: [usize; 2],
}

impl Shape {
    /// Where each element of the kernel meets the input, relative to a place of the output times the stride.
    pub(crate) fn taps(&self) -> Vec<(isize, isize)> {
        let at = |axis: usize, k: usize| (k * self.dilation[axis]) as isize - self.padding[axis] as isize;
        let rows = (0..self.kernel[0]).map(|k| at(0, k));
        rows.flat_map(|y| (0..self.kernel[1]).map(move |k| (y, at(1, k)))).collect()
    }

    fn input_plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    fn output_plane(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// One row in place of an image where every element stands for itself alone.
    pub(crate) fn flattened(mut self) -> Self {
        let same = self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0];
        if same && self.input == self.output {
            self.input = [1, self.input_plane()];
            self.output = self.input;
        }
        self
    }
}

/// Cross-correlation. `x [batch, groups · inside, input]`, `weight [groups · outside, inside, kernel]`,
/// `y [batch, groups · outside, output]`.
pub(crate) fn forward(shape: Shape, x: &[f32], weight: &[f32], epilogue: Epilogue<'_>, y: &mut [f32]) {
    if winograd::fits(&shape) && winograd::forward(&shape, x, weight, epilogue, y) {
        return;
    }
    let s = shape.flattened();
    let taps = s.taps();
    let plane = s.output_plane();
    let starts: Vec<usize> = (0..s.outside).map(|o| o * plane).collect();
    let (image, group) = (s.groups * s.outside * plane, s.outside * plane);
    let target = Target { image, group, starts: &starts, down: s.output[1], right: 1 };
    let Shape { batch, groups, inside, outside, .. } = s;
    let direct = Direct {
        batch,
        groups,
        inside,
        outside,
        size: s.input,
        grid: s.output,
        step: s.stride,
        taps: &taps,
        weight,
        target,
        epilogue,
    };
    direct.run(x, y);
}

/// The gradient of the input: for each of the `stride[0] · stride[1]` ways in which places of the input meet the kernel,
/// a sum over the taps that they meet.
pub(crate) fn input_gradient(shape: Shape, gradient: &[f32], weight: &[f32], x: &mut [f32]) {
    if winograd::fits(&shape) && winograd::input_gradient(&shape, gradient, weight, x) {
        return;
    }
    let s = shape.flattened();
    let plane = s.input_plane();
    let mut left: Vec<Phase> = (0..s.stride[0] * s.stride[1]).filter_map(|p| Phase::new(&s, p)).collect();
    while let Some(first) = left.pop() {
        // Phases that meet the kernel at the same places of the gradient are channels of one sum.
        let (same, other): (Vec<Phase>, Vec<Phase>) = left.into_iter().partition(|p| p.meets_as(&first));
        left = other;
        let phases: Vec<Phase> = std::iter::once(first).chain(same).collect();
        let first = &phases[0];
        let outside = phases.len() * s.inside;
        let line = s.outside * first.taps.len();
        with_scratch(s.groups * outside * line, |turned| {
            turn(&s, &phases, weight, turned);
            let starts: Vec<usize> = phases
                .iter()
                .flat_map(|p| (0..s.inside).map(move |c| c * plane + p.at[0] * s.input[1] + p.at[1]))
                .collect();
            let target = Target {
                image: s.groups * s.inside * plane,
                group: s.inside * plane,
                starts: &starts,
                down: s.stride[0] * s.input[1],
                right: s.stride[1],
            };
            let direct = Direct {
                batch: s.batch,
                groups: s.groups,
                inside: s.outside,
                outside,
                size: s.output,
                grid: first.grid,
                step: [1, 1],
                taps: &first.taps,
                weight: turned,
                target,
                epilogue: Epilogue::default(),
            };
            direct.run(gradient, x);
        });
    }
}

/// `weight [groups · outside, inside, kernel]` of `x [batch, groups · inside, input]` and the output's gradient.
pub(crate) fn weight_gradient(shape: Shape, x: &[f32], gradient: &[f32], weight: &mut [f32]) {
    if !winograd::fits_weight(&shape) || !winograd::weight_gradient(&shape, x, gradient, weight) {
        weights::weight_gradient(shape, x, gradient, weight);
    }
}

/// The weights `[groups, phases · inside, outside, taps]` of the gradient of the input.
fn turn(s: &Shape, phases: &[Phase], weight: &[f32], turned: &mut [f32]) {
    let elements = s.kernel[0] * s.kernel[1];
    let outside = phases.len() * s.inside;
    let len = turned.len() / (s.groups * outside).max(1);
    let operations = turned.len() * 4;
    let to = Shared::new(turned);
    parallel(s.groups * outside, operations, |line| {
        let (group, phase, c) = (line / outside, line % outside / s.inside, line % s.inside);
        let elements_met = &phases[phase].elements;
        // SAFETY: each channel of each phase of each group has its own line.
        let to = unsafe { to.part(line * len, len) };
        for (o, to) in to.chunks_exact_mut(elements_met.len().max(1)).enumerate() {
            let from = &weight[((group * s.outside + o) * s.inside + c) * elements..][..elements];
            for (to, &element) in to.iter_mut().zip(elements_met) {
                *to = from[element];
            }
        }
    });
}

/// Places of the input that are a stride apart, and what they meet.
struct Phase {
    /// The first place.
    at: [usize; 2],
    /// How many there are.
    grid: [usize; 2],
    /// Where the gradient is met, relative to a place, and by which elements of the kernel.
    taps: Vec<(isize, isize)>,
    elements: Vec<usize>,
}

impl Phase {
    /// `None` where there are no places.
    fn new(s: &Shape, number: usize) -> Option<Self> {
        let at = [number / s.stride[1], number % s.stride[1]];
        let grid: [usize; 2] = std::array::from_fn(|i| s.input[i].saturating_sub(at[i]).div_ceil(s.stride[i]));
        if grid.contains(&0) {
            return None;
        }
        // Place `at + stride · i` of the input meets element `k` at place `i + (at + padding - dilation · k) / stride`.
        let meets = |axis: usize, k: usize| {
            let distance = (at[axis] + s.padding[axis]) as isize - (s.dilation[axis] * k) as isize;
            let stride = s.stride[axis] as isize;
            (distance.rem_euclid(stride) == 0).then(|| distance.div_euclid(stride))
        };
        let (mut taps, mut elements) = (Vec::new(), Vec::new());
        for ky in 0..s.kernel[0] {
            for kx in 0..s.kernel[1] {
                if let (Some(down), Some(right)) = (meets(0, ky), meets(1, kx)) {
                    taps.push((down, right));
                    elements.push(ky * s.kernel[1] + kx);
                }
            }
        }
        Some(Self { at, grid, taps, elements })
    }

    fn meets_as(&self, other: &Self) -> bool {
        self.grid == other.grid && self.taps == other.taps
    }
}

#[cfg(test)]
mod tests {
    use super::super::epilogue::Activation;
    use super::super::reference::{close, in_pools, values};
    use super::super::vectors::lanes;
    use super::*;

    /// Sizes in the order batch, channels inside and outside of a group, groups.
    const CHANNELS: [[usize; 4]; 8] = [
        [1, 1, 1, 1],
        [2, 3, 5, 1],
        [3, 16, 16, 1],
        [2, 4, 8, 2],
        [5, 2, 17, 3],
        [1, 20, 50, 1],
        [33, 1, 9, 1],
        [9, 1, 1, 21],
    ];
    const PLANES: [[usize; 2]; 5] = [[7, 7], [5, 9], [1, 30], [13, 4], [28, 28]];
    const KERNELS: [[usize; 2]; 5] = [[1, 1], [3, 3], [5, 5], [2, 3], [3, 1]];
    /// Stride and dilation.
    const STEPS: [[[usize; 2]; 2]; 5] =
        [[[1, 1], [1, 1]], [[2, 2], [1, 1]], [[1, 1], [2, 2]], [[2, 1], [1, 3]], [[3, 3], [2, 1]]];
    /// Also more than the kernel reaches.
    const PADDINGS: [[usize; 2]; 4] = [[0, 0], [1, 1], [2, 0], [4, 5]];

    fn shape(
        sizes: [usize; 4],
        input: [usize; 2],
        kernel: [usize; 2],
        step: [[usize; 2]; 2],
        padding: [usize; 2],
    ) -> Option<Shape> {
        let [batch, inside, outside, groups] = sizes;
        let [stride, dilation] = step;
        let mut output = [0; 2];
        for i in 0..2 {
            let extent = dilation[i] * (kernel[i] - 1) + 1;
            output[i] = (input[i] + 2 * padding[i]).checked_sub(extent)? / stride[i] + 1;
        }
        Some(Shape { batch, inside, outside, groups, input, kernel, output, stride, dilation, padding })
    }

    /// Every shape of the lists whose definition is quick to evaluate.
    fn shapes() -> Vec<Shape> {
        let mut all = Vec::new();
        for sizes in CHANNELS {
            for input in PLANES {
                for kernel in KERNELS {
                    for step in STEPS {
                        for padding in PADDINGS {
                            all.extend(shape(sizes, input, kernel, step, padding));
                        }
                    }
                }
            }
        }
        let products =
            |s: &Shape| s.batch * s.groups * s.outside * s.output_plane() * s.inside * s.kernel[0] * s.kernel[1];
        all.retain(|s| products(s) <= 100_000);
        all
    }

    /// Calls `f(x, weight, y)` with the numbers of all elements that meet.
    fn meet(s: &Shape, mut f: impl FnMut(usize, usize, usize)) {
        for n in 0..s.batch * s.groups * s.outside * s.output_plane() {
            let (x, y) = (n % s.output[1], n / s.output[1] % s.output[0]);
            let (o, g) = (n / s.output_plane() % s.outside, n / s.output_plane() / s.outside % s.groups);
            let image = n / s.output_plane() / s.outside / s.groups;
            for k in 0..s.inside * s.kernel[0] * s.kernel[1] {
                let (kx, ky, c) = (k % s.kernel[1], k / s.kernel[1] % s.kernel[0], k / s.kernel[1] / s.kernel[0]);
                let row = (y * s.stride[0] + ky * s.dilation[0]) as isize - s.padding[0] as isize;
                let column = (x * s.stride[1] + kx * s.dilation[1]) as isize - s.padding[1] as isize;
                let inside = row >= 0 && column >= 0 && row < s.input[0] as isize && column < s.input[1] as isize;
                if inside {
                    let plane = (image * s.groups + g) * s.inside + c;
                    let at = plane * s.input_plane() + row as usize * s.input[1] + column as usize;
                    f(at, (g * s.outside + o) * s.inside * s.kernel[0] * s.kernel[1] + k, n);
                }
            }
        }
    }

    /// Elements of x, of the weight and of y.
    fn counts(s: &Shape) -> [usize; 3] {
        let channels = s.batch * s.groups;
        let weight = s.groups * s.outside * s.inside * s.kernel[0] * s.kernel[1];
        [channels * s.inside * s.input_plane(), weight, channels * s.outside * s.output_plane()]
    }

    /// Checks ‖got − want‖ ≤ most · ‖want‖ in all three directions.
    fn matches(s: Shape, most: f64) {
        let [nx, nw, ny] = counts(&s);
        let (x, w, g) = (values(nx, 1), values(nw, 5), values(ny, 9));
        let (mut wy, mut wx, mut ww) = (vec![0.0; ny], vec![0.0; nx], vec![0.0; nw]);
        meet(&s, |a, b, c| {
            wy[c] += f64::from(x[a]) * f64::from(w[b]);
            wx[a] += f64::from(g[c]) * f64::from(w[b]);
            ww[b] += f64::from(g[c]) * f64::from(x[a]);
        });
        let (mut y, mut dx, mut dw) = (vec![f32::NAN; ny], vec![f32::NAN; nx], vec![f32::NAN; nw]);
        forward(s, &x, &w, Epilogue::default(), &mut y);
        input_gradient(s, &g, &w, &mut dx);
        weight_gradient(s, &x, &g, &mut dw);
        close(&y, &wy, most, &format!("{s:?}, values"));
        close(&dx, &wx, most, &format!("{s:?}, gradient of the input"));
        close(&dw, &ww, most, &format!("{s:?}, gradient of the weight"));
    }

    #[test]
    fn values_and_both_gradients_match_float64() {
        let all = shapes();
        assert!(all.len() > 1000, "only {} shapes", all.len());
        all.into_iter().for_each(|s| matches(s, 1e-5));
    }

    /// Those that take minimal filtering: odd planes, planes of less than a tile, a weight of each size.
    fn many_channels() -> Vec<Shape> {
        let of = |sizes, input, padding| shape(sizes, input, [3, 3], STEPS[0], padding).unwrap();
        vec![
            of([2, 32, 64, 1], [14, 14], [1, 1]),
            of([1, 48, 32, 1], [15, 17], [0, 0]),
            of([3, 32, 48, 1], [9, 8], [2, 1]),
            of([49, 32, 32, 1], [1, 1], [1, 1]),
            of([50, 32, 32, 1], [3, 3], [0, 0]),
            of([1, 64, 80, 1], [40, 5], [1, 2]),
            of([4, 64, 64, 1], [7, 6], [1, 1]),
            of([3, 80, 64, 1], [9, 9], [0, 0]),
            of([13, 192, 176, 1], [4, 4], [1, 1]),
        ]
    }

    /// Groups of one channel: rows of less and of more than a vector, each step of columns.
    fn single_channels() -> Vec<Shape> {
        let of = |groups, input, kernel, step, padding| {
            shape([2, 1, 1, groups], input, [kernel; 2], STEPS[step], padding).unwrap()
        };
        vec![
            of(9, [9, 7], 3, 0, [1, 1]),
            of(70, [4, 20], 3, 0, [0, 2]),
            of(3, [11, 37], 5, 1, [2, 2]),
            of(5, [14, 14], 3, 1, [1, 1]),
            of(2, [40, 40], 3, 2, [2, 2]),
            of(2, [9, 50], 5, 3, [4, 5]),
        ]
    }

    #[test]
    fn groups_of_one_channel_match_float64() {
        single_channels().into_iter().for_each(|s| matches(s, 1e-5));
    }

    #[test]
    fn minimal_filtering_matches_float64() {
        for s in many_channels() {
            assert!(lanes() < 8 || winograd::fits(&s), "{s:?}");
            matches(s, 2e-6);
        }
    }

    #[test]
    fn bias_residual_and_activation_follow_in_this_order() {
        let some = [shape([3, 5, 11, 2], [9, 7], [3, 3], STEPS[0], [1, 1]).unwrap(), many_channels()[2]];
        for s in some.into_iter().chain(single_channels()) {
            finished(s);
        }
    }

    fn finished(s: Shape) {
        let channels = s.groups * s.outside;
        let [nx, nw, ny] = counts(&s);
        let (x, w) = (values(nx, 1), values(nw, 5));
        let (bias, residual) = (values(channels, 3), values(ny, 4));
        let mut plain = vec![0.0; ny];
        forward(s, &x, &w, Epilogue::default(), &mut plain);
        for activation in [
            Activation::Identity,
            Activation::Clamp(0.0, f32::INFINITY),
            Activation::Clamp(-0.2, 0.3),
            Activation::HardSwish,
        ] {
            let epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), activation };
            let mut y = vec![f32::NAN; ny];
            forward(s, &x, &w, epilogue, &mut y);
            for i in 0..ny {
                let v = plain[i] + bias[i / s.output_plane() % channels] + residual[i];
                let want = match activation {
                    Activation::Identity => v,
                    Activation::Clamp(low, high) => v.clamp(low, high),
                    Activation::HardSwish => v * (v / 6.0 + 0.5).clamp(0.0, 1.0),
                };
                assert!((y[i] - want).abs() <= 1e-6, "{activation:?} at {i}: {} {want}", y[i]);
            }
        }
    }

    #[test]
    fn what_is_not_finite_reaches_what_it_meets_and_nothing_else() {
        for s in
            [shape([2, 3, 4, 1], [6, 6], [3, 3], STEPS[0], [1, 1]).unwrap(), many_channels()[0], many_channels()[6]]
        {
            spreads(s);
        }
    }

    fn spreads(s: Shape) {
        let [nx, nw, ny] = counts(&s);
        for value in [f32::NAN, f32::INFINITY] {
            let (mut x, w) = (values(nx, 1), values(nw, 5));
            x[40] = value;
            let (mut y, mut want) = (vec![0.0; ny], vec![0.0; ny]);
            let relu = Epilogue { activation: Activation::Clamp(0.0, f32::INFINITY), ..Epilogue::default() };
            forward(s, &x, &w, relu, &mut y);
            meet(&s, |a, b, c| want[c] += f64::from(x[a]) * f64::from(w[b]));
            for (y, want) in y.into_iter().map(f64::from).zip(want) {
                // Not `max`, which would hide what is not a number.
                let want = if want < 0.0 { 0.0 } else { want };
                let same = y.is_nan() == want.is_nan() && y.is_infinite() == want.is_infinite();
                let apart = (y - want).abs() > 1e-3;
                assert!(same && !apart, "{s:?}, {value}: {y} {want}");
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for sizes in [[4, 16, 24, 1], [1, 64, 64, 1], [12, 1, 1, 40], [6, 8, 8, 4], [40, 32, 64, 1], [3, 192, 192, 1]] {
            let s = shape(sizes, [14, 14], [3, 3], STEPS[0], [1, 1]).unwrap();
            let [nx, nw, ny] = counts(&s);
            let (x, w, g) = (values(nx, 1), values(nw, 5), values(ny, 9));
            in_pools(&format!("{s:?}"), || {
                let (mut y, mut dx, mut dw) = (vec![0.0; ny], vec![0.0; nx], vec![0.0; nw]);
                forward(s, &x, &w, Epilogue::default(), &mut y);
                input_gradient(s, &g, &w, &mut dx);
                weight_gradient(s, &x, &g, &mut dw);
                [y, dx, dw].concat()
            });
        }
    }

    #[test]
    fn an_empty_batch_has_no_values_and_zero_gradients() {
        let s = Shape { batch: 0, ..shape([1, 2, 3, 1], [5, 5], [3, 3], STEPS[0], [1, 1]).unwrap() };
        let mut dw = vec![f32::NAN; 54];
        forward(s, &[], &values(54, 1), Epilogue::default(), &mut []);
        input_gradient(s, &[], &values(54, 1), &mut []);
        weight_gradient(s, &[], &[], &mut dw);
        assert!(dw.iter().all(|&w| w == 0.0));
    }
}
