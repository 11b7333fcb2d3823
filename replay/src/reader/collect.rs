//! Collect: what one pass over the log gathers for an answer: the state up to a moment, where commits stand, history.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use ledger::rule::{Halt, Ruling};
use ledger::view::{Decoded, Folded};
use ledger::{Deployment, View};
use schemas::envelope::Envelope;
use schemas::{CommitId, DeploymentId, Offset, ServiceName, Stream, Timestamp};

use super::{Error, HistoryQuery, ProductionAt};
use crate::answer::{At, Made, Names};
use crate::fold::Visit;
use crate::moment::Moment;
use crate::outage::{self, Outage};
use crate::shares::{CommitPosition, Shares};

/// A record of history.
pub(super) enum Kept {
    /// One that was read, with what its ids stood for.
    Read { folded: Folded, names: Names },
    /// One that cannot be read now, as far as the cache knows it, and why.
    Missing { offset: Offset, ruling: Ruling, made: Option<Made>, why: String },
}

/// Where each commit stands.
pub(super) type CommitPlaces = HashMap<CommitId, (Offset, Timestamp)>;

pub(super) struct Collect {
    until: Moment,
    found: bool,
    /// Whether it goes on behind the moment, for what was recorded later and was in effect then.
    goes_on: bool,
    /// What it saw at the moment, once it is past that.
    then: Option<ProductionAt>,
    outages: Vec<Outage>,
    view: View,
    shares: Shares,
    places: Option<CommitPlaces>,
    history: Option<HistoryQuery>,
    kept: VecDeque<Kept>,
    more: bool,
}

impl Collect {
    /// Gathers the state up to a moment.
    pub(super) fn new(until: Moment) -> Self {
        Self {
            until,
            found: false,
            goes_on: false,
            then: None,
            outages: Vec::new(),
            view: View::default(),
            shares: Shares::default(),
            places: None,
            history: None,
            kept: VecDeque::new(),
            more: false,
        }
    }

    /// Also lets the rollbacks count that were in effect at the moment and were recorded later.
    pub(super) fn with_outages(mut self) -> Self {
        self.goes_on = true;
        self
    }

    /// Also remembers where each commit stands.
    pub(super) fn with_places(mut self) -> Self {
        self.places = Some(CommitPlaces::new());
        self
    }

    /// Also keeps the records of `query`.
    pub(super) fn with_history(mut self, query: HistoryQuery) -> Self {
        self.history = Some(query);
        self
    }

    /// Returns this if the pass came to where it was to end.
    ///
    /// # Errors
    ///
    /// [`Error::NoCommit`], or [`Error::NoOffset`] if the log ended before.
    pub(super) fn reached(self) -> Result<Self, Error> {
        let records = self.view.next().0;
        match self.until {
            Moment::Event(commit) if !self.found => Err(Error::NoCommit(commit)),
            Moment::Offset(asked) if asked.0 >= records => {
                Err(Error::NoOffset { asked, records, last: records.saturating_sub(1) })
            }
            _ => Ok(self),
        }
    }

    pub(super) fn places(&mut self) -> CommitPlaces {
        self.places.take().unwrap_or_default()
    }

    /// Returns the streams that are read-only for this program, each with the first event that it does not understand.
    pub(super) fn read_only(&self) -> &BTreeMap<String, String> {
        self.view.read_only()
    }

    pub(super) fn seen(mut self) -> ProductionAt {
        let outages = std::mem::take(&mut self.outages);
        let mut seen = self.then.take().unwrap_or_else(|| self.seen_now());
        outage::lay(outages, &mut seen.state, &mut seen.shares);
        seen
    }

    fn seen_now(&self) -> ProductionAt {
        ProductionAt { at: At::of(&self.view), state: self.view.state().clone(), shares: self.shares.clone() }
    }

    /// The moment is reached: it ends here, or goes on for what was recorded later.
    fn reach(&mut self) -> ControlFlow<()> {
        if !self.goes_on {
            return ControlFlow::Break(());
        }
        self.then = Some(self.seen_now());
        ControlFlow::Continue(())
    }

    /// Keeps the rollback that a commit at `place` records, if that was in effect at the moment.
    fn keep_outage(&mut self, decoded: &Decoded<'_>, place: CommitPosition) {
        let Some(then) = &self.then else { return };
        let Some((time, from)) = self.until.time(then.at).zip(decoded.took_effect()) else { return };
        let outage = Outage::of(from, place, decoded.events().iter().flatten(), self.view.state());
        self.outages.extend(outage.filter(|outage| outage.covers(then.at, time)));
    }

