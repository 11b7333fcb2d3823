//! Sealing: the last commit of a ledger that goes on elsewhere.

use bytes::Bytes;
use schemas::envelope::{About, CommandRef, Draft, Head as WireHead};
use schemas::{Actor, CommandId, CommitId, Event, Hash, Offset, Stream, genesis};
use uuid::Uuid;

use super::{Ledger, Refusal};
use crate::log::Urgency;

impl Ledger {
    /// Seals the ledger: after this commit none counts, whoever writes it. Returns where it stands; a ledger that was
    /// sealed for the same target is so already.
    ///
    /// # Errors
    ///
    /// [`Refusal::Sealed`] if it goes on elsewhere already; else as [`Ledger::execute`].
    pub async fn seal(&self, target: &str, actor: Actor) -> Result<Offset, Refusal> {
        if let Some(why) = self.halted() {
            return Err(Refusal::Halted(why));
        }
        let draft = match self.draft_of_seal(target, actor) {
            Some(draft) => draft,
            None => return self.sealed_for(target),
        };
        let bytes = Bytes::from(draft.to_bytes());
        match self.append(&draft, bytes, Urgency::Rollback).await? {
            Some((done, _)) => Ok(done.offset),
            None => self.sealed_for(target),
        }
    }

    /// Puts the commit together; none if there is one.
    fn draft_of_seal(&self, target: &str, actor: Actor) -> Option<Draft> {
        let view = self.view();
        if view.ruler().is_sealed() {
            return None;
        }
        let event: Event = genesis::Sealed { target: target.to_owned() }.into();
        let command = CommandRef {
            id: CommandId::of_outcome(view.state().ledger?, "seal"),
            hash: Hash::of(event.data().get().as_bytes()),
        };
        let head = view.head(&Stream::Ledger);
        let about = About::by(actor);
        Some(Draft {
            id: CommitId(Uuid::now_v7()),
            command,
            time: self.now(&view).time,
            extends: vec![WireHead { stream: Stream::Ledger, version: head.version, hash: head.hash }],
            requires: vec![],
            events: vec![(Stream::Ledger, event)],
            about,
        })
    }

    /// Returns where a sealed ledger was sealed. Nothing counts behind that commit: it is the last that does.
    fn sealed_for(&self, target: &str) -> Result<Offset, Refusal> {
        let view = self.view();
        match &view.state().sealed {
            Some(known) if known == target => Ok(view.ruler().last_counted().expect("the seal counts")),
            Some(known) => Err(Refusal::Sealed { target: known.clone() }),
            None => Err(Refusal::Halted("its own stream goes on with what this program does not know".to_owned())),
        }
    }
}
