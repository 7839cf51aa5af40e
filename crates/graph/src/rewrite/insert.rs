//! Nodes put in and replaced.

use super::Edit;
use crate::error::GraphError;
use crate::file_builder::NewNode;
use crate::model::Model;

impl Model {
    /// The network with a node behind a named value: whatever used the value, outputs of the network included, uses what
    /// the node makes of it.
    ///
    /// The node takes the value by its name and has one output. Where the value is an output of the network, that output
    /// keeps its name and the old value becomes `<value>/before`; elsewhere the node's output has the name that it brings,
    /// with a number where that is taken.
    /// # Errors
    /// There is no such value; the node does not take it or has not one output; a tensor's name is taken; the network
    /// with it is not sound.
    pub fn insert_after(&self, value: &str, node: NewNode) -> Result<Self, GraphError> {
        self.id(value)?;
        let mut edit = Edit::new(self, "insert_after")?;
        if !node.inputs.iter().any(|i| i == value) {
            return Err(edit.refuse(format!("the {} node does not take `{value}`", node.operator)));
        }
        if node.outputs.len() > 1 {
            let n = node.outputs.len();
            return Err(edit.refuse(format!("the {} node has {n} outputs, it must have one", node.operator)));
        }
        edit.check_tensors(&node)?;
        edit.need_producer(value)?;
        let made = edit.splice(value, node, |_| true)?;
        edit.forget_behind(&[made]);
        edit.finish()
    }

    /// The network with other nodes in the place of one. They make the outputs that the old one made, as far as those are
    /// used, under the same names; tensors that only the old one used go with it.
    /// # Errors
    /// There is no such node; an output is missing or made twice; a name is taken; the network with them is not sound.
    pub fn replace_node(&self, name: &str, nodes: Vec<NewNode>) -> Result<Self, GraphError> {
        let mut edit = Edit::new(self, "replace_node")?;
        let named = |n: &netproof_onnx::proto::NodeProto| {
            let first = n.output.iter().find(|o| !o.is_empty()).map_or("", String::as_str);
            if n.name().is_empty() { first == name } else { n.name() == name }
        };
        let places: Vec<usize> = edit.graph.node.iter().enumerate().filter(|(_, n)| named(n)).map(|(i, _)| i).collect();
        let at = match places[..] {
            [at] => at,
            [] => return Err(edit.refuse(format!("the network has no node `{name}`"))),
            _ => return Err(edit.refuse(format!("{} nodes are named `{name}`", places.len()))),
        };
        let old = edit.graph.node.remove(at);
        edit.node_names.remove(old.name());
        for output in old.output.iter().filter(|o| !o.is_empty()) {
            let made = nodes.iter().flat_map(|n| &n.outputs).any(|o| o == output);
            if !made && (edit.is_output(output) || edit.uses(output) > 0) {
                return Err(edit.refuse(format!("no new node makes `{output}`, which the network uses")));
            }
            edit.values.remove(output);
        }
        for node in &nodes {
            edit.check_tensors(node)?;
            if let Some(taken) = node.outputs.iter().find(|o| !o.is_empty() && edit.values.contains(*o)) {
                return Err(edit.refuse(format!("`{taken}` is made by another node already; choose another name")));
            }
        }
        let made: Vec<String> = nodes.iter().flat_map(|n| n.outputs.clone()).chain(old.output.clone()).collect();
        for (i, node) in nodes.into_iter().enumerate() {
            edit.insert(at + i, node);
        }
        edit.forget_behind(&made);
        edit.prune(&old.input);
        edit.finish()
    }
}

impl Edit<'_> {
    fn check_tensors(&self, node: &NewNode) -> Result<(), GraphError> {
        match node.tensors.iter().find(|(name, _)| self.values.contains(name)) {
            Some((name, _)) => Err(self.refuse(format!("the name `{name}` is taken; choose another for the tensor"))),
            None => Ok(()),
        }
    }
}
