//! A batch whose rows are computed apart, in parts: what a part needs stays in the cache, and each core has its own.

use std::ops::Range;
use std::sync::Arc;

use netproof_tensor::Tensor;
use rayon::prelude::*;

use super::backward::{Gradients, no_seed};
use super::pass::Pass;
use super::{LARGE, Parameters, Request, Run};
use crate::error::GraphError;
use crate::kernels::alone;
use crate::model::{Model, Node, ValueId};
use crate::operator::Fact;
use crate::plan::Plan;
use crate::rows::Along;

/// Floats of the largest value of a part: what the second-level cache of one core holds.
const NEAR: usize = if cfg!(test) { 1 << 10 } else { 1 << 18 };

/// Operations from which a batch is divided.
const WORTH: u64 = if cfg!(test) { 1 << 10 } else { LARGE };

/// What is given to a run.
type Given = [(ValueId, Arc<Tensor>)];

/// Rows of a part, and how values depend on rows.
pub(crate) type Division = (usize, Arc<Vec<Along>>);

/// How a batch is divided.
#[derive(Debug)]
pub(super) struct Parts {
    count: usize,
    /// Rows of each part but the last.
    size: usize,
    along: Arc<Vec<Along>>,
    plan: Arc<Plan>,
}

impl Parts {
    /// `None` where the batch stays whole. The division depends on the shapes alone, and so do all bits of the results.
    pub(super) fn of(model: &Model, given: &Given, plan: &Arc<Plan>, request: &Request) -> Option<Self> {
        let may = request.overrides.is_empty() && model.device.is_cpu();
        let may = may && (request.training.is_none() || !model.nodes.iter().any(trains_otherwise));
        if !may || plan.work < WORTH {
            return None;
        }
        let parts = plan.parts.get_or_init(|| Self::divide(model, given, plan)).clone()?;
        let whole = |id: ValueId| matches!(parts.1[id], Along::Same | Along::Axis(0));
        let ports = model.outputs.iter().map(|p| &p.name).filter(|_| request.outputs.is_empty());
        let mut named = ports.chain(&request.outputs).chain(&request.taps).chain(&request.wrt.values);
        let fits = named.all(|name| model.id(name).is_ok_and(whole));
        let parameters = match &request.wrt.parameters {
            Parameters::Named(names) => names.iter().all(|n| model.id(n).is_ok_and(whole)),
            Parameters::None | Parameters::Trainable => true,
        };
        let count = rows(model, given)?;
        (fits && parameters).then(|| Self { count, size: parts.0, along: parts.1, plan: plan.clone() })
    }

    /// Rows of a part, and how values depend on rows.
    fn divide(model: &Model, given: &Given, plan: &Plan) -> Option<Division> {
        let count = rows(model, given)?;
        let made = model.nodes.iter().flat_map(|n| n.outputs.iter().flatten());
        let sizes: Vec<usize> = made.filter_map(|&id| plan.facts[id].as_ref()).map(Fact::count).collect();
        let largest = sizes.iter().max()?.div_ceil(count);
        // Parts are cut out of the inputs and put together to the outputs, so what lies between should be more.
        let outputs = model.outputs.iter().filter_map(|p| plan.facts[model.id(&p.name).ok()?].as_ref());
        let ends = given.iter().map(|(_, t)| t.len()).sum::<usize>() + outputs.map(Fact::count).sum::<usize>();
        if sizes.iter().sum::<usize>() < 4 * ends {
            return None;
        }
        // Weights are read for each part, so a part should have at least as much of its own.
        let weights: usize = model.parameters.values().map(|p| p.tensor.len()).sum();
        let least = NEAR.max(weights).div_ceil(largest.max(1));
        let parts = count / least;
        if parts < 2 {
            return None;
        }
        let size = count.div_ceil(parts.next_power_of_two());
        let shapes: Vec<_> = given.iter().map(|(id, t)| (*id, part_shape(model, *id, t, size))).collect();
        let part = model.plan(&shapes).ok()?;
        let inputs: Vec<ValueId> = given.iter().map(|g| g.0).filter(|id| !model.parameters.contains_key(id)).collect();
        let along = model.rows(&inputs, (count, plan), (size, &part))?;
        Some((size, Arc::new(along)))
    }

