//! Builds a small network, runs it, and asks for the gradient of its loss with respect to the input.
//! `cargo run -p netproof-graph --example build_and_run`
#![allow(clippy::print_stdout)]

use netproof_graph::builders::{CnnOptions, cnn};
use netproof_graph::{GraphError, Request, Wrt, cross_entropy};
use netproof_tensor::Tensor;

fn main() -> Result<(), GraphError> {
    let model = cnn(&CnnOptions::new([1, 28, 28], 10))?;
    let (input, output) = (model.inputs()[0].name.clone(), model.outputs()[0].name.clone());
    let x = Tensor::zeros(vec![4, 1, 28, 28])?;
    let run = model.forward(&Request { wrt: Wrt::values([input.clone()]), ..Request::new(&input, x) })?;
    let (losses, seed) = cross_entropy(&run.output(&output)?, &[0, 1, 2, 3])?;
    let gradients = run.backward(&[(&output, &seed)])?;
    println!("losses {losses:.3?}, gradient {:?}", gradients.get(&input).map(Tensor::shape));
    let cost = model.cost(&model.batch_shapes(1))?;
    println!("{} parameters, {:?} multiply-accumulate operations per row", cost.parameters, cost.macs);
    Ok(())
}
