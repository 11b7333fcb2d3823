//! The start: tells a torn tail from damage, keeps the torn tail aside and cuts it off.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use schemas::Offset;

use super::scan::{self, Survey};
use super::segment_index::{self, SegmentIndex};
use super::writer::{RESERVE, Segment};
use super::{SegmentsOpenError, folder, hint};
use crate::log::ReadError;

/// The last segment as it was found.
pub(super) struct Found {
    /// Its first offset.
    pub(super) first: Offset,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// What they say.
    pub(super) survey: Survey,
    /// What was acknowledged.
    pub(super) known: Known,
}

/// Everything before `end` was acknowledged, as `who` says.
pub(super) struct Known {
    pub(super) end: Offset,
    who: String,
}

impl Known {
    /// Takes together what is said beside the segments: by the hint, and by what was folded from the log.
    pub(super) fn beside(hinted: Option<Offset>, folded: Option<Offset>) -> Self {
        let mut known = Self { end: Offset(0), who: String::new() };
        known.hear(hinted.unwrap_or_default(), || "the file `end` beside it".to_owned());
        known.hear(folded.unwrap_or_default(), || "what was folded from it".to_owned());
        known
    }

    fn hear(&mut self, end: Offset, who: impl FnOnce() -> String) {
        if end > self.end {
            *self = Self { end, who: who() };
        }
    }
}

/// Reads the last segment through; nothing if there is no segment.
pub(super) fn look(index: &SegmentIndex, mut known: Known) -> Result<Option<Found>, SegmentsOpenError> {
    let Some(first) = index.last() else { return Ok(None) };
    let path = index.path(first);
    let bytes = fs::read(&path).map_err(|source| SegmentsOpenError::io(&path, source))?;
    let survey = scan::survey(first, &bytes, |offset, at| index.place(first, offset, at));
    known.hear(survey.synced, || format!("the line at byte {}", survey.synced_at));
    Ok(Some(Found { first, bytes, survey, known }))
}

/// Brings the log into the state that the writer goes on from, and returns its end.
///
/// # Errors
///
/// [`SegmentsOpenError::Log`] if what was acknowledged is not there: then a bad place is no torn tail, and nothing is changed.
pub(super) fn recover(index: &SegmentIndex, known_end: Option<Offset>) -> Result<(Segment, Offset), SegmentsOpenError> {
    let known = Known::beside(hint::read(index.log()), known_end);
    let missing =
        |why: &str| ReadError::Damaged { offset: Offset(0), what: format!("{}: {why}", index.log().display()) };
    match index.first() {
        None if known.end > Offset(0) => {
            return Err(missing(&format!("it holds no segment, but {} says that it did", known.who)).into());
        }
        None => return begin(index),
        Some(Offset(0)) => {}
        Some(_) => return Err(missing("the first segment is gone").into()),
    }
    let found = look(index, known)?.expect("there is a segment");
    let path = index.path(found.first);
    if let Some(damage) = found.damage(&path) {
        return Err(damage.into());
    }
    let io = |source| SegmentsOpenError::io(&path, source);
    let file = File::options().read(true).write(true).open(&path).map_err(io)?;
    if found.survey.flaw.is_some() {
        cut(&file, index.log(), &found).map_err(io)?;
    }
    settle(&file, &found).and_then(|()| folder::sync_dir(index.log())).map_err(io)?;
    let len = found.survey.len as u64;
    let mut segment = Segment { first: found.first, file, len, allocated: len };
    segment.reach(len + RESERVE).map_err(io)?;
    Ok((segment, found.survey.end))
}

impl Found {
    /// Returns what is wrong if something that was acknowledged is not there.
    fn damage(&self, path: &Path) -> Option<ReadError> {
        let Self { survey, known: Known { end, who }, .. } = self;
        let flaw = survey.flaw.map_or_else(|| "the segment ends".to_owned(), |flaw| flaw.to_string());
        let what = format!("{flaw}, but {who} says that everything before offset {end} was acknowledged");
        (*end > survey.end).then(|| segment_index::damaged(survey.end, path, survey.len as u64, &what))
    }
}

/// Makes the first segment.
fn begin(index: &SegmentIndex) -> Result<(Segment, Offset), SegmentsOpenError> {
    let path = index.path(Offset(0));
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    let made = Segment::create(&path, Offset(0)).and_then(|segment| segment.ok_or_else(full));
    let segment = made.map_err(|source| SegmentsOpenError::io(&path, source))?;
    index.add(Offset(0));
    Ok((segment, Offset(0)))
}

/// Keeps what lies behind the last intact line aside, then cuts it off.
fn cut(file: &File, log: &Path, found: &Found) -> io::Result<()> {
    // Gives up what was allocated ahead, so that there is room to keep something aside on a full disk.
    file.set_len(found.bytes.len() as u64)?;
    let torn = &found.bytes[found.survey.len..];
    let (path, aside) = create_aside(log, found.survey.end)?;
    aside.write_all_at(torn, 0)?;
    aside.sync_all()?;
    folder::sync_dir(log)?;
    tracing::warn!(
        offset = found.survey.end.0, bytes = torn.len(), kept = %path.display(),
        "the log's tail was torn and never acknowledged: it is cut off and kept aside"
    );
    file.set_len(found.survey.len as u64)?;
    file.sync_all()
}

fn create_aside(log: &Path, end: Offset) -> io::Result<(PathBuf, File)> {
    for n in 0.. {
        let path = log.join(format!("torn-{end}-{n}.bin"));
        match File::options().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (path, file)),
        }
    }
    unreachable!("a name is free")
}

/// Makes the lines durable that are intact but not known to be. They may stand in memory alone: the process was killed
/// before its sync, or its sync failed, after which the kernel takes them for written. So they are written once more.
fn settle(file: &File, found: &Found) -> io::Result<()> {
    if found.known.end < found.survey.end {
        let batch = found.survey.synced_at;
        file.write_all_at(&found.bytes[batch..found.survey.len], batch as u64)?;
    }
    file.sync_all()
}
