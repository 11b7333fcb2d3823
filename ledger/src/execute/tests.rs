//! What is asked is carried out at most once, in turn, by whoever may, and nobody is left to guess.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use schemas::outcome::{self, DeploymentOutcome};
use schemas::{ActorKind, Probed, Role, StreamVersion};

use super::*;
use crate::decision::Rejection;
use crate::kit;
use crate::kit::{V1, V2, V3};
use crate::log::memory::{Fault, MemoryLog};
use crate::log::{ReadError, Record};
use crate::rule::Halt;

mod views;

const HOLDER: &str = "one";
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A clock that only the test moves: the wall's milliseconds and the steady ones since the start.
#[derive(Default)]
struct Hands {
    wall_ms: AtomicU64,
    steady_ms: AtomicU64,
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
        start + Duration::from_millis(self.wall_ms.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Duration {
        Duration::from_millis(self.steady_ms.load(Ordering::SeqCst))
    }
}

impl Hands {
    fn pass_ms(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.steady_ms.fetch_add(ms, Ordering::SeqCst);
    }

    fn jump_ms(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

struct Installation {
    log: Arc<MemoryLog>,
    clock: Arc<Hands>,
    ledger: Ledger,
}

async fn open(log: &Arc<MemoryLog>, clock: &Arc<Hands>) -> Ledger {
    let log: Arc<dyn Log> = Arc::<MemoryLog>::clone(log);
    let clock: Arc<dyn Clock> = Arc::<Hands>::clone(clock);
    Ledger::open(log, View::default(), clock).await.unwrap()
}

fn id(n: u128) -> CommandId {
    CommandId(Uuid::from_u128(n))
}

fn request(command: Command) -> Request {
    Request { id: CommandId(Uuid::now_v7()), command, fence: None, reason: None, effective_at: None }
}

fn ana() -> Actor {
    Actor { kind: ActorKind::Person, name: "ana".to_owned(), proof: "unix-peer uid=1000".to_owned() }
}

impl Installation {
    async fn empty() -> Self {
        let (log, clock) = (Arc::new(MemoryLog::new()), Arc::new(Hands::default()));
        let ledger = open(&log, &clock).await;
        Self { log, clock, ledger }
    }

    /// Two versions are ready, the first holds all traffic, and the worker `one` holds every role.
    async fn serving() -> Self {
        let installation = Self::empty().await;
        installation.take(HOLDER).await;
        installation.ask(kit::apply(kit::definition())).await.unwrap();
        for version in [V1, V2, V3] {
            installation.ask(kit::release(version)).await.unwrap();
            installation.ask(kit::new(version)).await.unwrap();
            installation.bring_up(version).await;
        }
        installation.ask(kit::traffic(&[(V1, 100)], false)).await.unwrap();
        installation
    }

    async fn take(&self, holder: &str) {
        for role in Role::ALL {
            let (holder, reason) = (holder.to_owned(), "started".to_owned());
            let from = self.ledger.view().state().lease(role).holder;
            let taken = Outcome::TakeLease(outcome::TakeLease { role, holder: holder.clone(), from, reason });
            self.ledger.record(taken, role, &holder, None).await.unwrap();
        }
    }

    async fn ask(&self, command: Command) -> Result<Executed, Refusal> {
        self.send(request(command)).await
    }

    async fn send(&self, request: Request) -> Result<Executed, Refusal> {
        let answer = self.ledger.execute(request, ana(), None);
        tokio::time::timeout(WAIT_MAX, answer).await.expect("an answer")
    }

    async fn report(&self, outcome: DeploymentOutcome) -> Result<Executed, Refusal> {
        self.report_as(HOLDER, outcome).await
    }

    async fn report_as(&self, holder: &str, outcome: DeploymentOutcome) -> Result<Executed, Refusal> {
        let outcome = Outcome::Deployment(outcome::DeploymentReport { deployment: kit::id(), outcome });
        self.ledger.record(outcome, Role::Provisioner, holder, None).await
    }

    fn stack(&self, version: &str) -> schemas::StackId {
        let view = self.ledger.view();
        let deployment = view.state().deployment(&kit::id()).unwrap();
        deployment.stack_for(&kit::version(version)).unwrap().0
    }

    async fn bring_up(&self, version: &str) {
        let stack = self.stack(version);
        let effect = schemas::EffectId::of_launch(self.ledger.id(), stack, 0, 0);
        let address = "127.0.0.1:4000".parse().unwrap();
        for outcome in [
            DeploymentOutcome::StartLaunch(outcome::StartLaunch { stack, slot: 0, attempt: 0, effect, port: 4_000 }),
            DeploymentOutcome::Launched(outcome::Launched { effect, address, instance: "process 1".to_owned() }),
            DeploymentOutcome::NodeReady(outcome::NodeReady { effect }),
            DeploymentOutcome::StackReady(outcome::StackReady { stack }),
        ] {
            self.report(outcome).await.unwrap();
        }
    }

    fn end(&self) -> Offset {
        *self.log.end().borrow()
    }

    fn fence(&self) -> Fence {
        self.ledger.view().state().deployment(&kit::id()).unwrap().traffic.fence
    }

    fn serves(&self, version: &str) -> bool {
        let stack = self.stack(version);
        let view = self.ledger.view();
        let traffic = &view.state().deployment(&kit::id()).unwrap().traffic;
        traffic.set.as_ref().is_some_and(|set| set.weights.sole() == Some(stack))
    }

    async fn folded(&self, at_least: Offset) {
        let mut folded = self.ledger.folded();
        let waited = folded.wait_for(|next| *next >= at_least);
        tokio::time::timeout(WAIT_MAX, waited).await.expect("it is folded").unwrap();
    }

    /// Appends what another program decided: a commit on the deployment's head, of `kind`.
    async fn other_program(&self, kind: &str) -> Offset {
        let head = self.ledger.view().head(&Stream::Deployment(kit::id()));
        let commit = format!(
            concat!(
                r#"{{"rule":1,"id":"{id}","command":{{"id":"{id}","hash":"{zero}"}},"time":"2026-11-01T12:00:00Z","#,
                r#""extends":[{{"stream":"deployment/production/api","version":{version},"hash":"{hash}"}}],"#,
                r#""requires":[],"events":[{{"stream":"deployment/production/api","type":"{kind}","v":1,"data":{{}}}}],"#,
                r#""about":{{}}}}"#
            ),
            id = Uuid::now_v7(),
            zero = Hash::ZERO,
            version = head.version,
            hash = head.hash,
            kind = kind,
        );
        let offset = self.log.push(Bytes::from(commit));
        self.folded(offset.next()).await;
        offset
    }
}

fn kinds(answer: &Executed) -> Vec<&'static str> {
    answer.events.iter().map(|(_, event)| event.kind()).collect()
}

/// What is spawned must be able to move between threads.
#[test]
fn executing_is_send() {
    fn send<T: Send>(_: T) {}
    let check = |ledger: Ledger, request, actor| send(async move { ledger.execute(request, actor, None).await });
    let _ = check;
}

mod a_command_id {
    use super::*;

