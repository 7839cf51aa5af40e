//! Timing scratch.
#![allow(clippy::print_stdout, missing_docs)]
use netproof_graph::*;
use netproof_tensor::Tensor;
use std::time::Instant;
fn t(name: &str, n: usize, mut f: impl FnMut()) { f(); f(); let mut v = vec![]; for _ in 0..n { let t = Instant::now(); f(); v.push(t.elapsed().as_secs_f64()*1e3);} v.sort_by(f64::total_cmp); println!("{name:40} {:.3} ms min {:.3}", v[n/2], v[0]); }
fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    for n in ["cnn", "resnet", "vit", "mobilenet"] {
        if !n.contains(&filter) && !filter.is_empty() { continue }
        let m = Model::load(std::path::Path::new(&format!("/work/shared/golden/fashion-{n}.onnx"))).unwrap();
        let (i, o) = (m.inputs()[0].name.clone(), m.outputs()[0].name.clone());
        let x = |b: usize| Tensor::f32(vec![b,1,28,28], (0..b*784).map(|i| (i as f32 * 0.37).sin()).collect()).unwrap();
        for b in [1, 64, 256] { let x = x(b); t(&format!("{n} inference {b}"), if b == 1 { 301 } else { 21 }, || { m.predict(&x).unwrap(); }); }
        for (b, tr, name) in [(256, None, "input gradient"), (64, Some(0), "training step")] {
            let x = x(b); let labels: Vec<usize> = (0..b).map(|i| i % 10).collect();
            t(&format!("{n} {name} {b}"), 15, || {
                let wrt = if tr.is_some() { Wrt::trainable() } else { Wrt::values([i.clone()]) };
                let r = Request { wrt, training: tr, ..Request::new(&i, x.clone()) };
                let run = m.forward(&r).unwrap(); let l = run.output(&o).unwrap();
                let (_, s) = cross_entropy(&l, &labels).unwrap(); run.backward(&[(&o, &s)]).unwrap();
            });
        }
    }
}
