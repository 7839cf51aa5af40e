//! Nodes that are computed together: fewer passes over memory for the same numbers.
//!
//! A [`Fusion`] stands for nodes whose values in between nobody else uses. A run takes it unless it is asked for one of
//! those values (a tap, an override, a gradient). One file per pattern, one line in [`PATTERNS`].

mod attention;
mod finish;
mod gelu;
mod softmax;

use crate::model::{Node, ValueId};

/// Several nodes as one.
#[derive(Debug)]
pub(crate) struct Fusion {
    pub(crate) node: Node,
    /// The nodes that it stands for, in order; it runs in the place of the last one.
    pub(crate) parts: Vec<usize>,
    /// Values that are not made.
    pub(crate) interior: Vec<ValueId>,
    /// Whether it can be differentiated.
    pub(crate) smooth: bool,
}

/// Finds the fusions of one kind that begin at a node.
type Pattern = fn(&Uses<'_>, usize) -> Option<Fusion>;

const PATTERNS: &[Pattern] = &[gelu::find, attention::find, softmax::find, finish::find];

/// Who uses what.
pub(crate) struct Uses<'a> {
    nodes: &'a [Node],
    /// For each value the node that makes it.
    maker: Vec<Option<usize>>,
    /// For each value how often it is used, and by which node last.
    users: Vec<(usize, usize)>,
}

impl<'a> Uses<'a> {
    fn new(nodes: &'a [Node], outputs: &[ValueId], values: usize) -> Self {
        let (mut maker, mut users) = (vec![None; values], vec![(0, 0); values]);
        for (i, node) in nodes.iter().enumerate() {
            node.outputs.iter().flatten().for_each(|&o| maker[o] = Some(i));
            for &input in node.inputs.iter().flatten() {
                users[input] = (users[input].0 + 1, i);
            }
        }
        // What a caller sees is not only used within.
        outputs.iter().for_each(|&o| users[o].0 += 2);
        Self { nodes, maker, users }
    }

    /// The only output of a node.
    fn output(&self, node: usize) -> Option<ValueId> {
        match self.nodes[node].outputs[..] {
            [Some(o)] => Some(o),
            _ => None,
        }
    }

    /// The node of one of these operators that alone uses a value, once.
    fn only_user(&self, value: ValueId, operators: &[&str]) -> Option<usize> {
        let (count, user) = self.users[value];
        (count == 1 && operators.contains(&self.nodes[user].operator.as_str())).then_some(user)
    }

    /// The other operand of a node of two.
    fn other(&self, node: usize, value: ValueId) -> Option<ValueId> {
        match self.nodes[node].inputs[..] {
            [Some(a), Some(b)] if a == value && b != value => Some(b),
            [Some(a), Some(b)] if b == value && a != value => Some(a),
            _ => None,
        }
    }
}

/// All fusions of a graph that do not overlap.
pub(crate) fn find(nodes: &[Node], outputs: &[ValueId], values: usize) -> Vec<Fusion> {
    let uses = Uses::new(nodes, outputs, values);
    let mut taken = vec![false; nodes.len()];
    let mut found = Vec::new();
    for pattern in PATTERNS {
        // From the end, so that of two branches that meet the later one is the one that is written last.
        for i in (0..nodes.len()).rev() {
            if let Some(fusion) = pattern(&uses, i)
                && !fusion.parts.iter().any(|&p| taken[p])
            {
                fusion.parts.iter().for_each(|&p| taken[p] = true);
                found.push(fusion);
            }
        }
    }
    found
}
