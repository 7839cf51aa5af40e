//! The page as a whole: well-formed, inert, accessible, bounded.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{CARDS, HOSTILE, document, finding, well_formed};
use netproof_core::{
    Cell, Challenge, Evidence, Gallery, GalleryItem, GallerySection, Mark, Picture, Plot, PlotKind, Table, Verdict,
};
use netproof_report::{HtmlOptions, render_html};

const VOID: [&str; 4] = ["meta", "img", "br", "link"];

fn page() -> String {
    let options = HtmlOptions { command: Some(format!("netproof audit {HOSTILE}")), ..HtmlOptions::default() };
    render_html(&document(), &CARDS, &options)
}

#[test]
fn tags_close_in_order_and_nothing_of_a_user_becomes_markup() {
    let html = page();
    let tags = well_formed(&html, &VOID);
    assert!(!html.contains("<script") && !html.contains("alert(1)</"));
    assert!(!html.contains(['\u{0}', '\u{1b}', '\u{202e}']));
    assert!(html.contains("[U+202E]") && html.contains("&lt;script&gt;"));
    let handlers = tags.iter().any(|t| t.contains(" on") && t.contains("=\"alert"));
    assert!(!handlers && !html.contains("javascript:") && !html.contains("NaN"));
}

#[test]
fn nothing_is_loaded_and_styles_are_allowed_by_their_hash_only() {
    let html = page();
    assert!(html.contains("Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-"));
    assert!(!html.contains("unsafe-inline") && !html.contains(" style=\""));
    for tag in well_formed(&html, &VOID) {
        for name in ["src=\"", "href=\""] {
            if let Some((_, value)) = tag.split_once(name) {
                assert!(value.starts_with('#') || value.starts_with("data:image/"), "<{tag}>");
            }
        }
    }
}

