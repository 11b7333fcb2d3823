//! What a user's connection is doing: shared by the socket, the request at hand and who watches over both.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::sync::Notify;

use super::clock::{ms, now_ms};
use super::limits::Patience;
use super::meter::RequestOutcome;
use super::ticket::Ticket;

/// The most bytes of interim answers that wait for the user; more of them are left out.
const INTERIM_MAX: usize = 32 * 1_024;

/// What a connection waits for, each since when (0: it does not), and how far the request at hand has got.
#[derive(Debug)]
pub(super) struct Activity {
    busy: AtomicBool,
    head_since_ms: AtomicU64,
    quiet_since_ms: AtomicU64,
    stalled_since_ms: AtomicU64,
    /// Whether the request at hand has a body that has not come to its end.
    unread: Arc<AtomicBool>,
    /// Whether the first line of the request at hand has a fragment in its target.
    fragment: AtomicBool,
    /// Whether an answer broke off and its user, of HTTP/1.0, can tell only by a reset.
    cut: AtomicBool,
    half_closed: AtomicBool,
    /// Whether the proxy is ending.
    closing: AtomicBool,
    /// Told when the connection has something to do that its socket does not say.
    stirring: Notify,
    has_interim: AtomicBool,
    interim: Mutex<Interim>,
    /// Requests whose answer a half-closed user has yet to get.
    owed: Mutex<Vec<(Ticket, RequestOutcome)>>,
}

/// Interim answers that wait to be written before the answer of the request at hand.
#[derive(Debug, Default)]
struct Interim {
    /// Which request of the connection is at hand.
    request: u64,
    /// Whether it may still have interim answers.
    open: bool,
    bytes: Vec<u8>,
}

/// Exists while a request is being worked on.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

/// Passes interim answers of one request on, from wherever its node is heard.
#[derive(Clone, Debug)]
pub(super) struct Hints {
    activity: Arc<Activity>,
    request: u64,
}

impl Activity {
    pub(super) fn new(now: u64) -> Self {
        Self {
            busy: AtomicBool::new(false),
            head_since_ms: AtomicU64::new(0),
            quiet_since_ms: AtomicU64::new(now),
            stalled_since_ms: AtomicU64::new(0),
            unread: Arc::default(),
            fragment: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            half_closed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            stirring: Notify::new(),
            has_interim: AtomicBool::new(false),
            interim: Mutex::default(),
            owed: Mutex::default(),
        }
    }

    /// Takes note of a part of a request that came at `now`.
    pub(super) fn note_read(&self, now: u64) {
        if !self.is_busy() && self.head_since_ms.load(Relaxed) == 0 {
            self.head_since_ms.store(now, Relaxed);
        }
    }

    /// Takes note of whether the user takes what is written.
    pub(super) fn note_write(&self, blocked: bool, now: impl FnOnce() -> u64) {
        match (blocked, self.stalled_since_ms.load(Relaxed)) {
            (true, 0) => self.stalled_since_ms.store(now(), Relaxed),
            (false, 1..) => self.stalled_since_ms.store(0, Relaxed),
            (true, 1..) | (false, 0) => {}
        }
    }

    /// Takes note of whether the head that has come whole has a fragment in its target.
    pub(super) fn note_head(&self, fragment: bool) {
        self.fragment.store(fragment, Relaxed);
    }

    /// Takes note that the user sends no more.
    pub(super) fn note_half_closed(&self) {
        self.half_closed.store(true, Relaxed);
        self.stirring.notify_one();
    }

    /// Takes note that the proxy is ending, so that who watches is told of the next request.
    pub(super) fn note_closing(&self) {
        self.closing.store(true, Relaxed);
    }

