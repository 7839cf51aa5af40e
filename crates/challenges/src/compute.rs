//! Cost in operations, memory, time and energy.

pub(crate) mod compute_cost;
