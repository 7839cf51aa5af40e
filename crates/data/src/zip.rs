//! The part of the ZIP format that NPZ files use: stored and deflated members, with ZIP64.
//!
//! Our own, because an archive from a stranger must be checked before anything in it is believed: the central directory
//! against the local headers, members against each other, packed against unpacked sizes, and the checksum at the end.
//!
//! # Source
//! PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::{DataError, Limits};

pub(crate) const MAGIC: &[u8] = b"PK\x03\x04";
const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
/// Below this unpacked size no ratio is suspicious: an array of zeros packs a thousand to one.
const RATIO_FREE_BYTES: u64 = 64 << 20;
/// Deflate cannot pack better than 1,032 to one; a header that claims more lies.
const DEFLATE_RATIO: u64 = 1_040;

/// A member that has passed all checks that need no unpacking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) deflated: bool,
    pub(crate) crc: u32,
    pub(crate) packed: u64,
    pub(crate) unpacked: u64,
    /// Where the packed bytes start.
    pub(crate) start: u64,
}

/// Lists the members in the order of the central directory.
pub(crate) fn members(file: &mut File, path: &Path, limits: &Limits) -> Result<Vec<Member>, DataError> {
    let bad = |reason: &str| DataError::malformed(path, "zip directory", reason);
    let io = |_| bad("ends too early");
    let size = file.metadata().map_err(DataError::read(path))?.len();

    // The end record is the last thing in the file, before a comment of at most 65,535 bytes.
    let tail_len = size.min(22 + 65_535 + 20);
    let mut tail = vec![0; tail_len as usize];
    file.seek(SeekFrom::Start(size - tail_len)).map_err(io)?;
    file.read_exact(&mut tail).map_err(io)?;
    let end = (0..tail.len().saturating_sub(21))
        .rev()
        .find(|&i| u32_at(&tail, i) == END && i + 22 + usize::from(u16_at(&tail, i + 20)) == tail.len())
        .ok_or_else(|| bad("no end record: the file is cut off or is no ZIP archive"))?;
    let mut count = u64::from(u16_at(&tail, end + 10));
    let mut length = u64::from(u32_at(&tail, end + 12));
    let mut offset = u64::from(u32_at(&tail, end + 16));
    let end_at = size - tail_len + end as u64;
    let mut directory_end = end_at;
    if (count == 0xffff || length == 0xffff_ffff || offset == 0xffff_ffff)
        && end >= 20
        && u32_at(&tail, end - 20) == LOCATOR_64
    {
        let at = u64_at(&tail, end - 12);
        if at.checked_add(56).is_none_or(|e| e > end_at) {
            return Err(bad("the ZIP64 end record lies outside the file"));
        }
        let mut record = [0; 56];
        file.seek(SeekFrom::Start(at)).map_err(io)?;
        file.read_exact(&mut record).map_err(io)?;
        if u32_at(&record, 0) != END_64 {
            return Err(bad("the ZIP64 end record is missing"));
        }
        (count, length, offset) = (u64_at(&record, 32), u64_at(&record, 40), u64_at(&record, 48));
        directory_end = at;
    }
    if count > limits.columns as u64 {
        return Err(DataError::limit(path, "number of archive members", count, limits.columns, "columns"));
    }
    if offset.checked_add(length) != Some(directory_end) {
        return Err(bad("the directory is not where the end record says"));
    }
    // Every entry takes at least 46 bytes, so this also bounds the buffer by what the file really has.
    if length > limits.footer_bytes {
        return Err(DataError::limit(path, "zip directory, bytes", length, limits.footer_bytes, "footer_bytes"));
    }
    let mut directory = vec![0; length as usize];
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    file.read_exact(&mut directory).map_err(io)?;

    let mut entries = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        let (entry, next) = central_entry(&directory, at, path, limits)?;
        entries.push(entry);
        at = next;
    }
    if at != directory.len() {
        return Err(bad("there are bytes after the last entry"));
    }
    let mut members = Vec::new();
    for (member, header) in entries {
        members.push(locate(file, member, header, offset, path)?);
    }
    check_apart(&members, path)?;
    Ok(members.into_iter().map(|(_, m)| m).collect())
}

