//! What the process and its threads use.

use std::time::Duration;

/// Resources of the process so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu_s: f64,
    /// Bytes of memory in use.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// When the process started, in seconds since the Unix epoch.
    pub start_s: f64,
}

/// Tells what the process uses.
pub trait Process: Send + Sync + 'static {
    /// The usage now; zeros where the system doesn't tell.
    fn usage(&self) -> Usage;

    /// User and system time of the calling thread so far; zero where the system doesn't tell.
    fn thread_cpu(&self) -> Duration;

    /// Gives memory that is free back to the system at once, which the allocator keeps for a while otherwise.
    fn release_memory(&self);
}

/// Linux's `/proc/self`, elsewhere zeros; and the system's clock of the thread.
pub struct OsProcess;

/// Clock ticks a second in `/proc/self/stat`: fixed by Linux's ABI on every architecture that Rust supports.
const TICKS_PER_S: f64 = 100.0;

impl OsProcess {
    /// The running process.
    pub fn new() -> Self {
        Self
    }
}

impl Default for OsProcess {
    fn default() -> Self {
        Self::new()
    }
}

impl Process for OsProcess {
    #[allow(clippy::disallowed_methods, reason = "this is the seam: /proc isn't part of the data folder")]
    fn usage(&self) -> Usage {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let open_fds = std::fs::read_dir("/proc/self/fd").map_or(0, |names| names.count() as u64);
        parse(&text("/proc/self/stat"), &text("/proc/self/status"), &text("/proc/stat"), open_fds)
    }

    fn thread_cpu(&self) -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
    }

    #[allow(unsafe_code, reason = "the allocator's own function has no other form")]
    fn release_memory(&self) {
        // SAFETY: it may be called at any time and on any thread; it only looks at what this allocator has given out.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
}

#[allow(clippy::cast_precision_loss, reason = "seconds and ticks are far below 2^53")]
fn parse(stat: &str, status: &str, system: &str, open_fds: u64) -> Usage {
    // The command's name stands in brackets and may hold anything; fields are counted behind it, from 3.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let line = |text: &str, name: &str| {
        let value = text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?;
        value.parse::<u64>().ok()
    };
    let boot_s = line(system, "btime ").unwrap_or(0);
    Usage {
        cpu_s: (field(14) + field(15)) as f64 / TICKS_PER_S,
        resident_bytes: line(status, "VmRSS:").unwrap_or(0) * 1024,
        virtual_bytes: field(23),
        open_fds,
        start_s: boot_s as f64 + field(22) as f64 / TICKS_PER_S,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_a_name_with_brackets() {
        let stat =
            "7 (a) b) S 1 1 1 0 -1 4194304 10 0 0 0 250 50 0 0 20 0 4 0 1000 4096 512 18446744073709551615";
        let usage = parse(stat, "VmRSS:\t    2048 kB\n", "btime 1700000000\n", 5);
        assert_eq!((usage.cpu_s, usage.resident_bytes, usage.virtual_bytes), (3.0, 2 << 20, 4096));
        assert_eq!((usage.open_fds, usage.start_s), (5, 1_700_000_010.0));
    }

    #[test]
    fn a_thread_that_works_takes_time() {
        let began = OsProcess::new().thread_cpu();
        while OsProcess::new().thread_cpu() == began {}
    }

    #[test]
    fn memory_in_use_stays_when_the_rest_is_released() {
        let kept = vec![7_u8; 1 << 20];
        drop(vec![8_u8; 1 << 20]);
        OsProcess::new().release_memory();
        assert!(kept.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn what_the_system_does_not_tell_is_zero() {
        assert_eq!(parse("", "", "", 0), Usage::default());
    }
}
