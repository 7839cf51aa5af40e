//! Gradients of products, convolutions, pools and sums over named axes against central differences.

mod common;

use common::Attr::{self, Float, Int, Ints, Text};
use common::one_node;
use netproof_graph::{Model, Request, Wrt};
use netproof_tensor::{DType, Tensor};

/// Values in -2..2 in a scrambled order, no two closer than 4 / count, none at 0.
fn spaced(shape: &[usize], seed: usize) -> Tensor {
    let n: usize = shape.iter().product();
    // A prime that does not divide the count visits every place once.
    let step = [101, 103, 107, 109].into_iter().find(|p| !n.is_multiple_of(*p)).unwrap_or(1);
    let place = |i: usize| ((i + seed) * step) % n.max(1);
    let values =
        (0..n).map(|i| (place(i) as f32 + 0.5) / n as f32 * 4.0 - 2.0).map(|v| if v == 0.0 { 0.05 } else { v });
    Tensor::f32(shape.to_vec(), values.collect()).unwrap()
}

fn model(operator: &str, opset: i64, attributes: &[(&str, Attr)], inputs: &[Tensor], extra: &[DType]) -> Model {
    let inputs: Vec<Option<Tensor>> = inputs.iter().cloned().map(Some).collect();
    let mut outputs = vec![("y".to_owned(), DType::F32)];
    outputs.extend(extra.iter().map(|d| ("second".to_owned(), *d)));
    one_node(operator, opset, attributes, &inputs, &outputs)
}

fn request(inputs: &[Tensor]) -> Request {
    let inputs = inputs.iter().enumerate().map(|(i, t)| (format!("x{i}"), t.clone())).collect();
    Request { inputs, ..Default::default() }
}

fn check_tensors(operator: &str, opset: i64, attributes: &[(&str, Attr)], inputs: &[Tensor], extra: &[DType]) {
    /// Step of the differences; maxima keep their order, since values are further apart.
    const STEP: f32 = 0.01;
    let model = model(operator, opset, attributes, inputs, extra);
    let y = model.forward(&request(inputs)).unwrap_or_else(|e| panic!("{operator}: {e}")).output("y").unwrap();
    let seed = spaced(y.shape(), 5);
    let loss = |inputs: &[Tensor]| -> f64 {
        let y = model.forward(&request(inputs)).unwrap().output("y").unwrap();
        let terms = y.as_f32().unwrap().iter().zip(seed.as_f32().unwrap());
        terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let gradients = |names: &[String]| {
        let request = Request { wrt: Wrt::values(names.iter().cloned()), ..request(inputs) };
        model.forward(&request).unwrap().backward(&[("y", &seed)]).unwrap()
    };
    let floats: Vec<usize> = (0..inputs.len()).filter(|&i| inputs[i].as_f32().is_some()).collect();
    let together = gradients(&floats.iter().map(|i| format!("x{i}")).collect::<Vec<_>>());
    for i in floats {
        let name = format!("x{i}");
        let shapes: Vec<_> = inputs.iter().map(|t| t.shape().to_vec()).collect();
        let what = format!("{operator} of {shapes:?}, input {i}");
        let got = together.get(&name).unwrap_or_else(|| panic!("{what}: no gradient"));
        assert_eq!(got.shape(), inputs[i].shape(), "{what}");
        assert_eq!(gradients(std::slice::from_ref(&name)).get(&name), Some(got), "{what}: asked for alone");
        let scale = got.as_f32().unwrap().iter().fold(1.0f32, |m, v| m.max(v.abs()));
        for element in 0..inputs[i].len() {
            let at = |steps: f32| {
                let mut moved = inputs.to_vec();
                moved[i].as_f32_mut().unwrap()[element] += steps * STEP;
                loss(&moved)
            };
            // Four points: the error is of order step to the fourth.
            let want = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * f64::from(STEP));
            let got = f64::from(got.as_f32().unwrap()[element]);
            assert!((got - want).abs() < 2e-3 * f64::from(scale), "{what}, element {element}: {got}, must be {want}");
        }
    }
}

