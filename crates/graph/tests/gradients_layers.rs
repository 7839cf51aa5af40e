//! Gradients of whole layers against central differences: normalisation, recurrence, attention, dequantisation.

mod common;

use common::{Attr, named, one_node, weighted_outputs};
use netproof_graph::{Model, Request, Wrt};
use netproof_tensor::{DType, Elements, Tensor};

/// Step of the differences. Four points make the error of order step⁴, below the rounding of f32 sums.
const STEP: f32 = 0.02;

/// A network of one node.
struct Layer {
    model: Model,
    inputs: Vec<(String, Tensor)>,
    outputs: Vec<String>,
    training: Option<u64>,
}

impl Layer {
    fn new(
        operator: &str,
        opset: i64,
        attributes: &[(&str, Attr)],
        inputs: &[Option<Tensor>],
        outputs: &[DType],
    ) -> Self {
        let names: Vec<String> = (0..outputs.len()).map(|i| format!("y{i}")).collect();
        let ports: Vec<_> = names.iter().cloned().zip(outputs.iter().copied()).collect();
        let model = one_node(operator, opset, attributes, inputs, &ports);
        let inputs = named(inputs);
        Self { model, inputs, outputs: names, training: None }
    }

    fn request(&self) -> Request {
        Request { inputs: self.inputs.clone(), training: self.training, ..Default::default() }
    }

    fn seeds(&self) -> Vec<(String, Tensor)> {
        let run = self.model.forward(&self.request()).unwrap();
        let seed = |(i, name): (usize, &String)| {
            let y = run.output(name).unwrap();
            y.dtype().is_float().then(|| (name.clone(), random(100 + i as u64, y.shape())))
        };
        self.outputs.iter().enumerate().filter_map(seed).collect()
    }

    fn loss(&self, request: &Request, seeds: &[(String, Tensor)]) -> f64 {
        weighted_outputs(&self.model, request, seeds)
    }

    fn gradients(&self, names: &[&str], seeds: &[(String, Tensor)]) -> Vec<Vec<f32>> {
        let request = Request { wrt: Wrt::values(names.iter().copied()), ..self.request() };
        let run = self.model.forward(&request).unwrap();
        let seeds: Vec<(&str, &Tensor)> = seeds.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let gradients = run.backward(&seeds).unwrap();
        names
            .iter()
            .map(|n| gradients.get(n).unwrap_or_else(|| panic!("no gradient of {n}")).as_f32().unwrap().to_vec())
            .collect()
    }

    /// Compares the gradients of the named inputs, together and one at a time, with differences.
    fn check(&self, what: &str, names: &[&str]) {
        self.check_seeds(what, names, &self.seeds());
    }

    fn check_seeds(&self, what: &str, names: &[&str], seeds: &[(String, Tensor)]) {
        let together = self.gradients(names, seeds);
        for (name, gradient) in names.iter().zip(&together) {
            assert_eq!(self.gradients(&[name], seeds)[0], *gradient, "{what}: {name} alone");
            let position = self.inputs.iter().position(|(n, _)| n == name).unwrap();
            let largest = gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            for (i, &analytic) in gradient.iter().enumerate() {
                let at = |shift: f32| {
                    let mut request = self.request();
                    request.inputs[position].1.as_f32_mut().unwrap()[i] += shift;
                    self.loss(&request, seeds)
                };
                let near = at(STEP) - at(-STEP);
                let far = at(2.0 * STEP) - at(-2.0 * STEP);
                let numeric = (8.0 * near - far) / (12.0 * f64::from(STEP));
                let error = (numeric - f64::from(analytic)).abs();
                let allowed = 1e-3 * (0.1 + f64::from(largest));
                assert!(error <= allowed, "{what}: gradient {i} of {name} is {analytic}, differences give {numeric}");
            }
        }
    }
}

/// Numbers in (-1, 1) that are the same on every run: SplitMix64.
fn random(seed: u64, shape: &[usize]) -> Tensor {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let n = shape.iter().product();
    Tensor::f32(shape.to_vec(), (0..n).map(|_| next()).collect()).unwrap()
}

/// Numbers in (0.5, 1.5).
fn positive(seed: u64, shape: &[usize]) -> Tensor {
    let t = random(seed, shape).into_f32().unwrap();
    Tensor::f32(shape.to_vec(), t.into_iter().map(|v| 1.0 + 0.5 * v).collect()).unwrap()
}

