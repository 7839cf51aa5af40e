//! What every method owes to its users.

use std::collections::HashSet;

use netproof_audit::{AuditError, select};
use netproof_challenges::adversarial::protocol::{Method, cards as attack_cards};
use netproof_challenges::interpretability::EXPLANATIONS;
use netproof_challenges::interpretability::insights::INSIGHTS;
use netproof_challenges::{CHECKS, REMEDIES, cards};

#[test]
fn every_card_is_unique_documented_and_cited() {
    let mut ids = HashSet::new();
    for c in cards() {
        // A check may have the name of the protocol whose number it reports.
        assert!(ids.insert((c.kind, c.id)), "{} is there twice", c.id);
        assert!(c.id.chars().all(|x| x.is_ascii_lowercase() || x.is_ascii_digit() || x == '-'), "{}", c.id);
        assert!(c.measures.ends_with('.') && c.measures.len() > 40, "{}: measures", c.id);
        assert!(c.reference.contains("19") || c.reference.contains("20"), "{}: no year in the reference", c.id);
        assert!(!c.title.is_empty() && c.version > 0);
        for o in c.options {
            assert!(o.doc.ends_with('.'), "{}.{}", c.id, o.name);
        }
    }
}

#[test]
fn documented_defaults_are_the_defaults_and_options_are_checked() {
    let all = select("check", CHECKS, &[], &[], &toml::Table::new()).unwrap();
    let remedies = select("remedy", REMEDIES, &[], &[], &toml::Table::new()).unwrap();
    let none = toml::Table::new();
    let explanations = select("explanation", EXPLANATIONS, &[], &[], &none).unwrap();
    let attacks: Vec<Method> = attack_cards().iter().map(|c| Method::find(c.id, &none).unwrap()).collect();
    let cards = all.iter().map(|c| (c.card, c.options.as_str()));
    let cards = cards.chain(remedies.iter().map(|c| (c.card, c.options.as_str())));
    let cards = cards.chain(explanations.iter().map(|c| (c.card, c.options.as_str())));
    let insights = select("explanation", INSIGHTS, &[], &[], &none).unwrap();
    let cards = cards.chain(insights.iter().map(|c| (c.card, c.options.as_str())));
    let cards = cards.chain(attacks.iter().map(|m| (m.card(), m.options())));
    for (card, options) in cards {
        let documented: toml::Table =
            card.options.iter().map(|o| format!("{} = {}\n", o.name, o.default)).collect::<String>().parse().unwrap();
        let actual: toml::Table = toml::Table::try_from(parse(options)).unwrap();
        assert_eq!(documented, actual, "{}", card.id);
    }
    let wrong: toml::Table = toml::from_str("[calibration]\nbin = 3").unwrap();
    let e = select("check", CHECKS, &[], &[], &wrong).unwrap_err();
    assert!(matches!(e, AuditError::Option { .. }) && e.to_string().contains("bins = 15"), "{e}");
}

/// JSON objects of numbers, texts and lists are TOML but for the colon.
fn parse(json: &str) -> toml::Table {
    let inner = json.trim_start_matches('{').trim_end_matches('}');
    let mut text = String::new();
    let (mut depth, mut quoted) = (0, false);
    for c in inner.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' if !quoted => depth += 1,
            ']' if !quoted => depth -= 1,
            _ => {}
        }
        match c {
            ',' if depth == 0 && !quoted => text.push('\n'),
            ':' if !quoted => text.push('='),
            c => text.push(c),
        }
    }
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}
