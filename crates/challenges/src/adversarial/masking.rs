//! Signs that a robust accuracy is not to be trusted, because gradients lie.
//!
//! The six flags of AutoAttack (random network, probabilities instead of logits, zero gradients, Square better than gradients by
//! over 0.2 points, gradients inside the network, too few classes), of which the fifth cannot be for an ONNX file, and those of
//! Athalye, Carlini and Wagner, ICML 2018, arXiv:1802.00420, section 3.1: gradients that are not finite or not there.
//! What needs runs of its own (an unbounded attack must reach 100 %, loss must grow with epsilon) is in the check
//! `gradient-masking`.

use super::AttackError;
use super::attack::Access;
use super::attacks::ATTACKS;
use super::harness::Harness;

/// Fraction of gradients that may vanish.
const VANISHED: f64 = 0.02;
/// Fraction of rows by which Square may beat gradients. `check_square_sr` of AutoAttack.
const SQUARE: f64 = 0.002;
/// Fraction from which that is more than the few rows which Square finds on honest networks too (half a point on
/// `mnist-trades`), so that stronger attacks should follow.
const SQUARE_BY_FAR: f64 = 0.01;
/// How much normalised logits of two looks may differ. `check_randomized` of AutoAttack.
const RANDOM: f32 = 1e-4;

/// One sign.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    /// Name in kebab case.
    pub id: &'static str,
    /// Whether it is seen.
    pub raised: bool,
    /// Whether stronger attacks without gradients should follow.
    pub escalates: bool,
    /// What was measured.
    pub text: String,
}

/// What the attacks that have run, and a few looks at the network, say about its gradients.
/// # Errors
/// The network refuses.
pub fn flags(harness: &Harness<'_, '_>) -> Result<Vec<Flag>, AttackError> {
    let mut found = vec![random(harness)?, probabilities(harness), square_beats_gradients(harness)];
    found.extend(gradients(harness));
    let classes = harness.victim().classes();
    found.push(Flag {
        id: "few-classes",
        raised: classes < 4,
        escalates: false,
        text: format!("{classes} classes; losses on ratios of logits need four"),
    });
    Ok(found)
}

/// Two looks at the same rows.
fn random(harness: &Harness<'_, '_>) -> Result<Flag, AttackError> {
    let (v, n) = (harness.victim(), harness.len().min(32));
    let x = &harness.clean()[..n * v.row_len()];
    let mut largest = 0.0f32;
    let first = v.clone().salted(1).logits(x)?;
    for salt in 2..6 {
        let again = v.clone().salted(salt).logits(x)?;
        for (a, b) in first.chunks_exact(v.classes()).zip(again.chunks_exact(v.classes())) {
            let size = a.iter().fold(0.0f32, |m, z| m.max(z.abs())).max(1e-12);
            let far = a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            largest = largest.max(far / size);
        }
    }
    Ok(Flag {
        id: "random-network",
        raised: largest > RANDOM,
        escalates: false,
        text: format!("two looks at the same row differ by up to {:.2} % of its largest logit", 100.0 * largest),
    })
}

fn probabilities(harness: &Harness<'_, '_>) -> Flag {
    Flag {
        id: "no-logits",
        raised: harness.victim().sees_probabilities(),
        escalates: true,
        text: "attacks see logarithms of probabilities, whose gradient vanishes where they are saturated".to_owned(),
    }
}

/// Rows that an attack without gradients broke after all gradient attacks.
fn square_beats_gradients(harness: &Harness<'_, '_>) -> Flag {
    let scores = |id: &str| {
        let base = ATTACKS.iter().find(|a| id == a.card.id || id.starts_with(&format!("{}-", a.card.id)));
        base.and_then(|a| (a.build)(a.card, toml::Table::new()).ok())
            .is_some_and(|a| a.method.access() != Access::Gradients)
    };
    let (mut black, mut long, mut white, mut tried) = (0, 0, 0, false);
    for s in harness.stages() {
        if scores(&s.id) {
            black += s.broken;
            // What a search of its own, on the rows where it pays, has found already.
            long += if s.id.starts_with("square-long") { s.broken } else { 0 };
        } else {
            (white, tried) = (white + s.broken, true);
        }
    }
    let share = |n: u64| n as f64 / harness.len().max(1) as f64;
    Flag {
        id: "black-box-beats-white-box",
        // Where no gradient was asked for, none was beaten.
        raised: tried && white + black > 0 && share(black) > SQUARE.max(share(1) * 1.5),
        escalates: share(black - long) > SQUARE_BY_FAR,
        text: format!(
            "attacks without gradients broke {black} rows that no gradient attack broke, which broke {white}"
        ),
    }
}

fn gradients(harness: &Harness<'_, '_>) -> Vec<Flag> {
    let mut total = super::oracle::Count::default();
    harness.stages().iter().for_each(|s| total += s.count);
    let share = |n: u64| n as f64 / total.backward.max(1) as f64;
    let missing = harness.victim().need_gradient().err().map(|e| e.to_string());
    vec![
        Flag {
            id: "zero-gradients",
            raised: total.backward > 0 && share(total.zero) > VANISHED,
            escalates: true,
            text: format!("{:.1} % of the gradients are zero everywhere", 100.0 * share(total.zero)),
        },
        Flag {
            id: "gradients-not-finite",
            raised: total.not_finite > 0,
            escalates: true,
            text: format!("{} of {} gradients hold a NaN or an infinity", total.not_finite, total.backward),
        },
        Flag {
            id: "no-gradients",
            raised: missing.is_some(),
            escalates: true,
            text: missing.unwrap_or_else(|| "the network is differentiable with respect to its input".to_owned()),
        },
    ]
}
