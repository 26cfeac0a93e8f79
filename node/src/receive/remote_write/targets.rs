//! Fuzz targets: the decoders of remote write 1.0 and 2.0.

use fuzz::Corpus;
use prost::Message as _;
use proto::prometheus as v1;
use proto::prometheus_v2 as v2;

use super::super::batch::{Batch, SeriesHasher};
use super::super::budget::{Budget, DecodedBytes};
use super::super::labels;
use super::super::wire::Malformed;
use super::v2::decode as decode_v2;
use super::{BodyError, declared_bytes, decode, decompress};
use crate::config::Limits;

/// Most bytes that a target's body may declare.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

/// Most bytes that a target's parts may take: few enough that an input reaches it.
const DECODED_BYTES_MAX: usize = 16 << 10;

type Decode =
    for<'a> fn(&'a [u8], &'a SeriesHasher, &'a mut DecodedBytes<'a>, &'a mut Batch) -> Result<(), BodyError>;

/// Decodes a body, compressed and not. What comes of it holds together: each series has its raw labels, each sample and
/// exemplar its series; and whatever prost reads is read.
fn attack(input: &[u8], decode: Decode, prost_reads: fn(&[u8]) -> bool) {
    let mut plain = Vec::new();
    if let Ok(declared) = declared_bytes(input, DECOMPRESSED_BYTES_MAX)
        && decompress(input, declared, &mut plain).is_ok()
    {
        check(&plain, decode, prost_reads);
    }
    check(input, decode, prost_reads);
}

fn check(plain: &[u8], decode: Decode, prost_reads: fn(&[u8]) -> bool) {
    let (mut batch, mut held, hasher) =
        (Batch::default(), Budget::new(usize::MAX).hold(), SeriesHasher::new(1));
    if let Err(refused) =
        decode(plain, &hasher, &mut DecodedBytes::new(&mut held, DECODED_BYTES_MAX), &mut batch)
    {
        // Groups, which no sender writes any more, are refused by design, as are spans longer than any histogram, a table
        // of symbols without nothing in front, and parts that take too much.
        let is_by_design = matches!(
            refused,
            BodyError::Malformed(Malformed::Tag | Malformed::TooMany | Malformed::Symbols)
                | BodyError::OverBudget(_)
        );
        assert!(is_by_design || !prost_reads(plain), "{refused}, but prost reads it");
        return;
    }
    let series = u32::try_from(batch.keys.len()).unwrap();
    assert_eq!(batch.raw.len(), batch.keys.len());
    assert_eq!(batch.owners.len(), batch.appends.len());
    assert!(batch.owners.iter().all(|owner| *owner < series));
    assert!(batch.exemplars.iter().all(|(owner, _)| *owner < series));
    assert!(
        batch.refused.described().iter().all(|refused| refused.series.is_none_or(|owner| owner < series))
    );
    for owner in 0..series {
        // Judged later, when the series is new to the node: refused or taken, never a panic.
        drop(labels::from_remote_write(batch.raw_labels(plain, owner), &Limits::default()));
    }
}

#[test]
fn a_batch_holds_together_whatever_the_body() {
    let corpus = Corpus::hex(include_str!("../../../corpus/remote_write.hex"));
    fuzz::target!(corpus, |input: &[u8]| {
        attack(input, decode, |plain| v1::WriteRequest::decode(plain).is_ok());
    });
}

#[test]
fn a_batch_of_references_holds_together_whatever_the_body() {
    let corpus = Corpus::hex(include_str!("../../../corpus/remote_write_v2.hex"));
    fuzz::target!(corpus, |input: &[u8]| {
        attack(input, decode_v2, |plain| v2::Request::decode(plain).is_ok());
    });
}
