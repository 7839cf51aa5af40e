//! Einstein summation: any number of operands, named axes, diagonals and broadcasting.

use std::collections::BTreeMap;

use netproof_tensor::{DType, Elements, Tensor};

use crate::attributes::Attributes;
use crate::error::{OpResult, invalid, unsupported};
use crate::operator::{Args, Context, Entry, Fact, Operator, Value, checked_shape, one};
use crate::real::Real;

pub(super) const ENTRIES: &[Entry] = &[Entry { name: "Einsum", build: Einsum::build }];

/// The name of an axis: a letter, or an axis under the ellipsis counted from the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Broadcast(usize),
    Letter(char),
}

/// Names of a term's axes, with the place of its ellipsis.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    before: Vec<char>,
    /// Letters behind the ellipsis, where there is one.
    behind: Option<Vec<char>>,
}

impl Term {
    fn parse(text: &str) -> OpResult<Self> {
        let letters = |text: &str| -> OpResult<Vec<char>> {
            if let Some(c) = text.chars().find(|c| !c.is_ascii_alphabetic()) {
                invalid!("attribute `equation`: `{c}` in term `{text}` is not a letter or `...`");
            }
            Ok(text.chars().collect())
        };
        Ok(match text.split_once("...") {
            None => Self { before: letters(text)?, behind: None },
            Some((before, behind)) => Self { before: letters(before)?, behind: Some(letters(behind)?) },
        })
    }

    fn letters(&self) -> impl Iterator<Item = char> {
        self.before.iter().chain(self.behind.iter().flatten()).copied()
    }

    /// Labels where the ellipsis stands for `count` axes.
    fn labels(&self, count: usize) -> Vec<Label> {
        let mut labels: Vec<Label> = self.before.iter().map(|&c| Label::Letter(c)).collect();
        if let Some(behind) = &self.behind {
            labels.extend((0..count).rev().map(Label::Broadcast));
            labels.extend(behind.iter().map(|&c| Label::Letter(c)));
        }
        labels
    }
}

struct Einsum {
    inputs: Vec<Term>,
    output: Option<Term>,
}

type Sizes = BTreeMap<Label, usize>;

/// The equation for given shapes.
struct Equation {
    /// Labels of the operands' axes; a label may stand twice.
    operands: Vec<Vec<Label>>,
    output: Vec<Label>,
    sizes: Sizes,
}

impl Einsum {
    fn build(a: &Attributes<'_>) -> OpResult<Box<dyn Operator>> {
        let text: String = a.text("equation", "")?.split_whitespace().collect();
        let (left, right) = match text.split_once("->") {
            Some((l, r)) => (l, Some(r)),
            None => (text.as_str(), None),
        };
        let inputs = left.split(',').map(Term::parse).collect::<OpResult<Vec<_>>>()?;
        let output = right.map(Term::parse).transpose()?;
        if let Some(output) = &output {
            let letters: Vec<char> = output.letters().collect();
            for (i, c) in letters.iter().enumerate() {
                if letters[..i].contains(c) {
                    invalid!("attribute `equation`: the output has `{c}` twice");
                }
                if !inputs.iter().any(|t| t.letters().any(|l| l == *c)) {
                    invalid!("attribute `equation`: `{c}` of the output is in no input");
                }
            }
        }
        Ok(Box::new(Self { inputs, output }))
    }

    fn equation(&self, shapes: &[&[usize]]) -> OpResult<Equation> {
        if shapes.len() != self.inputs.len() {
            invalid!("has {} inputs, the equation has {}", shapes.len(), self.inputs.len());
        }
        let mut operands = Vec::new();
        let mut sizes = Sizes::new();
        let mut broadcast = 0;
        for (i, (term, shape)) in self.inputs.iter().zip(shapes).enumerate() {
            let letters = term.letters().count();
            if letters > shape.len() || (letters < shape.len() && term.behind.is_none()) {
                invalid!("input {i} of shape {shape:?} does not have the {letters} axes that the equation names");
            }
            let under = shape.len() - letters;
            broadcast = broadcast.max(under);
            let labels = term.labels(under);
            for (axis, (&label, &size)) in labels.iter().zip(*shape).enumerate() {
                if labels[..axis].iter().zip(*shape).any(|(&l, &s)| l == label && s != size) {
                    invalid!("input {i} of shape {shape:?} has no diagonal over the axes of one letter");
                }
                let known = sizes.entry(label).or_insert(size);
                if *known == 1 {
                    *known = size;
                } else if size != 1 && size != *known {
                    invalid!(
                        "input {i} of shape {shape:?}: an axis has {size} elements where another input has {known}"
                    );
                }
            }
            operands.push(labels);
        }
        let output = match &self.output {
            Some(term) => {
                if broadcast > 0 && term.behind.is_none() {
                    invalid!("attribute `equation`: the output needs `...`, since the inputs have axes under theirs");
                }
                term.labels(broadcast)
            }
            None => {
                let count = |c: char| self.inputs.iter().flat_map(Term::letters).filter(|&l| l == c).count();
                let once = sizes.keys().filter(|l| matches!(l, Label::Letter(c) if count(*c) == 1));
                (0..broadcast).rev().map(Label::Broadcast).chain(once.copied()).collect()
            }
        };
        Ok(Equation { operands, output, sizes })
    }
}

