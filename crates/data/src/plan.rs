//! From stored fields to features, labels and groups: chosen once at opening, applied to every chunk.

use std::ops::Range;
use std::path::Path;

use netproof_tensor::Tensor;

use crate::dictionary::{Dictionary, text_of};
use crate::label::{Label, label_plan};
use crate::schema::{Column, ColumnKind, Group, LabelKind, Role};
use crate::source::{Array, Chunk, Field, Kind, Layout, Source, Values};
use crate::{Annotations, Batch, DataError, OpenOptions, Scale};

#[derive(Debug, Clone)]
enum Encode {
    Plain,
    /// Unsigned bytes divided by 255.
    Unit,
    /// The same, from `[height, width, channels]`.
    UnitFromLast {
        channels: usize,
    },
    Index(Dictionary),
    OneHot(Dictionary),
}

#[derive(Debug, Clone)]
struct Part {
    slot: usize,
    width: usize,
    out: usize,
    encode: Encode,
}

/// How chunks of the fields in `read` become batches.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Fields of the source that a cursor must read, in this order.
    pub(crate) read: Vec<usize>,
    parts: Vec<Part>,
    label: Label,
    label_name: String,
    group_slots: Vec<(usize, Dictionary)>,
    pub(crate) feature_shape: Vec<usize>,
    pub(crate) feature_names: Option<Vec<String>>,
    pub(crate) label_kind: LabelKind,
    pub(crate) groups: Vec<Group>,
    pub(crate) columns: Vec<Column>,
    /// Fields whose values must be seen once before the plan is complete.
    scan_only: Vec<usize>,
}

impl Plan {
    /// Chooses the fields.
    pub(crate) fn new(source: &dyn Source, options: &OpenOptions, path: &Path) -> Result<Self, DataError> {
        let fields = source.fields();
        let find = |name: &str| fields.iter().position(|f| f.name == name).ok_or_else(|| missing(source, name, path));
        let label = match (&options.label, options.unlabelled, source.layout()) {
            (_, true, _) => None,
            (Some(name), ..) => Some(find(name)?),
            (None, _, Layout::Arrays) => fields.iter().position(|f| f.name == "y"),
            (None, _, Layout::Table) => match fields.iter().position(|f| f.name == "y") {
                // A tensor column named `x` comes with a label named `y`, wherever it stands.
                Some(y) if fields.iter().any(|f| f.name == "x" && !f.shape.is_empty()) => Some(y),
                _ => fields.len().checked_sub(1).filter(|&last| fields[last].shape.is_empty()),
            },
        };
        let groups: Vec<usize> = options.groups.iter().map(|g| find(g)).collect::<Result<_, _>>()?;
        let features: Vec<usize> = match (&options.features, source.layout()) {
            (Some(names), _) => names.iter().map(|n| find(n)).collect::<Result<_, _>>()?,
            (None, Layout::Arrays) => vec![find("x")?],
            (None, Layout::Table) => {
                if let Some((name, reason)) = source.unusable().first() {
                    let reason = format!("{reason}; choose the feature columns without it");
                    return Err(DataError::unsupported(path, format!("column {name:?}"), reason));
                }
                let used = |i: &usize| Some(*i) != label && (options.groups_are_features || !groups.contains(i));
                match fields.iter().position(|f| f.name == "x" && !f.shape.is_empty()) {
                    Some(x) => vec![x],
                    None => (0..fields.len()).filter(used).collect(),
                }
            }
        };
        if features.is_empty() {
            let reason = "no column is left beside label and groups; check the delimiter or name the features";
            return Err(DataError::unsupported(path, "the feature set", reason));
        }
        if let Some(both) = features.iter().find(|f| Some(**f) == label) {
            return Err(DataError::Label {
                path: path.into(),
                name: fields[*both].name.clone(),
                reason: "it is also among the features, so the answer would be part of the question".into(),
            });
        }
        if features.iter().enumerate().any(|(i, f)| features[..i].contains(f)) {
            return Err(DataError::Option {
                name: "features",
                value: format!("{:?}", options.features.clone().unwrap_or_default()),
                allowed: "every column once",
            });
        }
        Self::assemble(source, options, path, &features, label, &groups)
    }

