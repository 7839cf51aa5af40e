//! Labels: class indices, named classes or targets.

use std::path::Path;

use crate::dictionary::{Dictionary, text_of};
use crate::source::{Array, Field, Kind, Values};
use crate::{DataError, Labels, OpenOptions, Task};

#[derive(Debug, Clone)]
pub(crate) enum Label {
    None,
    Target {
        slot: usize,
    },
    /// `known` bounds the index where the options name the classes.
    Index {
        slot: usize,
        count: usize,
        known: Option<usize>,
    },
    Named {
        slot: usize,
        classes: Dictionary,
    },
}

impl Label {
    /// Sees a label for the first time: extends what is known, or says what is wrong with it.
    pub(crate) fn note(&mut self, array: &Array, row: usize) -> Result<(), String> {
        match self {
            Self::Index { count, known, .. } => {
                let class = class_index(array, row, *known)?;
                *count = (*count).max(class.saturating_add(1));
                return Ok(());
            }
            Self::Named { classes, .. } if classes.values.is_empty() => {
                if array.is_missing(row) {
                    return Err("is missing".into());
                }
                classes.note(&text_of(array, row));
                return Ok(());
            }
            _ => {}
        }
        self.value(array, row).map(|_| ())
    }

    fn value(&self, array: &Array, row: usize) -> Result<f64, String> {
        match self {
            Self::None => Ok(0.0),
            Self::Target { .. } if array.is_missing(row) => Err("is missing".into()),
            Self::Target { .. } => Ok(match &array.values {
                Values::Float(v) => f64::from(v[row]),
                Values::Int(v) => v[row] as f64,
                Values::U8(v) => f64::from(v[row]),
                Values::Bool(v) => f64::from(u8::from(v[row])),
                Values::Text(v) => return Err(format!("is {:?}, not a number", v[row])),
            }),
            Self::Index { known, .. } => class_index(array, row, *known).map(|c| c as f64),
            Self::Named { .. } if array.is_missing(row) => Err("is missing".into()),
            Self::Named { classes, .. } => {
                let text = text_of(array, row);
                let index = classes.get(&text).map(|c| c as f64);
                index.ok_or_else(|| format!("is {text:?}, none of the classes {}", classes.values.join(", ")))
            }
        }
    }

    pub(crate) fn read(&self, arrays: &[Array], rows: usize) -> Result<Labels, (usize, String)> {
        let (slot, classes) = match self {
            Self::None => return Ok(Labels::None),
            Self::Target { slot } => (*slot, false),
            Self::Index { slot, .. } | Self::Named { slot, .. } => (*slot, true),
        };
        let value = |row| self.value(&arrays[slot], row).map_err(|reason| (row, reason));
        Ok(if classes {
            Labels::Classes((0..rows).map(|r| value(r).map(|v| v as usize)).collect::<Result<_, _>>()?)
        } else {
            Labels::Targets((0..rows).map(|r| value(r).map(|v| v as f32)).collect::<Result<_, _>>()?)
        })
    }
}

/// The label as a class index.
fn class_index(array: &Array, row: usize, known: Option<usize>) -> Result<usize, String> {
    if array.is_missing(row) {
        return Err("is missing".into());
    }
    let index = match &array.values {
        Values::U8(v) => Some(v[row].into()),
        Values::Bool(v) => Some(v[row].into()),
        Values::Int(v) => usize::try_from(v[row]).ok().filter(|&c| c < 1 << 53),
        Values::Float(v) => (v[row] >= 0.0 && v[row].fract() == 0.0 && v[row] < 1e7).then_some(v[row] as usize),
        Values::Text(_) => None,
    };
    let index = index.ok_or_else(|| format!("is {}, not a class index of 0 or more", text_of(array, row)))?;
    match known {
        Some(classes) if index >= classes => Err(format!("is {index}, but only {classes} classes are named")),
        _ => Ok(index),
    }
}

pub(crate) fn label_plan(slot: usize, field: &Field, options: &OpenOptions, path: &Path) -> Result<Label, DataError> {
    let bad = |reason: &str| {
        Err(DataError::Label { path: path.into(), name: field.name.clone(), reason: reason.to_string() })
    };
    if let Some(names) = &options.class_names {
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        if names.is_empty() || sorted.windows(2).any(|w| w[0] == w[1]) {
            return bad("the class names are empty or name a class twice");
        }
    }
    let categorical = options.categorical.contains(&field.name);
    Ok(match (field.kind, options.task) {
        (Kind::Text, Task::Regression) => return bad("it holds text, which is no target for regression"),
        (_, Task::Regression) | (Kind::Float, Task::Auto) if !categorical => Label::Target { slot },
        (kind, _) if kind == Kind::Text || categorical => {
            Label::Named { slot, classes: options.class_names.clone().map(Dictionary::fixed).unwrap_or_default() }
        }
        (kind, _) => {
            let count = if kind == Kind::Bool { 2 } else { 0 };
            Label::Index { slot, count, known: options.class_names.as_ref().map(Vec::len) }
        }
    })
}