/// A product of two operands, all axes sorted into four groups.
struct Pair {
    batch: Vec<Label>,
    left: Vec<Label>,
    summed: Vec<Label>,
    right: Vec<Label>,
}

impl Pair {
    fn new(a: &[Label], b: &[Label], needed: impl Fn(&Label) -> bool) -> Self {
        let both = |keep: bool| a.iter().filter(|l| b.contains(l) && needed(l) == keep).copied().collect();
        let only = |x: &[Label], y: &[Label]| x.iter().filter(|l| !y.contains(l)).copied().collect();
        Self { batch: both(true), left: only(a, b), summed: both(false), right: only(b, a) }
    }

    fn result(&self) -> Vec<Label> {
        [&self.batch[..], &self.left, &self.right].concat()
    }
}

fn total(labels: &[Label], sizes: &Sizes) -> usize {
    labels.iter().fold(1, |n, l| n.saturating_mul(sizes.get(l).copied().unwrap_or(1)))
}

impl Equation {
    fn shape(&self, labels: &[Label]) -> Vec<usize> {
        labels.iter().map(|l| self.sizes.get(l).copied().unwrap_or(1)).collect()
    }

    fn checked(&self, labels: &[Label]) -> OpResult<Vec<usize>> {
        let shape = self.shape(labels);
        checked_shape(&shape.iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    }

    /// Whether the output is a sum of nothing.
    fn is_empty(&self) -> bool {
        self.sizes.values().any(|&s| s == 0)
    }

    /// Labels of an operand after diagonals, without axes of size 1 that broadcast, and without axes that nothing else
    /// needs: those are summed at once.
    fn alone(&self, operand: usize, shapes: &[&[usize]]) -> Vec<Label> {
        let whole = |i: usize, label: Label| {
            self.operands[i].iter().zip(shapes[i]).any(|(&l, &s)| l == label && s == self.sizes[&label])
        };
        let mut labels = Vec::new();
        for &label in &self.operands[operand] {
            let elsewhere = (0..shapes.len()).any(|i| i != operand && whole(i, label));
            let needed = elsewhere || self.output.contains(&label);
            if needed && whole(operand, label) && !labels.contains(&label) {
                labels.push(label);
            }
        }
        labels
    }

    /// Which operands to multiply, in turn: the pair with the smallest product first. Each product goes to the end.
    fn steps(&self, shapes: &[&[usize]]) -> OpResult<Vec<(usize, usize, Pair)>> {
        let mut open: Vec<Vec<Label>> = (0..shapes.len()).map(|i| self.alone(i, shapes)).collect();
        let mut steps = Vec::new();
        while open.len() > 1 {
            let mut best: Option<(usize, usize, usize, Pair)> = None;
            for i in 0..open.len() {
                for j in i + 1..open.len() {
                    let others = |l: &Label| open.iter().enumerate().any(|(k, o)| k != i && k != j && o.contains(l));
                    let pair = Pair::new(&open[i], &open[j], |l| self.output.contains(l) || others(l));
                    let size = total(&pair.result(), &self.sizes);
                    if best.as_ref().is_none_or(|b| size < b.0) {
                        best = Some((size, i, j, pair));
                    }
                }
            }
            let Some((_, i, j, pair)) = best else { break };
            self.checked(&pair.result())?;
            open.remove(j);
            open.remove(i);
            open.push(pair.result());
            steps.push((i, j, pair));
        }
        Ok(steps)
    }

    /// Brings an operand to the labels that [`Equation::alone`] says.
    fn reduced(&self, operand: usize, x: &Real, shapes: &[&[usize]]) -> (Real, Vec<Label>) {
        let target = self.alone(operand, shapes);
        let (mut x, mut labels) = (x.clone(), self.operands[operand].clone());
        // Diagonals.
        while let Some((i, j)) = twice(&labels) {
            let mut order: Vec<usize> = (0..labels.len()).filter(|&a| a != i && a != j).collect();
            order.extend([i, j]);
            let size = x.shape()[i];
            let mut shape: Vec<usize> = order.iter().map(|&a| x.shape()[a]).collect();
            shape.truncate(labels.len() - 2);
            let lead = shape.clone();
            shape.push(size * size);
            x = x.permute(&order).reshape(&shape);
            let mut ranges: Vec<(usize, usize, usize)> = lead.iter().map(|&d| (0, d, 1)).collect();
            ranges.push((0, size, size + 1));
            x = x.stepped(&ranges);
            labels = order[..order.len() - 1].iter().map(|&a| labels[a]).collect();
        }
        let gone: Vec<usize> = (0..labels.len()).filter(|&a| !target.contains(&labels[a])).collect();
        let kept: Vec<usize> = (0..labels.len()).filter(|&a| target.contains(&labels[a])).collect();
        let shape: Vec<usize> = kept.iter().map(|&a| x.shape()[a]).collect();
        let labels = kept.iter().map(|&a| labels[a]).collect();
        (x.sum(&gone).reshape(&shape), labels)
    }

    fn multiply(&self, a: &(Real, Vec<Label>), b: &(Real, Vec<Label>), pair: &Pair) -> (Real, Vec<Label>) {
        let size = |labels: &[Label]| total(labels, &self.sizes);
        let (batch, left, summed, right) = (size(&pair.batch), size(&pair.left), size(&pair.summed), size(&pair.right));
        let ordered = |x: &(Real, Vec<Label>), groups: [&[Label]; 3], shape: [usize; 3]| {
            let axis = |l: &Label| x.1.iter().position(|m| m == l).unwrap_or(0);
            x.0.permute(&groups.concat().iter().map(axis).collect::<Vec<_>>()).reshape(&shape)
        };
        let x = ordered(a, [&pair.batch, &pair.left, &pair.summed], [batch, left, summed]);
        let y = if summed == 1 {
            x.mul(&ordered(b, [&pair.batch, &pair.summed, &pair.right], [batch, 1, right]))
        } else if left == 1 && right == 1 {
            x.mul(&ordered(b, [&pair.batch, &pair.right, &pair.summed], [batch, 1, summed])).sum(&[2])
        } else {
            x.matmul(&ordered(b, [&pair.batch, &pair.summed, &pair.right], [batch, summed, right]))
        };
        let labels = pair.result();
        (y.reshape(&self.shape(&labels)), labels)
    }

    /// The sum over all labels at once, modulo 2^64.
    fn ints(&self, operands: &[&[i64]], shapes: &[&[usize]], dtype: DType) -> OpResult<Vec<i64>> {
        let mut order = self.output.clone();
        order.extend(self.sizes.keys().filter(|l| !self.output.contains(l)));
        let ranges = self.shape(&order);
        let inner: usize = ranges[self.output.len()..].iter().product();
        let outer = total(&self.output, &self.sizes);
        // How far an operand moves when a label moves by one.
        let steps: Vec<Vec<usize>> = self
            .operands
            .iter()
            .zip(shapes)
            .map(|(labels, shape)| {
                let mut moves = vec![0; order.len()];
                let mut step = 1;
                for (l, &d) in labels.iter().zip(*shape).rev() {
                    if let Some(i) = order.iter().position(|o| o == l).filter(|_| d > 1) {
                        moves[i] += step;
                    }
                    step *= d;
                }
                moves
            })
            .collect();
        let mut out = Vec::with_capacity(outer);
        for o in 0..outer {
            let mut sum = 0i64;
            for i in 0..inner {
                let (mut rest, mut places) = (o * inner + i, vec![0; operands.len()]);
                for (axis, &d) in ranges.iter().enumerate().rev() {
                    for (place, moves) in places.iter_mut().zip(&steps) {
                        *place += rest % d * moves[axis];
                    }
                    rest /= d;
                }
                sum = sum.wrapping_add(operands.iter().zip(places).fold(1i64, |p, (v, at)| p.wrapping_mul(v[at])));
            }
            out.push(dtype.wrap(sum));
        }
        Ok(out)
    }
}

/// Two axes with one label.
fn twice(labels: &[Label]) -> Option<(usize, usize)> {
    labels.iter().enumerate().find_map(|(j, l)| labels[..j].iter().position(|m| m == l).map(|i| (i, j)))
}

fn shapes_of<'a>(inputs: &Args<'a, Fact>) -> OpResult<Vec<&'a [usize]>> {
    (0..inputs.len()).map(|i| inputs.need(i).map(|f| &f.shape[..])).collect()
}

