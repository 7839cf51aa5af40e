//! The rows of the table: our side as a closure, the other side as a job for `reference.py`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use netproof_graph::{Attribute, Dim, FileBuilder, Model, Parameters, Request, Wrt, cross_entropy};
use netproof_tensor::{DType, Tensor};
use serde_json::{Value, json};

use crate::reference::Reference;

/// How a row is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    /// At most this ratio.
    Ratio(f64),
    /// One of the golden networks against PyTorch.
    Torch,
    /// One of them against onnxruntime.
    OnnxRuntime,
}

impl Bar {
    /// The largest ratio of a row by itself.
    pub(crate) fn limit(self) -> Option<f64> {
        match self {
            Self::Ratio(limit) => Some(limit),
            Self::Torch => Some(1.1),
            Self::OnnxRuntime => None,
        }
    }
}

pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) bar: Bar,
    pub(crate) run: Box<dyn FnMut()>,
    pub(crate) reference: Value,
    /// What the other side's first row must be, where it is compared.
    pub(crate) answer: Option<Vec<f32>>,
}

/// Numbers between -1 and 1.
fn values(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::f32(shape.to_vec(), (0..n).map(|i| (i as f32 * 0.37).sin()).collect()).expect("as many as the shape has")
}

/// A network of what `make` adds behind the input `x`.
fn small(row: &[usize], make: impl FnOnce(&mut FileBuilder, &str) -> String) -> Model {
    let mut file = FileBuilder::new("bench");
    let x = file.add_batch_input("x", row);
    let y = make(&mut file, &x);
    file.output(&y, DType::F32, &vec![Dim::Any; row.len() + 1]);
    Model::from_file(file.build().expect("a sound graph")).expect("known operators")
}

/// What is computed: values, or values and gradients of ones.
fn worker(model: Model, x: Tensor, wrt: Wrt) -> Box<dyn FnMut()> {
    let output = model.outputs()[0].name.clone();
    let mut seed = None;
    Box::new(move || {
        let request = Request { wrt: wrt.clone(), ..Request::new("x", x.clone()) };
        let run = model.forward(&request).expect("the network takes the batch");
        let y = run.output(&output).expect("an output was asked for");
        if wrt != Wrt::default() {
            let ones = || Tensor::f32(y.shape().to_vec(), vec![1.0; y.len()]).expect("the output's shape");
            let seed = seed.get_or_insert_with(ones);
            run.backward(&[(&output, seed)]).expect("all operators differentiate");
        }
    })
}

/// Batch, channels in and out, groups, size, kernel, stride, padding, dilation.
const CONVOLUTIONS: &[(&str, [usize; 9], f64)] = &[
    ("32x64x32²", [32, 64, 64, 1, 32, 3, 1, 1, 1], 1.0),
    ("32x128x16²", [32, 128, 128, 1, 16, 3, 1, 1, 1], 1.0),
    ("32x256x8²", [32, 256, 256, 1, 8, 3, 1, 1, 1], 1.0),
    ("32x512x4²", [32, 512, 512, 1, 4, 3, 1, 1, 1], 1.0),
    ("5x5 32x64x32²", [32, 64, 64, 1, 32, 5, 1, 2, 1], 1.0),
    ("stride 2 32x64x32²", [32, 64, 64, 1, 32, 3, 2, 1, 1], 1.0),
    ("dilation 2 32x64x32²", [32, 64, 64, 1, 32, 3, 1, 2, 2], 1.0),
    ("groups 4 32x64x32²", [32, 64, 64, 4, 32, 3, 1, 1, 1], 1.0),
    ("depthwise 8x128x56²", [8, 128, 128, 128, 56, 3, 1, 1, 1], 0.2),
];