fn check(operator: &str, opset: i64, attributes: &[(&str, Attr)], shapes: &[&[usize]]) {
    let inputs: Vec<Tensor> = shapes.iter().enumerate().map(|(i, s)| spaced(s, i)).collect();
    check_tensors(operator, opset, attributes, &inputs, &[]);
}

#[test]
fn matrix_products() {
    for shapes in [
        [&[3][..], &[3][..]],
        [&[3], &[3, 2]],
        [&[2, 3], &[3]],
        [&[2, 3], &[3, 4]],
        [&[4, 2, 3], &[3, 2]],
        [&[2, 3], &[4, 3, 2]],
        [&[4, 2, 3], &[3]],
        [&[3], &[4, 3, 2]],
        [&[2, 1, 2, 3], &[3, 3, 2]],
        [&[1, 2, 3], &[3, 3, 1]],
    ] {
        check("MatMul", 13, &[], &shapes);
    }
}

#[test]
fn general_matrix_products() {
    for (ta, tb) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let a: &[usize] = if ta == 1 { &[4, 3] } else { &[3, 4] };
        let b: &[usize] = if tb == 1 { &[2, 4] } else { &[4, 2] };
        let attributes = || [("transA", Int(ta)), ("transB", Int(tb)), ("alpha", Float(0.5)), ("beta", Float(-1.5))];
        check("Gemm", 13, &attributes(), &[a, b]);
        for c in [&[3, 2][..], &[2], &[3, 1], &[1], &[]] {
            check("Gemm", 13, &attributes(), &[a, b, c]);
        }
    }
}

#[test]
fn convolutions() {
    check("Conv", 11, &[], &[&[2, 2, 5], &[3, 2, 3], &[3]]);
    check("Conv", 11, &[("auto_pad", Text("SAME_LOWER")), ("strides", Ints(&[2]))], &[&[2, 2, 6], &[3, 2, 4], &[3]]);
    check("Conv", 11, &[("pads", Ints(&[1, 0, 0, 2]))], &[&[2, 2, 4, 3], &[3, 2, 2, 3], &[3]]);
    check("Conv", 11, &[("group", Int(4)), ("pads", Ints(&[1, 1, 1, 1]))], &[&[2, 4, 3, 3], &[4, 1, 3, 3]]);
    check(
        "Conv",
        11,
        &[("group", Int(2)), ("strides", Ints(&[2, 1])), ("dilations", Ints(&[1, 2]))],
        &[&[2, 4, 4, 5], &[6, 2, 2, 2], &[6]],
    );
    check("Conv", 11, &[("auto_pad", Text("SAME_UPPER"))], &[&[1, 2, 3, 2, 3], &[2, 2, 2, 2, 2], &[2]]);
    check("Conv", 11, &[], &[&[2, 3, 2, 2], &[2, 3, 1, 1]]);
}

#[test]
fn transposed_convolutions() {
    check("ConvTranspose", 11, &[], &[&[2, 2, 3], &[2, 3, 3], &[3]]);
    check(
        "ConvTranspose",
        11,
        &[("strides", Ints(&[2, 3])), ("pads", Ints(&[1, 0, 0, 2])), ("output_padding", Ints(&[1, 2]))],
        &[&[2, 2, 3, 2], &[2, 3, 2, 3], &[3]],
    );
    check(
        "ConvTranspose",
        11,
        &[("group", Int(2)), ("dilations", Ints(&[2, 1])), ("pads", Ints(&[1, 1, 1, 1]))],
        &[&[2, 4, 3, 3], &[4, 1, 2, 2], &[2]],
    );
    check(
        "ConvTranspose",
        11,
        &[("auto_pad", Text("SAME_UPPER")), ("strides", Ints(&[3, 2]))],
        &[&[1, 2, 2, 3], &[2, 2, 2, 3]],
    );
    // More output than the kernels reach.
    check(
        "ConvTranspose",
        11,
        &[("strides", Ints(&[2])), ("output_padding", Ints(&[3])), ("pads", Ints(&[0, 1]))],
        &[&[1, 2, 3], &[2, 2, 2], &[2]],
    );
    check("ConvTranspose", 11, &[("strides", Ints(&[1, 2, 1]))], &[&[1, 2, 2, 2, 2], &[2, 2, 2, 1, 2], &[2]]);
}