impl Operator for Einsum {
    fn infer(&self, inputs: Args<'_, Fact>) -> OpResult<Vec<Fact>> {
        /// Most products of a sum on the host, which has no fast path.
        const PRODUCTS: usize = 1 << 32;
        /// Pairs are tried one by one.
        const OPERANDS: usize = 64;
        if inputs.len() > OPERANDS {
            unsupported!("{} inputs; at most {OPERANDS} are supported", inputs.len());
        }
        let shapes = shapes_of(&inputs)?;
        let equation = self.equation(&shapes)?;
        let dtype = inputs.need(0)?.dtype;
        if !(dtype.is_float() || dtype.is_int()) {
            invalid!("input 0 must be numbers, got {dtype}");
        }
        if let Some(other) = inputs.present().find(|f| f.dtype != dtype) {
            invalid!("inputs must have one type, got {dtype} and {}", other.dtype);
        }
        let shape = equation.checked(&equation.output)?;
        if dtype.is_float() {
            equation.steps(&shapes)?;
        } else if equation.sizes.values().fold(1usize, |n, &s| n.saturating_mul(s)) > PRODUCTS {
            unsupported!("a sum over more than {PRODUCTS} products of integers");
        }
        Ok(vec![Fact::new(dtype, shape)])
    }

    fn eval(&self, inputs: Args<'_, Value>, outputs: &[Fact], cx: &Context) -> OpResult<Vec<Value>> {
        let values: Vec<&Value> = inputs.present().collect();
        let shapes: Vec<&[usize]> = values.iter().map(|v| v.shape()).collect();
        let equation = self.equation(&shapes)?;
        let fact = &outputs[0];
        if !fact.dtype.is_float() {
            let hosts: Vec<_> = values.iter().map(|v| v.to_host()).collect();
            let operands: Vec<&[i64]> = hosts.iter().filter_map(|t| t.as_i64()).collect();
            let sums = equation.ints(&operands, &shapes, fact.dtype)?;
            return Ok(vec![Value::host(Tensor::new(fact.dtype, fact.shape.clone(), Elements::Int(sums))?)]);
        }
        if equation.is_empty() {
            return one(Real::full(&fact.shape, 0.0, &cx.device));
        }
        let mut open = Vec::new();
        for (i, value) in values.iter().enumerate() {
            open.push(equation.reduced(i, &value.real(cx)?, &shapes));
        }
        for (i, j, pair) in equation.steps(&shapes)? {
            let (b, a) = (open.remove(j), open.remove(i));
            open.push(equation.multiply(&a, &b, &pair));
        }
        let Some((y, labels)) = open.pop() else { invalid!("has no inputs") };
        let axis = |l: &Label| labels.iter().position(|m| m == l).unwrap_or(0);
        one(y.permute(&equation.output.iter().map(axis).collect::<Vec<_>>()).reshape(&fact.shape))
    }

