//! What another process costs, read from `/proc` (Linux).

use std::fmt;

use super::Error;

/// Clock ticks a second in `/proc/PID/stat`; the kernel's user interface fixes it at 100 on every architecture that
/// Linux supports for servers.
const TICKS_PER_S: f64 = 100.0;

/// A process that is being measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: u32,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

impl Process {
    /// A process that exists.
    ///
    /// # Errors
    /// When there is none with this id, or the system has no `/proc`.
    pub fn open(pid: u32) -> Result<Self, Error> {
        let process = Self { pid };
        process.cpu_s()?;
        Ok(process)
    }

    /// User and system time used so far by all its threads, those that ended included, in seconds; steps of 10 ms.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_s(&self) -> Result<f64, Error> {
        let stat = self.file("stat")?;
        cpu_ticks(&stat)
            .map(|ticks| ticks as f64 / TICKS_PER_S)
            .ok_or_else(|| Error::new(format!("/proc/{}/stat has an unknown shape", self.pid)))
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64, Error> {
        let status = self.file("status")?;
        resident_kib(&status)
            .map(|kib| kib * 1024)
            .ok_or_else(|| Error::new(format!("/proc/{}/status has no VmRSS", self.pid)))
    }

    #[allow(clippy::disallowed_methods, reason = "another process's figures aren't in the data folder")]
    fn file(&self, name: &str) -> Result<String, Error> {
        let path = format!("/proc/{}/{name}", self.pid);
        std::fs::read_to_string(&path)
            .map_err(|e| Error::new(format!("can't read {path}: {e}; is the process running?")))
    }
}

/// utime + stime: the 14th and 15th fields. The second one, a name in parentheses, may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_parentheses_doesnt_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 8 0";
        assert_eq!(cpu_ticks(stat), Some(200));
    }

    #[test]
    fn resident_memory_is_in_kib() {
        assert_eq!(resident_kib("VmPeak:\t  10 kB\nVmRSS:\t    1234 kB\n"), Some(1234));
        assert_eq!(resident_kib("Name: kthread\n"), None);
    }

    #[test]
    fn this_process_can_be_measured() {
        let me = Process::open(std::process::id()).unwrap();
        assert!(me.resident_bytes().unwrap() > 100_000);
    }

    #[test]
    fn a_process_that_isnt_there_is_an_error() {
        assert!(Process::open(u32::MAX - 1).is_err());
    }
}