fn convolutions() -> impl Iterator<Item = Job> {
    let what = ["forward", "input", "weight"];
    CONVOLUTIONS.iter().flat_map(move |&(name, sizes, bar)| {
        what.into_iter().map(move |what| {
            let [batch, inside, outside, groups, size, kernel, stride, padding, dilation] = sizes;
            let model = small(&[inside, size, size], |file, x| {
                let weight = values(&[outside, inside / groups, kernel, kernel]);
                let w = file.add_initializer("w", weight);
                let ints = |v: usize, n| Attribute::Ints(vec![v as i64; n]);
                let attributes = [
                    ("group", Attribute::Int(groups as i64)),
                    ("strides", ints(stride, 2)),
                    ("dilations", ints(dilation, 2)),
                    ("pads", ints(padding, 4)),
                ];
                file.node("Conv", "conv", &[x, &w], &attributes)
            });
            let wrt = match what {
                "forward" => Wrt::default(),
                "input" => Wrt::values(["x"]),
                _ => Wrt::trainable(),
            };
            Job {
                name: format!("conv {name} {what}"),
                bar: Bar::Ratio(bar),
                run: worker(model, values(&[batch, inside, size, size]), wrt),
                reference: json!({"job": "convolution", "sizes": sizes, "what": what}),
                answer: None,
            }
        })
    })
}

fn scalar(file: &mut FileBuilder, name: &str, value: f32) -> String {
    file.add_initializer(name, Tensor::f32(Vec::new(), vec![value]).expect("one number"))
}

fn elementwise(name: &'static str, bar: f64, make: impl FnOnce(&mut FileBuilder, &str) -> String) -> Job {
    let rows = if name == "matmul" { 1024 } else { 4096 };
    Job {
        name: format!("{name} {rows}x1024"),
        bar: Bar::Ratio(bar),
        run: worker(small(&[1024], make), values(&[rows, 1024]), Wrt::default()),
        reference: json!({"job": "elementwise", "what": name}),
        answer: None,
    }
}

fn elementwise_all() -> [Job; 5] {
    [
        elementwise("matmul", 1.0, |file, x| {
            let w = file.add_initializer("w", values(&[1024, 1024]));
            file.node("MatMul", "y", &[x, &w], &[])
        }),
        elementwise("softmax", 1.2, |file, x| file.node("Softmax", "y", &[x], &[])),
        elementwise("layer norm", 1.2, |file, x| {
            let (w, b) = (file.add_initializer("w", values(&[1024])), file.add_initializer("b", values(&[1024])));
            file.node("LayerNormalization", "y", &[x, &w, &b], &[])
        }),
        elementwise("gelu", 1.2, |file, x| {
            let root = scalar(file, "root", std::f32::consts::SQRT_2);
            let (one, half) = (scalar(file, "one", 1.0), scalar(file, "half", 0.5));
            let scaled = file.node("Div", "scaled", &[x, &root], &[]);
            let erf = file.node("Erf", "erf", &[&scaled], &[]);
            let sum = file.node("Add", "sum", &[&erf, &one], &[]);
            let product = file.node("Mul", "product", &[x, &sum], &[]);
            file.node("Mul", "y", &[&product, &half], &[])
        }),
        elementwise("relu + add", 1.2, |file, x| {
            let one = scalar(file, "one", 1.0);
            let sum = file.node("Add", "sum", &[x, &one], &[]);
            file.node("Relu", "y", &[&sum], &[])
        }),
    ]
}

