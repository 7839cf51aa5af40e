//! The distinct values of a column.

use std::collections::HashMap;

use crate::source::{Array, Values};

/// Distinct values with their indices.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dictionary {
    pub(crate) values: Vec<String>,
    pub(crate) index: HashMap<String, usize>,
}

impl Dictionary {
    pub(crate) fn fixed(values: Vec<String>) -> Self {
        let index = values.iter().cloned().enumerate().map(|(i, v)| (v, i)).collect();
        Self { values, index }
    }

    pub(crate) fn note(&mut self, value: &str) {
        if !self.index.contains_key(value) {
            self.index.insert(value.into(), self.index.len());
        }
    }

    /// Sorts the values: by size where all are whole numbers, by bytes otherwise.
    pub(crate) fn sort(&mut self) {
        let mut values: Vec<String> = std::mem::take(&mut self.index).into_keys().collect();
        let numbers: Option<Vec<f64>> = values.iter().map(|v| v.parse().ok()).collect();
        values.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        if numbers.is_some() {
            let number = |v: &String| v.parse::<f64>().unwrap_or(0.0);
            values.sort_by(|a, b| number(a).total_cmp(&number(b)));
        }
        *self = Self::fixed(values);
    }

    pub(crate) fn get(&self, value: &str) -> Option<usize> {
        self.index.get(value).copied()
    }

    /// Index of an element's value; `None` where it is missing or unknown.
    pub(crate) fn index_of(&self, array: &Array, i: usize) -> Option<usize> {
        match &array.values {
            _ if array.is_missing(i) => None,
            Values::Text(v) => self.get(&v[i]),
            _ => self.get(&text_of(array, i)),
        }
    }
}

/// The text under which an element of a group, category or class is known.
pub(crate) fn text_of(array: &Array, i: usize) -> String {
    match &array.values {
        Values::U8(v) => v[i].to_string(),
        Values::Float(v) => v[i].to_string(),
        Values::Int(v) => v[i].to_string(),
        Values::Bool(v) => v[i].to_string(),
        Values::Text(v) => v[i].clone(),
    }
}
