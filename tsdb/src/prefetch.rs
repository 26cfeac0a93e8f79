//! Memory that will be needed in a moment, fetched ahead: at 100,000 series, waiting for it would be most of the work.
//!
//! Whoever goes through series fetches each in two steps, since where its chunks are stands in the series itself.

/// How far ahead of its turn a series is fetched.
pub(crate) const SERIES_AHEAD: usize = 8;
/// How far ahead its labels and chunks are.
pub(crate) const CHUNKS_AHEAD: usize = 4;

const LINE_BYTES: usize = 64;
/// Most lines of one run of bytes: by then the processor has seen where it goes.
const LINES_MAX: usize = 8;

/// Fetches the cache line at an address.
#[inline(always)]
#[allow(unsafe_code, reason = "there is no safe way to say it")]
pub(crate) fn line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: it never faults, whatever the address, and SSE is part of x86_64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Fetches bytes that are read from their begin.
#[inline]
pub(crate) fn bytes(bytes: &[u8]) {
    bytes.chunks(LINE_BYTES).take(LINES_MAX).for_each(|bytes| line(bytes.as_ptr()));
}

/// Fetches all of a value.
#[inline]
pub(crate) fn value<T>(value: &T) {
    let first = std::ptr::from_ref(value).cast::<u8>();
    (0..size_of::<T>()).step_by(LINE_BYTES).for_each(|at| line(first.wrapping_add(at)));
}
