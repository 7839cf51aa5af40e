//! CSV files: RFC 4180 with any separator, quoted cells over several lines, and byte order marks.
//!
//! Opening reads the file once to count rows and to see what the columns are. A column is numeric if at least 95 % of
//! its known cells are numbers; the other cells make their rows bad, because a typo must not turn a column of numbers
//! into categories. Blank lines are not rows.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use crate::source::{Array, Chunk, Cursor, Field, Kind, Layout, Source, Values};
use crate::{DataError, Limits, OpenOptions, arrays};

/// Share of a column's known cells that must be numbers.
const NUMERIC_SHARE: f64 = 0.95;

#[derive(Debug, Clone)]
struct Dialect {
    path: PathBuf,
    packed: bool,
    delimiter: u8,
    header: bool,
    missing: Vec<String>,
    limits: Limits,
}

pub(crate) struct CsvSource {
    dialect: Arc<Dialect>,
    fields: Vec<Field>,
    rows: u64,
    ragged: bool,
}

impl CsvSource {
    pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        let packed = arrays::starts_with(path, &[0x1f, 0x8b])?;
        let delimiter = match options.delimiter {
            Some(c) if c.is_ascii() && c != '"' && c != '\n' && c != '\r' => Some(c as u8),
            Some(c) => {
                return Err(DataError::Option {
                    name: "delimiter",
                    value: format!("{c:?}"),
                    allowed: "one ASCII character other than a quote or a line end",
                });
            }
            None => None,
        };
        let mut dialect = Dialect {
            path: path.into(),
            packed,
            delimiter: b',',
            header: true,
            missing: options.missing.clone(),
            limits: options.limits,
        };
        dialect.delimiter = match delimiter {
            Some(d) => d,
            None => Reader::open(&dialect)?.guess_delimiter()?,
        };
        let mut first = Record::default();
        if !Reader::open(&dialect)?.next(&mut first)? {
            return Err(DataError::malformed(path, "first line", "the file has no rows"));
        }
        let names: Vec<&str> = first.cells().collect::<Option<_>>().ok_or_else(|| {
            DataError::unsupported(path, "first line", "it is not UTF-8; convert the file to UTF-8 first")
        })?;
        let looks_like_data = names.iter().any(|cell| cell.parse::<f64>().is_ok());
        dialect.header = options.header.unwrap_or(!looks_like_data);
        let names: Vec<String> = match dialect.header {
            true => names.iter().map(|n| n.to_string()).collect(),
            false => (1..=names.len()).map(|i| format!("column_{i}")).collect(),
        };
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|w| w[0] == w[1]) {
            let reason = format!("the name {:?} occurs twice; columns are chosen by name", twice[0]);
            return Err(DataError::malformed(path, "first line", reason));
        }
        Self::infer(dialect, names, &options.categorical)
    }

    /// The pass over the whole file that decides what the columns are.
    fn infer(dialect: Dialect, names: Vec<String>, categorical: &[String]) -> Result<Self, DataError> {
        let mut seen = vec![Seen::default(); names.len()];
        let (mut rows, mut ragged) = (0, false);
        let mut reader = Reader::open(&dialect)?;
        let mut record = Record::default();
        reader.skip_header(dialect.header)?;
        while reader.next(&mut record)? {
            rows += 1;
            if record.len() != names.len() {
                ragged = true;
                continue;
            }
            for (cell, seen) in record.cells().zip(&mut seen) {
                if let Some(cell) = cell
                    && !dialect.missing.iter().any(|m| m == cell)
                {
                    seen.note(cell);
                }
            }
        }
        let fields = names
            .into_iter()
            .zip(&seen)
            .map(|(name, seen)| {
                let kind = if categorical.contains(&name) { Kind::Text } else { seen.kind() };
                Field { name, kind, shape: Vec::new() }
            })
            .collect();
        Ok(Self { dialect: Arc::new(dialect), fields, rows, ragged })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dialect.path
    }
}

impl Source for CsvSource {
    fn layout(&self) -> Layout {
        Layout::Table
    }

    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn skips_cheaply(&self) -> bool {
        false
    }

    fn may_have_bad_rows(&self) -> bool {
        self.ragged || self.rows > 0
    }