/// A layer by itself; the way back is with the gradients of all that it takes.
fn layers() -> impl Iterator<Item = Job> {
    let job = |what: &'static str, backward: bool, model: &Rc<Model>, inputs: Vec<(String, Tensor)>| {
        let way = if backward { "and back" } else { "forward" };
        let values = inputs.iter().map(|(name, _)| name.clone()).filter(|_| backward).collect();
        let parameters = if backward { Parameters::Trainable } else { Parameters::None };
        let training = (what == "batch norm").then_some(0);
        let request = Request { inputs, wrt: Wrt { values, parameters }, training, ..Request::default() };
        let (model, mut seed) = (model.clone(), None);
        let run = move || {
            let run = model.forward(&request).expect("the layer takes the batch");
            let y = run.output("y").expect("an output was asked for");
            if backward {
                let ones = || Tensor::f32(y.shape().to_vec(), vec![1.0; y.len()]).expect("the output's shape");
                let seed = seed.get_or_insert_with(ones);
                run.backward(&[("y", seed)]).expect("all operators differentiate");
            }
        };
        let reference = json!({"job": "layer", "what": what, "backward": backward});
        Job { name: format!("{what} {way}"), bar: Bar::Ratio(1.2), run: Box::new(run), reference, answer: None }
    };
    let line = |file: &mut FileBuilder, name: &str, n: usize| file.add_initializer(name, values(&[n]));
    let batch_norm = small(&[64, 32, 32], |file, x| {
        let (w, b, m) = (line(file, "w", 64), line(file, "b", 64), line(file, "m", 64));
        let v = file.add_initializer("v", Tensor::f32(vec![64], vec![1.0; 64]).expect("64 ones"));
        file.node("BatchNormalization", "y", &[x, &w, &b, &m, &v], &[])
    });
    let layer_norm = small(&[1024], |file, x| {
        let (w, b) = (line(file, "w", 1024), line(file, "b", 1024));
        file.node("LayerNormalization", "y", &[x, &w, &b], &[])
    });
    let attention = small(&[8, 197, 64], |file, q| {
        let (k, v) = (file.add_batch_input("k", &[8, 197, 64]), file.add_batch_input("v", &[8, 197, 64]));
        let root = scalar(file, "root", 8.0);
        let turned = file.node("Transpose", "t", &[&k], &[("perm", Attribute::Ints(vec![0, 1, 3, 2]))]);
        let scores = file.node("MatMul", "scores", &[q, &turned], &[]);
        let scaled = file.node("Div", "scaled", &[&scores, &root], &[]);
        let p = file.node("Softmax", "p", &[&scaled], &[]);
        file.node("MatMul", "y", &[&p, &v], &[])
    });
    let given = |names: &[&str], shape: &[usize]| -> Vec<(String, Tensor)> {
        names.iter().map(|n| ((*n).to_owned(), values(shape))).collect()
    };
    let all: [(&'static str, Model, Vec<(String, Tensor)>); 3] = [
        ("batch norm", batch_norm, given(&["x"], &[64, 64, 32, 32])),
        ("layer norm", layer_norm, given(&["x"], &[4096, 1024])),
        ("attention", attention, given(&["x", "k", "v"], &[16, 8, 197, 64])),
    ];
    all.into_iter().flat_map(move |(what, model, inputs)| {
        let model = Rc::new(model);
        // Layer norm forward is among the loops over elements.
        let ways: &[bool] = if what == "layer norm" { &[true] } else { &[false, true] };
        ways.iter().map(|&backward| job(what, backward, &model, inputs.clone())).collect::<Vec<_>>()
    })
}

fn sums() -> impl Iterator<Item = Job> {
    let all: [(&str, Vec<usize>, &[i64]); 3] = [
        ("sum over rows 65536x64", vec![65536, 64], &[0]),
        ("sum over columns 65536x64", vec![65536, 64], &[1]),
        ("sum per channel 64x64x32²", vec![64, 64, 32, 32], &[0, 2, 3]),
    ];
    all.into_iter().map(|(name, shape, axes)| {
        let model = small(&shape[1..], |file, x| {
            let list = Tensor::i64(vec![axes.len()], axes.to_vec()).expect("as many as there are");
            let list = file.add_initializer("axes", list);
            file.node("ReduceSum", "y", &[x, &list], &[("keepdims", Attribute::Int(1))])
        });
        Job {
            name: name.to_owned(),
            bar: Bar::Ratio(1.2),
            run: worker(model, values(&shape), Wrt::default()),
            reference: json!({"job": "sums", "shape": shape, "axes": axes}),
            answer: None,
        }
    })
}

