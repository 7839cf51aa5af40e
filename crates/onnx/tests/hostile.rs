//! Damaged and malicious models: each is an error that names the place, never a panic.
#![allow(missing_docs)]

mod common;

use common::*;
use netproof_onnx::proto::attribute_proto::AttributeType;
use netproof_onnx::proto::tensor_proto::DataType;
use netproof_onnx::proto::*;
use netproof_onnx::{Limits, OnnxError, OnnxFile, SaveOptions, inline_functions, tensor_from_proto, topological_order};
use prost::Message as _;

/// Everything that a caller would do with a model that loads.
fn use_model(file: OnnxFile) {
    let graph = file.model.graph.as_ref().expect("validated");
    for tensor in &graph.initializer {
        let _ = tensor_from_proto(tensor);
    }
    topological_order(graph).expect("validated");
    let again = load_bytes(&file.to_bytes()).expect("what was loaded can be loaded again");
    assert_eq!(again.to_bytes(), file.to_bytes());
    let mut model = file.model;
    if inline_functions(&mut model).is_ok() {
        OnnxFile::from(model).validate().expect("inlining keeps a model sound");
    }
}

#[test]
fn a_file_cut_anywhere_does_no_harm() {
    let rich = rich().encode_to_vec();
    for bytes in [TINY, &rich] {
        let whole = load_bytes(bytes).expect("the whole file loads");
        use_model(whole);
        for end in 0..bytes.len() {
            // A cut between two fields of the model can leave a sound but smaller model.
            if let Ok(file) = load_bytes(&bytes[..end]) {
                use_model(file);
            }
        }
        assert!(load_bytes(&bytes[..bytes.len() / 2]).is_err());
    }
}

