//! What several benches share: the processes and users that they measure, and how they end.

pub mod bare_producer;
pub mod up_process;
pub mod users;

use std::process::ExitCode;
use std::time::Duration;

/// Why a bench has no result.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The kernel's clock tick in `/proc/PID/stat`. Source: proc(5), `sysconf(_SC_CLK_TCK)`, 100 a second on Linux.
const TICK: Duration = Duration::from_millis(10);

/// Returns how a bench ends: 0 if every bound was met, else 1. What went wrong is printed.
pub fn exit_code(met: Result<bool, Error>) -> ExitCode {
    match met {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how it is printed whether a bound was met.
pub fn verdict(met: bool) -> &'static str {
    if met { "within" } else { "MISSED" }
}

/// Returns the processor time that a process has used, in the kernel's ticks of 10 ms.
///
/// # Errors
///
/// There is no such process.
pub fn processor_time(pid: u32) -> Result<Duration, Error> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
    Ok(TICK * ticks)
}
