//! Which value of a network is a map of its input: what class activation methods look at.

use netproof_tensor::Tensor;

use super::{ExplainError, Explained, Question};

/// A value whose rows are channels over a grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Map {
    /// Name of the value.
    pub(crate) name: String,
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// For `[n, tokens, channels]`: how many tokens come before the grid (a class token).
    tokens_before: Option<usize>,
}

/// Most candidates that are tried from the end.
const TRIED: usize = 64;

impl Map {
    /// The map in a value of the given row shape: `[channels, h, w]`, or `[tokens, channels]` where the tokens are a square
    /// grid, with or without a class token.
    pub(crate) fn of(name: &str, row: &[usize]) -> Option<Self> {
        let name = name.to_owned();
        match *row {
            [channels, height, width] if height * width > 1 => {
                Some(Self { name, channels, height, width, tokens_before: None })
            }
            [tokens, channels] => {
                let side = |t: usize| Some((t as f64).sqrt().round() as usize).filter(|s| s * s == t && *s > 1);
                let (before, s) = match (side(tokens), tokens.checked_sub(1).and_then(side)) {
                    (Some(s), _) => (0, s),
                    (None, Some(s)) => (1, s),
                    _ => return None,
                };
                Some(Self { name, channels, height: s, width: s, tokens_before: Some(before) })
            }
            _ => None,
        }
    }

    /// One row as `[channels, height · width]`.
    pub(crate) fn channels_of(&self, row: &[f32]) -> Vec<f32> {
        let Some(before) = self.tokens_before else { return row.to_vec() };
        let (places, c) = (self.height * self.width, self.channels);
        let tokens = &row[before * c..];
        (0..c).flat_map(|k| (0..places).map(move |p| tokens[p * c + k])).collect()
    }
}

/// The value that is asked for, or the last suitable one: a map of over one place that no pooling made, where a gradient of
/// the score arrives. Answers with a sentence that says which.
pub(crate) fn choose(net: &Explained<'_>, q: &Question, asked: &str) -> Result<(Map, String), ExplainError> {
    let row_of = |name: &str| net.made().iter().find(|m| m.name == name).map(|m| m.row.clone());
    if !asked.is_empty() {
        let Some(row) = row_of(asked) else {
            let known: Vec<String> = candidates(net).into_iter().map(|m| m.name).collect();
            return Err(ExplainError::not_applicable(format!(
                "layer: no node makes `{asked}`; maps are {}",
                known.join(", ")
            )));
        };
        return match row.and_then(|row| Map::of(asked, &row)) {
            Some(map) => Ok((map, format!("the map is `{asked}`, as asked"))),
            None => Err(ExplainError::not_applicable(format!(
                "layer: `{asked}` is no map; it must have the shape [n, channels, height, width] or [n, tokens, channels]"
            ))),
        };
    }
    let all = candidates(net);
    if all.is_empty() {
        return Err(ExplainError::not_applicable(
            "no value of the network is a map [n, channels, height, width] or [n, tokens, channels]",
        ));
    }
    let names: Vec<String> = all.iter().map(|m| m.name.clone()).collect();
    let first = q.select(&[0])?;
    let mut arrives = vec![false; all.len()];
    net.probe(&first, &names, |_, found| {
        for ((map, (_, g)), arrives) in all.iter().zip(found).zip(&mut arrives) {
            let g = g.as_ref().and_then(Tensor::as_f32);
            *arrives = g.is_some_and(|g| map.channels_of(g).iter().any(|&v| v != 0.0));
        }
        Ok(())
    })?;
    match all.into_iter().zip(arrives).rev().find(|(_, arrives)| *arrives) {
        Some((map, _)) => {
            let said = format!("the map is `{}`, the last one that the score has a gradient for", map.name);
            Ok((map, said))
        }
        None => Err(ExplainError::not_applicable("no map of the network has a gradient of the score")),
    }
}

/// The last values that are maps: images of features; in a network that attends, tokens as the normalisation before a layer
/// makes them (the usual choice for transformers), or any.
fn candidates(net: &Explained<'_>) -> Vec<Map> {
    let pools = |operator: &str| operator.contains("Pool") || matches!(operator, "Constant" | "Shape" | "Identity");
    let find = |rank: usize, wanted: &dyn Fn(&str) -> bool| -> Vec<Map> {
        let made = net.made().iter().filter(|m| !pools(&m.operator) && wanted(&m.operator));
        let maps = made.filter_map(|m| Map::of(&m.name, m.row.as_ref().filter(|r| r.len() == rank)?));
        let all: Vec<Map> = maps.collect();
        let skip = all.len().saturating_sub(TRIED);
        all.into_iter().skip(skip).collect()
    };
    // Heads and their scores have three axes as images have.
    let attends = net.made().iter().any(|m| m.operator == "Softmax" || m.operator == "Attention");
    let images = find(3, &|_| true);
    if !attends && !images.is_empty() {
        return images;
    }
    let normalised = find(2, &|o| o.ends_with("Normalization"));
    if !normalised.is_empty() {
        return normalised;
    }
    let tokens = find(2, &|_| true);
    if tokens.is_empty() { images } else { tokens }
}
