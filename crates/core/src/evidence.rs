use serde::{Deserialize, Serialize};

use crate::Comparison;

/// What stands behind a finding. Aggregates and row ids only, never raw personal data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Evidence {
    /// A table.
    Table(Table),
    /// A plot as its data series; the report draws it.
    Plot(Plot),
    /// A picture in the run folder.
    Image(Picture),
    /// Many pictures, one item per sample.
    Gallery(Gallery),
    /// Rows of the data, by id.
    Rows {
        /// Why these rows.
        title: String,
        /// Row ids as the data source gives them.
        ids: Vec<u64>,
    },
}

impl Evidence {
    /// Every picture that this evidence shows.
    pub fn pictures(&self) -> Vec<&Picture> {
        match self {
            Self::Image(picture) => vec![picture],
            Self::Gallery(g) => g.sections.iter().flat_map(|s| &s.items).flat_map(|i| &i.pictures).collect(),
            _ => Vec::new(),
        }
    }
}

impl From<Table> for Evidence {
    fn from(table: Table) -> Self {
        Self::Table(table)
    }
}
impl From<Plot> for Evidence {
    fn from(plot: Plot) -> Self {
        Self::Plot(plot)
    }
}
impl From<Picture> for Evidence {
    fn from(picture: Picture) -> Self {
        Self::Image(picture)
    }
}
impl From<Gallery> for Evidence {
    fn from(gallery: Gallery) -> Self {
        Self::Gallery(gallery)
    }
}

/// A picture, which lies in the run folder under the hash of its content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// What the picture shows.
    pub title: String,
    /// Path relative to the run folder.
    pub file: String,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Description for people who cannot see it.
    pub alt: String,
    /// Why nobody may rely on this picture, such as a failed sanity check; shown across it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

impl Picture {
    /// The same picture with a warning across it, such as `do not rely on this: it does not depend on the weights`.
    #[must_use]
    pub fn warn(mut self, why: impl Into<String>) -> Self {
        self.warning = Some(why.into());
        self
    }
}

/// Pictures of many samples, in sections such as right, wrong and most uncertain predictions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gallery {
    /// What the gallery shows.
    pub title: String,
    /// Sections in reading order.
    pub sections: Vec<GallerySection>,
}

/// A part of a gallery.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GallerySection {
    /// What its samples have in common, such as `Wrong predictions`.
    pub title: String,
    /// Samples in reading order.
    pub items: Vec<GalleryItem>,
}

/// One sample of a gallery.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GalleryItem {
    /// Names the sample, such as `row 17: Shirt, taken for Coat`.
    pub title: String,
    /// One line of detail, such as `confidence 0.51`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Its pictures side by side: the input, then one per explanation.
    pub pictures: Vec<Picture>,
}

/// A table with a header row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What the table shows.
    pub title: String,
    /// Column names, with units.
    pub columns: Vec<String>,
    /// Rows; each as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
}

/// One cell of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// A whole number.
    Count(u64),
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
    /// No value (undefined, or not measured).
    Missing,
}

impl From<&str> for Cell {
    fn from(s: &str) -> Self {
        Self::Text(s.to_owned())
    }
}
impl From<String> for Cell {
    fn from(s: String) -> Self {
        Self::Text(s)
    }
}
impl From<f64> for Cell {
    /// A number that is not finite becomes [`Cell::Missing`], since JSON cannot hold it.
    fn from(v: f64) -> Self {
        if v.is_finite() { Self::Number(v) } else { Self::Missing }
    }
}
impl From<Option<f64>> for Cell {
    fn from(v: Option<f64>) -> Self {
        v.map_or(Self::Missing, Self::from)
    }
}
impl From<u64> for Cell {
    fn from(v: u64) -> Self {
        Self::Count(v)
    }
}
impl From<usize> for Cell {
    fn from(v: usize) -> Self {
        Self::Count(v as u64)
    }
}

/// An axis of a plot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// Name with unit.
    pub label: String,
    /// Fixed limits; the data's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(f64, f64)>,
    /// Logarithmic scale.
    #[serde(default)]
    pub log: bool,
}

impl Axis {
    /// An axis with the data's own limits.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// An axis from 0 to 1.
    pub fn unit(label: impl Into<String>) -> Self {
        Self { label: label.into(), range: Some((0.0, 1.0)), log: false }
    }
}

/// One point with an optional interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Horizontal value; for bars and forests the position is the index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<f64>,
    /// Measured value.
    pub y: f64,
    /// Lower end of the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end of the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// Sample count behind the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// Name of the bar or row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A named series of marks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Marks in drawing order.
    pub marks: Vec<Mark>,
}

/// How series are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PlotKind {
    /// Lines over `x`, with intervals as bands.
    Lines,
    /// Points at `x`, `y` with interval whiskers.
    Points,
    /// One bar per mark, named by its label.
    Bars,
    /// Rows of value and interval, named by label, with `reference` as a vertical line.
    Forest,
    /// Calibration: `x` mean confidence, `y` accuracy, `n` per bin, against the diagonal.
    Reliability,
    /// A matrix of counts, such as a confusion matrix.
    Matrix {
        /// Row names (truth).
        rows: Vec<String>,
        /// Column names (prediction).
        columns: Vec<String>,
        /// Values, row by row.
        values: Vec<f64>,
    },
    /// Lines over `x`, the area between the first series (below) and the second (above) shaded: the truth lies there,
    /// as between certified and attacked accuracy. Further series are plain lines.
    Band,
    /// How contributions add up, from `base` to the output: one series, its marks are steps with `y` as contribution and
    /// `label` as name (`age = 39`), in reading order. The values are on the `x` axis.
    Waterfall {
        /// Where the sum starts, such as the mean output.
        base: f64,
    },
    /// One row per series, its marks a swarm: `x` is the contribution, `y` the feature's own value, which sets the colour
    /// from the lowest to the highest of its row (all equal: no colour).
    Beeswarm,
    /// Two aims at once: a series is one treatment, its marks the way from before to after, drawn as arrows. Marks that
    /// no other series' last mark beats in both aims are joined as the front.
    Pareto {
        /// Which side of the horizontal axis is good.
        x: Comparison,
        /// Which side of the vertical axis is good.
        y: Comparison,
    },
}

/// A plot as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    /// What the plot shows.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// How to draw.
    pub plot: PlotKind,
    /// The data; empty for a matrix.
    #[serde(default)]
    pub series: Vec<Series>,
    /// A reference value drawn as a line, such as a threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<f64>,
}