fn ints(dtype: DType, shape: &[usize], values: Vec<i64>) -> Tensor {
    Tensor::new(dtype, shape.to_vec(), Elements::Int(values)).unwrap()
}

fn batch_normalization(opset: i64, shape: &[usize], attributes: &[(&str, Attr)], outputs: usize) -> Layer {
    let c = [shape.get(1).copied().unwrap_or(1)];
    let inputs = [random(1, shape), random(2, &c), random(3, &c), random(4, &c), positive(5, &c)].map(Some);
    Layer::new("BatchNormalization", opset, attributes, &inputs, &vec![DType::F32; outputs])
}

#[test]
fn batch_normalization_with_stored_statistics() {
    for shape in [&[5, 3][..], &[2, 3, 4], &[2, 3, 2, 2], &[2, 2, 1, 2, 2]] {
        let layer = batch_normalization(15, shape, &[("epsilon", Attr::Float(0.1))], 1);
        layer.check(&format!("{shape:?}"), &["x0", "x1", "x2", "x3", "x4"]);
    }
}

#[test]
fn batch_normalization_with_batch_statistics() {
    for shape in [&[5, 3][..], &[2, 3, 4], &[2, 3, 2, 2], &[6]] {
        let mut layer = batch_normalization(15, shape, &[], 1);
        layer.training = Some(7);
        layer.check(&format!("{shape:?}"), &["x0", "x1", "x2"]);
    }
    // The file's own training mode, with gradients through the running statistics as well.
    let layer = batch_normalization(14, &[4, 3, 2], &[("training_mode", Attr::Int(1))], 3);
    layer.check("training_mode", &["x0", "x1", "x2", "x3", "x4"]);
    let only_y = &layer.seeds()[..1];
    layer.check_seeds("training_mode, y only", &["x0", "x1", "x2"], only_y);
    let old = batch_normalization(6, &[4, 3, 2], &[("is_test", Attr::Int(0))], 1);
    old.check("is_test = 0", &["x0", "x1", "x2"]);
}

#[test]
fn batch_normalization_per_activation() {
    let p = [3, 2];
    let inputs = [random(1, &[4, 3, 2]), random(2, &p), random(3, &p), random(4, &p), positive(5, &p)].map(Some);
    let mut layer = Layer::new("BatchNormalization", 7, &[("spatial", Attr::Int(0))], &inputs, &[DType::F32]);
    layer.check("spatial = 0", &["x0", "x1", "x2", "x3", "x4"]);
    layer.training = Some(1);
    layer.check("spatial = 0, training", &["x0", "x1", "x2"]);
}

#[test]
fn running_statistics_move_towards_the_population_statistics() {
    let x = Tensor::f32(vec![4, 1], vec![1.0, 2.0, 3.0, 6.0]).unwrap();
    let one = |v: f32| Some(Tensor::f32(vec![1], vec![v]).unwrap());
    let inputs = [Some(x), one(1.0), one(0.0), one(10.0), one(20.0)];
    let mut layer = Layer::new("BatchNormalization", 15, &[("momentum", Attr::Float(0.75))], &inputs, &[DType::F32]);
    assert!(layer.model.forward(&layer.request()).unwrap().updates().unwrap().is_empty());
    layer.training = Some(1);
    let updates = layer.model.forward(&layer.request()).unwrap().updates().unwrap();
    // Mean 3 and population variance 3.5.
    let want = [("x3", 0.75 * 10.0 + 0.25 * 3.0), ("x4", 0.75 * 20.0 + 0.25 * 3.5)];
    assert_eq!(updates.len(), 2);
    for ((name, value), (want_name, want)) in updates.iter().zip(want) {
        assert_eq!(name, want_name);
        assert!((value.as_f32().unwrap()[0] - want).abs() < 1e-5, "{name}: {value:?}");
    }
}

#[test]
fn layer_normalization() {
    let x = || Some(random(1, &[2, 3, 4]));
    for (axis, shape) in [(-1, &[4][..]), (1, &[3, 4]), (-2, &[3, 1]), (0, &[2, 3, 4])] {
        let attributes = [("axis", Attr::Int(axis)), ("epsilon", Attr::Float(0.01))];
        let inputs = [x(), Some(random(2, shape)), Some(random(3, shape))];
        let layer = Layer::new("LayerNormalization", 17, &attributes, &inputs, &[DType::F32]);
        layer.check(&format!("axis {axis}"), &["x0", "x1", "x2"]);
        let layer = Layer::new("LayerNormalization", 17, &attributes, &inputs, &[DType::F32; 3]);
        layer.check(&format!("axis {axis}, with statistics"), &["x0", "x1", "x2"]);
    }
    let layer = Layer::new("LayerNormalization", 17, &[], &[x(), Some(random(2, &[4]))], &[DType::F32]);
    layer.check("no bias", &["x0", "x1"]);
}