    /// Returns whether the request at hand has a body that has not come to its end, for who reads it to clear.
    pub(super) fn unread(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unread)
    }

    /// Returns whether a request is being worked on.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Relaxed)
    }

    /// Returns whether the user sends no more, and may be gone.
    pub(super) fn is_half_closed(&self) -> bool {
        self.half_closed.load(Relaxed)
    }

    /// Returns when there is something to do that the socket does not say.
    pub(super) async fn stirred(&self) {
        self.stirring.notified().await;
    }

    /// Returns whether the user may still be sending a body that nobody reads.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// Returns whether the connection has to be reset.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// Returns whether a head has begun to come and is not whole.
    pub(super) fn is_within_head(&self) -> bool {
        !self.is_busy() && self.head_since_ms.load(Relaxed) != 0
    }

    /// Returns whether the user has been waited for too long.
    pub(super) fn is_overdue(&self, now: u64, patience: &Patience) -> bool {
        let over = |since: u64, limit| since != 0 && now.saturating_sub(since) >= ms(limit);
        let idle = !self.is_busy();
        over(self.stalled_since_ms.load(Relaxed), patience.stall)
            || idle && over(self.head_since_ms.load(Relaxed), patience.head)
            || idle && over(self.quiet_since_ms.load(Relaxed), patience.idle)
    }

    /// Returns whether the user takes nothing of what is there.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled_since_ms.load(Relaxed) != 0
    }

    /// Writes what interim answers there are with `write`, which says how many bytes it has written. To be called only
    /// when everything before them has been written.
    pub(super) fn write_interim<E>(
        &self,
        cx: &Context<'_>,
        mut write: impl FnMut(&[u8]) -> Poll<Result<usize, E>>,
    ) -> Poll<Result<(), E>> {
        if !self.has_interim.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let mut interim = self.interim.lock().unwrap();
        while !interim.bytes.is_empty() {
            let count = std::task::ready!(write(&interim.bytes))?;
            interim.bytes.drain(..count);
        }
        self.has_interim.store(false, Relaxed);
        cx.waker().wake_by_ref(); // for the answer, which waits for this
        Poll::Ready(Ok(()))
    }

    /// Asks a user who has half-closed whether anybody is there: a peer that is gone answers it with a reset. It is an
    /// interim answer, which every user of HTTP/1.1 has to expect.
    pub(super) fn probe(&self) {
        let mut interim = self.interim.lock().unwrap();
        if interim.open && interim.bytes.is_empty() {
            interim.bytes.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.has_interim.store(true, Relaxed);
        }
    }

    /// Ends the requests whose answer a half-closed user had yet to get: as they are if it got it.
    pub(super) fn settle(&self, delivered: bool) {
        for (ticket, outcome) in self.owed.lock().unwrap().drain(..) {
            ticket.end(if delivered { outcome } else { RequestOutcome::Abandoned });
        }
    }

    /// Returns whether a half-closed user has yet to get an answer.
    pub(super) fn owes(&self) -> bool {
        !self.owed.lock().unwrap().is_empty()
    }
}

impl Busy {
    /// Begins a request, of HTTP/1.1 if it `may_have_interim` answers.
    pub(super) fn new(activity: Arc<Activity>, has_body: bool, may_have_interim: bool) -> Self {
        activity.busy.store(true, Relaxed);
        activity.head_since_ms.store(0, Relaxed);
        activity.unread.store(has_body, Relaxed);
        if activity.closing.load(Relaxed) {
            activity.stirring.notify_one();
        }
        {
            let mut interim = activity.interim.lock().unwrap();
            *interim = Interim { request: interim.request + 1, open: may_have_interim, bytes: Vec::new() };
        }
        Self(activity)
    }

    /// Returns whether its first line has a fragment in its target.
    pub(super) fn has_fragment(&self) -> bool {
        self.0.fragment.load(Relaxed)
    }

