//! The worker's loop, on a paused clock: what breaks off outside holds nothing up.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use ledger::deployment::NodePhase;
use ledger::execute::Clock;
use ledger::log::memory::MemoryLog;
use schemas::EffectId;
use schemas::run::HttpCheck;
use tokio::time::Instant;

use super::record::tests::with_a_stack;
use super::*;
use crate::checks::{Checks, Probe};
use crate::nodes::{Fault, Instance, Launch, Observed, Stopped};
use crate::traffic::{Measures, Routes};

/// The test's clock: it goes on with tokio's.
pub(super) struct Paused(pub(super) Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_767_225_600).unwrap() + self.steady()
    }

    fn steady(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What breaks off at its first call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Breaks {
    Look,
    Probe,
    Launch,
}

struct Outside {
    breaks: Breaks,
    calls: AtomicU32,
    running: Mutex<BTreeMap<EffectId, Instance>>,
}

impl Outside {
    fn call(&self, what: Breaks) {
        if what == self.breaks && self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("{what:?} breaks off");
        }
    }
}

#[async_trait::async_trait]
impl Nodes for Outside {
    async fn launch(&self, launch: &Launch) -> Result<Instance, Fault> {
        self.call(Breaks::Launch);
        let address = ([127, 0, 0, 1], launch.port).into();
        let instance = Instance { name: "one".to_owned(), address, started_at: Timestamp::UNIX_EPOCH };
        self.running.lock().unwrap().insert(launch.effect, instance.clone());
        Ok(instance)
    }

    async fn look(&self) -> Result<BTreeMap<EffectId, Observed>, Fault> {
        self.call(Breaks::Look);
        let running = self.running.lock().unwrap();
        Ok(running.iter().map(|(effect, instance)| (*effect, Observed::Running(instance.clone()))).collect())
    }

    async fn stop(&self, _: EffectId, _: Duration) -> Result<Stopped, Fault> {
        Ok(Stopped::NotRunning)
    }

    async fn cleanup(&self, _: EffectId) -> Result<(), Fault> {
        Ok(())
    }

    async fn free_ports(&self, _: u16) -> Result<Vec<u16>, Fault> {
        Ok(vec![4_000])
    }
}

#[async_trait::async_trait]
impl Checks for Outside {
    async fn probe(&self, _: std::net::SocketAddr, _: &HttpCheck) -> Probe {
        self.call(Breaks::Probe);
        Probe::Passed { latency_ms: 1 }
    }
}

#[async_trait::async_trait]
impl Router for Outside {
    async fn apply(&self, _: &Routes) -> Result<HeldRoutes, ApplyError> {
        Err(ApplyError::Refused("nothing is routed here".to_owned()))
    }

    async fn remove(&self, _: &DeploymentId, _: schemas::StreamVersion) -> Result<(), ApplyError> {
        Err(ApplyError::Refused("nothing is routed here".to_owned()))
    }

    async fn entry(&self, _: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
        Ok(None)
    }

    async fn measures(&self, _: &DeploymentId) -> Result<Option<Measures>, ApplyError> {
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_breaks_off_is_made_again_and_holds_nothing_up() {
    for breaks in [Breaks::Look, Breaks::Launch, Breaks::Probe] {
        let (ledger, deployment, _) = with_a_stack(&Arc::new(MemoryLog::new()), Paused(Instant::now())).await;
        let outside = Arc::new(Outside { breaks, calls: AtomicU32::new(0), running: Mutex::default() });
        let adapters = Adapters {
            nodes: Arc::clone(&outside) as _,
            checks: Probing::new(Arc::clone(&outside) as _),
            router: Arc::clone(&outside) as _,
            break_glass: None,
        };
        let stop = CancellationToken::new();
        let began = Instant::now();
        let works = tokio::spawn(run(Role::Provisioner, "one".to_owned(), ledger.clone(), adapters, stop.clone()));
        let is_ready = || {
            let view = ledger.view();
            let deployment = view.state().deployment(&deployment).unwrap();
            let mut nodes = deployment.stacks.values().flat_map(|stack| stack.nodes.values());
            nodes.any(|node| matches!(node.phase, NodePhase::Ready { .. }))
        };
        while !is_ready() {
            assert!(began.elapsed() < Duration::from_secs(20), "{breaks:?}: its node is not ready");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(outside.calls.load(Ordering::SeqCst) > 1, "{breaks:?}");
        stop.cancel();
        works.await.unwrap().unwrap();
    }
}
