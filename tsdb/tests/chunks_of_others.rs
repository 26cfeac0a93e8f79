//! Chunks that Prometheus, Mimir and Thanos wrote: they decode, and encoding their samples gives the same bytes.
//!
//! Reads the blocks in `../shared/fixtures`, beside the project; where there are none, nothing is tested.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test that reads files as they are")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tsdb::chunk::{ChunkAppender, Decoder, Encoding, Writes};
use tsdb::model::Sample;

/// Magic, version and padding of a chunk file.
const FILE_HEADER: [u8; 8] = [0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
/// Thanos's downsampled chunk: up to five chunks, one for each aggregate.
const AGGREGATES: u8 = 0xff;
const AGGREGATES_COUNT: usize = 5;

#[test]
fn chunks_decode_and_encode_to_the_same_bytes() {
    let files = chunk_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/blocks"));
    if files.is_empty() {
        println!("SKIPPED: there are no fixtures beside the project");
        return;
    }
    let mut seen: BTreeMap<u8, usize> = BTreeMap::new();
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(bytes[..8], FILE_HEADER, "{}", file.display());
        let mut rest = &bytes[8..];
        while !rest.is_empty() {
            let (encoding, data) = take_chunk(&mut rest);
            let checksum = u32::from_be_bytes(take(&mut rest, 4).try_into().unwrap());
            let mut covered = vec![encoding];
            covered.extend(data);
            assert_eq!(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &covered), u64::from(checksum));
            let mut parts = data;
            if encoding == AGGREGATES {
                for _ in 0..AGGREGATES_COUNT {
                    // An absent aggregate is a zero length without an encoding.
                    if parts[0] == 0 {
                        parts = &parts[1..];
                    } else {
                        let (encoding, data) = take_chunk(&mut parts);
                        check(encoding, data);
                        *seen.entry(encoding).or_default() += 1;
                    }
                }
            } else {
                check(encoding, data);
                *seen.entry(encoding).or_default() += 1;
            }
        }
    }
    println!("chunks by encoding: {seen:?}");
    assert!(seen[&(Encoding::Xor as u8)] > 1_000);
}

fn check(encoding: u8, data: &[u8]) {
    let encoding = Encoding::from_byte(encoding).expect("a known encoding");
    let samples: Vec<Sample> = Decoder::new(encoding, data).unwrap().collect::<tsdb::Result<_>>().unwrap();
    assert!(samples.is_sorted_by(|a, b| a.timestamp_ms <= b.timestamp_ms));
    let writes = if encoding.has_starts() { Writes::WithStarts } else { Writes::Classic };
    let mut appender = ChunkAppender::start(writes, &samples[0]);
    for sample in &samples[1..] {
        appender.append(sample).expect("all fitted in one chunk");
    }
    assert_eq!(appender.encoding(), encoding);
    // Older writers begin the next byte before they know that one is needed.
    let padding = data.strip_prefix(appender.bytes());
    assert!(
        matches!(padding, Some([] | [0])),
        "{encoding:?} of {samples:?}: {:?} isn't {data:?}",
        appender.bytes()
    );
    assert_eq!(ChunkAppender::resume(encoding, data).unwrap().last(), appender.last());
}

fn chunk_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(chunk_files(&path));
        } else if path.parent().is_some_and(|parent| parent.ends_with("chunks")) {
            files.push(path);
        }
    }
    files
}

/// Length, encoding and data.
fn take_chunk<'a>(rest: &mut &'a [u8]) -> (u8, &'a [u8]) {
    let mut length = 0;
    for shift in (0..).step_by(7) {
        let byte = take(rest, 1)[0];
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    let encoding = take(rest, 1)[0];
    (encoding, take(rest, length))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, tail) = rest.split_at(length);
    *rest = tail;
    taken
}
