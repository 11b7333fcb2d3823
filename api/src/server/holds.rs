//! What a new hold means for those before it, with who set them: only the history knows that.

use std::collections::HashMap;

use ledger::deployment::hold::{self, Holds};
use schemas::hold::{Event as Hold, HoldSet};
use schemas::{CommitId, Event, Stream};

use super::Api;

/// Says of each hold that is set in `events` what it means for those that were there `before`.
pub(super) async fn beside(api: &Api, before: &Holds, events: &[(Stream, Event)]) -> Vec<String> {
    let set: Vec<_> = events.iter().filter_map(set).collect();
    if set.is_empty() {
        return vec![];
    }
    let mut who: HashMap<CommitId, String> = HashMap::new();
    for hold in before.values() {
        // Who set it is left out where it cannot be read.
        if let Ok(Some(made)) = api.reader.made(hold.commit).await {
            who.insert(hold.commit, made.actor.to_string());
        }
    }
    let notes = |(stream, set): (&Stream, &HoldSet)| match stream {
        Stream::Deployment(id) => hold::beside(id, before, set, |hold| who.get(&hold.commit).cloned()),
        _ => vec![],
    };
    set.into_iter().flat_map(notes).collect()
}

fn set((stream, event): &(Stream, Event)) -> Option<(&Stream, &HoldSet)> {
    match event {
        Event::Hold(Hold::HoldSet(set)) => Some((stream, set)),
        _ => None,
    }
}
