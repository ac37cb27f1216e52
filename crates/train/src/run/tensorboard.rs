//! TensorBoard event files: scalars only.
//!
//! A file is a list of records: length (u64), masked CRC-32C of the length, the event, masked CRC-32C of the event
//! (<https://www.tensorflow.org/tutorials/load_data/tfrecord>). An event is the protocol buffer `Event` with
//! `wall_time` (1, double), `step` (2, varint), and `file_version` (3, string) or `summary` (5) with values
//! (1) of `tag` (1, string) and `simple_value` (2, float).

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// An open event file.
#[derive(Debug)]
pub(crate) struct EventFile(File);

impl EventFile {
    /// Starts a new file in `dir`.
    pub(crate) fn create(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let now = seconds();
        let name = format!(
            "events.out.tfevents.{}.edgethink.{}",
            now as u64,
            std::process::id()
        );
        let mut file = Self(File::create(dir.join(name))?);
        let mut event = double(1, now);
        event.extend(bytes(3, b"brain.Event:2"));
        file.record(&event)?;
        Ok(file)
    }

    /// Adds scalars of one step.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = bytes(1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((*value as f32).to_le_bytes());
            summary.extend(bytes(1, &entry));
        }
        let mut event = double(1, seconds());
        event.push(2 << 3);
        varint(&mut event, step);
        event.extend(bytes(5, &summary));
        self.record(&event)
    }

    fn record(&mut self, event: &[u8]) -> io::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut out = length.to_vec();
        out.extend(masked_crc(&length).to_le_bytes());
        out.extend(event);
        out.extend(masked_crc(event).to_le_bytes());
        self.0.write_all(&out)
    }
}

fn seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn double(field: u8, value: f64) -> Vec<u8> {
    let mut out = vec![field << 3 | 1];
    out.extend(value.to_le_bytes());
    out
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    varint(&mut out, value.len() as u64);
    out.extend(value);
    out
}

/// CRC-32C (Castagnoli), bit by bit: the records are short and few.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg())
        })
    })
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_standard_check_string() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn records_have_their_length_and_checksums() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(dir.path()).unwrap();
        file.scalars(300, &[("train/loss", 1.5)]).unwrap();
        let path = std::fs::read_dir(dir.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let data = std::fs::read(path).unwrap();
        let (mut at, mut events) = (0, 0);
        while at < data.len() {
            let n = u64::from_le_bytes(data[at..at + 8].try_into().unwrap()) as usize;
            let crc = u32::from_le_bytes(data[at + 8..at + 12].try_into().unwrap());
            assert_eq!(crc, masked_crc(&data[at..at + 8]));
            let body = &data[at + 12..at + 12 + n];
            let crc = u32::from_le_bytes(data[at + 12 + n..at + 16 + n].try_into().unwrap());
            assert_eq!(crc, masked_crc(body));
            at += 16 + n;
            events += 1;
        }
        assert_eq!(events, 2);
        assert!(data.windows(10).any(|w| w == b"train/loss"));
    }
}
