//! What the kernel says of a process in `/proc/PID/stat` (proc(5)).

use std::fs::File;
use std::io::{self, Read as _};

/// Longer than any such line: some fifty numbers and a short name. The kernel gives all of it at one read.
const LINE_BYTES_MAX: usize = 2_048;

/// What of it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    pub(crate) session: i32,
    /// User and system time, in clock ticks.
    pub(crate) cpu_ticks: u64,
    /// In clock ticks since boot.
    pub(crate) start_ticks: u64,
}

impl Stat {
    pub(crate) fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may itself hold blanks and parentheses.
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let session = fields.nth(2)?.parse().ok()?;
        let [user, system]: [u64; 2] = [fields.nth(7)?.parse().ok()?, fields.next()?.parse().ok()?];
        let start_ticks = fields.nth(6)?.parse().ok()?;
        Some(Self { state, session, cpu_ticks: user.saturating_add(system), start_ticks })
    }
}

/// Returns what `/proc` says of a process, or nothing if there is none.
pub(crate) fn stat(pid: i32) -> io::Result<Option<Stat>> {
    let mut line = [0; LINE_BYTES_MAX];
    match File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut line)) {
        Ok(length) => {
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not understood"));
            Stat::parse(&String::from_utf8_lossy(&line[..length])).map(Some).ok_or_else(damaged)
        }
        // A process that ends while its file is read answers ESRCH.
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(fault) if fault.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(fault) => Err(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_named_to_confuse_is_read_right() {
        let text = "77 (a) b (c) S 1 77 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let stat = Stat { state: b'S', session: 42, cpu_ticks: 11, start_ticks: 987_654 };
        assert_eq!(Stat::parse(text), Some(stat));
        let stopped = "7 (a (b) c) T 1 7 7 0 -1 4194560 500 0 0 0 31 11 0 0 20 0 4 0 100 1 1";
        assert_eq!(Stat::parse(stopped).map(|stat| stat.cpu_ticks), Some(42));
        assert_eq!(Stat::parse("77 (a"), None);
    }

    #[test]
    fn this_process_is_found_with_its_start_and_no_process_has_pid_zero() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let seen = stat(pid).unwrap().unwrap();
        assert!(!seen.is_dead() && seen.start_ticks > 0);
        assert_eq!(stat(0).unwrap(), None);
    }
}
