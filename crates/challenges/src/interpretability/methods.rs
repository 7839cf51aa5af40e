//! The registry of explanations: one file per method, one line each.

mod attention_rollout;
mod attention_x_gradient;
mod blur_integrated_gradients;
mod deconvolution;
mod deep_lift;
mod exact_shapley;
mod expected_gradients;
mod feature_ablation;
mod grad_cam;
mod grad_cam_plus_plus;
mod guided_backpropagation;
mod guided_integrated_gradients;
mod input_x_gradient;
mod integrated_gradients;
mod kernel_shap;
mod layer_cam;
mod lime;
mod lrp;
mod occlusion;
mod raw_attention;
mod rise;
mod saliency;
mod score_cam;
mod shapley_sampling;
mod smooth_grad;
mod var_grad;

#[cfg(test)]
mod conformance;

use netproof_audit::{AuditError, Configured, Entry, parse};
use netproof_core::Card;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Explainer;

/// A registry of explanations.
pub type Explanations = &'static [Entry<dyn Explainer>];

/// All explanations that attribute an answer to elements of a row.
pub static EXPLANATIONS: Explanations = &[
    Entry { card: &saliency::CARD, build: explainer::<saliency::Saliency> },
    Entry { card: &input_x_gradient::CARD, build: explainer::<input_x_gradient::InputXGradient> },
    Entry { card: &integrated_gradients::CARD, build: explainer::<integrated_gradients::IntegratedGradients> },
    Entry { card: &smooth_grad::CARD, build: explainer::<smooth_grad::SmoothGrad> },
    Entry { card: &var_grad::CARD, build: explainer::<var_grad::VarGrad> },
    Entry {
        card: &blur_integrated_gradients::CARD,
        build: explainer::<blur_integrated_gradients::BlurIntegratedGradients>,
    },
    Entry {
        card: &guided_integrated_gradients::CARD,
        build: explainer::<guided_integrated_gradients::GuidedIntegratedGradients>,
    },
    Entry { card: &expected_gradients::CARD, build: explainer::<expected_gradients::ExpectedGradients> },
    Entry { card: &guided_backpropagation::CARD, build: explainer::<guided_backpropagation::GuidedBackpropagation> },
    Entry { card: &deconvolution::CARD, build: explainer::<deconvolution::Deconvolution> },
    Entry { card: &deep_lift::CARD, build: explainer::<deep_lift::DeepLift> },
    Entry { card: &lrp::CARD, build: explainer::<lrp::Lrp> },
    Entry { card: &grad_cam::CARD, build: explainer::<grad_cam::GradCam> },
    Entry { card: &grad_cam_plus_plus::CARD, build: explainer::<grad_cam_plus_plus::GradCamPlusPlus> },
    Entry { card: &layer_cam::CARD, build: explainer::<layer_cam::LayerCam> },
    Entry { card: &score_cam::CARD, build: explainer::<score_cam::ScoreCam> },
    Entry { card: &occlusion::CARD, build: explainer::<occlusion::Occlusion> },
    Entry { card: &feature_ablation::CARD, build: explainer::<feature_ablation::FeatureAblation> },
    Entry { card: &rise::CARD, build: explainer::<rise::Rise> },
    Entry { card: &lime::CARD, build: explainer::<lime::Lime> },
    Entry { card: &kernel_shap::CARD, build: explainer::<kernel_shap::KernelShap> },
    Entry { card: &shapley_sampling::CARD, build: explainer::<shapley_sampling::ShapleySampling> },
    Entry { card: &exact_shapley::CARD, build: explainer::<exact_shapley::ExactShapley> },
    Entry { card: &raw_attention::CARD, build: explainer::<raw_attention::RawAttention> },
    Entry { card: &attention_rollout::CARD, build: explainer::<attention_rollout::AttentionRollout> },
    Entry { card: &attention_x_gradient::CARD, build: explainer::<attention_x_gradient::AttentionXGradient> },
];

/// A method by its id, with options.
/// # Errors
/// There is no such method, or an option is wrong.
pub fn explanation(id: &str, options: toml::Table) -> Result<Configured<dyn Explainer>, AuditError> {
    match EXPLANATIONS.iter().find(|e| e.card.id == id) {
        Some(entry) => (entry.build)(entry.card, options),
        None => Err(AuditError::UnknownId {
            kind: "explanation",
            id: id.to_owned(),
            known: EXPLANATIONS.iter().map(|e| e.card.id.to_owned()).collect(),
        }),
    }
}

fn explainer<E: Explainer + Serialize + DeserializeOwned + 'static>(
    card: &'static Card,
    options: toml::Table,
) -> Result<Configured<dyn Explainer>, AuditError> {
    let (method, options) = parse::<E>(card, options)?;
    Ok(Configured { card, method: Box::new(method), options })
}
