//! Files from strangers: every one ends in a structured error, without a panic and without a large allocation.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Folder, fixture, gzip, message, names, open};
use netproof_data::{DataError, Dataset, OnBadRow, OpenOptions};

/// Remembers the largest allocation of the whole test binary.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static WATCHING: Watching = Watching;

/// Far below the gigabytes that the files claim, above what honest limits allow small files to need.
const LARGEST_ALLOWED: usize = 80 << 20;

fn assert_modest() {
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < LARGEST_ALLOWED, "an allocation of {largest} bytes");
}

/// Opens and reads everything, forward.
fn read(spec: &str, options: &OpenOptions) -> Result<usize, DataError> {
    let data = Dataset::open(spec, options)?;
    let mut rows = 0;
    for batch in data.batches(64) {
        rows += batch?.len();
    }
    Ok(rows)
}

fn refused(spec: &str) -> String {
    let error = read(spec, &OpenOptions::default()).expect_err("the file must be refused");
    assert_modest();
    message(&error)
}

/// Every prefix is refused; every damaged byte gives rows or an error.
fn cut_and_flip(folder: &Folder, name: &str, bytes: &[u8], options: &OpenOptions, step: usize) {
    for end in (0..bytes.len()).step_by(step) {
        let spec = folder.file(name, &bytes[..end]);
        assert!(read(&spec, options).is_err(), "{name} cut at {end}");
    }
    let mut damaged = bytes.to_vec();
    for at in (0..bytes.len()).step_by(step) {
        for flip in [0x01, 0x80, 0xff] {
            damaged[at] ^= flip;
            let _ = read(&folder.file(name, &damaged), options);
            damaged[at] ^= flip;
        }
    }
    assert_modest();
}

#[test]
fn cut_and_damaged_archives() {
    let folder = Folder::new();
    for file in ["numpy_packed.npz", "numpy_fortran.npz", "numpy_images.npz"] {
        let bytes = std::fs::read(fixture(file)).unwrap();
        cut_and_flip(&folder, "a.npz", &bytes, &OpenOptions::default(), 1);
    }
}

#[test]
fn cut_and_damaged_parquet() {
    let folder = Folder::new();
    let options = OpenOptions { features: Some(names(&["id", "age", "city", "vec"])), ..OpenOptions::default() };
    for (file, step) in [("table_zstd_v2", 61), ("table_lz4_delta", 59), ("table_none_v1_small_pages", 67)] {
        let bytes = std::fs::read(fixture(&format!("{file}.parquet"))).unwrap();
        cut_and_flip(&folder, "a.parquet", &bytes, &options, step);
    }
}

#[test]
fn cut_and_damaged_pictures() {
    let folder = Folder::new();
    for file in ["rgb.png", "palette.png", "colour.jpg", "progressive.jpg"] {
        let bytes = std::fs::read(fixture(&format!("pictures/{file}"))).unwrap();
        cut_and_flip_pictures(&folder, &bytes);
    }
    assert_modest();
}

fn cut_and_flip_pictures(folder: &Folder, bytes: &[u8]) {
    let mut damaged = bytes.to_vec();
    for at in (0..bytes.len()).step_by(3) {
        folder.file("class/p", &bytes[..at]);
        let _ = read(&folder.spec(), &OpenOptions::default());
        damaged[at] ^= 0x55;
        folder.file("class/p", &damaged);
        let _ = read(&folder.spec(), &OpenOptions::default());
        damaged[at] ^= 0x55;
    }
}

/// A stored member of a hand-made archive.
struct Entry {
    name: &'static str,
    data: Vec<u8>,
    method: u16,
    flags: u16,
    crc: Option<u32>,
    /// Size that both headers claim; the real one if `None`.
    unpacked: Option<u32>,
}

