//! What helps against adversarial examples, or is said to.

pub(crate) mod training;
