//! What explains a network by other rows, by concepts or as a whole: one file per method, one registry line each.
//!
//! These answer with tables and named arrays, not with attributions of elements.

mod counterfactual;
mod feature_visualisation;
mod influence;
mod linear_surrogate;
mod nearest_examples;
mod partial_dependence;
mod permutation_importance;
mod prototypes;
mod surrogate;
mod tcav;

use netproof_audit::{AuditError, Configured, Entry, parse};
use netproof_core::{Card, OptionDoc, Table};
use netproof_tensor::Tensor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Answer, ExplainError, Explained, Features, Question};

pub use linear_surrogate::{Linear, LinearFidelity};
pub(crate) use linear_surrogate::{RIDGE, scores};
pub use surrogate::{Fidelity, Tree};

/// What is asked.
#[derive(Debug, Clone)]
pub struct Inquiry {
    /// Rows of interest with their targets.
    pub q: Question,
    /// Rows that are known, with finite elements: neighbours, prototypes, distributions are taken from them.
    pub data: Tensor,
    /// Their labels, where there are classes.
    pub labels: Option<Vec<usize>>,
    /// Their numbers in the source.
    pub rows: Vec<u64>,
    /// Rows that show a concept.
    pub concept: Option<Tensor>,
    /// Names of the elements of a row, such as the columns of a table; empty where they have none.
    pub columns: Vec<String>,
}

impl Inquiry {
    pub(crate) fn known(&self, i: usize) -> &[f32] {
        let width = self.data.row_len();
        &self.data.as_f32().unwrap_or_default()[i * width..(i + 1) * width]
    }

    pub(crate) fn len(&self) -> usize {
        self.data.rows()
    }

    /// The known rows as a question about one target.
    pub(crate) fn known_rows(&self, target: usize) -> Result<Question, ExplainError> {
        if !self.q.context.is_empty() {
            return Err(ExplainError::not_applicable("this method needs a network with one input"));
        }
        let mut q = Question::new(self.data.clone(), vec![target; self.len()])?;
        q.rows.clone_from(&self.rows);
        q.seed = self.q.seed;
        q.features.clone_from(&self.q.features);
        Ok(q)
    }

    /// Features of a row: those that were given, or its elements.
    pub(crate) fn features(&self, width: usize) -> Features {
        match &self.q.features {
            Some(f) => f.clone(),
            None => Features { of: (0..width).collect(), names: (0..width).map(|k| self.column(k)).collect() },
        }
    }

