//! The protocols: one file and one registry line each.

pub(crate) mod autoattack;
pub(crate) mod cascade;
pub(crate) mod transfer;
mod universal;

use netproof_audit::Entry;

use super::protocol::{Protocols, protocol};

/// All protocols.
pub static PROTOCOLS: Protocols = &[
    Entry { card: &cascade::CARD, build: protocol::<cascade::Cascade> },
    Entry { card: &autoattack::CARD, build: protocol::<autoattack::AutoAttack> },
    Entry { card: &universal::CARD, build: protocol::<universal::Universal> },
    Entry { card: &transfer::CARD, build: protocol::<transfer::Transfer> },
];