    #[tokio::test]
    async fn again_with_the_same_content_gives_the_first_answer() {
        let installation = Installation::serving().await;
        let asked = Request { id: id(1), ..request(kit::traffic(&[(V2, 100)], false)) };
        let first = installation.send(asked.clone()).await.unwrap();
        installation.ask(kit::traffic(&[(V1, 100)], false)).await.unwrap();
        let end = installation.end();
        let again = installation.send(asked).await.unwrap();
        assert_eq!((again.repeated, again.commit, again.offset), (true, first.commit, first.offset));
        assert_eq!(again.events, first.events);
        assert_eq!(installation.end(), end, "nothing was appended");
        assert!(installation.serves(V1), "and nothing was done again");
    }

    #[tokio::test]
    async fn again_with_other_content_is_refused() {
        let installation = Installation::serving().await;
        installation.send(Request { id: id(1), ..request(kit::traffic(&[(V2, 100)], false)) }).await.unwrap();
        let other = installation.send(Request { id: id(1), ..request(kit::traffic(&[(V1, 100)], false)) }).await;
        assert_eq!(other, Err(Refusal::OtherContent { id: id(1) }));
    }

    #[tokio::test]
    async fn is_forgotten_by_no_restart() {
        let installation = Installation::serving().await;
        let asked = Request { id: id(1), ..request(kit::rollback()) };
        installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
        let first = installation.send(asked.clone()).await.unwrap();
        let reopened = open(&installation.log, &installation.clock).await;
        let again = reopened.execute(asked, ana(), None).await.unwrap();
        assert_eq!((again.repeated, again.commit), (true, first.commit));
    }

