//! Published and closed values.

use netproof_graph::Attribute;

use super::Failure;
use super::networks::{Compared, about, ask, attributions, grouped, kinked, linear, must, network, tensor};

/// C1: values printed in the tests of Captum at faac0877, and those that follow from the weights.
pub(super) fn published() -> Result<String, Failure> {
    let mut c = Compared::default();
    let net = kinked()?;
    let x = about(tensor(&[1, 3], &[20.0, 50.0, 30.0])?)?;
    let small = about(tensor(&[1, 3], &[2.0, 10.0, 3.0])?)?;
    let pairs = grouped(x.clone(), &[0, 0, 1]);
    for id in ["exact-shapley", "kernel-shap"] {
        c.close(id, &attributions(id, &net, &x, "")?, &[76.6667, 196.6667, 116.6667], 1e-4)?;
        c.close(id, &attributions(id, &net, &small, "")?, &[7.0, 32.5, 10.5], 1e-4)?;
        // Each element of a group shows the group's value, or its share; the groups' sums are 275 and 115.
        let found = attributions(id, &net, &pairs, "")?;
        c.close(id, &found[2..], &[115.0], 1e-4)?;
    }
    let id = "feature-ablation";
    c.close(id, &attributions(id, &net, &x, "")?, &[80.0, 200.0, 120.0], 1e-4)?;
    c.close(
        "integrated-gradients",
        &attributions("integrated-gradients", &net, &x, "tolerance = 1e-5")?,
        &[78.0, 195.0, 117.0],
        1e-4,
    )?;
    // Shapley values of a linear network: weight times what differs from the baseline.
    let plain = linear(&[4.0, 4.0, 4.0], 0.0)?;
    let mut q = about(tensor(&[1, 3], &[20.0, 50.0, 30.0])?)?;
    q.baseline = tensor(&[1, 3], &[10.0, 20.0, 10.0])?;
    c.close("kernel-shap, linear", &attributions("kernel-shap", &plain, &q, "")?, &[40.0, 120.0, 80.0], 1e-4)?;
    // Implementation invariance, Sundararajan et al. 2017: two forms of one function.
    let one = network(&[2], 1, |n, x| {
        let both = n.op("Relu", &[x]);
        let w = n.linear(&both, [2, 1], &[1.0, -1.0], &[-1.0]);
        n.op("Relu", &[&w])
    })?;
    let other = network(&[2], 1, |n, x| {
        let shifted = n.linear(x, [2, 2], &[1.0, 0.0, 0.0, 1.0], &[-1.0, 0.0]);
        let both = n.op("Relu", &[&shifted]);
        let w = n.linear(&both, [2, 1], &[1.0, -1.0], &[0.0]);
        n.op("Relu", &[&w])
    })?;
    let at = about(tensor(&[1, 2], &[3.0, 1.0])?)?;
    for (what, net) in [("first form", &one), ("second form", &other)] {
        let found = attributions("integrated-gradients", net, &at, "tolerance = 1e-6\nmost_steps = 20000")?;
        c.close(what, &found, &[1.5, -0.5], 1e-3)?;
    }
    // DeepLIFT, rescale rule: 2 relu(a) + 2 relu(b - 1.5).
    let two = network(&[2], 1, |n, x| {
        let h = n.linear(x, [2, 2], &[1.0, 0.0, 0.0, 1.0], &[0.0, -1.5]);
        let r = n.op("Relu", &[&h]);
        n.linear(&r, [2, 1], &[2.0, 2.0], &[0.0])
    })?;
    let found = attributions("deep-lift", &two, &about(tensor(&[1, 2], &[1.0, 2.0])?)?, "")?;
    c.close("deep-lift", &found, &[2.0, 1.0], 1e-4)?;
    // DeepLIFT, RevealCancel: the minimum of two inputs as a − relu(a − b), Shrikumar et al. 2017, section 3.5.3.
    let minimum = network(&[2], 1, |n, x| {
        let h = n.linear(x, [2, 1], &[1.0, -1.0], &[0.0]);
        let r = n.op("Relu", &[&h]);
        let first = n.linear(x, [2, 1], &[1.0, 0.0], &[0.0]);
        n.op("Sub", &[&first, &r])
    })?;
    let found =
        attributions("deep-lift", &minimum, &about(tensor(&[1, 2], &[3.0, 1.0])?)?, "rule = \"reveal-cancel\"")?;
    c.close("deep-lift, reveal-cancel", &found, &[0.5, 0.5], 1e-4)?;
    // LRP ε of lin(2 s) → relu → lin(3 s).
    let relevance = network(&[3], 1, |n, x| {
        let h = n.linear(x, [3, 3], &[2.0; 9], &[0.0; 3]);
        let r = n.op("Relu", &[&h]);
        n.linear(&r, [3, 1], &[3.0; 3], &[0.0])
    })?;
    let found =
        attributions("lrp", &relevance, &about(tensor(&[1, 3], &[1.0, 2.0, 3.0])?)?, "composite = \"epsilon\"")?;
    c.close("lrp", &found, &[18.0, 36.0, 54.0], 1e-4)?;
    Ok(c.text())
}

