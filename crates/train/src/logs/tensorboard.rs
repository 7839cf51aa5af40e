//! TensorBoard event files: scalars by step.
//! Format: TensorFlow's `event.proto` and `summary.proto` in records of length, masked CRC-32C, data, masked CRC-32C
//! (TensorFlow documentation, "TFRecord and tf.train.Example").

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{Failure, now, scalars};
use crate::record::{EpochRecord, StepReport, Watch};

/// Steps between two losses that are written.
const EVERY: u64 = 10;

/// An event file in the making.
#[derive(Debug)]
pub struct TensorBoard {
    file: Mutex<File>,
    failure: Failure,
}

impl TensorBoard {
    /// Begins a new event file in `folder`.
    /// # Errors
    /// The folder or file cannot be made.
    pub fn create(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let name = format!("events.out.tfevents.{:010}.{}.netproof", now() as u64, std::process::id());
        let log = Self { file: Mutex::new(File::create(folder.join(name))?), failure: Failure::default() };
        log.write(|event| text(event, 3, "brain.Event:2"))?;
        Ok(log)
    }

    fn scalar(&self, step: u64, name: &str, value: f64) {
        self.failure.keep(self.write(|event| {
            varint(event, 2 << 3, step);
            let mut one = Vec::new();
            text(&mut one, 1, name);
            one.push(2 << 3 | 5);
            one.extend((value as f32).to_le_bytes());
            let mut summary = Vec::new();
            bytes(&mut summary, 1, &one);
            bytes(event, 5, &summary);
        }));
    }

    fn write(&self, fill: impl FnOnce(&mut Vec<u8>)) -> std::io::Result<()> {
        let mut event = vec![1 << 3 | 1];
        event.extend(now().to_le_bytes());
        fill(&mut event);
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length).to_le_bytes());
        record.extend(&event);
        record.extend(masked(&event).to_le_bytes());
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&record)
    }
}

impl Watch for TensorBoard {
    fn step(&self, step: &StepReport) {
        if step.step % EVERY == 1 {
            self.scalar(step.step, "step/loss", step.loss);
            self.scalar(step.step, "step/learning_rate", step.learning_rate);
        }
    }

    fn epoch(&self, epoch: &EpochRecord) {
        for (name, value) in scalars(epoch) {
            self.scalar(epoch.epoch, name, value);
        }
    }

    fn failure(&self) -> Option<String> {
        self.failure.get()
    }
}

fn varint(out: &mut Vec<u8>, tag: u8, mut value: u64) {
    out.push(tag);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    varint(out, field << 3 | 2, value.len() as u64);
    out.extend(value);
}

fn text(out: &mut Vec<u8>, field: u8, value: &str) {
    bytes(out, field, value.as_bytes());
}

/// CRC-32C (polynomial 0x1EDC6F41, reflected), turned and shifted as records want it.
fn masked(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in data {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Metrics;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 3720, appendix B.4: 32 bytes of zeros give 0x8a9136aa.
        let unmasked = masked(&[0; 32]).wrapping_sub(0xa282_ead8).rotate_left(15);
        assert_eq!(unmasked, 0x8a91_36aa);
    }

    #[test]
    fn events_are_as_tensorboard_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        let log = TensorBoard::create(folder.path()).unwrap();
        let metrics = Metrics { loss: 0.5, accuracy: Some(0.75), rows: 4 };
        log.epoch(&EpochRecord {
            epoch: 300,
            steps: 1,
            learning_rate: 0.1,
            train: metrics,
            validation: None,
            robust: None,
            penalty: 0.0,
            gradient_norm: 1.0,
            is_best: true,
            seconds: 1.0,
        });
        assert_eq!(log.failure(), None);
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let all = std::fs::read(file).unwrap();
        let (mut rest, mut events) = (&all[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(masked(&rest[..8]).to_le_bytes(), rest[8..12]);
            events.push(&rest[12..12 + length]);
            assert_eq!(masked(&rest[12..12 + length]).to_le_bytes(), rest[12 + length..16 + length]);
            rest = &rest[16 + length..];
        }
        assert_eq!(events.len(), 1 + 6);
        assert_eq!(events[0][9..], *b"\x1a\x0dbrain.Event:2");
        // Step 300, then a summary with one value: its tag and 0.5.
        assert_eq!(events[1][9..], *b"\x10\xac\x02\x2a\x13\x0a\x11\x0a\x0atrain/loss\x15\x00\x00\x00\x3f");
    }
}
