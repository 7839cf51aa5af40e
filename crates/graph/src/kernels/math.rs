//! Functions of vectors of numbers, without branches.
//!
//! The coefficients are our own fits: least squares, weighted anew until the largest relative error is least. Errors are
//! stated in units in the last place (2⁻²³ relative), as the tests measure them over the range.

use pulp::Simd;

/// A function of one number.
pub(crate) trait Function: Copy + Sync + Send {
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s;
}

/// A function of two numbers.
pub(crate) trait Function2: Copy + Sync + Send {
    fn apply<S: Simd>(self, simd: S, a: S::f32s, b: S::f32s) -> S::f32s;
}

/// `c[0] + c[1] x + c[2] x² + …`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::f32s, c: [f32; N]) -> S::f32s {
    let mut sum = simd.splat_f32s(c[N - 1]);
    for i in (0..N - 1).rev() {
        sum = simd.mul_add_e_f32s(sum, x, simd.splat_f32s(c[i]));
    }
    sum
}

/// Between two numbers; NaN stays NaN, since both comparisons are false.
#[inline(always)]
pub(crate) fn clamp<S: Simd>(simd: S, x: S::f32s, low: f32, high: f32) -> S::f32s {
    let (x, high) = (at_least(simd, x, low), simd.splat_f32s(high));
    simd.select_f32s(simd.greater_than_f32s(x, high), high, x)
}

/// The larger one of x and a number; NaN stays NaN.
#[inline(always)]
pub(crate) fn at_least<S: Simd>(simd: S, x: S::f32s, low: f32) -> S::f32s {
    let low = simd.splat_f32s(low);
    simd.select_f32s(simd.less_than_f32s(x, low), low, x)
}

/// `eˣ`, within 2 units; subnormal results lose digits as they must. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding and taking away 1.5 · 2²³ rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with zeros at its end.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let (one, round) = (simd.splat_f32s(1.0), simd.splat_f32s(ROUND));
    let x = clamp(simd, x, -104.0, 89.0);
    let shifted = simd.mul_add_e_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), round);
    let n = simd.sub_f32s(shifted, round);
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-HIGH), x);
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-LOW), r);
    let tail = polynomial(simd, r, [0.5, 0.166_665_76, 0.041_666_463, 0.008_363_236, 0.001_393_373_4]);
    let p = simd.add_f32s(one, simd.mul_add_e_f32s(simd.mul_f32s(r, r), tail, r));
    // 2ⁿ in two factors, each of which is a normal number: with n moved up by 256, both halves and their exponents are
    // not negative.
    let n = simd.sub_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(ROUND.to_bits() - 256));
    let half = simd.wrapping_dyn_shr_u32s(n, simd.splat_u32s(1));
    let power = |n: S::u32s| {
        let bits = simd.wrapping_dyn_shl_u32s(simd.sub_u32s(n, simd.splat_u32s(1)), simd.splat_u32s(23));
        simd.transmute_f32s_u32s(bits)
    };
    simd.mul_f32s(simd.mul_f32s(p, power(half)), power(simd.sub_u32s(n, half)))
}

/// `1 / (1 + e⁻ˣ)`, within 4 units where it is at least 2⁻¹²⁶.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    simd.div_f32s(one, simd.add_f32s(one, exp(simd, simd.neg_f32s(x))))
}

/// `x · p(x²) / q(x²)` between ±`limit`, from where on it rounds to ±1.
#[inline(always)]
fn odd<S: Simd, const P: usize, const Q: usize>(simd: S, x: S::f32s, limit: f32, p: [f32; P], q: [f32; Q]) -> S::f32s {
    let near = clamp(simd, x, -limit, limit);
    let t = simd.mul_f32s(near, near);
    let y = simd.div_f32s(simd.mul_f32s(near, polynomial(simd, t, p)), polynomial(simd, t, q));
    let one = simd.splat_f32s(1.0);
    let above = simd.greater_than_f32s(x, simd.splat_f32s(limit));
    let below = simd.less_than_f32s(x, simd.splat_f32s(-limit));
    clamp(simd, simd.select_f32s(above, one, simd.select_f32s(below, simd.neg_f32s(one), y)), -1.0, 1.0)
}

/// Hyperbolic tangent, within 6 units.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let p = [1.0, 0.136_799_44, 0.003_868_363_8, 2.800_816_7e-5, 3.058_664e-8, -1.220_458e-11];
    let q = [1.0, 0.470_132_76, 0.027_245_97, 3.938_694e-4, 1.287_415e-6];
    odd(simd, x, 9.02, p, q)
}

/// The error function, within 8 units.
#[inline(always)]
pub(crate) fn erf<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let p = [std::f32::consts::FRAC_2_SQRT_PI, 0.190_775_47, 0.052_789_215, 0.003_779_263, 2.848_025e-4, 2.042_053e-6];
    let q = [1.0, 0.502_403_1, 0.114_254_1, 0.014_996_74, 0.001_165_132_3, 3.800_462e-5];
    odd(simd, x, 3.93, p, q)
}