/// C5.
pub(super) fn quadrature() -> Result<String, Failure> {
    // A constant gradient is integrated exactly by any rule whose weights sum to 1: the reference's trapezoid rule misses 2 %.
    let mut c = Compared::default();
    let net = linear(&[2.0, -3.0], 1.0)?;
    let q = about(tensor(&[1, 2], &[1.0, 2.0])?)?;
    for steps in [1, 2, 5, 50, 51] {
        let found = attributions("integrated-gradients", &net, &q, &format!("steps = {steps}"))?;
        c.close("integrated gradients of a constant gradient", &found, &[2.0, -6.0], 1e-6)?;
    }
    // A curve that stays at 1 has the area 1.
    let always = network(&[4], 1, |n, x| n.linear(x, [4, 1], &[0.0; 4], &[1.0]))?;
    let q = about(tensor(&[1, 4], &[1.0, 2.0, 3.0, 4.0])?)?;
    let area = super::evidence::measure("deletion", &always, &q, "input-x-gradient")?;
    c.close("area of a constant curve", &[area.values[0] as f32], &[1.0], 1e-6)?;
    Ok(c.text())
}

/// C6: a network of six inputs with interactions.
pub(super) fn shapley() -> Result<String, Failure> {
    let mut c = Compared::default();
    let net = network(&[6], 1, |n, x| {
        let weights: Vec<f32> = (0..48).map(|i| (i as f32 * 1.3).sin()).collect();
        let h = n.linear(x, [6, 8], &weights, &[0.1; 8]);
        let r = n.op("Tanh", &[&h]);
        let weights: Vec<f32> = (0..8).map(|i| (i as f32 * 0.7).cos()).collect();
        n.linear(&r, [8, 1], &weights, &[0.0])
    })?;
    let q = about(tensor(&[2, 6], &[0.5, -1.0, 2.0, 0.3, -0.7, 1.1, -0.2, 0.4, 0.9, -1.3, 0.8, 0.1])?)?;
    let exact = attributions("exact-shapley", &net, &q, "")?;
    c.close("kernel-shap on all coalitions", &attributions("kernel-shap", &net, &q, "")?, &exact, 1e-4)?;
    let sampled = ask("shapley-sampling", &net, &q, "permutations = 400")?;
    let found = sampled.attributions.as_f32().unwrap_or_default();
    let Some(errors) = sampled.standard_error.as_ref().and_then(|e| e.as_f32()) else {
        return Err(Failure::Wrong("sampling gives no standard errors".to_owned()));
    };
    let mut worst = 0f32;
    for ((f, e), s) in found.iter().zip(&exact).zip(errors) {
        let far = (f - e).abs() / s.max(1e-6);
        must(far <= 4.0, || format!("sampled {f}, exact {e}, standard error {s}"))?;
        worst = worst.max(far);
    }
    Ok(format!("{}; sampling at most {worst:.1} standard errors off", c.text()))
}

/// C9: Captum's convolutional network.
pub(super) fn grad_cam() -> Result<String, Failure> {
    let mut c = Compared::default();
    let net = network(&[1, 4, 4], 1, |n, x| {
        let w = n.stored(&[2, 1, 3, 3], &[1.0; 18]);
        let b = n.stored(&[2], &[-50.0, -75.0]);
        let h = n.file.node("Conv", "conv1", &[x, &w, &b], &[]);
        let r = n.file.node("Relu", "relu1", &[&h], &[]);
        let flat = n.with("Flatten", &[&r], &[("axis", Attribute::Int(1))]);
        let v = n.stored(&[8, 1], &[1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0]);
        n.op("MatMul", &[&flat, &v])
    })?;
    let x = about(tensor(&[1, 1, 4, 4], &(0..16).map(|i| i as f32).collect::<Vec<_>>())?)?;
    for (layer, wanted) in [("conv1", [11.25, 13.5, 20.25, 22.5]), ("relu1", [0.0, 4.0, 28.0, 32.5])] {
        let found = attributions("grad-cam", &net, &x, &format!("layer = \"{layer}\"\nrelu = false"))?;
        c.close(layer, &found, &wanted, 1e-4)?;
    }
    let mut said = Vec::new();
    let residual =
        netproof_graph::builders::resnet_cifar(8, netproof_graph::builders::Shortcut::Projection, [1, 16, 16], 3, 1)?;
    let transformer = netproof_graph::builders::vit(&netproof_graph::builders::VitOptions {
        image: [1, 16, 16],
        patch: 4,
        classes: 3,
        width: 8,
        depth: 2,
        heads: 2,
        mlp: 16,
        seed: 1,
    })?;
    for (name, net) in [("residual network", &residual), ("transformer", &transformer)] {
        let values: Vec<f32> = (0..256).map(|i| (i as f32 * 0.37).sin() * 0.5 + 0.5).collect();
        let e = ask("grad-cam", net, &about(tensor(&[1, 1, 16, 16], &values)?)?, "")?;
        let map = e.attributions.as_f32().unwrap_or_default();
        must(map.iter().all(|v| v.is_finite()), || format!("{name}: the map is not finite"))?;
        must(e.notes.iter().any(|n| n.contains(&e.value)), || format!("{name}: the layer is not said"))?;
        must(e.attributions.shape().len() >= 3, || format!("{name}: {:?} is no map", e.attributions.shape()))?;
        said.push(format!("{name} {}", e.value));
    }
    Ok(format!("{}; chosen: {}", c.text(), said.join(", ")))
}
