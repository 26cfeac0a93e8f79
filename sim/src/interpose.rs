//! The clock and the random numbers that third parties take from the system, replaced for this binary alone.
//!
//! Node code has seams for both (`node::env`), its dependencies haven't: the standard library seeds its hash tables,
//! tokio its `select!`, gossip its choice of peers by `getrandom`; an HTTP server stamps answers by `clock_gettime`.
//! A symbol of the executable goes before libc's, so that these two functions are asked by everybody in the process:
//!
//! 1. `getrandom` is a generator that begins at the same place in each process, until [`seed`] sets it;
//! 2. `clock_gettime` is the system's until the first [`set_time`], and stands still between two of them.
//!
//! Hence one simulation a process: see [`crate::many`].
#![allow(unsafe_code, reason = "the system's functions are replaced by their C names")]

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where the generator is (splitmix64, Steele et al., OOPSLA 2014).
static STATE: AtomicU64 = AtomicU64::new(0);
/// The time since the Unix epoch in nanoseconds; 0 while the system's clock goes.
static TIME_NS: AtomicU64 = AtomicU64::new(0);

/// Lets all random numbers from the system follow from `seed`.
pub fn seed(seed: u64) {
    STATE.store(seed, Ordering::Relaxed);
}

/// Sets the time since the Unix epoch, for all clocks of the process.
pub fn set_time(since_epoch: Duration) {
    TIME_NS.store(u64::try_from(since_epoch.as_nanos()).expect("it isn't the year 2554"), Ordering::Relaxed);
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn next() -> u64 {
    mixed(STATE.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
}

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `getrandom(2)`.
///
/// # Safety
/// `buffer` must have room for `length` bytes, as for the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    // SAFETY: the caller gave a buffer of this length.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for part in buffer.chunks_mut(8) {
        part.copy_from_slice(&next().to_le_bytes()[..part.len()]);
    }
    isize::try_from(length).expect("no object is larger")
}

/// `clock_gettime(2)`.
///
/// # Safety
/// `time` must point to a `timespec`, as for the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let now_ns = TIME_NS.load(Ordering::Relaxed);
    let is_elapsing = matches!(
        clock,
        libc::CLOCK_REALTIME
            | libc::CLOCK_REALTIME_COARSE
            | libc::CLOCK_MONOTONIC
            | libc::CLOCK_MONOTONIC_COARSE
            | libc::CLOCK_MONOTONIC_RAW
            | libc::CLOCK_BOOTTIME
    );
    if now_ns == 0 || !is_elapsing {
        // SAFETY: the arguments are the caller's, passed on as they are.
        let done = unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), time) };
        return if done == 0 { 0 } else { -1 };
    }
    let now = libc::timespec {
        tv_sec: libc::time_t::try_from(now_ns / 1_000_000_000).expect("584 years fit"),
        tv_nsec: c_long::try_from(now_ns % 1_000_000_000).expect("below 10^9"),
    };
    // SAFETY: the caller gave room for one.
    unsafe { time.write(now) };
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        assert_eq!(
            [1, 2].map(|n: u64| mixed(STEP.wrapping_mul(n))),
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]
        );
    }
}
