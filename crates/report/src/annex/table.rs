//! The evidence items that a validator must hand in, the clauses that ask for each, and which findings answer it.
//!
//! # Source
//! Regulation (EU) 2024/1689 (AI Act), Articles 10, 13, 15 and Annex IV; NIST AI 100-1 (AI Risk Management Framework
//! 1.0, 2023), section 5; ISO/IEC 42001:2023, titles of the controls in Annex A; SR 26-2 (model risk management). The
//! requirements are told in our words and shortened; the texts themselves decide.

use netproof_core::{Challenge, Finding};

/// A body of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rules {
    AiAct,
    Nist,
    Iso42001,
    Sr262,
}

impl Rules {
    pub(crate) const ALL: [Self; 4] = [Self::AiAct, Self::Nist, Self::Iso42001, Self::Sr262];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AiAct => "EU AI Act",
            Self::Nist => "NIST AI RMF",
            Self::Iso42001 => "ISO/IEC 42001",
            Self::Sr262 => "SR 26-2",
        }
    }
}

/// Which findings answer an item. Methods are not named, so that a new one finds its place by what it measures.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// All findings of a challenge.
    All(Challenge),
    /// Findings of a challenge whose id or metric holds one of the words.
    Some(Challenge, &'static [&'static str]),
    /// Findings of any challenge whose id or metric holds one of the words.
    Any(&'static [&'static str]),
}

impl Answer {
    pub(crate) fn holds(self, f: &Finding) -> bool {
        let named = |words: &[&str]| {
            let text = format!("{} {}", f.id, f.metric.as_deref().unwrap_or_default()).to_lowercase();
            words.iter().any(|w| text.contains(w))
        };
        match self {
            Self::All(c) => f.challenge == c,
            Self::Some(c, words) => f.challenge == c && named(words),
            Self::Any(words) => named(words),
        }
    }
}

/// One thing that must be shown.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// What is asked for, in our words.
    pub(crate) asks: &'static str,
    pub(crate) clauses: &'static [(Rules, &'static [&'static str])],
    pub(crate) answers: &'static [Answer],
    /// What no measurement can say: a person writes it.
    pub(crate) person: Option<&'static str>,
}

use Answer::{All, Any, Some as In};
use Challenge::{Adversarial, Bias, Compute, DataLimits, DomainShift, Interpretability, Overfitting, Privacy, Scale};
use Rules::{AiAct, Iso42001, Nist, Sr262};

