//! Inference, input gradient and training step of whole networks: the shipped one, and the builders' of usual sizes.
//! `cargo bench -p netproof-graph --bench networks`

use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netproof_graph::builders::{self, Shortcut, VitOptions};
use netproof_graph::{Model, Request, Wrt, cross_entropy};
use netproof_tensor::Tensor;

/// Rows of inference and input gradients.
const EVALUATED: usize = 256;
/// Rows of a training step.
const TRAINED: usize = 64;

fn networks() -> Vec<(&'static str, Model, [usize; 3])> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fashion/fashion-cnn.onnx");
    let image = [1, 28, 28];
    let vit = VitOptions { image, patch: 7, classes: 10, width: 64, depth: 4, heads: 4, mlp: 128, seed: 0 };
    vec![
        ("fashion-cnn", Model::load(&shipped).expect("the repository ships it"), image),
        ("resnet-8", builders::resnet_cifar(8, Shortcut::default(), image, 10, 0).expect("a sound network"), image),
        ("mobilenet-v2", builders::mobilenet_v2([1, 28, 28], 10, 0.35, 0).expect("a sound network"), image),
        ("vit", builders::vit(&vit).expect("a sound network"), image),
    ]
}

fn batch(rows: usize, row: [usize; 3]) -> (Tensor, Vec<usize>) {
    let shape = [&[rows], &row[..]].concat();
    let values = (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.37).sin()).collect();
    (Tensor::f32(shape, values).expect("the shape has these elements"), (0..rows).map(|i| i % 10).collect())
}

fn step(model: &Model, x: &Tensor, labels: &[usize], training: Option<u64>, wrt: Wrt) {
    let (input, output) = (&model.inputs()[0].name, &model.outputs()[0].name);
    let request = Request { wrt, training, ..Request::new(input, x.clone()) };
    let run = model.forward(&request).expect("the network takes the batch");
    let logits = run.output(output).expect("an output was asked for");
    let (_, seed) = cross_entropy(&logits, labels).expect("labels are classes");
    run.backward(&[(output, &seed)]).expect("all operators differentiate");
}

fn benches(c: &mut Criterion) {
    for (name, model, row) in networks() {
        let mut group = c.benchmark_group(name);
        group.sample_size(10).throughput(Throughput::Elements(EVALUATED as u64));
        let (x, labels) = batch(EVALUATED, row);
        group.bench_function("inference", |b| b.iter(|| model.predict(&x).expect("the network takes the batch")));
        let input = model.inputs()[0].name.clone();
        group.bench_function("input gradient", |b| {
            b.iter(|| step(&model, &x, &labels, None, Wrt::values([input.clone()])));
        });
        let (x, labels) = batch(TRAINED, row);
        group.throughput(Throughput::Elements(TRAINED as u64));
        group.bench_function("training step", |b| b.iter(|| step(&model, &x, &labels, Some(0), Wrt::trainable())));
        group.finish();
    }
}

criterion_group!(all, benches);
criterion_main!(all);
