//! Gradients of elementwise operators, softmax, reductions and choices against central differences, and their answers
//! where a function has no slope: kinks, ties, zeros, infinities.

mod common;

use common::{Attr, named, one_node};
use netproof_graph::{Model, Request, Wrt};
use netproof_tensor::{DType, Tensor};

/// A network of one node with the output `y`, and its inputs `x0`, `x1` and so on.
struct One {
    what: String,
    model: Model,
    inputs: Vec<(String, Tensor)>,
}

impl One {
    fn new(operator: &str, opset: i64, attributes: &[(&str, Attr)], inputs: &[Tensor]) -> Self {
        let inputs: Vec<Option<Tensor>> = inputs.iter().cloned().map(Some).collect();
        let mut outputs = vec![("y".to_owned(), DType::F32)];
        if operator == "TopK" {
            outputs.push(("positions".to_owned(), DType::I64));
        }
        let model = one_node(operator, opset, attributes, &inputs, &outputs);
        let inputs = named(&inputs);
        Self { what: format!("{operator}-{opset}"), model, inputs }
    }

    fn output(&self, inputs: &[(String, Tensor)]) -> Vec<f64> {
        let request = Request { inputs: inputs.to_vec(), ..Request::default() };
        let y = self.model.forward(&request).unwrap_or_else(|e| panic!("{}: {e}", self.what)).output("y").unwrap();
        y.as_f32().unwrap().iter().map(|&v| f64::from(v)).collect()
    }

    /// Gradient of `sum(y · seed)` for one input; zeros where nothing flows.
    fn gradient(&self, input: usize, seed: impl Fn(usize) -> f32) -> Vec<f32> {
        let (name, x) = &self.inputs[input];
        let request = Request { inputs: self.inputs.clone(), wrt: Wrt::values([name]), ..Request::default() };
        let run = self.model.forward(&request).unwrap();
        let y = run.output("y").unwrap();
        let seed = Tensor::f32(y.shape().to_vec(), (0..y.len()).map(seed).collect()).unwrap();
        let gradients = run.backward(&[("y", &seed)]).unwrap();
        match gradients.get(name) {
            Some(g) => {
                assert_eq!(g.shape(), x.shape(), "{}: shape of the gradient of {name}", self.what);
                g.as_f32().unwrap().to_vec()
            }
            None => vec![0.0; x.len()],
        }
    }

    /// Compares the gradients of the given inputs with central differences of fourth order.
    fn check(&self, inputs: &[usize]) {
        let weight = |i: usize| 1.0 + 0.37 * (i % 5) as f32;
        for &input in inputs {
            let analytic = self.gradient(input, weight);
            for (i, &analytic) in analytic.iter().enumerate() {
                let centre = self.inputs[input].1.as_f32().unwrap()[i];
                let at = |x: f32| -> (f64, f64) {
                    let mut inputs = self.inputs.clone();
                    inputs[input].1.as_f32_mut().unwrap()[i] = x;
                    let y = self.output(&inputs);
                    (f64::from(x), y.iter().enumerate().map(|(i, y)| y * f64::from(weight(i))).sum())
                };
                let step = 0.01 * centre.abs().max(1.0);
                // The points that f32 really took, since large ones round the step.
                let slope = |step: f32| {
                    let (high, low) = (at(centre + step), at(centre - step));
                    ((high.1 - low.1) / (high.0 - low.0), low.1.abs().max(high.1.abs()) / f64::from(step))
                };
                let ((near, noise), (far, _)) = (slope(step), slope(2.0 * step));
                let numeric = (4.0 * near - far) / 3.0;
                let error = (numeric - f64::from(analytic)).abs();
                let allowed = 1e-3 * f64::from(analytic).abs() + 4e-7 * noise + 2e-5;
                let what = &self.what;
                assert!(
                    error <= allowed,
                    "{what}: gradient {i} of x{input} at {centre} is {analytic}, differences give {numeric}"
                );
            }
        }
    }
}

fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::f32(shape.to_vec(), values.to_vec()).unwrap()
}

fn row(values: &[f32]) -> Tensor {
    floats(&[values.len()], values)
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::i64(vec![values.len()], values.to_vec()).unwrap()
}

/// Numbers in (-1, 1) that are the same on every run and no two of which are near: steps of the golden ratio.
fn spread(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    floats(shape, &(0..n).map(|i| ((i + 1) as f32 * 0.618_034).fract() * 2.0 - 1.0).collect::<Vec<_>>())
}

/// As [`spread`], but at least 0.3 away from 0.
fn away(shape: &[usize]) -> Tensor {
    let v = spread(shape).into_f32().unwrap();
    floats(shape, &v.into_iter().map(|v| v + 0.3 * v.signum()).collect::<Vec<_>>())
}

