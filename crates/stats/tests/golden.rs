//! Metrics of a real network on real images against the field's own libraries.
//!
//! Values marked "golden" were computed once with PyTorch 2.15 and scikit-learn; the others with NumPy 2.4.6, SciPy
//! 1.17.1 and scikit-learn 1.9.1 in double precision from the same logits.

use netproof_stats::bootstrap::{self, Method, bootstrap};
use netproof_stats::calibration::{
    Binning, Confidences, Reliability, Status, bootstrap_error, classwise_error, consistency, fit_temperature,
};
use netproof_stats::classification::{ConfusionMatrix, argmax, top_k_accuracy};
use netproof_stats::hardest::hardest;
use netproof_stats::interval::mean::mean;
use netproof_stats::probability::{Probabilities, brier_decomposition, brier_scores, log_losses, log_losses_of_logits};
use netproof_stats::roc::{average_precision, one_versus_rest, roc_curve};
use netproof_stats::{Level, Sum};

const CLASSES: usize = 10;

fn logits() -> Vec<f32> {
    let bytes = include_bytes!("fixtures/fashion-cnn-logits-2000x10.f32");
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn labels() -> Vec<usize> {
    include_bytes!("fixtures/fashion-mnist-test-labels-2000.u8").iter().map(|&b| usize::from(b)).collect()
}

#[track_caller]
fn close(got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance, "{got} for {expected}, off by {:e}", (got - expected).abs());
}

/// For values from the same logits in double precision.
const CLOSE: f64 = 1e-12;
/// For values that PyTorch computed in single precision.
const SINGLE: f64 = 1e-6;

#[test]
fn classification() {
    let (logits, labels) = (logits(), labels());
    let m = ConfusionMatrix::new(CLASSES, &labels, &argmax(&logits, CLASSES).unwrap()).unwrap();
    assert_eq!((m.correct(), m.total()), (1765, 2000));
    close(m.accuracy(Level::P95).unwrap().value, 0.8824999928474426, SINGLE); // golden
    close(m.macro_f1().unwrap().value, 0.8833647139376852, CLOSE); // golden
    close(m.balanced_accuracy().unwrap().value, 0.8836183874493967, CLOSE);
    close(m.weighted_f1().unwrap(), 0.8814760019159773, CLOSE);
    close(m.micro_f1().unwrap(), 0.8825, CLOSE);
    close(m.matthews_correlation().unwrap(), 0.8697168742899527, CLOSE);
    close(m.cohen_kappa().unwrap(), 0.8693848694321131, CLOSE);
    for (k, expected) in [(1, 0.8825), (2, 0.965), (5, 0.997), (10, 1.0)] {
        close(top_k_accuracy(&logits, CLASSES, &labels, k, Level::P95).unwrap().unwrap().value, expected, CLOSE);
    }
}

#[test]
fn probabilities() {
    let (logits, labels) = (logits(), labels());
    let p = Probabilities::from_logits(&logits, CLASSES, &labels).unwrap();
    let losses = log_losses_of_logits(&logits, CLASSES, &labels).unwrap();
    let log_loss = mean(&losses, Level::P95).unwrap();
    close(log_loss.value, 0.3381890058517456, SINGLE); // golden
    close(log_loss.value, 0.338188992251847, CLOSE);
    close(Sum::mean(&log_losses(&p)).unwrap(), log_loss.value, CLOSE);
    let brier = Sum::mean(&brier_scores(&p)).unwrap();
    close(brier, 0.1734972447156906, SINGLE); // golden
    close(brier, 0.17349723777448028, CLOSE);
    let d = brier_decomposition(&p, 15).unwrap().unwrap();
    close(d.brier, brier, CLOSE);
    close(d.reliability - d.resolution + d.uncertainty + d.within_bins, brier, CLOSE);
    close(d.reliability, 0.012974906278339852, CLOSE);
    close(d.resolution, 0.7383191113473699, CLOSE);
    close(d.uncertainty, 0.89978, CLOSE);
    let worst = hardest(&losses, 3);
    let mut sorted = losses.clone();
    sorted.sort_by(f64::total_cmp);
    assert_eq!(worst.iter().map(|&row| losses[row]).collect::<Vec<_>>(), [sorted[1999], sorted[1998], sorted[1997]]);
}

