//! A walk over the wire format before anything is decoded.
//!
//! It counts nodes, tensors and the memory that decoding would take, checks that the structure is sound, and collects
//! fields that the messages do not know. It allocates only for those fields and for the text of an error.
//! Encoding: <https://protobuf.dev/programming-guides/encoding/>.

use std::collections::BTreeMap;

use crate::proto::schema;
use crate::{Limits, OnnxError};

/// A message type: its name, its size in memory, its fields.
pub(crate) struct Message {
    pub(crate) name: &'static str,
    pub(crate) bytes: usize,
    pub(crate) fields: &'static [Field],
}

pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) repeated: bool,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Message(&'static Message),
    Text,
    Bytes,
    Fixed32,
    Fixed64,
    /// Size of one element in memory.
    Varint(usize),
}

/// Where fields that the messages do not know were found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Model,
    Graph,
    Node(usize),
    Initializer(usize),
    Function(usize),
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) nodes: u64,
    pub(crate) tensors: u64,
    pub(crate) overhead_bytes: u64,
    /// Tag and value of unknown fields, as they stand in the file, where they can be written back.
    pub(crate) unknown: BTreeMap<Place, Vec<u8>>,
    /// Unknown fields elsewhere, which cannot be kept: `AttributeProto field 99`; at most [`LOST_SHOWN`].
    pub(crate) lost: Vec<String>,
}

const LOST_SHOWN: usize = 16;
/// The decoder counts messages inside messages too and gives up at 100, without saying where.
const MAX_DEPTH: usize = 96;
/// More fields than any message has; a test keeps it so.
const MAX_FIELDS: usize = 32;

/// Walks a whole file.
/// # Errors
/// The bytes are not sound, or a limit is passed.
pub(crate) fn survey(root: &'static Message, bytes: &[u8], limits: &Limits) -> Result<Survey, OnnxError> {
    let mut walk = Walk { limits, survey: Survey::default(), trail: Vec::new() };
    walk.message(root, bytes, 0).map_err(|fault| fault.into_error(root))?;
    Ok(walk.survey)
}

/// Number and wire type of the first field, for telling messages apart that carry no type.
pub(crate) fn fields_of(bytes: &[u8]) -> impl Iterator<Item = (u32, u8)> + '_ {
    let mut reader = Reader { bytes, at: 0 };
    std::iter::from_fn(move || {
        if reader.is_done() {
            return None;
        }
        let (number, wire) = reader.tag().ok()?;
        reader.value(wire).ok()?;
        Some((number, wire))
    })
}

struct Walk<'a> {
    limits: &'a Limits,
    survey: Survey,
    /// Field number and index of each message on the way from the root.
    trail: Vec<(u32, usize)>,
}

struct Fault {
    cause: Cause,
    /// Names of the messages on the way, innermost first.
    labels: Vec<String>,
}