/// No kink of any operator below lies within two steps of these.
const POINTS: [f32; 12] = [-90.0, -30.0, -9.3, -3.4, -1.2, -0.3, 0.2, 0.7, 1.3, 3.6, 30.0, 90.0];

#[test]
fn functions_of_one_tensor() {
    for operator in ["Abs", "Neg", "Sign", "Erf", "Reciprocal"] {
        One::new(operator, 13, &[], &[row(&POINTS)]).check(&[0]);
    }
    for operator in ["Ceil", "Floor", "Round"] {
        One::new(operator, 13, &[], &[row(&[-3.4, -0.3, 0.2, 1.3, 1.7])]).check(&[0]);
    }
    for operator in ["Sin", "Cos", "Exp"] {
        One::new(operator, 13, &[], &[row(&[-9.3, -1.2, 0.0, 0.7, 3.6])]).check(&[0]);
    }
    for operator in ["Log", "Sqrt"] {
        One::new(operator, 13, &[], &[row(&[0.1, 0.7, 1.0, 30.0, 1e4])]).check(&[0]);
    }
    One::new("Erf", 13, &[], &[row(&[0.0])]).check(&[0]);
}

#[test]
fn activations() {
    let alpha = || [("alpha", Attr::Float(0.6))];
    for operator in ["Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Selu"] {
        One::new(operator, 14, &[], &[row(&POINTS)]).check(&[0]);
    }
    for operator in ["Celu", "Elu", "LeakyRelu", "ThresholdedRelu"] {
        One::new(operator, 16, &alpha(), &[row(&POINTS)]).check(&[0]);
        One::new(operator, 16, &[], &[row(&POINTS)]).check(&[0]);
    }
    One::new("HardSigmoid", 6, &alpha(), &[row(&POINTS)]).check(&[0]);
    One::new("HardSwish", 14, &[], &[row(&POINTS)]).check(&[0]);
    One::new("Mish", 18, &[], &[row(&POINTS)]).check(&[0]);
    for kind in ["none", "tanh"] {
        One::new("Gelu", 20, &[("approximate", Attr::Text(kind))], &[row(&POINTS)]).check(&[0]);
    }
    // Zero, where the function is smooth there.
    for operator in ["Sigmoid", "Tanh", "Softplus", "Mish", "Gelu", "HardSwish"] {
        One::new(operator, 20, &[], &[row(&[0.0])]).check(&[0]);
    }
    One::new("PRelu", 16, &[], &[spread(&[2, 3, 2]), spread(&[3, 1])]).check(&[0, 1]);
    One::new("PRelu", 6, &[], &[spread(&[2, 3, 2]), spread(&[3])]).check(&[0, 1]);
    One::new("Clip", 6, &[("min", Attr::Float(-0.5)), ("max", Attr::Float(1.0))], &[row(&POINTS)]).check(&[0]);
    One::new("Clip", 13, &[], &[row(&POINTS), floats(&[], &[-0.5]), floats(&[], &[1.0])]).check(&[0, 1, 2]);
    One::new("Clip", 13, &[], &[row(&POINTS), floats(&[], &[2.0]), floats(&[], &[1.0])]).check(&[0, 1, 2]);
}

#[test]
fn functions_of_two_tensors() {
    for operator in ["Add", "Sub", "Mul", "Div"] {
        for (a, b) in [(&[2, 3][..], &[2, 3][..]), (&[2, 3], &[3]), (&[3, 1], &[2, 1, 4]), (&[], &[2, 2]), (&[2], &[])]
        {
            One::new(operator, 14, &[], &[spread(a), away(b)]).check(&[0, 1]);
        }
        let old = [("broadcast", Attr::Int(1)), ("axis", Attr::Int(1))];
        One::new(operator, 6, &old, &[spread(&[2, 3, 2]), away(&[3])]).check(&[0, 1]);
    }
    let fmod = [("fmod", Attr::Int(1))];
    One::new("Mod", 13, &fmod, &[row(&[-5.3, 5.3, 0.4]), row(&[2.0, -3.0, 1.1])]).check(&[0, 1]);
    for operator in ["Max", "Min", "Sum", "Mean"] {
        One::new(operator, 13, &[], &[spread(&[2, 3]), row(&[0.5, -0.5, 0.1]), floats(&[], &[0.05])]).check(&[0, 1, 2]);
        One::new(operator, 13, &[], &[spread(&[2, 3])]).check(&[0]);
    }
}

