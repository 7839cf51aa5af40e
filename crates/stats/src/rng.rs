//! The one source of random draws: xoshiro256**, seeded by SplitMix64.
//!
//! Blackman and Vigna, ACM Transactions on Mathematical Software 47(4), 2021 (xoshiro256**); Steele, Lea and Flood,
//! OOPSLA 2014 (SplitMix64). Integer arithmetic only, so a seed gives the same draws on every machine. Not for secrets.

/// A seeded generator. Equal seeds and streams give equal draws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator for a seed.
    pub fn new(seed: u64) -> Self {
        Self::stream(seed, 0)
    }

    /// An independent generator for a numbered part of the work under a seed (such as one resample), so that parts can
    /// be computed in any order or on any thread. Stream 0 is [`Rng::new`].
    pub fn stream(seed: u64, stream: u64) -> Self {
        // The stream number passes through SplitMix64's mixing before it meets the seed: neighbouring streams and
        // neighbouring seeds then share no state words.
        let mut mix = seed ^ if stream == 0 { 0 } else { split_mix_64(&mut stream.clone()) };
        let state = std::array::from_fn(|_| split_mix_64(&mut mix));
        Self { state }
    }

    /// An independent generator for a named purpose under a seed, such as `split`: the name's FNV-1a hash numbers the stream.
    pub fn named(seed: u64, purpose: &str) -> Self {
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
        Self::stream(seed, hash)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number in `[0, 1)`, a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A whole number in `0..bound`, each equally likely; 0 where `bound` is 0.
    ///
    /// # Source
    /// Lemire, ACM Transactions on Modeling and Computer Simulation 29(1), 2019, algorithm 5.
    pub fn below(&mut self, bound: usize) -> usize {
        let n = bound as u64;
        if n == 0 {
            return 0;
        }
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as usize
    }

    /// Puts a slice in random order, every order equally likely.
    ///
    /// # Source
    /// Durstenfeld 1964, Communications of the ACM 7(7), algorithm 235 (Fisher–Yates).
    pub fn shuffle<T>(&mut self, slice: &mut [T]) {
        for i in (1..slice.len()).rev() {
            slice.swap(i, self.below(i + 1));
        }
    }

    /// The numbers `0..n` in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut items: Vec<usize> = (0..n).collect();
        self.shuffle(&mut items);
        items
    }

    /// Fills a slice with standard normal numbers, two of each pair of draws: a third of the time of [`Rng::normal`].
    ///
    /// # Source
    /// Box and Muller 1958, Annals of Mathematical Statistics 29(2), 610–611.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        for pair in out.chunks_mut(2) {
            // Half a step away from 0, where the logarithm is infinite.
            let reach = (-2.0 * (self.unit() + 0.5 / (1u64 << 53) as f64).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * self.unit()).sin_cos();
            pair[0] = (reach * cos) as f32;
            if let Some(second) = pair.get_mut(1) {
                *second = (reach * sin) as f32;
            }
        }
    }

    /// A standard normal number, by inversion: one draw gives one number, so streams stay aligned.
    pub fn normal(&mut self) -> f64 {
        // Half a step away from 0, where the quantile is infinite.
        crate::special::normal_quantile(self.unit() + 0.5 / (1u64 << 53) as f64)
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
    fn named_streams_depend_on_seed_and_name_only() {
        let first = |seed, name| Rng::named(seed, name).next_u64();
        assert_eq!(first(1, "shuffle"), first(1, "shuffle"));
        assert_ne!(first(1, "shuffle"), first(1, "split"));
        assert_ne!(first(1, "shuffle"), first(2, "shuffle"));
    }

    #[test]
    fn filled_normals_have_the_moments_and_tails_of_the_normal_law() {
        let mut values = vec![0.0; 200_001];
        Rng::new(5).fill_normal(&mut values);
        let n = values.len() as f64;
        let moment = |k: i32| values.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.015 && moment(3).abs() < 0.04);
        assert!((moment(4) - 3.0).abs() < 0.1);
        let beyond = values.iter().filter(|v| v.abs() > 1.96).count() as f64 / n;
        assert!((beyond - 0.05).abs() < 0.003, "{beyond}");
        let products = values.windows(2).map(|w| f64::from(w[0]) * f64::from(w[1])).sum::<f64>() / n;
        assert!(products.abs() < 0.01);
        let mut short = vec![0.0; 3];
        Rng::new(5).fill_normal(&mut short);
        assert_eq!(short, values[..3]);
    }

    #[test]
    fn all_orders_of_three_occur_about_equally_often() {
        let mut rng = Rng::new(11);
        let mut seen = std::collections::BTreeMap::new();
        (0..6000).for_each(|_| *seen.entry(rng.permutation(3)).or_insert(0) += 1);
        assert!(seen.len() == 6 && seen.values().all(|&c| (880..1120).contains(&c)), "{seen:?}");
    }

    #[test]
    fn split_mix_64_gives_the_published_sequence() {
        // Published with the reference implementation, for seed 1234567.
        let mut s = 1_234_567;
        let got: Vec<u64> = (0..5).map(|_| split_mix_64(&mut s)).collect();
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn xoshiro_gives_the_published_sequence() {
        // State 1, 2, 3, 4, as in the test vectors of the Rust crate rand_xoshiro 0.6.
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let got: Vec<u64> = (0..5).map(|_| rng.next_u64()).collect();
        assert_eq!(got, [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240, 1_216_172_134_540_287_360]);
    }

    #[test]
    fn streams_repeat_and_differ() {
        assert_eq!(Rng::new(7), Rng::stream(7, 0));
        assert_eq!(Rng::stream(7, 3).next_u64(), Rng::stream(7, 3).next_u64());
        let mut seen = std::collections::HashSet::new();
        for seed in 0..50 {
            for stream in 0..50 {
                assert!(seen.insert(Rng::stream(seed, stream).next_u64()), "seed {seed} stream {stream}");
            }
        }
    }

    #[test]
    fn below_is_uniform_and_unit_has_the_moments_of_the_uniform_law() {
        let mut rng = Rng::new(1);
        let mut counts = [0usize; 7];
        for _ in 0..70_000 {
            counts[rng.below(7)] += 1;
        }
        // Chi-squared with 6 degrees of freedom; 22.46 is its 0.999 quantile.
        let chi: f64 = counts.iter().map(|&c| (c as f64 - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi < 22.46, "{counts:?}");
        let draws: Vec<f64> = (0..100_000).map(|_| rng.unit()).collect();
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = Sum::mean(&draws).unwrap();
        assert!((mean - 0.5).abs() < 4.0 * (1.0f64 / 12.0 / 1e5).sqrt());
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn shuffles_are_permutations_with_every_order_equally_likely() {
        let mut rng = Rng::new(2);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let mut v = [0, 1, 2];
            rng.shuffle(&mut v);
            *counts.entry(v).or_insert(0usize) += 1;
        }
        assert_eq!(counts.len(), 6);
        let chi: f64 = counts.values().map(|&c| (c as f64 - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 20.52, "{counts:?}");
    }

    #[test]
    fn normal_draws_have_mean_0_and_variance_1() {
        let mut rng = Rng::new(3);
        let draws: Vec<f64> = (0..100_000).map(|_| rng.normal()).collect();
        let mean = Sum::mean(&draws).unwrap();
        let var = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.013 && (var - 1.0).abs() < 0.018, "{mean} {var}");
    }

    use crate::Sum;
}
