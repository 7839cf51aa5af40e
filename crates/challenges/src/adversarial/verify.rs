//! Replays the examples of a run: every claim is checked by one forward pass.

use netproof_audit::Head;
use netproof_core::Norm;
use netproof_graph::Model;
use netproof_tensor::Tensor;
use serde::Serialize;

use super::AttackError;
use super::loss::is_right;
use super::motion::Motion;
use super::projection::{size, tolerance};
use super::report::AttackReport;
use super::victim::Victim;

/// What a run says.
#[derive(Debug, Clone, Copy)]
pub struct Claims<'a> {
    /// Rows without a change, `[n, ...]`.
    pub clean: &'a Tensor,
    /// Examples; the clean row where none was found.
    pub adversarial: &'a Tensor,
    /// Rows that are said to be right after all attacks.
    pub robust: &'a [bool],
    /// True classes.
    pub labels: &'a [i64],
    /// Numbers of the rows in the source.
    pub rows: &'a [i64],
    /// How each example was turned and moved, `[n, 3]`: degrees, pixels to the right, pixels down. Where that is the threat.
    pub motions: Option<&'a Tensor>,
    /// The rest.
    pub report: &'a AttackReport,
}

/// What of it holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Verified {
    /// Rows that are said to be broken.
    pub examples: u64,
    /// Of those, how many are.
    pub confirmed: u64,
    /// Clean rows that are answered as is said.
    pub clean_confirmed: u64,
    /// What does not hold.
    pub failures: Vec<Failure>,
}

/// A claim that does not hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// Number of the row in the source.
    pub row: i64,
    /// What is not as it is said to be.
    pub reason: String,
}

/// Checks claims about a network.
/// # Errors
/// Arrays and record do not fit each other or the network.
pub fn verify(model: &Model, claims: &Claims<'_>) -> Result<Verified, AttackError> {
    let n = claims.labels.len();
    let fits = claims.robust.len() == n && claims.rows.len() == n && claims.report.outcomes.len() == n;
    let (Some(clean), Some(adversarial)) = (claims.clean.as_f32(), claims.adversarial.as_f32()) else {
        return Err(AttackError::Mismatch("the examples hold no floats".to_owned()));
    };
    if !fits || claims.clean.shape() != claims.adversarial.shape() || claims.clean.rows() != n {
        return Err(AttackError::Mismatch(
            "the arrays of the examples and the record are of different lengths".to_owned(),
        ));
    }
    let row_shape = claims.clean.shape().get(1..).unwrap_or_default();
    // Only the largest output matters here, so what the outputs mean beyond that does not.
    let victim = Victim::new(model, head(model, claims.clean)?, row_shape, claims.clean)?;
    let (len, k) = (victim.row_len(), victim.classes());
    let (before, after) = (victim.logits(clean)?, victim.logits(adversarial)?);
    let mut found = Verified::default();
    let threat = &claims.report.threat;
    let motions = match threat.norm {
        Norm::Spatial => Some(motions(claims, n)?),
        _ => None,
    };
    if let Some(p) = claims.report.possible.as_ref().filter(|p| p.features.len() != len) {
        let message = format!("the record has constraints of {} features, rows have {len}", p.features.len());
        return Err(AttackError::Mismatch(message));
    }
    for i in 0..n {
        let row = claims.rows[i];
        let mut fail = |reason: String| found.failures.push(Failure { row, reason });
        let outcome = &claims.report.outcomes[i];
        let Ok(label) = usize::try_from(claims.labels[i]) else {
            fail(format!("its class is {}", claims.labels[i]));
            continue;
        };
        if label >= k {
            fail(format!("its class is {label}, the network has {k}"));
            continue;
        }
        let (x, y) = (&clean[i * len..(i + 1) * len], &adversarial[i * len..(i + 1) * len]);
        let right = |z: &[f32]| is_right(&z[i * k..(i + 1) * k], label);
        let said = outcome.outcome.as_str();
        let was_right = !matches!(said, "wrong" | "undefined");
        if right(&before) != was_right {
            fail(format!("it is said to be {said}, the network {} on the clean row", answer(right(&before))));
            continue;
        }
        found.clean_confirmed += 1;
        if claims.robust[i] != matches!(said, "standing" | "certified") {
            fail(format!("the record says {said}, the array `robust` says {}", claims.robust[i]));
        } else if said == "broken" {
            found.examples += 1;
            let motion = motions.as_ref().map(|m| m[i]);
            let size = motion.map_or_else(|| size(threat.norm, victim.row(), x, y), |m| m.size(victim.row()));
            let [low, high] = threat.bounds.map(|b| b as f32);
            let within = size <= threat.epsilon + tolerance(threat, len);
            if !within {
                fail(format!("its example is {size} away in {}, more than {}", threat.norm, threat.epsilon));
            } else if let Some(v) = y.iter().find(|v| !(**v >= low && **v <= high)) {
                fail(format!("its example holds {v}, outside {low} to {high}"));
            } else if motion.is_some_and(|m| !is_made_by(m, victim.row(), x, y, low)) {
                fail("its example is not the clean row after the motion that is said".to_owned());
            } else if let Some(why) = claims.report.possible.as_ref().and_then(|p| p.violation(x, y)) {
                fail(format!("its example cannot be: {why}"));
            } else if right(&after) {
                fail("the network is right on its example".to_owned());
            } else {
                found.confirmed += 1;
            }
        }
    }
    Ok(found)
}

/// # Errors
/// They are missing, or of other rows.
fn motions(claims: &Claims<'_>, n: usize) -> Result<Vec<Motion>, AttackError> {
    let values = claims.motions.and_then(Tensor::as_f32).filter(|v| v.len() == 3 * n);
    let values = values.ok_or_else(|| AttackError::Mismatch("the examples lack the motions, [rows, 3]".to_owned()))?;
    Ok(values.chunks_exact(3).map(|m| Motion { degrees: m[0], right: m[1], down: m[2] }).collect())
}

/// Whether a motion of the clean row gives the example, up to the last bits of sine and cosine.
fn is_made_by(motion: Motion, row: &[usize], clean: &[f32], example: &[f32], outside: f32) -> bool {
    let made = motion.apply(row, clean, outside);
    made.iter().zip(example).all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs().max(1.0))
}

fn answer(right: bool) -> &'static str {
    if right { "is right" } else { "is wrong" }
}

/// What the outputs mean, as far as that matters for the largest of them.
pub(super) fn head(model: &Model, sample: &Tensor) -> Result<Head, AttackError> {
    let one = model.outputs().first().and_then(|o| o.shape.clone()).and_then(|s| s.last().cloned());
    let single = matches!(one, Some(netproof_graph::Dim::Fixed(1)))
        || Victim::new(model, Head::Logits, sample.shape().get(1..).unwrap_or_default(), sample).is_err();
    let probability = model.outputs().first().and_then(|o| model.producer(&o.name)) == Some("Sigmoid");
    Ok(match (single, probability) {
        (false, _) => Head::Logits,
        (true, false) => Head::BinaryLogit,
        (true, true) => Head::BinaryProbability,
    })
}