#[test]
fn powers() {
    let base = [-30.0, -1.2, -0.3, 0.7, 3.6];
    for p in [0.0, 1.0, 2.0, 3.0, 4.0, -1.0, -2.0] {
        One::new("Pow", 15, &[], &[row(&base), floats(&[], &[p])]).check(&[0]);
        One::new("Pow", 15, &[], &[row(&base), row(&[p; 5])]).check(&[0]);
        One::new("Pow", 15, &[], &[row(&base), ints(&[p as i64])]).check(&[0]);
    }
    One::new("Pow", 15, &[], &[row(&[0.3, 1.2, 4.0]), row(&[0.5, -1.5, 2.3])]).check(&[0, 1]);
    One::new("Pow", 15, &[], &[floats(&[2, 1], &[0.3, 1.2]), row(&[0.5, -1.5, 2.3])]).check(&[0, 1]);
    // At 0 the powers of whole exponents are smooth, and the power of 0 itself stays where it is.
    let zeros = One::new("Pow", 15, &[], &[row(&[0.0; 4]), row(&[0.0, 1.0, 2.0, 3.0])]);
    assert_eq!(zeros.gradient(0, |_| 1.0), [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(zeros.gradient(1, |_| 1.0), [0.0; 4]);
}

#[test]
fn softmax_and_its_logarithm() {
    for operator in ["Softmax", "LogSoftmax"] {
        for axis in [0, 1, -1] {
            for opset in [9, 13] {
                One::new(operator, opset, &[("axis", Attr::Int(axis))], &[spread(&[2, 3, 2])]).check(&[0]);
            }
        }
        let large = One::new(operator, 13, &[], &[row(&[1e4, -1e4, 0.0])]);
        assert!(large.gradient(0, |i| i as f32).iter().all(|g| g.is_finite()), "{operator}");
    }
    let hard = One::new("Hardmax", 13, &[], &[row(&[1.0, 2.0])]);
    assert_eq!(hard.gradient(0, |_| 1.0), [0.0; 2]);
}

#[test]
fn reductions() {
    const ALL: [&str; 10] = [
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
    ];
    for operator in ALL {
        let x = match operator {
            "ReduceLogSum" => {
                let v: Vec<f32> = spread(&[2, 3, 2]).as_f32().unwrap().iter().map(|v| v.abs() + 0.1).collect();
                floats(&[2, 3, 2], &v)
            }
            _ => spread(&[2, 3, 2]),
        };
        for axes in [&[1][..], &[0, 2], &[-1], &[0, 1, 2]] {
            for keep in [0, 1] {
                let keep_dims = || ("keepdims", Attr::Int(keep));
                One::new(operator, 18, &[keep_dims()], &[x.clone(), ints(axes)]).check(&[0]);
                One::new(operator, 11, &[keep_dims(), ("axes", Attr::Ints(axes))], std::slice::from_ref(&x))
                    .check(&[0]);
            }
        }
        One::new(operator, 18, &[], std::slice::from_ref(&x)).check(&[0]);
        One::new(operator, 18, &[("noop_with_empty_axes", Attr::Int(1))], &[x]).check(&[0]);
    }
}

#[test]
fn products_with_zeros_have_their_gradient() {
    for (x, want) in
        [([2.0, 0.0, 3.0], [0.0, 6.0, 0.0]), ([0.0, 0.0, 3.0], [0.0, 0.0, 0.0]), ([-2.0, 1.0, 3.0], [3.0, -6.0, -2.0])]
    {
        assert_eq!(One::new("ReduceProd", 13, &[], &[row(&x)]).gradient(0, |_| 1.0), want, "{x:?}");
        let square = floats(&[3, 1], &x);
        assert_eq!(One::new("ReduceProd", 13, &[], &[square]).gradient(0, |_| 1.0), want, "{x:?}");
    }
}

#[test]
fn choices_and_running_sums() {
    for (axis, largest) in [(0, 1), (1, 0), (-1, 1)] {
        let attributes = [("axis", Attr::Int(axis)), ("largest", Attr::Int(largest))];
        One::new("TopK", 11, &attributes, &[spread(&[3, 4]), ints(&[2])]).check(&[0]);
    }
    for (exclusive, reverse) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let attributes = || [("exclusive", Attr::Int(exclusive)), ("reverse", Attr::Int(reverse))];
        for axis in [0, 1] {
            One::new("CumSum", 14, &attributes(), &[spread(&[3, 4]), ints(&[axis])]).check(&[0]);
        }
        One::new("CumSum", 14, &attributes(), &[spread(&[1, 4]), ints(&[0])]).check(&[0]);
    }
    let condition = Tensor::bool(vec![2, 1], vec![true, false]).unwrap();
    One::new("Where", 16, &[], &[condition, spread(&[3]), spread(&[2, 3])]).check(&[1, 2]);
    One::new("Cast", 13, &[("to", Attr::Int(11))], &[row(&POINTS)]).check_identity();
    One::new("Cast", 13, &[("to", Attr::Int(10))], &[row(&POINTS)]).check_identity();
    One::new("CastLike", 15, &[], &[row(&POINTS), row(&[0.0])]).check_identity();
}

impl One {
    fn check_identity(&self) {
        let want: Vec<f32> = (0..POINTS.len()).map(|i| i as f32).collect();
        assert_eq!(self.gradient(0, |i| i as f32), want, "{}", self.what);
    }
}

#[test]
fn answers_where_there_is_no_slope() {
    let slope = |operator: &str, opset: i64, x: &[f32]| One::new(operator, opset, &[], &[row(x)]).gradient(0, |_| 1.0);
    // PyTorch's answers: 0 at the kink of ReLU, of the absolute value and of the norm; ties share.
    assert_eq!(slope("Relu", 14, &[-1.0, 0.0, 1.0]), [0.0, 0.0, 1.0]);
    assert_eq!(slope("Abs", 13, &[0.0]), [0.0]);
    // Slopes that exist, but bend there.
    assert_eq!(slope("Softsign", 1, &[0.0]), [1.0]);
    assert_eq!(slope("Elu", 6, &[0.0]), [1.0]);
    assert_eq!(slope("ReduceL2", 13, &[0.0, 0.0]), [0.0, 0.0]);
    assert_eq!(slope("ReduceMax", 13, &[3.0, 1.0, 3.0]), [0.5, 0.0, 0.5]);
    assert_eq!(slope("ReduceMin", 13, &[3.0, 1.0, 1.0]), [0.0, 0.5, 0.5]);
    // The bounds of Clip are inside.
    let bounds = [row(&[-1.0, 0.0, 1.0, 2.0]), floats(&[], &[0.0]), floats(&[], &[1.0])];
    assert_eq!(One::new("Clip", 13, &[], &bounds).gradient(0, |_| 1.0), [0.0, 1.0, 1.0, 0.0]);
    // Max and Min of several inputs: the first of the equal ones.
    for operator in ["Max", "Min"] {
        let tie = One::new(operator, 13, &[], &[row(&[1.0]), row(&[1.0]), row(&[1.0])]);
        assert_eq!([0, 1, 2].map(|i| tie.gradient(i, |_| 1.0)[0]), [1.0, 0.0, 0.0]);
    }
}

#[test]
fn gradients_of_extreme_inputs_are_finite() {
    for operator in [
        "Relu",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Celu",
        "Gelu",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Mish",
        "Tanh",
        "Softplus",
        "Softsign",
        "ThresholdedRelu",
        "Erf",
    ] {
        let node = One::new(operator, 20, &[], &[row(&[-1e30, -1e4, -100.0, 100.0, 1e4, 1e30])]);
        let (y, g) = (node.output(&node.inputs), node.gradient(0, |_| 1.0));
        assert!(y.iter().all(|v| v.is_finite()), "{operator}: {y:?}");
        assert!(g.iter().all(|v| v.is_finite() && v.abs() < 2.0), "{operator}: {g:?}");
    }
    let tanh = One::new("Gelu", 20, &[("approximate", Attr::Text("tanh"))], &[row(&[-1e30, -1e4, 1e4, 1e30])]);
    assert_eq!(tanh.gradient(0, |_| 1.0), [0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn nan_stays_nan() {
    for operator in [
        "Abs",
        "Ceil",
        "Exp",
        "Floor",
        "Neg",
        "Round",
        "Sign",
        "Sqrt",
        "Relu",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Celu",
        "Gelu",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Mish",
        "Tanh",
        "Softplus",
        "Softsign",
        "ThresholdedRelu",
        "Clip",
        "Softmax",
        "LogSoftmax",
        "Max",
        "Min",
        "ReduceMax",
        "ReduceMin",
        "ReduceLogSumExp",
        "ReduceL2",
    ] {
        let node = One::new(operator, 20, &[], &[row(&[f32::NAN])]);
        assert!(node.output(&node.inputs)[0].is_nan(), "{operator}");
    }
    for operator in ["Max", "Min"] {
        for x in [[f32::NAN, 1.0, 2.0], [1.0, f32::NAN, 2.0], [1.0, 2.0, f32::NAN]] {
            let node = One::new(operator, 13, &[], &x.map(|v| row(&[v])));
            assert!(node.output(&node.inputs)[0].is_nan(), "{operator} {x:?}");
        }
    }
}