    fn macs(&self, inputs: Args<'_, Fact>, _outputs: &[Fact]) -> u64 {
        let count = || -> OpResult<u64> {
            let shapes = shapes_of(&inputs)?;
            let equation = self.equation(&shapes)?;
            let steps = equation.steps(&shapes)?;
            let each = |p: &Pair| total(&[p.result(), p.summed.clone()].concat(), &equation.sizes) as u64;
            Ok(steps.iter().fold(0u64, |n, (_, _, pair)| n.saturating_add(each(pair))))
        };
        count().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{Attr, run};
    use super::*;

    fn float(shape: &[usize], seed: usize) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::f32(shape.to_vec(), (0..n).map(|i| ((i * 5 + seed * 3) % 7) as f32 - 3.0).collect()).unwrap()
    }

    fn ints_of(t: &Tensor) -> Tensor {
        Tensor::i64(t.shape().to_vec(), t.as_f32().unwrap().iter().map(|&v| v as i64).collect()).unwrap()
    }

    fn einsum(equation: &'static str, inputs: &[Tensor]) -> Result<Tensor, String> {
        let inputs: Vec<_> = inputs.iter().cloned().map(Some).collect();
        run("Einsum", 12, &[("equation", Attr::Text(equation))], &inputs).map(|mut y| y.remove(0))
    }

