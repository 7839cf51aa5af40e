//! Bounds against closed forms, a dense float64 version, and points of the region.

use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;

use super::*;
use crate::run::{Request, Wrt};
use crate::{Attribute, FileBuilder};

pub(super) const METHODS: [BoundMethod; 4] = [
    BoundMethod::Ibp,
    BoundMethod::CrownIbp,
    BoundMethod::Crown,
    BoundMethod::AlphaCrown(Ascent { steps: 8, rate: 0.5 }),
];

fn draws(seed: u64, count: usize, scale: f64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| (rng.normal() * scale) as f32).collect()
}

fn tensor(shape: &[usize], values: Vec<f32>) -> Tensor {
    Tensor::f32(shape.to_vec(), values).unwrap()
}

/// A dense layer of a naive network.
struct Dense {
    weight: Vec<Vec<f64>>,
    bias: Vec<f64>,
}

/// Layers of a multilayer perceptron, as a model and as numbers.
fn perceptron(widths: &[usize], activation: &str, attributes: &[(&str, Attribute)], seed: u64) -> (Model, Vec<Dense>) {
    let mut b = FileBuilder::new("perceptron");
    let mut x = b.add_batch_input("x", &widths[..1]);
    let mut layers = Vec::new();
    for (i, w) in widths.windows(2).enumerate() {
        let scale = 1.2 / (w[0] as f64).sqrt();
        let weight = draws(seed + 10 * i as u64, w[0] * w[1], scale);
        let bias = draws(seed + 10 * i as u64 + 1, w[1], 0.3);
        let of = |o: usize| weight[o * w[0]..(o + 1) * w[0]].iter().map(|&v| f64::from(v)).collect();
        let numbers = Dense { weight: (0..w[1]).map(of).collect(), bias: bias.iter().map(|&v| f64::from(v)).collect() };
        layers.push(numbers);
        let wn = b.add_initializer(&format!("w{i}"), tensor(&[w[1], w[0]], weight));
        let bn = b.add_initializer(&format!("b{i}"), tensor(&[w[1]], bias));
        x = b.node("Gemm", &format!("g{i}"), &[&x, &wn, &bn], &[("transB", Attribute::Int(1))]);
        if i + 2 < widths.len() {
            x = b.node(activation, &format!("a{i}"), &[&x], attributes);
        }
    }
    b.batch_output(&x, &widths[widths.len() - 1..]);
    (Model::from_file(b.build().unwrap()).unwrap(), layers)
}

fn request(x: &Tensor, norm: Norm, epsilon: f64, specification: Specification, method: BoundMethod) -> BoundsRequest {
    BoundsRequest::new(Region::around(x, norm, &[epsilon], None).unwrap(), specification, method)
}

fn lower(model: &Model, request: &BoundsRequest) -> Vec<f32> {
    model.bounds(request).unwrap().lower.into_f32().unwrap()
}

#[test]
fn a_linear_classifier_has_its_closed_form() {
    let (model, layers) = perceptron(&[12, 4], "Relu", &[], 3);
    let x = tensor(&[3, 12], draws(5, 36, 1.0));
    let labels = vec![1, 0, 3];
    let z = model.predict(&x).unwrap().into_f32().unwrap();
    for (norm, dual) in [
        (Norm::Linf, (|w: &[f64]| w.iter().map(|v| v.abs()).sum()) as fn(&[f64]) -> f64),
        (Norm::L2, |w| w.iter().map(|v| v * v).sum::<f64>().sqrt()),
        (Norm::L1, |w| w.iter().fold(0.0, |m: f64, v| m.max(v.abs()))),
    ] {
        for method in METHODS {
            let got = lower(&model, &request(&x, norm, 0.1, Specification::Margins(labels.clone()), method));
            for (r, &y) in labels.iter().enumerate() {
                for j in 0..4 {
                    if j == y {
                        assert_eq!(got[r * 4 + j], f32::INFINITY);
                        continue;
                    }
                    let w: Vec<f64> =
                        layers[0].weight[y].iter().zip(&layers[0].weight[j]).map(|(a, b)| a - b).collect();
                    let want = f64::from(z[r * 4 + y]) - f64::from(z[r * 4 + j]) - 0.1 * dual(&w);
                    let off = f64::from(got[r * 4 + j]) - want;
                    assert!(off < 1e-6 && off > -3e-5, "{norm:?} {method:?}: {} {want}", got[r * 4 + j]);
                }
            }
        }
    }
}