#[test]
fn ids_are_unique_and_every_link_has_its_target() {
    let html = page();
    let mut ids = BTreeSet::new();
    let mut wanted = BTreeSet::new();
    for tag in well_formed(&html, &VOID) {
        let value = |name: &str| tag.split_once(name).and_then(|(_, v)| v.split('"').next()).map(str::to_owned);
        if let Some(id) = value(" id=\"") {
            assert!(ids.insert(id.clone()), "{id} twice");
        }
        wanted.extend(value("href=\"#"));
        if let Some(by) = value("aria-labelledby=\"") {
            wanted.extend(by.split(' ').map(str::to_owned));
        }
    }
    let missing: Vec<_> = wanted.difference(&ids).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn headings_descend_by_one_and_tables_and_pictures_say_what_they_are() {
    let html = page();
    let mut last = 0;
    for tag in well_formed(&html, &VOID) {
        let name = tag.split_whitespace().next().unwrap_or("");
        if let Some(level) = name.strip_prefix('h').and_then(|l| l.parse::<u32>().ok()) {
            assert!(level <= last + 1, "h{level} after h{last}: <{tag}>");
            last = level;
        }
        match name {
            "th" => assert!(tag.contains("scope="), "<{tag}>"),
            "svg" => assert!(tag.contains("role=\"img\"") || tag.contains("aria-hidden"), "<{tag}>"),
            _ => {}
        }
    }
    for needed in ["<html lang=\"en\">", "<header>", "<main>", "<footer>", "class=\"skip\"", "name=\"viewport\""] {
        assert!(html.contains(needed), "{needed}");
    }
}

#[test]
fn all_nine_challenges_are_shown_and_what_is_not_measured_is_never_a_pass() {
    let mut d = document();
    d.findings.clear();
    d.clock.findings.clear();
    let html = render_html(&d, &[], &HtmlOptions::default());
    assert_eq!(html.matches("<li class=\"tile t-none\">").count(), 9);
    assert!(html.contains("Nothing was measured"));
    let html = page();
    for c in Challenge::ALL {
        assert!(html.contains(c.title()));
    }
    assert_eq!(html.matches("<li class=\"tile t-none\">").count(), 8);
}

#[test]
fn a_pass_without_a_limit_is_shown_as_measured() {
    let mut d = document();
    d.findings = vec![finding("a/b", Verdict::Pass)];
    d.clock.findings.clear();
    let html = render_html(&d, &[], &HtmlOptions::default());
    assert!(html.contains("<li class=\"tile t-pass\">"));
    d.findings[0].threshold = None;
    let html = render_html(&d, &[], &HtmlOptions::default());
    assert!(html.contains("<li class=\"tile t-measured\">") && !html.contains("<li class=\"tile t-pass\">"));
}

#[test]
fn a_huge_document_stays_small_and_says_what_is_left_out() {
    let mut d = document();
    let big = Table {
        title: "big".into(),
        columns: vec!["a".into(), "b".into()],
        rows: (0..100_000u64).map(|i| vec![i.into(), "\u{202e}".repeat(200).as_str().into()]).collect(),
    };
    let marks: Vec<Mark> =
        (0..10_000).map(|i| Mark { x: Some(f64::from(i)), y: f64::from(i % 97), ..Mark::default() }).collect();
    let plot = Plot {
        title: "many".into(),
        x: Default::default(),
        y: Default::default(),
        plot: PlotKind::Points,
        series: vec![netproof_core::Series { name: "s".into(), marks }],
        reference: None,
    };
    d.findings = (0..3000)
        .map(|i| {
            let mut f = finding(&format!("check{i}/{}", "x".repeat(500)), Verdict::Concern);
            f.explanation = "long \"text\" ".repeat(2000);
            if i < 20 {
                f.evidence = vec![Evidence::Table(big.clone()), Evidence::Plot(plot.clone())];
            }
            f
        })
        .collect();
    d.policy_violations = vec![HOSTILE.repeat(100); 1000];
    for i in 0..500 {
        d.model.insert(format!("key {i}"), "\"".repeat(10_000).into());
        d.clock.seconds.insert(format!("check {i} {}", HOSTILE.repeat(30)), 1.0);
    }
    let html = render_html(&d, &CARDS, &HtmlOptions::default());
    assert!(html.len() <= 5_000_000, "{}", html.len());
    well_formed(&html, &VOID);
    assert!(html.contains("Shown: 100 of 100,000 rows; all are in audit.json."));
    assert!(html.contains("more findings are left out") && html.contains("of 3,001 findings"));
    assert!(html.contains("Drawn: 1,429 of 10,000 points"));
}

#[test]
fn pictures_are_embedded_only_as_png_or_jpeg() {
    let mut d = document();
    let picture = |file: &str| Picture {
        title: "t".into(),
        file: file.into(),
        sha256: "c".repeat(64),
        width: 28,
        height: 14,
        alt: "what it shows".into(),
        warning: None,
    };
    let image = |file: &str| Evidence::Image(picture(file));
    d.findings[0].evidence = vec![image("a.png"), image("b.svg"), image("missing.png")];
    let images: BTreeMap<String, Vec<u8>> =
        [("a.png".to_owned(), b"\x89PNG\r\n\x1a\n".to_vec()), ("b.svg".to_owned(), b"<svg onload=alert(1)>".to_vec())]
            .into();
    let html = render_html(&d, &[], &HtmlOptions { images, ..HtmlOptions::default() });
    let whole = "<img class=\"px\" alt=\"what it shows\" width=\"336\" height=\"168\" \
                 src=\"data:image/png;base64,iVBORw0KGgo=\">";
    assert_eq!((html.matches(whole).count(), html.matches("<img ").count()), (1, 1));
}

#[test]
fn galleries_show_their_warnings_and_count_what_is_missing() {
    let mut d = document();
    let item = |file: &str, warning: Option<&str>| {
        let picture = Picture { file: file.into(), warning: warning.map(str::to_owned), ..Picture::default() };
        GalleryItem { title: format!("row {file}"), note: String::new(), pictures: vec![picture] }
    };
    let section = |title: &str, items| GallerySection { title: title.into(), items };
    let why = "it does not depend on the weights";
    let wrong = section("Wrong", vec![item("a.png", None), item("b.png", Some(why)), item("c.png", None)]);
    let right = section("Right", (0..100).map(|_| item("a.png", None)).collect());
    let gallery = Gallery { title: "Predictions".into(), sections: vec![wrong, right, section("Unsure", vec![])] };
    d.findings = vec![finding("a/b", Verdict::Pass)];
    d.clock.findings.clear();
    d.findings[0].evidence = vec![gallery.into()];
    let png = b"\x89PNG\r\n\x1a\n".to_vec();
    let images: BTreeMap<String, Vec<u8>> = [("a.png".to_owned(), png.clone()), ("b.png".to_owned(), png)].into();
    let html = render_html(&d, &[], &HtmlOptions { images, ..HtmlOptions::default() });
    well_formed(&html, &VOID);
    assert_eq!(html.matches(">Do not rely on this</span>").count(), 1);
    assert_eq!(html.matches(&format!("<p class=\"why\"><strong></strong> {why}</p>")).count(), 1);
    assert_eq!(html.matches("<img ").count(), 2 + 60);
    assert!(html.contains("Shown: 60 of 100 samples") && html.contains("1 of 103 pictures are not in this page"));
    assert!(html.contains("<h4>Unsure</h4>\n<p class=\"note\">None.</p>"));
}

#[test]
fn numbers_that_are_not_finite_never_reach_the_page() {
    let mut d = document();
    let f = &mut d.findings[0];
    (f.value, f.n) = (Some(f64::NAN), None);
    f.evidence.push(Evidence::Table(Table {
        title: "t".into(),
        columns: vec!["v".into()],
        rows: vec![vec![Cell::Number(f64::INFINITY)], vec![Cell::Number(1.0)]],
    }));
    d.clock.seconds.insert("x".into(), f64::NAN);
    let html = render_html(&d, &[], &HtmlOptions::default());
    assert!(!html.contains("NaN") && !html.contains(">inf"));
}

#[test]
fn colours_can_be_read_in_both_themes() {
    let css = include_str!("../src/style.css");
    let (light, rest) = css.split_once("@media screen and (prefers-color-scheme: dark)").unwrap();
    let dark = rest.split("* {").next().unwrap();
    for (theme, text) in [("light", light), ("dark", dark)] {
        let colours: BTreeMap<&str, [f64; 3]> = text
            .split("--")
            .skip(1)
            .filter_map(|d| {
                let (name, value) = d.split_once(": #")?;
                let hex = value.get(..6)?;
                let part = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).map(|v| f64::from(v) / 255.0).ok();
                Some((name, [part(0)?, part(2)?, part(4)?]))
            })
            .collect();
        let on = |ink: &str, paper: &str, least: f64| {
            let ratio = contrast(colours[ink], colours[paper]);
            assert!(ratio >= least, "{theme}: {ink} on {paper} is {ratio:.2}");
        };
        let inks = ["ink", "soft", "link", "pass", "concern", "failed", "inconclusive", "measured", "neutral"];
        for ink in inks {
            on(ink, "bg", 4.5);
        }
        for ink in ["soft", "ink", "neutral"] {
            on(ink, "panel", 4.5);
        }
        for ink in ["soft", "ink", "concern"] {
            on(ink, "concern-bg", 4.5);
        }
        // Series colour the names at the ends of their lines, so they must be readable as text.
        for s in ["s0", "s1", "s2", "s3", "s4", "s5"] {
            on(s, "bg", 4.5);
        }
        on("axis", "bg", 3.0);
        for heat in ["heat", "heat-neg"] {
            for step in 0..=100 {
                let shade = f64::from(step) / 100.0;
                let mut cell = [0.0; 3];
                for (c, (h, b)) in cell.iter_mut().zip(colours[heat].iter().zip(colours["bg"])) {
                    *c = h * shade + b * (1.0 - shade);
                }
                let ink = match shade {
                    s if s <= 0.62 => colours["heat-lo"],
                    s if s <= 0.75 => [0.0; 3],
                    _ => colours["heat-hi"],
                };
                let ratio = contrast(ink, cell);
                assert!(ratio >= 4.5, "{theme}: {heat} at {shade} is {ratio:.2}");
            }
        }
    }
}

fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let luminance = |c: [f64; 3]| -> f64 {
        let linear = |v: f64| if v <= 0.040_45 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) };
        0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2])
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}