    fn assemble(
        source: &dyn Source,
        options: &OpenOptions,
        path: &Path,
        features: &[usize],
        label: Option<usize>,
        groups: &[usize],
    ) -> Result<Self, DataError> {
        let fields = source.fields();
        let mut read: Vec<usize> = Vec::new();
        let mut slot = |field: usize| {
            read.iter().position(|&f| f == field).unwrap_or_else(|| {
                read.push(field);
                read.len() - 1
            })
        };
        let mut parts = Vec::new();
        for &f in features {
            let (slot, width) = (slot(f), fields[f].width());
            let encode = encode_for(&fields[f], options);
            if matches!(encode, Encode::Index(_) | Encode::OneHot(_)) && !fields[f].shape.is_empty() {
                return Err(DataError::unsupported(path, &fields[f].name, "text arrays become no features"));
            }
            parts.push(Part { slot, width, out: width, encode });
        }
        let feature_shape = match features {
            [one] => shape_of(&fields[*one], &parts[0].encode),
            _ => vec![parts.iter().map(|p| p.width).sum()],
        };
        let label_plan = match label {
            None => Label::None,
            Some(l) if fields[l].width() != 1 => {
                return Err(DataError::Label {
                    path: path.into(),
                    name: fields[l].name.clone(),
                    reason: format!("has {} numbers per row; give one class index or target", fields[l].width()),
                });
            }
            Some(l) => label_plan(slot(l), &fields[l], options, path)?,
        };
        let mut group_slots = Vec::new();
        for &g in groups {
            if fields[g].width() != 1 {
                return Err(DataError::unsupported(path, &fields[g].name, "a group has one value per row"));
            }
            group_slots.push((slot(g), Dictionary::default()));
        }
        let scan = |p: &Part| matches!(p.encode, Encode::Index(_) | Encode::OneHot(_)).then_some(p.slot);
        let label_slot = match label_plan {
            Label::None => None,
            Label::Target { slot } | Label::Index { slot, .. } | Label::Named { slot, .. } => Some(slot),
        };
        let mut scan_only: Vec<usize> =
            parts.iter().filter_map(scan).chain(label_slot).chain(group_slots.iter().map(|g| g.0)).collect();
        scan_only.sort_unstable();
        scan_only.dedup();
        let role = |i: usize| match i {
            _ if Some(i) == label => Role::Label,
            _ if features.contains(&i) => Role::Feature,
            _ if groups.contains(&i) => Role::Group,
            _ => Role::Unused,
        };
        let columns = fields
            .iter()
            .enumerate()
            .map(|(i, f)| Column {
                name: f.name.clone(),
                kind: match f.kind {
                    Kind::Text => ColumnKind::Categorical { values: Vec::new() },
                    Kind::Bool => ColumnKind::Boolean,
                    Kind::Float => ColumnKind::Numeric { whole: false },
                    Kind::Int | Kind::U8 => ColumnKind::Numeric { whole: true },
                },
                role: role(i),
                shape: f.shape.clone(),
                features: None,
            })
            .collect();
        Ok(Self {
            read,
            parts,
            label: label_plan,
            label_name: label.map_or(String::new(), |l| fields[l].name.clone()),
            group_slots,
            feature_shape,
            feature_names: source.feature_names().filter(|_| features.len() == 1),
            label_kind: LabelKind::None,
            groups: Vec::new(),
            columns,
            scan_only,
        })
    }

    /// Slots whose values must be seen before batches can be made.
    pub(crate) fn scan_slots(&self, everything: bool) -> Vec<usize> {
        if everything { (0..self.read.len()).collect() } else { self.scan_only.clone() }
    }