/// CROWN and intervals as the papers write them, in float64 with dense matrices, for one row.
struct Naive<'a> {
    layers: &'a [Dense],
    low: Vec<f64>,
    high: Vec<f64>,
}

impl Naive<'_> {
    /// Least value of `c · z_layer`, where `bounds` are those of the values before the activations.
    fn least(&self, layer: usize, c: &[f64], bounds: &[(Vec<f64>, Vec<f64>)]) -> f64 {
        let mut lambda = c.to_vec();
        let mut total = 0.0;
        for k in (0..=layer).rev() {
            let Dense { weight, bias } = &self.layers[k];
            total += lambda.iter().zip(bias).map(|(l, b)| l * b).sum::<f64>();
            let width = weight[0].len();
            let mut next: Vec<f64> =
                (0..width).map(|j| lambda.iter().zip(weight).map(|(l, w)| l * w[j]).sum()).collect();
            if k > 0 {
                for (j, l) in next.iter_mut().enumerate() {
                    let (a, b) = (bounds[k - 1].0[j], bounds[k - 1].1[j]);
                    if b <= 0.0 {
                        *l = 0.0;
                    } else if a < 0.0 {
                        if *l >= 0.0 {
                            *l *= if b > -a { 1.0 } else { 0.0 };
                        } else {
                            let slope = b / (b - a);
                            total += *l * slope * -a;
                            *l *= slope;
                        }
                    }
                }
            }
            lambda = next;
        }
        total + lambda.iter().enumerate().map(|(j, l)| (l * self.low[j]).min(l * self.high[j])).sum::<f64>()
    }

    fn intervals(&self) -> Vec<(Vec<f64>, Vec<f64>)> {
        let (mut low, mut high) = (self.low.clone(), self.high.clone());
        let mut all = Vec::new();
        for layer in self.layers {
            let side = |up: bool| -> Vec<f64> {
                let each = layer.weight.iter().zip(&layer.bias);
                each.map(|(w, b)| {
                    let terms = w.iter().enumerate().map(|(j, &w)| {
                        let (x, y) = (w * low[j], w * high[j]);
                        if up { x.max(y) } else { x.min(y) }
                    });
                    b + terms.sum::<f64>()
                })
                .collect()
            };
            let (l, u) = (side(false), side(true));
            all.push((l.clone(), u.clone()));
            (low, high) = (l.iter().map(|v| v.max(0.0)).collect(), u.iter().map(|v| v.max(0.0)).collect());
        }
        all
    }

    /// Layer by layer: intervals from the tight bounds before, tightened where a ReLU is not stable.
    fn crown(&self) -> Vec<(Vec<f64>, Vec<f64>)> {
        let (mut low, mut high) = (self.low.clone(), self.high.clone());
        let mut all: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
        for k in 0..self.layers.len() - 1 {
            let step = Naive { layers: &self.layers[k..=k], low: low.clone(), high: high.clone() };
            let (mut l, mut u) = step.intervals().remove(0);
            let n = l.len();
            let one = |j: usize, sign: f64| -> Vec<f64> { (0..n).map(|i| if i == j { sign } else { 0.0 }).collect() };
            for j in (0..n).filter(|&j| l[j] < 0.0 && u[j] > 0.0).collect::<Vec<_>>() {
                l[j] = l[j].max(self.least(k, &one(j, 1.0), &all));
                u[j] = u[j].min(-self.least(k, &one(j, -1.0), &all));
            }
            low = l.iter().map(|v| v.max(0.0)).collect();
            high = u.iter().map(|v| v.max(0.0)).collect();
            all.push((l, u));
        }
        all
    }
}

