//! Where a network attends, found in its graph: a softmax of a scaled product of two values, whatever it is called.

use std::collections::HashMap;

use netproof_graph::NodeInfo;
use netproof_tensor::Tensor;

use super::{ExplainError, Explained, Explanation};

/// A layer of attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Name of the weights: what the softmax makes.
    pub(crate) name: String,
    pub(crate) heads: usize,
    pub(crate) tokens: usize,
}

/// The layers in order. Between product and softmax there may be scales, masks and casts.
/// # Errors
/// There is none whose weights are `[n, heads, tokens, tokens]` or `[n, tokens, tokens]`.
pub(crate) fn layers(net: &Explained<'_>) -> Result<Vec<Layer>, ExplainError> {
    let nodes: Vec<NodeInfo> = net.model().nodes().collect();
    let makers: HashMap<&str, &NodeInfo> =
        nodes.iter().flat_map(|n| n.outputs.iter().map(move |o| (o.as_str(), n))).collect();
    let found: Vec<Layer> = net
        .made()
        .iter()
        .filter(|m| m.operator == "Softmax")
        .filter_map(|m| {
            let (heads, tokens) = match m.row.as_deref()? {
                [h, t, s] if t == s && *t > 1 => (*h, *t),
                [t, s] if t == s && *t > 1 => (1, *t),
                _ => return None,
            };
            let scores = makers.get(m.name.as_str())?.inputs.first()?;
            is_product(net, &makers, scores, 8).then(|| Layer { name: m.name.clone(), heads, tokens })
        })
        .collect();
    if found.is_empty() {
        return Err(ExplainError::not_applicable(
            "the network has no attention that can be seen: a softmax of a scaled product with weights [n, heads, tokens, \
             tokens] (an Attention operator keeps its weights to itself; export it as single operators)",
        ));
    }
    Ok(found)
}

/// Whether a value is a product of two values that nodes make, perhaps scaled or masked.
fn is_product(net: &Explained<'_>, makers: &HashMap<&str, &NodeInfo>, value: &str, depth: usize) -> bool {
    let Some(node) = makers.get(value).filter(|_| depth > 0) else { return false };
    match node.operator.as_str() {
        "MatMul" | "Einsum" => {
            node.inputs.iter().filter(|i| makers.contains_key(i.as_str()) || net.input() == i.as_str()).count() >= 2
        }
        "Mul" | "Div" | "Add" | "Sub" | "Where" | "Cast" | "Identity" | "Clip" => {
            node.inputs.iter().any(|i| is_product(net, makers, i, depth - 1))
        }
        _ => false,
    }
}

/// Tokens as a square grid of patches, with or without a class token before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) side: usize,
    /// Tokens before the grid.
    pub(crate) before: usize,
}

impl Grid {
    pub(crate) fn of(tokens: usize) -> Option<Self> {
        let side = |t: usize| Some((t as f64).sqrt().round() as usize).filter(|s| s * s == t && *s > 1);
        // One class token is the usual case, so that 1 + 49 is not missed for a square by chance.
        match tokens.checked_sub(1).and_then(side) {
            Some(side) => Some(Self { side, before: 1 }),
            None => side(tokens).map(|side| Self { side, before: 0 }),
        }
    }
}

/// Which tokens the answer is read from: the class token where there is one, else all alike.
pub(crate) fn read_out(weights: &[f32], tokens: usize) -> Vec<f32> {
    match Grid::of(tokens) {
        Some(Grid { before: 1, .. }) => weights[..tokens].to_vec(),
        _ => (0..tokens).map(|k| (0..tokens).map(|q| weights[q * tokens + k]).sum::<f32>() / tokens as f32).collect(),
    }
}

/// Relevance of tokens, one row after the other, as a map where the tokens are one.
pub(crate) fn of_tokens(
    value: &str,
    rows: usize,
    tokens: usize,
    relevance: &[f32],
) -> Result<Explanation, ExplainError> {
    let t = match Grid::of(tokens) {
        Some(Grid { side, before }) => {
            let places = relevance.chunks(tokens).flat_map(|row| &row[before..]).copied().collect();
            Tensor::f32(vec![rows, 1, side, side], places)?
        }
        None => Tensor::f32(vec![rows, tokens], relevance.to_vec())?,
    };
    let what = match Grid::of(tokens) {
        Some(Grid { before: 1, .. }) => format!("{tokens} tokens, read as a class token and a square of patches"),
        Some(_) => format!("{tokens} tokens, read as a square of patches; the mean over all of them looks"),
        None => format!("{tokens} tokens; the mean over all of them looks"),
    };
    Ok(Explanation::of(value, t).note(what))
}

/// What each head looks at, for pictures: `attention:LAYER [n, heads, side, side]`, or `[n, heads, tokens]`.
pub(crate) fn per_head(layer: &Layer, weights: &Tensor) -> Result<(String, Tensor), ExplainError> {
    let (t, rows) = (layer.tokens, weights.rows());
    let looks: Vec<f32> =
        weights.as_f32().unwrap_or_default().chunks(t * t).flat_map(|head| read_out(head, t)).collect();
    let shape = match Grid::of(t) {
        Some(Grid { side, before }) => {
            let places: Vec<f32> = looks.chunks(t).flat_map(|row| &row[before..]).copied().collect();
            Tensor::f32(vec![rows, layer.heads, side, side], places)?
        }
        None => Tensor::f32(vec![rows, layer.heads, t], looks)?,
    };
    Ok((format!("attention:{}", layer.name), shape))
}

/// Weights `[n, heads, tokens, tokens]` of every layer, one tensor each.
pub(crate) fn weights(net: &Explained<'_>, q: &super::Question, layers: &[Layer]) -> Result<Vec<Tensor>, ExplainError> {
    let names: Vec<String> = layers.iter().map(|l| l.name.clone()).collect();
    net.values(q, &names, q.len(), |i, row| {
        row.copy_from_slice(q.row(i));
        i
    })
}

/// `a b` for square matrices of side `n`.
pub(crate) fn product(a: &[f32], b: &[f32], n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n * n];
    for i in 0..n {
        for k in 0..n {
            let v = a[i * n + k];
            out[i * n..(i + 1) * n].iter_mut().zip(&b[k * n..(k + 1) * n]).for_each(|(o, &b)| *o += v * b);
        }
    }
    out
}