#[test]
fn ranking() {
    let (logits, labels) = (logits(), labels());
    let p = Probabilities::from_logits(&logits, CLASSES, &labels).unwrap();
    let got = one_versus_rest(p.values(), CLASSES, &labels, Level::P95).unwrap();
    let average = got.macro_average.unwrap();
    close(average.value, 0.9902065132239584, CLOSE); // golden
    assert_eq!((average.classes, average.of), (10, 10));
    // 300 resamples of rows with scikit-learn gave 0.00088.
    close(average.standard_error, 0.000_88, 0.000_08);
    // DeLong's formula over all pairs, in NumPy.
    for (class, value, error) in
        [(0, 0.9887888888888889, 0.002124234130621827), (6, 0.9585997392951962, 0.005322591057499526)]
    {
        let area = got.per_class[class].unwrap();
        close(area.value, value, CLOSE);
        close(area.standard_error.unwrap(), error, CLOSE);
    }
    let positive: Vec<bool> = labels.iter().map(|&l| l == 0).collect();
    close(average_precision(&p.column(0), &positive).unwrap().unwrap(), 0.9119222545728182, CLOSE);
    assert_eq!(roc_curve(&p.column(0), &positive, 50).unwrap().unwrap().len(), 50);
}

#[test]
fn calibration() {
    let (logits, labels) = (logits(), labels());
    let p = Probabilities::from_logits(&logits, CLASSES, &labels).unwrap();
    let rows = Confidences::of_predicted(&p);
    let d = Reliability::new(&rows, Binning::GUO, Level::P95).unwrap();
    let ece = d.expected_error().unwrap();
    close(ece, 0.016765319786645493, SINGLE); // golden
    close(ece, 0.016765296855622894, CLOSE);
    let worst = d.largest_gap().unwrap();
    close(worst.value, 0.12462326201692386, CLOSE);
    assert_eq!((worst.bin, worst.count), (5, 20));
    close(d.squared_error_debiased().unwrap(), -0.0001377854480125714, CLOSE);
    let adaptive = Reliability::new(&rows, Binning::EqualMass(15), Level::P95).unwrap();
    close(adaptive.expected_error().unwrap(), 0.01710082103509754, CLOSE);
    close(classwise_error(&p, Binning::GUO).unwrap().unwrap().mean, 0.009331187822582082, CLOSE);
    // This network is well calibrated: its error is what noise alone gives.
    let c = consistency(&rows, Binning::GUO, 500, 0, Level::P95).unwrap().unwrap();
    close(c.observed, ece, CLOSE);
    assert!(c.p_value > 0.2 && c.limit > ece && (c.expected - 0.0167).abs() < 0.003, "{c:?}");
    let options = bootstrap::Options { resamples: 300, method: Method::Basic, ..bootstrap::Options::default() };
    let i = bootstrap_error(&rows, Binning::GUO, &options).unwrap().unwrap().estimate.interval.unwrap();
    assert!(i.low < 0.01 && i.high > 0.015 && i.high < 0.03, "{i:?}");
}

#[test]
fn temperature() {
    let (logits, labels) = (logits(), labels());
    let t = fit_temperature(&logits, CLASSES, &labels).unwrap().unwrap();
    assert_eq!(t.status, Status::Converged);
    close(t.log_loss_before, 0.3381890058517456, SINGLE); // golden
    close(t.log_loss_after, 0.3380751311778022, SINGLE); // golden
    // Root of the derivative by SciPy's brentq to 1e-15. The golden file's 0.976850 is where an optimiser in single
    // precision stopped: the derivative there is not 0 (-3.3e-4), and its loss is larger, by 1.6e-7.
    close(t.temperature, 0.97600412455624, CLOSE);
    close(t.log_loss_after, 0.3380749746377861, CLOSE);
    let scaled: Vec<f64> = logits.iter().map(|&z| f64::from(z) / 0.9768500924110413).collect();
    let golden = Sum::mean(&log_losses_of_logits(&scaled, CLASSES, &labels).unwrap()).unwrap();
    close(golden, 0.3380751311778022, SINGLE); // golden
    assert!(t.log_loss_after < golden);
    let i = t.interval(Level::P95).unwrap();
    assert!(i.contains(1.0) && i.high - i.low < 0.2 && t.iterations < 20, "{i:?} {t:?}");
}

#[test]
fn macro_f1_by_resampling_rows() {
    let (logits, labels) = (logits(), labels());
    let predicted = argmax(&logits, CLASSES).unwrap();
    let options = bootstrap::Options { resamples: 200, method: Method::Percentile, ..bootstrap::Options::default() };
    let b = bootstrap(labels.len(), &options, |rows| {
        let l: Vec<usize> = rows.iter().map(|&r| labels[r]).collect();
        let p: Vec<Option<usize>> = rows.iter().map(|&r| predicted[r]).collect();
        ConfusionMatrix::new(CLASSES, &l, &p).ok()?.macro_f1().map(|f| f.value)
    });
    let e = b.unwrap().unwrap().estimate;
    close(e.value, 0.8833647139376852, CLOSE);
    // About the binomial error of the accuracy, sqrt(0.8825 * 0.1175 / 2000) = 0.0072.
    close(e.standard_error.unwrap(), 0.0072, 0.0012);
}