#[test]
fn bounds_are_those_of_the_papers_written_out() {
    let (model, layers) = perceptron(&[6, 16, 12, 10, 4], "Relu", &[], 11);
    let x = tensor(&[4, 6], draws(7, 24, 1.0));
    let values = x.as_f32().unwrap();
    let labels = vec![0, 1, 2, 3];
    let margin = |y: usize, j: usize| -> Vec<f64> {
        (0..4).map(|i| f64::from(u8::from(i == y)) - f64::from(u8::from(i == j))).collect()
    };
    for epsilon in [0.01f64, 0.1, 0.4] {
        for (method, rounding) in
            [(BoundMethod::Ibp, 0), (BoundMethod::CrownIbp, 1), (BoundMethod::Crown, 2)].map(|(m, k)| (m, k))
        {
            let specification = Specification::Margins(labels.clone());
            let mut asked = request(&x, Norm::Linf, epsilon, specification, method);
            asked.rounding = Rounding::Nearest;
            let got = lower(&model, &asked);
            for (r, &y) in labels.iter().enumerate() {
                let row: Vec<f64> = values[r * 6..(r + 1) * 6].iter().map(|&v| f64::from(v)).collect();
                let naive = Naive {
                    layers: &layers,
                    low: row.iter().map(|v| v - epsilon).collect(),
                    high: row.iter().map(|v| v + epsilon).collect(),
                };
                let plain = naive.intervals();
                for j in (0..4).filter(|&j| j != y) {
                    // Intervals with the last layer joined to the margin.
                    let (low, high) = (&plain[2].0, &plain[2].1);
                    let last = &layers[3];
                    let joined: f64 = (0..10)
                        .map(|k| {
                            let w = last.weight[y][k] - last.weight[j][k];
                            (w * low[k].max(0.0)).min(w * high[k].max(0.0))
                        })
                        .sum::<f64>()
                        + last.bias[y]
                        - last.bias[j];
                    let want = match rounding {
                        0 => joined,
                        1 => joined.max(naive.least(3, &margin(y, j), &plain)),
                        _ => {
                            let tight = naive.crown();
                            let by_intervals: f64 = (0..10)
                                .map(|k| {
                                    let w = last.weight[y][k] - last.weight[j][k];
                                    (w * tight[2].0[k].max(0.0)).min(w * tight[2].1[k].max(0.0))
                                })
                                .sum::<f64>()
                                + last.bias[y]
                                - last.bias[j];
                            by_intervals.max(naive.least(3, &margin(y, j), &tight))
                        }
                    };
                    let got = f64::from(got[r * 4 + j]);
                    assert!((got - want).abs() < 2e-5, "{method:?} {epsilon} row {r} class {j}: {got}, want {want}");
                }
            }
        }
    }
}

/// Answers at random points of the region, at its corners, and where a walk down the gradient of each function leads.
fn attacked(model: &Model, region: &Region, functions: usize, seed: u64) -> Vec<Tensor> {
    let mut rng = Rng::new(seed);
    let (low, high) = (region.low.as_f32().unwrap(), region.high.as_f32().unwrap());
    let shape = region.low.shape().to_vec();
    let mut points: Vec<Vec<f32>> = Vec::new();
    for kind in 0..6 {
        let point = low.iter().zip(high).map(|(&l, &h)| match kind {
            0 => l,
            1 => h,
            2 | 3 => {
                if rng.unit() < 0.5 {
                    l
                } else {
                    h
                }
            }
            _ => (l + (h - l) * rng.unit() as f32).clamp(l, h),
        });
        points.push(point.collect());
    }
    let input = model.inputs()[0].name.clone();
    let output = model.outputs()[0].name.clone();
    for function in 0..functions {
        for sign in [1.0f32, -1.0] {
            let mut x: Vec<f32> = low.iter().zip(high).map(|(l, h)| 0.5 * l + 0.5 * h).collect();
            for _ in 0..4 {
                let asked =
                    Request { wrt: Wrt::values([input.clone()]), ..Request::new(&input, tensor(&shape, x.clone())) };
                let run = model.forward(&asked).unwrap();
                let y = run.output(&output).unwrap();
                let width = y.row_len();
                let seed = (0..y.len()).map(|i| if i % width == function % width { sign } else { 0.0 }).collect();
                let mut gradients = run.backward(&[(&output, &tensor(y.shape(), seed))]).unwrap();
                let Some(g) = gradients.take(&input) else { break };
                let g = g.into_f32().unwrap();
                x = (0..x.len())
                    .map(|i| {
                        if g[i] > 0.0 {
                            low[i]
                        } else if g[i] < 0.0 {
                            high[i]
                        } else {
                            x[i]
                        }
                    })
                    .collect();
                points.push(x.clone());
            }
        }
    }
    points.into_iter().map(|p| tensor(&shape, p)).collect()
}

