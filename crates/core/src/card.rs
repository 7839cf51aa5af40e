use serde::Serialize;

use crate::Challenge;

/// What family a method belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CardKind {
    /// Measures a network and answers with findings.
    Check,
    /// Changes a network or its data in answer to a finding.
    Remedy,
    /// Searches for inputs on which a network fails.
    Attack,
    /// Says why a network decides as it does.
    Explanation,
    /// Proves that no change within a threat turns an answer.
    Certificate,
    /// Measures whether an explanation can be relied on.
    Evidence,
}

impl CardKind {
    /// Lower-case word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Remedy => "remedy",
            Self::Attack => "attack",
            Self::Explanation => "explanation",
            Self::Certificate => "certificate",
            Self::Evidence => "evidence",
        }
    }
}

/// What a method must be given before it can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Need {
    /// Labels of the data.
    Labels,
    /// A classifier: logits or probabilities per class.
    Classifier,
    /// The data that the network was trained on.
    TrainData,
    /// Group columns.
    Groups,
    /// A network that is differentiable with respect to its input.
    InputGradient,
    /// Networks that may be trained, on training data.
    Training,
}

impl Need {
    /// What the user gives, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Classifier => "a classifier",
            Self::TrainData => "training data",
            Self::Groups => "group columns",
            Self::InputGradient => "input gradients",
            Self::Training => "training data, or a recipe that names them,",
        }
    }
}

/// One option of a method, as `--set ID.NAME=VALUE` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct OptionDoc {
    /// Name of the option.
    pub name: &'static str,
    /// Default value, written as TOML.
    pub default: &'static str,
    /// What it does, its unit and its range, in one sentence.
    pub doc: &'static str,
}

/// The one description of a method, from which help, documentation and the report's glossary are made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Card {
    /// Unique id in kebab case.
    pub id: &'static str,
    /// Raised when the same input may give another result; part of the key under which findings are kept.
    pub version: u32,
    /// Family.
    pub kind: CardKind,
    /// Name for people.
    pub title: &'static str,
    /// Which of the nine challenges.
    pub challenge: Challenge,
    /// What is measured or changed, in one or two sentences.
    pub measures: &'static str,
    /// Paper or standard: authors, venue, year, equation or section.
    pub reference: &'static str,
    /// What must be given.
    pub needs: &'static [Need],
    /// Options with their defaults.
    pub options: &'static [OptionDoc],
}
