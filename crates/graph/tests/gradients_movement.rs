//! Gradients of what moves elements, against the definition: the movement is linear, so the gradient of `sum(y · s)` is what
//! the same movement, applied to one-hot inputs, gives.

use netproof_graph::{Attribute, FileBuilder, Model, Request, Wrt};
use netproof_tensor::{DType, Tensor};

fn ints(v: &[i64]) -> Tensor {
    Tensor::i64(vec![v.len()], v.to_vec()).unwrap()
}

/// One node on `x` and constants.
fn model(operator: &str, shape: &[usize], constants: &[Tensor], attributes: &[(&str, Attribute)]) -> Model {
    let mut b = FileBuilder::new("one");
    let dims: Vec<_> = shape.iter().map(|&n| netproof_graph::Dim::Fixed(n)).collect();
    let x = b.add_input("x", DType::F32, &dims);
    let mut inputs = vec![x];
    for (i, c) in constants.iter().enumerate() {
        inputs.push(b.add_initializer(&format!("c{i}"), c.clone()));
    }
    let names: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let y = b.node(operator, "node", &names, attributes);
    let probe = b.node("Identity", "last", &[&y], &[]);
    b.output(&probe, DType::F32, &[]);
    let mut file = b.build().unwrap();
    // The output's shape is left to inference.
    let graph = file.model.graph.as_mut().unwrap();
    if let Some(netproof_onnx::proto::type_proto::Value::TensorType(t)) =
        graph.output[0].r#type.as_mut().and_then(|t| t.value.as_mut())
    {
        t.shape = None;
    }
    Model::from_file(file).unwrap_or_else(|e| panic!("{operator}: {e}"))
}

fn check(operator: &str, shape: &[usize], constants: &[Tensor], attributes: &[(&str, Attribute)]) {
    let model = model(operator, shape, constants, attributes);
    let n: usize = shape.iter().product();
    let x = Tensor::f32(shape.to_vec(), (0..n).map(|i| i as f32 - 2.5).collect()).unwrap();
    let output = model.outputs()[0].name.clone();
    let run = |x: Tensor| model.forward(&Request { wrt: Wrt::values(["x"]), ..Request::new("x", x) }).unwrap();
    let forward = run(x.clone());
    let y = forward.output(&output).unwrap();
    let seed: Vec<f32> = (0..y.len()).map(|i| ((i * 7 + 3) % 11) as f32 - 4.0).collect();
    let seed = Tensor::f32(y.shape().to_vec(), seed).unwrap();
    let got = forward.backward(&[(&output, &seed)]).unwrap().take("x").unwrap();
    let weigh =
        |y: &Tensor| -> f32 { y.as_f32().unwrap().iter().zip(seed.as_f32().unwrap()).map(|(a, b)| a * b).sum() };
    let base = weigh(&y);
    for i in 0..n {
        let mut moved = x.clone();
        moved.as_f32_mut().unwrap()[i] += 1.0;
        let want = weigh(&run(moved).output(&output).unwrap()) - base;
        assert_eq!(got.as_f32().unwrap()[i], want, "{operator} {attributes:?}, element {i}");
    }
}