#[test]
fn other_normalizations() {
    let vector = |seed, n| Some(random(seed, &[n]));
    let inputs = [Some(random(1, &[2, 4, 3])), vector(2, 4), vector(3, 4)];
    Layer::new("InstanceNormalization", 6, &[("epsilon", Attr::Float(0.05))], &inputs, &[DType::F32])
        .check("instance", &["x0", "x1", "x2"]);
    let groups = [("num_groups", Attr::Int(2)), ("epsilon", Attr::Float(0.05))];
    Layer::new("GroupNormalization", 21, &groups, &inputs, &[DType::F32]).check("group 21", &["x0", "x1", "x2"]);
    let inputs = [Some(random(1, &[2, 4, 3])), vector(2, 2), vector(3, 2)];
    Layer::new("GroupNormalization", 18, &groups, &inputs, &[DType::F32]).check("group 18", &["x0", "x1", "x2"]);
    let inputs = [Some(random(1, &[2, 4, 3])), Some(random(2, &[4, 3]))];
    Layer::new("RMSNormalization", 23, &[("axis", Attr::Int(1))], &inputs, &[DType::F32]).check("rms", &["x0", "x1"]);
    let x = [Some(positive(1, &[2, 5, 3, 2]))];
    for size in [1, 2, 3, 9] {
        let attributes = [
            ("size", Attr::Int(size)),
            ("alpha", Attr::Float(0.7)),
            ("beta", Attr::Float(0.6)),
            ("bias", Attr::Float(1.2)),
        ];
        Layer::new("LRN", 13, &attributes, &x, &[DType::F32]).check("lrn", &["x0"]);
    }
    Layer::new("MeanVarianceNormalization", 13, &[], &x, &[DType::F32]).check("mean and variance", &["x0"]);
    Layer::new("MeanVarianceNormalization", 13, &[("axes", Attr::Ints(&[1]))], &x, &[DType::F32])
        .check("mean and variance over channels", &["x0"]);
    for p in [1, 2] {
        let attributes = [("p", Attr::Int(p)), ("axis", Attr::Int(1))];
        Layer::new("LpNormalization", 1, &attributes, &x, &[DType::F32]).check("norm", &["x0"]);
    }
}

/// Inputs x, w, r, bias, lengths, initial state, initial cell and peepholes.
fn recurrent_inputs(gates: usize, directions: usize, lengths: bool) -> Vec<Option<Tensor>> {
    let (steps, batch, features, h) = (3, 2, 2, 2);
    let d = directions;
    let mut inputs = vec![
        Some(random(1, &[steps, batch, features])),
        Some(random(2, &[d, gates * h, features])),
        Some(random(3, &[d, gates * h, h])),
        Some(random(4, &[d, 2 * gates * h])),
        lengths.then(|| ints(DType::I32, &[batch], vec![3, 1])),
        Some(random(5, &[d, batch, h])),
    ];
    if gates == 4 {
        inputs.extend([Some(random(6, &[d, batch, h])), Some(random(7, &[d, 3 * h]))]);
    }
    inputs
}

#[test]
fn recurrent_layers() {
    let differentiable = ["x0", "x1", "x2", "x3", "x5", "x6", "x7"];
    for (operator, gates) in [("RNN", 1), ("GRU", 3), ("LSTM", 4)] {
        let names = if gates == 4 { &differentiable[..] } else { &differentiable[..5] };
        let outputs = vec![DType::F32; if gates == 4 { 3 } else { 2 }];
        for (direction, directions) in [("forward", 1), ("reverse", 1), ("bidirectional", 2)] {
            for lengths in [false, true] {
                let attributes = [("hidden_size", Attr::Int(2)), ("direction", Attr::Text(direction))];
                let inputs = recurrent_inputs(gates, directions, lengths);
                Layer::new(operator, 14, &attributes, &inputs, &outputs)
                    .check(&format!("{operator} {direction}, lengths {lengths}"), names);
            }
        }
    }
    let gru = [("linear_before_reset", Attr::Int(1)), ("clip", Attr::Float(5.0))];
    Layer::new("GRU", 14, &gru, &recurrent_inputs(3, 1, true), &[DType::F32; 2])
        .check("GRU, linear before reset", &differentiable[..5]);
    let lstm = [
        ("input_forget", Attr::Int(1)),
        ("activations", Attr::Texts(&["HardSigmoid", "ScaledTanh", "Softplus"])),
        ("activation_alpha", Attr::Floats(&[0.3, 1.3])),
        ("activation_beta", Attr::Floats(&[0.4, 0.8])),
    ];
    Layer::new("LSTM", 14, &lstm, &recurrent_inputs(4, 1, false), &[DType::F32; 3])
        .check("LSTM, other activations", &differentiable);
}

