//! Model-local functions are replaced by their bodies, with ONNX's rules for names and attributes.
#![allow(missing_docs)]

mod common;

use std::collections::HashSet;

use common::*;
use netproof_onnx::proto::*;
use netproof_onnx::{OnnxError, OnnxFile, inline_functions};

fn call(name: &str, function: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto { domain: some("own"), ..node(name, function, inputs, outputs) }
}

fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: Vec<NodeProto>) -> FunctionProto {
    let list = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    FunctionProto {
        name: some(name),
        domain: some("own"),
        input: list(inputs),
        output: list(outputs),
        node: nodes,
        opset_import: vec![opset("", 17), opset("own", 1)],
        ..Default::default()
    }
}

fn with_functions(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
    ModelProto { functions, opset_import: vec![opset("", 17), opset("own", 1)], ..model(nodes) }
}

/// Inlines, checks that the result is sound, and lists its nodes as `output = Op(inputs)`.
fn inlined(mut model: ModelProto) -> Vec<String> {
    load(&model).expect("sound before");
    inline_functions(&mut model).unwrap();
    assert!(model.functions.is_empty());
    let file = OnnxFile::from(model);
    file.validate().expect("sound after");
    let nodes = &file.model.graph.as_ref().unwrap().node;
    let names: HashSet<_> = nodes.iter().map(|n| n.name()).collect();
    assert_eq!(names.len(), nodes.len(), "node names are unique");
    nodes.iter().map(|n| format!("{} = {}({})", n.output.join(","), n.op_type(), n.input.join(","))).collect()
}

#[test]
fn a_body_is_bound_to_its_call_with_new_names_inside() {
    // `t` is also a name in the model.
    let body = vec![node("n", "Mul", &["p", "p"], &["t"]), node("", "Add", &["t", "p"], &["q"])];
    let square = function("Square", &["p"], &["q"], body);
    let nodes = vec![
        node("first", "Relu", &["x"], &["t"]),
        call("c1", "Square", &["t"], &["u"]),
        call("c1", "Square", &["u"], &["y"]),
    ];
    assert_eq!(
        inlined(with_functions(nodes, vec![square])),
        ["t = Relu(x)", "c1/t = Mul(t,t)", "u = Add(c1/t,t)", "c1/t_1 = Mul(u,u)", "y = Add(c1/t_1,u)"]
    );
}

#[test]
fn attributes_come_from_the_call_then_the_default_then_nowhere() {
    let mut elu = node("e", "Elu", &["p"], &["q"]);
    elu.attribute = vec![reference("alpha", "a"), reference("beta", "b"), reference("gamma", "c"), float("fixed", 9.0)];
    let mut f = function("F", &["p"], &["q"], vec![elu]);
    f.attribute = vec!["a".into(), "c".into()];
    f.attribute_proto = vec![float("b", 2.0)];
    let mut first = call("c", "F", &["x"], &["y"]);
    first.attribute = vec![float("a", 1.0)];
    let mut model = with_functions(vec![first], vec![f]);
    inline_functions(&mut model).unwrap();
    let node = &model.graph.as_ref().unwrap().node[0];
    let values: Vec<_> = node.attribute.iter().map(|a| (a.name(), a.f(), a.ref_attr_name.is_none())).collect();
    assert_eq!(values, [("alpha", 1.0, true), ("beta", 2.0, true), ("fixed", 9.0, true)]);
}

#[test]
fn nested_calls_use_the_inner_default_where_the_outer_attribute_is_absent() {
    let mut elu = node("e", "Elu", &["p"], &["q"]);
    elu.attribute = vec![reference("alpha", "a")];
    let mut inner = function("Inner", &["p"], &["q"], vec![elu]);
    inner.attribute_proto = vec![float("a", 5.0)];
    let mut pass = call("i", "Inner", &["r"], &["s"]);
    pass.attribute = vec![reference("a", "outer")];
    let mut outer = function("Outer", &["r"], &["s"], vec![pass]);
    outer.attribute = vec!["outer".into()];
    let mut with = call("with", "Outer", &["x"], &["m"]);
    with.attribute = vec![float("outer", 7.0)];
    let mut model = with_functions(vec![with, call("without", "Outer", &["m"], &["y"])], vec![outer, inner]);
    load(&model).unwrap();
    inline_functions(&mut model).unwrap();
    let alpha: Vec<_> = model.graph.as_ref().unwrap().node.iter().map(|n| n.attribute[0].f()).collect();
    assert_eq!(alpha, [7.0, 5.0]);
}

