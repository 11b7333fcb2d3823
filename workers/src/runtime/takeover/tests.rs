use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use ledger::View;
use ledger::execute::SystemClock;
use ledger::log::memory::MemoryLog;
use ledger::log::{AppendError, Log, ReadError, Record, Urgency};
use schemas::Offset;
use tokio::sync::watch;

use super::*;

const ROLE: Role = Role::Collector;

/// Heartbeats as the test has them.
#[derive(Default)]
struct Silence(Mutex<BTreeMap<String, Duration>>);

impl Silence {
    fn of(&self, holder: &str, silence: Duration) {
        self.0.lock().unwrap().insert(holder.to_owned(), silence);
    }
}

impl Heartbeats for Silence {
    fn send(&self, _: &Beat) {}

    fn silence(&self, _: Role, holder: &str) -> Duration {
        self.0.lock().unwrap().get(holder).copied().unwrap_or_default()
    }
}

/// A log of which nobody can be asked for the end.
struct CutOff(MemoryLog);

#[async_trait]
impl Log for CutOff {
    async fn append(&self, bytes: Bytes, urgency: Urgency) -> Result<Offset, AppendError> {
        self.0.append(bytes, urgency).await
    }

    async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
        self.0.read(from, max).await
    }

    fn end(&self) -> watch::Receiver<Offset> {
        self.0.end()
    }

    async fn latest(&self) -> Result<Offset, ReadError> {
        Err(ReadError::Unavailable("cut off".to_owned()))
    }
}

async fn open(log: Arc<dyn Log>) -> Ledger {
    Ledger::open(log, View::default(), Arc::new(SystemClock)).await.unwrap()
}

async fn take(ledger: &Ledger, holder: &str, turn: Turn) -> Result<(), Refusal> {
    let Turn { from, reason } = turn;
    let outcome = Outcome::TakeLease(outcome::TakeLease { role: ROLE, holder: holder.to_owned(), from, reason });
    ledger.record(outcome, ROLE, holder, None).await.map(drop)
}

fn waiting<'a>(ledger: &'a Ledger, holder: &'a str, heartbeats: &'a Silence) -> Waiting<'a> {
    Waiting { role: ROLE, holder, ledger, heartbeats }
}

/// Whether it is not the instance's turn for longer than it looks.
async fn waits(waiting: Waiting<'_>) -> bool {
    tokio::time::timeout(LOOK_EVERY * 5, waiting.turn()).await.is_err()
}

#[tokio::test]
async fn an_instance_acts_where_nobody_does_and_another_waits_until_it_has_fallen_silent() {
    let (ledger, heartbeats) = (open(Arc::new(MemoryLog::new())).await, Silence::default());
    let turn = waiting(&ledger, "one", &heartbeats).turn().await.unwrap();
    assert_eq!(turn.from, None);
    take(&ledger, "one", turn).await.unwrap();

    heartbeats.of("one", SILENCE_MAX - Duration::from_millis(1));
    assert!(waits(waiting(&ledger, "two", &heartbeats)).await);
    heartbeats.of("one", SILENCE_MAX);
    let turn = waiting(&ledger, "two", &heartbeats).turn().await.unwrap();
    assert_eq!(turn, Turn { from: Some("one".to_owned()), reason: "one was silent for 2.5 s".to_owned() });
    take(&ledger, "two", turn).await.unwrap();
    assert_eq!(ledger.view().state().lease(ROLE).holder.as_deref(), Some("two"));
}

#[tokio::test]
async fn of_two_that_take_over_at_once_the_first_acts() {
    let (ledger, heartbeats) = (open(Arc::new(MemoryLog::new())).await, Silence::default());
    take(&ledger, "one", waiting(&ledger, "one", &heartbeats).turn().await.unwrap()).await.unwrap();
    heartbeats.of("one", SILENCE_MAX);
    let two = waiting(&ledger, "two", &heartbeats).turn().await.unwrap();
    let three = waiting(&ledger, "three", &heartbeats).turn().await.unwrap();
    take(&ledger, "two", two).await.unwrap();
    let refused = take(&ledger, "three", three).await;
    assert!(matches!(refused, Err(Refusal::Rejected(Rejection::Outdated(_)))), "{refused:?}");
    assert!(waits(waiting(&ledger, "three", &heartbeats)).await);
}

#[tokio::test]
async fn whoever_cannot_ask_the_log_for_its_end_takes_nothing_over() {
    let (ledger, heartbeats) = (open(Arc::new(CutOff(MemoryLog::new()))).await, Silence::default());
    let first = Turn { from: None, reason: "the first".to_owned() };
    take(&ledger, "one", first).await.unwrap();
    heartbeats.of("one", SILENCE_MAX * 10);
    assert!(waits(waiting(&ledger, "two", &heartbeats)).await);
}