#[test]
fn flipped_bits_do_no_harm() {
    let rich = rich().encode_to_vec();
    let mut random = Random(20);
    let (mut refused, mut loaded) = (0, 0);
    for round in 0..30_000 {
        let mut bytes = if round % 3 == 0 { TINY.to_vec() } else { rich.clone() };
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        match load_bytes(&bytes) {
            Ok(file) => {
                loaded += 1;
                use_model(file);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 10_000 && loaded > 1_000, "{refused} refused, {loaded} loaded");
}

#[test]
fn broken_wire_format_is_named_with_its_offset() {
    // ModelProto.ir_version as a number of eleven bytes.
    let mut long = vec![0x08];
    long.extend([0xff; 10]);
    long.push(1);
    assert_eq!(
        load_bytes(&long).unwrap_err().to_string(),
        "ModelProto: a number of more than 64 bits at byte 0; the file is damaged or is not an ONNX model"
    );
    // A node whose output claims 2^63 bytes.
    let mut inner = vec![0x1a, 1, b'n', 0x12];
    inner.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    let mut node = vec![0x0a, inner.len() as u8];
    node.extend(inner);
    let mut bytes = vec![0x3a, node.len() as u8];
    bytes.extend(node);
    let text = load_bytes(&bytes).unwrap_err().to_string();
    assert!(text.starts_with("graph.node[0] \"n\": a length") && text.contains("at byte 7"), "{text}");
    for (bytes, reason) in [
        (&[0x00, 0x01][..], "field number 0"),
        (&[0x0b], "a protobuf group"),
        (&[0x0f], "an unknown wire type"),
        (&[0x0a, 0x01, 0x01], "a field of the wrong wire type"),
        (&[0x12, 0x01, 0xff], "text that is not UTF-8"),
        (&[0x3a, 0x00, 0x3a, 0x00], "a message that may appear once appears twice"),
        (b"PK\x03\x04", "field number 0"),
        (b"\x89PNG\r\n", "a length beyond the end of the data"),
    ] {
        let error = load_bytes(bytes).unwrap_err();
        assert!(matches!(&error, OnnxError::Malformed { reason: r, .. } if *r == reason), "{reason}: {error}");
    }
    assert!(matches!(load_bytes(&[]), Err(OnnxError::Missing { .. })));
    assert!(matches!(load_bytes(b"\x08\x08"), Err(OnnxError::Missing { what: "graph", .. })));
}

#[test]
fn a_broken_tensor_in_the_wire_format_is_named() {
    let mut model = plain();
    model.graph.as_mut().unwrap().initializer = vec![floats("fc.weight", &[1.0])];
    let mut bytes = model.encode_to_vec();
    // The dims of "fc.weight" become a 64-bit field: tag 0x08 → 0x09.
    let at = bytes.windows(4).position(|w| w == [0x08, 1, 0x10, 1]).unwrap();
    bytes[at] = 0x09;
    let text = load_bytes(&bytes).unwrap_err().to_string();
    assert!(text.starts_with("graph \"g\".initializer[0]"), "{text}");
}

/// `levels` messages of field `number` inside each other, around `core`.
fn nested(path: &[u32], levels: usize, core: &[u8]) -> Vec<u8> {
    let mut bytes = core.to_vec();
    for level in 0..levels {
        let number = path[level % path.len()];
        let mut outer = Vec::new();
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut outer);
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.extend(bytes);
        bytes = outer;
    }
    bytes
}

#[test]
fn depth_is_bounded() {
    // Graph inside attribute inside node inside graph, 300 messages deep; field numbers from the inside out.
    let mut bytes = nested(&[6, 5, 1], 300, &[]);
    let mut whole = vec![0x3a];
    prost::encoding::encode_varint(bytes.len() as u64, &mut whole);
    whole.append(&mut bytes);
    let error = load_bytes(&whole).unwrap_err();
    assert!(matches!(error, OnnxError::TooLarge { what: "depth of messages", .. }), "{error}");

    // Types inside types, 100,000 deep.
    let types = nested(&[4, 1], 100_000, &[]);
    let input = nested(&[7, 11, 2], 3, &types);
    assert!(load_bytes(&input).is_err());

    let deep = |levels| {
        let mut inner = subgraph(vec![node("leaf", "Relu", &["x"], &["r"])], "r");
        for _ in 0..levels {
            let mut choose = node("if", "If", &["x"], &["r"]);
            choose.attribute = vec![branch("then_branch", inner)];
            inner = subgraph(vec![choose], "r");
        }
        let mut choose = node("if", "If", &["x"], &["y"]);
        choose.attribute = vec![branch("then_branch", inner)];
        model(vec![choose])
    };
    load(&deep(15)).expect("16 levels are allowed");
    assert!(matches!(load(&deep(16)), Err(OnnxError::TooLarge { what: "depth of subgraphs", .. })));
}

#[test]
fn counts_over_the_limits_are_refused() {
    let limits = Limits { nodes: 1, ..Limits::default() };
    let two = model(vec![node("a", "Relu", &["x"], &["t"]), node("b", "Relu", &["t"], &["y"])]);
    let error = OnnxFile::from_bytes(&two.encode_to_vec(), None, &limits).unwrap_err();
    assert_eq!(error.to_string(), "graph \"g\".node[1] \"b\": number of nodes is 2, over the limit of 1");

    let mut heavy = plain();
    heavy.graph.as_mut().unwrap().initializer = vec![floats("w", &[0.0; 5]), floats("v", &[0.0; 5])];
    let bytes = heavy.encode_to_vec();
    for (limits, what) in [
        (Limits { tensors: 1, ..Limits::default() }, "number of tensors"),
        (Limits { tensor_elements: 4, ..Limits::default() }, "number of elements"),
        (Limits { total_elements: 9, ..Limits::default() }, "number of elements of all tensors"),
        (Limits { file_bytes: 20, ..Limits::default() }, "size in bytes"),
        (Limits { name_bytes: 3, ..Limits::default() }, "length of a name"),
        (Limits { decode_overhead_bytes: 500, ..Limits::default() }, "memory for decoding, in bytes,"),
    ] {
        let error = OnnxFile::from_bytes(&bytes, None, &limits).unwrap_err();
        assert!(matches!(&error, OnnxError::TooLarge { what: w, .. } if *w == what), "{what}: {error}");
    }
}

#[test]
fn duplicate_names_are_refused() {
    let twice = model(vec![node("a", "Relu", &["x"], &["y"]), node("b", "Relu", &["x"], &["y"])]);
    assert_eq!(refusal(&twice), "graph \"g\": value \"y\" appears twice");
    assert!(refusal(&model(vec![node("a", "Relu", &["x"], &["x"])])).contains("\"x\" appears twice"));

    let mut inputs = plain();
    inputs.graph.as_mut().unwrap().input.push(value("x", &[1]));
    assert!(refusal(&inputs).contains("\"x\" appears twice"));
    let mut outputs = plain();
    outputs.graph.as_mut().unwrap().output.push(value("y", &[1]));
    assert!(refusal(&outputs).contains("output \"y\" appears twice"));
    let mut weights = plain();
    weights.graph.as_mut().unwrap().initializer = vec![floats("w", &[1.0]), floats("w", &[2.0])];
    assert!(refusal(&weights).contains("\"w\" appears twice"));
    let mut default = plain();
    default.graph.as_mut().unwrap().initializer = vec![floats("x", &[1.0])];
    load(&default).expect("an initializer may be an input's default");
    let mut produced = plain();
    produced.graph.as_mut().unwrap().initializer = vec![floats("y", &[1.0])];
    assert!(refusal(&produced).contains("\"y\" appears twice"));

    let mut attributes = plain();
    attributes.graph.as_mut().unwrap().node[0].attribute = vec![float("alpha", 1.0), float("alpha", 2.0)];
    assert_eq!(refusal(&attributes), "node \"relu\" (Relu): attribute \"alpha\" appears twice");
    let mut functions = rich();
    functions.functions.push(functions.functions[0].clone());
    assert_eq!(refusal(&functions), "model: function \"Twice\" appears twice");
    let mut imports = plain();
    imports.opset_import.push(opset("ai.onnx", 18));
    assert!(refusal(&imports).contains("operator set"));
}

#[test]
fn cycles_and_missing_values_are_named() {
    let unsorted = model(vec![node("b", "Relu", &["t"], &["y"]), node("a", "Relu", &["x"], &["t"])]);
    let file = load(&unsorted).expect("the order of nodes is free");
    assert_eq!(topological_order(file.model.graph.as_ref().unwrap()).unwrap(), [1, 0]);

    let cycle = model(vec![
        node("a", "Add", &["x", "u"], &["t"]),
        node("b", "Relu", &["t"], &["u"]),
        node("c", "Relu", &["u"], &["y"]),
    ]);
    assert_eq!(refusal(&cycle), "graph \"g\": cycle through node \"a\" (Add) → node \"b\" (Relu)");
    assert!(refusal(&model(vec![node("a", "Add", &["x", "y"], &["y"])])).contains("cycle through node \"a\""));
    assert_eq!(
        refusal(&model(vec![node("a", "Relu", &["nowhere"], &["y"])])),
        "node \"a\" (Relu): value \"nowhere\" is used but nothing produces it"
    );
    assert_eq!(
        refusal(&model(vec![node("a", "Relu", &["x"], &["z"])])),
        "graph \"g\": value \"y\" is used but nothing produces it"
    );

    // A branch that uses what its own node gives.
    let mut choose = node("choose", "If", &["x"], &["y"]);
    choose.attribute = vec![branch("then_branch", subgraph(vec![node("n", "Relu", &["y"], &["t"])], "t"))];
    assert!(refusal(&model(vec![choose.clone()])).contains("cycle through node \"choose\" (If)"));
    choose.attribute = vec![branch("then_branch", subgraph(vec![node("n", "Relu", &["later"], &["t"])], "t"))];
    let later = model(vec![choose.clone(), node("late", "Relu", &["x"], &["later"])]);
    let file = load(&later).expect("a branch sees the graph around it");
    assert_eq!(topological_order(file.model.graph.as_ref().unwrap()).unwrap(), [1, 0]);
    // Names of a branch are not visible outside.
    let outside = model(vec![choose, node("late", "Relu", &["t"], &["later"])]);
    assert!(refusal(&outside).contains("node \"late\" (Relu): value \"t\""));
}

#[test]
fn graphs_without_nodes_or_outputs_are_refused() {
    assert_eq!(refusal(&model(vec![])), "graph \"g\": every node is missing");
    let mut silent = plain();
    silent.graph.as_mut().unwrap().output.clear();
    assert_eq!(refusal(&silent), "graph \"g\": every output is missing");
    let mut nameless = plain();
    nameless.graph.as_mut().unwrap().node[0].op_type = None;
    assert_eq!(refusal(&nameless), "node \"relu\" (): operator type is missing");
    let mut unnamed = plain();
    unnamed.graph.as_mut().unwrap().initializer = vec![floats("", &[1.0])];
    assert!(refusal(&unnamed).contains("name of an input or initializer is missing"));
}

#[test]
fn versions_outside_the_range_are_refused_with_the_range() {
    for version in [i64::MIN, -1, 0, 25, i64::MAX] {
        let mut model = plain();
        model.opset_import = vec![opset("", version)];
        let text = refusal(&model);
        assert!(text.starts_with(&format!("opset {version} is not supported (supported: 1 to 24)")), "{text}");
    }
    for version in [1, 7, 22, 24] {
        let mut model = plain();
        model.opset_import = vec![opset("ai.onnx", version)];
        load(&model).expect("ai.onnx is the default domain");
    }
    let mut none = plain();
    none.opset_import.clear();
    assert_eq!(refusal(&none), "node \"relu\" (Relu): no operator set is imported for domain \"\"");
    for version in [0, 2, 15, i64::MAX] {
        let mut model = plain();
        model.ir_version = Some(version);
        assert!(refusal(&model).starts_with("IR version"));
    }
}

#[test]
fn unknown_domains_load_only_when_they_are_imported() {
    let mut model = plain();
    model.graph.as_mut().unwrap().node[0].domain = some("com.stranger");
    assert!(refusal(&model).contains("no operator set is imported for domain \"com.stranger\""));
    model.opset_import.push(opset("com.stranger", 900));
    load(&model).expect("operators are judged elsewhere");
}

#[test]
fn functions_are_judged_by_their_own_imports() {
    let mut model = rich();
    model.functions[0].node[0].domain = some("com.stranger");
    model.opset_import.push(opset("com.stranger", 1));
    assert_eq!(refusal(&model), "node \"n\" (Add): no operator set is imported for domain \"com.stranger\"");
    model.functions[0].opset_import.push(opset("com.stranger", 1));
    load(&model).expect("imported where it is used");
    model.functions[0].opset_import[0].version = Some(99);
    assert!(refusal(&model).starts_with("opset of function \"Twice\" 99 is not supported"));
}

#[test]
fn a_branch_may_give_one_value_twice() {
    let mut choose = node("choose", "If", &["x"], &["y", "z"]);
    let mut twice = subgraph(vec![node("n", "Relu", &["x"], &["t"])], "t");
    twice.output.push(value("t", &[1]));
    choose.attribute = vec![branch("then_branch", twice)];
    load(&model(vec![choose])).expect("outputs of a branch are matched by position");
}

fn with_weight(weight: TensorProto) -> ModelProto {
    let mut model = plain();
    model.graph.as_mut().unwrap().initializer = vec![weight];
    model
}

#[test]
fn dimensions_that_cannot_be_are_refused() {
    for (dims, reason) in [
        (vec![-1], "must not be negative"),
        (vec![i64::MIN], "must not be negative"),
        (vec![1 << 31, 1 << 31, 4], "overflows"),
        (vec![i64::MAX], "overflows"),
        (vec![0, i64::MAX, 2], "overflows"),
        (vec![1 << 62], "overflows"),
        (vec![1; 33], "are more than 32"),
    ] {
        let text = refusal(&with_weight(tensor("w", DataType::Float, &dims)));
        assert!(text.starts_with("tensor \"w\": dimensions [") && text.contains(reason), "{text}");
    }
    let large = refusal(&with_weight(tensor("w", DataType::Float, &[1 << 33])));
    assert_eq!(large, "tensor \"w\": number of elements is 8589934592, over the limit of 4294967296");
    let claims = refusal(&with_weight(tensor("w", DataType::Float, &[1 << 31])));
    assert!(claims.ends_with("needs 2147483648 entries in float_data, found 0"), "{claims}");
    let empty = load(&with_weight(tensor("w", DataType::Float, &[0, 3]))).expect("an empty tensor is a tensor");
    assert_eq!(tensor_from_proto(empty.initializer("w").unwrap()).unwrap().shape(), [0, 3]);

    for (dims, sound) in [
        (vec![-1, 3], true),
        (vec![0], true),
        (vec![-2], false),
        (vec![i64::MIN], false),
        (vec![1 << 61], false),
        (vec![1 << 32, 1 << 32], false),
    ] {
        let mut model = plain();
        model.graph.as_mut().unwrap().input = vec![value("x", &dims)];
        assert_eq!(load(&model).is_ok(), sound, "{dims:?}");
    }
}

#[test]
fn data_that_do_not_fit_their_dimensions_are_refused() {
    for raw in [0, 1, 7, 9, 4096] {
        let weight = TensorProto { raw_data: Some(vec![1; raw].into()), ..tensor("w", DataType::Float, &[2]) };
        let text = refusal(&with_weight(weight));
        assert!(text.starts_with("tensor \"w\": float of dimensions [2] needs"), "{text}");
        assert!(text.ends_with(&format!("found {raw}")), "{text}");
    }
    let typed = TensorProto { float_data: vec![1.0; 3], ..tensor("w", DataType::Float, &[2]) };
    assert!(refusal(&with_weight(typed)).ends_with("needs 2 entries in float_data, found 3"));
    let both =
        TensorProto { raw_data: Some(vec![0; 4].into()), float_data: vec![1.0], ..tensor("w", DataType::Float, &[1]) };
    assert!(refusal(&with_weight(both)).contains("float data in raw_data and float_data"));
    let wrong = TensorProto { int64_data: vec![1], ..tensor("w", DataType::Float, &[1]) };
    assert!(
        refusal(&with_weight(wrong)).contains("float data in int64_data; the type allows one of float_data, raw_data")
    );
    let text = TensorProto { raw_data: Some(vec![0; 4].into()), ..tensor("w", DataType::String, &[1]) };
    assert!(refusal(&with_weight(text)).contains("string data in raw_data"));
    let packed = TensorProto { raw_data: Some(vec![0; 2].into()), ..tensor("w", DataType::Int4, &[3]) };
    let file = load(&with_weight(packed)).expect("two nibbles a byte");
    let error = tensor_from_proto(file.initializer("w").unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "tensor \"w\": unsupported: element type int4");
    for code in [0, -1, 29, 99, i32::MAX] {
        let weight = TensorProto { data_type: Some(code), ..tensor("w", DataType::Float, &[1]) };
        assert_eq!(refusal(&with_weight(weight)), format!("tensor \"w\": element type {code} does not exist"));
    }
    let parts = TensorProto { segment: Some(Default::default()), ..floats("w", &[1.0]) };
    assert!(refusal(&with_weight(parts)).contains("tensor in segments"));
}

#[test]
fn tensors_in_attributes_and_branches_are_checked_and_named() {
    let bad = TensorProto { raw_data: Some(vec![0; 3].into()), ..tensor("", DataType::Float, &[1]) };
    let mut constant = node("const", "Constant", &[], &["c"]);
    constant.attribute = vec![AttributeProto { t: Some(Box::new(bad)), ..attribute("value", AttributeType::Tensor) }];
    let text = refusal(&model(vec![constant.clone(), node("r", "Relu", &["c"], &["y"])]));
    assert!(text.starts_with("node \"const\" (Constant), attribute \"value\": float"), "{text}");
    let mut choose = node("choose", "If", &["x"], &["y"]);
    choose.attribute = vec![branch("then_branch", subgraph(vec![constant], "c"))];
    assert!(refusal(&model(vec![choose])).starts_with("node \"const\" (Constant), attribute \"value\""));
    let mut hollow = node("const", "Constant", &[], &["y"]);
    hollow.attribute = vec![attribute("value", AttributeType::Tensor)];
    assert_eq!(
        refusal(&model(vec![hollow])),
        "node \"const\" (Constant): attribute \"value\" has no value of its type"
    );
    let mut stray = plain();
    stray.graph.as_mut().unwrap().node[0].attribute = vec![reference("alpha", "beta")];
    assert!(refusal(&stray).contains("not inside a function"));
}

#[test]
fn a_model_over_two_gigabytes_is_not_written_into_one_file() {
    let folder = tempfile::tempdir().unwrap();
    // 200 weights that share 16 MiB in memory are 3.2 GB in a file.
    let shared = netproof_onnx::Bytes::from(vec![0; 16 << 20]);
    let mut model = plain();
    let weights = (0..200).map(|i| TensorProto {
        raw_data: Some(shared.clone()),
        ..tensor(&format!("w{i}"), DataType::Float, &[4 << 20])
    });
    model.graph.as_mut().unwrap().initializer = weights.collect();
    let error = OnnxFile::from(model).save(&folder.path().join("out.onnx"), SaveOptions::default()).unwrap_err();
    assert!(error.to_string().contains("size without external data"), "{error}");
    assert!(!folder.path().join("out.onnx").exists());
}

#[test]
fn folders_and_pipes_are_not_models() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(OnnxFile::load(folder.path(), &Limits::default()), Err(OnnxError::NotAFile { .. })));
    let missing = OnnxFile::load(&folder.path().join("none.onnx"), &Limits::default()).unwrap_err();
    assert!(matches!(missing, OnnxError::Io { action: "open", .. }));
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let pipe = folder.path().join("pipe.onnx");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(OnnxFile::load(&pipe, &Limits::default()), Err(OnnxError::NotAFile { .. })));
    }
}
