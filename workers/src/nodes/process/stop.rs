//! Ending a node: every process that is proven to be its own is asked, and after the grace killed.

use std::io;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use schemas::EffectId;
use tokio::time::{Instant, sleep};

use super::folder::{Folder, Mark};
use super::life::{self, Member};
use super::{blocking, faulty};
use crate::nodes::{Fault, Stopped};

const POLL: Duration = Duration::from_millis(10);
/// How long a killed process may take to go, as one that waits for a disk does.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

pub(super) async fn stop(folder: Folder, effect: EffectId, grace: Duration) -> Result<Stopped, Fault> {
    let fence = folder.clone();
    blocking(move || fence.create().and_then(|()| fence.mark(Mark::Stopped)).map_err(faulty("fence the node"))).await?;
    let mut members = signal(&folder, effect, Signal::TERM).await?;
    if members.is_empty() {
        return Ok(Stopped::NotRunning);
    }
    let kill_at = Instant::now() + grace;
    while Instant::now() < kill_at {
        sleep(POLL.min(kill_at - Instant::now())).await;
        if are_gone(&members)? {
            // What was forked meanwhile has not been asked yet.
            members = signal(&folder, effect, Signal::TERM).await?;
            if members.is_empty() {
                return Ok(Stopped::Ended);
            }
        }
    }
    let give_up_at = Instant::now() + KILL_DEADLINE;
    while Instant::now() < give_up_at {
        if signal(&folder, effect, Signal::KILL).await?.is_empty() {
            return Ok(Stopped::Killed);
        }
        sleep(POLL).await;
    }
    Err(Fault::Unknown(format!("node {effect} was killed and has not gone within {} s", KILL_DEADLINE.as_secs())))
}

/// Signals every process of the node and returns them.
async fn signal(folder: &Folder, effect: EffectId, signal: Signal) -> Result<Vec<Member>, Fault> {
    let folder = folder.clone();
    blocking(move || {
        let members = life::members(&folder, effect).map_err(faulty("look for the node's processes"))?;
        for member in &members {
            match pidfd_send_signal(&member.pidfd, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(cause) => return Err(Fault::Retryable(format!("cannot signal process {}: {cause}", member.pid))),
            }
        }
        Ok(members)
    })
    .await
}

fn are_gone(members: &[Member]) -> Result<bool, Fault> {
    let gone: io::Result<Vec<bool>> = members.iter().map(Member::is_gone).collect();
    gone.map(|gone| gone.into_iter().all(|gone| gone)).map_err(faulty("look at the node's processes"))
}
