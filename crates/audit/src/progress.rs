/// Where long work says how far it is. Every method may be called from any thread.
pub trait Progress: Sync {
    /// Work begins: what it is, and how many steps it has.
    fn start(&self, what: &str, steps: u64);
    /// Steps are done.
    fn advance(&self, steps: u64);
    /// The work that was started last is over.
    fn finish(&self);
    /// Something a person should know now.
    fn note(&self, text: &str);
    /// Whether a person asked to end. Work then ends with [`AuditError::Interrupted`](crate::AuditError::Interrupted) as
    /// soon as it can; what was finished is kept.
    fn stopped(&self) -> bool {
        false
    }
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn finish(&self) {}
    fn note(&self, _: &str) {}
}
