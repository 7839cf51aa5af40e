//! Image folders: a folder per class, or a manifest.
//!
//! Without a manifest, every folder directly below the root is a class and holds its images at any depth. With
//! `manifest.csv` (or the only CSV file in the root), the column `file` (or `filename`, `path`, `image`) names each
//! image relative to the root, and the other columns are labels and groups. Rows come in the order of the paths, or of
//! the manifest. Names that start with a dot are passed over; links are not followed.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::csv::CsvSource;
use crate::picture::Picture;
use crate::source::{Array, Chunk, Cursor, Field, Kind, Layout, Source, Values};
use crate::{DataError, Limits, OpenOptions};

/// Folders deeper than this below the root are a mistake.
const MAX_DEPTH: usize = 32;
/// Pictures that are decoded side by side; what they hold together is bounded by this many times `image_pixels`.
const DECODE_AT_ONCE: usize = 64;

pub(crate) struct ImageSource {
    list: Arc<List>,
    fields: Vec<Field>,
}

/// What cursors share.
struct List {
    root: PathBuf,
    files: Vec<PathBuf>,
    /// Rows whose manifest line is bad.
    bad: Vec<(usize, String)>,
    /// One per field after the picture.
    columns: Vec<Array>,
    size: [usize; 3],
    fixed_size: bool,
    limits: Limits,
}

impl ImageSource {
    pub(crate) fn open(root: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        let mut list = List {
            root: root.into(),
            files: Vec::new(),
            bad: Vec::new(),
            columns: Vec::new(),
            size: [1; 3],
            fixed_size: options.image_size.is_some(),
            limits: options.limits,
        };
        let fields = match find_manifest(root)? {
            Some(manifest) => read_manifest(&manifest, options, &mut list)?,
            None => read_classes(root, &mut list)?,
        };
        list.size = match options.image_size {
            Some(size) => checked_size(size, &options.limits)?,
            None => list.first_size(),
        };
        let picture = Field { name: "x".into(), kind: Kind::U8, shape: list.size.to_vec() };
        Ok(Self { list: Arc::new(list), fields: std::iter::once(picture).chain(fields).collect() })
    }
}

fn checked_size(size: [usize; 3], limits: &Limits) -> Result<[usize; 3], DataError> {
    let [channels, height, width] = size;
    let sides = 1..=limits.image_side;
    if !matches!(channels, 1 | 3) || !sides.contains(&height) || !sides.contains(&width) {
        return Err(DataError::Option {
            name: "image_size",
            value: format!("{size:?}"),
            allowed: "[channels, height, width] with 1 or 3 channels and sides from 1 to the limit image_side",
        });
    }
    Ok(size)
}

impl List {
    /// The size of the first picture that can be read; all others are expected to have it.
    fn first_size(&self) -> [usize; 3] {
        let first = (0..self.files.len()).find_map(|row| self.picture(row).ok());
        first.map_or([1; 3], |p| p.size())
    }

    fn picture(&self, row: usize) -> Result<Picture, String> {
        if let Ok(i) = self.bad.binary_search_by_key(&row, |b| b.0) {
            return Err(self.bad[i].1.clone());
        }
        let relative = &self.files[row];
        let named = |reason: String| format!("{}: {reason}", relative.display());
        // A link anywhere on the way could lead out of the folder.
        let mut folder = self.root.clone();
        for part in relative.parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            if folder.symlink_metadata().is_ok_and(|m| m.is_symlink()) {
                return Err(named("lies behind a link".into()));
            }
        }
        Picture::read(&self.root.join(relative), &self.limits).map_err(named)
    }

    fn planes(&self, row: usize) -> Result<Vec<u8>, String> {
        let picture = self.picture(row)?;
        let (have, want) = (picture.size(), self.size);
        if !self.fixed_size && have[1..] != want[1..] {
            return Err(format!(
                "{}: is {} × {} pixels, the first picture is {} × {}; set image_size to have all resized",
                self.files[row].display(),
                have[2],
                have[1],
                want[2],
                want[1]
            ));
        }
        Ok(picture.into_planes(want))
    }
}

impl Source for ImageSource {
    fn layout(&self) -> Layout {
        Layout::Arrays
    }

    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn rows(&self) -> u64 {
        self.list.files.len() as u64
    }

    fn skips_cheaply(&self) -> bool {
        true
    }

    fn may_have_bad_rows(&self) -> bool {
        true
    }

    fn cursor(&self, fields: &[usize]) -> Result<Box<dyn Cursor>, DataError> {
        Ok(Box::new(ImageCursor { list: self.list.clone(), fields: fields.into(), at: 0 }))
    }
}

struct ImageCursor {
    list: Arc<List>,
    fields: Vec<usize>,
    at: usize,
}

impl Cursor for ImageCursor {
    fn skip(&mut self, rows: u64) -> Result<(), DataError> {
        let end = self.list.files.len();
        self.at = usize::try_from(rows).map_or(end, |r| self.at.saturating_add(r).min(end));
        Ok(())
    }