    fn cursor(&self, fields: &[usize]) -> Result<Box<dyn Cursor>, DataError> {
        let mut reader = Reader::open(&self.dialect)?;
        reader.skip_header(self.dialect.header)?;
        // Columns are looked up while walking through a record once, so they are needed in file order.
        let mut wanted: Vec<Wanted> = fields
            .iter()
            .enumerate()
            .map(|(slot, &column)| Wanted { column, slot, kind: self.fields[column].kind })
            .collect();
        wanted.sort_by_key(|w| w.column);
        let names = fields.iter().map(|&f| self.fields[f].name.clone()).collect();
        let dialect = self.dialect.clone();
        Ok(Box::new(CsvCursor {
            dialect,
            reader,
            wanted,
            names,
            columns: self.fields.len(),
            record: Record::default(),
        }))
    }
}

/// What the known cells of a column look like.
#[derive(Debug, Clone, Default)]
struct Seen {
    cells: u64,
    ints: u64,
    floats: u64,
    bools: u64,
}

impl Seen {
    fn note(&mut self, cell: &str) {
        self.cells += 1;
        if cell.parse::<i64>().is_ok() {
            self.ints += 1;
        } else if cell.parse::<f64>().is_ok() {
            self.floats += 1;
        } else if parse_bool(cell).is_some() {
            self.bools += 1;
        }
    }

    fn kind(&self) -> Kind {
        let numbers = self.ints + self.floats;
        if self.cells > 0 && self.bools == self.cells {
            Kind::Bool
        } else if numbers > 0 && numbers as f64 >= NUMERIC_SHARE * self.cells as f64 {
            if self.floats == 0 { Kind::Int } else { Kind::Float }
        } else if self.cells == 0 {
            Kind::Float
        } else {
            Kind::Text
        }
    }
}