fn assert_sound(model: &Model, region: &Region, methods: &[BoundMethod], what: &str) {
    let width = model.predict(&region.low).unwrap().row_len();
    let answers: Vec<Tensor> =
        attacked(model, region, width.min(10), 1).iter().map(|p| model.predict(p).unwrap()).collect();
    let mut previous: Option<Bounds> = None;
    for &method in methods {
        let bounds = model.bounds(&BoundsRequest::new(region.clone(), Specification::Outputs, method)).unwrap();
        let (l, u) = (bounds.lower.as_f32().unwrap(), bounds.upper.as_ref().unwrap().as_f32().unwrap());
        for y in &answers {
            for (i, &v) in y.as_f32().unwrap().iter().enumerate() {
                assert!(l[i] <= v && v <= u[i], "{what}, {method:?}: {v} is outside [{}, {}] ({i})", l[i], u[i]);
            }
        }
        if let Some(old) = &previous {
            let (a, b) = (old.lower.as_f32().unwrap(), old.upper.as_ref().unwrap().as_f32().unwrap());
            for i in 0..l.len() {
                let slack = 1e-4 * (1.0 + a[i].abs().max(b[i].abs()));
                assert!(l[i] >= a[i] - slack && u[i] <= b[i] + slack, "{what}, {method:?} is looser at {i}");
            }
        }
        if method == BoundMethod::Ibp || matches!(method, BoundMethod::Crown) {
            previous = Some(bounds);
        }
    }
}

#[test]
fn points_of_the_region_lie_within_the_bounds_of_every_curve() {
    let activations: &[(&str, &[(&str, Attribute)])] = &[
        ("Relu", &[]),
        ("LeakyRelu", &[("alpha", Attribute::Float(0.2))]),
        ("LeakyRelu", &[("alpha", Attribute::Float(1.7))]),
        ("Abs", &[]),
        ("Sigmoid", &[]),
        ("Tanh", &[]),
        ("HardSigmoid", &[]),
        ("HardSwish", &[]),
        ("Softplus", &[]),
        ("Softsign", &[]),
        ("Elu", &[]),
        ("Selu", &[]),
        ("Exp", &[]),
        ("Erf", &[]),
    ];
    for (operator, attributes) in activations {
        let (model, _) = perceptron(&[5, 9, 8, 3], operator, attributes, 21);
        let x = tensor(&[3, 5], draws(9, 15, 1.0));
        for epsilon in [1e-3, 0.1, 0.7] {
            let region = Region::around(&x, Norm::Linf, &[epsilon], None).unwrap();
            assert_sound(&model, &region, &METHODS, &format!("{operator} {attributes:?} {epsilon}"));
        }
    }
}

