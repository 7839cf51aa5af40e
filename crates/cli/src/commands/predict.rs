use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use netproof_audit::{Head, Subject};
use netproof_data::{Dataset, OpenOptions, Scale, write_npz};
use netproof_graph::{Model, Request};
use netproof_stats::classification::argmax;
use netproof_stats::probability::{sigmoid, softmax};
use netproof_tensor::{Elements, Tensor};
use serde_json::json;

use crate::args::DataArgs;
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
    /// Where the answers go (NPZ).
    #[arg(long, value_name = "FILE", default_value = "predictions.npz")]
    out: PathBuf,
    /// Write a summary here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Predict {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
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
    let mut request = Request::default();
    let mut rows = 0;
    for port in model.inputs() {
        let options = OpenOptions {
            features: Some(vec![port.name.clone()]),
            unlabelled: true,
            scale: Scale::None,
            ..OpenOptions::default()
        };
        let data = Dataset::open(&inputs.display().to_string(), &options)
            .with_context(|| format!("reading input `{}` from {}", port.name, inputs.display()))?;
        let tensor = data.load()?.features;
        rows = tensor.rows();
        request.inputs.push((port.name.clone(), converted(tensor, port)?));
    }
    let run = model.forward(&request)?;
    let outputs = model.outputs().iter().map(|p| Ok((format!("output:{}", p.name), run.output(&p.name)?)));
    let outputs = outputs.collect::<anyhow::Result<Vec<_>>>()?;
    let named: Vec<(&str, &Tensor)> = outputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    write_npz(out, &named)?;
    Ok(rows)
}

/// Numbers as the network declares them.
fn converted(tensor: Tensor, port: &netproof_graph::Port) -> anyhow::Result<Tensor> {
    if port.dtype.is_float() {
        return Ok(tensor);
    }
    let (_, shape, elements) = tensor.into_parts();
    let Elements::Float(values) = elements else { bail!("input `{}` holds no numbers", port.name) };
    let whole = values.iter().all(|v| v.fract() == 0.0 && v.abs() <= 16_777_216.0);
    ensure!(whole, "input `{}` must hold whole numbers up to 2^24", port.name);
    let elements = match port.dtype {
        netproof_tensor::DType::Bool => Elements::Bool(values.iter().map(|&v| v != 0.0).collect()),
        _ => Elements::Int(values.iter().map(|&v| port.dtype.wrap(v as i64)).collect()),
    };
    Ok(Tensor::new(port.dtype, shape, elements)?)
}
