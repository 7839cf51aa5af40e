//! Gradients of operators that move, pick, put, repeat and resize against central differences.
//!
//! All of them are linear in each element of each input, so two points give the exact slope.

mod common;

use common::{Attr, named, one_node, weighted_outputs};
use netproof_graph::{GraphError, Model, Request, Wrt};
use netproof_tensor::{DType, Elements, Tensor};

/// Small enough that no two values in a test change their order.
const STEP: f32 = 1.0 / 64.0;

/// A network of one node with the inputs `x0`, `x1`, ... and the float outputs `y0`, `y1`, ...
struct Layer {
    what: String,
    model: Model,
    inputs: Vec<(String, Tensor)>,
    outputs: Vec<String>,
    training: Option<u64>,
}

impl Layer {
    fn new(operator: &str, opset: i64, attributes: &[(&str, Attr)], inputs: &[Option<Tensor>], outputs: usize) -> Self {
        let names: Vec<String> = (0..outputs).map(|i| format!("y{i}")).collect();
        let ports: Vec<_> = names.iter().map(|n| (n.clone(), DType::F32)).collect();
        let model = one_node(operator, opset, attributes, inputs, &ports);
        let (what, given) = (format!("{operator} {opset}"), named(inputs));
        Self { what, model, inputs: given, outputs: names, training: None }
    }

    fn request(&self, wrt: &[&str]) -> Request {
        Request {
            inputs: self.inputs.clone(),
            training: self.training,
            wrt: Wrt::values(wrt.iter().copied()),
            ..Default::default()
        }
    }

    fn run(&self) -> Result<Vec<Tensor>, GraphError> {
        let run = self.model.forward(&self.request(&[]))?;
        self.outputs.iter().map(|n| run.output(n)).collect()
    }

    fn seeds(&self) -> Vec<(String, Tensor)> {
        let outputs = self.run().unwrap_or_else(|e| panic!("{}: {e}", self.what));
        let seed = |(i, (name, y)): (usize, (&String, Tensor))| (name.clone(), random(100 + i as u64, y.shape()));
        self.outputs.iter().zip(outputs).enumerate().map(seed).collect()
    }

    fn loss(&self, request: &Request, seeds: &[(String, Tensor)]) -> f64 {
        weighted_outputs(&self.model, request, seeds)
    }

    fn gradients(&self, names: &[&str], seeds: &[(String, Tensor)]) -> Vec<Tensor> {
        let run = self.model.forward(&self.request(names)).unwrap();
        let seeds: Vec<(&str, &Tensor)> = seeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let gradients = run.backward(&seeds).unwrap_or_else(|e| panic!("{}: {e}", self.what));
        let get = |n: &&str| gradients.get(n).unwrap_or_else(|| panic!("{}: no gradient of {n}", self.what)).clone();
        names.iter().map(get).collect()
    }

    /// Compares the gradients of the named inputs, together and one at a time, with differences.
    fn check(&self, names: &[&str]) {
        let seeds = self.seeds();
        let together = self.gradients(names, &seeds);
        let mut flows = 0.0f32;
        for (name, gradient) in names.iter().zip(&together) {
            assert_eq!(self.gradients(&[name], &seeds)[0], *gradient, "{}: {name} alone", self.what);
            let position = self.inputs.iter().position(|(n, _)| n == name).unwrap();
            assert_eq!(gradient.shape(), self.inputs[position].1.shape(), "{}: {name}", self.what);
            for (i, &analytic) in gradient.as_f32().unwrap().iter().enumerate() {
                let at = |shift: f32| {
                    let mut request = self.request(&[]);
                    request.inputs[position].1.as_f32_mut().unwrap()[i] += shift;
                    self.loss(&request, &seeds)
                };
                let numeric = (at(STEP) - at(-STEP)) / (2.0 * f64::from(STEP));
                let error = (numeric - f64::from(analytic)).abs();
                let what = &self.what;
                assert!(error <= 2e-4, "{what}: gradient {i} of {name} is {analytic}, differences give {numeric}");
                flows = flows.max(analytic.abs());
            }
        }
        // All values are zero only where nothing was compared.
        assert!(flows > 0.0, "{}: no gradient flows", self.what);
    }
}

/// Numbers in (-1, 1) that are the same on every run and further apart than two steps: a shuffled grid.
fn random(seed: u64, shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (next() % (i as u64 + 1)) as usize);
    }
    let values = order.into_iter().map(|k| 2.0 * (k as f32 + 0.5 + 0.01 * seed as f32 / 128.0) / n as f32 - 1.0);
    Tensor::f32(shape.to_vec(), values.collect()).unwrap()
}