#[test]
fn absent_inputs_stay_absent_and_passed_through_values_get_an_identity() {
    let clip = function("Clip2", &["p", "low", "high"], &["q"], vec![node("c", "Clip", &["p", "low", "high"], &["q"])]);
    let one = with_functions(vec![call("c", "Clip2", &["x", "", "x"], &["y"])], vec![clip.clone()]);
    assert_eq!(inlined(one), ["y = Clip(x,,x)"]);
    let two = with_functions(vec![call("c", "Clip2", &["x"], &["y"])], vec![clip]);
    assert_eq!(inlined(two), ["y = Clip(x,,)"]);

    let both = function("Both", &["p"], &["p", "q", "q"], vec![node("r", "Relu", &["p"], &["q"])]);
    let mut nodes = vec![call("b", "Both", &["x"], &["same", "y", "again"])];
    nodes.push(node("s", "Add", &["same", "again"], &["sum"]));
    assert_eq!(
        inlined(with_functions(nodes, vec![both.clone()])),
        ["y = Relu(x)", "same = Identity(x)", "again = Identity(y)", "sum = Add(same,again)"]
    );
    // An output that the call does not want.
    assert_eq!(
        inlined(with_functions(vec![call("b", "Both", &["x"], &["y"])], vec![both])),
        ["b/q = Relu(x)", "y = Identity(x)"]
    );
}

#[test]
fn functions_in_branches_and_branches_in_functions() {
    let mut choose = node("if", "If", &["p"], &["q"]);
    let inside = vec![node("a", "Add", &["p", "k"], &["t"]), call("deep", "Neg2", &["t"], &["v"])];
    let mut then_graph = subgraph(inside, "v");
    then_graph.initializer = vec![floats("k", &[1.0])];
    choose.attribute = vec![
        branch("then_branch", then_graph),
        branch("else_branch", subgraph(vec![node("b", "Relu", &["p"], &["t"])], "t")),
    ];
    let pick = function("Pick", &["p"], &["q"], vec![choose]);
    let neg = function("Neg2", &["p"], &["q"], vec![node("n", "Neg", &["p"], &["q"])]);
    let mut outer = node("outer", "If", &["x"], &["z"]);
    outer.attribute = vec![branch("then_branch", subgraph(vec![call("b", "Neg2", &["x"], &["o"])], "o"))];
    let mut model = with_functions(vec![call("c", "Pick", &["x"], &["y"]), outer], vec![pick, neg]);
    load(&model).unwrap();
    inline_functions(&mut model).unwrap();
    OnnxFile::from(model.clone()).validate().unwrap();
    let nodes = &model.graph.as_ref().unwrap().node;
    let then_branch = nodes[0].attribute[0].g.as_ref().unwrap();
    assert_eq!(then_branch.initializer[0].name(), "c/k");
    let ops: Vec<_> = then_branch.node.iter().map(|n| (n.op_type(), n.input.join(","), n.output.join(","))).collect();
    assert_eq!(ops, [("Add", "x,c/k".into(), "c/t".into()), ("Neg", "c/t".into(), "c/v".into())]);
    assert_eq!(then_branch.output[0].name(), "c/v");
    // The same name in the other branch is another value.
    assert_ne!(nodes[0].attribute[1].g.as_ref().unwrap().node[0].output, then_branch.node[0].output);
    assert_eq!(nodes[1].attribute[0].g.as_ref().unwrap().node[0].op_type(), "Neg");
}

