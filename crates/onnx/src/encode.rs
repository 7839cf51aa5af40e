//! Encoding, with the fields that the messages do not know put back where they were.

use std::collections::HashMap;

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::proto::ModelProto;
use crate::validate::function_key;
use crate::wire::{Place, Survey};

/// Unknown fields by what they belong to. Nodes are known by their outputs, since their positions change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unknown {
    fields: HashMap<Owner, Vec<u8>>,
    pub(crate) lost: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    Model,
    Graph,
    Node(Vec<String>),
    Initializer(String),
    Function(String, String, String),
}

fn function_owner(function: &crate::proto::FunctionProto) -> Owner {
    let (domain, name, overload) = function_key(function);
    Owner::Function(domain.to_owned(), name.to_owned(), overload.to_owned())
}

impl Unknown {
    pub(crate) fn new(survey: Survey, model: &ModelProto) -> Self {
        let graph = model.graph.as_ref();
        let owner = |place| {
            Some(match place {
                Place::Model => Owner::Model,
                Place::Graph => Owner::Graph,
                Place::Node(i) => Owner::Node(graph?.node.get(i)?.output.clone()),
                Place::Initializer(i) => Owner::Initializer(graph?.initializer.get(i)?.name().to_owned()),
                Place::Function(i) => function_owner(model.functions.get(i)?),
            })
        };
        let fields = survey.unknown.into_iter().filter_map(|(place, bytes)| Some((owner(place)?, bytes))).collect();
        Self { fields, lost: survey.lost }
    }
}

pub(crate) fn model(model: &ModelProto, unknown: &Unknown) -> Vec<u8> {
    if unknown.fields.is_empty() {
        return model.encode_to_vec();
    }
    let extra = |owner: &Owner| unknown.fields.get(owner).map_or(&[][..], Vec::as_slice);
    // The order of different fields means nothing in protobuf; the order within one field is kept.
    let mut rest = model.clone();
    let graph = rest.graph.take();
    let functions = std::mem::take(&mut rest.functions);
    let mut out = rest.encode_to_vec();
    if let Some(mut graph) = graph {
        let nodes = std::mem::take(&mut graph.node);
        let initializers = std::mem::take(&mut graph.initializer);
        let mut body = Vec::new();
        for node in nodes {
            put(&mut body, 1, &node.encode_to_vec(), extra(&Owner::Node(node.output)));
        }
        for tensor in initializers {
            put(&mut body, 5, &tensor.encode_to_vec(), extra(&Owner::Initializer(tensor.name().to_owned())));
        }
        body.extend(graph.encode_to_vec());
        put(&mut out, 7, &body, extra(&Owner::Graph));
    }
    for function in &functions {
        put(&mut out, 25, &function.encode_to_vec(), extra(&function_owner(function)));
    }
    out.extend_from_slice(extra(&Owner::Model));
    out
}

fn put(out: &mut Vec<u8>, field: u32, message: &[u8], extra: &[u8]) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint((message.len() + extra.len()) as u64, out);
    out.extend_from_slice(message);
    out.extend_from_slice(extra);
}