#[test]
fn attention() {
    let heads = |seed, heads, length, size| Some(random(seed, &[2, heads, length, size]));
    let layer = Layer::new(
        "Attention",
        23,
        &[("is_causal", Attr::Int(1)), ("softcap", Attr::Float(1.5))],
        &[
            heads(1, 4, 3, 2),
            heads(2, 2, 3, 2),
            heads(3, 2, 3, 3),
            Some(random(4, &[3, 5])),
            heads(5, 2, 2, 2),
            heads(6, 2, 2, 3),
        ],
        &[DType::F32; 4],
    );
    layer.check("grouped, causal, capped, with past", &["x0", "x1", "x2", "x3", "x4", "x5"]);

    let mut mask = random(4, &[2, 1, 3, 4]);
    let values = mask.as_f32_mut().unwrap();
    values[1] = f32::NEG_INFINITY;
    // The last query of the first example sees nothing.
    values[8..12].fill(f32::NEG_INFINITY);
    let flat = |seed, length, width| Some(random(seed, &[2, length, width]));
    let layer = Layer::new(
        "Attention",
        23,
        &[("q_num_heads", Attr::Int(2)), ("kv_num_heads", Attr::Int(2)), ("scale", Attr::Float(0.8))],
        &[flat(1, 3, 4), flat(2, 4, 4), flat(3, 4, 6), Some(mask)],
        &[DType::F32],
    );
    layer.check("heads side by side, masked", &["x0", "x1", "x2", "x3"]);
    let run = layer.model.forward(&layer.request()).unwrap();
    assert_eq!(run.output("y0").unwrap().as_f32().unwrap()[12..18], [0.0; 6]);
}

#[test]
fn rotary_embedding() {
    for interleaved in [0, 1] {
        let attributes = [("interleaved", Attr::Int(interleaved)), ("rotary_embedding_dim", Attr::Int(4))];
        let positions = ints(DType::I64, &[2, 2], vec![3, 0, 1, 3]);
        let inputs =
            [Some(random(1, &[2, 3, 2, 6])), Some(random(2, &[4, 2])), Some(random(3, &[4, 2])), Some(positions)];
        Layer::new("RotaryEmbedding", 23, &attributes, &inputs, &[DType::F32]).check("rotary", &["x0", "x1", "x2"]);
    }
}

#[test]
fn dequantisation_has_a_gradient_for_its_scale_and_quantisation_none() {
    let codes = || Some(ints(DType::I8, &[2, 3], vec![5, -7, 100, -128, 0, 1]));
    let per_axis = [codes(), Some(positive(1, &[3])), Some(ints(DType::I8, &[3], vec![1, -2, 3]))];
    Layer::new("DequantizeLinear", 21, &[], &per_axis, &[DType::F32]).check("per axis", &["x1"]);
    let blocked = [codes(), Some(positive(1, &[2, 2]))];
    Layer::new("DequantizeLinear", 21, &[("block_size", Attr::Int(2))], &blocked, &[DType::F32])
        .check("blocked", &["x1"]);
    let single = [codes(), Some(positive(1, &[]))];
    Layer::new("DequantizeLinear", 10, &[], &single, &[DType::F32]).check("one scale", &["x1"]);

    let layer = Layer::new("QuantizeLinear", 13, &[], &[Some(random(1, &[4])), Some(positive(2, &[]))], &[DType::U8]);
    let request = Request { wrt: Wrt::values(["x0"]), ..layer.request() };
    let run = layer.model.forward(&request).unwrap();
    assert!(run.backward(&[]).unwrap().get("x0").is_none());
}
