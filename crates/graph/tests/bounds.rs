#![allow(clippy::print_stdout, reason = "the figures are worth seeing")]
//! Bounds of real networks: points of the region lie within them, and they are those of the papers written out in Python.

use std::path::{Path, PathBuf};
use std::time::Instant;

use netproof_data::{Dataset, OpenOptions};
use netproof_graph::{Ascent, BoundMethod, BoundsRequest, Model, Norm, Region, Request, Rounding, Specification, Wrt};
use netproof_tensor::Tensor;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn array(file: &Path, name: &str) -> Option<Tensor> {
    let options = OpenOptions { features: Some(vec![name.to_owned()]), unlabelled: true, ..OpenOptions::default() };
    Some(Dataset::open(file.to_str()?, &options).ok()?.load().ok()?.features)
}

fn images(rows: usize) -> (Tensor, Vec<usize>) {
    let file = root().join("tests/golden/fashion-16.npz");
    let labels = array(&file, "labels").unwrap().into_f32().unwrap();
    let x = array(&file, "images").unwrap().reshape(vec![16, 1, 28, 28]).unwrap();
    (x.slice_rows(0, rows).unwrap(), labels.iter().take(rows).map(|&l| l as usize).collect())
}

fn moved(x: &Tensor, f: impl Fn(usize, f32) -> f32) -> Tensor {
    let values = x.as_f32().unwrap().iter().enumerate().map(|(i, &v)| f(i, v).clamp(0.0, 1.0)).collect();
    Tensor::f32(x.shape().to_vec(), values).unwrap()
}

/// Corners of the box, and where the gradient of each margin leads in a few steps.
fn attacked(model: &Model, x: &Tensor, labels: &[usize], epsilon: f32) -> Vec<Tensor> {
    let (input, output) = (&model.inputs()[0].name, &model.outputs()[0].name);
    let mut points = vec![moved(x, |_, v| v - epsilon), moved(x, |_, v| v + epsilon)];
    points.push(moved(x, |i, v| if i * 7919 % 13 < 6 { v + epsilon } else { v - epsilon }));
    points.push(moved(x, |i, v| v + epsilon * ((i * 31 % 101) as f32 / 50.0 - 1.0)));
    for target in 0..10 {
        let mut at = x.clone();
        for _ in 0..3 {
            let run = model
                .forward(&Request { wrt: Wrt::values([input.clone()]), ..Request::new(input, at.clone()) })
                .unwrap();
            let y = run.output(output).unwrap();
            let mut seed = vec![0.0; y.len()];
            for (row, &label) in labels.iter().enumerate() {
                seed[row * 10 + target] += 1.0;
                seed[row * 10 + label] -= 1.0;
            }
            let seed = Tensor::f32(y.shape().to_vec(), seed).unwrap();
            let g = run.backward(&[(output, &seed)]).unwrap().take(input).unwrap().into_f32().unwrap();
            let here = at.as_f32().unwrap().to_vec();
            at = moved(x, |i, v| if g[i] == 0.0 { here[i] } else { v + epsilon * g[i].signum() });
        }
        points.push(at);
    }
    points
}

fn sound(name: &str, model: &Model, rows: usize, epsilon: f32, methods: &[BoundMethod]) {
    let (x, labels) = images(rows);
    let region = Region::around(&x, Norm::Linf, &[f64::from(epsilon)], Some((0.0, 1.0))).unwrap();
    let answers: Vec<Tensor> =
        attacked(model, &x, &labels, epsilon).iter().map(|p| model.predict(p).unwrap()).collect();
    for &method in methods {
        let start = Instant::now();
        let asked = BoundsRequest::new(region.clone(), Specification::Margins(labels.clone()), method);
        let lower = model.bounds(&asked).unwrap().lower.into_f32().unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let mut nearest = f32::INFINITY;
        for y in &answers {
            let z = y.as_f32().unwrap();
            for (row, &label) in labels.iter().enumerate() {
                for j in (0..10).filter(|&j| j != label) {
                    let margin = z[row * 10 + label] - z[row * 10 + j];
                    let bound = lower[row * 10 + j];
                    assert!(bound <= margin, "{name} {method:?}: row {row}, class {j}: {margin} is below {bound}");
                    nearest = nearest.min(margin - bound);
                }
            }
        }
        let least = |v: &[f32]| v.chunks(10).filter(|r| r.iter().all(|&m| m > 0.0)).count();
        let mean: f64 = lower.iter().filter(|v| v.is_finite()).map(|&v| f64::from(v)).sum::<f64>() / (9 * rows) as f64;
        println!(
            "{name}, epsilon {epsilon}, {method:?}: {} of {rows} rows certified, mean margin {mean:.4}, nearest point {nearest:.4}, \
             {seconds:.2} s",
            least(&lower)
        );
    }
}

