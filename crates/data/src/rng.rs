//! The random numbers of Netproof: xoshiro256++ seeded by SplitMix64, the same on every machine and at any thread count.
//!
//! # Source
//! Blackman and Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47(4), 2021; Steele, Lea and Flood,
//! "Fast splittable pseudorandom number generators", OOPSLA 2014. Logarithms come from `libm`, not from the system, so
//! that normal draws agree bit by bit across platforms. Not for secrets.

use sha2::{Digest, Sha256};

/// A seeded generator of random numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Rng {
    state: [u64; 4],
    spare: Option<f64>,
}

impl Rng {
    /// A generator from a seed; every seed is good, also 0.
    pub fn new(seed: u64) -> Self {
        let mut mixer = seed;
        Self { state: std::array::from_fn(|_| split_mix_64(&mut mixer)), spare: None }
    }

    /// A generator for one purpose: independent of the other streams of the same seed and of how much they draw.
    ///
    /// The state is the SHA-256 of the seed (8 bytes, little endian) and the name.
    pub fn stream(seed: u64, name: &str) -> Self {
        let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(digest.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        }
        if state == [0; 4] { Self::new(seed) } else { Self { state, spare: None } }
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in `[0, 1)`, all multiples of 2⁻⁵³.
    pub fn f64(&mut self) -> f64 {
        (self.u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `low..high`, up to rounding at the upper end.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.f64()
    }

    /// Uniform in `0..n`, without bias (rejection after Lemire 2019); 0 where `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let mut product = u128::from(self.u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.u64()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }

    /// Uniform in `0..n`; 0 where `n` is 0.
    pub fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// `true` with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.f64() < probability
    }

    /// Standard normal (Marsaglia's polar method; Knuth, TAOCP volume 2, 3.4.1, algorithm P).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (u, v) = (2.0 * self.f64() - 1.0, 2.0 * self.f64() - 1.0);
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let factor = (-2.0 * libm::log(s) / s).sqrt();
                self.spare = Some(v * factor);
                return u * factor;
            }
        }
    }

    /// Puts the items into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.index(i + 1));
        }
    }

    /// The numbers `0..n` in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut items: Vec<usize> = (0..n).collect();
        self.shuffle(&mut items);
        items
    }

    /// `k` different numbers of `0..n` in random order; all of them where `k >= n`.
    pub fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut items: Vec<usize> = (0..n).collect();
        let k = k.min(n);
        for i in 0..k {
            let j = i + self.index(n - i);
            items.swap(i, j);
        }
        items.truncate(k);
        items
    }
}

fn split_mix_64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sequence_of_xoshiro256_plus_plus() {
        // First outputs of the authors' C program from the state 1, 2, 3, 4.
        let mut rng = Rng { state: [1, 2, 3, 4], spare: None };
        let expected = [41943041, 58720359, 3588806011781223, 3591011842654386, 9228616714210784205];
        assert_eq!(std::array::from_fn(|_| rng.u64()), expected);
        // And of SplitMix64.
        let mut state = 1477776061723855037;
        assert_eq!(split_mix_64(&mut state), 1985237415132408290);
        assert_eq!(split_mix_64(&mut state), 2979275885539914483);
    }

    #[test]
    fn draws_have_the_right_moments_and_range() {
        let mut rng = Rng::new(7);
        let n = 40_000;
        let normal: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = normal.iter().sum::<f64>() / n as f64;
        let variance = normal.iter().map(|v| v * v).sum::<f64>() / n as f64;
        let fourth = normal.iter().map(|v| v.powi(4)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03 && (fourth - 3.0).abs() < 0.2);
        let mut counts = [0; 7];
        (0..7000).for_each(|_| counts[rng.index(7)] += 1);
        assert!(counts.iter().all(|&c| (850..1150).contains(&c)), "{counts:?}");
        assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.f64())));
        assert_eq!((rng.below(0), rng.below(1), rng.index(0)), (0, 0, 0));
    }

    #[test]
    fn streams_depend_on_seed_and_name_only() {
        let mut a = Rng::stream(1, "shuffle");
        assert_eq!(a.u64(), Rng::stream(1, "shuffle").u64());
        assert_ne!(Rng::stream(1, "shuffle").u64(), Rng::stream(1, "split").u64());
        assert_ne!(Rng::stream(1, "shuffle").u64(), Rng::stream(2, "shuffle").u64());
    }

    #[test]
    fn permutations_and_samples_are_complete_and_pinned() {
        let mut p = Rng::new(3).permutation(100);
        assert_ne!(p, (0..100).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..100).collect::<Vec<_>>());
        let mut s = Rng::new(3).sample(10, 4);
        s.sort_unstable();
        s.dedup();
        assert_eq!(s.len(), 4);
        assert_eq!(Rng::new(3).sample(3, 9).len(), 3);
        // All six orders of three items occur about equally often.
        let mut rng = Rng::new(11);
        let mut seen = std::collections::BTreeMap::new();
        (0..6000).for_each(|_| *seen.entry(rng.permutation(3)).or_insert(0) += 1);
        assert!(seen.len() == 6 && seen.values().all(|&c| (880..1120).contains(&c)), "{seen:?}");
    }
}
