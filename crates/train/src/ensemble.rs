//! Several trained networks as one.

use netproof_graph::{Mean, Model};

use crate::error::TrainError;
use crate::method::Registry;
use crate::net::Net;
use crate::recipe::Recipe;

/// One network that answers with the mean of these: of their distributions where they were trained on logits, else of the
/// numbers that they give. One network is given back as it is.
/// # Errors
/// There are none, or they do not fit each other; see [`Model::ensemble`].
pub fn average(recipe: &Recipe, models: Vec<Model>, registry: &Registry) -> Result<Model, TrainError> {
    let mut models = models;
    if models.len() == 1 {
        return Ok(models.remove(0));
    }
    let mean = models.first().map_or(Ok(Mean::Values), |m| mean(recipe, m, registry))?;
    Ok(Model::ensemble(&models.iter().collect::<Vec<_>>(), mean)?)
}

fn mean(recipe: &Recipe, model: &Model, registry: &Registry) -> Result<Mean, TrainError> {
    if !registry.objectives.build(&recipe.objective, registry)?.takes_logits() {
        return Ok(Mean::Values);
    }
    let net = Net::new(Model::from_file(model.to_file()?)?, true)?;
    let declared = model.outputs().first().map_or("", |o| o.name.as_str());
    // A softmax or sigmoid at the end gives probabilities already.
    if net.output() != declared {
        return Ok(Mean::Values);
    }
    let last = model.outputs().first().and_then(|o| o.shape.as_ref()?.last().cloned());
    let one = matches!(last, Some(netproof_graph::Dim::Fixed(1))) || model.rank(declared) == Some(1);
    Ok(if one { Mean::Sigmoid } else { Mean::Softmax })
}

#[cfg(test)]
mod tests {
    use netproof_graph::builders::{Activation, mlp};
    use netproof_tensor::Tensor;

    use super::*;
    use crate::method::Method;
    use crate::recipe::DataSection;

    #[test]
    fn what_is_averaged_follows_from_the_objective() {
        let registry = Registry::default();
        let recipe = |objective: &str| Recipe {
            objective: Method::new(objective),
            ..Recipe::new(DataSection::new("-"), Method::new("mlp"))
        };
        let nets = |width| -> Vec<Model> {
            (1..3).map(|seed| mlp(&[3], &[4], width, Activation::Tanh, seed).unwrap()).collect()
        };
        let of = |objective: &str, width| mean(&recipe(objective), &nets(width)[0], &registry).unwrap();
        assert_eq!((of("cross-entropy", 3), of("binary", 1)), (Mean::Softmax, Mean::Sigmoid));
        assert_eq!(of("mean-squared", 1), Mean::Values);
        let x = Tensor::f32(vec![2, 3], vec![0.5, -1.0, 2.0, 1.0, 1.0, 1.0]).unwrap();
        let one = average(&recipe("mean-squared"), nets(1), &registry).unwrap().predict(&x).unwrap();
        let each: Vec<Tensor> = nets(1).iter().map(|n| n.predict(&x).unwrap()).collect();
        let values = |t: &Tensor| t.as_f32().unwrap().to_vec();
        for (i, got) in values(&one).iter().enumerate() {
            assert!((got - 0.5 * (values(&each[0])[i] + values(&each[1])[i])).abs() < 1e-6);
        }
        assert!(average(&recipe("binary"), Vec::new(), &registry).is_err());
    }
}
