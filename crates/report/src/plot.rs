//! Plots as inline SVG: drawn from data series, coloured by the page's style, readable without it.

mod axis;
mod band;
mod bars;
mod beeswarm;
mod dumbbell;
mod frame;
mod lines;
mod matrix;
mod pareto;
mod reliability;
mod strip;
mod svg;
mod waterfall;

use netproof_core::{Plot, PlotKind};

pub(crate) use dumbbell::dumbbell;
pub(crate) use strip::strip;

/// One entry of a legend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// Class that sets the colour.
    pub(crate) class: String,
    /// Name of the series.
    pub(crate) name: String,
    /// Drawn as a line, not as an area.
    pub(crate) line: bool,
}

/// A finished plot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drawing {
    /// The SVG element.
    pub(crate) svg: String,
    /// Names of the series, where they do not stand in the plot.
    pub(crate) legend: Vec<Key>,
    /// What the reader must know: thinned, cut, left out.
    pub(crate) notes: Vec<String>,
}

/// Colours repeat after six series, with another dash each time, so that no series is told by colour alone.
fn series_class(i: usize) -> String {
    format!("s{} d{}", i % 6, (i / 6) % 3)
}

/// Draws a plot; `id` is unique on the page.
pub(crate) fn draw(plot: &Plot, id: &str) -> Drawing {
    match &plot.plot {
        PlotKind::Lines => lines::draw(plot, id, true),
        PlotKind::Points => lines::draw(plot, id, false),
        PlotKind::Bars => bars::draw(plot, id, false),
        PlotKind::Forest => bars::draw(plot, id, true),
        PlotKind::Reliability => reliability::draw(plot, id),
        PlotKind::Matrix { rows, columns, values } => matrix::draw(plot, id, rows, columns, values),
        PlotKind::Band => band::draw(plot, id),
        PlotKind::Waterfall { base } => waterfall::draw(plot, id, *base),
        PlotKind::Beeswarm => beeswarm::draw(plot, id),
        PlotKind::Pareto { x, y } => pareto::draw(plot, id, *x, *y),
        // A kind that this version cannot draw still shows its numbers.
        _ => lines::draw(plot, id, false),
    }
}

#[cfg(test)]
mod tests {
    use netproof_core::{Axis, Comparison, Mark, Series};

    use super::*;

    fn plot(kind: PlotKind, marks: Vec<Mark>) -> Plot {
        Plot {
            title: "t".into(),
            x: Axis::new("x"),
            y: Axis::new("y"),
            plot: kind,
            series: vec![Series { name: "s".into(), marks }],
            reference: None,
        }
    }

    fn mark(x: f64, y: f64) -> Mark {
        Mark { x: Some(x), y, ..Mark::default() }
    }

    fn kinds() -> Vec<PlotKind> {
        let matrix = PlotKind::Matrix { rows: vec!["a".into()], columns: vec!["b".into()], values: vec![f64::NAN] };
        let mut all = vec![PlotKind::Lines, PlotKind::Points, PlotKind::Bars, PlotKind::Forest, PlotKind::Beeswarm];
        all.extend([PlotKind::Band, PlotKind::Pareto { x: Comparison::AtLeast, y: Comparison::AtMost }]);
        all.extend([PlotKind::Reliability, PlotKind::Waterfall { base: f64::NAN }, matrix]);
        all
    }

    #[test]
    fn no_drawing_holds_a_number_that_is_not_one() {
        let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1.0, -1.0, f64::MAX, f64::MIN, 5e-324];
        for kind in kinds() {
            for log in [false, true] {
                let marks = bad
                    .iter()
                    .flat_map(|x| bad.iter().map(move |y| Mark { low: Some(-*y), high: Some(*x), ..mark(*x, *y) }))
                    .collect();
                let mut p = plot(kind.clone(), marks);
                (p.x.log, p.y.log, p.reference) = (log, log, Some(f64::NAN));
                let svg = draw(&p, "p").svg;
                assert!(!svg.contains("NaN") && !svg.contains("inf\"") && !svg.contains("-inf"), "{kind:?}: {svg}");
            }
        }
    }

    #[test]
    fn empty_plots_are_drawn() {
        for kind in kinds() {
            let mut p = plot(kind, vec![]);
            assert!(draw(&p, "p").svg.ends_with("</svg>"));
            p.series.clear();
            assert!(draw(&p, "p").svg.ends_with("</svg>"));
        }
        let none = PlotKind::Matrix { rows: vec![], columns: vec![], values: vec![] };
        assert!(draw(&plot(none, vec![]), "p").svg.ends_with("</svg>"));
    }

    #[test]
    fn large_plots_are_thinned_and_say_so() {
        let marks: Vec<Mark> = (0..10_000).map(|i| mark(f64::from(i), f64::from(i * 7919 % 1000))).collect();
        for kind in kinds().into_iter().take(7) {
            let d = draw(&plot(kind.clone(), marks.clone()), "p");
            assert!(d.svg.len() < 200_000, "{kind:?}: {}", d.svg.len());
            assert!(d.notes.iter().any(|n| n.starts_with("Drawn: ")), "{kind:?}");
        }
        let names: Vec<String> = (0..300).map(|i| format!("class {i}")).collect();
        let matrix = PlotKind::Matrix { rows: names.clone(), columns: names, values: vec![3.0; 90_000] };
        let d = draw(&plot(matrix, vec![]), "p");
        assert!(d.svg.len() < 300_000 && d.notes.iter().any(|n| n.contains("40 of 300 rows")));
    }

    #[test]
    fn names_in_plots_are_escaped() {
        for kind in kinds() {
            let m = Mark { label: Some("<script>".into()), n: Some(3), ..mark(0.5, 0.5) };
            let mut p = plot(kind, vec![m]);
            p.title = "<script>".into();
            p.x.label = "<script>".into();
            p.y.label = "<script>".into();
            assert!(!draw(&p, "p").svg.contains("<script"));
        }
    }

    #[test]
    fn a_higher_value_lies_higher() {
        let d = draw(&plot(PlotKind::Points, vec![mark(0.0, 1.0), mark(1.0, 2.0)]), "p");
        let cy: Vec<f64> =
            d.svg.split("cy=\"").skip(1).filter_map(|s| s.split('"').next().and_then(|v| v.parse().ok())).collect();
        assert!(cy.len() == 2 && cy[0] > cy[1], "{cy:?}");
    }

    #[test]
    fn a_confusion_matrix_shows_its_numbers() {
        let names = vec!["cat".to_owned(), "dog".to_owned()];
        let kind = PlotKind::Matrix { rows: names.clone(), columns: names, values: vec![1200.0, 3.0, 0.0, 9.0] };
        let d = draw(&plot(kind, vec![]), "p");
        assert!(d.svg.contains(">1,200<") && d.svg.contains("1,209 of 1,212 lie on the diagonal"));
    }
}
