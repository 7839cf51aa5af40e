//! Reads Thrift's compact protocol far enough to check a Parquet footer and page headers before anyone allocates by them.
//!
//! Parquet libraries reserve memory for the list lengths, value counts and page sizes that a file claims; a file of 300
//! bytes can claim gigabytes (apache/arrow issue 49955). Walking the bytes first shows what is really there.
//!
//! # Source
//! Thrift compact protocol specification; `parquet.thrift` of apache/parquet-format.

/// Deeper nesting than any Parquet structure has.
const MAX_DEPTH: usize = 32;
/// Longest list in a footer, for instance of row groups or column chunks.
const MAX_LIST: u64 = 1 << 20;
/// Deepest nesting of a table's columns; deeper ones would overflow the stack of a recursive reader.
const MAX_SCHEMA_DEPTH: usize = 64;

/// Why bytes are not what they should be. `Short` means that they end too early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    Short,
    Bad(String),
}

type Result<T> = std::result::Result<T, Fault>;

pub(crate) struct Thrift<'a> {
    bytes: &'a [u8],
    pub(crate) at: usize,
}

const STRUCT: u8 = 12;
const LIST: u8 = 9;
const I32: u8 = 5;

impl<'a> Thrift<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or(Fault::Short)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Bad("a number of more than ten bytes".into()))
    }

    fn int(&mut self) -> Result<i64> {
        let z = self.varint()?;
        Ok((z >> 1) as i64 ^ -((z & 1) as i64))
    }

    /// Type and id of the next field of a structure, `None` at its end.
    fn field(&mut self, last: &mut i64) -> Result<Option<(u8, i64)>> {
        let byte = self.byte()?;
        let kind = byte & 0x0f;
        if byte == 0 {
            return Ok(None);
        }
        *last = match byte >> 4 {
            0 => self.int()?,
            delta => last.saturating_add(i64::from(delta)),
        };
        Ok(Some((kind, *last)))
    }

    fn list(&mut self) -> Result<(u8, u64)> {
        let byte = self.byte()?;
        let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
        // Every element takes at least one byte.
        if count > MAX_LIST || count > (self.bytes.len() - self.at) as u64 {
            return Err(Fault::Bad(format!("a list claims {count} entries, more than there is room for")));
        }
        Ok((byte & 0x0f, count))
    }

    fn skip_bytes(&mut self, count: u64) -> Result<()> {
        let left = self.bytes.len() - self.at;
        let count = usize::try_from(count).ok().filter(|&c| c <= left).ok_or(Fault::Short)?;
        self.at += count;
        Ok(())
    }

    fn skip(&mut self, kind: u8, depth: usize, in_list: bool) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Fault::Bad(format!("nested deeper than {MAX_DEPTH}")));
        }
        match kind {
            1 | 2 if in_list => self.skip_bytes(1),
            1 | 2 => Ok(()),
            3 => self.skip_bytes(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.skip_bytes(8),
            8 => {
                let length = self.varint()?;
                self.skip_bytes(length)
            }
            9 | 10 => {
                let (element, count) = self.list()?;
                (0..count).try_for_each(|_| self.skip(element, depth + 1, true))
            }
            11 => {
                let count = self.varint()?;
                if count > MAX_LIST || count > (self.bytes.len() - self.at) as u64 {
                    return Err(Fault::Bad(format!("a map claims {count} entries, more than there is room for")));
                }
                let kinds = if count > 0 { self.byte()? } else { 0 };
                for _ in 0..count {
                    self.skip(kinds >> 4, depth + 1, true)?;
                    self.skip(kinds & 0x0f, depth + 1, true)?;
                }
                Ok(())
            }
            STRUCT => {
                let mut last = 0;
                while let Some((kind, _)) = self.field(&mut last)? {
                    self.skip(kind, depth + 1, false)?;
                }
                Ok(())
            }
            13 => self.skip_bytes(16),
            other => Err(Fault::Bad(format!("type {other} does not exist"))),
        }
    }
}

/// Checks a footer: every list is really there, and the column tree is neither too deep nor too wide.
pub(crate) fn check_footer(bytes: &[u8], columns: usize) -> Result<()> {
    let mut t = Thrift::new(bytes);
    let mut last = 0;
    while let Some((kind, id)) = t.field(&mut last)? {
        if (kind, id) == (LIST, 2) {
            check_schema(&mut t, columns)?;
        } else {
            t.skip(kind, 0, false)?;
        }
    }
    Ok(())
}