    /// Looks at a chunk during the scan; `slots` says which slot each array of the chunk is. Returns bad rows.
    pub(crate) fn note(
        &mut self,
        chunk: &Chunk,
        slots: &[usize],
        options: &OpenOptions,
        path: &Path,
    ) -> Result<Vec<(usize, String)>, DataError> {
        let array = |slot: usize| slots.iter().position(|&s| s == slot).and_then(|i| chunk.arrays.get(i));
        let mut usable = vec![true; chunk.rows];
        chunk.bad.iter().for_each(|(row, _)| usable[*row] = false);
        let mut bad = Vec::new();
        let limit = options.limits.categories;
        if let Label::Target { slot } | Label::Index { slot, .. } | Label::Named { slot, .. } = self.label
            && let Some(labels) = array(slot)
        {
            for (row, usable) in usable.iter_mut().enumerate() {
                if *usable && let Err(reason) = self.label.note(labels, row) {
                    *usable = false;
                    bad.push((row, format!("label {:?}: {reason}", self.label_name)));
                }
            }
        }
        let over = |name: &str, n: usize| {
            let part = format!("distinct values of {name:?} (is it free text, a name or a date?)");
            DataError::limit(path, part, n, limit, "categories")
        };
        if let Label::Index { count, .. } = self.label
            && count > limit
        {
            return Err(DataError::Label {
                path: path.into(),
                name: self.label_name.clone(),
                reason: format!(
                    "the largest class index is {}; for numbers to be predicted set task = regression",
                    count - 1
                ),
            });
        }
        if let Label::Named { classes, .. } = &self.label
            && classes.index.len() > limit
        {
            return Err(over(&self.label_name, classes.index.len()));
        }
        let parts = self.parts.iter_mut().filter_map(|p| match &mut p.encode {
            Encode::Index(d) | Encode::OneHot(d) => Some((p.slot, d)),
            _ => None,
        });
        for (slot, dictionary) in parts.chain(self.group_slots.iter_mut().map(|(s, d)| (*s, d))) {
            let Some(values) = array(slot) else { continue };
            for (row, usable) in usable.iter().enumerate() {
                if *usable && !values.is_missing(row) {
                    match &values.values {
                        Values::Text(v) => dictionary.note(&v[row]),
                        _ => dictionary.note(&text_of(values, row)),
                    }
                }
            }
            if dictionary.index.len() > limit {
                return Err(over(&self.columns[self.read[slot]].name, dictionary.index.len()));
            }
        }
        Ok(bad)
    }

