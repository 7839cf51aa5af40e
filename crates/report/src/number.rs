//! How numbers are written: as many digits as their interval supports, thousands separated, never `NaN`.

use netproof_core::Finding;

/// What stands for a number that is not finite.
pub(crate) const MISSING: &str = "–";

/// A number with a fixed count of decimals, thousands separated by commas, and a true minus sign.
pub(crate) fn fixed(v: f64, decimals: usize) -> String {
    if !v.is_finite() {
        return MISSING.into();
    }
    let digits = format!("{:.*}", decimals.min(12), v.abs());
    let (whole, fraction) = digits.split_once('.').map_or((digits.as_str(), None), |(w, f)| (w, Some(f)));
    let mut out = String::with_capacity(digits.len() + whole.len() / 3 + 4);
    if v < 0.0 && digits.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
        out.push('−');
    }
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// A whole number with thousands separated.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Position of the first significant digit: 0 for units, −1 for tenths.
pub(crate) fn magnitude(v: f64) -> i32 {
    if v == 0.0 || !v.is_finite() { 0 } else { v.abs().log10().floor() as i32 }
}

/// Decimals that show `significant` digits of `v`.
pub(crate) fn decimals(v: f64, significant: i32) -> usize {
    (significant - 1 - magnitude(v)).clamp(0, 12) as usize
}

/// Powers of ten with a superscript, for numbers that would need too many zeros.
fn scientific(v: f64) -> String {
    let text = format!("{:.2e}", v.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let sup: String = exponent
        .chars()
        .map(|c| match c {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            '0' | '4'..='9' => char::from_u32(0x2070 + c as u32 - '0' as u32).unwrap_or(c),
            c => c,
        })
        .collect();
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let sign = if v < 0.0 { "−" } else { "" };
    if mantissa == "1" { format!("{sign}10{sup}") } else { format!("{sign}{mantissa} × 10{sup}") }
}

/// Whether a number is better written with a power of ten.
fn extreme(v: f64) -> bool {
    v != 0.0 && (v.abs() < 1e-4 || v.abs() >= 1e12)
}

/// A number on its own: whole numbers in full, others with four significant digits, no trailing zeros.
pub(crate) fn plain(v: f64) -> String {
    if !v.is_finite() {
        MISSING.into()
    } else if extreme(v) {
        scientific(v)
    } else if v.fract() == 0.0 {
        fixed(v, 0)
    } else {
        let text = fixed(v, decimals(v, 4));
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
    }
}

/// Decimals for a column of numbers, so that they line up: four significant digits of the largest; none if all are whole.
/// `None` where the values differ too much to share one count of decimals.
pub(crate) fn column_decimals(values: &[f64]) -> Option<usize> {
    let finite = || values.iter().copied().filter(|v| v.is_finite() && *v != 0.0);
    let largest = finite().map(f64::abs).fold(0.0, f64::max);
    let smallest = finite().map(f64::abs).fold(f64::INFINITY, f64::min);
    if largest == 0.0 || (finite().all(|v| v.fract() == 0.0) && largest < 1e12) {
        return Some(0);
    }
    let d = decimals(largest, 4).min(6);
    (largest < 1e12 && smallest >= 0.5 * 10f64.powi(-(d as i32))).then_some(d)
}

/// A number with its interval and threshold, all in one unit and with the digits that the interval supports.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measure {
    /// The value.
    pub(crate) value: String,
    /// Lower and upper end.
    pub(crate) interval: Option<(String, String)>,
    /// Unit for people; empty for fractions and counts.
    pub(crate) unit: String,
}

/// Divisor and name of the unit in which a value is written.
fn scale(v: f64, unit: &str) -> (f64, String) {
    let pick = |steps: &[(f64, &str)], base: &str| {
        steps
            .iter()
            .find(|(factor, _)| v.abs() >= *factor)
            .map_or((1.0, base.to_owned()), |(factor, name)| (*factor, (*name).to_owned()))
    };
    match unit {
        "fraction" | "count" | "" => (1.0, String::new()),
        "joule" => (1.0, "J".into()),
        "bytes" => {
            let k = 1024f64;
            pick(&[(k.powi(4), "TiB"), (k.powi(3), "GiB"), (k.powi(2), "MiB"), (k, "KiB")], "bytes")
        }
        "operations" => pick(
            &[(1e12, "trillion operations"), (1e9, "billion operations"), (1e6, "million operations")],
            "operations",
        ),
        other => (1.0, other.into()),
    }
}

/// The figure of a finding; `None` where it has no finite value.
pub(crate) fn measure(f: &Finding) -> Option<Measure> {
    let value = f.value.filter(|v| v.is_finite())?;
    let (factor, unit) = scale(value, f.unit.as_deref().unwrap_or(""));
    let v = value / factor;
    let interval = f
        .interval
        .as_ref()
        .filter(|i| i.low.is_finite() && i.high.is_finite())
        .map(|i| (i.low / factor, i.high / factor));
    let half = interval.map(|(low, high)| (high - low).abs() / 2.0).filter(|h| *h > 0.0 && h.is_finite());
    let (text, ends) = match (half, interval) {
        (Some(half), Some((low, high))) if !extreme(v) => {
            let d = decimals(half, 2).min(6);
            (fixed(v, d), Some((fixed(low, d), fixed(high, d))))
        }
        (_, Some((low, high))) => (plain(v), Some((plain(low), plain(high)))),
        _ => (plain(v), None),
    };
    Some(Measure { value: text, interval: ends, unit })
}