#[test]
fn a_graph_given_by_the_caller_keeps_the_callers_names() {
    let mut choose = node("if", "If", &["p"], &["q"]);
    let given = AttributeProto { r#type: Some(5), ..reference("then_branch", "body") };
    choose.attribute = vec![given, branch("else_branch", subgraph(vec![node("b", "Relu", &["p"], &["t"])], "t"))];
    let mut pick = function("Pick", &["p"], &["q"], vec![choose]);
    pick.attribute = vec!["body".into()];
    let mut start = call("c", "Pick", &["x"], &["y"]);
    // `p` is the caller's `p` here, not the function's.
    start.attribute = vec![branch("body", subgraph(vec![node("g", "Neg", &["p"], &["mine"])], "mine"))];
    let mut model = with_functions(vec![node("first", "Abs", &["x"], &["p"]), start], vec![pick]);
    load(&model).unwrap();
    inline_functions(&mut model).unwrap();
    let file = OnnxFile::from(model);
    file.validate().unwrap();
    let choose = &file.model.graph.as_ref().unwrap().node[1];
    let body = choose.attribute[0].g.as_ref().unwrap();
    assert_eq!((choose.attribute[0].name(), body.node[0].input.join(",").as_str()), ("then_branch", "p"));
    assert_eq!(body.output[0].name(), "mine");
}

#[test]
fn overloads_are_told_apart_and_a_function_hides_an_operator() {
    let mut plain = function("F", &["p"], &["q"], vec![node("n", "Neg", &["p"], &["q"])]);
    let mut other = function("F", &["p"], &["q"], vec![node("n", "Abs", &["p"], &["q"])]);
    other.overload = some("2");
    let second = NodeProto { overload: some("2"), ..call("b", "F", &["m"], &["y"]) };
    let model = with_functions(vec![call("a", "F", &["x"], &["m"]), second], vec![plain.clone(), other]);
    assert_eq!(inlined(model), ["m = Neg(x)", "y = Abs(m)"]);

    plain.name = some("Relu");
    plain.domain = some("");
    plain.opset_import = vec![opset("", 17)];
    assert_eq!(inlined(with_functions(vec![node("r", "Relu", &["x"], &["y"])], vec![plain])), ["y = Neg(x)"]);
}

#[test]
fn recursion_is_refused() {
    let own = function("F", &["p"], &["q"], vec![call("n", "F", &["p"], &["q"])]);
    let model = with_functions(vec![call("c", "F", &["x"], &["y"])], vec![own]);
    assert_eq!(refusal(&model), "model: cycle through function \"F\"");
    assert!(matches!(inline_functions(&mut model.clone()), Err(OnnxError::Cycle { .. })));
    // F calls G inside a branch, G calls F.
    let mut choose = node("if", "If", &["p"], &["q"]);
    choose.attribute = vec![branch("then_branch", subgraph(vec![call("n", "G", &["p"], &["t"])], "t"))];
    let f = function("F", &["p"], &["q"], vec![choose]);
    let g = function("G", &["p"], &["q"], vec![call("n", "F", &["p"], &["q"])]);
    let mut model = with_functions(vec![call("c", "F", &["x"], &["y"])], vec![f, g]);
    assert!(refusal(&model).starts_with("model: cycle through function"));
    let before = model.clone();
    assert!(inline_functions(&mut model).is_err());
    assert_eq!(model, before);
}

#[test]
fn bodies_that_double_at_each_level_are_refused() {
    for leaf in [vec![node("n", "Neg", &["p"], &["q"])], vec![]] {
        let output = if leaf.is_empty() { "p" } else { "q" };
        let mut functions = vec![function("F0", &["p"], &[output], leaf)];
        for level in 1..60 {
            let below = format!("F{}", level - 1);
            let body = vec![call("a", &below, &["p"], &["t"]), call("b", &below, &["t"], &["q"])];
            functions.push(function(&format!("F{level}"), &["p"], &["q"], body));
        }
        let mut model = with_functions(vec![call("c", "F59", &["x"], &["y"])], functions);
        load(&model).expect("sound by itself");
        assert!(matches!(inline_functions(&mut model), Err(OnnxError::TooLarge { .. })));
    }
}

#[test]
fn a_long_chain_of_functions_needs_no_deep_stack() {
    let mut functions = vec![function("F0", &["p"], &["q"], vec![node("n", "Neg", &["p"], &["q"])])];
    for level in 1..20_000 {
        let body = vec![call("a", &format!("F{}", level - 1), &["p"], &["q"])];
        functions.push(function(&format!("F{level}"), &["p"], &["q"], body));
    }
    assert_eq!(inlined(with_functions(vec![call("c", "F19999", &["x"], &["y"])], functions)), ["y = Neg(x)"]);
}

#[test]
fn calls_that_do_not_fit_are_refused() {
    let f = function("F", &["p"], &["q"], vec![node("n", "Neg", &["p"], &["q"])]);
    let refused = |nodes, functions| inline_functions(&mut with_functions(nodes, functions)).unwrap_err().to_string();
    assert_eq!(
        refused(vec![call("c", "F", &["x", "x"], &["y"])], vec![f.clone()]),
        "node \"c\" (F): function \"own:F\" has 1 inputs, the call gives 2"
    );
    assert!(refused(vec![call("c", "F", &["x"], &["y", "z"])], vec![f.clone()]).contains("has 1 outputs"));
    let mut old = f.clone();
    old.opset_import = vec![opset("", 12)];
    assert_eq!(
        refused(vec![call("c", "F", &["x"], &["y"])], vec![old]),
        "node \"c\" (F): function \"own:F\" needs opset 12 of domain \"\", the model has 17"
    );
    let mut foreign = f;
    foreign.opset_import.push(opset("com.other", 3));
    let mut model = with_functions(vec![call("c", "F", &["x"], &["y"])], vec![foreign]);
    inline_functions(&mut model).unwrap();
    assert!(model.opset_import.contains(&opset("com.other", 3)));
}