    fn ranges(&self) -> Vec<Range<usize>> {
        (0..self.count).step_by(self.size).map(|a| a..(a + self.size).min(self.count)).collect()
    }

    /// `work` for each part: on all cores, each part on one of them where there are enough.
    fn each<T: Send>(
        &self,
        work: impl Fn(usize, Range<usize>) -> Result<T, GraphError> + Sync + Send,
    ) -> Result<Vec<T>, GraphError> {
        let ranges = self.ranges();
        let enough = ranges.len() >= rayon::current_num_threads();
        let one = |(i, range): (usize, &Range<usize>)| {
            if enough { alone(|| work(i, range.clone())) } else { work(i, range.clone()) }
        };
        ranges.par_iter().with_max_len(1).enumerate().map(one).collect()
    }

    pub(super) fn run<'m>(self, model: &'m Model, given: &Given, request: &Request) -> Result<Run<'m>, GraphError> {
        let passes = self.each(|_, range| {
            let mut part = Vec::with_capacity(given.len());
            for (id, tensor) in given {
                let whole = model.parameters.contains_key(id);
                let own = if whole { tensor.clone() } else { Arc::new(tensor.slice_rows(range.start, range.end)?) };
                part.push((*id, own));
            }
            let shapes: Vec<_> = part.iter().map(|(id, t)| (*id, t.shape().to_vec())).collect();
            Pass::new(model, &part, model.plan(&shapes)?, request)
        })?;
        Ok(Run { passes, parts: Some(self) })
    }

    pub(super) fn output(&self, passes: &[Pass<'_>], name: &str) -> Result<Tensor, GraphError> {
        let first = passes[0].output(name)?;
        if self.along[passes[0].model.id(name)?] == Along::Same {
            return Ok(first);
        }
        let rest = passes[1..].iter().map(|p| p.output(name));
        let all = std::iter::once(Ok(first)).chain(rest).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::concat_rows(&all)?)
    }

    /// `back` for each part with its own seeds, put together.
    pub(super) fn backward(
        &self,
        passes: &[Pass<'_>],
        seeds: &[(&str, &Tensor)],
        back: impl Fn(usize, &[(&str, &Tensor)]) -> Result<Gradients, GraphError> + Sync + Send,
    ) -> Result<Gradients, GraphError> {
        let model = passes[0].model;
        for (name, seed) in seeds {
            let fact = self.plan.facts[model.id(name)?].as_ref();
            if let Some(wanted) = fact.map(|f| &f.shape).filter(|s| s[..] != *seed.shape() || seed.as_f32().is_none()) {
                return Err(no_seed(name, seed, wanted));
            }
        }
        let mut parts = self.each(|i, range| {
            let mut own = Vec::with_capacity(seeds.len());
            for (name, seed) in seeds {
                match self.along[model.id(name)?] {
                    Along::Axis(axis) => own.push((*name, entries(seed, axis, self.count, &range)?)),
                    // What is the same for all rows counts once.
                    Along::Same | Along::Varies if i == 0 => own.push((*name, (*seed).clone())),
                    Along::Same | Along::Varies => {}
                }
            }
            let own: Vec<(&str, &Tensor)> = own.iter().map(|(name, seed)| (*name, seed)).collect();
            back(i, &own)
        })?;
        let names: Vec<String> = parts.iter().flat_map(Gradients::names).map(str::to_owned).collect();
        let mut whole = Gradients::default();
        for name in names {
            if whole.get(&name).is_some() {
                continue;
            }
            let found: Vec<Tensor> = parts.iter_mut().filter_map(|p| p.take(&name)).collect();
            let gradient = match self.along[model.id(&name)?] {
                Along::Axis(_) => Tensor::concat_rows(&found)?,
                Along::Same | Along::Varies => sum(&found)?,
            };
            whole.put(name, gradient);
        }
        Ok(whole)
    }
}

