//! The process of a data folder's proxy as others see it, also when it does not answer.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use proxy::Files;
use serde::Deserialize;

use crate::proc_stat;

/// A proxy's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyProcess {
    /// Its id.
    pub pid: u32,
    /// How much processor time it has used, in ticks of the kernel. One that hangs uses none.
    pub ticks: u64,
    /// Whether a debugger holds it.
    pub traced: bool,
}

/// What the ready file says that is needed here.
#[derive(Deserialize)]
struct Ready {
    pid: u32,
}

/// Returns the process of the proxy of `data`: the one that its ready file names, if that has the folder's lock open. None if
/// there is none, or this user may not look at it.
pub fn process(data: &Path) -> Option<ProxyProcess> {
    let files = Files::of(data);
    let Ready { pid } = serde_json::from_slice(&fs::read(&files.ready).ok()?).ok()?;
    let lock = fs::metadata(&files.lock).ok()?;
    let is_lock = |file: fs::Metadata| (file.dev(), file.ino()) == (lock.dev(), lock.ino());
    let mut open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    open.any(|file| fs::metadata(file.path()).is_ok_and(is_lock)).then_some(())?;
    let stat = proc_stat::stat(i32::try_from(pid).ok()?).ok()??;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(ProxyProcess { pid, ticks: stat.cpu_ticks, traced: is_traced(&status) })
}

/// Reads `/proc/PID/status`.
fn is_traced(status: &str) -> bool {
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_process_is_the_one_that_the_ready_file_names_while_it_has_the_lock_open() {
        let data = tempfile::tempdir().unwrap();
        let files = Files::of(data.path());
        assert_eq!(process(data.path()), None, "no proxy ever ran");
        fs::create_dir_all(&files.folder).unwrap();
        let lock = File::create(&files.lock).unwrap();
        let me = std::process::id();
        fs::write(&files.ready, format!("{{\"pid\":{me},\"epoch\":\"\"}}")).unwrap();
        let seen = process(data.path()).unwrap();
        assert_eq!((seen.pid, seen.traced), (me, false));
        drop(lock);
        assert_eq!(process(data.path()), None, "another process has got its id");
    }

    #[test]
    fn a_process_that_a_debugger_holds_is_known() {
        assert!(is_traced("Name:\tx\nTracerPid:\t12\n") && !is_traced("Name:\tx\nTracerPid:\t0\n"));
    }
}