    #[tokio::test]
    async fn sent_twice_at_once_counts_once() {
        let installation = Installation::serving().await;
        let twin =
            Installation { ledger: open(&installation.log, &installation.clock).await, ..Installation::empty().await };
        let asked = Request { id: id(1), ..request(kit::rollback()) };
        installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
        twin.folded(installation.end()).await;
        let (one, two) = futures::join!(installation.send(asked.clone()), twin.send(asked));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!((one.commit, &one.events), (two.commit, &two.events));
        assert_eq!(installation.fence(), Fence(1));
    }
}

mod a_conflict {
    use super::*;

    /// A log on which another program's commit always comes first, as often as it is told to.
    struct Contested {
        inner: Arc<MemoryLog>,
        rivals: Mutex<Vec<Bytes>>,
    }

    #[async_trait::async_trait]
    impl Log for Contested {
        async fn append(&self, bytes: Bytes, urgency: Urgency) -> Result<Offset, AppendError> {
            let rival = lock(&self.rivals).pop();
            rival.into_iter().for_each(|rival| _ = self.inner.push(rival));
            self.inner.append(bytes, urgency).await
        }

        async fn read(&self, from: Offset, max: usize) -> Result<Vec<Record>, ReadError> {
            self.inner.read(from, max).await
        }

        fn end(&self) -> watch::Receiver<Offset> {
            self.inner.end()
        }
    }

    fn asked(command: Command) -> Asked {
        let command_ref = CommandRef { id: id(u128::MAX), hash: command.hash() };
        let about = About::by(ana());
        Asked {
            command: Some(command_ref),
            what: What::Command { command, fence: None, probed: Probed::default() },
            about,
        }
    }

    /// The installation, but the next append comes behind the one of another program that does what is asked.
    fn contested(installation: Installation, rival: &Asked) -> impl Future<Output = Installation> {
        let now = Now { time: installation.clock.now(), commit: CommitId(Uuid::now_v7()) };
        let prepared = prepare(&installation.ledger.view(), rival, now, false).unwrap();
        let Prepared::Commit(draft, _) = prepared else { panic!("the rival changes nothing") };
        let rivals = Mutex::new(vec![Bytes::from(draft.to_bytes())]);
        let log = Contested { inner: Arc::clone(&installation.log), rivals };
        async move {
            let clock: Arc<dyn Clock> = Arc::<Hands>::clone(&installation.clock);
            let ledger = Ledger::open(Arc::new(log), View::default(), clock).await.unwrap();
            Installation { ledger, ..installation }
        }
    }

    #[tokio::test]
    async fn comes_back_to_a_person_with_what_happened_since() {
        let half = kit::traffic(&[(V1, 50), (V2, 50)], false);
        let installation = contested(Installation::serving().await, &asked(half)).await;
        let lost = installation.ask(kit::traffic(&[(V2, 100)], false)).await;
        let (stream, since) = ("deployment/production/api".to_owned(), "traffic.weights_set".to_owned());
        assert_eq!(lost, Err(Refusal::Conflict { stream, since }));
        assert!(!installation.serves(V2));
    }

    #[tokio::test]
    async fn on_what_was_only_required_comes_back_too() {
        let installation = contested(Installation::serving().await, &asked(kit::release("1.3.0"))).await;
        let lost = installation.ask(kit::traffic(&[(V2, 100)], false)).await;
        let (stream, since) = ("service/api".to_owned(), "release.recorded".to_owned());
        assert_eq!(lost, Err(Refusal::Conflict { stream, since }));
    }

    #[tokio::test]
    async fn of_a_rollback_is_decided_again_on_what_came_first() {
        let installation = Installation::serving().await;
        installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
        let installation = contested(installation, &asked(kit::traffic(&[(V3, 100)], false))).await;
        let back = installation.ask(kit::rollback()).await.unwrap();
        assert_eq!(kinds(&back), ["traffic.rolled_back", "traffic.weights_set", "hold.set"]);
        assert!(installation.serves(V2), "the target before the third version, not the one it was decided on first");
        assert_eq!(installation.ledger.view().voids(), 1);
    }

    #[tokio::test]
    async fn of_a_worker_is_decided_again() {
        let second = kit::traffic(&[(V2, 100)], false);
        let installation = contested(Installation::serving().await, &asked(second)).await;
        let effect = schemas::EffectId::of_launch(installation.ledger.id(), installation.stack(V1), 0, 0);
        let lost = DeploymentOutcome::NodeLost(outcome::NodeLost { effect, reason: "it exited".to_owned() });
        let answer = installation.report(lost).await.unwrap();
        assert_eq!(kinds(&answer), ["node.lost"]);
        assert!(installation.serves(V2), "and what came first stays");
        assert_eq!(installation.ledger.view().voids(), 1);
    }