/// Whether a node does something else in training: it looks at the whole batch, or draws for it.
fn trains_otherwise(node: &Node) -> bool {
    matches!(node.operator.as_str(), "BatchNormalization" | "Dropout")
}

/// Rows of the batch, at least 2, where all inputs have as many.
fn rows(model: &Model, given: &Given) -> Option<usize> {
    let mut inputs = given.iter().filter(|(id, _)| !model.parameters.contains_key(id)).map(|(_, t)| t);
    let count = *inputs.next()?.shape().first()?;
    (count >= 2 && inputs.all(|t| t.shape().first() == Some(&count))).then_some(count)
}

fn part_shape(model: &Model, id: ValueId, tensor: &Tensor, size: usize) -> Vec<usize> {
    let mut shape = tensor.shape().to_vec();
    if !model.parameters.contains_key(&id) {
        shape[0] = size;
    }
    shape
}

/// The entries of a float tensor along `axis` that belong to some of `count` rows.
fn entries(seed: &Tensor, axis: usize, count: usize, rows: &Range<usize>) -> Result<Tensor, GraphError> {
    if axis == 0 && seed.shape()[0] == count {
        return Ok(seed.slice_rows(rows.start, rows.end)?);
    }
    let mut shape = seed.shape().to_vec();
    let inner: usize = shape[axis + 1..].iter().product::<usize>() * (shape[axis] / count);
    shape[axis] = shape[axis] / count * rows.len();
    let values = seed.as_f32().unwrap_or_default();
    let part = values.chunks_exact(count * inner).flat_map(|v| &v[rows.start * inner..rows.end * inner]);
    Ok(Tensor::f32(shape, part.copied().collect())?)
}

/// The sum of float tensors of one shape, in their order.
fn sum(parts: &[Tensor]) -> Result<Tensor, GraphError> {
    let shape = parts.first().map(|p| p.shape().to_vec()).unwrap_or_default();
    let mut total = vec![0.0; shape.iter().product()];
    for part in parts {
        total.iter_mut().zip(part.as_f32().unwrap_or_default()).for_each(|(a, b)| *a += b);
    }
    Ok(Tensor::f32(shape, total)?)
}
#[cfg(test)]
mod tests {
    use netproof_tensor::{DType, Elements};

    use super::*;
    use crate::builders::{Activation, CnnOptions, Shortcut, VitOptions, cnn, mlp, mobilenet_v2, resnet_cifar, vit};
    use crate::{Attribute, Dim, FileBuilder, Wrt};

