//! Reads a segment's bytes through and says how far they are intact, and what they prove to have been acknowledged.

use schemas::Offset;

use super::line::{self, Flaw};

/// What a segment's bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    /// The offset after the last intact record before any bad place.
    pub(super) end: Offset,
    /// The bytes up to there.
    pub(super) len: usize,
    /// Why the bytes after that are bad; nothing if there are none.
    pub(super) flaw: Option<Flaw>,
    /// The greatest `synced` of any intact line, also behind the bad place: everything before it was acknowledged.
    pub(super) synced: Offset,
    /// The byte at which the first line stands that says so: where the last batch begins, if nothing is bad.
    pub(super) synced_at: usize,
}

/// Surveys a segment that begins with `first`, and gives the place of every record before a bad one to `place`.
pub(super) fn survey(first: Offset, bytes: &[u8], mut place: impl FnMut(Offset, u64)) -> Survey {
    // The segment was made when everything before it had been acknowledged.
    let mut survey = Survey { end: first, len: 0, flaw: None, synced: first, synced_at: 0 };
    while survey.len < bytes.len() {
        match line::read(&bytes[survey.len..]) {
            Ok((line, len)) if line.offset == survey.end => {
                place(survey.end, survey.len as u64);
                survey.believe(line.synced, survey.len);
                survey.end = survey.end.next();
                survey.len += len;
            }
            Ok(_) => survey.flaw = Some(Flaw::Order),
            Err(flaw) => survey.flaw = Some(flaw),
        }
        if survey.flaw.is_some() {
            survey.look_behind(bytes);
            break;
        }
    }
    survey
}

impl Survey {
    fn believe(&mut self, synced: Offset, at: usize) {
        if synced > self.synced {
            (self.synced, self.synced_at) = (synced, at);
        }
    }

    /// Looks for intact lines behind the bad place. They may begin anywhere: the newline before one can be what is
    /// damaged, or its place was never written and reads as zeros.
    fn look_behind(&mut self, bytes: &[u8]) {
        let behind = self.len;
        for at in memchr::memmem::find_iter(&bytes[behind..], line::OPEN).map(|at| behind + at) {
            if let Ok((line, _)) = line::read(&bytes[at..])
                && line.offset >= self.end
                && line.synced <= line.offset
            {
                self.believe(line.synced, at);
            }
        }
    }
}
