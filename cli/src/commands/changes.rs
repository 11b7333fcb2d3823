//! Changes: a running ledger's records, as the sign to look again.

use std::time::Duration;

use api::client::{Client, Events};
use schemas::Offset;
use tokio::time::Instant;

use crate::failure::{Failure, Outcome};

/// How long to wait for a change before looking again: ages grow without one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a server that went away is waited for, as when `up` is started again.
const AGAIN_MAX: Duration = Duration::from_secs(15);

/// The changes of a ledger, as they come.
pub(crate) struct Changes<'a> {
    client: &'a Client,
    events: Events,
    next: Offset,
}

impl<'a> Changes<'a> {
    /// Follows the ledger from its end on.
    pub(crate) async fn of(client: &'a Client) -> Outcome<Self> {
        let next = client.standing().await?.next;
        Ok(Self { client, events: client.events(next, true).await?, next })
    }

    /// Waits for something new, for a second, or until `deadline`, whichever comes first.
    pub(crate) async fn next(&mut self, deadline: Option<Instant>) -> Outcome<()> {
        let until = Instant::now() + LOOK_AGAIN;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        match tokio::time::timeout_at(until, self.events.next()).await {
            Err(_) => Ok(()),
            Ok(Ok(Some(record))) => {
                self.next = record.offset.next();
                Ok(())
            }
            Ok(Ok(None) | Err(_)) => self.again().await,
        }
    }

    /// As [`Changes::next`], but where the server went away it says so at once: `false`.
    pub(crate) async fn next_or_gone(&mut self) -> bool {
        match tokio::time::timeout(LOOK_AGAIN, self.events.next()).await {
            Err(_) => true,
            Ok(Ok(Some(record))) => {
                self.next = record.offset.next();
                true
            }
            Ok(Ok(None) | Err(_)) => false,
        }
    }

    /// Follows it again after its server went away.
    async fn again(&mut self) -> Outcome<()> {
        let until = Instant::now() + AGAIN_MAX;
        loop {
            match self.client.events(self.next, true).await {
                Ok(events) => {
                    self.events = events;
                    return Ok(());
                }
                Err(error) if Instant::now() >= until => return Err(Failure::from(error)),
                Err(_) => tokio::time::sleep(Duration::from_millis(250)).await,
            }
        }
    }
}
