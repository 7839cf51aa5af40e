use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use netproof_graph::{Dim, Model, Port};
use netproof_onnx::{Limits, OnnxFile, SaveOptions};
use serde_json::json;

use crate::output::{print, write_json};

/// Show inputs, outputs, nodes, parameters and cost of a network.
#[derive(Args)]
#[command(after_help = "Examples:
  netproof inspect model.onnx
  netproof inspect model.onnx --batch 32 --json -
  netproof inspect model.onnx --save copy.onnx")]
pub(crate) struct Inspect {
    /// The network (ONNX).
    model: PathBuf,
    /// Rows of the batch that costs are for.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Load and save again.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Write everything here; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Inspect {
    pub(crate) fn run(self) -> anyhow::Result<bool> {
        let file = OnnxFile::load(&self.model, &Limits::default())
            .with_context(|| format!("loading the network {}", self.model.display()))?;
        if let Some(path) = &self.save {
            file.save(path, SaveOptions::default()).with_context(|| format!("saving {}", path.display()))?;
        }
        let opsets: Vec<String> =
            file.model.opset_import.iter().map(|o| format!("{} {}", domain(o.domain()), o.version())).collect();
        let producer = format!("{} {}", file.model.producer_name(), file.model.producer_version());
        let model = Model::from_file(file)?;
        let cost = model.cost(&model.batch_shapes(self.batch.max(1)));
        let ports = |ports: &[Port]| -> Vec<String> { ports.iter().map(port).collect() };
        if let Some(path) = &self.json {
            let nodes = cost.as_ref().ok().map(|c| {
                let node = |n: &netproof_graph::NodeCost| {
                    json!({
                        "name": n.node.name, "operator": n.node.operator, "inputs": n.node.inputs,
                        "outputs": n.node.outputs, "shapes": n.shapes, "macs": n.macs,
                        "parameters": n.parameters, "activation_bytes": n.activation_bytes,
                    })
                };
                c.nodes.iter().map(node).collect::<Vec<_>>()
            });
            let total = cost.as_ref().ok().map(|c| {
                json!({
                    "batch": c.batch, "parameters": c.parameters, "trainable": c.trainable,
                    "parameter_bytes": c.parameter_bytes, "macs": c.macs,
                    "peak_activation_bytes": c.peak_activation_bytes,
                })
            });
            let value = json!({
                "sha256": model.sha256()?, "opsets": opsets, "producer": producer.trim(),
                "inputs": ports(model.inputs()), "outputs": ports(model.outputs()), "cost": total, "nodes": nodes,
            });
            write_json(path, &value)?;
            return Ok(true);
        }
        let mut t = String::new();
        let _ = writeln!(t, "sha256    {}", model.sha256()?);
        let _ = writeln!(t, "opset     {}\nproducer  {}", opsets.join(", "), producer.trim());
        ports(model.inputs()).iter().for_each(|p| _ = writeln!(t, "input     {p}"));
        ports(model.outputs()).iter().for_each(|p| _ = writeln!(t, "output    {p}"));
        match cost {
            Ok(c) => {
                let _ = writeln!(
                    t,
                    "\n{:<40} {:<22} {:<20} {:>12} {:>14} {:>12}",
                    "node", "operator", "output shape", "parameters", "MACs", "bytes"
                );
                for n in &c.nodes {
                    let shape = n.shapes.first().map_or_else(|| "?".to_owned(), |s| format!("{s:?}"));
                    let macs = n.macs.map_or_else(|| "?".to_owned(), |m| m.to_string());
                    let _ = writeln!(
                        t,
                        "{:<40} {:<22} {shape:<20} {:>12} {macs:>14} {:>12}",
                        n.node.name, n.node.operator, n.parameters, n.activation_bytes
                    );
                }
                let _ = writeln!(t, "\nbatch {}", c.batch);
                let _ =
                    writeln!(t, "parameters {} ({} trainable), {} bytes", c.parameters, c.trainable, c.parameter_bytes);
                let macs = c.macs.map_or_else(|| "unknown before a run".to_owned(), |m| m.to_string());
                let _ = writeln!(t, "multiply-accumulate operations {macs}");
                let _ = writeln!(t, "peak activation memory {} bytes", c.peak_activation_bytes);
            }
            Err(e) => {
                let _ = writeln!(t, "\nno cost for batch {}: {e}", self.batch);
            }
        }
        print(&t)?;
        Ok(true)
    }
}

fn domain(name: &str) -> &str {
    if name.is_empty() { "ai.onnx" } else { name }
}

fn port(p: &Port) -> String {
    let text = |s: &Vec<Dim>| s.iter().map(Dim::to_string).collect::<Vec<_>>().join(", ");
    let shape = p.shape.as_ref().map_or_else(|| "?".to_owned(), text);
    format!("{}: {} [{shape}]", p.name, p.dtype)
}
