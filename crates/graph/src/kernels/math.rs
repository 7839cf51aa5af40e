//! Functions of one number without branches, so that a loop over them becomes vectors.
//!
//! The coefficients are our own fits: least squares, weighted anew until the largest relative error is least. Errors are
//! stated in units in the last place (2⁻²³ relative) over all floats in the range, as the tests measure them.

/// `eˣ`, within 2 units; subnormal results lose digits as they must. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 · 2²³ rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with zeros at its end.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * HIGH) - n * LOW;
    let tail = 0.5 + r * (0.166_665_76 + r * (0.041_666_463 + r * (0.008_363_236 + r * 0.001_393_373_4)));
    let p = 1.0 + (r + r * r * tail);
    // 2ⁿ in two factors, each of which is a normal number.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * power(half) * power(n.wrapping_sub(half))
}

/// `1 / (1 + e⁻ˣ)`, within 4 units where it is at least 2⁻¹²⁶.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent, within 6 units.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // From here on it rounds to 1.
    const LIMIT: f32 = 9.02;
    let small = if x > LIMIT { LIMIT } else { x };
    let small = if small < -LIMIT { -LIMIT } else { small };
    let t = small * small;
    let p = 1.0
        + t * (0.136_799_44
            + t * (0.003_868_363_8 + t * (2.800_816_7e-5 + t * (3.058_664e-8 + t * -1.220_458e-11))));
    let q = 1.0 + t * (0.470_132_76 + t * (0.027_245_97 + t * (3.938_694e-4 + t * 1.287_415e-6)));
    let y = small * p / q;
    let y = if y > 1.0 || x > LIMIT { 1.0 } else { y };
    if y < -1.0 || x < -LIMIT { -1.0 } else { y }
}

/// The error function, within 8 units.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    // From here on it rounds to 1.
    const LIMIT: f32 = 3.93;
    let small = if x > LIMIT { LIMIT } else { x };
    let small = if small < -LIMIT { -LIMIT } else { small };
    let t = small * small;
    let p = 1.128_379_1
        + t * (0.190_775_47
            + t * (0.052_789_215 + t * (0.003_779_263 + t * (2.848_025e-4 + t * 2.042_053e-6))));
    let q = 1.0
        + t * (0.502_403_1
            + t * (0.114_254_1 + t * (0.014_996_74 + t * (0.001_165_132_3 + t * 3.800_462e-5))));
    let y = small * p / q;
    let y = if y > 1.0 || x > LIMIT { 1.0 } else { y };
    if y < -1.0 || x < -LIMIT { -1.0 } else { y }
}

/// `x · Φ(x)` with the normal distribution function (Hendrycks and Gimpel, arXiv:1606.08415).
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Slope of [`gelu`]: `Φ(x) + x φ(x)`.
#[inline(always)]
pub(crate) fn gelu_slope(x: f32) -> f32 {
    /// 1 / √(2π).
    const DENSITY: f32 = 0.398_942_3;
    // φ(x) is 0 long before x² overflows, and 0 · ∞ would not be.
    let near = if x > 20.0 { 20.0 } else { x };
    let near = if near < -20.0 { -20.0 } else { near };
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + near * DENSITY * exp(-0.5 * near * near)
}

/// Gradient through [`gelu`].
#[inline(always)]
pub(crate) fn gelu_gradient(x: f32, g: f32) -> f32 {
    g * gelu_slope(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest distance in units of the last place of the true value.
    fn worst(range: (f32, f32), f: fn(f32) -> f32, truth: fn(f64) -> f64) -> f64 {
        let count = 400_000;
        let mut worst = 0.0f64;
        for i in 0..=count {
            let x = range.0 + (range.1 - range.0) * (i as f32 / count as f32);
            let want = truth(f64::from(x));
            let unit = want.abs().max(f64::from(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
            worst = worst.max((f64::from(f(x)) - want).abs() / unit);
        }
        worst
    }

    /// The error function in double precision: its series, or its continued fraction far out.
    fn erf64(x: f64) -> f64 {
        let a = x.abs();
        if a < 3.0 {
            let (mut term, mut sum) = (a, a);
            for n in 1..100 {
                term *= -a * a / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            return (sum * std::f64::consts::FRAC_2_SQRT_PI).copysign(x);
        }
        let fraction = (1..60).rev().fold(0.0, |f, n| f64::from(n) / 2.0 / (a + f));
        (1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + fraction)).copysign(x)
    }

    #[test]
    fn errors_are_as_stated() {
        assert!(worst((-87.0, 88.7), exp, f64::exp) <= 2.0);
        assert!(worst((-0.1, 0.1), exp, f64::exp) <= 2.0);
        assert!(worst((-86.0, 40.0), sigmoid, |x| 1.0 / (1.0 + (-x).exp())) <= 4.0);
        assert!(worst((-12.0, 12.0), tanh, f64::tanh) <= 6.0);
        assert!(worst((-1e-3, 1e-3), tanh, f64::tanh) <= 6.0);
        assert!(worst((-6.0, 6.0), erf, erf64) <= 8.0);
        assert!(worst((-1e-3, 1e-3), erf, erf64) <= 8.0);
    }

    #[test]
    fn limits_are_those_of_the_functions() {
        let inf = f32::INFINITY;
        assert_eq!((exp(inf), exp(-inf), exp(100.0), exp(-200.0), exp(0.0)), (inf, 0.0, inf, 0.0, 1.0));
        assert_eq!((sigmoid(inf), sigmoid(-inf), sigmoid(0.0)), (1.0, 0.0, 0.5));
        assert_eq!((tanh(inf), tanh(-inf), tanh(0.0)), (1.0, -1.0, 0.0));
        assert_eq!((erf(inf), erf(-inf), erf(0.0)), (1.0, -1.0, 0.0));
        assert_eq!((gelu(0.0), gelu(50.0), gelu_slope(1e30), gelu_slope(-1e30)), (0.0, 50.0, 1.0, 0.0));
        assert!(exp(-100.0) > 0.0, "subnormal results are kept");
        for f in [exp, sigmoid, tanh, erf, gelu, gelu_slope] {
            assert!(f(f32::NAN).is_nan());
        }
    }

    #[test]
    fn the_slope_of_gelu_is_its_derivative() {
        for i in -400..400 {
            let x = f64::from(i) / 50.0;
            let phi = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let want = 0.5 * (1.0 + erf64(x / std::f64::consts::SQRT_2)) + x * phi;
            assert!((f64::from(gelu_slope(x as f32)) - want).abs() <= 1e-6, "at {x}");
        }
    }
}