    /// The host sums over all labels at once, the device multiplies pairs: two ways to one answer.
    #[test]
    fn pairs_of_products_agree_with_the_sum_over_all_labels() {
        type Case = (&'static str, &'static [&'static [usize]], &'static [usize]);
        let cases: [Case; 22] = [
            ("ij->ji", &[&[2, 3]], &[3, 2]),
            ("ij->i", &[&[2, 3]], &[2]),
            ("ij", &[&[2, 3]], &[2, 3]),
            ("ba", &[&[2, 3]], &[3, 2]),
            ("ii", &[&[3, 3]], &[]),
            ("ii->i", &[&[3, 3]], &[3]),
            ("iji->j", &[&[3, 2, 3]], &[2]),
            ("iii->i", &[&[3, 3, 3]], &[3]),
            ("...ii->...i", &[&[2, 4, 3, 3]], &[2, 4, 3]),
            ("i,i", &[&[4], &[4]], &[]),
            ("i,j->ij", &[&[4], &[3]], &[4, 3]),
            ("bij,bjk->bik", &[&[2, 3, 4], &[2, 4, 5]], &[2, 3, 5]),
            ("...ij,...jk->...ik", &[&[2, 1, 3, 4], &[5, 4, 2]], &[2, 5, 3, 2]),
            ("i...,...j->j...i", &[&[3, 2, 4], &[4, 5]], &[5, 2, 4, 3]),
            ("ij,jk,kl->il", &[&[2, 3], &[3, 4], &[4, 2]], &[2, 2]),
            ("ij,jk,kl", &[&[2, 3], &[3, 4], &[4, 2]], &[2, 2]),
            ("bhqd,bhkd->bhqk", &[&[2, 2, 3, 4], &[2, 2, 5, 4]], &[2, 2, 3, 5]),
            ("ab,cd,bc->", &[&[2, 3], &[4, 2], &[3, 4]], &[]),
            ("ij,ij->i", &[&[2, 1], &[2, 5]], &[2]),
            ("ij,ij->ij", &[&[2, 1], &[1, 5]], &[2, 5]),
            (",ij->ij", &[&[], &[2, 3]], &[2, 3]),
            ("ij,jk->ik", &[&[2, 0], &[0, 3]], &[2, 3]),
        ];
        for (equation, shapes, want) in cases {
            let operands: Vec<Tensor> = shapes.iter().enumerate().map(|(i, s)| float(s, i)).collect();
            let real = einsum(equation, &operands).unwrap();
            assert_eq!(real.shape(), want, "{equation}");
            let host = einsum(equation, &operands.iter().map(ints_of).collect::<Vec<_>>()).unwrap();
            assert_eq!(ints_of(&real), host, "{equation}");
        }
    }

    #[test]
    fn a_closed_form() {
        let a = Tensor::f32(vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let b = Tensor::f32(vec![2, 2], vec![5.0, 6.0, 7.0, 8.0]).unwrap();
        assert_eq!(einsum("ij,jk->ik", &[a.clone(), b.clone()]).unwrap().as_f32().unwrap(), [19.0, 22.0, 43.0, 50.0]);
        assert_eq!(einsum(" i j , i j -> ", &[a.clone(), b]).unwrap().as_f32().unwrap(), [70.0]);
        assert_eq!(einsum("ii->i", &[a]).unwrap().as_f32().unwrap(), [1.0, 4.0]);
    }

    #[test]
    fn the_cheaper_order_of_products_is_taken_and_counted() {
        let chain = Einsum { inputs: ["ij", "jk", "kl"].map(|t| Term::parse(t).unwrap()).to_vec(), output: None };
        let fact = |s: &[usize]| Some(Fact::new(DType::F32, s.to_vec()));
        let inputs = [fact(&[100, 2]), fact(&[2, 100]), fact(&[100, 3])];
        assert_eq!(chain.macs(Args(&inputs), &[]), 2 * 100 * 3 + 100 * 2 * 3);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let t = |s: &[usize]| float(s, 0);
        assert!(einsum("ij,jk->ik", &[t(&[2, 3])]).unwrap_err().contains("1 inputs"));
        assert!(einsum("ij,jk->ik", &[t(&[2, 3]), t(&[4, 2])]).unwrap_err().contains("4 elements"));
        assert!(einsum("ij->k", &[t(&[2, 3])]).unwrap_err().contains("no input"));
        assert!(einsum("ij->ii", &[t(&[2, 3])]).unwrap_err().contains("twice"));
        assert!(einsum("ii->i", &[t(&[2, 3])]).unwrap_err().contains("diagonal"));
        assert!(einsum("ij", &[t(&[2, 3, 4])]).unwrap_err().contains("axes"));
        assert!(einsum("i1->i", &[t(&[2, 3])]).unwrap_err().contains("not a letter"));
        assert!(einsum("...i->i", &[t(&[2, 3])]).unwrap_err().contains("needs `...`"));
        let long = t(&[70_000]);
        assert!(einsum("i,j->ij", &[long.clone(), long]).unwrap_err().contains("limit"));
    }
}
