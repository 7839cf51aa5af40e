//! Values of SciPy 1.17.1 and scikit-learn 1.9.1 on made-up data with many ties.

use netproof_stats::bootstrap::{Method, Options, bootstrap};
use netproof_stats::roc::{auroc, average_precision};
use netproof_stats::{Level, Sum, descriptive};

#[track_caller]
fn close(got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{got} for {expected}");
}

/// The generator was written again in Python; its resamples, handed to `scipy.stats.bootstrap` through
/// `bootstrap_result`, give these intervals at 0.9 with seed 11 and 500 resamples. A change of the generator or of the
/// order of draws changes every seeded result of Netproof and fails here.
#[test]
fn bootstrap_intervals_are_scipys_on_the_same_resamples() {
    let x: Vec<f64> = (0..40).map(|i| f64::from((i * 37) % 101).powi(2) / 100.0).collect();
    let pick = |rows: &[usize]| rows.iter().map(|&r| x[r]).collect::<Vec<f64>>();
    let mean = |rows: &[usize]| Sum::mean(&pick(rows));
    let deviation = |rows: &[usize]| {
        let x = pick(rows);
        let center = Sum::mean(&x)?;
        Some((x.iter().map(|v| (v - center).powi(2)).sum::<f64>() / x.len() as f64).sqrt())
    };
    let median = |rows: &[usize]| descriptive::quantile(&pick(rows), 0.5);
    type Case<'a> = (&'a dyn Fn(&[usize]) -> Option<f64>, f64, [(f64, f64); 3]);
    let cases: [Case; 3] = [
        (
            &mean,
            4.959968537683947,
            [(25.985375, 42.15152500000001), (24.938474999999997, 41.104625), (26.447859038608662, 43.19792967136351)],
        ),
        (
            &deviation,
            2.586974339722439,
            [
                (25.830742549387164, 34.06048611833974),
                (27.265103483391776, 35.494847052344355),
                (27.10666238648898, 35.14239058407262),
            ],
        ),
        (&median, 7.835235979778633, [(12.96, 37.845), (9.245000000000005, 34.13), (12.96, 37.845)]),
    ];
    for (statistic, error, intervals) in cases {
        for (method, (low, high)) in [Method::Percentile, Method::Basic, Method::Bca].into_iter().zip(intervals) {
            let options = Options { resamples: 500, seed: 11, level: Level::P90, method };
            let got = bootstrap(40, &options, statistic).unwrap().unwrap().estimate;
            let interval = got.interval.unwrap();
            close(got.standard_error.unwrap(), error, 1e-12);
            close(interval.low, low, 1e-10);
            close(interval.high, high, 1e-10);
        }
    }
}

/// `roc_auc_score` and `average_precision_score` of scikit-learn; DeLong's standard error over all pairs in NumPy. Zeros
/// of both signs are among the scores and tie.
#[test]
fn areas_with_many_ties_are_scikit_learns() {
    let scores = [
        0.0, 0.3, -0.3, -0.9, -0.5, -1.0, 0.1, 1.3, -0.5, -0.6, 0.5, 0.4, 0.1, -0.9, -0.0, 0.7, -1.3, -0.5, -1.9, -1.3,
        -1.8, -0.2, -1.3, 0.3, 0.2, -0.2, -2.5, -0.5, -0.0, 0.1, -1.5, -0.5, -1.0, -0.8, 1.1, -0.8, -0.0, 0.9, -0.6,
        -0.1, 0.1, 0.1, -1.2, 0.1, 1.4, -1.5, 0.9, 0.1, -0.6, 2.0, 0.8, -1.2, 0.1, 0.6, -0.2, 0.7, -0.1, 0.7, 1.4,
        -0.7,
    ];
    let positive = [
        0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 1, 0, 1, 1,
        1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 1,
    ]
    .map(|l| l == 1);
    let area = auroc(&scores, &positive, Level::P95).unwrap().unwrap();
    close(area.value, 0.38660399529964745, 1e-14);
    close(area.standard_error.unwrap(), 0.07512610465481764, 1e-13);
    close(average_precision(&scores, &positive).unwrap().unwrap(), 0.3300066317689739, 1e-14);
}