/// The items, in the order of Annex IV as far as it goes.
pub(crate) static ITEMS: &[Item] = &[
    Item {
        id: "purpose",
        title: "Intended purpose, provider, version and environment",
        asks: "What the system is for, who provides it, which version this is, and which hardware and software it needs.",
        clauses: &[
            (AiAct, &["Annex IV 1(a)–(h)", "Article 13(3)(a), (b)(i), (e)"]),
            (Nist, &["MAP 1.1", "GOVERN 1.6"]),
            (Iso42001, &["A.6.2.7", "A.8.2"]),
            (Sr262, &["inventory, materiality"]),
        ],
        answers: &[],
        person: Some(
            "Intended purpose, provider and contact, version and date, hardware and software that it runs on, instructions for use.",
        ),
    },
    Item {
        id: "design",
        title: "Design, architecture and computational resources",
        asks: "General logic, main design choices, architecture, training method, and the resources used.",
        clauses: &[
            (AiAct, &["Annex IV 2(a)–(c)", "Article 10(2)(a)", "Article 13(3)(e)"]),
            (Nist, &["MAP 2.3", "MEASURE 2.12"]),
            (Iso42001, &["A.6.2.3", "A.4.5"]),
            (Sr262, &["conceptual soundness"]),
        ],
        answers: &[All(Compute), All(Scale)],
        person: Some(
            "Why this architecture and training method; what was pre-trained by others; resources used for training; what was optimised and which trade-offs were made.",
        ),
    },
    Item {
        id: "data",
        title: "Data: origin, collection, labelling, cleaning, quality",
        asks: "Datasheets of the data sets: origin, scope, how they were obtained, labelled and cleaned; errors and completeness.",
        clauses: &[
            (AiAct, &["Annex IV 2(d)", "Article 10(2)(b), (c), (e)", "Article 10(3)"]),
            (Nist, &["MAP 2.1", "MEASURE 2.1"]),
            (Iso42001, &["A.7.2", "A.7.3", "A.7.4", "A.7.5", "A.7.6"]),
            (Sr262, &["data quality and relevance"]),
        ],
        answers: &[All(DataLimits)],
        person: Some(
            "Where the data come from and under which rights; how they were selected, labelled and cleaned, and by whom.",
        ),
    },
    Item {
        id: "representativeness",
        title: "Representativeness and gaps of the data",
        asks: "Whether the data have the statistical properties of the persons and settings the system is meant for, and what is missing.",
        clauses: &[
            (AiAct, &["Article 10(2)(e), (h)", "Article 10(3), (4)"]),
            (Nist, &["MEASURE 2.2", "MEASURE 2.3"]),
            (Iso42001, &["A.7.4"]),
            (Sr262, &["data relevance"]),
        ],
        answers: &[
            In(DataLimits, &["balance", "class", "group", "coverage", "divers", "represent", "overlap"]),
            In(Bias, &["count", "coverage", "represent", "size"]),
            All(DomainShift),
        ],
        person: Some("The population and setting the system is meant for, and how the data differ from it."),
    },
    Item {
        id: "bias",
        title: "Examination and mitigation of biases",
        asks: "Whether results differ between groups of persons, what was done about it, and what remains.",
        clauses: &[
            (AiAct, &["Article 10(2)(f), (g)", "Article 10(5)", "Annex IV 2(g)"]),
            (Nist, &["MEASURE 2.11"]),
            (Iso42001, &["A.5.4"]),
            (Sr262, &["fair-lending use"]),
        ],
        answers: &[All(Bias)],
        person: Some("Which groups matter for this use and why; the residual risk that is accepted, and by whom."),
    },
    Item {
        id: "accuracy",
        title: "Accuracy, and whether the metrics are the right ones",
        asks: "The level of accuracy with its metrics, overall and for specific groups, and why these metrics are appropriate.",
        clauses: &[
            (AiAct, &["Article 15(1)–(3)", "Article 13(3)(b)(ii), (v)", "Annex IV 3", "Annex IV 4"]),
            (Nist, &["MEASURE 1.1", "MEASURE 2.3", "MEASURE 2.5"]),
            (Iso42001, &["A.6.2.4"]),
            (Sr262, &["outcomes analysis"]),
        ],
        answers: &[All(Overfitting), Any(&["accuracy", "calibration", "auroc", "worst-group", "worst_group"])],
        person: Some("Why these metrics and limits fit the purpose."),
    },
    Item {
        id: "validation",
        title: "Validation and test procedure, test reports",
        asks: "How the system was validated and tested, on which data, with test logs and reports dated and signed by those responsible.",
        clauses: &[
            (AiAct, &["Annex IV 2(g)"]),
            (Nist, &["MEASURE 1.3", "MEASURE 2.1", "MEASURE 2.13"]),
            (Iso42001, &["A.6.2.4"]),
            (Sr262, &["independent validation, effective challenge"]),
        ],
        answers: &[],
        person: Some("Who is responsible for this test report; date and signature; who reviewed it independently."),
    },
    Item {
        id: "robustness",
        title: "Robustness against errors, faults and shift",
        asks: "How the system behaves under errors, faults, inconsistencies and changes of its environment.",
        clauses: &[
            (AiAct, &["Article 15(4)", "Annex IV 2(g)"]),
            (Nist, &["MEASURE 2.5", "MEASURE 2.6"]),
            (Iso42001, &["A.6.2.4"]),
            (Sr262, &["sensitivity analysis, stress testing"]),
        ],
        answers: &[All(DomainShift), Any(&["corruption", "noise-robust", "shift", "drift"])],
        person: None,
    },
    Item {
        id: "security",
        title: "Security: evasion, poisoning, extraction",
        asks: "Measures against attempts to alter use, behaviour or performance: adversarial inputs, poisoned data or models, attacks on confidentiality.",
        clauses: &[
            (AiAct, &["Article 15(5)", "Annex IV 2(h)"]),
            (Nist, &["MEASURE 2.7"]),
            (Iso42001, &["A.6.2.4"]),
            (Sr262, &["sensitivity analysis"]),
        ],
        answers: &[All(Adversarial), All(Privacy)],
        person: Some("Measures outside the network: access control, monitoring of inputs, supply chain."),
    },
    Item {
        id: "interpretability",
        title: "Interpretation of the output",
        asks: "Technical means by which those who use the system can interpret its output, and whether these can be relied on.",
        clauses: &[
            (AiAct, &["Article 13(1)", "Article 13(3)(b)(iv), (vii)", "Article 13(3)(d)", "Annex IV 2(e)"]),
            (Nist, &["MEASURE 2.8", "MEASURE 2.9"]),
            (Iso42001, &["A.8.2"]),
            (Sr262, &["explainability"]),
        ],
        answers: &[All(Interpretability)],
        person: None,
    },
    Item {
        id: "privacy",
        title: "Privacy",
        asks: "What the network gives away about the persons in its training data, and how special categories of data are guarded.",
        clauses: &[
            (AiAct, &["Article 10(5)", "Article 15(5)"]),
            (Nist, &["MEASURE 2.10"]),
            (Iso42001, &["A.5.4", "A.7.2"]),
        ],
        answers: &[All(Privacy)],
        person: None,
    },
    Item {
        id: "oversight",
        title: "Limits, foreseeable misuse, residual risk, human oversight",
        asks: "Known circumstances that lead to risks, the risk management system, and how people oversee the system.",
        clauses: &[
            (AiAct, &["Article 13(3)(b)(iii), (d)", "Annex IV 2(e)", "Annex IV 3", "Annex IV 5"]),
            (Nist, &["MAP 3.5", "MANAGE 1.4"]),
            (Iso42001, &["A.9.2", "A.9.3", "A.9.4"]),
            (Sr262, &["limitations, compensating controls"]),
        ],
        answers: &[],
        person: Some(
            "Foreseeable misuse; the risk management system; who oversees the system, with which means, and when it must be stopped. For each concern above: accepted or mitigated, by whom, until when.",
        ),
    },
    Item {
        id: "changes",
        title: "Changes through the lifecycle",
        asks: "What changed since the last version, and which changes were determined in advance.",
        clauses: &[
            (AiAct, &["Annex IV 2(f)", "Annex IV 6", "Article 13(3)(c)"]),
            (Nist, &["MANAGE 4.2"]),
            (Iso42001, &["A.6.2.5", "A.6.2.6"]),
            (Sr262, &["triggers of re-review"]),
        ],
        answers: &[],
        person: Some(
            "Changes since the last version (`netproof diff` compares two audits), and the changes determined in advance.",
        ),
    },
    Item {
        id: "monitoring",
        title: "Monitoring after release, logs",
        asks: "The plan by which performance is watched in use, and what is logged.",
        clauses: &[
            (AiAct, &["Annex IV 9", "Article 13(3)(f)"]),
            (Nist, &["MEASURE 2.4", "MEASURE 3.1", "MEASURE 4.2"]),
            (Iso42001, &["A.6.2.6", "A.6.2.8"]),
            (Sr262, &["ongoing monitoring"]),
        ],
        answers: &[],
        person: Some("Which values are watched, with which limits, by whom; what is logged and how long it is kept."),
    },
    Item {
        id: "standards",
        title: "Standards applied, declaration of conformity",
        asks: "Harmonised standards and other specifications that were applied, and the EU declaration of conformity.",
        clauses: &[
            (AiAct, &["Annex IV 7", "Annex IV 8"]),
            (Nist, &["GOVERN 1.1"]),
            (Iso42001, &["statement of applicability"]),
        ],
        answers: &[],
        person: Some(
            "Standards applied in full or in part, other solutions where none were, and a copy of the declaration.",
        ),
    },
];