impl Entry {
    fn new(name: &'static str, data: Vec<u8>) -> Self {
        Self { name, data, method: 0, flags: 0, crc: None, unpacked: None }
    }
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for e in entries {
        let mut crc = flate2::Crc::new();
        crc.update(&e.data);
        let mut common = Vec::new();
        [e.flags, e.method, 0, 0x21].iter().for_each(|v| common.extend(v.to_le_bytes()));
        common.extend(e.crc.unwrap_or(crc.sum()).to_le_bytes());
        common.extend((e.data.len() as u32).to_le_bytes());
        common.extend(e.unpacked.unwrap_or(e.data.len() as u32).to_le_bytes());
        common.extend((e.name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        let at = out.len() as u32;
        out.extend(b"PK\x03\x04\x14\x00");
        out.extend(&common);
        out.extend(e.name.as_bytes());
        out.extend(&e.data);
        directory.extend(b"PK\x01\x02\x14\x00\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(e.name.as_bytes());
    }
    let (at, count) = (out.len() as u32, entries.len() as u16);
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn npy(shape: &str, data: usize) -> Vec<u8> {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out.extend(vec![0; data]);
    out
}

fn deflated(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

#[test]
fn archives_that_lie() {
    let folder = Folder::new();
    let x = || Entry::new("x.npy", npy("(2, 3)", 24));
    let case = |entries: &[Entry]| folder.file("a.npz", archive(entries));
    assert_eq!(read(&case(&[x()]), &OpenOptions::default()).unwrap(), 2, "the archive itself is sound");

    let crc = refused(&case(&[Entry { crc: Some(1), ..x() }]));
    assert!(crc.contains("checksum"), "{crc}");
    assert!(refused(&case(&[Entry { flags: 1, ..x() }])).contains("encrypted"));
    assert!(refused(&case(&[x(), x()])).contains("twice"));
    assert!(refused(&case(&[Entry { method: 14, ..x() }])).contains("packing method 14"));
    assert!(refused(&case(&[Entry::new("../x.npy", npy("(2, 3)", 24))])).contains("no plain name"));
    assert!(refused(&case(&[Entry { unpacked: Some(1 << 30), ..x() }])).contains("sizes differ"));
    let more = Entry::new("x.npy", npy("(1000000000, 100)", 24));
    assert!(refused(&case(&[more])).contains("400000000000 bytes"));
    // The deflated data is shorter or longer than the header says.
    let inner = npy("(2, 3)", 24);
    let packed = |unpacked: usize| Entry {
        method: 8,
        crc: Some(0),
        unpacked: Some(unpacked as u32),
        ..Entry::new("x.npy", deflated(&inner))
    };
    refused(&case(&[packed(inner.len() + 4)]));
    refused(&case(&[packed(inner.len() - 4)]));
    // More than deflate can unpack to at all.
    assert!(refused(&case(&[packed(2_000_000_000)])).contains("ratio"));
    // 128 MiB of zeros in 130 KB: possible, but nobody's data.
    let zeros = npy("(4096, 8192)", 128 << 20);
    let bomb = Entry { method: 8, unpacked: Some(zeros.len() as u32), ..Entry::new("x.npy", deflated(&zeros)) };
    drop(zeros);
    LARGEST.store(0, Ordering::Relaxed);
    assert!(refused(&case(&[bomb])).contains("ratio"));
    // An archive in an archive, a checkpoint, and nothing at all.
    assert!(refused(&case(&[Entry::new("inner.npz", archive(&[x()]))])).contains("without NPY arrays"));
    let checkpoint = read(&case(&[Entry::new("model/data.pkl", vec![0x80, 2])]), &OpenOptions::default());
    assert!(matches!(checkpoint, Err(DataError::Pickle { .. })));
    refused(&case(&[]));
}

#[test]
fn archives_whose_members_overlap() {
    let folder = Folder::new();
    let mut bytes = archive(&[Entry::new("x.npy", npy("(2, 3)", 24)), Entry::new("y.npy", npy("(2,)", 8))]);
    // The first member claims to reach into the second: both headers get the larger size.
    let size = (npy("(2, 3)", 24).len() as u32).to_le_bytes();
    let grown = (npy("(2, 3)", 24).len() as u32 + 30).to_le_bytes();
    let at: Vec<usize> = (0..bytes.len() - 4).filter(|&i| bytes[i..i + 4] == size).collect();
    at.iter().for_each(|&i| bytes[i..i + 4].copy_from_slice(&grown));
    assert!(refused(&folder.file("o.npz", &bytes)).contains("shares bytes"), "{at:?}");
}

#[test]
fn index_files_that_lie() {
    let folder = Folder::new();
    let huge = [&[0, 0, 8, 3][..], &[0x7f, 0xff, 0xff, 0xff], &[0, 0, 0, 28], &[0, 0, 0, 28], &[1, 2, 3]].concat();
    assert!(refused(&folder.file("images", &huge)).contains("needs"));
    // Packed, the size is not known before the end.
    assert!(refused(&folder.file("images.gz", gzip(&huge))).contains("less data"));
    let wide = [&[0, 0, 8, 2][..], &[0, 0, 0, 1], &[0x7f, 0xff, 0xff, 0xff]].concat();
    assert!(refused(&folder.file("wide.gz", gzip(&wide))).contains("row_bytes"));
    let overflow = [&[0, 0, 14, 4][..], &[0xff; 16]].concat();
    assert!(refused(&folder.file("overflow", &overflow)).contains("address"));
    let trailing = [&[0, 0, 8, 1][..], &[0, 0, 0, 2], &[1, 2, 3]].concat();
    assert!(refused(&folder.file("t.gz", gzip(&trailing))).contains("more data"));
    refused(&folder.file("rank", [0, 0, 8, 32, 0]));
}

#[test]
fn hostile_tables() {
    let folder = Folder::new();
    let file = |content: &[u8]| folder.file("t.csv", content);
    assert!(refused(&file(b"a,b\n1,\"2\n3,4\n")).contains("never closed"));
    assert!(refused(&file(b"a,b\n1,2\n3\0,4\n")).contains("binary"));
    let late = [b"a,b\n".to_vec(), b"1,2\n".repeat(2000), b"3\0,4\n".to_vec()].concat();
    assert!(refused(&file(&late)).contains("NUL byte"));
    assert!(refused(&file(b"\xff\xfea\0,\0b\0")).contains("UTF-16"));
    assert!(refused(&file(b"caf\xe9,b\n1,2\n")).contains("UTF-8"));
    let latin = read(&file(b"a,c,y\n1,caf\xe9,0\n2,tea,1\n"), &OpenOptions::default()).unwrap_err();
    assert!(matches!(&latin, DataError::BadRow { row: 0, reason, .. } if reason.contains("UTF-8")), "{latin}");
    let wide = vec!["a"; 200_000].join(",");
    assert!(refused(&file(wide.as_bytes())).contains("columns"));
    // A line of 64 MiB in 64 KB.
    let line = gzip(&vec![b'7'; 64 << 20]);
    LARGEST.store(0, Ordering::Relaxed);
    assert!(refused(&folder.file("l.csv.gz", line)).contains("record_bytes"));
    let text = b"a,b\n".iter().chain(b"1,2\n".iter().cycle().take(400)).copied().collect::<Vec<u8>>();
    let packed = gzip(&text);
    for end in 0..packed.len() {
        assert!(read(&folder.file("c.csv.gz", &packed[..end]), &OpenOptions::default()).is_err(), "cut at {end}");
    }
    assert_eq!(
        read(&file(b"a,b\n"), &OpenOptions::default()).unwrap(),
        0,
        "a table without rows is empty, not damaged"
    );
    refused(&file(b"\n\n\n"));
}

/// Thrift's compact protocol, as much as hand-made Parquet files need.
#[derive(Default)]
struct Thrift(Vec<u8>, Vec<i64>, i64);

impl Thrift {
    fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }

    fn field(&mut self, id: i64, kind: u8) {
        self.0.push(((id - self.2) as u8) << 4 | kind);
        self.2 = id;
    }

    fn int(mut self, id: i64, kind: u8, v: i64) -> Self {
        self.field(id, kind);
        self.varint((v << 1 ^ v >> 63) as u64);
        self
    }

    fn text(mut self, id: i64, v: &str) -> Self {
        self.field(id, 8);
        self.varint(v.len() as u64);
        self.0.extend(v.as_bytes());
        self
    }

    fn list(mut self, id: i64, kind: u8, count: usize) -> Self {
        self.field(id, 9);
        self.0.push((count as u8) << 4 | kind);
        self
    }

    fn open(mut self, id: i64) -> Self {
        self.field(id, 12);
        self.element()
    }

    fn element(mut self) -> Self {
        self.1.push(self.2);
        self.2 = 0;
        self
    }

    fn close(mut self) -> Self {
        self.0.push(0);
        self.2 = self.1.pop().unwrap_or(0);
        self
    }

    fn raw(mut self, v: &[u8]) -> Self {
        self.0.extend(v);
        self
    }
}

/// One required column `a` and what is claimed about it.
struct Claims {
    physical: i64,
    rows: i64,
    values: i64,
    page_values: i64,
    unpacked: i64,
    encoding: i64,
    codec: i64,
    dictionary: Option<i64>,
    offset: Option<i64>,
    page: Vec<u8>,
}

impl Claims {
    fn honest() -> Self {
        let page: Vec<u8> = [1i32, 2, 3, 4].iter().flat_map(|v| v.to_le_bytes()).collect();
        Self {
            physical: 1,
            rows: 4,
            values: 4,
            page_values: 4,
            unpacked: page.len() as i64,
            encoding: 0,
            codec: 0,
            dictionary: None,
            offset: None,
            page,
        }
    }

    fn file(&self) -> Vec<u8> {
        let mut out = b"PAR1".to_vec();
        let dictionary_at = out.len() as i64;
        if let Some(values) = self.dictionary {
            let header = Thrift::default().int(1, 5, 2).int(2, 5, 16).int(3, 5, 16);
            let header = header.open(7).int(1, 5, values).int(2, 5, 0).close().close();
            out.extend(header.0);
            out.extend([0; 16]);
        }
        let page_at = out.len() as i64;
        let header = Thrift::default().int(1, 5, 0).int(2, 5, self.unpacked).int(3, 5, self.page.len() as i64);
        let header = header.open(5).int(1, 5, self.page_values).int(2, 5, self.encoding).int(3, 5, 3).int(4, 5, 3);
        out.extend(header.close().close().0);
        out.extend(&self.page);
        let size = out.len() as i64 - dictionary_at;
        let mut column = Thrift::default()
            .int(1, 5, self.physical)
            .list(2, 5, 1)
            .raw(&[(self.encoding << 1) as u8])
            .list(3, 8, 1)
            .raw(&[1, b'a'])
            .int(4, 5, self.codec)
            .int(5, 6, self.values)
            .int(6, 6, size)
            .int(7, 6, size)
            .int(9, 6, self.offset.unwrap_or(page_at));
        if self.dictionary.is_some() {
            column = column.int(11, 6, dictionary_at);
        }
        let footer = Thrift::default()
            .int(1, 5, 1)
            .list(2, 12, 2)
            .element()
            .text(4, "root")
            .int(5, 5, 1)
            .close()
            .element()
            .int(1, 5, self.physical)
            .int(3, 5, 0)
            .text(4, "a")
            .close()
            .int(3, 6, self.rows)
            .list(4, 12, 1)
            .element()
            .list(1, 12, 1)
            .element()
            .int(2, 6, 0)
            .open(3)
            .raw(&column.close().0)
            .close_shared()
            .close()
            .int(2, 6, size)
            .int(3, 6, self.rows)
            .close()
            .close();
        out.extend(&footer.0);
        out.extend((footer.0.len() as u32).to_le_bytes());
        out.extend(b"PAR1");
        out
    }
}

impl Thrift {
    /// After a structure whose bytes, end included, were put in as they are.
    fn close_shared(mut self) -> Self {
        self.2 = self.1.pop().unwrap_or(0);
        self
    }
}

#[test]
fn parquet_that_claims_more_than_it_has() {
    let folder = Folder::new();
    let options = OpenOptions { unlabelled: true, ..OpenOptions::default() };
    let case = |claims: Claims| {
        let result = read(&folder.file("c.parquet", claims.file()), &options);
        assert_modest();
        result.map_err(|e| message(&e))
    };
    assert_eq!(case(Claims::honest()).unwrap(), 4, "the file itself is sound");
    let billion = 1_000_000_000;
    // A page of 16 bytes with 10^9 values, alone and with a footer to match.
    assert!(case(Claims { page_values: billion, ..Claims::honest() }).is_err());
    let agreed = Claims { page_values: billion, values: billion, rows: billion, ..Claims::honest() };
    assert!(case(agreed).unwrap_err().contains("1000000000 values"));
    let million = Claims { page_values: 1 << 25, values: 1 << 25, rows: 1 << 25, ..Claims::honest() };
    assert!(case(million).is_err());
    // Sizes that unpacking would have to believe.
    let bomb = Claims { unpacked: i64::from(i32::MAX), codec: 6, ..Claims::honest() };
    assert!(case(bomb).unwrap_err().contains("page_bytes"));
    assert!(case(Claims { unpacked: -1, codec: 6, ..Claims::honest() }).unwrap_err().contains("negative"));
    // A dictionary of 16 bytes with 2^30 values, and indices beyond a dictionary.
    let dictionary =
        Claims { dictionary: Some(1 << 20), encoding: 8, page: vec![1, 8, 0], unpacked: 3, ..Claims::honest() };
    let error = case(dictionary).unwrap_err();
    assert!(error.contains("dictionary"), "{error}");
    let beyond = Claims { dictionary: Some(4), encoding: 8, page: vec![8, 8, 200], unpacked: 3, ..Claims::honest() };
    assert!(case(beyond).is_err());
    // Delta-encoded lengths: block 128, 4 miniblocks, 2^31 values.
    let lengths = vec![0x80, 1, 4, 0x80, 0x80, 0x80, 0x80, 8, 0];
    let delta = Claims { physical: 6, encoding: 6, unpacked: lengths.len() as i64, page: lengths, ..Claims::honest() };
    assert!(case(delta).unwrap_err().contains("delta"));
    for (rows, values) in [(5, 4), (4, 5), (-1, 4), (i64::MAX, 4), (4, -1)] {
        assert!(case(Claims { rows, values, ..Claims::honest() }).is_err(), "{rows} {values}");
    }
    for offset in [-1, 3, 1 << 40, i64::MAX] {
        assert!(case(Claims { offset: Some(offset), ..Claims::honest() }).is_err(), "{offset}");
    }
    // A footer that is longer than the file, and one that is not there.
    let mut bytes = Claims::honest().file();
    let at = bytes.len() - 8;
    bytes[at..at + 4].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    assert!(refused(&folder.file("f.parquet", &bytes)).contains("claims 4294967280 bytes"));
    refused(&folder.file("g.parquet", b"PAR1PAR1"));
    refused(&folder.file("h.parquet", b"PAR1\0\0\0\0PAR1"));
}

#[test]
fn image_folders_stay_in_their_folder() {
    let folder = Folder::new();
    let secret = std::fs::read(fixture("pictures/rgb.png")).unwrap();
    folder.file("outside/secret.png", &secret);
    folder.file("root/class/a.png", &secret);
    folder.file("root/manifest.csv", "file,label\n../outside/secret.png,0\nclass/a.png,1\n/etc/passwd,0\n,1\n");
    let skip = OpenOptions { on_bad_row: OnBadRow::Skip, ..OpenOptions::default() };
    let root = folder.path("root").to_str().unwrap().to_string();
    let data = Dataset::open(&root, &skip).unwrap();
    assert_eq!((data.len(), data.bad_row_count()), (1, 3), "{:?}", data.bad_rows());
    assert!(data.bad_rows()[0].reason.contains("does not stay below"));
    #[cfg(unix)]
    {
        std::fs::remove_file(folder.path("root/manifest.csv")).unwrap();
        std::os::unix::fs::symlink(folder.path("outside/secret.png"), folder.path("root/class/b.png")).unwrap();
        let data = Dataset::open(&root, &skip).unwrap();
        assert!(data.len() == 1 && data.bad_rows()[0].reason.contains("link"), "{:?}", data.bad_rows());
        std::os::unix::fs::symlink(folder.path("outside"), folder.path("root/other")).unwrap();
        assert!(matches!(open(&root), Err(DataError::Unsupported { .. })));
        std::fs::remove_file(folder.path("root/other")).unwrap();
        folder.file("root/manifest.csv", "file,label\nlinked/secret.png,0\nclass/a.png,1\n");
        std::os::unix::fs::symlink(folder.path("outside"), folder.path("root/linked")).unwrap();
        let data = Dataset::open(&root, &skip).unwrap();
        assert!(data.len() == 1 && data.bad_rows()[0].reason.contains("link"), "{:?}", data.bad_rows());
    }
}

#[test]
fn text_in_a_picture_is_not_unpacked() {
    let folder = Folder::new();
    let picture = std::fs::read(fixture("pictures/rgb.png")).unwrap();
    // A compressed text of 64 MiB after the header, which ends at byte 33.
    let mut text = b"zTXtbomb\0\0".to_vec();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut std::io::Read::take(std::io::repeat(b'a'), 64 << 20), &mut zlib).unwrap();
    text.extend(zlib.finish().unwrap());
    let mut crc = flate2::Crc::new();
    crc.update(&text);
    let mut bytes = picture[..33].to_vec();
    bytes.extend((text.len() as u32 - 4).to_be_bytes());
    bytes.extend(&text);
    bytes.extend(crc.sum().to_be_bytes());
    bytes.extend(&picture[33..]);
    folder.file("class/bomb.png", bytes);
    assert_eq!(read(&folder.spec(), &OpenOptions::default()).unwrap(), 1);
    assert_modest();
}
