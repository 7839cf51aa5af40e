//! What a verdict is called and how it looks: a shape and a word, so that colour is never the only sign.

use netproof_core::{Challenge, Finding, Verdict};

/// A verdict as people see it, worst first.
///
/// A pass without any declared limit is shown as *measured*: nobody has said what would be good enough, so the report
/// must not look as if somebody had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Badge {
    Concern,
    Failed,
    Inconclusive,
    Pass,
    Measured,
    NotApplicable,
    NotMeasured,
}

impl Badge {
    pub(crate) const ALL: [Self; 7] = [
        Self::Concern,
        Self::Failed,
        Self::Inconclusive,
        Self::Pass,
        Self::Measured,
        Self::NotApplicable,
        Self::NotMeasured,
    ];

    /// Badge of a finding.
    pub(crate) fn of(f: &Finding) -> Self {
        match f.verdict {
            Verdict::Pass if f.threshold.is_some() => Self::Pass,
            Verdict::Pass => Self::Measured,
            Verdict::Concern => Self::Concern,
            Verdict::Inconclusive => Self::Inconclusive,
            Verdict::NotApplicable => Self::NotApplicable,
            Verdict::Failed => Self::Failed,
        }
    }

    /// Badge of a challenge: the worst of its findings.
    pub(crate) fn of_challenge<'a>(challenge: Challenge, findings: impl Iterator<Item = &'a Finding>) -> Self {
        findings.filter(|f| f.challenge == challenge).map(Self::of).min().unwrap_or(Self::NotMeasured)
    }

    /// The word that always stands beside the shape.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Concern => "Concern",
            Self::Failed => "Could not run",
            Self::Inconclusive => "Inconclusive",
            Self::Pass => "Pass",
            Self::Measured => "Measured",
            Self::NotApplicable => "Not applicable",
            Self::NotMeasured => "Not measured",
        }
    }

    /// What the word means.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Concern => "measured, and beyond its limit or a problem in itself",
            Self::Failed => "the check stopped with an error",
            Self::Inconclusive => "measured, but the number cannot be trusted or is not precise enough to decide",
            Self::Pass => "measured, and within a declared limit",
            Self::Measured => "measured; no limit was declared, so nothing is approved",
            Self::NotApplicable => "does not apply to this network or these data",
            Self::NotMeasured => "nothing looked at this; neither good nor bad",
        }
    }

    /// Class and icon name.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Concern => "concern",
            Self::Failed => "failed",
            Self::Inconclusive => "inconclusive",
            Self::Pass => "pass",
            Self::Measured => "measured",
            Self::NotApplicable => "na",
            Self::NotMeasured => "none",
        }
    }

    /// One character for terminals.
    pub(crate) fn symbol(self) -> char {
        match self {
            Self::Concern => '▲',
            Self::Failed => '✗',
            Self::Inconclusive => '?',
            Self::Pass => '✓',
            Self::Measured => '•',
            Self::NotApplicable => '–',
            Self::NotMeasured => '·',
        }
    }

    /// Shape and word for the page.
    pub(crate) fn html(self) -> String {
        format!(
            "<span class=\"badge v-{0}\"><svg class=\"i\" aria-hidden=\"true\"><use href=\"#i-{0}\"/></svg>{1}</span>",
            self.class(),
            self.word()
        )
    }

    /// The shapes of all badges, to be placed once at the top of the page.
    pub(crate) fn symbols() -> String {
        let shape = |b: Self| match b {
            Self::Pass => "<circle cx=\"8\" cy=\"8\" r=\"7\"/><path class=\"m\" d=\"M4.8 8.3 7.1 10.6 11.3 5.8\"/>",
            Self::Concern => {
                "<path d=\"M8 1 15.4 14.4H.6Z\"/><path class=\"m\" d=\"M8 5.8V9.6\"/><path class=\"m\" d=\"M8 11.9V12.1\"/>"
            }
            Self::Inconclusive => {
                "<path d=\"M8 .4 15.6 8 8 15.6.4 8Z\"/><path class=\"m\" d=\"M6.1 6.4A1.9 1.9 0 1 1 8 8.4V9.3\"/>\
                 <path class=\"m\" d=\"M8 11.5V11.7\"/>"
            }
            Self::Failed => {
                "<path d=\"M5 .8H11L15.2 5V11L11 15.2H5L.8 11V5Z\"/><path class=\"m\" d=\"M5.5 5.5 10.5 10.5M10.5 5.5 5.5 10.5\"/>"
            }
            Self::Measured => "<circle class=\"o\" cx=\"8\" cy=\"8\" r=\"6.2\"/><circle cx=\"8\" cy=\"8\" r=\"2.6\"/>",
            Self::NotApplicable => "<circle class=\"o\" cx=\"8\" cy=\"8\" r=\"6.2\"/><path class=\"o\" d=\"M5 8H11\"/>",
            Self::NotMeasured => "<circle class=\"o dashed\" cx=\"8\" cy=\"8\" r=\"6.2\"/>",
        };
        let all: String = Self::ALL
            .iter()
            .map(|b| format!("<symbol id=\"i-{}\" viewBox=\"0 0 16 16\">{}</symbol>", b.class(), shape(*b)))
            .collect();
        format!("<svg class=\"symbols\" aria-hidden=\"true\" width=\"0\" height=\"0\">{all}</svg>")
    }
}

/// How many findings have which badge, worst first, as in `2 concerns, 5 measured`.
pub(crate) fn tally<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<(Badge, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for f in findings {
        *counts.entry(Badge::of(f)).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

/// The overall result in one sentence of plain words.
pub(crate) fn sentence(document: &netproof_core::AuditDocument) -> String {
    let counts = tally(document.all_findings());
    let of = |b: Badge| counts.iter().find(|(k, _)| *k == b).map_or(0, |(_, n)| *n);
    let total: usize = counts.iter().map(|(_, n)| n).sum();
    if total == 0 {
        return "Nothing was measured, so this audit says nothing about the network.".into();
    }
    let some = |n: usize, one: &str, many: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {many}") };
    let mut out = match (of(Badge::Concern), document.policy_violations.len()) {
        (0, 0) => format!("None of {} is a concern", some(total, "finding", "findings")),
        (0, p) => format!("The policy is broken in {}", some(p, "point", "points")),
        (c, 0) => {
            format!("{c} of {} {} of concern", some(total, "finding", "findings"), if c == 1 { "is" } else { "are" })
        }
        (c, p) => format!(
            "{c} of {} {} of concern, and the policy is broken in {}",
            some(total, "finding", "findings"),
            if c == 1 { "is" } else { "are" },
            some(p, "point", "points")
        ),
    };
    let mut more = Vec::new();
    if of(Badge::Inconclusive) > 0 {
        more.push(format!(
            "{} {} inconclusive",
            of(Badge::Inconclusive),
            if of(Badge::Inconclusive) == 1 { "is" } else { "are" }
        ));
    }
    if of(Badge::Failed) > 0 {
        more.push(format!("{} could not run", of(Badge::Failed)));
    }
    if !more.is_empty() {
        out.push_str(&format!("; {}", more.join(" and ")));
    }
    let missing = Challenge::ALL
        .into_iter()
        .filter(|c| Badge::of_challenge(*c, document.all_findings()) == Badge::NotMeasured)
        .count();
    out.push('.');
    if missing > 0 {
        out.push_str(&format!(
            " {missing} of the nine challenges {} not measured.",
            if missing == 1 { "was" } else { "were" }
        ));
    }
    out
}
