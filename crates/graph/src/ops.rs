//! The operator registry: one slice per family, one line per operator.

mod activation;
mod arithmetic;
mod attention;
mod cast;
mod compare;
mod convolution;
mod einsum;
mod elementwise;
mod indexing;
mod movement;
mod normalization;
mod pooling;
mod product;
mod quantized;
mod rearrange;
mod recurrent;
mod reduction;
mod resize;
mod shape;
mod softmax;
#[cfg(test)]
mod test_support;
mod window;

use crate::operator::Entry;

/// All operators of the default domain.
pub(crate) fn entries() -> impl Iterator<Item = &'static Entry> {
    [
        activation::ENTRIES,
        arithmetic::ENTRIES,
        attention::ENTRIES,
        cast::ENTRIES,
        compare::ENTRIES,
        convolution::ENTRIES,
        einsum::ENTRIES,
        indexing::ENTRIES,
        movement::ENTRIES,
        normalization::ENTRIES,
        pooling::ENTRIES,
        product::ENTRIES,
        quantized::ENTRIES,
        recurrent::ENTRIES,
        reduction::ENTRIES,
        resize::ENTRIES,
        shape::ENTRIES,
        softmax::ENTRIES,
    ]
    .into_iter()
    .flatten()
}