    #[tokio::test]
    async fn with_a_takeover_voids_what_the_deposed_worker_wrote() {
        let (role, holder, from) = (Role::Provisioner, "two".to_owned(), Some(HOLDER.to_owned()));
        let taken = Outcome::TakeLease(outcome::TakeLease { role, holder, from, reason: "one is silent".to_owned() });
        let installation = contested(Installation::serving().await, &Asked::outcome(taken, role, "two", None)).await;
        let effect = schemas::EffectId::of_launch(installation.ledger.id(), installation.stack(V1), 0, 0);
        let lost = DeploymentOutcome::NodeLost(outcome::NodeLost { effect, reason: "it exited".to_owned() });
        let answer = installation.report(lost).await;
        assert_eq!(answer, Err(Refusal::Deposed { role: Role::Provisioner, holder: HOLDER.to_owned() }));
        assert_eq!(installation.ledger.view().voids(), 1, "the commit landed and does not count");
        let stack = installation.stack(V1);
        assert_eq!(installation.ledger.view().state().deployments[&kit::id()].stacks[&stack].ready_nodes(), 1);
    }
}

mod turns {
    use super::*;

    #[tokio::test]
    async fn are_taken_in_the_order_of_asking() {
        let installation = Installation::serving().await;
        let weights: Vec<u16> = (1..=20).collect();
        let asking =
            weights.iter().map(|weight| installation.ask(kit::traffic(&[(V1, 100 - weight), (V2, *weight)], false)));
        for answer in join_all(asking).await {
            answer.expect("in turn, so nobody conflicts");
        }
        let view = installation.ledger.view();
        assert_eq!(view.voids(), 0);
        let set = view.state().deployment(&kit::id()).unwrap().traffic.set.clone().unwrap();
        let stack = view.state().deployment(&kit::id()).unwrap().stack_for(&kit::version(V2)).unwrap().0;
        assert_eq!(set.weights.of(stack), kit::percent(20), "the last to ask is the last to be carried out");
    }

    #[tokio::test]
    async fn are_not_waited_for_by_a_rollback_and_what_stood_in_line_is_refused_after_it() {
        let installation = Installation::serving().await;
        installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
        let turn = installation.ledger.queue(&[Stream::Deployment(kit::id())]).await;
        let older = kit::traffic(&[(V3, 100)], false);
        let mut standing = Box::pin(installation.ask(older));
        assert!(futures::poll!(&mut standing).is_pending(), "it stands in line");
        installation.ask(kit::rollback()).await.unwrap();
        assert!(installation.serves(V1));
        drop(turn);
        let answer = standing.await;
        assert!(matches!(answer, Err(Refusal::Rejected(Rejection::Fenced { .. }))), "{answer:?}");
        assert!(installation.serves(V1));
    }
}

#[tokio::test]
async fn a_fence_that_the_sender_saw_is_taken_over_the_one_at_arrival() {
    let installation = Installation::serving().await;
    let seen = installation.fence();
    installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
    installation.ask(kit::rollback()).await.unwrap();
    let late = Request { fence: Some(seen), ..request(kit::traffic(&[(V2, 100)], false)) };
    let answer = installation.send(late).await;
    assert!(matches!(answer, Err(Refusal::Rejected(Rejection::Fenced { .. }))), "{answer:?}");
    let untold = installation.ask(kit::again(kit::traffic(&[(V2, 100)], false))).await;
    assert!(matches!(untold, Err(Refusal::Rejected(Rejection::Invalid(_)))), "it needs a reason: {untold:?}");
    let again = request(kit::again(kit::traffic(&[(V2, 100)], false)));
    installation.send(Request { reason: Some("it was mended".to_owned()), ..again }).await.unwrap();
}

#[tokio::test]
async fn a_worker_without_the_lease_writes_nothing() {
    let installation = Installation::serving().await;
    installation.take("two").await;
    let end = installation.end();
    let ready = DeploymentOutcome::StackReady(outcome::StackReady { stack: installation.stack(V1) });
    let answer = installation.report(ready).await;
    assert_eq!(answer, Err(Refusal::Deposed { role: Role::Provisioner, holder: HOLDER.to_owned() }));
    assert_eq!(installation.end(), end);
}

mod a_clock {
    use super::*;

