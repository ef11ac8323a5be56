//! Event files that TensorBoard reads: scalars over control steps.
//!
//! A file is a sequence of records in TFRecord framing: length (u64), masked CRC-32C of the length, data, masked CRC-32C
//! of the data, all little-endian. The data is an `Event` message of TensorFlow's `event.proto`, of which four fields
//! are written here, by hand: they have not moved in years. Each record goes to the disk in one write, so a process that
//! is killed leaves whole records, and a last one that is cut off is what the reader skips. The wall time comes from the
//! caller: equal calls give equal bytes. No panics; errors name the file.

use crate::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// CRC-32C (Castagnoli).
const CRC32C: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// One event file, open for appending.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Starts an event file in `folder`, which is made where it is missing. `wall_time`: seconds since 1970, UTC.
    ///
    /// The file is called `events.out.tfevents.<seconds>.flowlet`. One that is there already is appended to, as when a
    /// run goes on within a second.
    pub fn create(folder: &Path, wall_time: f64) -> Result<Self> {
        // The reader takes files by this part of the name and sorts them by the number.
        let path = folder.join(format!("events.out.tfevents.{:010}.flowlet", wall_time.max(0.0) as u64));
        let opened = fs::create_dir_all(folder).and_then(|()| File::options().create(true).append(true).open(&path));
        let mut events = Self { file: opened.map_err(|e| failed(&path, &e))?, path };
        let mut event = Vec::new();
        double(&mut event, WALL_TIME, wall_time);
        bytes(&mut event, FILE_VERSION, b"brain.Event:2");
        events.append(&event)?;
        Ok(events)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one value of the scalar `tag` at `step`. What is not finite is left out: it is not known.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64, wall_time: f64) -> Result<()> {
        if !value.is_finite() {
            return Ok(());
        }
        let mut inner = Vec::new();
        bytes(&mut inner, VALUE_TAG, tag.as_bytes());
        // TensorBoard's scalars are single precision.
        float(&mut inner, VALUE_SIMPLE, value as f32);
        let mut summary = Vec::new();
        bytes(&mut summary, SUMMARY_VALUE, &inner);
        let mut event = Vec::new();
        double(&mut event, WALL_TIME, wall_time);
        key(&mut event, STEP, VARINT);
        varint(&mut event, step);
        bytes(&mut event, SUMMARY, &summary);
        self.append(&event)
    }

    fn append(&mut self, event: &[u8]) -> Result<()> {
        self.file.write_all(&record(event)).map_err(|e| failed(&self.path, &e))
    }
}

/// Removes the event files of a folder that [`EventFile`] made.
pub fn clear(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| failed(folder, &e))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("events.out.tfevents.") && name.ends_with(".flowlet") {
            fs::remove_file(entry.path()).map_err(|e| failed(&entry.path(), &e))?;
        }
    }
    Ok(())
}

fn failed(path: &Path, e: &std::io::Error) -> Error {
    Error::failure(format!("cannot write {} ({e}): check the folder's permissions and free space", path.display()))
}

/// Field numbers of `Event`, `Summary` and `Summary.Value`.
const WALL_TIME: u64 = 1;
const STEP: u64 = 2;
const FILE_VERSION: u64 = 3;
const SUMMARY: u64 = 5;
const SUMMARY_VALUE: u64 = 1;
const VALUE_TAG: u64 = 1;
const VALUE_SIMPLE: u64 = 2;

/// Wire types of protocol buffers.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, FIXED64);
    out.extend(value.to_le_bytes());
}

fn float(out: &mut Vec<u8>, field: u64, value: f32) {
    key(out, field, FIXED32);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, DELIMITED);
    varint(out, value.len() as u64);
    out.extend(value);
}

/// A record in TFRecord framing.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
    out
}

/// CRC-32C, turned by 15 bits and shifted, as the format has it: a CRC over data that holds CRCs is weak.
fn masked(data: &[u8]) -> u32 {
    CRC32C.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sums_are_those_of_the_specifications() {
        // RFC 3720, B.4: CRC-32C of 32 zero bytes and of 0, 1, ..., 31.
        assert_eq!(CRC32C.checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(CRC32C.checksum(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        // Protocol buffers' documentation: 150 is 96 01; field 2 with "testing" is 12 07 74 65 73 74 69 6e 67.
        let mut out = Vec::new();
        varint(&mut out, 150);
        assert_eq!(out, [0x96, 0x01]);
        out.clear();
        bytes(&mut out, 2, b"testing");
        assert_eq!(out, [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]);
        out.clear();
        varint(&mut out, u64::MAX);
        assert_eq!(out.len(), 10);
    }

    /// Splits a file into its records and checks both sums of each; what is cut off at the end is left.
    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while file.len() >= 12 {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            assert_eq!(file[8..12], masked(&file[..8]).to_le_bytes());
            let Some(data) = file.get(12..12 + length) else { break };
            assert_eq!(file[12 + length..16 + length], masked(data).to_le_bytes());
            found.push(data.to_vec());
            file = &file[16 + length..];
        }
        found
    }

    #[test]
    fn every_call_is_one_whole_record() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tensorboard");
        let mut events = EventFile::create(&folder, 12.5).unwrap();
        events.scalar("return/single", 300, -1.5, 13.0).unwrap();
        events.scalar("return/single", 301, f64::NAN, 13.0).unwrap();
        events.scalar("x", 0, 1e300, 13.0).unwrap();
        let file = fs::read(events.path()).unwrap();
        let found = records(&file);
        assert_eq!(found.len(), 3);
        let mut version = vec![0x09];
        version.extend(12.5f64.to_le_bytes());
        version.extend(b"\x1a\x0dbrain.Event:2");
        assert_eq!(found[0], version);
        let mut scalar = vec![0x09];
        scalar.extend(13.0f64.to_le_bytes());
        // Step 300, then the summary of 22 bytes with its value of 20: tag of 13, simple value.
        scalar.extend(b"\x10\xac\x02\x2a\x16\x0a\x14\x0a\x0dreturn/single\x15");
        scalar.extend((-1.5f32).to_le_bytes());
        assert_eq!(found[1], scalar);
        assert_eq!(records(&file[..file.len() - 5]).len(), 2);
        // Opened again within the second, nothing is lost.
        EventFile::create(&folder, 12.7).unwrap();
        assert_eq!(records(&fs::read(events.path()).unwrap()).len(), 4);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = EventFile::create(&file.join("events"), 1.0).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("events.out.tfevents"), "{error}");
    }
}
