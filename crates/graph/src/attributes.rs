//! Reads a node's attributes; a wrong type is an error that names the attribute.

use std::cell::RefCell;
use std::collections::HashSet;

use netproof_onnx::proto::{AttributeProto, NodeProto};
use netproof_onnx::tensor_from_proto;
use netproof_tensor::Tensor;

use crate::error::{OpError, OpResult, invalid};

/// Attributes of one node, with the opset that gives them their meaning.
pub(crate) struct Attributes<'a> {
    node: &'a NodeProto,
    /// Version of the operator set of the node's domain.
    pub(crate) opset: i64,
    read: RefCell<HashSet<&'a str>>,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(node: &'a NodeProto, opset: i64) -> Self {
        Self { node, opset, read: RefCell::default() }
    }

    /// Number of outputs that the node names.
    pub(crate) fn outputs(&self) -> usize {
        self.node.output.len()
    }

    fn find(&self, name: &str) -> Option<&'a AttributeProto> {
        let a = self.node.attribute.iter().find(|a| a.name() == name)?;
        self.read.borrow_mut().insert(a.name());
        Some(a)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> OpResult<i64> {
        Ok(self.optional_int(name)?.unwrap_or(default))
    }

    pub(crate) fn optional_int(&self, name: &str) -> OpResult<Option<i64>> {
        match self.find(name) {
            None => Ok(None),
            Some(a) => match a.i {
                Some(i) => Ok(Some(i)),
                // proto3 writers leave out a zero.
                None if a.r#type() as i32 == 2 => Ok(Some(0)),
                None => invalid!("attribute `{name}` must be an integer"),
            },
        }
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> OpResult<bool> {
        Ok(self.int(name, default.into())? != 0)
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> OpResult<f32> {
        Ok(self.optional_float(name)?.unwrap_or(default))
    }

    pub(crate) fn optional_float(&self, name: &str) -> OpResult<Option<f32>> {
        match self.find(name) {
            None => Ok(None),
            Some(a) => match a.f {
                Some(f) => Ok(Some(f)),
                None if a.r#type() as i32 == 1 => Ok(Some(0.0)),
                None => invalid!("attribute `{name}` must be a float"),
            },
        }
    }

    pub(crate) fn ints(&self, name: &str) -> OpResult<Option<Vec<i64>>> {
        Ok(self.find(name).map(|a| a.ints.clone()))
    }

    pub(crate) fn floats(&self, name: &str) -> OpResult<Option<Vec<f32>>> {
        Ok(self.find(name).map(|a| a.floats.clone()))
    }

    pub(crate) fn text(&self, name: &str, default: &str) -> OpResult<String> {
        match self.find(name) {
            None => Ok(default.to_owned()),
            Some(a) => match std::str::from_utf8(a.s()) {
                Ok(s) => Ok(s.to_owned()),
                Err(_) => invalid!("attribute `{name}` must be UTF-8 text"),
            },
        }
    }

    pub(crate) fn texts(&self, name: &str) -> OpResult<Option<Vec<String>>> {
        let Some(a) = self.find(name) else { return Ok(None) };
        let texts = a.strings.iter().map(|s| String::from_utf8(s.clone())).collect::<Result<Vec<_>, _>>();
        match texts {
            Ok(t) => Ok(Some(t)),
            Err(_) => invalid!("attribute `{name}` must be UTF-8 texts"),
        }
    }

    pub(crate) fn tensor(&self, name: &str) -> OpResult<Option<Tensor>> {
        let Some(a) = self.find(name) else { return Ok(None) };
        let Some(t) = a.t.as_deref() else { invalid!("attribute `{name}` must be a tensor") };
        match tensor_from_proto(t) {
            Ok(t) => Ok(Some(t)),
            Err(e) if e.is_unsupported() => Err(OpError::Unsupported(e.to_string())),
            Err(e) => Err(OpError::Invalid(e.to_string())),
        }
    }

    /// Names of attributes that the operator has not asked for: another form of the operator than the one known.
    pub(crate) fn unread(&self) -> Vec<&'a str> {
        let read = self.read.borrow();
        self.node.attribute.iter().map(|a| a.name()).filter(|n| !read.contains(n)).collect()
    }
}