/// One entry of the central directory with the offset of its local header, and where the next entry starts.
fn central_entry(d: &[u8], at: usize, path: &Path, limits: &Limits) -> Result<((Member, u64), usize), DataError> {
    let bad = |reason: String| DataError::malformed(path, "zip directory", reason);
    if at + 46 > d.len() || u32_at(d, at) != CENTRAL {
        return Err(bad("an entry is cut off or has no signature".into()));
    }
    let (flags, method) = (u16_at(d, at + 8), u16_at(d, at + 10));
    let crc = u32_at(d, at + 16);
    let (mut packed, mut unpacked) = (u64::from(u32_at(d, at + 20)), u64::from(u32_at(d, at + 24)));
    let name_len = usize::from(u16_at(d, at + 28));
    let (extra_len, comment_len) = (usize::from(u16_at(d, at + 30)), usize::from(u16_at(d, at + 32)));
    let mut header = u64::from(u32_at(d, at + 42));
    let next = at + 46 + name_len + extra_len + comment_len;
    if next > d.len() {
        return Err(bad("an entry is longer than the directory".into()));
    }
    let name = std::str::from_utf8(&d[at + 46..at + 46 + name_len]).map_err(|_| bad("a name is not UTF-8".into()))?;
    let mut extra = &d[at + 46 + name_len..at + 46 + name_len + extra_len];
    while extra.len() >= 4 {
        let (id, len) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some(mut body) = extra.get(4..4 + len) else {
            return Err(bad(format!("{name:?}: an extra field is cut off")));
        };
        if id == 1 {
            for (value, marker) in
                [(&mut unpacked, 0xffff_ffff), (&mut packed, 0xffff_ffff), (&mut header, 0xffff_ffff_u64)]
            {
                if *value == marker && body.len() >= 8 {
                    *value = u64_at(body, 0);
                    body = &body[8..];
                }
            }
        }
        extra = &extra[4 + len..];
    }
    let part = || format!("member {name:?}");
    if flags & 0x2041 != 0 {
        return Err(DataError::unsupported(path, part(), "it is encrypted; store it without a password"));
    }
    if name.contains('\0') || name.starts_with('/') || name.contains('\\') || name.split('/').any(|p| p == "..") {
        return Err(bad(format!("{name:?} is no plain name")));
    }
    let deflated = match method {
        0 => false,
        8 => true,
        m => {
            return Err(DataError::unsupported(
                path,
                part(),
                format!("packing method {m}; use numpy.savez or numpy.savez_compressed"),
            ));
        }
    };
    if !deflated && packed != unpacked {
        return Err(DataError::malformed(path, part(), "is stored, but its two sizes differ"));
    }
    if unpacked > limits.member_bytes {
        return Err(DataError::limit(path, part() + ", bytes", unpacked, limits.member_bytes, "member_bytes"));
    }
    let ratio = unpacked / packed.max(1);
    if deflated && (ratio > DEFLATE_RATIO || (ratio > limits.ratio && unpacked > RATIO_FREE_BYTES)) {
        return Err(DataError::limit(path, part() + ", unpacked to packed size", ratio, limits.ratio, "ratio"));
    }
    Ok(((Member { name: name.into(), deflated, crc, packed, unpacked, start: 0 }, header), next))
}

/// Follows the entry to its local header and checks that both tell the same story.
fn locate(
    file: &mut File,
    mut member: Member,
    header: u64,
    directory: u64,
    path: &Path,
) -> Result<(u64, Member), DataError> {
    let bad = |reason: &str| DataError::malformed(path, format!("member {:?}", member.name), reason);
    let mut local = [0; 30];
    file.seek(SeekFrom::Start(header)).map_err(|_| bad("starts outside the file"))?;
    file.read_exact(&mut local).map_err(|_| bad("starts outside the file"))?;
    let name_len = usize::from(u16_at(&local, 26));
    if u32_at(&local, 0) != LOCAL || name_len != member.name.len() {
        return Err(bad("the local header does not match the directory"));
    }
    let mut name = vec![0; name_len];
    file.read_exact(&mut name).map_err(|_| bad("starts outside the file"))?;
    let method = if member.deflated { 8 } else { 0 };
    if name != member.name.as_bytes() || u16_at(&local, 8) != method || u16_at(&local, 6) & 0x2041 != 0 {
        return Err(bad("the local header does not match the directory"));
    }
    let start = header + 30 + name_len as u64 + u64::from(u16_at(&local, 28));
    if start.checked_add(member.packed).is_none_or(|end| end > directory) {
        return Err(bad("reaches beyond the data of the archive"));
    }
    member.start = start;
    Ok((header, member))
}