fn x(shape: &[usize]) -> Option<Tensor> {
    Some(random(1, shape))
}

fn ints(values: &[i64]) -> Option<Tensor> {
    shaped(&[values.len()], values)
}

fn shaped(shape: &[usize], values: &[i64]) -> Option<Tensor> {
    Some(Tensor::i64(shape.to_vec(), values.to_vec()).unwrap())
}

fn floats(values: &[f32]) -> Option<Tensor> {
    Some(Tensor::f32(vec![values.len()], values.to_vec()).unwrap())
}

/// One output, gradient of the first input.
fn check(operator: &str, opset: i64, attributes: &[(&str, Attr)], inputs: &[Option<Tensor>]) {
    Layer::new(operator, opset, attributes, inputs, 1).check(&["x0"]);
}

#[test]
fn shapes_and_orders() {
    check("Reshape", 1, &[("shape", Attr::Ints(&[3, -1]))], &[x(&[2, 3, 4])]);
    check("Reshape", 14, &[], &[x(&[2, 3, 4]), ints(&[0, -1])]);
    check("Reshape", 14, &[], &[x(&[1, 1]), ints(&[])]);
    check("Flatten", 13, &[("axis", Attr::Int(-1))], &[x(&[2, 3, 2])]);
    check("Flatten", 13, &[("axis", Attr::Int(0))], &[x(&[2, 3])]);
    check("Transpose", 13, &[], &[x(&[2, 3, 4])]);
    check("Transpose", 13, &[("perm", Attr::Ints(&[1, 2, 0]))], &[x(&[2, 3, 4])]);
    check("Squeeze", 11, &[("axes", Attr::Ints(&[-2]))], &[x(&[3, 1, 2])]);
    check("Squeeze", 13, &[], &[x(&[1, 3, 1, 2])]);
    check("Squeeze", 13, &[], &[x(&[1, 1])]);
    check("Unsqueeze", 11, &[("axes", Attr::Ints(&[0, 2]))], &[x(&[3, 2])]);
    check("Unsqueeze", 13, &[], &[x(&[3, 2]), ints(&[-1, 0])]);
    check("Identity", 16, &[], &[x(&[2, 3])]);
    check("DepthToSpace", 13, &[("blocksize", Attr::Int(2))], &[x(&[2, 8, 2, 3])]);
    check("DepthToSpace", 13, &[("blocksize", Attr::Int(2)), ("mode", Attr::Text("CRD"))], &[x(&[2, 8, 2, 3])]);
    check("SpaceToDepth", 13, &[("blocksize", Attr::Int(2))], &[x(&[2, 3, 4, 2])]);
}

#[test]
fn joining_and_splitting() {
    for axis in [0, 1, -1] {
        let mut shapes = [[2, 3, 2]; 3];
        let at = if axis < 0 { 2 } else { axis as usize };
        shapes[1][at] = 1;
        shapes[2][at] = 4;
        let inputs: Vec<_> = shapes.iter().enumerate().map(|(i, s)| Some(random(i as u64 + 1, s))).collect();
        Layer::new("Concat", 13, &[("axis", Attr::Int(axis))], &inputs, 1).check(&["x0", "x1", "x2"]);
    }
    let with_empty = [x(&[2, 0]), x(&[2, 3])];
    Layer::new("Concat", 13, &[("axis", Attr::Int(1))], &with_empty, 1).check(&["x0", "x1"]);
    Layer::new("Concat", 3, &[], &[x(&[2, 1]), x(&[2, 3])], 1).check(&["x0", "x1"]);

    Layer::new("Split", 11, &[("axis", Attr::Int(-1)), ("split", Attr::Ints(&[1, 3]))], &[x(&[2, 4])], 2)
        .check(&["x0"]);
    Layer::new("Split", 13, &[], &[x(&[4, 2]), ints(&[3, 0, 1])], 3).check(&["x0"]);
    let uneven = [("num_outputs", Attr::Int(3)), ("axis", Attr::Int(1))];
    let layer = Layer::new("Split", 18, &uneven, &[x(&[2, 7])], 3);
    layer.check(&["x0"]);
    // A part that nothing uses gets no gradient.
    let seeds = &layer.seeds()[1..2];
    let gradient = &layer.gradients(&["x0"], seeds)[0];
    let used: Vec<bool> = gradient.as_f32().unwrap()[..7].iter().map(|&g| g != 0.0).collect();
    assert_eq!(used, [false, false, false, true, true, true, false]);
}