/// Inference, the gradient of the input, or a training step with cross-entropy.
fn step(model: &Model, x: &Tensor, what: &str) {
    let (input, output) = (&model.inputs()[0].name, &model.outputs()[0].name);
    let (wrt, training) = match what {
        "inference" => (Wrt::default(), None),
        "input" => (Wrt::values([input.clone()]), None),
        _ => (Wrt::trainable(), Some(0)),
    };
    let request = Request { wrt, training, ..Request::new(input, x.clone()) };
    let run = model.forward(&request).expect("the network takes the batch");
    let logits = run.output(output).expect("an output was asked for");
    if what != "inference" {
        let labels: Vec<usize> = (0..x.rows()).map(|i| i % 10).collect();
        let (_, seed) = cross_entropy(&logits, &labels).expect("labels are classes");
        run.backward(&[(output, &seed)]).expect("all operators differentiate");
    }
}

/// Weights of a size that training begins with: sums that grow from layer to layer end in gradients that are too small for
/// normal numbers, with which all machines are slow.
fn weights(shape: &[usize]) -> Tensor {
    let numbers = values(shape).into_f32().expect("floats").into_iter().map(|v| v * 0.05).collect();
    Tensor::f32(shape.to_vec(), numbers).expect("as many as before")
}

fn conv(file: &mut FileBuilder, x: &str, weight: [usize; 4], stride: i64, padding: i64, biased: bool) -> String {
    let name = format!("conv{}", weight[0] * 1000 + weight[1]);
    let w = file.add_initializer(&format!("{name}.weight"), weights(&weight));
    let b = file.add_initializer(&format!("{name}.bias"), weights(&weight[..1]));
    let attributes = [("strides", Attribute::Ints(vec![stride; 2])), ("pads", Attribute::Ints(vec![padding; 4]))];
    let inputs: &[&str] = if biased { &[x, &w, &b] } else { &[x, &w] };
    let y = file.node("Conv", &name, inputs, &attributes);
    file.node("Relu", &format!("{name}.relu"), &[&y], &[])
}

fn linear(file: &mut FileBuilder, name: &str, x: &str, sizes: [usize; 2]) -> String {
    let w = file.add_initializer(&format!("{name}.weight"), weights(&sizes));
    let b = file.add_initializer(&format!("{name}.bias"), weights(&sizes[..1]));
    file.node("Gemm", name, &[x, &w, &b], &[("transB", Attribute::Int(1))])
}

/// conv 32 – conv 64 – pool – fully connected, 28², batch 256; and six convolutions, 32², batch 64.
fn probes() -> impl Iterator<Item = Job> {
    let network = || {
        small(&[1, 28, 28], |file, x| {
            let y = conv(file, x, [32, 1, 3, 3], 1, 0, true);
            let y = conv(file, &y, [64, 32, 3, 3], 1, 0, true);
            let halves = || Attribute::Ints(vec![2, 2]);
            let y = file.node("MaxPool", "pool", &[&y], &[("kernel_shape", halves()), ("strides", halves())]);
            let y = file.node("Flatten", "flat", &[&y], &[]);
            let y = linear(file, "fc1", &y, [128, 9216]);
            let y = file.node("Relu", "relu", &[&y], &[]);
            linear(file, "fc2", &y, [10, 128])
        })
    };
    let stack = small(&[3, 32, 32], |file, x| {
        let mut y = x.to_owned();
        for (from, to, stride) in [(3, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)] {
            y = conv(file, &y, [to, from, 3, 3], stride, 1, false);
        }
        let y = file.node("GlobalAveragePool", "mean", &[&y], &[]);
        file.node("Flatten", "flat", &[&y], &[])
    });
    let job = |name: String, bar, model: Model, x: Tensor, kind: &str, what: &'static str| Job {
        name,
        bar: Bar::Ratio(bar),
        run: Box::new(move || step(&model, &x, what)),
        reference: json!({"job": kind, "what": what}),
        answer: None,
    };
    let small_ones = ["inference", "training", "input"].map(|what| {
        job(format!("conv32-conv64 network 256 {what}"), 0.6, network(), values(&[256, 1, 28, 28]), "probe", what)
    });
    let stack = job("six convolutions 64 training".into(), 1.0, stack, values(&[64, 3, 32, 32]), "stack", "training");
    small_ones.into_iter().chain([stack])
}