/// A network with most operators that have rules: groups, pools, residual sums, joins, gates.
fn varied(seed: u64) -> Model {
    let mut b = FileBuilder::new("varied");
    let x = b.add_batch_input("x", &[2, 8, 8]);
    let mut number = seed;
    let mut draw = |b: &mut FileBuilder, name: &str, shape: &[usize], scale: f64| {
        number += 1;
        b.add_initializer(name, tensor(shape, draws(number, shape.iter().product(), scale)))
    };
    let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
    let w = draw(&mut b, "w1", &[4, 2, 3, 3], 0.3);
    let c = draw(&mut b, "c1", &[4], 0.1);
    let y = b.node("Conv", "conv1", &[&x, &w, &c], &[("pads", ints(&[1, 1, 1, 1]))]);
    let scale = draw(&mut b, "scale", &[4], 1.0);
    let shift = draw(&mut b, "shift", &[4], 0.2);
    let mean = draw(&mut b, "mean", &[4], 0.1);
    let variance = b.add_initializer("variance", tensor(&[4], vec![0.5, 1.0, 2.0, 0.7]));
    let y = b.node("BatchNormalization", "norm", &[&y, &scale, &shift, &mean, &variance], &[]);
    let y = b.node("Relu", "relu1", &[&y], &[]);
    let w = draw(&mut b, "w2", &[4, 1, 3, 3], 0.5);
    let z = b.node("Conv", "conv2", &[&y, &w], &[("pads", ints(&[1, 1, 1, 1])), ("group", Attribute::Int(4))]);
    let z = b.node("HardSwish", "swish", &[&z], &[]);
    let s = b.node("Add", "residual", &[&y, &z], &[]);
    let p = b.node(
        "MaxPool",
        "max",
        &[&s],
        &[("kernel_shape", ints(&[3, 3])), ("strides", ints(&[2, 2])), ("pads", ints(&[1, 1, 1, 1]))],
    );
    let q = b.node("AveragePool", "mean_pool", &[&s], &[("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2]))]);
    let j = b.node("Concat", "join", &[&p, &q], &[("axis", Attribute::Int(1))]);
    let g = b.node("GlobalAveragePool", "squeeze", &[&j], &[]);
    let w = draw(&mut b, "w3", &[8, 8, 1, 1], 0.5);
    let g = b.node("Conv", "excite", &[&g, &w], &[]);
    let g = b.node("Sigmoid", "gate", &[&g], &[]);
    let e = b.node("Mul", "gated", &[&j, &g], &[]);
    let d = b.node("Sub", "difference", &[&e, &j], &[]);
    let half = b.add_initializer("half", tensor(&[1], vec![-0.5]));
    let d = b.node("Mul", "halved", &[&d, &half], &[]);
    let d = b.node("Transpose", "turned", &[&d], &[("perm", ints(&[0, 2, 3, 1]))]);
    let f = b.node("Flatten", "flat", &[&d], &[]);
    let w = draw(&mut b, "w4", &[128, 6], 0.2);
    let f = b.node("MatMul", "product", &[&f, &w], &[]);
    let c = draw(&mut b, "c4", &[6], 0.2);
    let f = b.node("Add", "bias", &[&c, &f], &[]);
    let t = b.node("Tanh", "tanh", &[&f], &[]);
    let f = b.node("Mul", "own", &[&t, &f], &[]);
    let w = draw(&mut b, "w5", &[6, 3], 0.5);
    let c = draw(&mut b, "c5", &[3], 0.5);
    let y = b.node("Gemm", "y", &[&f, &w, &c], &[("alpha", Attribute::Float(-1.5)), ("beta", Attribute::Float(0.5))]);
    b.batch_output(&y, &[3]);
    Model::from_file(b.build().unwrap()).unwrap()
}

#[test]
fn points_of_the_region_lie_within_the_bounds_of_a_varied_network() {
    let model = varied(40);
    let x = tensor(&[2, 2, 8, 8], draws(3, 256, 1.0));
    for epsilon in [1e-3, 0.05, 0.4] {
        let region = Region::around(&x, Norm::Linf, &[epsilon], None).unwrap();
        assert_sound(&model, &region, &METHODS, &format!("varied {epsilon}"));
    }
    let low = tensor(&[2, 2, 8, 8], draws(3, 256, 1.0));
    let high: Vec<f32> = low.as_f32().unwrap().iter().enumerate().map(|(i, v)| v + (i % 3) as f32 * 0.05).collect();
    let region = Region::between(low.clone(), tensor(low.shape(), high)).unwrap();
    assert_sound(&model, &region, &METHODS, "unequal box");
}

#[test]
fn points_of_balls_lie_within_the_bounds() {
    let model = varied(41);
    let x = tensor(&[2, 2, 8, 8], draws(4, 256, 1.0));
    let mut rng = Rng::new(8);
    for (norm, epsilon) in [(Norm::L2, 0.5), (Norm::L1, 1.5)] {
        for method in METHODS {
            let bounds = model.bounds(&request(&x, norm, epsilon, Specification::Outputs, method)).unwrap();
            let (l, u) = (bounds.lower.into_f32().unwrap(), bounds.upper.unwrap().into_f32().unwrap());
            for trial in 0..30 {
                let mut point = x.as_f32().unwrap().to_vec();
                for row in point.chunks_mut(128) {
                    let mut d: Vec<f64> = (0..128).map(|_| rng.normal()).collect();
                    if trial % 2 == 0 {
                        // Few elements take all.
                        d.iter_mut().enumerate().for_each(|(i, v)| {
                            if (i + trial) % 50 != 0 {
                                *v = 0.0
                            }
                        });
                    }
                    let size = match norm {
                        Norm::L1 => d.iter().map(|v| v.abs()).sum::<f64>(),
                        _ => d.iter().map(|v| v * v).sum::<f64>().sqrt(),
                    };
                    row.iter_mut().zip(&d).for_each(|(x, d)| *x += (0.999_999 * epsilon * d / size) as f32);
                }
                let y = model.predict(&tensor(x.shape(), point)).unwrap().into_f32().unwrap();
                for (i, v) in y.iter().enumerate() {
                    assert!(l[i] <= *v && *v <= u[i], "{norm:?} {method:?}: {v} outside [{}, {}]", l[i], u[i]);
                }
            }
        }
    }
}

#[test]
fn ascent_beats_the_slopes_of_least_area() {
    let (model, _) = perceptron(&[8, 24, 24, 24, 5], "Relu", &[], 31);
    let x = tensor(&[6, 8], draws(2, 48, 1.0));
    let labels = vec![0, 1, 2, 3, 4, 0];
    for norm in [Norm::Linf, Norm::L2] {
        let asked = |method| request(&x, norm, 0.3, Specification::Margins(labels.clone()), method);
        let plain = lower(&model, &asked(BoundMethod::Crown));
        let chosen = lower(&model, &asked(BoundMethod::AlphaCrown(Ascent::default())));
        let gains: Vec<f32> = plain.iter().zip(&chosen).filter(|(p, _)| p.is_finite()).map(|(p, c)| c - p).collect();
        assert!(gains.iter().all(|&g| g >= 0.0), "{gains:?}");
        let better = gains.iter().filter(|&&g| g > 1e-3).count();
        assert!(better * 2 > gains.len(), "{norm:?}: only {better} of {} are tighter", gains.len());
    }
}

#[test]
fn rows_and_memory_change_nothing_beyond_rounding() {
    let model = varied(42);
    let x = tensor(&[5, 2, 8, 8], draws(6, 640, 1.0));
    for method in METHODS {
        let asked = request(&x, Norm::Linf, 0.05, Specification::Margins(vec![0, 1, 2, 0, 1]), method);
        let all = lower(&model, &asked);
        let small = lower(&model, &BoundsRequest { memory: 1, ..asked.clone() });
        let one = x.slice_rows(3, 4).unwrap();
        let alone = lower(&model, &request(&one, Norm::Linf, 0.05, Specification::Margins(vec![0]), method));
        for (i, (a, b)) in all.iter().zip(&small).enumerate() {
            assert!(a == b || (a - b).abs() < 1e-4, "{method:?} {i}: {a} and {b}");
        }
        for (a, b) in all[9..12].iter().zip(&alone) {
            assert!(a == b || (a - b).abs() < 1e-4, "{method:?}: {a} and {b}");
        }
    }
}

#[test]
fn outward_bounds_are_wider_by_little() {
    let (model, _) = perceptron(&[20, 64, 64, 4], "Relu", &[], 51);
    let x = tensor(&[3, 20], draws(12, 60, 1.0));
    for method in METHODS {
        let outward = request(&x, Norm::Linf, 0.02, Specification::Outputs, method);
        let nearest = BoundsRequest { rounding: Rounding::Nearest, ..outward.clone() };
        let (a, b) = (model.bounds(&outward).unwrap(), model.bounds(&nearest).unwrap());
        let gap = |a: &Tensor, b: &Tensor| -> Vec<f32> {
            a.as_f32().unwrap().iter().zip(b.as_f32().unwrap()).map(|(a, b)| b - a).collect()
        };
        let below = gap(&a.lower, &b.lower);
        let above = gap(b.upper.as_ref().unwrap(), a.upper.as_ref().unwrap());
        for g in below.iter().chain(&above) {
            assert!(*g > 0.0 && *g < 1e-3, "{method:?}: {g}");
        }
    }
}

#[test]
fn linear_functions_and_one_logit_are_what_they_say() {
    let (model, _) = perceptron(&[6, 8, 4], "Relu", &[], 61);
    let x = tensor(&[2, 6], draws(13, 12, 1.0));
    let labels = vec![2, 0];
    let mut functions = Vec::new();
    for &y in &labels {
        for j in 0..4 {
            functions.extend((0..4).map(|i| f32::from(u8::from(i == y)) - f32::from(u8::from(i == j))));
        }
    }
    let linear = Specification::Linear(tensor(&[2, 4, 4], functions));
    let a = lower(&model, &request(&x, Norm::Linf, 0.1, linear, BoundMethod::Crown));
    let b = lower(&model, &request(&x, Norm::Linf, 0.1, Specification::Margins(labels), BoundMethod::Crown));
    for (a, b) in a.iter().zip(&b).filter(|(_, b)| b.is_finite()) {
        assert!((a - b).abs() < 1e-6);
    }
    let (model, _) = perceptron(&[6, 8, 1], "Relu", &[], 62);
    let got = lower(&model, &request(&x, Norm::Linf, 0.1, Specification::Margins(vec![1, 0]), BoundMethod::Crown));
    let both = model.bounds(&request(&x, Norm::Linf, 0.1, Specification::Outputs, BoundMethod::Crown)).unwrap();
    assert_eq!(got[0], both.lower.as_f32().unwrap()[0]);
    assert_eq!(got[1], -both.upper.unwrap().as_f32().unwrap()[1]);
}

#[test]
fn a_softmax_at_the_end_keeps_margins_and_has_bounds_of_its_own() {
    let mut b = FileBuilder::new("softmax");
    let x = b.add_batch_input("x", &[3]);
    let w = b.add_initializer("w", tensor(&[3, 3], draws(70, 9, 1.0)));
    let z = b.node("MatMul", "z", &[&x, &w], &[]);
    let y = b.node("Softmax", "y", &[&z], &[("axis", Attribute::Int(1))]);
    b.batch_output(&y, &[3]);
    let model = Model::from_file(b.build().unwrap()).unwrap();
    let x = tensor(&[2, 3], draws(71, 6, 1.0));
    let margins = Specification::Margins(vec![0, 1]);
    let asked = request(&x, Norm::Linf, 0.1, margins, BoundMethod::Crown);
    let before = BoundsRequest { output: Some("z".to_owned()), ..asked.clone() };
    assert_eq!(lower(&model, &asked), lower(&model, &before));
    let region = Region::around(&x, Norm::Linf, &[0.1], None).unwrap();
    assert_sound(&model, &region, &METHODS, "softmax");
}

#[test]
fn bad_input_is_refused_or_proves_nothing() {
    let (model, _) = perceptron(&[4, 6, 3], "Relu", &[], 80);
    let x = tensor(&[2, 4], vec![0.1, f32::NAN, 0.2, 0.3, 0.1, 0.2, 0.3, 0.4]);
    for method in METHODS {
        let bounds = model.bounds(&request(&x, Norm::Linf, 0.1, Specification::Outputs, method)).unwrap();
        let (l, u) = (bounds.lower.into_f32().unwrap(), bounds.upper.unwrap().into_f32().unwrap());
        assert!(l[..3].iter().all(|v| *v == f32::NEG_INFINITY) && u[..3].iter().all(|v| *v == f32::INFINITY));
        assert!(l[3..].iter().chain(&u[3..]).all(|v| v.is_finite()));
        let none = tensor(&[0, 4], Vec::new());
        let empty = model.bounds(&request(&none, Norm::Linf, 0.1, Specification::Outputs, method)).unwrap();
        assert_eq!(empty.lower.shape(), [0, 3]);
    }
    let x = tensor(&[1, 4], vec![0.0; 4]);
    let bound = |specification| model.bounds(&request(&x, Norm::Linf, 0.1, specification, BoundMethod::Crown));
    assert!(bound(Specification::Margins(vec![3])).unwrap_err().to_string().contains("label 3"));
    assert!(bound(Specification::Margins(vec![0, 1])).unwrap_err().to_string().contains("2 labels"));
    assert!(bound(Specification::Linear(tensor(&[1, 2], vec![0.0; 2]))).is_err());
    assert!(Region::around(&x, Norm::L2, &[-1.0], None).is_err());
    assert!(Region::around(&x, Norm::L2, &[f64::NAN], None).is_err());
    assert!(Region::around(&x, Norm::L2, &[0.1, 0.2], None).is_err());
    assert!(Region::around(&x, Norm::L2, &[0.1], Some((1.0, 0.0))).is_err());
    assert!(Region::between(tensor(&[1, 1], vec![1.0]), tensor(&[1, 1], vec![0.0])).is_err());
    let wide = tensor(&[1, 5], vec![0.0; 5]);
    let error = model.bounds(&request(&wide, Norm::Linf, 0.1, Specification::Outputs, BoundMethod::Ibp)).unwrap_err();
    assert!(error.to_string().contains("[1, 5]"), "{error}");
}

#[test]
fn an_operator_without_a_rule_is_named() {
    let mut b = FileBuilder::new("cumulative");
    let x = b.add_batch_input("x", &[3]);
    let y = b.node("Cos", "turning", &[&x], &[]);
    b.batch_output(&y, &[3]);
    let model = Model::from_file(b.build().unwrap()).unwrap();
    let x = tensor(&[1, 3], vec![0.0; 3]);
    let error = model.bounds(&request(&x, Norm::Linf, 0.1, Specification::Outputs, BoundMethod::Ibp)).unwrap_err();
    assert!(error.to_string().contains("Cos (node `turning`)"), "{error}");
}

#[test]
fn a_region_is_cut_to_its_domain_and_holds_its_rows() {
    let x = tensor(&[1, 4], vec![0.0, 0.05, 1.0, -0.2]);
    let region = Region::around(&x, Norm::Linf, &[0.1], Some((0.0, 1.0))).unwrap();
    let (l, h) = (region.low.as_f32().unwrap(), region.high.as_f32().unwrap());
    assert_eq!((l[0], h[2], l[3]), (0.0, 1.0, -0.2));
    assert!(h[0] >= 0.1 && f64::from(l[2]) <= 0.9 && h[3] >= -0.2);
}

#[test]
fn a_fixed_batch_is_met_by_padding() {
    let mut b = FileBuilder::new("fixed");
    let x = b.add_input("x", netproof_tensor::DType::F32, &[crate::Dim::Fixed(2), crate::Dim::Fixed(3)]);
    let w = b.add_initializer("w", tensor(&[3, 4], draws(90, 12, 1.0)));
    let y = b.node("MatMul", "m", &[&x, &w], &[]);
    let y = b.node("Relu", "r", &[&y], &[]);
    b.output(&y, netproof_tensor::DType::F32, &[crate::Dim::Fixed(2), crate::Dim::Fixed(4)]);
    let model = Model::from_file(b.build().unwrap()).unwrap();
    let x = tensor(&[3, 3], draws(91, 9, 1.0));
    let pair = Region::around(&x.slice_rows(0, 2).unwrap(), Norm::Linf, &[0.1], None).unwrap();
    assert_sound(&model, &pair, &METHODS, "fixed batch");
    for method in METHODS {
        let all = model.bounds(&request(&x, Norm::Linf, 0.1, Specification::Outputs, method)).unwrap();
        let two = model.bounds(&BoundsRequest::new(pair.clone(), Specification::Outputs, method)).unwrap();
        assert_eq!((all.lower.rows(), &all.lower.as_f32().unwrap()[..8]), (3, two.lower.as_f32().unwrap()));
        let z = model.predict(&x).unwrap();
        let last = all.lower.as_f32().unwrap()[8..].iter().zip(&z.as_f32().unwrap()[8..]);
        assert!(last.into_iter().all(|(l, z)| l < z || *z == 0.0));
    }
}