/// A limit in the unit in which the finding's value is written, with that unit.
pub(crate) fn limit(f: &Finding) -> Option<String> {
    let t = f.threshold.as_ref().filter(|t| t.value.is_finite())?;
    let (factor, unit) = scale(f.value.unwrap_or(t.value), f.unit.as_deref().unwrap_or(""));
    let v = t.value / factor;
    let short = format!("{v}");
    let text = if short.len() <= 7 && v.abs() < 1000.0 { short.replace('-', "−") } else { plain(v) };
    Some(if unit.is_empty() { text } else { format!("{text} {unit}") })
}

/// Seconds for people.
pub(crate) fn seconds(s: f64) -> String {
    if !s.is_finite() {
        MISSING.into()
    } else if s < 1.0 {
        format!("{} ms", fixed(s * 1000.0, 0))
    } else if s < 60.0 {
        format!("{} s", fixed(s, 1))
    } else {
        format!("{} min {} s", fixed((s / 60.0).floor(), 0), fixed(s % 60.0, 0))
    }
}

#[cfg(test)]
mod tests {
    use netproof_core::{Challenge, Comparison, Interval, Provenance, Threshold, Verdict};

    use super::*;

    fn finding(value: f64, interval: Option<(f64, f64)>, unit: &str) -> Finding {
        Finding {
            id: "c/m".into(),
            check: "c".into(),
            challenge: Challenge::Compute,
            title: "t".into(),
            verdict: Verdict::Pass,
            metric: None,
            value: Some(value),
            interval: interval.map(|(low, high)| Interval { low, high, level: 0.95, method: "wilson".into() }),
            n: None,
            unit: Some(unit.into()),
            threshold: None,
            explanation: String::new(),
            caveats: vec![],
            evidence: vec![],
            remedies: vec![],
            provenance: Provenance::default(),
        }
    }

    #[test]
    fn thousands_and_signs() {
        assert_eq!(fixed(1_234_567.891, 2), "1,234,567.89");
        assert_eq!(fixed(-1234.0, 0), "−1,234");
        assert_eq!(fixed(-0.0001, 2), "0.00");
        assert_eq!(fixed(f64::NAN, 2), "–");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(999), "999");
    }

    #[test]
    fn plain_numbers_have_four_digits() {
        assert_eq!(plain(0.338_189), "0.3382");
        assert_eq!(plain(0.5), "0.5");
        assert_eq!(plain(123.456), "123.5");
        assert_eq!(plain(100.04), "100");
        assert_eq!(plain(10_000.0), "10,000");
        assert_eq!(plain(1.5e-7), "1.5 × 10⁻⁷");
        assert_eq!(plain(-1e15), "−10¹⁵");
        assert_eq!(plain(f64::INFINITY), "–");
    }

    #[test]
    fn the_interval_decides_the_digits() {
        let m = measure(&finding(0.882_5, Some((0.867_6, 0.895_9)), "fraction")).unwrap();
        assert_eq!((m.value.as_str(), m.interval.unwrap()), ("0.882", ("0.868".into(), "0.896".into())));
        let m = measure(&finding(8123.4, Some((7000.0, 9000.0)), "count")).unwrap();
        assert_eq!((m.value.as_str(), m.interval.unwrap()), ("8,123", ("7,000".into(), "9,000".into())));
        let m = measure(&finding(0.5, Some((0.5, 0.5)), "fraction")).unwrap();
        assert_eq!((m.value.as_str(), m.interval.unwrap()), ("0.5", ("0.5".into(), "0.5".into())));
    }

    #[test]
    fn units_scale_value_interval_and_limit_alike() {
        let mut f = finding(3.0 * 1024.0 * 1024.0, Some((2.5 * 1024.0 * 1024.0, 3.5 * 1024.0 * 1024.0)), "bytes");
        f.threshold =
            Some(Threshold { value: 1024.0 * 1024.0, comparison: Comparison::AtMost, source: "policy".into() });
        let m = measure(&f).unwrap();
        assert_eq!((m.value.as_str(), m.unit.as_str()), ("3.00", "MiB"));
        assert_eq!(m.interval.unwrap().0, "2.50");
        assert_eq!(limit(&f).unwrap(), "1 MiB");
        assert_eq!(measure(&finding(2.5e6, None, "operations")).unwrap().unit, "million operations");
    }

    #[test]
    fn values_that_are_not_finite_have_no_measure() {
        assert_eq!(measure(&finding(f64::NAN, None, "fraction")), None);
    }

    #[test]
    fn columns_line_up_or_say_that_they_cannot() {
        assert_eq!(column_decimals(&[0.9, 0.8825, 0.01]), Some(4));
        assert_eq!(column_decimals(&[1.0, 20.0]), Some(0));
        assert_eq!(column_decimals(&[1e6 + 0.5, 1e-6]), None);
        assert_eq!(column_decimals(&[]), Some(0));
    }

    #[test]
    fn times_are_for_people() {
        assert_eq!(seconds(0.25), "250 ms");
        assert_eq!(seconds(12.34), "12.3 s");
        assert_eq!(seconds(125.0), "2 min 5 s");
    }
}
