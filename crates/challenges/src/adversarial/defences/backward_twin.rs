//! The network that gradients are taken through where the network itself hides them: rounding becomes the identity, a sign
//! becomes a smooth one.
//! Backward pass differentiable approximation: Athalye, Carlini and Wagner, ICML 2018, arXiv:1802.00420, section 4.1.
//! Weak when: what hides the gradient is written in comparisons or table look-ups; then there is no twin.

use netproof_graph::{GraphError, Model, NewNode};

/// Operators without a slope, and what stands for them on the way back.
const STAND_INS: [(&str, &str); 4] =
    [("Round", "Identity"), ("Floor", "Identity"), ("Ceil", "Identity"), ("Sign", "Tanh")];

/// The twin, and how many nodes differ; `None` where all operators have slopes.
/// # Errors
/// The network cannot be rewritten.
pub(super) fn backward_twin(model: &Model) -> Result<Option<(Model, usize)>, GraphError> {
    let hidden: Vec<_> = model
        .nodes()
        .filter_map(|n| STAND_INS.iter().find(|(op, _)| *op == n.operator).map(|(_, stand_in)| (n, *stand_in)))
        .collect();
    let mut twin: Option<Model> = None;
    for (node, stand_in) in &hidden {
        let (Some(from), Some(to)) = (node.inputs.first(), node.outputs.first()) else { continue };
        let replacement = NewNode::new(stand_in, &[from], &[to]).named(&format!("{}/backward", node.name));
        twin = Some(twin.as_ref().unwrap_or(model).replace_node(&node.name, vec![replacement])?);
    }
    Ok(twin.map(|t| (t, hidden.len())))
}

#[cfg(test)]
mod tests {
    use netproof_graph::{FileBuilder, Request, Wrt};
    use netproof_tensor::Tensor;

    use super::*;

    #[test]
    fn gradients_flow_through_the_twin_alone() {
        let mut f = FileBuilder::new("rounding");
        let x = f.add_batch_input("x", &[3]);
        let y = f.node("Round", "y", &[&x], &[]);
        let z = f.node("Floor", "z", &[&y], &[]);
        f.batch_output(&z, &[3]);
        let model = Model::from_file(f.build().unwrap()).unwrap();
        let (twin, nodes) = backward_twin(&model).unwrap().unwrap();
        assert_eq!(nodes, 2);
        let slope = |m: &Model| {
            let x = Tensor::f32(vec![1, 3], vec![0.2, 0.7, 1.4]).unwrap();
            let request = Request { wrt: Wrt::values(["x"]), ..Request::new("x", x) };
            let seed = Tensor::f32(vec![1, 3], vec![1.0, 2.0, 3.0]).unwrap();
            let run = m.forward(&request).unwrap();
            run.backward(&[("z", &seed)]).unwrap().take("x").and_then(Tensor::into_f32)
        };
        assert_eq!(slope(&twin), Some(vec![1.0, 2.0, 3.0]));
        assert!(slope(&model).is_none_or(|g| g == [0.0; 3]));
        assert!(backward_twin(&twin).unwrap().is_none());
    }
}