#[test]
fn cutting_repeating_and_padding() {
    let slice = |starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        check("Slice", 13, &[], &[x(&[4, 5]), ints(starts), ints(ends), ints(axes), ints(steps)]);
    };
    slice(&[1, -3], &[i64::MAX, -1], &[0, 1], &[1, 1]);
    slice(&[i64::MAX, 0], &[i64::MIN, 5], &[1, 0], &[-2, 3]);
    slice(&[0], &[4], &[-1], &[2]);
    check("Slice", 1, &[("starts", Attr::Ints(&[1])), ("ends", Attr::Ints(&[3]))], &[x(&[4, 2])]);

    check("Expand", 13, &[], &[x(&[3, 1]), ints(&[2, 1, 4])]);
    check("Expand", 13, &[], &[x(&[]), ints(&[2, 2])]);
    check("Tile", 13, &[], &[x(&[2, 3]), ints(&[2, 3])]);
    check("Tile", 1, &[], &[x(&[2, 3]), floats(&[2.0]), floats(&[1.0])]);

    for mode in ["constant", "reflect", "edge", "wrap"] {
        let attributes = [("mode", Attr::Text(mode))];
        check("Pad", 19, &attributes, &[x(&[3, 4]), ints(&[1, 2, 0, 3])]);
        check("Pad", 19, &attributes, &[x(&[3, 4]), ints(&[-1, 2, 1, -2])]);
        check("Pad", 19, &attributes, &[x(&[3, 4]), ints(&[2, 1]), None, ints(&[-1])]);
        check("Pad", 2, &[("mode", Attr::Text(mode)), ("pads", Attr::Ints(&[0, 1, 1, 1]))], &[x(&[3, 4])]);
    }
    let value = Some(Tensor::f32(vec![], vec![0.7]).unwrap());
    Layer::new("Pad", 13, &[], &[x(&[3, 4]), ints(&[0, 2, 1, -1]), value], 1).check(&["x0", "x2"]);

    check("Trilu", 14, &[], &[x(&[2, 3, 4])]);
    check("Trilu", 14, &[("upper", Attr::Int(0))], &[x(&[4, 3]), shaped(&[], &[-1])]);
}

#[test]
fn picking() {
    for axis in [0, 1, -1] {
        let indices = shaped(&[2, 2], &[0, -1, 1, 0]);
        check("Gather", 13, &[("axis", Attr::Int(axis))], &[x(&[3, 2, 4]), indices]);
    }
    check("Gather", 13, &[], &[x(&[5, 3]), shaped(&[], &[2])]);
    let indices = shaped(&[2, 3], &[0, -1, 0, 2, 2, 1]);
    check("GatherElements", 13, &[("axis", Attr::Int(1))], &[x(&[3, 4]), indices]);
    check("GatherND", 13, &[], &[x(&[3, 2, 4]), shaped(&[3, 2], &[0, 1, -1, 0, 0, 1])]);
    check("GatherND", 13, &[], &[x(&[3, 2, 4]), shaped(&[2, 1], &[2, 2])]);
    check("GatherND", 13, &[("batch_dims", Attr::Int(1))], &[x(&[2, 3, 2]), shaped(&[2, 2, 1], &[0, 2, 1, 1])]);
    let one_hot = [shaped(&[2, 2], &[0, -1, 2, 9]), shaped(&[], &[3]), floats(&[0.2, 0.9])];
    Layer::new("OneHot", 11, &[("axis", Attr::Int(1))], &one_hot, 1).check(&["x2"]);
}

#[test]
fn putting() {
    // Places that repeat are told apart by the reductions; "none" is defined only where they do not.
    for reduction in ["none", "add", "mul", "max", "min"] {
        let attributes = || [("reduction", Attr::Text(reduction))];
        let indices: &[i64] = if reduction == "none" { &[0, 2, 1, 1, -1, 0] } else { &[0, 2, 1, 0, -1, 0] };
        let inputs = [x(&[3, 4]), shaped(&[2, 3], indices), Some(random(2, &[2, 3]))];
        Layer::new("ScatterElements", 18, &attributes(), &inputs, 1).check(&["x0", "x2"]);

        let rows: &[i64] = if reduction == "none" { &[1, -1] } else { &[1, 1] };
        let inputs = [x(&[3, 4]), shaped(&[2, 1], rows), Some(random(2, &[2, 4]))];
        Layer::new("ScatterND", 18, &attributes(), &inputs, 1).check(&["x0", "x2"]);
    }
    let inputs = [x(&[2, 3]), shaped(&[2, 1], &[1, 0]), Some(random(2, &[2, 1]))];
    Layer::new("Scatter", 9, &[("axis", Attr::Int(1))], &inputs, 1).check(&["x0", "x2"]);
    let nothing = [x(&[2, 3]), shaped(&[0, 2], &[]), Some(random(2, &[0]))];
    Layer::new("ScatterND", 16, &[], &nothing, 1).check(&["x0", "x2"]);
}