/// The golden networks that are there; one ships with the repository.
fn networks() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let name = |kind: &str| format!("fashion-{kind}.onnx");
    let places =
        |kind: &str| [root.join("../shared/golden").join(name(kind)), root.join("examples/fashion").join(name(kind))];
    let found = |kind: &str| places(kind).into_iter().find(|p| p.exists()).map(|p| (format!("fashion-{kind}"), p));
    ["cnn", "resnet", "vit", "mobilenet"].into_iter().filter_map(found).collect()
}

fn first_row(model: &Model, x: &Tensor) -> Vec<f32> {
    let y = model.predict(x).expect("the network takes the batch").slice_rows(0, 1).expect("the batch has rows");
    y.into_f32().expect("logits are floats")
}

fn golden() -> impl Iterator<Item = Job> {
    networks().into_iter().flat_map(|(name, path)| {
        let make = |what: &'static str, batch: usize, bar: Bar| {
            let (model, x) = (Model::load(&path).expect("a golden network"), values(&[batch, 1, 28, 28]));
            let (run, text) = match bar {
                Bar::OnnxRuntime => ("inference", format!("{name} inference {batch}, onnxruntime")),
                _ => (what, format!("{name} {what} {batch}")),
            };
            let compares = matches!(what, "inference" | "onnxruntime");
            let answer = compares.then(|| first_row(&model, &x));
            let kind = if bar == Bar::OnnxRuntime { "onnxruntime" } else { "network" };
            Job {
                name: text,
                bar,
                run: Box::new(move || step(&model, &x, run)),
                reference: json!({"job": kind, "path": path, "batch": batch, "what": what}),
                answer,
            }
        };
        [
            make("inference", 256, Bar::Torch),
            make("input", 256, Bar::Torch),
            make("training", 64, Bar::Torch),
            make("onnxruntime", 1, Bar::OnnxRuntime),
            make("onnxruntime", 64, Bar::OnnxRuntime),
            make("onnxruntime", 256, Bar::OnnxRuntime),
        ]
    })
}

pub(crate) fn all() -> Vec<Job> {
    convolutions().chain(elementwise_all()).chain(layers()).chain(sums()).chain(probes()).chain(golden()).collect()
}

/// Peak memory of this process after some steps, in MiB.
pub(crate) fn peak(path: &str, what: &str, batch: usize) -> f64 {
    let model = Model::load(Path::new(path)).expect("a golden network");
    let x = values(&[batch, 1, 28, 28]);
    (0..3).for_each(|_| step(&model, &x, what));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
    kib.map_or(f64::NAN, |k| k / 1024.0)
}

/// Peak memory beside PyTorch's, each in a process of its own. Theirs has the libraries in it.
pub(crate) fn peaks(reference: Option<&mut Reference>) {
    let has = reference.is_some();
    for (name, path) in networks() {
        for (what, batch) in [("inference", 256), ("training", 64)] {
            let own = std::env::current_exe().and_then(|exe| {
                Command::new(exe).args(["peak", &path.display().to_string(), what, &batch.to_string()]).output()
            });
            let ours: f64 =
                own.ok().and_then(|o| String::from_utf8_lossy(&o.stdout).trim().parse().ok()).unwrap_or(f64::NAN);
            let job = json!({"job": "network", "path": path, "batch": batch, "what": what});
            let theirs = has.then(Reference::start).flatten().and_then(|mut r| r.ask(&job, 3).ok());
            let theirs = theirs.and_then(|reply| reply["peak_mib"].as_f64());
            let text = theirs
                .map_or(String::new(), |t| format!(", PyTorch {t:.0} MiB with its libraries, ratio {:.2}", ours / t));
            println!("peak memory {name} {what} {batch}: {ours:.0} MiB{text}");
        }
    }
}
