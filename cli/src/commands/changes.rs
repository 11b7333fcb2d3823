//! Changes: a running ledger's records, as the sign to look again.

use std::time::Duration;

use api::client::{Client, Events};

use crate::failure::CommandResult;

/// How long to wait for a change before looking again: ages grow without one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The changes of a ledger, as they come.
pub(crate) struct Changes<'c> {
    client: &'c Client,
    /// None while its server does not answer.
    events: Option<Events>,
}

impl<'c> Changes<'c> {
    /// Follows the ledger from its end on, as soon as its server answers.
    pub(crate) async fn once_it_answers(client: &'c Client) -> Self {
        let events = events(client).await.ok();
        Self { client, events }
    }

    /// Waits for a change, for a second at most. Returns at once where the server went away; the next call follows it again, a
    /// second later.
    pub(crate) async fn next(&mut self) {
        match &mut self.events {
            Some(following) => {
                let next = tokio::time::timeout(LOOK_AGAIN, following.next()).await;
                if matches!(next, Ok(Ok(None) | Err(_))) {
                    self.events = None;
                }
            }
            None => {
                tokio::time::sleep(LOOK_AGAIN).await;
                self.events = events(self.client).await.ok();
            }
        }
    }
}

async fn events(client: &Client) -> CommandResult<Events> {
    let next = client.standing().await?.next;
    Ok(client.events(next, true).await?)
}