fn check_schema(t: &mut Thrift<'_>, columns: usize) -> Result<()> {
    let (kind, count) = t.list()?;
    if kind != STRUCT {
        return Err(Fault::Bad("the schema is no list of structures".into()));
    }
    if count > 4 * columns as u64 {
        return Err(Fault::Bad(format!("the schema has {count} entries; at most {} are allowed", 4 * columns)));
    }
    // Entries come depth first; the stack holds how many children each open group still expects.
    let mut open: Vec<i64> = Vec::new();
    for _ in 0..count {
        let (mut last, mut children) = (0, 0);
        while let Some((kind, id)) = t.field(&mut last)? {
            if (kind, id) == (I32, 5) { children = t.int()? } else { t.skip(kind, 1, false)? }
        }
        if let Some(expected) = open.last_mut() {
            *expected -= 1;
        }
        if children < 0 || children > count as i64 {
            return Err(Fault::Bad(format!("a group of the schema claims {children} children")));
        }
        if children > 0 {
            open.push(children);
        }
        while open.last() == Some(&0) {
            open.pop();
        }
        if open.len() > MAX_SCHEMA_DEPTH {
            return Err(Fault::Bad(format!("columns are nested deeper than {MAX_SCHEMA_DEPTH}")));
        }
    }
    if !open.is_empty() {
        return Err(Fault::Bad("the schema ends before all its groups are complete".into()));
    }
    Ok(())
}

/// What a page header claims, and how long the header itself is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PageClaim {
    pub(crate) dictionary: bool,
    pub(crate) unpacked: i64,
    pub(crate) packed: i64,
    pub(crate) values: i64,
    pub(crate) header: usize,
}

/// Reads the page header at the start of `bytes`.
pub(crate) fn page_header(bytes: &[u8]) -> Result<PageClaim> {
    let mut t = Thrift::new(bytes);
    let mut claim = PageClaim { unpacked: -1, packed: -1, values: -1, ..PageClaim::default() };
    let mut last = 0;
    while let Some((kind, id)) = t.field(&mut last)? {
        match (kind, id) {
            (I32, 1) => claim.dictionary = t.int()? == 2,
            (I32, 2) => claim.unpacked = t.int()?,
            (I32, 3) => claim.packed = t.int()?,
            // Data page, dictionary page, data page of version 2: the first field is the number of values.
            (STRUCT, 5 | 7 | 8) => {
                let mut inner = 0;
                while let Some((kind, id)) = t.field(&mut inner)? {
                    if (kind, id) == (I32, 1) { claim.values = t.int()? } else { t.skip(kind, 1, false)? }
                }
            }
            _ => t.skip(kind, 0, false)?,
        }
    }
    claim.header = t.at;
    Ok(claim)
}

/// The four numbers at the start of delta-encoded values: block size, miniblocks, count, first value.
pub(crate) fn delta_count(bytes: &[u8]) -> Result<u64> {
    let mut t = Thrift::new(bytes);
    t.varint()?;
    t.varint()?;
    t.varint()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_header_is_read_and_every_cut_is_noticed() {
        // type 0, unpacked 100, packed 60, data page header with 25 values and encoding 0.
        let bytes = [0x15, 0, 0x15, 200, 1, 0x15, 120, 0x2c, 0x15, 50, 0x15, 0, 0, 0];
        let claim = page_header(&bytes).unwrap();
        assert_eq!(claim, PageClaim { dictionary: false, unpacked: 100, packed: 60, values: 25, header: bytes.len() });
        for cut in 0..bytes.len() {
            assert_eq!(page_header(&bytes[..cut]), Err(Fault::Short), "{cut}");
        }
    }

    #[test]
    fn claims_without_substance_are_refused() {
        // Field 4 is a list of 2^31 - 1 structures.
        let list = [0x49, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07];
        assert!(matches!(check_footer(&list, 100), Err(Fault::Bad(_))));
        // A schema of groups with one child each.
        let chain = |depth: u8| {
            let mut bytes = vec![0x29, 0xfc, depth];
            (1..depth).for_each(|_| bytes.extend([0x55, 2, 0]));
            bytes.extend([0, 0]);
            bytes
        };
        assert_eq!(check_footer(&chain(60), 100), Ok(()));
        let deep = check_footer(&chain(100), 100);
        assert!(matches!(&deep, Err(Fault::Bad(m)) if m.contains("deeper")), "{deep:?}");
        assert!(check_footer(&chain(100), 10).is_err());
        // Structures in structures without end.
        assert!(matches!(check_footer(&[0x1c; 200], 100), Err(Fault::Bad(_))));
        // A number that never ends.
        assert!(page_header(&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
