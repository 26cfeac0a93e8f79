//! Compare-and-swap in memory, for tests and simulations: keeps its word, or breaks it as real stores do.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Boxed, Failed, Swap, Swapped, Tag};

/// How a [`MemorySwap`] misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is answered, and nothing happens.
    Away,
    /// Writes happen, but the answer is an error.
    AnswersLost,
    /// Writes happen, but they are said to have lost: a retry that met its own first try.
    WinsLookLost,
    /// Objects can be created twice.
    IgnoresAbsence,
    /// Objects can be replaced whatever the tag.
    IgnoresTags,
    /// No conditional write is taken.
    RefusesAll,
    /// Reads give what was there before.
    ReadsStale,
}

/// Objects in memory.
#[derive(Debug, Default)]
pub struct MemorySwap {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By key: all that it ever held.
    objects: BTreeMap<String, Vec<Bytes>>,
    fault: Option<Fault>,
}

impl MemorySwap {
    /// Misbehaves from now on, or behaves again.
    pub fn be(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole values behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &str, bytes: Bytes, expected: Option<&Tag>) -> Result<Swapped, Failed> {
        let mut state = self.lock();
        let fault = state.fault;
        if fault == Some(Fault::Away) {
            return Err(away());
        }
        let versions = state.objects.entry(key.to_owned()).or_default();
        let holds = match expected {
            None => versions.is_empty() || fault == Some(Fault::IgnoresAbsence),
            Some(seen) => *seen == tag(versions.len()) || fault == Some(Fault::IgnoresTags),
        };
        if !holds || fault == Some(Fault::RefusesAll) {
            return Ok(Swapped::Lost);
        }
        versions.push(bytes);
        match fault {
            Some(Fault::AnswersLost) => Err(away()),
            Some(Fault::WinsLookLost) => Ok(Swapped::Lost),
            _ => Ok(Swapped::Won(tag(versions.len()))),
        }
    }
}

fn tag(versions: usize) -> Tag {
    Tag { e_tag: Some(versions.to_string()), version: None }
}

fn away() -> Failed {
    Failed("the store in memory is away".to_owned())
}

impl Swap for MemorySwap {
    fn get<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<Option<(Bytes, Tag)>, Failed>> {
        Box::pin(async move {
            let state = self.lock();
            if state.fault == Some(Fault::Away) {
                return Err(away());
            }
            let versions = state.objects.get(key).map(Vec::as_slice).unwrap_or_default();
            let stale = usize::from(state.fault == Some(Fault::ReadsStale));
            let seen = versions.len().saturating_sub(stale);
            Ok(versions[..seen].last().map(|bytes| (bytes.clone(), tag(seen))))
        })
    }

    fn put_if_absent<'a>(&'a self, key: &'a str, bytes: Bytes) -> Boxed<'a, Result<Swapped, Failed>> {
        Box::pin(async move { self.write(key, bytes, None) })
    }

    fn swap<'a>(&'a self, key: &'a str, seen: &'a Tag, bytes: Bytes) -> Boxed<'a, Result<Swapped, Failed>> {
        Box::pin(async move { self.write(key, bytes, Some(seen)) })
    }
}
