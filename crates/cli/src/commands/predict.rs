use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use netproof_audit::{Head, Subject};
use netproof_data::{Dataset, Limits, read_npz, write_npz};
use netproof_graph::{Model, Port, Request};
use netproof_stats::classification::argmax;
use netproof_stats::probability::{sigmoid, softmax};
use netproof_tensor::{DType, Elements, Tensor};
use serde_json::json;

use crate::args::{DataArgs, Threads};
use crate::output::write_json;

/// Run a network on data and save its answers.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof predict model.onnx --data test.npz --out predictions.npz
  netproof predict model.onnx --inputs inputs.npz --all-outputs --out outputs.npz

With --data: `logits` (or `outputs`), `probabilities`, `predicted` and `row` (row numbers of the source). With --inputs: one
array per input of the network by name; --all-outputs writes every output as `output:NAME`.")]
pub(crate) struct Predict {
    /// The network (ONNX).
    model: PathBuf,
    /// Data, as for an audit; labels are not needed.
    #[arg(long, required_unless_present = "inputs")]
    data: Option<String>,
    /// NPZ with one array per input of the network, named like it.
    #[arg(long, value_name = "FILE", conflicts_with = "data", requires = "all_outputs")]
    inputs: Option<PathBuf>,
    /// Write every declared output.
    #[arg(long, requires = "inputs")]
    all_outputs: bool,
    #[command(flatten)]
    reading: DataArgs,
    /// Use only the first N rows.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    threads: Threads,
    /// Where the answers go (NPZ).
    #[arg(long, value_name = "FILE", default_value = "predictions.npz")]
    out: PathBuf,
    /// Write a summary here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Predict {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        self.threads.start()?;
        let model =
            Model::load(&self.model).with_context(|| format!("loading the network {}", self.model.display()))?;
        let rows = match (&self.inputs, &self.data) {
            (Some(inputs), _) => all_outputs(&model, inputs, &self.out)?,
            (None, Some(data)) => {
                let data = self.reading.open(data, &model)?;
                let data = self.limit.map_or_else(|| data.clone(), |n| data.take(n));
                answers(model, data, &self.out)?
            }
            (None, None) => bail!("no data: give --data or --inputs"),
        };
        eprintln!("{rows} rows written to {}", self.out.display());
        if let Some(path) = self.json {
            write_json(&path, &json!({ "rows": rows, "out": self.out.display().to_string() }))?;
        }
        Ok(true)
    }
}

fn answers(model: Model, data: Dataset, out: &std::path::Path) -> anyhow::Result<usize> {
    let subject = Subject::new(model, "model", data, None)?;
    let (mut parts, mut ids) = (Vec::new(), Vec::new());
    for batch in subject.data().batches(subject.batch_rows()) {
        let batch = batch?;
        parts.push(subject.answers(&batch.features)?);
        ids.extend(batch.row_ids.iter().map(|&r| r as i64));
    }
    let n = ids.len();
    let all = Tensor::concat_rows(&parts)?;
    let k = all.row_len();
    let values: Vec<f64> = all.as_f32().unwrap_or_default().iter().map(|&v| f64::from(v)).collect();
    let row = Tensor::i64(vec![n], ids)?;
    let labelled = matches!(subject.data().label_kind(), netproof_data::LabelKind::Classes { .. });
    // Without labels, several numbers per row are taken as classes.
    let head = if labelled || k > 1 { subject.head() } else { Head::Value };
    let probabilities = match head {
        Head::Logits => softmax(&values, k)?,
        Head::Probabilities => values,
        Head::BinaryLogit => values.iter().flat_map(|&z| [1.0 - sigmoid(z), sigmoid(z)]).collect(),
        Head::BinaryProbability => values.iter().flat_map(|&p| [1.0 - p, p]).collect(),
        Head::Value => {
            write_npz(out, &[("outputs", &all), ("row", &row)])?;
            return Ok(n);
        }
    };
    let classes = probabilities.len() / n.max(1);
    let predicted = argmax(&probabilities, classes.max(1))?.into_iter().map(|p| p.map_or(-1, |p| p as i64)).collect();
    let predicted = Tensor::i64(vec![n], predicted)?;
    let probabilities = Tensor::f32(vec![n, classes], probabilities.iter().map(|&v| v as f32).collect())?;
    let first = if matches!(head, Head::Logits | Head::BinaryLogit) { "logits" } else { "outputs" };
    write_npz(out, &[(first, &all), ("probabilities", &probabilities), ("predicted", &predicted), ("row", &row)])?;
    Ok(n)
}

fn all_outputs(model: &Model, inputs: &std::path::Path, out: &std::path::Path) -> anyhow::Result<usize> {
    let names: Vec<&str> = model.inputs().iter().map(|p| p.name.as_str()).collect();
    let arrays = read_npz(inputs, &names, Limits::default()).context("reading the inputs")?;
    let rows = arrays.first().filter(|t| t.rank() > 0).map_or(1, Tensor::rows);
    let given = model.inputs().iter().zip(arrays);
    let given = given.map(|(port, tensor)| Ok((port.name.clone(), converted(tensor, port)?)));
    let request = Request { inputs: given.collect::<anyhow::Result<_>>()?, ..Request::default() };
    let run = model.forward(&request)?;
    let outputs = model.outputs().iter().map(|p| Ok((format!("output:{}", p.name), run.output(&p.name)?)));
    let outputs = outputs.collect::<anyhow::Result<Vec<_>>>()?;
    let named: Vec<(&str, &Tensor)> = outputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    write_npz(out, &named)?;
    Ok(rows)
}

/// Numbers as the network declares them, where that loses nothing.
fn converted(tensor: Tensor, port: &Port) -> anyhow::Result<Tensor> {
    let (from, to) = (tensor.dtype(), port.dtype);
    if from == to || (from.is_float() && to.is_float()) {
        return Ok(tensor);
    }
    let (_, shape, elements) = tensor.into_parts();
    let elements = match elements {
        Elements::Int(v) if to.is_float() => {
            let exact = |&v: &i64| v.unsigned_abs() <= 1 << 24;
            ensure!(v.iter().all(exact), "input `{}` holds integers over 2^24, which floats cannot hold", port.name);
            Elements::Float(v.into_iter().map(|v| v as f32).collect())
        }
        Elements::Bool(v) if to.is_float() => Elements::Float(v.into_iter().map(|v| f32::from(u8::from(v))).collect()),
        Elements::Int(v) => {
            let unsigned = from == DType::U64;
            let fits = |&v: &i64| {
                let v = if unsigned { i128::from(v as u64) } else { i128::from(v) };
                to.int_range().is_some_and(|(low, high)| (low..=high).contains(&v))
            };
            ensure!(v.iter().all(fits), "input `{}` holds {from} values, the network needs {to}", port.name);
            Elements::Int(v)
        }
        Elements::Float(v) if to.is_int() => {
            let (low, high) = to.int_range().unwrap_or_default();
            let fits = |v: &f32| v.fract() == 0.0 && (low..=high).contains(&(*v as i128));
            ensure!(v.iter().all(fits), "input `{}` must hold whole numbers that fit {to}, got {from}", port.name);
            Elements::Int(v.into_iter().map(|v| v as i128 as i64).collect())
        }
        _ => bail!("input `{}` holds {from} values, the network needs {to}", port.name),
    };
    Ok(Tensor::new(to, shape, elements)?)
}