#[test]
fn maxima_of_windows() {
    check(
        "MaxPool",
        12,
        &[("kernel_shape", Ints(&[3])), ("strides", Ints(&[2])), ("pads", Ints(&[1, 0]))],
        &[&[2, 2, 7]],
    );
    check("MaxPool", 12, &[("kernel_shape", Ints(&[2, 2])), ("strides", Ints(&[2, 2]))], &[&[2, 2, 4, 5]]);
    let ceil = || [("kernel_shape", Ints(&[2, 3])), ("strides", Ints(&[2, 2])), ("ceil_mode", Int(1))];
    check("MaxPool", 12, &ceil(), &[&[1, 2, 5, 4]]);
    check(
        "MaxPool",
        12,
        &[("kernel_shape", Ints(&[2, 2, 2])), ("pads", Ints(&[1, 0, 0, 0, 1, 0]))],
        &[&[1, 2, 3, 3, 2]],
    );
    check_tensors("MaxPool", 12, &ceil(), &[spaced(&[1, 2, 5, 4], 0)], &[DType::I64]);
    check("GlobalMaxPool", 1, &[], &[&[2, 3, 3, 4]]);
    check("GlobalMaxPool", 1, &[], &[&[2, 2, 2, 3, 2]]);
}

#[test]
fn means_and_norms_of_windows() {
    for include in [0, 1] {
        check(
            "AveragePool",
            19,
            &[
                ("kernel_shape", Ints(&[3, 2])),
                ("strides", Ints(&[2, 1])),
                ("pads", Ints(&[1, 0, 1, 1])),
                ("ceil_mode", Int(1)),
                ("count_include_pad", Int(include)),
            ],
            &[&[2, 2, 4, 4]],
        );
    }
    check("AveragePool", 19, &[("kernel_shape", Ints(&[2])), ("dilations", Ints(&[2]))], &[&[2, 2, 6]]);
    check("AveragePool", 19, &[("kernel_shape", Ints(&[2, 1, 2]))], &[&[1, 2, 3, 2, 3]]);
    check("GlobalAveragePool", 1, &[], &[&[2, 3, 2, 4]]);
    for p in [1, 2, 3] {
        let attributes = [("kernel_shape", Ints(&[2, 2])), ("p", Int(p)), ("pads", Ints(&[0, 1, 0, 0]))];
        check("LpPool", 18, &attributes, &[&[2, 2, 3, 3]]);
        check("GlobalLpPool", 2, &[("p", Int(p))], &[&[2, 2, 3, 2]]);
    }
}

#[test]
fn maxima_put_back() {
    let places = Tensor::i64(vec![1, 1, 2, 2], vec![5, 7, 13, 8]).unwrap();
    let inputs = [spaced(&[1, 1, 2, 2], 0), places];
    check_tensors("MaxUnpool", 11, &[("kernel_shape", Ints(&[2, 2])), ("strides", Ints(&[2, 2]))], &inputs, &[]);
}

#[test]
fn sums_over_named_axes() {
    let cases: [(&'static str, &[&[usize]]); 10] = [
        ("ij->ji", &[&[2, 3]]),
        ("ii->i", &[&[3, 3]]),
        ("iji->", &[&[3, 2, 3]]),
        ("...ii->...", &[&[2, 3, 3]]),
        ("ij,jk->ik", &[&[2, 3], &[3, 4]]),
        ("bij,bkj->bik", &[&[2, 3, 2], &[2, 2, 2]]),
        ("i,j->ij", &[&[3], &[4]]),
        ("ij,ij->i", &[&[2, 1], &[2, 4]]),
        ("...i,i...->...", &[&[2, 3], &[3, 1]]),
        ("ab,bc,ca->", &[&[2, 3], &[3, 4], &[4, 2]]),
    ];
    for (equation, shapes) in cases {
        check("Einsum", 12, &[("equation", Text(equation))], shapes);
    }
}