    #[tokio::test]
    async fn that_jumps_ahead_takes_only_rollbacks_and_those_at_the_true_time() {
        let installation = Installation::serving().await;
        installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
        installation.clock.jump_ms(3_600_000);
        let refused = installation.ask(kit::traffic(&[(V1, 100)], false)).await;
        assert_eq!(refused, Err(Refusal::ClockAhead { ahead_s: 3_600 }));
        let lost = DeploymentOutcome::StackReady(outcome::StackReady { stack: installation.stack(V1) });
        assert_eq!(installation.report(lost).await, Err(Refusal::ClockAhead { ahead_s: 3_600 }));
        installation.ask(kit::rollback()).await.unwrap();
        assert!(installation.serves(V1));
        let jumped = installation.clock.now().duration_since(installation.ledger.view().time());
        assert!(jumped.as_secs() >= 3_600, "the ledger's time did not jump with it");
    }

    #[tokio::test]
    async fn that_only_went_on_is_fine_however_old_the_last_commit_is() {
        let installation = Installation::serving().await;
        installation.clock.pass_ms(3_600_000);
        installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
    }

    #[tokio::test]
    async fn that_is_a_little_ahead_or_behind_is_fine_and_time_never_goes_back() {
        let installation = Installation::serving().await;
        installation.clock.jump_ms(5_000);
        installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
        let time = installation.ledger.view().time();
        installation.clock.wall_ms.store(0, Ordering::SeqCst);
        installation.ask(kit::traffic(&[(V1, 100)], false)).await.unwrap();
        assert_eq!(installation.ledger.view().time(), time);
    }

    #[tokio::test]
    async fn that_jumps_is_named_and_a_ledger_that_nobody_wrote_to_is_no_trouble() {
        let installation = Installation::serving().await;
        installation.clock.pass_ms(3 * 86_400_000);
        assert_eq!(installation.ledger.clock_trouble(), None);
        installation.clock.jump_ms(3_600_000);
        let jumped = installation.ledger.clock_trouble().and_then(|trouble| trouble.jumped);
        assert_eq!(jumped, Some(jiff::SignedDuration::from_hours(1)));
        installation.clock.pass_ms(86_400_000);
        assert!(installation.ledger.clock_trouble().is_some(), "it is still wrong");
        installation.clock.wall_ms.fetch_sub(3_600_000, Ordering::SeqCst);
        assert_eq!(installation.ledger.clock_trouble(), None);
        installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
        installation.clock.wall_ms.fetch_sub(1_500_000, Ordering::SeqCst);
        let behind = installation.ledger.clock_trouble().and_then(|trouble| trouble.behind);
        assert_eq!(behind, Some(jiff::SignedDuration::from_secs(1_500)));
    }

    #[test]
    fn of_the_machine_is_steady() {
        let before = SystemClock.steady();
        assert!(before > Duration::ZERO && SystemClock.steady() >= before);
    }
}

mod a_stream {
    use super::*;

    #[tokio::test]
    async fn with_an_event_that_is_not_understood_is_read_only_but_for_rollbacks() {
        let installation = Installation::serving().await;
        installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
        installation.other_program("traffic.mirrored").await;
        let refused = installation.ask(kit::traffic(&[(V1, 100)], false)).await;
        let why = "event type `traffic.mirrored` version 1 is unknown to this program; upgrade ionledger".to_owned();
        let stream = "deployment/production/api".to_owned();
        assert_eq!(refused, Err(Refusal::ReadOnly { stream: stream.clone(), why: why.clone() }));
        let effect = schemas::EffectId::of_launch(installation.ledger.id(), installation.stack(V1), 0, 0);
        let lost = installation
            .report(DeploymentOutcome::NodeLost(outcome::NodeLost { effect, reason: "it exited".to_owned() }))
            .await;
        assert_eq!(lost, Err(Refusal::ReadOnly { stream, why }));
        installation.ask(kit::rollback()).await.unwrap();
        assert!(installation.serves(V1));
        installation.ask(kit::release("1.3.0")).await.expect("other streams are not concerned");
    }

