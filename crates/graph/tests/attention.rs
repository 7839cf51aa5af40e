//! Attention that exporters write as products and a softmax answers as its nodes do one by one.

use netproof_graph::{Attribute, Dim, FileBuilder, Model, Request, Wrt};
use netproof_tensor::{DType, Tensor};

fn values(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::f32(shape.to_vec(), (0..n).map(|i| ((i * 7 + seed) as f32 * 0.37).sin()).collect()).unwrap()
}

/// How scores are made.
#[derive(Debug, Clone, Copy)]
struct Form {
    /// k is turned by a `Transpose` of its own.
    turns: bool,
    /// `Div`, `Mul` with the number first, or nothing.
    factor: Option<&'static str>,
    /// Shape of the mask.
    mask: Option<&'static [usize]>,
}

const FORMS: [Form; 6] = [
    Form { turns: true, factor: Some("Div"), mask: None },
    Form { turns: true, factor: Some("Mul"), mask: Some(&[5, 7]) },
    Form { turns: false, factor: None, mask: Some(&[3, 1, 1, 7]) },
    Form { turns: false, factor: Some("Div"), mask: Some(&[3, 2, 5, 7]) },
    Form { turns: true, factor: None, mask: Some(&[7]) },
    Form { turns: false, factor: None, mask: None },
];

/// `q [3, 2, 5, 4]`, `k` for 7 keys, `v [3, 2, 7, 6]`; each passes through a `Neg`, so that it is made by a node.
fn network(form: Form) -> Model {
    let mut file = FileBuilder::new("attention");
    // A mask with a row for each image fixes how many there are.
    let mut input = |name: &str, shape: [usize; 4]| file.add_input(name, DType::F32, &shape.map(Dim::Fixed));
    let q = input("q", [3, 2, 5, 4]);
    let k = input("k", if form.turns { [3, 2, 7, 4] } else { [3, 2, 4, 7] });
    let v = input("v", [3, 2, 7, 6]);
    let q = file.node("Neg", "queries", &[&q], &[]);
    let mut k = file.node("Neg", "keys", &[&k], &[]);
    let v = file.node("Neg", "values", &[&v], &[]);
    if form.turns {
        k = file.node("Transpose", "turned", &[&k], &[("perm", Attribute::Ints(vec![0, 1, 3, 2]))]);
    }
    let mut scores = file.node("MatMul", "scores", &[&q, &k], &[]);
    if let Some(kind) = form.factor {
        let number = Tensor::f32(Vec::new(), vec![if kind == "Div" { 0.4 } else { 2.5 }]).unwrap();
        let number = file.add_initializer("number", number);
        let pair: [&str; 2] = if kind == "Div" { [&scores, &number] } else { [&number, &scores] };
        scores = file.node(kind, "scaled", &pair, &[]);
    }
    if let Some(shape) = form.mask {
        let mask = file.add_initializer("mask", values(shape, 11));
        scores = file.node("Add", "masked", &[&scores, &mask], &[]);
    }
    let p = file.node("Softmax", "probabilities", &[&scores], &[("axis", Attribute::Int(-1))]);
    let y = file.node("MatMul", "y", &[&p, &v], &[]);
    file.output(&y, DType::F32, &[3, 2, 5, 6].map(Dim::Fixed));
    Model::from_file(file.build().unwrap()).unwrap()
}

fn request(form: Form) -> Request {
    let k: &[usize] = if form.turns { &[3, 2, 7, 4] } else { &[3, 2, 4, 7] };
    let inputs = [("q", values(&[3, 2, 5, 4], 1)), ("k", values(k, 2)), ("v", values(&[3, 2, 7, 6], 3))];
    Request { inputs: inputs.map(|(n, t)| (n.to_owned(), t)).into(), ..Request::default() }
}

fn close(a: &Tensor, b: &Tensor, what: &str) {
    assert_eq!(a.shape(), b.shape());
    let (a, b) = (a.as_f32().unwrap(), b.as_f32().unwrap());
    let largest = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(largest > 0.0, "{what} is all zeros, which proves nothing");
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * largest), "{what}");
}

#[test]
fn values_and_gradients_are_those_of_the_nodes_one_by_one() {
    for form in FORMS {
        let model = network(form);
        let wrt = Wrt { values: ["q", "k", "v"].map(str::to_owned).into(), ..Wrt::default() };
        let together = Request { wrt, ..request(form) };
        let alone = Request { taps: vec!["scores".to_owned(), "probabilities".to_owned()], ..together.clone() };
        let (together, alone) = (model.forward(&together).unwrap(), model.forward(&alone).unwrap());
        close(&together.output("y").unwrap(), &alone.output("y").unwrap(), &format!("{form:?}"));
        let seed = values(&[3, 2, 5, 6], 5);
        let (a, b) = (together.backward(&[("y", &seed)]).unwrap(), alone.backward(&[("y", &seed)]).unwrap());
        for name in ["q", "k", "v"] {
            close(a.get(name).unwrap(), b.get(name).unwrap(), &format!("{form:?}, {name}"));
        }
        // The scores were not made, which says that the nodes were one.
        assert!(together.backward(&[("probabilities", &values(&[3, 2, 5, 7], 5))]).is_err(), "{form:?}");
    }
}

#[test]
fn a_mask_that_is_trained_has_a_gradient() {
    for form in FORMS {
        let Some(shape) = form.mask else { continue };
        let model = network(form);
        let together = Request { wrt: Wrt::trainable(), ..request(form) };
        let alone = Request { taps: vec!["scores".to_owned(), "probabilities".to_owned()], ..together.clone() };
        let seed = values(&[3, 2, 5, 6], 5);
        let of = |request: &Request| model.forward(request).unwrap().backward(&[("y", &seed)]).unwrap();
        let (a, b) = (of(&together), of(&alone));
        assert_eq!(a.get("mask").unwrap().shape(), shape);
        close(a.get("mask").unwrap(), b.get("mask").unwrap(), &format!("{form:?}"));
    }
}