#[test]
fn what_moves_goes_back_to_where_it_was() {
    use Attribute::{Int, Ints, Text};
    check("Reshape", &[2, 3], &[ints(&[3, -1])], &[]);
    check("Flatten", &[2, 3, 2], &[], &[("axis", Int(2))]);
    check("Transpose", &[2, 3, 4], &[], &[("perm", Ints(vec![2, 0, 1]))]);
    check("Squeeze", &[2, 1, 3], &[ints(&[1])], &[]);
    check("Unsqueeze", &[2, 3], &[ints(&[0, 3])], &[]);
    check("Expand", &[2, 1, 3], &[ints(&[2, 2, 4, 3])], &[]);
    check("Tile", &[2, 3], &[ints(&[2, 3])], &[]);
    check("Slice", &[4, 5], &[ints(&[1]), ints(&[3]), ints(&[0])], &[]);
    check("Slice", &[4, 5], &[ints(&[-1, 0]), ints(&[-9, 5]), ints(&[0, 1]), ints(&[-2, 3])], &[]);
    check("Pad", &[3, 4], &[ints(&[1, 0, 2, -1])], &[]);
    for mode in ["reflect", "edge", "wrap"] {
        check("Pad", &[3, 4], &[ints(&[1, 2, 2, 1])], &[("mode", Text(mode.to_owned()))]);
    }
    for mode in ["DCR", "CRD"] {
        check("DepthToSpace", &[1, 8, 2, 3], &[], &[("blocksize", Int(2)), ("mode", Text(mode.to_owned()))]);
    }
    check("SpaceToDepth", &[1, 2, 4, 6], &[], &[("blocksize", Int(2))]);
    check("Trilu", &[2, 3, 4], &[], &[("upper", Int(0))]);
    check("Identity", &[2, 3], &[], &[]);
    check("Concat", &[2, 3], &[Tensor::f32(vec![2, 1], vec![1.0, 2.0]).unwrap()], &[("axis", Int(1))]);
    check("Dropout", &[2, 3], &[], &[]);
}

#[test]
fn what_is_picked_or_put_goes_back_to_where_it_was() {
    use Attribute::{Int, Text};
    check("Gather", &[4, 3], &[ints(&[3, 0, -1, 3])], &[]);
    check("Gather", &[4, 3], &[ints(&[2, 2])], &[("axis", Int(1))]);
    let index = Tensor::i64(vec![2, 3], vec![0, -1, 1, 3, 3, 2]).unwrap();
    check("GatherElements", &[4, 3], std::slice::from_ref(&index), &[]);
    check("GatherND", &[4, 3], &[Tensor::i64(vec![3, 2], vec![0, 1, 3, 2, 0, 1]).unwrap()], &[]);
    let updates = Tensor::f32(vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    for reduction in ["none", "add"] {
        let attributes = [("reduction", Text(reduction.to_owned()))];
        check("ScatterElements", &[4, 3], &[index.clone(), updates.clone()], &attributes);
        let rows = Tensor::i64(vec![2, 1], vec![3, 3]).unwrap();
        check("ScatterND", &[4, 3], &[rows, updates.clone()], &attributes);
    }
}

#[test]
fn resizing_is_linear_in_the_picture() {
    use Attribute::Text;
    let roi = || Tensor::f32(vec![0], vec![]).unwrap();
    for scales in [[1.0, 1.0, 2.0, 1.5], [1.0, 1.0, 0.5, 0.75]] {
        let scales = Tensor::f32(vec![4], scales.to_vec()).unwrap();
        check("Resize", &[1, 1, 4, 4], &[roi(), scales], &[("mode", Text("nearest".to_owned()))]);
    }
}

#[test]
fn dropout_comes_alive_in_training_and_its_gradient_has_the_same_mask() {
    let model = model("Dropout", &[40, 50], &[], &[]);
    let x = Tensor::f32(vec![40, 50], vec![1.0; 2000]).unwrap();
    let output = model.outputs()[0].name.clone();
    let request = |training| Request { training, wrt: Wrt::values(["x"]), ..Request::new("x", x.clone()) };
    assert_eq!(model.forward(&request(None)).unwrap().output(&output).unwrap(), x);
    let run = model.forward(&request(Some(5))).unwrap();
    let y = run.output(&output).unwrap();
    let kept = y.as_f32().unwrap().iter().filter(|&&v| v == 2.0).count();
    assert!((850..1150).contains(&kept) && y.as_f32().unwrap().iter().all(|&v| v == 0.0 || v == 2.0));
    assert_eq!(run.backward(&[(&output, &x)]).unwrap().take("x").unwrap(), y);
    assert_ne!(model.forward(&request(Some(6))).unwrap().output(&output).unwrap(), y);
}
