//! What the cascade asks of certificates.

use netproof_core::Threat;
use netproof_tensor::Tensor;

use super::AttackError;
use super::certificates::{Ladder, proved};
use super::victim::Victim;

/// Proves rows right under every change within a threat.
pub trait Certifier: Sync {
    /// Name for people and files.
    fn id(&self) -> &'static str;

    /// For each row whether it is proved. A row that is not proved may still be robust.
    /// # Shapes
    /// `x [n, row]`, `labels [n]` → `[n]`
    /// # Errors
    /// The network has something that the certificate cannot bound.
    fn certify(
        &self,
        victim: &Victim<'_>,
        x: &[f32],
        labels: &[usize],
        threat: &Threat,
    ) -> Result<Vec<bool>, AttackError>;
}

/// A certificate of the registry, as the cascade asks it.
#[derive(Debug, Clone, Copy)]
pub struct Registered {
    /// Id in [`CERTIFICATES`](super::certificates::CERTIFICATES).
    pub id: &'static str,
}

/// Certificates that cost about as much as an attack, cheapest first. CROWN, which bounds every neuron by itself, costs minutes on
/// a convolutional network; the check `certified-accuracy` has it.
pub static CHEAP: &[Registered] = &[Registered { id: "ibp" }, Registered { id: "crown-ibp" }];

impl Certifier for Registered {
    fn id(&self) -> &'static str {
        self.id
    }

    fn certify(
        &self,
        victim: &Victim<'_>,
        x: &[f32],
        labels: &[usize],
        threat: &Threat,
    ) -> Result<Vec<bool>, AttackError> {
        let Some(model) = victim.as_it_is() else {
            return Err(AttackError::Victim(
                "a random network, or one with another backward pass, has no bounds".to_owned(),
            ));
        };
        let rows = Tensor::f32([&[labels.len()], victim.row()].concat(), x.to_vec())?;
        let found = proved(model, &rows, labels, threat, &Ladder::of(&[self.id])?)?;
        if found.count() == 0 && !found.notes.is_empty() {
            return Err(AttackError::Victim(found.notes.join("; ")));
        }
        Ok((0..labels.len()).map(|row| found.is_proved(row)).collect())
    }
}

#[cfg(test)]
mod tests {
    use netproof_core::Norm;

    use super::*;
    use crate::adversarial::test_support::{linear, rows, victim};

    /// On a linear model every certificate is exact.
    #[test]
    fn on_a_linear_model_what_is_proved_is_what_the_dual_norm_says() {
        let w = [[0.0f32, 0.0, 0.0], [0.5, -2.0, 1.0]];
        let model = linear(&w, &[0.1, 0.4]);
        let (x, labels) = rows(&model, 3, 40, 2);
        let v = victim(&model, &[3]);
        let z = v.logits(&x).unwrap();
        for certifier in CHEAP {
            for (norm, dual) in [(Norm::Linf, 3.5), (Norm::L2, 5.25f64.sqrt()), (Norm::L1, 2.0)] {
                // No bounds in reach, so that the dual norm is all there is.
                let threat = Threat::new(norm, 0.15, [-9.0, 9.0]).unwrap();
                let proved = certifier.certify(&v, &x, &labels, &threat).unwrap();
                for (i, p) in proved.iter().enumerate() {
                    let distance = f64::from((z[2 * i + 1] - z[2 * i]).abs()) / dual;
                    if (distance - 0.15).abs() > 1e-3 {
                        assert_eq!(*p, distance > 0.15, "{} {norm} row {i}: {distance}", certifier.id);
                    }
                }
            }
        }
    }
}
