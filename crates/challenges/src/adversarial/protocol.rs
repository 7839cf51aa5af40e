//! Evaluations that run several attacks in an order, and the choice of one by name.

use netproof_audit::{AuditError, Configured, Entry, select};
use netproof_core::{Card, Norm};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::AttackError;
use super::attack::{Attack, Attacks};
use super::attacks::ATTACKS;
use super::certifier::Certifier;
use super::harness::Harness;
use super::protocols::PROTOCOLS;

/// Several attacks in an order, each on the rows that stand.
pub trait Protocol: Send + Sync {
    /// Runs to its end, or to the deadline of the harness.
    /// # Errors
    /// See [`Harness::attack`].
    fn run(&self, harness: &mut Harness<'_, '_>, certifiers: &[&dyn Certifier]) -> Result<(), AttackError>;
}

/// A registry of protocols.
pub type Protocols = &'static [Entry<dyn Protocol>];

/// Reads options into a protocol.
/// # Errors
/// An option is unknown or has a wrong type.
pub fn protocol<P: Protocol + Serialize + DeserializeOwned + 'static>(
    card: &'static Card,
    options: toml::Table,
) -> Result<Configured<dyn Protocol>, AuditError> {
    let (method, options) = netproof_audit::parse::<P>(card, options)?;
    Ok(Configured { card, method: Box::new(method), options })
}

/// What `--method` chooses.
#[derive(Debug)]
pub enum Method {
    /// One attack on all rows that stand.
    Attack(Configured<dyn Attack>),
    /// Several.
    Protocol(Configured<dyn Protocol>),
}

impl Method {
    /// The method where none is named.
    pub const DEFAULT: &str = "cascade";

    /// The method where none is named, for a norm: [`Method::DEFAULT`], or the attack that is made for this norm alone.
    pub fn default_for(norm: Norm) -> &'static str {
        let own = |a: &&Entry<dyn Attack>| {
            (a.build)(a.card, toml::Table::new()).is_ok_and(|built| built.method.norms() == [norm])
        };
        match norm {
            Norm::Linf | Norm::L2 | Norm::L1 => Self::DEFAULT,
            _ => ATTACKS.iter().find(own).map_or(Self::DEFAULT, |a| a.card.id),
        }
    }

    /// A method by id, with its options out of a table of tables.
    /// # Errors
    /// There is no such method, or an option is wrong.
    pub fn find(id: &str, options: &toml::Table) -> Result<Self, AuditError> {
        let only = [id.to_owned()];
        if PROTOCOLS.iter().any(|p| p.card.id == id) {
            return Ok(Self::Protocol(first(select("attack", PROTOCOLS, &only, &[], options)?, id)?));
        }
        if !ATTACKS.iter().any(|a| a.card.id == id) {
            let known = cards().iter().map(|c| c.id.to_owned()).collect();
            return Err(AuditError::UnknownId { kind: "attack", id: id.to_owned(), known });
        }
        Ok(Self::Attack(first(select("attack", ATTACKS, &only, &[], options)?, id)?))
    }

    /// Its card.
    pub fn card(&self) -> &'static Card {
        match self {
            Self::Attack(a) => a.card,
            Self::Protocol(p) => p.card,
        }
    }

    /// Its options as JSON.
    pub fn options(&self) -> &str {
        match self {
            Self::Attack(a) => &a.options,
            Self::Protocol(p) => &p.options,
        }
    }

    /// Runs it on the rows that stand.
    /// # Errors
    /// See [`Harness::attack`].
    pub fn run(&self, harness: &mut Harness<'_, '_>, certifiers: &[&dyn Certifier]) -> Result<(), AttackError> {
        match self {
            Self::Attack(a) => harness.run(a).map(drop),
            Self::Protocol(p) => p.method.run(harness, certifiers),
        }
    }
}

fn first<M: ?Sized>(found: Vec<Configured<M>>, id: &str) -> Result<Configured<M>, AuditError> {
    let none = || AuditError::UnknownId { kind: "attack", id: id.to_owned(), known: Vec::new() };
    found.into_iter().next().ok_or_else(none)
}

/// Cards of everything that `--method` takes, protocols first.
pub fn cards() -> Vec<&'static Card> {
    PROTOCOLS.iter().map(|p| p.card).chain(ATTACKS.iter().map(|a| a.card)).collect()
}

/// An attack of the registry with its default options, by id; for protocols, which are made of such.
pub(super) fn card_of(attacks: Attacks, id: &str) -> &'static Card {
    attacks.iter().find(|a| a.card.id == id).map_or(attacks[0].card, |a| a.card)
}