    fn values(shape: &[usize], seed: usize) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::f32(shape.to_vec(), (0..n).map(|i| ((i * 7 + seed) as f32 * 0.37).sin()).collect()).unwrap()
    }

    fn close(a: &Tensor, b: &Tensor, what: &str) {
        assert_eq!(a.shape(), b.shape(), "{what}");
        let (a, b) = (a.as_f32().unwrap(), b.as_f32().unwrap());
        let largest = b.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= 2e-5 * largest + 1e-7, "{what}: {a} {b}");
        }
    }

    /// Runs a batch in parts and whole, and compares outputs, taps and gradients; answers how many parts there were.
    fn compare(model: &Model, row: &[usize], count: usize, taps: &[&str]) -> usize {
        let shape: Vec<usize> = std::iter::once(count).chain(row.iter().copied()).collect();
        let x = values(&shape, 3);
        let (input, output) = (&model.inputs[0].name, &model.outputs[0].name);
        let request = Request {
            taps: taps.iter().map(|&t| t.to_owned()).collect(),
            wrt: Wrt { values: vec![input.clone()], parameters: Parameters::Trainable },
            ..Request::new(input, x.clone())
        };
        let run = model.forward(&request).unwrap();
        let id = model.id(input).unwrap();
        let plan = model.plan(&[(id, shape)]).unwrap();
        let whole = Pass::new(model, &[(id, Arc::new(x))], plan, &request).unwrap();
        for name in taps.iter().copied().chain([output.as_str()]) {
            close(&run.output(name).unwrap(), &whole.output(name).unwrap(), name);
        }
        let seed = values(whole.output(output).unwrap().shape(), 1);
        let seeds: Vec<(&str, &Tensor)> = vec![(output, &seed)];
        let (parts, whole) = (run.backward(&seeds).unwrap(), whole.backward(&seeds).unwrap());
        assert_eq!(parts.names().count(), whole.names().count());
        for name in whole.names() {
            close(parts.get(name).unwrap(), whole.get(name).unwrap(), name);
        }
        run.passes.len()
    }

    #[test]
    fn parts_answer_as_the_whole() {
        let image = [2, 12, 12];
        let mut small = CnnOptions::new(image, 4);
        small.channels = vec![8, 8];
        assert!(compare(&cnn(&small).unwrap(), &image, 61, &[]) > 1);
        assert!(compare(&mlp(&[7], &[64], 3, Activation::Relu, 1).unwrap(), &[7], 500, &[]) > 1);
        assert!(compare(&resnet_cifar(8, Shortcut::Projection, image, 4, 1).unwrap(), &image, 400, &[]) > 1);
        assert!(compare(&mobilenet_v2([2, 32, 32], 4, 0.1, 1).unwrap(), &[2, 32, 32], 300, &[]) > 1);
        let options = VitOptions { image, patch: 4, classes: 3, width: 16, depth: 1, heads: 2, mlp: 32, seed: 1 };
        assert!(compare(&vit(&options).unwrap(), &image, 300, &[]) > 1);
    }

    /// A network of the given nodes with input `x [n, 6, 4]` and output `y`.
    fn network(nodes: impl Fn(&mut FileBuilder, &str) -> String) -> Model {
        let mut file = FileBuilder::new("rows");
        let x = file.add_batch_input("x", &[6, 4]);
        let w = file.add_initializer("w", values(&[4, 4], 1));
        let y = file.node("MatMul", "product", &[&x, &w], &[]);
        let y = nodes(&mut file, &y);
        let y = file.node("Identity", "y", &[&y], &[]);
        file.output(&y, DType::F32, &[Dim::Any]);
        Model::from_file(file.build().unwrap()).unwrap()
    }

    fn ints(file: &mut FileBuilder, name: &str, values: &[i64]) -> String {
        file.add_initializer(name, Tensor::new(DType::I64, vec![values.len()], Elements::Int(values.to_vec())).unwrap())
    }

    const ROWS: usize = 512;

    #[test]
    fn rows_are_followed_through_axes_that_move_and_merge() {
        // As PyTorch exports attention: the batch is the second axis, then one with the heads.
        let model = network(|f, x| {
            let x = f.node("Transpose", "turned", &[x], &[("perm", Attribute::Ints(vec![1, 0, 2]))]);
            let merged = ints(f, "merged", &[6, -1, 2]);
            let x = f.node("Reshape", "heads", &[&x, &merged], &[]);
            let q = f.node("Transpose", "q", &[&x], &[("perm", Attribute::Ints(vec![1, 0, 2]))]);
            let k = f.node("Transpose", "k", &[&x], &[("perm", Attribute::Ints(vec![1, 2, 0]))]);
            let scores = f.node("MatMul", "scores", &[&q, &k], &[]);
            let weights = f.node("Softmax", "weights", &[&scores], &[("axis", Attribute::Int(-1))]);
            let y = f.node("MatMul", "mixed", &[&weights, &q], &[]);
            let y = f.node("Transpose", "back", &[&y], &[("perm", Attribute::Ints(vec![1, 0, 2]))]);
            let apart = ints(f, "apart", &[6, -1, 4]);
            let y = f.node("Reshape", "joined", &[&y, &apart], &[]);
            f.node("Transpose", "first", &[&y], &[("perm", Attribute::Ints(vec![1, 0, 2]))])
        });
        assert!(compare(&model, &[6, 4], ROWS, &["product"]) > 1);
        // A tap whose rows do not come first is not put together, so the batch stays whole.
        assert_eq!(compare(&model, &[6, 4], ROWS, &["scores", "turned"]), 1);
    }

    #[test]
    fn where_rows_meet_the_batch_stays_whole() {
        type Nodes = fn(&mut FileBuilder, &str) -> String;
        let meet: [(&str, Nodes); 9] = [
            ("mean", |f, x| {
                let mean = f.node("ReduceMean", "mean", &[x], &[("axes", Attribute::Ints(vec![0]))]);
                f.node("Sub", "centred", &[x, &mean], &[])
            }),
            ("softmax", |f, x| f.node("Softmax", "softmax", &[x], &[("axis", Attribute::Int(0))])),
            ("turned", |f, x| {
                let x = f.node("Flatten", "flat", &[x], &[]);
                let t = f.node("Transpose", "turned", &[&x], &[]);
                f.node("MatMul", "all", &[&x, &t], &[])
            }),
            ("gemm", |f, x| {
                let x = f.node("Flatten", "flat", &[x], &[]);
                f.node("Gemm", "gemm", &[&x, &x], &[("transA", Attribute::Int(1))])
            }),
            ("reversed", |f, x| {
                let all = [("a", -1), ("b", -1000), ("c", 0), ("d", -1)].map(|(n, v)| ints(f, n, &[v]));
                f.node("Slice", "reversed", &[x, &all[0], &all[1], &all[2], &all[3]], &[])
            }),
            ("first", |f, x| {
                let zero = ints(f, "zero", &[0]);
                let first = f.node("Gather", "first", &[x, &zero], &[("axis", Attribute::Int(0))]);
                f.node("Add", "added", &[x, &first], &[])
            }),
            ("joined", |f, x| f.node("Concat", "joined", &[x, x], &[("axis", Attribute::Int(0))])),
            ("mixed", |f, x| {
                let shape = ints(f, "shape", &[4, -1]);
                let x = f.node("Reshape", "mixed", &[x, &shape], &[]);
                f.node("Softmax", "softmax", &[&x], &[("axis", Attribute::Int(1))])
            }),
            ("counted", |f, x| {
                let shape = f.node("Shape", "shape", &[x], &[]);
                let zero = ints(f, "zero", &[0]);
                let count = f.node("Gather", "count", &[&shape, &zero], &[]);
                let count = f.node("Cast", "number", &[&count], &[("to", Attribute::Int(1))]);
                f.node("Div", "divided", &[x, &count], &[])
            }),
        ];
        for (name, nodes) in meet {
            assert_eq!(compare(&network(nodes), &[6, 4], ROWS, &[]), 1, "{name}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let model = cnn(&CnnOptions::new([1, 12, 12], 4)).unwrap();
        let x = values(&[300, 1, 12, 12], 1);
        let bits = |t: &Tensor| t.as_f32().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let answer = || {
            let wrt = Wrt { values: vec![model.inputs[0].name.clone()], parameters: Parameters::Trainable };
            let run = model.forward(&Request { wrt, ..Request::new(&model.inputs[0].name, x.clone()) }).unwrap();
            assert!(run.passes.len() > 1);
            let logits = run.output(&model.outputs[0].name).unwrap();
            let gradients = run.backward(&[(&model.outputs[0].name, &logits)]).unwrap();
            let mut names: Vec<&str> = gradients.names().collect();
            names.sort_unstable();
            names.iter().map(|n| bits(gradients.get(n).unwrap())).chain([bits(&logits)]).collect::<Vec<_>>()
        };
        let own = answer();
        for threads in [1, 2, 3, 40] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(answer) == own, "{threads} threads");
        }
    }

    #[test]
    fn a_seed_that_does_not_fit_is_refused() {
        let model = mlp(&[7], &[64], 3, Activation::Relu, 1).unwrap();
        let name = &model.inputs[0].name;
        let wrt = Wrt::values([name.clone()]);
        let run = model.forward(&Request { wrt, ..Request::new(name, values(&[500, 7], 1)) }).unwrap();
        assert!(run.passes.len() > 1);
        let error = run.backward(&[(&model.outputs[0].name, &values(&[499, 3], 1))]).unwrap_err().to_string();
        assert!(error.contains("[499, 3]") && error.contains("[500, 3]"), "{error}");
    }
}