    /// Name of an element.
    pub(crate) fn column(&self, k: usize) -> String {
        self.columns.get(k).cloned().unwrap_or_else(|| format!("element {k}"))
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Insight {
    /// Tables for people.
    pub tables: Vec<Table>,
    /// Arrays by name.
    pub arrays: Vec<(String, Tensor)>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// A method of this kind.
pub trait Examiner: Send + Sync {
    /// # Errors
    /// The method does not apply to this network or these data.
    fn examine(&self, net: &Explained<'_>, asked: &Inquiry) -> Result<Insight, ExplainError>;
}

/// A registry of these methods.
pub type Insights = &'static [Entry<dyn Examiner>];

/// All of them.
pub static INSIGHTS: Insights = &[
    Entry { card: &permutation_importance::CARD, build: examiner::<permutation_importance::PermutationImportance> },
    Entry { card: &partial_dependence::CARD, build: examiner::<partial_dependence::PartialDependence> },
    Entry { card: &surrogate::CARD, build: examiner::<surrogate::Surrogate> },
    Entry { card: &linear_surrogate::CARD, build: examiner::<linear_surrogate::LinearSurrogate> },
    Entry { card: &counterfactual::CARD, build: examiner::<counterfactual::Counterfactual> },
    Entry { card: &nearest_examples::CARD, build: examiner::<nearest_examples::NearestExamples> },
    Entry { card: &influence::CARD, build: examiner::<influence::Influence> },
    Entry { card: &prototypes::CARD, build: examiner::<prototypes::Prototypes> },
    Entry { card: &tcav::CARD, build: examiner::<tcav::Tcav> },
    Entry { card: &feature_visualisation::CARD, build: examiner::<feature_visualisation::FeatureVisualisation> },
];

fn examiner<E: Examiner + Serialize + DeserializeOwned + 'static>(
    card: &'static Card,
    options: toml::Table,
) -> Result<Configured<dyn Examiner>, AuditError> {
    let (method, options) = parse::<E>(card, options)?;
    Ok(Configured { card, method: Box::new(method), options })
}

pub(crate) const LAYER: OptionDoc = OptionDoc {
    name: "layer",
    default: "\"\"",
    doc: "Name of the value whose numbers are compared; empty: what goes into the last product with weights.",
};

/// What the network says about each known row: a class, or `None` where it is not a number.
pub(crate) fn said(net: &Explained<'_>, asked: &Inquiry) -> Result<Vec<Option<usize>>, ExplainError> {
    if net.answer() == Answer::Value {
        return Err(ExplainError::not_applicable("the network is no classifier"));
    }
    let q = asked.known_rows(0)?;
    let answers = net.answers(&q, asked.len(), |i, row| {
        row.copy_from_slice(asked.known(i));
        i
    })?;
    let width = answers.len().checked_div(asked.len()).unwrap_or(1).max(1);
    Ok(answers.chunks(width).map(|row| net.predicted(row)).collect())
}

/// The feature layer: the one that is asked for, or what goes into the product with weights that has `behind` such products
/// behind it.
pub(crate) fn feature_layer(net: &Explained<'_>, asked: &str, behind: usize) -> Result<String, ExplainError> {
    let fits = |name: &str| net.made().iter().any(|m| m.name == name && m.row.is_some());
    if !asked.is_empty() {
        return match net.made().iter().any(|m| m.name == asked) {
            true if fits(asked) => Ok(asked.to_owned()),
            true => Err(ExplainError::not_applicable(format!("layer: `{asked}` has no row per row of the input"))),
            false => Err(ExplainError::not_applicable(format!("layer: no node makes `{asked}`"))),
        };
    }
    let model = net.model();
    let weighs = |n: &netproof_graph::NodeInfo| {
        matches!(n.operator.as_str(), "Gemm" | "MatMul" | "Conv")
            && n.inputs.iter().skip(1).any(|i| model.parameter(i).is_some())
    };
    let inputs: Vec<String> = model.nodes().filter(weighs).filter_map(|n| n.inputs.first().cloned()).collect();
    let mut from_end = inputs.into_iter().rev().filter(|name| fits(name));
    let last = from_end.next();
    match from_end.take(behind).last().or(last) {
        Some(name) => Ok(name),
        None => Err(ExplainError::not_applicable("no layer of features was found; name a value (layer)")),
    }
}

/// A named value for the rows of a question, as rows of numbers.
pub(crate) fn features_of(net: &Explained<'_>, q: &Question, layer: &str) -> Result<Vec<Vec<f64>>, ExplainError> {
    let found = net.values(q, &[layer.to_owned()], q.len(), |i, row| {
        row.copy_from_slice(q.row(i));
        i
    })?;
    let width = found[0].row_len().max(1);
    Ok(found[0].as_f32().unwrap_or_default().chunks(width).map(|r| r.iter().map(|&v| f64::from(v)).collect()).collect())
}

pub(crate) fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

pub(crate) fn table(title: impl Into<String>, columns: &[&str]) -> Table {
    Table { title: title.into(), columns: columns.iter().map(|&c| c.to_owned()).collect(), rows: Vec::new() }
}

pub(crate) fn floats(shape: Vec<usize>, values: impl IntoIterator<Item = f64>) -> Result<Tensor, ExplainError> {
    Ok(Tensor::f32(shape, values.into_iter().map(|v| v as f32).collect())?)
}