#[test]
fn a_product_with_a_zero_factor_has_a_gradient_for_that_factor() {
    let updates = floats(&[0.0, 3.0, 5.0]);
    let attributes = [("reduction", Attr::Text("mul"))];
    let inputs = [floats(&[2.0, 7.0]), shaped(&[3, 1], &[0, 0, 1]), updates];
    let layer = Layer::new("ScatterND", 18, &attributes, &inputs, 1);
    let ones = [("y0".to_owned(), floats(&[1.0, 1.0]).unwrap())];
    let gradients = layer.gradients(&["x0", "x2"], &ones);
    assert_eq!(gradients[0].as_f32().unwrap(), [0.0, 5.0]);
    assert_eq!(gradients[1].as_f32().unwrap(), [6.0, 0.0, 7.0]);
}

#[test]
fn ranges() {
    let one = |v: f32| Some(Tensor::f32(vec![], vec![v]).unwrap());
    Layer::new("Range", 11, &[], &[one(0.5), one(3.2), one(0.8)], 1).check(&["x0", "x2"]);
}

#[test]
fn dropout_drops_the_same_elements_on_the_way_back() {
    let cases = [(7, vec![("ratio", Attr::Float(0.4))], vec![x(&[5, 6])]), (13, vec![], vec![x(&[5, 6])])];
    for (opset, attributes, inputs) in cases {
        let mut layer = Layer::new("Dropout", opset, &attributes, &inputs, 1);
        layer.check(&["x0"]);
        assert_eq!(layer.run().unwrap()[0], *inputs[0].as_ref().unwrap());
        layer.training = Some(3);
        layer.check(&["x0"]);
        let y = layer.run().unwrap();
        let dropped = y[0].as_f32().unwrap().iter().filter(|&&v| v == 0.0).count();
        assert!((5..25).contains(&dropped), "{dropped}");
    }
    let one = |v: f32| Some(Tensor::f32(vec![], vec![v]).unwrap());
    for bad in [1.0, -0.1, f32::NAN] {
        let mut layer = Layer::new("Dropout", 13, &[], &[x(&[4]), one(bad)], 1);
        layer.training = Some(1);
        let e = layer.run().unwrap_err().to_string();
        assert!(e.contains("ratio"), "{bad}: {e}");
    }
    let file_trains = Some(Tensor::new(DType::Bool, vec![], Elements::Bool(vec![true])).unwrap());
    let layer = Layer::new("Dropout", 13, &[], &[x(&[4]), one(0.5), file_trains.clone()], 1);
    assert!(matches!(layer.run(), Err(GraphError::Unsupported(_))));
    Layer::new("Dropout", 13, &[], &[x(&[4]), one(0.0), file_trains], 1).check(&["x0"]);
}

#[test]
fn resizing() {
    let coordinates = [
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_crop_and_resize",
    ];
    for mode in ["nearest", "linear", "cubic"] {
        for transform in coordinates {
            let attributes = || {
                vec![
                    ("mode", Attr::Text(mode)),
                    ("coordinate_transformation_mode", Attr::Text(transform)),
                    ("extrapolation_value", Attr::Float(3.0)),
                ]
            };
            let region = floats(&[0.0, 0.0, 0.2, -0.3, 1.0, 1.0, 0.9, 1.2]);
            let up = floats(&[1.0, 1.0, 1.7, 2.0]);
            check("Resize", 19, &attributes(), &[x(&[1, 2, 4, 3]), region.clone(), up]);
            let sizes = ints(&[1, 2, 2, 5]);
            check("Resize", 19, &attributes(), &[x(&[1, 2, 4, 3]), region, None, sizes]);
        }
        if mode != "nearest" {
            for extra in ["antialias", "exclude_outside"] {
                let attributes = [("mode", Attr::Text(mode)), (extra, Attr::Int(1)), ("axes", Attr::Ints(&[3, 2]))];
                check("Resize", 19, &attributes, &[x(&[1, 1, 5, 6]), None, floats(&[0.4, 0.6])]);
            }
        }
    }
    check("Resize", 10, &[("mode", Attr::Text("linear"))], &[x(&[3, 3]), floats(&[1.5, 2.0])]);
    check("Upsample", 9, &[("mode", Attr::Text("linear"))], &[x(&[1, 1, 2, 3]), floats(&[1.0, 1.0, 2.0, 2.0])]);
}