enum Cause {
    Malformed { offset: usize, reason: &'static str },
    TooLarge { what: &'static str, value: u64, limit: u64 },
}

impl From<Cause> for Fault {
    fn from(cause: Cause) -> Self {
        Self { cause, labels: Vec::new() }
    }
}

impl Fault {
    fn into_error(mut self, root: &Message) -> OnnxError {
        self.labels.reverse();
        let at = if self.labels.is_empty() { root.name.to_owned() } else { self.labels.join(".") };
        match self.cause {
            Cause::Malformed { offset, reason } => OnnxError::Malformed { at, offset, reason },
            Cause::TooLarge { what, value, limit } => OnnxError::TooLarge { at, what, value, limit },
        }
    }
}

impl Walk<'_> {
    /// Walks one message whose bytes start at `base` in the file.
    fn message(&mut self, message: &'static Message, bytes: &[u8], base: usize) -> Result<(), Fault> {
        if self.trail.len() > self.limits.message_depth.min(MAX_DEPTH) {
            let limit = self.limits.message_depth.min(MAX_DEPTH) as u64;
            return Err(Cause::TooLarge { what: "depth of messages", value: self.trail.len() as u64, limit }.into());
        }
        self.count(message)?;
        let mut seen = [0usize; MAX_FIELDS];
        let mut reader = Reader { bytes, at: 0 };
        while !reader.is_done() {
            let start = reader.at;
            let fault = |reason| Fault::from(Cause::Malformed { offset: base + start, reason });
            let (number, wire) = reader.tag().map_err(fault)?;
            let value_start = reader.at;
            let value = reader.value(wire).map_err(fault)?;
            let known = message.fields.iter().zip(&mut seen).find(|(field, _)| field.number == number);
            let Some((field, seen)) = known else {
                self.unknown(message, number, bytes.get(start..reader.at).unwrap_or_default());
                continue;
            };
            let index = *seen;
            *seen += 1;
            // The value of a length-delimited field ends where the reader stands.
            let value_base = base + if wire == 2 { reader.at - value.len() } else { value_start };
            match (&field.kind, wire) {
                (Kind::Message(inner), 2) => {
                    if !field.repeated && index > 0 {
                        return Err(fault("a message that may appear once appears twice"));
                    }
                    // A growing list may hold twice what it needs.
                    self.overhead(inner.bytes * if field.repeated { 2 } else { 1 })?;
                    self.trail.push((number, index));
                    self.message(inner, value, value_base).map_err(|mut fault| {
                        fault.labels.push(label(field, index, inner, value));
                        fault
                    })?;
                    self.trail.pop();
                }
                (Kind::Text, 2) => {
                    if std::str::from_utf8(value).is_err() {
                        return Err(fault("text that is not UTF-8"));
                    }
                    if !matches!(field.name, "doc_string" | "value") && value.len() as u64 > self.limits.name_bytes {
                        let (value, limit) = (value.len() as u64, self.limits.name_bytes);
                        return Err(Cause::TooLarge { what: "length of a name", value, limit }.into());
                    }
                    self.overhead(if field.repeated { 64 } else { 16 })?;
                }
                (Kind::Bytes, 2) => self.overhead(if field.repeated { 64 } else { 16 })?,
                (Kind::Varint(size), 2) if field.repeated => {
                    let count = packed_varints(value).map_err(fault)?;
                    self.overhead((count * size).saturating_sub(value.len()))?;
                }
                (Kind::Fixed32, 2) if field.repeated => {
                    if !value.len().is_multiple_of(4) {
                        return Err(fault("packed numbers of broken length"));
                    }
                }
                (Kind::Fixed64, 2) if field.repeated => {
                    if !value.len().is_multiple_of(8) {
                        return Err(fault("packed numbers of broken length"));
                    }
                }
                (Kind::Varint(size), 0) if field.repeated => self.overhead(size * 2)?,
                (Kind::Fixed32, 5) if field.repeated => self.overhead(8)?,
                (Kind::Fixed64, 1) if field.repeated => self.overhead(16)?,
                (Kind::Varint(_), 0) | (Kind::Fixed32, 5) | (Kind::Fixed64, 1) => {}
                _ => return Err(fault("a field of the wrong wire type")),
            }
        }
        Ok(())
    }

    fn count(&mut self, message: &'static Message) -> Result<(), Fault> {
        let (what, count, limit) = if std::ptr::eq(message, &schema::NODE_PROTO) {
            ("number of nodes", &mut self.survey.nodes, self.limits.nodes)
        } else if std::ptr::eq(message, &schema::TENSOR_PROTO) {
            ("number of tensors", &mut self.survey.tensors, self.limits.tensors)
        } else {
            return Ok(());
        };
        *count += 1;
        if *count > limit { Err(Cause::TooLarge { what, value: *count, limit }.into()) } else { Ok(()) }
    }

    fn overhead(&mut self, bytes: usize) -> Result<(), Fault> {
        let limit = self.limits.decode_overhead_bytes;
        let value = self.survey.overhead_bytes.saturating_add(bytes as u64);
        self.survey.overhead_bytes = value;
        if value > limit {
            return Err(Cause::TooLarge { what: "memory for decoding, in bytes,", value, limit }.into());
        }
        Ok(())
    }

    fn unknown(&mut self, message: &'static Message, number: u32, bytes: &[u8]) {
        let place = match *self.trail.as_slice() {
            [] => Place::Model,
            [(7, _)] => Place::Graph,
            [(7, _), (1, node)] => Place::Node(node),
            [(7, _), (5, tensor)] => Place::Initializer(tensor),
            [(25, function)] => Place::Function(function),
            _ => {
                let text = format!("{} field {number}", message.name);
                if self.survey.lost.len() < LOST_SHOWN && !self.survey.lost.contains(&text) {
                    self.survey.lost.push(text);
                }
                return;
            }
        };
        self.survey.unknown.entry(place).or_default().extend_from_slice(bytes);
    }
}

/// `node[12] "conv1"`: how a message is named in an error.
fn label(field: &Field, index: usize, message: &'static Message, bytes: &[u8]) -> String {
    let mut text = field.name.to_owned();
    if field.repeated {
        text.push_str(&format!("[{index}]"));
    }
    for wanted in ["name", "output"] {
        let number = message.fields.iter().find(|f| f.name == wanted && matches!(f.kind, Kind::Text)).map(|f| f.number);
        let Some(number) = number else { continue };
        let mut reader = Reader { bytes, at: 0 };
        while let Ok((found, wire)) = reader.tag() {
            let Ok(value) = reader.value(wire) else { break };
            if let (true, Ok(name)) = (found == number && wire == 2 && !value.is_empty(), std::str::from_utf8(value)) {
                text.push_str(&format!(" {:?}", crate::error_name(name)));
                return text;
            }
        }
    }
    text
}

fn packed_varints(bytes: &[u8]) -> Result<usize, &'static str> {
    let (mut count, mut length) = (0, 0);
    for byte in bytes {
        length += 1;
        if byte & 0x80 == 0 {
            count += 1;
            length = 0;
        } else if length >= 10 {
            return Err("a number of more than 64 bits");
        }
    }
    if length == 0 { Ok(count) } else { Err("packed numbers that end too early") }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or("the data end inside a number")?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                return Err("a number of more than 64 bits");
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than 64 bits")
    }

    fn tag(&mut self) -> Result<(u32, u8), &'static str> {
        let key = u32::try_from(self.varint()?).map_err(|_| "a field number that is too large")?;
        match (key >> 3, (key & 7) as u8) {
            (0, _) => Err("field number 0"),
            (_, 3 | 4) => Err("a protobuf group"),
            (_, 6 | 7) => Err("an unknown wire type"),
            tag => Ok(tag),
        }
    }

    /// The value's bytes; without the length where there is one.
    fn value(&mut self, wire: u8) -> Result<&'a [u8], &'static str> {
        let start = self.at;
        let (start, length) = match wire {
            0 => {
                self.varint()?;
                return Ok(self.bytes.get(start..self.at).unwrap_or_default());
            }
            1 => (start, 8),
            5 => (start, 4),
            _ => {
                let length = self.varint()?;
                (self.at, usize::try_from(length).map_err(|_| "a length that is too large")?)
            }
        };
        let end = start.checked_add(length).ok_or("a length that is too large")?;
        let value = self.bytes.get(start..end).ok_or("a length beyond the end of the data")?;
        self.at = end;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_fits_the_field_counters() {
        fn visit(message: &'static Message, done: &mut Vec<&'static str>) {
            assert!(message.fields.len() <= MAX_FIELDS, "{}", message.name);
            if done.contains(&message.name) {
                return;
            }
            done.push(message.name);
            for field in message.fields {
                if let Kind::Message(inner) = field.kind {
                    visit(inner, done);
                }
            }
        }
        let mut done = Vec::new();
        visit(&schema::MODEL_PROTO, &mut done);
        assert!(done.len() > 20, "{done:?}");
    }

    #[test]
    fn numbers_are_read_to_their_last_bit_and_not_further() {
        let read = |bytes: &[u8]| Reader { bytes, at: 0 }.varint();
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Ok(u64::MAX));
        assert!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).is_err());
        assert!(read(&[0x80; 11]).is_err() && read(&[0x80]).is_err());
    }
}