    #[tokio::test]
    async fn that_is_read_only_stays_so_after_a_restart() {
        let installation = Installation::serving().await;
        installation.other_program("traffic.mirrored").await;
        let reopened = Installation { ledger: open(&installation.log, &installation.clock).await, ..installation };
        let refused = reopened.ask(kit::traffic(&[(V2, 100)], false)).await;
        assert!(matches!(refused, Err(Refusal::ReadOnly { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_commit_that_would_be_too_large_is_refused_and_nothing_is_written() {
    let installation = Installation::serving().await;
    let mut huge = kit::definition();
    huge.run.args = (0..4_000).map(|n| format!("--argument-number-{n}")).collect();
    let end = installation.end();
    let answer = installation.ask(kit::apply(huge)).await;
    assert!(matches!(answer, Err(Refusal::TooLarge { bytes }) if bytes > 60 * 1024), "{answer:?}");
    assert_eq!(installation.end(), end);
}

mod an_append_without_an_answer;

mod a_reader;

mod a_sealed_ledger {
    use super::*;

    #[tokio::test]
    async fn takes_nothing_more_from_anyone_and_says_where_it_goes_on() {
        let installation = Installation::serving().await;
        let stale = open(&installation.log, &installation.clock).await;
        let before = installation.ledger.view().state().clone();
        let at = installation.ledger.seal("kafka://a:1", ana()).await.unwrap();
        assert_eq!(installation.ledger.seal("kafka://a:1", ana()).await, Ok(at), "once is enough");
        let elsewhere = Refusal::Sealed { target: "kafka://a:1".to_owned() };
        assert_eq!(installation.ledger.seal("kafka://b:1", ana()).await, Err(elsewhere.clone()));
        for command in [kit::traffic(&[(V2, 100)], false), kit::rollback()] {
            assert_eq!(installation.ask(command).await, Err(elsewhere.clone()));
        }
        // Who had not heard of it yet.
        let late = crate::log::contract::step(1 << 80, "service/late", crate::rule::NO_HEAD);
        let late = installation.log.push(late);
        stale.folded().wait_for(|next| *next > late).await.unwrap();
        assert_eq!(stale.view().voids(), 1);
        let after = stale.view().state().clone();
        assert_eq!(after.sealed.as_deref(), Some("kafka://a:1"));
        assert_eq!(crate::State { sealed: None, ..after.clone() }, before, "nothing else changed");
        assert_eq!(crate::State::from_rows(after.rows()), Ok(after));
    }
}

mod what_is_said_about_a_commit {
    use super::*;

    fn about(installation: &Installation, answer: &Executed) -> About {
        let record = installation.log.records(answer.offset.unwrap()).remove(0);
        let parsed = crate::rule::Parsed::of(&record.bytes);
        serde_json::from_str(parsed.envelope.unwrap().about.get()).unwrap()
    }

    #[tokio::test]
    async fn is_kept_with_it() {
        let installation = Installation::serving().await;
        let cause = CommitId(Uuid::from_u128(3));
        let reason = Some("the pager rang".to_owned());
        let asked = Request { reason: reason.clone(), ..request(kit::traffic(&[(V2, 100)], false)) };
        let answer = installation.ledger.execute(asked, ana(), Some(cause)).await.unwrap();
        let about = about(&installation, &answer);
        assert_eq!((about.actor, about.cause, about.reason), (ana(), Some(cause), reason));
    }

    #[tokio::test]
    async fn is_refused_if_it_holds_a_secret_or_the_future_but_never_for_a_rollback() {
        let installation = Installation::serving().await;
        let reason = Some("log in with password=hunter2hunter2".to_owned());
        let asked = |command| Request { reason: reason.clone(), ..request(command) };
        let refused = installation.send(asked(kit::traffic(&[(V2, 100)], false))).await;
        assert!(matches!(&refused, Err(Refusal::Rejected(Rejection::Invalid(why))) if !why.contains("hunter2")));
        let tomorrow = Some(installation.clock.now() + Duration::from_secs(86_400));
        let ahead = Request { effective_at: tomorrow, ..request(kit::traffic(&[(V2, 100)], false)) };
        assert!(matches!(installation.send(ahead).await, Err(Refusal::Rejected(Rejection::Invalid(_)))));
        installation.ask(kit::traffic(&[(V2, 100)], false)).await.unwrap();
        let back = Request { effective_at: tomorrow, ..asked(kit::rollback()) };
        let answer = installation.send(back).await.unwrap();
        let about = about(&installation, &answer);
        assert_eq!(about.reason.as_deref(), Some("log in with [...]"));
        assert!(about.effective_at.unwrap() <= installation.clock.now());
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_appends_nothing() {
    let installation = Installation::serving().await;
    let end = installation.end();
    let decision = installation.ledger.dry_run(&request(kit::roll(V1, V2)), &ana(), &Probed::default()).unwrap();
    assert_eq!(kit::kinds(&decision), ["rollout.started"]);
    assert_eq!(installation.end(), end);
}
