//! Small deliberate changes of an input that make a network fail, and what helps against them.

pub(crate) mod defences;
