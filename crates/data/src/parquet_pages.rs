//! What a Parquet file claims is checked here before the Parquet library acts on it.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use crate::thrift::{self, Fault};
use crate::{DataError, Limits};

pub(crate) const MAGIC: &[u8] = b"PAR1";
/// Values of one page; writers stay four orders of magnitude below.
const MAX_PAGE_VALUES: i64 = 1 << 26;
/// Page headers hold little more than the smallest and largest value.
const MAX_PAGE_HEADER: usize = 1 << 20;

/// Turns errors and panics of the Parquet library into our own errors.
///
/// All claims that are known to make it allocate are checked before. Decoders that meet damaged values may still panic
/// (seen with delta-encoded text); such a panic is an error about the file, so it is neither passed on nor printed.
pub(crate) fn guarded<T>(path: &Path, part: &str, work: impl FnOnce() -> ParquetResult<T>) -> Result<T, DataError> {
    // The hook that prints is global: ours stays silent inside this function and hands on everything else.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                before(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(DataError::malformed(path, part, e.to_string())),
        Err(_) => Err(DataError::malformed(path, part, "the data is damaged")),
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn check_footer(file: &PositionedFile, path: &Path, limits: &Limits) -> Result<(), DataError> {
    let bad = |reason: String| DataError::malformed(path, "footer", reason);
    let size = file.size;
    if size < 12 {
        return Err(bad("the file is too short".into()));
    }
    let mut tail = [0; 8];
    file.read_exact_at(&mut tail, size - 8).map_err(DataError::read(path))?;
    let length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    match &tail[4..] {
        MAGIC => {}
        b"PARE" => return Err(DataError::unsupported(path, "encryption", "decrypt the file first")),
        _ => return Err(bad("the file does not end as Parquet files do: it is cut off".into())),
    }
    if length > size - 12 {
        return Err(bad(format!("it claims {length} bytes, the file has {size}")));
    }
    if length > limits.footer_bytes {
        return Err(DataError::limit(path, "footer, bytes", length, limits.footer_bytes, "footer_bytes"));
    }
    let mut footer = vec![0; length as usize];
    file.read_exact_at(&mut footer, size - 8 - length).map_err(DataError::read(path))?;
    thrift::check_footer(&footer, limits.columns).map_err(|fault| match fault {
        Fault::Short => bad("it is cut off".into()),
        Fault::Bad(reason) => bad(reason),
    })
}

/// Walks over the page headers of a column chunk. Returns the most bytes that its pages need at the same time.
pub(crate) fn check_pages(
    file: &PositionedFile,
    chunk: &ColumnChunkMetaData,
    values: u64,
    at_most: bool,
    path: &Path,
    part: &str,
    limits: &Limits,
) -> Result<u64, DataError> {
    let bad = |reason: String| DataError::malformed(path, part, reason);
    if chunk.file_path().is_some() {
        return Err(DataError::unsupported(path, part, "its data lies in another file"));
    }
    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let range = u64::try_from(start).ok().zip(u64::try_from(chunk.compressed_size()).ok());
    let range = range.and_then(|(s, n)| Some((s, s.checked_add(n)?))).filter(|&(_, end)| end <= file.size);
    let (mut at, end) = range.ok_or_else(|| bad("lies outside the file".into()))?;
    let claimed = u64::try_from(chunk.num_values()).unwrap_or(u64::MAX);
    if claimed > values || (!at_most && claimed != values) {
        return Err(bad(format!("claims {claimed} values where the rows need {values}")));
    }
    let (mut seen, mut largest, mut dictionary) = (0u64, 0u64, 0u64);
    let mut buffer = Vec::new();
    while at < end && seen < claimed {
        // Most headers fit 256 bytes; those with long minimum and maximum texts do not.
        let mut window = 256;
        let claim = loop {
            let n = (window as u64).min(end - at) as usize;
            buffer.resize(n, 0);
            file.read_exact_at(&mut buffer, at).map_err(DataError::read(path))?;
            match thrift::page_header(&buffer) {
                Ok(claim) => break claim,
                Err(Fault::Short) if n == window && window < MAX_PAGE_HEADER => window *= 8,
                Err(Fault::Short) => return Err(bad("a page header is cut off".into())),
                // A list may look too long only because the window is short.
                Err(Fault::Bad(_)) if n == window && window < 4096 => window *= 8,
                Err(Fault::Bad(reason)) => return Err(bad(format!("a page header is damaged: {reason}"))),
            }
        };
        let (Ok(packed), Ok(unpacked)) = (u64::try_from(claim.packed), u64::try_from(claim.unpacked)) else {
            return Err(bad("a page has a negative size".into()));
        };
        if !(0..=MAX_PAGE_VALUES).contains(&claim.values) {
            return Err(bad(format!("a page claims {} values", claim.values)));
        }
        at = (at + claim.header as u64).saturating_add(packed);
        if at > end {
            return Err(bad("a page reaches beyond its column".into()));
        }
        // Dictionaries are held as values of up to 40 bytes each, so they get an eighth of what a page may have.
        let limit = if claim.dictionary { limits.page_bytes / 8 } else { limits.page_bytes };
        if unpacked > limit {
            return Err(DataError::limit(path, format!("{part}: a page, bytes"), unpacked, limit, "page_bytes"));
        }
        if claim.dictionary {
            if claim.values as u64 > unpacked {
                return Err(bad(format!("a dictionary of {unpacked} bytes claims {} values", claim.values)));
            }
            dictionary = dictionary.max(unpacked);
        } else {
            seen += claim.values as u64;
            largest = largest.max(unpacked + packed);
        }
    }
    if seen != claimed {
        return Err(bad(format!("the pages hold {seen} values, the footer says {claimed}")));
    }
    Ok(largest + dictionary)
}

/// Passes pages on after checking what is only visible in the unpacked bytes.
pub(crate) struct CheckedPages {
    pub(crate) inner: SerializedPageReader<PositionedFile>,
    pub(crate) budget: Option<Arc<AtomicU64>>,
    pub(crate) levels: (bool, bool),
    /// Whether a dictionary has come.
    pub(crate) dictionary: bool,
}

impl CheckedPages {
    fn check(&mut self, page: &Page) -> ParquetResult<()> {
        let bad = |what: &str| Err(ParquetError::General(what.to_string()));
        let (buf, values, encoding, start) = match page {
            Page::DataPage { buf, num_values, encoding, .. } => {
                let mut start = 0usize;
                for present in [self.levels.0, self.levels.1] {
                    if present {
                        let Some(length) = buf.get(start..start.saturating_add(4)) else {
                            return bad("a page ends inside its levels");
                        };
                        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
                        start = start.saturating_add(4).saturating_add(length);
                    }
                }
                (buf, *num_values, *encoding, start)
            }
            Page::DataPageV2 { buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let start = (*def_levels_byte_len as usize).saturating_add(*rep_levels_byte_len as usize);
                (buf, *num_values, *encoding, start)
            }
            Page::DictionaryPage { .. } => {
                self.dictionary = true;
                return Ok(());
            }
        };
        let Some(data) = buf.get(start..) else { return bad("a page ends inside its levels") };
        if matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) && !self.dictionary {
            return bad("a page needs a dictionary that has not come");
        }
        let delta = matches!(
            encoding,
            Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY
        );
        // The decoders reserve memory for the count that delta-encoded bytes themselves claim.
        if delta && !data.is_empty() && thrift::delta_count(data).map_or(true, |n| n > u64::from(values)) {
            return bad("delta-encoded values claim a count that the page does not have");
        }
        if let Some(budget) = &self.budget {
            let left = budget.load(Ordering::Relaxed);
            if left == 0 {
                return bad("a list is longer than its column's shape");
            }
            budget.store(left.saturating_sub(u64::from(values)), Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Iterator for CheckedPages {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        let page = self.inner.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.inner.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> ParquetResult<bool> {
        self.inner.at_record_boundary()
    }
}

/// A file that several threads read at positions of their own.
#[derive(Clone)]
pub(crate) struct PositionedFile {
    pub(crate) file: Arc<File>,
    pub(crate) size: u64,
}

impl PositionedFile {
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::read(path))?;
        let size = file.metadata().map_err(DataError::read(path))?.len();
        Ok(Self { file: Arc::new(file), size })
    }

    #[cfg(unix)]
    fn read_at(&self, buf: &mut [u8], at: u64) -> std::io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&*self.file, buf, at)
    }

    #[cfg(windows)]
    fn read_at(&self, buf: &mut [u8], at: u64) -> std::io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&*self.file, buf, at)
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> std::io::Result<()> {
        PositionedReader { file: self.clone(), at }.read_exact(buf)
    }
}

pub(crate) struct PositionedReader {
    file: PositionedFile,
    at: u64,
}

impl Read for PositionedReader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Length for PositionedFile {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for PositionedFile {
    type T = BufReader<PositionedReader>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        // Only headers are read this way, and all columns may be open at once.
        Ok(BufReader::with_capacity(1024, PositionedReader { file: self.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<bytes::Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(ParquetError::EOF("data lies outside the file".into()));
        }
        let mut buffer = vec![0; length];
        self.read_exact_at(&mut buffer, start)?;
        Ok(buffer.into())
    }
}
