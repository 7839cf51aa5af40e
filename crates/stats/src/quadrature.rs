//! Gauss–Legendre quadrature.

/// Nodes and weights on [0, 1] of the Gauss–Legendre rule with `n` points; the weights sum to 1.
/// # Source
/// Newton's method on the Legendre polynomials: Press et al., Numerical Recipes, 3rd ed., section 4.6.1.
pub fn gauss_legendre(n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut nodes = vec![0.5; n];
    let mut weights = vec![1.0; n];
    for i in 0..n.div_ceil(2) {
        let mut z = (std::f64::consts::PI * (i as f64 + 0.75) / (n as f64 + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..100 {
            let (mut p, mut before) = (1.0, 0.0);
            for j in 0..n {
                let next = ((2 * j + 1) as f64 * z * p - j as f64 * before) / (j + 1) as f64;
                (p, before) = (next, p);
            }
            slope = n as f64 * (z * p - before) / (z * z - 1.0);
            let step = p / slope;
            z -= step;
            if step.abs() < 1e-15 {
                break;
            }
        }
        let weight = 1.0 / ((1.0 - z * z) * slope * slope);
        (nodes[i], nodes[n - 1 - i]) = (0.5 * (1.0 - z), 0.5 * (1.0 + z));
        (weights[i], weights[n - 1 - i]) = (weight, weight);
    }
    (nodes, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_up_to_twice_the_points_are_exact() {
        for n in [1, 2, 5, 50, 51] {
            let (x, w) = gauss_legendre(n);
            assert!((w.iter().sum::<f64>() - 1.0).abs() < 1e-13);
            assert!(x.windows(2).all(|p| p[0] < p[1]));
            for degree in 0..2 * n {
                let sum: f64 = x.iter().zip(&w).map(|(x, w)| w * x.powi(degree as i32)).sum();
                assert!((sum - 1.0 / (degree as f64 + 1.0)).abs() < 1e-13, "{n} points, degree {degree}: {sum}");
            }
        }
    }
}