/// The normal distribution function, `(1 + erf(x / √2)) / 2`.
#[inline(always)]
fn normal<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let half = simd.splat_f32s(0.5);
    let root = simd.splat_f32s(std::f32::consts::FRAC_1_SQRT_2);
    simd.mul_add_e_f32s(half, erf(simd, simd.mul_f32s(x, root)), half)
}

/// `x · Φ(x)` with the normal distribution function (Hendrycks and Gimpel, arXiv:1606.08415).
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.mul_f32s(x, normal(simd, x))
}

/// Slope of [`gelu`]: `Φ(x) + x φ(x)`.
#[inline(always)]
pub(crate) fn gelu_slope<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// 1 / √(2π).
    const DENSITY: f32 = 0.398_942_3;
    // φ(x) is 0 long before x² overflows, and 0 · ∞ would not be.
    let near = clamp(simd, x, -20.0, 20.0);
    let density = exp(simd, simd.mul_f32s(simd.mul_f32s(near, near), simd.splat_f32s(-0.5)));
    simd.mul_add_e_f32s(simd.mul_f32s(near, simd.splat_f32s(DENSITY)), density, normal(simd, x))
}

/// Makes functions that can be handed to loops.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $f:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name;

        impl Function for $name {
            #[inline(always)]
            fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
                $f(simd, x)
            }
        }
    )*};
}

functions! {
    /// [`exp`].
    Exp = exp;
    /// [`sigmoid`].
    Sigmoid = sigmoid;
    /// [`tanh`].
    Tanh = tanh;
    /// [`erf`].
    Erf = erf;
    /// [`gelu`].
    Gelu = gelu;
}

/// `g` times [`gelu_slope`] of x.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GeluGradient;

impl Function2 for GeluGradient {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s, g: S::f32s) -> S::f32s {
        simd.mul_f32s(g, gelu_slope(simd, x))
    }
}

#[cfg(test)]
mod tests {
    use super::super::elementwise::{compute, compute2};
    use super::*;

    fn slope(x: f32) -> f32 {
        let mut y = [0.0];
        compute2(GeluGradient, &[x], &[1.0], &mut y);
        y[0]
    }

    fn one(f: impl Function, x: f32) -> f32 {
        let mut y = [0.0];
        compute(f, &[x], &mut y);
        y[0]
    }

    /// Largest distance in units of the last place of the true value.
    fn worst(range: (f32, f32), f: impl Function, truth: fn(f64) -> f64) -> f64 {
        let count = 400_000;
        let mut worst = 0.0f64;
        let x: Vec<f32> = (0..=count).map(|i| range.0 + (range.1 - range.0) * (i as f32 / count as f32)).collect();
        let mut y = vec![f32::NAN; x.len()];
        compute(f, &x, &mut y);
        for (x, y) in x.into_iter().zip(y) {
            let want = truth(f64::from(x));
            let unit = want.abs().max(f64::from(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
            worst = worst.max((f64::from(y) - want).abs() / unit);
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
        assert!(worst((-87.0, 88.7), Exp, f64::exp) <= 2.0);
        assert!(worst((-0.1, 0.1), Exp, f64::exp) <= 2.0);
        assert!(worst((-86.0, 40.0), Sigmoid, |x| 1.0 / (1.0 + (-x).exp())) <= 4.0);
        assert!(worst((-12.0, 12.0), Tanh, f64::tanh) <= 6.0);
        assert!(worst((-1e-3, 1e-3), Tanh, f64::tanh) <= 6.0);
        assert!(worst((-6.0, 6.0), Erf, erf64) <= 8.0);
        assert!(worst((-1e-3, 1e-3), Erf, erf64) <= 8.0);
    }

    #[test]
    fn limits_are_those_of_the_functions() {
        let inf = f32::INFINITY;
        assert_eq!(
            (one(Exp, inf), one(Exp, -inf), one(Exp, 100.0), one(Exp, -200.0), one(Exp, 0.0)),
            (inf, 0.0, inf, 0.0, 1.0)
        );
        assert_eq!((one(Sigmoid, inf), one(Sigmoid, -inf), one(Sigmoid, 0.0)), (1.0, 0.0, 0.5));
        assert_eq!((one(Tanh, inf), one(Tanh, -inf), one(Tanh, 0.0)), (1.0, -1.0, 0.0));
        assert_eq!((one(Erf, inf), one(Erf, -inf), one(Erf, 0.0)), (1.0, -1.0, 0.0));
        assert_eq!((one(Gelu, 0.0), one(Gelu, 50.0), slope(1e30), slope(-1e30)), (0.0, 50.0, 1.0, 0.0));
        assert!(one(Exp, -100.0) > 0.0, "subnormal results are kept");
        let nan = f32::NAN;
        assert!([one(Exp, nan), one(Sigmoid, nan), one(Tanh, nan), one(Erf, nan)].iter().all(|y| y.is_nan()));
        assert!([one(Gelu, nan), slope(nan)].iter().all(|y| y.is_nan()));
    }

    #[test]
    fn the_slope_of_gelu_is_its_derivative() {
        for i in -400..400 {
            let x = f64::from(i) / 50.0;
            let phi = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let want = 0.5 * (1.0 + erf64(x / std::f64::consts::SQRT_2)) + x * phi;
            assert!((f64::from(slope(x as f32)) - want).abs() <= 1e-6, "at {x}");
        }
    }
}
