//! Methods that answer what they were told, and benches on small networks.

use netproof_audit::Configured;
use netproof_graph::Model;
use netproof_tensor::Tensor;

use super::{Bench, Protocol};
use crate::interpretability::test_support::net_of;
use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question, explanation};

/// A method that answers these attributions whatever it is asked: by the number of the row.
pub(crate) struct Fixed {
    map: Vec<f32>,
    difference: Option<Vec<f64>>,
}

impl Fixed {
    pub(crate) fn new(map: Vec<f32>) -> Self {
        Self { map, difference: None }
    }

    pub(crate) fn complete(map: Vec<f32>, difference: Vec<f64>) -> Self {
        Self { map, difference: Some(difference) }
    }
}

impl Explainer for Fixed {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        let width = net.row_len();
        let rows = q.rows.iter().flat_map(|&r| self.map[r as usize * width..][..width].to_vec()).collect();
        let e = Explanation::of_input(net, q.len(), rows)?;
        Ok(match &self.difference {
            Some(d) => e.complete(q.rows.iter().map(|&r| d[r as usize]).collect()),
            None => e,
        })
    }
}

/// A bench on rows of a table, target 0.
pub(crate) fn on<const N: usize>(model: &Model, rows: &[[f32; N]], see: impl FnOnce(Bench<'_, '_>)) {
    let x = Tensor::f32(vec![rows.len(), N], rows.concat()).unwrap();
    let net = net_of(model, &x);
    let q = Question::new(x, vec![0; rows.len()]).unwrap();
    see(Bench::new(&net, &q, Protocol::default()).unwrap());
}

pub(crate) fn method(id: &str) -> Configured<dyn Explainer> {
    explanation(id, toml::Table::new()).unwrap()
}
