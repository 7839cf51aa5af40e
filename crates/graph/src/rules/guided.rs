//! Guided backpropagation and deconvolution: what a rectifier lets back.
//!
//! Rectifiers are `Relu` and `Clip` (ReLU6 is one). Other activations keep their gradient, as in the references.

use super::{Back, Site};

fn is_rectifier(site: &Site<'_>) -> bool {
    matches!(site.operator(), "Relu" | "Clip") && site.wanted.first() == Some(&true)
}

/// Springenberg et al., ICLR workshop 2015, arXiv:1412.6806, section 3.4: the gradient, where it is positive.
pub(super) fn guided(site: &Site<'_>) -> Back {
    if !is_rectifier(site) {
        return Ok(None);
    }
    let gradient = site.gradient(site.inputs, site.outputs, &site.flow().relu())?;
    Ok(Some(gradient))
}

/// Zeiler and Fergus, ECCV 2014, arXiv:1311.2901, section 2.1: what arrives, where it is positive.
pub(super) fn deconvolution(site: &Site<'_>) -> Back {
    if is_rectifier(site) { site.only(0, site.flow().relu()) } else { Ok(None) }
}