    /// Completes the plan after the scan.
    pub(crate) fn finish(&mut self, options: &OpenOptions, path: &Path) -> Result<(), DataError> {
        let names = options.class_names.clone();
        self.label_kind = match &mut self.label {
            Label::None => LabelKind::None,
            Label::Target { .. } => LabelKind::Target,
            Label::Index { count, .. } => {
                LabelKind::Classes { count: names.as_ref().map_or(*count, Vec::len).max(*count), names }
            }
            Label::Named { classes, .. } => {
                if names.is_none() {
                    classes.sort();
                }
                LabelKind::Classes { count: classes.values.len(), names: Some(classes.values.clone()) }
            }
        };
        if let (Label::Named { slot, .. }, LabelKind::Classes { names: Some(names), .. }) =
            (&self.label, &self.label_kind)
        {
            self.columns[self.read[*slot]].kind = ColumnKind::Categorical { values: names.clone() };
        }
        for (slot, dictionary) in &mut self.group_slots {
            dictionary.sort();
            let column = &mut self.columns[self.read[*slot]];
            if let ColumnKind::Categorical { values } = &mut column.kind {
                values.clone_from(&dictionary.values);
            }
            self.groups.push(Group { name: column.name.clone(), values: dictionary.values.clone() });
        }
        let mut start = 0;
        let mut element_names = Vec::new();
        for part in &mut self.parts {
            let column = &mut self.columns[self.read[part.slot]];
            match &mut part.encode {
                Encode::Index(d) => {
                    d.sort();
                    column.kind = ColumnKind::Categorical { values: d.values.clone() };
                    element_names.push(column.name.clone());
                }
                Encode::OneHot(d) => {
                    d.sort();
                    column.kind = ColumnKind::Categorical { values: d.values.clone() };
                    part.out = d.values.len();
                    element_names.extend(d.values.iter().map(|v| format!("{}={v}", column.name)));
                }
                _ if part.out == 1 => element_names.push(column.name.clone()),
                _ => element_names.extend((0..part.out).map(|i| format!("{}[{i}]", column.name))),
            }
            column.features = Some((start, part.out));
            start += part.out;
        }
        let tabular = self.parts.len() > 1 || self.feature_shape.is_empty();
        if tabular || self.parts.iter().any(|p| matches!(p.encode, Encode::OneHot(_))) {
            self.feature_shape = vec![start];
            self.feature_names = Some(element_names);
        }
        if let Some(size) = options.image_size
            && self.feature_shape != size
            && size.iter().product::<usize>() == start
        {
            self.feature_shape = size.to_vec();
        } else if let Some(size) = options.image_size
            && self.feature_shape != size
        {
            return Err(DataError::unsupported(
                path,
                format!("rows of shape {:?}", self.feature_shape),
                format!("they do not have the {size:?} elements of image_size; only image files are resized"),
            ));
        }
        Ok(())
    }

    /// Bytes that one row takes in memory as stored.
    pub(crate) fn row_bytes(&self, fields: &[Field]) -> u64 {
        self.read.iter().map(|&f| fields[f].row_bytes()).sum()
    }

    /// Elements of a row of features.
    pub(crate) fn width(&self) -> usize {
        self.feature_shape.iter().product()
    }

    /// Slots that labels and groups need.
    pub(crate) fn annotation_slots(&self) -> Vec<usize> {
        let label = match self.label {
            Label::None => None,
            Label::Target { slot } | Label::Index { slot, .. } | Label::Named { slot, .. } => Some(slot),
        };
        label.into_iter().chain(self.group_slots.iter().map(|g| g.0)).collect()
    }

    /// Labels, and for each group the index of every row's value. Arrays of other slots may be empty.
    pub(crate) fn annotate(&self, arrays: &[Array], row_ids: &[u64], path: &Path) -> Result<Annotations, DataError> {
        let rows = row_ids.len();
        let labels = self.label.read(arrays, rows).map_err(|(row, reason)| DataError::BadRow {
            path: path.into(),
            row: row_ids[row],
            reason: format!("label {:?}: {reason}", self.label_name),
        })?;
        let group = |(slot, d): &(usize, Dictionary)| (0..rows).map(|i| d.index_of(&arrays[*slot], i)).collect();
        Ok(Annotations { labels, groups: self.group_slots.iter().map(group).collect() })
    }

    /// Turns rows without bad ones into a batch.
    pub(crate) fn batch(&self, arrays: &[Array], row_ids: Vec<u64>, path: &Path) -> Result<Batch, DataError> {
        let (rows, width) = (row_ids.len(), self.width());
        let mut features = vec![0.0; rows * width];
        let mut start = 0;
        for part in &self.parts {
            part.write(&arrays[part.slot], &mut features, width, start);
            start += part.out;
        }
        let Annotations { labels, groups } = self.annotate(arrays, &row_ids, path)?;
        let missing = features.iter().filter(|v| v.is_nan()).count();
        let shape = std::iter::once(rows).chain(self.feature_shape.iter().copied()).collect();
        let features = Tensor::f32(shape, features)?;
        Ok(Batch { row_ids, features, labels, groups, missing })
    }
}

