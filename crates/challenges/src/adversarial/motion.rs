//! Pictures that are turned and moved.
//!
//! Engstrom, Tran, Tsipras, Schmidt and Madry, ICML 2019, arXiv:1712.02779, section 3: a rotation around the middle,
//! then a shift; bilinear interpolation; what comes in from outside is the lower bound (black). Their range, 30 degrees
//! and a tenth of the side, is the unit of [`Motion::size`].

use serde::{Deserialize, Serialize};

use super::square::planes;

/// The angle that counts as 1.
pub const DEGREES: f64 = 30.0;
/// The shift that counts as 1, as a fraction of the side.
pub const SHIFT: f64 = 0.1;

/// A rotation around the middle of a picture, then a shift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Motion {
    /// Angle in degrees, anticlockwise.
    pub degrees: f32,
    /// Pixels to the right.
    pub right: f32,
    /// Pixels down.
    pub down: f32,
}

impl Motion {
    /// The larger of angle and shift, in units of [`DEGREES`] and [`SHIFT`]. NaN where one of them is.
    pub fn size(&self, row: &[usize]) -> f64 {
        let [_, height, width] = planes(row);
        let parts = [
            f64::from(self.degrees.abs()) / DEGREES,
            f64::from(self.right.abs()) / (SHIFT * width as f64),
            f64::from(self.down.abs()) / (SHIFT * height as f64),
        ];
        parts.into_iter().fold(0.0, |m: f64, v| if v > m || v.is_nan() { v } else { m })
    }

    /// The nearest motion of at most this size.
    #[must_use]
    pub fn within(&self, epsilon: f64, row: &[usize]) -> Self {
        let [_, height, width] = planes(row);
        let clamp = |v: f32, most: f64| if v.is_nan() { 0.0 } else { v.clamp(-most as f32, most as f32) };
        Self {
            degrees: clamp(self.degrees, epsilon * DEGREES),
            right: clamp(self.right, epsilon * SHIFT * width as f64),
            down: clamp(self.down, epsilon * SHIFT * height as f64),
        }
    }

    /// The picture after the motion.
    ///
    /// # Shapes   `x [row]` → same
    /// # Edge cases   no motion: the same bits; a row one pixel high can be moved to the side only
    pub fn apply(&self, row: &[usize], x: &[f32], outside: f32) -> Vec<f32> {
        let [count, height, width] = planes(row);
        let flat = height == 1;
        let (degrees, down) = if flat { (0.0, 0.0) } else { (f64::from(self.degrees), f64::from(self.down)) };
        let right = f64::from(self.right);
        if degrees == 0.0 && down == 0.0 && right == 0.0 {
            return x.to_vec();
        }
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let (cx, cy) = (0.5 * (width as f64 - 1.0), 0.5 * (height as f64 - 1.0));
        let mut out = vec![outside; x.len()];
        for py in 0..height {
            for px in 0..width {
                // Where the pixel comes from: the shift undone, then the rotation. Rows are counted downwards.
                let (dx, dy) = (px as f64 - cx - right, py as f64 - cy - down);
                let (sx, sy) = (cx + cosine * dx - sine * dy, cy + sine * dx + cosine * dy);
                let (left, top) = (sx.floor(), sy.floor());
                let (fx, fy) = (sx - left, sy - top);
                let corners = [
                    (left, top, (1.0 - fx) * (1.0 - fy)),
                    (left + 1.0, top, fx * (1.0 - fy)),
                    (left, top + 1.0, (1.0 - fx) * fy),
                    (left + 1.0, top + 1.0, fx * fy),
                ];
                for plane in 0..count {
                    let value: f64 = corners
                        .iter()
                        .filter(|c| c.2 > 0.0)
                        .map(|&(x0, y0, weight)| {
                            let inside = x0 >= 0.0 && y0 >= 0.0 && x0 < width as f64 && y0 < height as f64;
                            let at = plane * height * width + y0.max(0.0) as usize * width + x0.max(0.0) as usize;
                            weight * f64::from(if inside { x[at] } else { outside })
                        })
                        .sum();
                    out[plane * height * width + py * width + px] = value as f32;
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: [usize; 3] = [1, 3, 3];
    const X: [f32; 9] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];

    fn turned(degrees: f32, right: f32, down: f32) -> Vec<f32> {
        Motion { degrees, right, down }.apply(&ROW, &X, 0.0)
    }

    #[test]
    fn whole_pixels_and_quarter_turns_have_their_closed_form() {
        assert_eq!(turned(0.0, 0.0, 0.0), X);
        assert_eq!(turned(0.0, 1.0, 0.0), [0.0, 1.0, 2.0, 0.0, 4.0, 5.0, 0.0, 7.0, 8.0]);
        assert_eq!(turned(0.0, 0.0, -1.0), [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 0.0, 0.0, 0.0]);
        // Anticlockwise: the right column comes to the top.
        let quarter = turned(90.0, 0.0, 0.0);
        let want = [3.0, 6.0, 9.0, 2.0, 5.0, 8.0, 1.0, 4.0, 7.0];
        assert!(quarter.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{quarter:?}");
        // First turned, then moved.
        let both = turned(90.0, 1.0, 0.0);
        assert!((both[1] - 3.0).abs() < 1e-5 && both[0].abs() < 1e-5, "{both:?}");
    }

    #[test]
    fn between_pixels_values_are_mixed() {
        assert_eq!(turned(0.0, 0.5, 0.0)[..3], [0.5, 1.5, 2.5]);
        assert_eq!(
            Motion { right: 0.5, ..Motion::default() }.apply(&[4], &[0.0, 1.0, 3.0, 3.0], 0.0),
            [0.0, 0.5, 2.0, 3.0]
        );
    }

    #[test]
    fn sizes_are_in_units_of_the_published_range() {
        let m = Motion { degrees: -15.0, right: 2.8, down: 0.0 };
        assert!((m.size(&[1, 28, 28]) - 1.0).abs() < 1e-6);
        let half = m.within(0.5, &[1, 28, 28]);
        assert_eq!((half.degrees, half.down), (-15.0, 0.0));
        assert!((half.right - 1.4).abs() < 1e-6);
        let nan = Motion { degrees: f32::NAN, ..m };
        assert!(nan.size(&[1, 28, 28]).is_nan());
        assert_eq!(nan.within(1.0, &[1, 28, 28]).degrees, 0.0);
    }
}
