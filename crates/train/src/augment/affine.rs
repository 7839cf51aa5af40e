//! Images moved by affine maps: what rotation, translation, scaling and shear share.

/// Moves an image `[channels, height, width]`: the place `p` of the result shows the place `matrix · (p − centre − shift) +
/// centre` of the image, between pixels by bilinear interpolation, and `fill` beside it. `matrix` maps `(down, right)`.
pub(super) fn warp(
    image: &mut [f32],
    [channels, height, width]: [usize; 3],
    matrix: [[f64; 2]; 2],
    shift: [f64; 2],
    fill: f32,
) {
    let old = image.to_vec();
    let centre = [(height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0];
    for y in 0..height {
        for x in 0..width {
            let p = [y as f64 - centre[0] - shift[0], x as f64 - centre[1] - shift[1]];
            let at = |i: usize| matrix[i][0] * p[0] + matrix[i][1] * p[1] + centre[i];
            let (down, right) = (at(0), at(1));
            let (top, left) = (down.floor(), right.floor());
            let (below, beside) = ((down - top) as f32, (right - left) as f32);
            for c in 0..channels {
                let pixel = |dy: f64, dx: f64| {
                    let (y, x) = (top + dy, left + dx);
                    let inside = y >= 0.0 && x >= 0.0 && y < height as f64 && x < width as f64;
                    if inside { old[(c * height + y as usize) * width + x as usize] } else { fill }
                };
                // What has no share is not looked at, so that a whole step moves pixels exactly.
                let line = |dy: f64| {
                    if beside == 0.0 {
                        pixel(dy, 0.0)
                    } else {
                        pixel(dy, 0.0) * (1.0 - beside) + pixel(dy, 1.0) * beside
                    }
                };
                let value = if below == 0.0 { line(0.0) } else { line(0.0) * (1.0 - below) + line(1.0) * below };
                image[(c * height + y) * width + x] = value;
            }
        }
    }
}

/// The matrix of [`warp`] that turns an image by `degrees`, counter-clockwise as a person sees it.
pub(super) fn turn(degrees: f64) -> [[f64; 2]; 2] {
    // Whole quarters are exact.
    let quarter = degrees / 90.0;
    let (sin, cos) = match (quarter.fract() == 0.0, quarter.rem_euclid(4.0) as i64) {
        (true, 0) => (0.0, 1.0),
        (true, 1) => (1.0, 0.0),
        (true, 2) => (0.0, -1.0),
        (true, _) => (-1.0, 0.0),
        (false, _) => degrees.to_radians().sin_cos(),
    };
    [[cos, sin], [-sin, cos]]
}

/// The matrix that leaves everything where it is.
pub(super) const STAY: [[f64; 2]; 2] = [[1.0, 0.0], [0.0, 1.0]];

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(size: [usize; 3], matrix: [[f64; 2]; 2], shift: [f64; 2]) -> Vec<f32> {
        let mut image: Vec<f32> = (0..size.iter().product::<usize>()).map(|i| i as f32 + 1.0).collect();
        warp(&mut image, size, matrix, shift, 0.0);
        image
    }

    #[test]
    fn a_quarter_turn_moves_pixels_exactly() {
        // 1 2    2 4
        // 3 4 →  1 3
        assert_eq!(moved([1, 2, 2], turn(90.0), [0.0; 2]), [2.0, 4.0, 1.0, 3.0]);
        assert_eq!(moved([1, 2, 2], turn(180.0), [0.0; 2]), [4.0, 3.0, 2.0, 1.0]);
        assert_eq!(moved([1, 2, 2], turn(-90.0), [0.0; 2]), [3.0, 1.0, 4.0, 2.0]);
    }

    #[test]
    fn whole_and_half_steps() {
        assert_eq!(moved([2, 1, 3], STAY, [0.0, 1.0]), [0.0, 1.0, 2.0, 0.0, 4.0, 5.0]);
        assert_eq!(moved([1, 1, 3], STAY, [0.0, -0.5]), [1.5, 2.5, 1.5]);
        assert_eq!(moved([1, 3, 1], STAY, [-1.0, 0.0]), [2.0, 3.0, 0.0]);
    }

    #[test]
    fn turning_back_and_forth_keeps_the_middle() {
        let mut image = vec![0.0; 81];
        image[40] = 1.0;
        warp(&mut image, [1, 9, 9], turn(30.0), [0.0; 2], 0.0);
        assert!((image[40] - 1.0).abs() < 1e-6);
    }
}