fn parse_bool(cell: &str) -> Option<bool> {
    match cell {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

struct Wanted {
    column: usize,
    slot: usize,
    kind: Kind,
}

struct CsvCursor {
    dialect: Arc<Dialect>,
    reader: Reader,
    wanted: Vec<Wanted>,
    names: Vec<String>,
    columns: usize,
    record: Record,
}

impl Cursor for CsvCursor {
    fn skip(&mut self, rows: u64) -> Result<(), DataError> {
        for _ in 0..rows {
            if !self.reader.next(&mut self.record)? {
                break;
            }
        }
        Ok(())
    }

    fn read(&mut self, rows: usize) -> Result<Chunk, DataError> {
        let mut columns: Vec<Column> = self.wanted.iter().map(|w| Column::new(w.kind)).collect();
        let mut bad = Vec::new();
        let mut count = 0;
        while count < rows && self.reader.next(&mut self.record)? {
            let mut reason = None;
            let cells = self.record.len();
            if cells != self.columns {
                reason = Some(format!("has {cells} cells, the first line has {}", self.columns));
            }
            for (column, wanted) in columns.iter_mut().zip(&self.wanted) {
                let cell = match self.record.cell(wanted.column) {
                    _ if reason.is_some() => "",
                    Some(Ok(cell)) => cell,
                    Some(Err(())) => {
                        reason = Some(format!("{:?} is not UTF-8", self.names[wanted.slot]));
                        ""
                    }
                    None => "",
                };
                let missing = reason.is_some() || self.dialect.missing.iter().any(|m| m == cell);
                if let Err(what) = column.push(if missing { None } else { Some(cell) }) {
                    reason = Some(format!("{:?} is {:?}, not {what}", self.names[wanted.slot], shortened(cell)));
                }
            }
            if let Some(reason) = reason {
                bad.push((count, reason));
            }
            count += 1;
        }
        let mut arrays: Vec<Array> = self.names.iter().map(|_| Array::empty(Kind::Bool)).collect();
        for (column, wanted) in columns.into_iter().zip(&self.wanted) {
            arrays[wanted.slot] = column.finish();
        }
        Ok(Chunk { rows: count, arrays, bad })
    }
}

fn shortened(cell: &str) -> String {
    if cell.chars().count() > 40 { cell.chars().take(40).chain("…".chars()).collect() } else { cell.into() }
}

struct Column {
    values: Values,
    missing: Vec<bool>,
}

impl Column {
    fn new(kind: Kind) -> Self {
        Self { values: Array::empty(kind).values, missing: Vec::new() }
    }

    /// Adds a cell; a cell of the wrong kind becomes a filler and the kind wanted is returned.
    fn push(&mut self, cell: Option<&str>) -> Result<(), &'static str> {
        let mut wrong = Ok(());
        match &mut self.values {
            Values::Float(v) => v.push(match cell.map(str::parse::<f32>) {
                Some(Ok(number)) => number,
                Some(Err(_)) => {
                    wrong = Err("a number");
                    f32::NAN
                }
                None => f32::NAN,
            }),
            Values::Int(v) => v.push(match cell.map(str::parse::<i64>) {
                Some(Ok(number)) => number,
                Some(Err(_)) => {
                    wrong = Err("a whole number");
                    0
                }
                None => 0,
            }),
            Values::Bool(v) => v.push(match cell.map(parse_bool) {
                Some(Some(value)) => value,
                Some(None) => {
                    wrong = Err("true or false");
                    false
                }
                None => false,
            }),
            Values::Text(v) => v.push(cell.unwrap_or_default().to_string()),
            Values::U8(_) => unreachable!("no CSV column is of bytes"),
        }
        self.missing.push(cell.is_none());
        wrong
    }

    fn finish(self) -> Array {
        let any = self.missing.iter().any(|&m| m);
        Array { values: self.values, missing: if any { self.missing } else { Vec::new() } }
    }
}

/// One record: the unquoted bytes of its cells, one after the other.
#[derive(Debug, Default)]
struct Record {
    bytes: Vec<u8>,
    /// Where each cell ends, and whether it was quoted.
    ends: Vec<(usize, bool)>,
}

impl Record {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn cell(&self, column: usize) -> Option<Result<&str, ()>> {
        let &(end, quoted) = self.ends.get(column)?;
        let start = column.checked_sub(1).map_or(0, |c| self.ends[c].0);
        let text = std::str::from_utf8(&self.bytes[start..end]).map_err(|_| ());
        Some(text.map(|t| if quoted { t } else { t.trim() }))
    }

    fn cells(&self) -> impl Iterator<Item = Option<&str>> {
        (0..self.len()).map(|c| self.cell(c)?.ok())
    }
}

struct Reader {
    input: Box<dyn BufRead + Send>,
    path: PathBuf,
    delimiter: u8,
    limits: Limits,
    line: u64,
}

impl Reader {
    fn open(dialect: &Dialect) -> Result<Self, DataError> {
        let path = dialect.path.clone();
        let file = BufReader::with_capacity(128 << 10, File::open(&path).map_err(DataError::read(&path))?);
        let mut input: Box<dyn BufRead + Send> = match dialect.packed {
            true => Box::new(BufReader::with_capacity(128 << 10, MultiGzDecoder::new(file))),
            false => Box::new(file),
        };
        let first = input.fill_buf().map_err(|e| damaged(&path, &e))?;
        if first.starts_with(&[0xff, 0xfe]) || first.starts_with(&[0xfe, 0xff]) {
            return Err(DataError::unsupported(&path, "UTF-16 text", "convert the file to UTF-8 first"));
        }
        if first.starts_with(&[0xef, 0xbb, 0xbf]) {
            input.consume(3);
        }
        Ok(Self { input, path, delimiter: dialect.delimiter, limits: dialect.limits, line: 1 })
    }

    fn skip_header(&mut self, header: bool) -> Result<(), DataError> {
        if header {
            self.next(&mut Record::default())?;
        }
        Ok(())
    }

    /// The separator that is most frequent in the first line, outside quotes; a space where there is no other.
    fn guess_delimiter(&mut self) -> Result<u8, DataError> {
        let candidates = [b',', b';', b'\t', b'|', b' '];
        let mut counts = [0usize; 5];
        let (mut quoted, mut read) = (false, 0);
        'all: loop {
            let buffer = self.input.fill_buf().map_err(|e| damaged(&self.path, &e))?;
            if buffer.is_empty() || read > self.limits.record_bytes {
                break;
            }
            let n = buffer.len();
            for &byte in buffer {
                read += 1;
                match byte {
                    b'"' => quoted = !quoted,
                    b'\n' if !quoted && counts.iter().any(|&c| c > 0) => break 'all,
                    b => {
                        if let Some(i) = candidates.iter().position(|&c| c == b && !quoted) {
                            counts[i] += 1;
                        }
                    }
                }
            }
            self.input.consume(n);
        }
        // Spaces stand inside names and texts; they separate only where nothing else does.
        if counts[..4].iter().any(|&c| c > 0) {
            counts[4] = 0;
        }
        let most = counts.iter().max().copied().unwrap_or(0);
        Ok(counts.iter().position(|&c| c == most && c > 0).map_or(b',', |i| candidates[i]))
    }

    /// Reads the next record that is not blank; `false` at the end of the file.
    fn next(&mut self, record: &mut Record) -> Result<bool, DataError> {
        loop {
            record.bytes.clear();
            record.ends.clear();
            let more = self.read_record(record)?;
            let blank = record.ends.len() == 1 && record.ends[0].0 == 0 && !record.ends[0].1;
            if !more || !blank {
                return Ok(more);
            }
        }
    }

    fn read_record(&mut self, record: &mut Record) -> Result<bool, DataError> {
        #[derive(PartialEq, Clone, Copy)]
        enum State {
            CellStart,
            Plain,
            Quoted,
            /// After a quote inside quotes: the end, or half of a doubled quote.
            Closing,
        }
        let start_line = self.line;
        let (mut state, mut quoted, mut any) = (State::CellStart, false, false);
        loop {
            let buffer = self.input.fill_buf().map_err(|e| damaged(&self.path, &e))?;
            if buffer.is_empty() {
                if state == State::Quoted {
                    let part = format!("line {start_line}");
                    return Err(DataError::malformed(&self.path, part, "a quote is opened and never closed"));
                }
                if any {
                    end_cell(record, quoted);
                }
                return Ok(any);
            }
            let mut used = 0;
            let mut ended = false;
            for &byte in buffer {
                used += 1;
                any = true;
                match (state, byte) {
                    (State::Quoted, b'"') => state = State::Closing,
                    (State::Closing, b'"') => {
                        record.bytes.push(b'"');
                        state = State::Quoted;
                    }
                    (State::Quoted, _) => {
                        self.line += u64::from(byte == b'\n');
                        record.bytes.push(byte);
                    }
                    (_, b'\n') => {
                        self.line += 1;
                        end_cell(record, quoted);
                        ended = true;
                        break;
                    }
                    (_, b) if b == self.delimiter => {
                        end_cell(record, quoted);
                        (state, quoted) = (State::CellStart, false);
                    }
                    (State::CellStart, b'"') => (state, quoted) = (State::Quoted, true),
                    // Spaces before a quote are common in hand-written files and carry nothing.
                    (State::CellStart, b' ') => {}
                    (State::Closing, b'\r' | b' ') => {}
                    (_, 0) => {
                        let part = format!("line {}", self.line);
                        return Err(DataError::malformed(&self.path, part, "holds a NUL byte; this is no text file"));
                    }
                    (_, b) => {
                        if state == State::CellStart {
                            state = State::Plain;
                        }
                        record.bytes.push(b);
                    }
                }
            }
            self.input.consume(used);
            if record.bytes.len() > self.limits.record_bytes {
                let part = format!("the record that starts in line {start_line}, bytes");
                let (value, limit) = (record.bytes.len(), self.limits.record_bytes);
                return Err(DataError::limit(&self.path, part, value, limit, "record_bytes"));
            }
            if record.ends.len() > self.limits.columns {
                let part = format!("cells of the record that starts in line {start_line}");
                return Err(DataError::limit(&self.path, part, record.ends.len(), self.limits.columns, "columns"));
            }
            if ended {
                return Ok(true);
            }
        }
    }
}

fn end_cell(record: &mut Record, quoted: bool) {
    if !quoted {
        // The carriage return of a Windows line end, and spaces before the separator.
        let start = record.ends.last().map_or(0, |e| e.0);
        while record.bytes.len() > start && matches!(record.bytes.last(), Some(b'\r' | b' ')) {
            record.bytes.pop();
        }
    }
    record.ends.push((record.bytes.len(), quoted));
}

fn damaged(path: &Path, e: &std::io::Error) -> DataError {
    DataError::malformed(path, "text", format!("cannot be read: {e}"))
}