    fn read(&mut self, rows: usize) -> Result<Chunk, DataError> {
        let list = &self.list;
        let (start, end) = (self.at, self.at.saturating_add(rows).min(list.files.len()));
        self.at = end;
        let rows: Vec<usize> = (start..end).collect();
        let mut bad = Vec::new();
        let mut arrays = Vec::new();
        for &field in &self.fields {
            let Some(column) = field.checked_sub(1) else {
                let mut pixels: Vec<u8> = Vec::new();
                for block in rows.chunks(DECODE_AT_ONCE) {
                    let planes: Vec<Result<Vec<u8>, String>> = block.par_iter().map(|&r| list.planes(r)).collect();
                    for (&row, planes) in block.iter().zip(planes) {
                        match planes {
                            Ok(planes) => pixels.extend(planes),
                            Err(reason) => bad.push((row - start, reason)),
                        }
                        pixels.resize((row - start + 1) * list.size.iter().product::<usize>(), 0);
                    }
                }
                arrays.push(Array::new(Values::U8(pixels)));
                continue;
            };
            arrays.push(list.columns[column].pick(&rows, 1));
        }
        // Without the picture, only what the manifest itself has wrong is known.
        if !self.fields.contains(&0) {
            let known = list.bad.iter().filter(|(row, _)| (start..end).contains(row));
            bad.extend(known.map(|(row, reason)| (row - start, reason.clone())));
        }
        Ok(Chunk { rows: end - start, arrays, bad })
    }
}

fn find_manifest(root: &Path) -> Result<Option<PathBuf>, DataError> {
    let mut tables = Vec::new();
    for entry in sorted_entries(root)? {
        if entry.is_file() && entry.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
            tables.push(entry);
        }
    }
    let named = tables.iter().find(|t| t.file_name().is_some_and(|n| n.eq_ignore_ascii_case("manifest.csv")));
    match (named, tables.as_slice()) {
        (Some(manifest), _) => Ok(Some(manifest.clone())),
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(only.clone())),
        (None, _) => Err(DataError::unsupported(
            root,
            "more than one CSV file",
            "name the one that lists the images manifest.csv",
        )),
    }
}

fn read_manifest(manifest: &Path, options: &OpenOptions, list: &mut List) -> Result<Vec<Field>, DataError> {
    let table = CsvSource::open(manifest, options)?;
    if table.rows() > options.limits.files as u64 {
        let (value, limit) = (table.rows(), options.limits.files);
        return Err(DataError::limit(table.path(), "number of files", value, limit, "files"));
    }
    let file = table.fields().iter().position(|f| matches!(f.name.as_str(), "file" | "filename" | "path" | "image"));
    let Some(file) = file else {
        let available = table.fields().iter().map(|f| f.name.clone()).collect();
        return Err(DataError::Missing { path: manifest.into(), name: "file".into(), available });
    };
    let all: Vec<usize> = (0..table.fields().len()).collect();
    let chunk = table.cursor(&all)?.read(table.rows() as usize)?;
    list.bad = chunk.bad;
    let mut fields = Vec::new();
    for (i, (array, field)) in chunk.arrays.into_iter().zip(table.fields()).enumerate() {
        if i != file {
            // The label goes by `y` unless the options name a column, as in the other formats.
            let name = if field.name == "label" && options.label.is_none() { "y".into() } else { field.name.clone() };
            fields.push(Field { name, ..field.clone() });
            list.columns.push(array);
        } else if let Values::Text(names) = array.values {
            list.files = names.into_iter().map(PathBuf::from).collect();
        } else {
            return Err(DataError::malformed(manifest, &field.name, "holds numbers instead of file names"));
        }
    }
    for (row, name) in list.files.iter().enumerate() {
        let plain = name.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !plain || name.as_os_str().is_empty() {
            list.bad.push((row, format!("{:?} does not stay below the folder", name.display().to_string())));
        }
    }
    list.bad.sort();
    list.bad.dedup_by_key(|b| b.0);
    Ok(fields)
}

fn read_classes(root: &Path, list: &mut List) -> Result<Vec<Field>, DataError> {
    let mut labels = Vec::new();
    for folder in sorted_entries(root)? {
        if folder.is_symlink() {
            return Err(DataError::unsupported(
                root,
                folder.display().to_string(),
                "it is a link; links are not followed",
            ));
        }
        if !folder.is_dir() {
            continue;
        }
        let class = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let before = list.files.len();
        collect(&folder, root, 0, list)?;
        labels.resize(labels.len() + list.files.len() - before, class);
    }
    if list.files.is_empty() {
        return Err(DataError::Format {
            path: root.into(),
            found: "a folder without a manifest.csv and without class folders that hold files".into(),
        });
    }
    list.columns.push(Array::new(Values::Text(labels)));
    Ok(vec![Field { name: "y".into(), kind: Kind::Text, shape: Vec::new() }])
}

fn collect(folder: &Path, root: &Path, depth: usize, list: &mut List) -> Result<(), DataError> {
    if depth > MAX_DEPTH {
        return Err(DataError::unsupported(root, folder.display().to_string(), "folders are nested too deeply"));
    }
    for entry in sorted_entries(folder)? {
        if entry.is_dir() && !entry.is_symlink() {
            collect(&entry, root, depth + 1, list)?;
            continue;
        }
        if list.files.len() >= list.limits.files {
            let limit = list.limits.files;
            return Err(DataError::limit(root, "number of files", limit as u64 + 1, limit, "files"));
        }
        list.files.push(entry.strip_prefix(root).unwrap_or(&entry).into());
    }
    Ok(())
}

/// Entries by name, without hidden ones. Byte order, so that the rows are the same on every machine.
fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(DataError::read(folder))? {
        let entry = entry.map_err(DataError::read(folder))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            entries.push(entry.path());
        }
    }
    entries.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(entries)
}
