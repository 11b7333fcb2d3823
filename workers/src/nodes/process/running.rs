//! The nodes that were seen to run, so that another look at them costs little: such a node is known by its pid and start alone, and
//! looked at in full once its process is gone.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::SystemTime;

use schemas::EffectId;

use super::folder::{Folder, Record};
use super::{life, log};

/// The nodes that ran at the last look.
#[derive(Debug, Default)]
pub(super) struct RunningNodes(Mutex<HashMap<EffectId, Seen>>);

#[derive(Clone, Debug)]
struct Seen {
    record: Record,
    /// The length up to which all of its log is marked, in bytes.
    marked_bytes: u64,
}

impl RunningNodes {
    /// Returns the record of a node that ran at the last look, if its process still lives.
    pub(super) fn still(&self, effect: EffectId) -> io::Result<Option<Record>> {
        let Some(record) = self.0.lock().unwrap().get(&effect).map(|seen| seen.record.clone()) else { return Ok(None) };
        if life::is_same_process(&record)? {
            return Ok(Some(record));
        }
        self.0.lock().unwrap().remove(&effect);
        Ok(None)
    }

    /// Remembers that a node runs, and tends its log.
    pub(super) fn tend(&self, folder: &Folder, record: &Record) {
        let effect = record.effect;
        let known = self.0.lock().unwrap().get(&effect).map_or(0, |seen| seen.marked_bytes);
        let marked_bytes = log::tend(folder, SystemTime::now(), known).unwrap_or_else(|cause| {
            // Only `logs --since` begins a little early then, as on a full disk.
            tracing::debug!(%effect, %cause, "the log's time is not marked");
            known
        });
        let mut nodes = self.0.lock().unwrap();
        nodes.entry(effect).or_insert_with(|| Seen { record: record.clone(), marked_bytes }).marked_bytes =
            marked_bytes;
    }
}