const CHEAP: [BoundMethod; 2] = [BoundMethod::Ibp, BoundMethod::CrownIbp];

#[test]
fn attacked_points_of_the_golden_networks_lie_within_the_bounds() {
    let golden = root().join("tests/golden");
    let cnn = Model::load(&root().join("examples/fashion/fashion-cnn.onnx")).unwrap();
    sound("cnn", &cnn, 16, 0.002, &CHEAP);
    sound("cnn", &cnn, 16, 0.05, &CHEAP);
    sound(
        "cnn",
        &cnn,
        2,
        0.01,
        &[BoundMethod::Ibp, BoundMethod::Crown, BoundMethod::AlphaCrown(Ascent { steps: 4, rate: 0.5 })],
    );
    let resnet = Model::load(&golden.join("fashion-resnet.onnx")).unwrap();
    sound("resnet", &resnet, 8, 0.002, &CHEAP);
    let mobilenet = Model::load(&golden.join("fashion-mobilenet.onnx")).unwrap();
    sound("mobilenet", &mobilenet, 8, 0.001, &CHEAP);
}

/// Values of `tests/bars/bounds_reference.py`, where they were made: `NETPROOF_BOUNDS` names the folder, else `.bars/bounds`.
#[test]
fn bounds_of_published_networks_are_those_written_out_in_float64() {
    let folder = std::env::var_os("NETPROOF_BOUNDS").map_or_else(|| root().join(".bars/bounds"), PathBuf::from);
    for name in ["mnist_a_adv", "kw_mnist", "mnist_cnn_small", "mnist_fc_3layer", "cifar_2c2f"] {
        let (network, values) = (folder.join(format!("{name}.onnx")), folder.join(format!("{name}.npz")));
        if !network.exists() || !values.exists() {
            continue;
        }
        let model = Model::load(&network).unwrap();
        let labels: Vec<usize> =
            array(&values, "labels").unwrap().into_f32().unwrap().iter().map(|&l| l as usize).collect();
        let x = array(&values, "x").unwrap();
        let shape: Vec<usize> =
            if name == "cifar_2c2f" { vec![labels.len(), 3, 32, 32] } else { vec![labels.len(), 1, 28, 28] };
        let x = x.reshape(shape).unwrap();
        for i in 0..2 {
            let epsilon = f64::from(array(&values, &format!("epsilon_{i}")).unwrap().as_f32().unwrap()[0]);
            for (key, method) in
                [("ibp", BoundMethod::Ibp), ("crown_ibp", BoundMethod::CrownIbp), ("crown", BoundMethod::Crown)]
            {
                let want = array(&values, &format!("{key}_{i}")).unwrap().into_f32().unwrap();
                let region = Region::around(&x, Norm::Linf, &[epsilon], None).unwrap();
                let outward = BoundsRequest::new(region, Specification::Margins(labels.clone()), method);
                let nearest = BoundsRequest { rounding: Rounding::Nearest, ..outward.clone() };
                let start = Instant::now();
                let got = model.bounds(&nearest).unwrap().lower.into_f32().unwrap();
                let seconds = start.elapsed().as_secs_f64();
                let sound = model.bounds(&outward).unwrap().lower.into_f32().unwrap();
                let finite = || got.iter().zip(&want).filter(|(g, _)| g.is_finite());
                let off = finite().fold(0.0f32, |m, (g, w)| m.max((g - w).abs() / (1.0 + w.abs())));
                let wide = sound.iter().zip(&got).filter(|(g, _)| g.is_finite()).fold(0.0f32, |m, (s, g)| m.max(g - s));
                let rows = |v: &[f32]| v.chunks(10).filter(|r| r.iter().all(|&m| m > 0.0)).count();
                println!(
                    "{name} {key} epsilon {epsilon:.4}: off by {off:.1e} (relative beyond 1), outward rounding gives away at most \
                     {wide:.1e}, {} of {} rows certified, {seconds:.2} s",
                    rows(&sound),
                    labels.len()
                );
                assert!(off < 1e-4, "{name} {key} {epsilon}: {off}");
                assert!(sound.iter().zip(&got).all(|(s, g)| s <= g), "{name} {key}: outward is not outside");
            }
        }
    }
}