    /// Returns the connection's activity.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.0
    }

    /// Returns what passes its interim answers on, if it may have any.
    pub(super) fn hints(&self) -> Option<Hints> {
        let interim = self.0.interim.lock().unwrap();
        interim.open.then(|| Hints { activity: self.0.clone(), request: interim.request })
    }

    /// Waits until its interim answers are written; there are none from then on.
    pub(super) async fn answers(&self) {
        poll_fn(|_| {
            let mut interim = self.0.interim.lock().unwrap();
            if !interim.bytes.is_empty() {
                return Poll::Pending; // who writes them wakes this
            }
            interim.open = false;
            Poll::Ready(())
        })
        .await;
    }

    /// Takes note that the answer broke off, for a user who could not tell.
    pub(super) fn cut(&self) {
        self.0.cut.store(true, Relaxed);
    }

    /// Ends `ticket`: at once, or where the user has half-closed, once it has got the answer.
    pub(super) fn end(&self, ticket: Ticket, outcome: RequestOutcome) {
        if self.0.is_half_closed() {
            self.0.owed.lock().unwrap().push((ticket, outcome));
        } else {
            ticket.end(outcome);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.quiet_since_ms.store(now_ms(), Relaxed);
        self.0.busy.store(false, Relaxed);
    }
}

impl Hints {
    /// Passes `text` on if its request is still without an answer.
    pub(super) fn pass(&self, text: &[u8]) {
        let mut interim = self.activity.interim.lock().unwrap();
        if interim.open && interim.request == self.request && interim.bytes.len() + text.len() <= INTERIM_MAX {
            interim.bytes.extend_from_slice(text);
            self.activity.has_interim.store(true, Relaxed);
            self.activity.stirring.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    fn overdue(activity: &Activity, now: u64) -> bool {
        activity.is_overdue(now, &Patience::default())
    }

    #[test]
    fn a_head_that_is_not_whole_after_ten_seconds_is_overdue() {
        let activity = Arc::new(Activity::new(1));
        activity.note_read(5 * SECOND);
        activity.note_read(14 * SECOND);
        assert!(!overdue(&activity, 15 * SECOND - 1));
        assert!(overdue(&activity, 15 * SECOND) && activity.is_within_head());
        let _busy = Busy::new(activity.clone(), false, true);
        assert!(!overdue(&activity, 60 * SECOND), "the request has come in and is being worked on");
    }

    #[test]
    fn an_idle_connection_is_overdue_after_its_last_answer_only() {
        let activity = Arc::new(Activity::new(1));
        activity.note_read(1);
        let busy = Busy::new(activity.clone(), true, true);
        activity.note_read(20 * SECOND); // its body
        drop(busy);
        activity.quiet_since_ms.store(100 * SECOND, Relaxed);
        assert!(!overdue(&activity, 175 * SECOND - 1));
        assert!(overdue(&activity, 175 * SECOND));
    }

    #[test]
    fn a_user_who_takes_nothing_of_the_answer_for_a_minute_is_overdue() {
        let activity = Arc::new(Activity::new(1));
        let _busy = Busy::new(activity.clone(), false, true);
        activity.note_write(true, || SECOND);
        activity.note_write(true, || 50 * SECOND);
        assert!(overdue(&activity, 61 * SECOND));
        activity.note_write(false, || 61 * SECOND);
        assert!(!overdue(&activity, 200 * SECOND));
    }

    #[test]
    fn interim_answers_are_those_of_the_request_at_hand_and_come_before_its_answer() {
        let activity = Arc::new(Activity::new(1));
        let written = |activity: &Activity| {
            let (mut written, cx) = (Vec::new(), Context::from_waker(std::task::Waker::noop()));
            let _ = activity.write_interim(&cx, |bytes| {
                written.extend_from_slice(&bytes[..1]);
                Poll::Ready(Ok::<_, ()>(1))
            });
            String::from_utf8(written).unwrap()
        };
        let first = Busy::new(activity.clone(), false, true);
        let late = first.hints().unwrap();
        late.pass(b"one");
        late.pass(b"two");
        assert_eq!(written(&activity), "onetwo");
        drop(first);
        let second = Busy::new(activity.clone(), false, true);
        late.pass(b"late");
        second.hints().unwrap().pass(&[b'x'; INTERIM_MAX + 1]);
        assert_eq!(written(&activity), "");
        let _old = Busy::new(activity.clone(), false, false);
        activity.probe();
        assert_eq!(written(&activity), "", "HTTP/1.0 has no interim answers");
    }
}