/// No two members share a name or a byte; overlapping members are how small archives unpack to petabytes (Fifield 2019).
fn check_apart(members: &[(u64, Member)], path: &Path) -> Result<(), DataError> {
    let mut order: Vec<&(u64, Member)> = members.iter().collect();
    order.sort_by_key(|(header, _)| *header);
    for pair in order.windows(2) {
        if pair[0].1.start + pair[0].1.packed > pair[1].0 {
            let reason = format!("shares bytes with {:?}", pair[0].1.name);
            return Err(DataError::malformed(path, format!("member {:?}", pair[1].1.name), reason));
        }
    }
    let mut names: Vec<&str> = members.iter().map(|(_, m)| m.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
        return Err(DataError::malformed(path, format!("member {:?}", twice[0]), "is in the archive twice"));
    }
    Ok(())
}

fn u16_at(b: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([b[i], b[i + 1]])
}

fn u32_at(b: &[u8], i: usize) -> u32 {
    u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]])
}

fn u64_at(b: &[u8], i: usize) -> u64 {
    u64::from(u32_at(b, i)) | u64::from(u32_at(b, i + 4)) << 32
}

/// Writes an archive of deflated members, one after the other, with the date 1980-01-01 so that equal content gives
/// equal bytes.
pub(crate) struct Writer<W: Write + Seek> {
    out: W,
    at: u64,
    members: Vec<(Member, u64)>,
}

impl<W: Write + Seek> Writer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, at: 0, members: Vec::new() }
    }

    /// Adds a member whose bytes `fill` writes.
    pub(crate) fn add(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let header = self.at;
        let start = header + 30 + name.len() as u64 + 20;
        let mut member = Member { name: name.into(), deflated: true, crc: 0, packed: 0, unpacked: 0, start };
        // The sizes are known at the end; the header is written again then.
        self.out.write_all(&local_header(&member))?;
        let mut packer = flate2::write::DeflateEncoder::new(&mut self.out, flate2::Compression::default());
        let mut summed = Summed { out: &mut packer, crc: flate2::Crc::new(), bytes: 0 };
        fill(&mut summed)?;
        member.crc = summed.crc.sum();
        member.unpacked = summed.bytes;
        packer.try_finish()?;
        member.packed = packer.total_out();
        drop(packer);
        self.at = start + member.packed;
        self.out.seek(SeekFrom::Start(header))?;
        self.out.write_all(&local_header(&member))?;
        self.out.seek(SeekFrom::Start(self.at))?;
        self.members.push((member, header));
        Ok(())
    }

    /// Writes the directory and hands the destination back.
    pub(crate) fn finish(mut self) -> std::io::Result<W> {
        let mut directory = Vec::new();
        for (m, header) in &self.members {
            directory.extend(CENTRAL.to_le_bytes());
            directory.extend([45, 0, 45, 0, 0, 8, 8, 0, 0, 0, 0x21, 0]);
            directory.extend(m.crc.to_le_bytes());
            directory.extend([0xff; 8]);
            directory.extend((m.name.len() as u16).to_le_bytes());
            directory.extend([28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
            directory.extend(m.name.as_bytes());
            directory.extend([1, 0, 24, 0]);
            [m.unpacked, m.packed, *header].iter().for_each(|v| directory.extend(v.to_le_bytes()));
        }
        let (count, length) = (self.members.len() as u64, directory.len() as u64);
        let end_64 = self.at + length;
        directory.extend(END_64.to_le_bytes());
        directory.extend(44u64.to_le_bytes());
        directory.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        [count, count, length, self.at].iter().for_each(|v| directory.extend(v.to_le_bytes()));
        directory.extend(LOCATOR_64.to_le_bytes());
        directory.extend([0; 4]);
        directory.extend(end_64.to_le_bytes());
        directory.extend([1, 0, 0, 0]);
        directory.extend(END.to_le_bytes());
        directory.extend([0; 4]);
        directory.extend([0xff; 12]);
        directory.extend([0; 2]);
        self.out.write_all(&directory)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn local_header(m: &Member) -> Vec<u8> {
    let mut out = LOCAL.to_le_bytes().to_vec();
    out.extend([45, 0, 0, 8, 8, 0, 0, 0, 0x21, 0]);
    out.extend(m.crc.to_le_bytes());
    out.extend([0xff; 8]);
    out.extend((m.name.len() as u16).to_le_bytes());
    out.extend([20, 0]);
    out.extend(m.name.as_bytes());
    out.extend([1, 0, 16, 0]);
    out.extend(m.unpacked.to_le_bytes());
    out.extend(m.packed.to_le_bytes());
    out
}

struct Summed<'a> {
    out: &'a mut dyn Write,
    crc: flate2::Crc,
    bytes: u64,
}

impl Write for Summed<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(buf)?;
        self.crc.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
