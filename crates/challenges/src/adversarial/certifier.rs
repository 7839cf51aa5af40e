//! What the cascade asks of certificates.

use netproof_core::Threat;

use super::AttackError;
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