    /// Takes what was kept, the newest first, and whether the limit left out older ones.
    pub(super) fn take_kept(&mut self) -> (Vec<Kept>, bool) {
        (std::mem::take(&mut self.kept).into_iter().rev().collect(), self.more)
    }

    fn keep(&mut self, kept: Kept) {
        self.kept.push_back(kept);
        let limit = self.history.as_ref().and_then(|query| query.limit).unwrap_or(usize::MAX);
        if self.kept.len() > limit {
            self.kept.pop_front();
            self.more = true;
        }
    }

    fn deployment(&self, id: Option<&DeploymentId>) -> Option<Arc<Deployment>> {
        self.view.state().deployments.get(id?).cloned()
    }

    /// Says whether a record at `offset` with `commit`, if it counts, is the one to end after.
    fn ends(&mut self, offset: Offset, commit: Option<CommitId>) -> bool {
        match self.until {
            Moment::Now | Moment::Time(_) => false,
            Moment::Offset(last) => offset == last,
            Moment::Event(wanted) => {
                self.found = commit == Some(wanted);
                self.found
            }
        }
    }
}

impl Visit for Collect {
    fn visit(&mut self, offset: Offset, decoded: Decoded<'_>) -> Result<ControlFlow<()>, Halt> {
        if let Moment::Time(time) = self.until
            && self.then.is_none()
            && self.view.time_with(&decoded) > time
            && self.reach().is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        let about_it = self.history.as_ref().is_some_and(|query| is_about(query, decoded.envelope()));
        let (deployment, service) = match decoded.envelope().filter(|_| about_it) {
            Some(envelope) => subjects(envelope.extends.iter().map(|head| &*head.stream)),
            None => (None, None),
        };
        let before = self.deployment(deployment.as_ref());
        let service = service.and_then(|name| self.view.state().services.get(&name).cloned());
        let ruling = self.view.advance(offset, &decoded)?;
        let commit = decoded.envelope().map(|envelope| envelope.id).filter(|_| ruling.void.is_none());
        if let Some(commit) = commit {
            let place = CommitPosition { offset, time: ruling.time, commit };
            for (stream, event) in decoded.events().iter().flatten() {
                self.shares.evolve(stream, event, place);
            }
            if let Some(places) = &mut self.places {
                places.insert(commit, (offset, ruling.time));
            }
            self.keep_outage(&decoded, place);
        }
        let wanted = self.history.as_ref().is_some_and(|query| {
            let young = query.since.is_none_or(|since| ruling.time >= since);
            about_it && young && query.reaches(offset) && (ruling.void.is_none() || query.voids)
        });
        if wanted {
            let names = Names { before, after: self.deployment(deployment.as_ref()), service, asked: vec![] };
            self.keep(Kept::Read { folded: decoded.into_folded(offset, ruling), names });
        }
        Ok(if self.then.is_none() && self.ends(offset, commit) { self.reach() } else { ControlFlow::Continue(()) })
    }
}

/// Says whether a record is about what is asked for. What is no commit is about nothing but the ledger as a whole.
pub(super) fn is_about(query: &HistoryQuery, envelope: Option<&Envelope<'_>>) -> bool {
    query.is_all()
        || envelope.is_some_and(|envelope| envelope.extends.iter().any(|head| stream_is_about(query, &head.stream)))
}

/// Says whether a stream is about what is asked for.
pub(super) fn stream_is_about(query: &HistoryQuery, stream: &str) -> bool {
    let service = |service| query.service.as_ref().is_none_or(|wanted| wanted.as_str() == service);
    let environment = |environment| query.environment.as_ref().is_none_or(|wanted| wanted.as_str() == environment);
    match stream.split('/').collect::<Vec<_>>()[..] {
        ["service", name] => service(name),
        ["deployment", env, name] => service(name) && environment(env),
        // A verdict that changed something is in a commit of its deployment too.
        ["judgement", env, name] => (query.counts || query.is_all()) && service(name) && environment(env),
        _ => query.is_all(),
    }
}

/// Returns the deployment and the service that a commit which extends these streams is about, as far as it is about one.
pub(super) fn subjects<'a>(streams: impl IntoIterator<Item = &'a str>) -> (Option<DeploymentId>, Option<ServiceName>) {
    let (mut deployment, mut service) = (None, None);
    for stream in streams {
        match stream.parse() {
            Ok(Stream::Deployment(id) | Stream::Judgement(id)) => deployment = deployment.or(Some(id)),
            Ok(Stream::Service(name)) => service = service.or(Some(name)),
            _ => {}
        }
    }
    (deployment, service)
}