impl Part {
    /// Writes this part of every row to `out`, in which a row takes `stride` elements and this part begins at `start`.
    fn write(&self, array: &Array, out: &mut [f32], stride: usize, start: usize) {
        if stride == 0 {
            return;
        }
        for (row, out) in out.chunks_exact_mut(stride).enumerate() {
            let from = row * self.width;
            self.write_row(array, from..from + self.width, &mut out[start..start + self.out]);
        }
    }

    fn write_row(&self, array: &Array, from: Range<usize>, out: &mut [f32]) {
        let hole = |i: usize, v: f32| if array.is_missing(i) { f32::NAN } else { v };
        match (&self.encode, &array.values) {
            (Encode::Unit, Values::U8(v)) => fill(out, v[from].iter().map(|&p| f32::from(p) / 255.0)),
            (Encode::UnitFromLast { channels }, Values::U8(v)) => {
                let pixels = &v[from];
                let planes = (0..*channels).flat_map(|c| pixels.iter().skip(c).step_by(*channels));
                fill(out, planes.map(|&p| f32::from(p) / 255.0));
            }
            (Encode::Index(d), _) => fill(out, from.map(|i| d.index_of(array, i).map_or(f32::NAN, |k| k as f32))),
            (Encode::OneHot(d), _) => {
                if let Some(one) = d.index_of(array, from.start).and_then(|k| out.get_mut(k)) {
                    *one = 1.0;
                }
            }
            (_, Values::Float(v)) => out.copy_from_slice(&v[from]),
            (_, Values::U8(v)) => fill(out, v[from].iter().map(|&x| f32::from(x))),
            (_, Values::Int(v)) => fill(out, from.map(|i| hole(i, v[i] as f32))),
            (_, Values::Bool(v)) => fill(out, from.map(|i| hole(i, f32::from(u8::from(v[i]))))),
            (_, Values::Text(_)) => out.fill(f32::NAN),
        }
    }
}

fn fill(out: &mut [f32], values: impl Iterator<Item = f32>) {
    out.iter_mut().zip(values).for_each(|(o, v)| *o = v);
}

fn encode_for(field: &Field, options: &OpenOptions) -> Encode {
    let category = field.kind == Kind::Text || options.categorical.contains(&field.name);
    let image = matches!(field.shape.len(), 2 | 3);
    match (field.kind, options.scale) {
        _ if category && options.one_hot => Encode::OneHot(Dictionary::default()),
        _ if category => Encode::Index(Dictionary::default()),
        (Kind::U8, Scale::Auto) if image => match channels_last(&field.shape) {
            Some(channels) => Encode::UnitFromLast { channels },
            None => Encode::Unit,
        },
        (Kind::U8, Scale::Unit) => match channels_last(&field.shape) {
            Some(channels) => Encode::UnitFromLast { channels },
            None => Encode::Unit,
        },
        _ => Encode::Plain,
    }
}

/// `[height, width, channels]` with 1, 3 or 4 channels, unless the first dimension could be the channels as well.
fn channels_last(shape: &[usize]) -> Option<usize> {
    match shape {
        &[first, _, last] if matches!(last, 1 | 3 | 4) && !matches!(first, 1 | 3 | 4) => Some(last),
        _ => None,
    }
}

fn shape_of(field: &Field, encode: &Encode) -> Vec<usize> {
    match (encode, field.shape.as_slice()) {
        (Encode::Unit, &[height, width]) => vec![1, height, width],
        (Encode::UnitFromLast { .. }, &[height, width, channels]) => vec![channels, height, width],
        (_, shape) => shape.to_vec(),
    }
}

fn missing(source: &dyn Source, name: &str, path: &Path) -> DataError {
    if let Some((column, reason)) = source.unusable().iter().find(|(column, _)| column == name) {
        return DataError::unsupported(path, format!("column {column:?}"), reason);
    }
    let describe = |f: &Field| if f.shape.is_empty() { f.name.clone() } else { format!("{} {:?}", f.name, f.shape) };
    DataError::Missing {
        path: path.into(),
        name: name.into(),
        available: source.fields().iter().map(describe).collect(),
    }
}
