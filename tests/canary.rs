//! Canaries at 10 % of real traffic through the proxy, four processes a version, the burst cap on: how soon a bad one comes
//! back, and that a good one does not. Times are bounds of the product, so the tests take turns and run in a binary of
//! their own.

use std::time::{Duration, Instant};

use schemas::Weight;
use support::installation::{Installation, eventually};
use support::load::Load;
use tokio::sync::Mutex;

static TURN: Mutex<()> = Mutex::const_new(());

/// A service of so many nodes, rolled out at 10 % for an hour, with 1.0.0 serving and users on the line.
struct Stage {
    installation: Installation,
    load: Load,
}

impl Stage {
    async fn new(nodes: u16, judgement: &str, per_second: u32, arguments: &[&str]) -> Self {
        let installation = Installation::new();
        let toml = format!(
            "name = \"api\"\nowner = \"team\"\n\
             [check]\npath = \"/health\"\ninterval = \"1 s\"\nhealthy_after = 1\n\
             [capacity]\nnodes = {nodes}\nmin_ready = 1\n\
             [rollout]\nsteps = [10, 100]\nduration = \"1 hour\"\n{judgement}"
        );
        installation.ok(&["apply", &installation.file("api.toml", &toml)]);
        installation.release("1.0.0", arguments);
        installation.new_stack("1.0.0");
        installation.ok(&["traffic", "api", "1.0.0", "100"]);
        eventually("the weights are applied", || installation.deployment()["weights_applied"] == true);
        let load = Load::start(&installation.users(), per_second);
        load.answers(3_000).await;
        Self { installation, load }
    }

    /// Makes 1.1.0 ready.
    fn ready(&self, arguments: &[&str]) {
        self.installation.release("1.1.0", arguments);
        self.installation.new_stack("1.1.0");
    }

    /// Begins the rollout, and returns when the proxy first gave the canary requests.
    fn roll(&self) -> Instant {
        self.installation.ok(&["roll", "api", "1.0.0", "1.1.0"]);
        self.until("the canary has traffic", Duration::from_secs(60), |share| share > Weight::ZERO);
        Instant::now()
    }

    /// The canary's share as the proxy serves it; nothing if it was too busy to say.
    fn share(&self) -> Option<Weight> {
        let deployment = "production/api".parse().unwrap();
        let held = self.installation.ask_proxy(async move |proxy| proxy.routes(&deployment).await);
        let routes = held.ok()??.routes;
        let canary = routes.backends.iter().find(|(_, of)| of.version.to_string() == "1.1.0");
        Some(canary.map_or(Weight::ZERO, |(stack, _)| routes.weights.of(*stack)))
    }

    fn until(&self, what: &str, within: Duration, is_so: impl Fn(Weight) -> bool) {
        let began = Instant::now();
        while !self.share().is_some_and(&is_so) {
            let status = || self.installation.ok(&["explain", "api"]);
            assert!(began.elapsed() < within, "{what}: not within {within:?}; {}", status());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Asserts that the canary comes back within `seconds` of its first request, and returns what explains it.
    fn comes_back(&self, since: Instant, seconds: u64) -> String {
        let (took, explained) = self.came_back(since, 4 * seconds);
        assert!(took <= Duration::from_secs(seconds), "it took {took:?}: {explained}");
        explained
    }

    /// Waits for the canary to come back, at most `seconds`, and returns how long after its first request it did and what
    /// explains it.
    fn came_back(&self, since: Instant, seconds: u64) -> (Duration, String) {
        self.until("the canary is back", Duration::from_secs(seconds), |share| share == Weight::ZERO);
        let took = since.elapsed();
        let explained = self.installation.ok(&["explain", "api"]);
        eprintln!("back after {took:?}: {}", self.installation.deployment()["rollout"]["reason"]);
        (took, explained)
    }

    fn evidence(&self) -> serde_json::Value {
        self.installation.deployment()["rollout"]["evidence"].clone()
    }
}

const ERRORS: &str = "[judgement]\nweights = { errors = 100, p50 = 0, p99 = 0 }\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_equal_version_is_accepted_and_with_early_gets_all_traffic() {
    let _turn = TURN.lock().await;
    let judgement = "early = \"after 5 s\"\n[judgement]\n\
         errors_tolerance = \"1 %\"\np50_tolerance = \"100 %\"\np99_tolerance = \"300 %\"\n";
    let stage = Stage::new(4, judgement, 600, &["--latency-ms=20", "--error-rate=0.001"]).await;
    stage.ready(&["--latency-ms=20", "--error-rate=0.001"]);
    let since = stage.roll();
    stage.until("it has all traffic", Duration::from_secs(300), |share| share == Weight::FULL);
    eprintln!("all traffic after {:?}", since.elapsed());
    eventually("it is complete", || stage.installation.deployment()["rollout"]["phase"] == "completed");
    let rollout = stage.installation.deployment()["rollout"].clone();
    assert_eq!(rollout["verdict"]["verdict"], "not_worse", "{rollout}");
    stage.load.stop().await.assert_none_lost();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_always_is_back_within_two_seconds() {
    let _turn = TURN.lock().await;
    let stage = Stage::new(4, ERRORS, 600, &[]).await;
    stage.ready(&["--error-rate=1"]);
    let explained = stage.comes_back(stage.roll(), 2);
    assert!(explained.contains("requests failed, baseline 0 of") && explained.contains("100 needed"), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_of_one_node_that_fails_always_is_back_within_five_seconds() {
    let _turn = TURN.lock().await;
    let stage = Stage::new(1, ERRORS, 600, &[]).await;
    stage.ready(&["--error-rate=1"]);
    stage.comes_back(stage.roll(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_at_5_instead_of_0_1_percent_is_back_within_five_seconds() {
    let _turn = TURN.lock().await;
    let stage = Stage::new(4, ERRORS, 1_000, &["--error-rate=0.001"]).await;
    stage.ready(&["--error-rate=0.05"]);
    stage.comes_back(stage.roll(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_whose_tail_is_half_again_as_long_is_back_within_a_minute() {
    let _turn = TURN.lock().await;
    // At the default tolerance of 20.8 % and 50 requests a second of the canary it takes about 100 s.
    let judgement = "[judgement]\np99_tolerance = \"5 %\"\nweights = { errors = 40, p50 = 0, p99 = 60 }\n";
    let mut late = Vec::new();
    // While the machine does something else, its own tail hides the canary's: then it is tried again.
    for _ in 0..3 {
        let stage = Stage::new(4, judgement, 800, &["--latency-ms=60", "--tail=2"]).await;
        stage.ready(&["--latency-ms=60", "--tail=3"]);
        let (took, explained) = stage.came_back(stage.roll(), 240);
        assert!(explained.contains("took longer than the baseline's p99"), "{explained}");
        if took <= Duration::from_secs(60) {
            return;
        }
        late.push(took);
    }
    panic!("it took {late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_answers_nothing_is_back_within_three_seconds() {
    let _turn = TURN.lock().await;
    let stage = Stage::new(4, "", 600, &["--latency-ms=20"]).await;
    stage.ready(&["--latency-ms=20", "--hang"]);
    stage.comes_back(stage.roll(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_node_of_four_is_named_and_the_version_kept() {
    let _turn = TURN.lock().await;
    let stage = Stage::new(4, ERRORS, 600, &[]).await;
    let named = stage.installation.file("bad-node", "none");
    stage.ready(&["--error-rate=0.5", &format!("--only-node={named}")]);
    let versions = stage.installation.deployment()["versions"].as_array().unwrap().clone();
    let canary = versions.iter().find(|version| version["version"] == "1.1.0").unwrap();
    let bad = canary["nodes"][2]["effect"].as_str().unwrap().to_owned();
    stage.installation.file("bad-node", &bad);
    let since = stage.roll();
    eventually("the node is named", || stage.evidence()["bad_nodes"] == serde_json::json!([bad]));
    eprintln!("named after {:?}", since.elapsed());
    assert_eq!(stage.evidence()["bad_places"], serde_json::json!([3]));
    // Users go on asking real nodes: several times as long as a whole bad version takes to come back.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.share(), Some(Weight::from_percent(10)), "{}", stage.installation.ok(&["explain", "api"]));
    let explained = stage.installation.ok(&["explain", "api", "--json"]);
    assert!(explained.contains(&bad), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_both_versions_rolls_nothing_back() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let outage = folder.path().join("outage");
    let argument = format!("--outage={}", outage.display());
    let stage = Stage::new(4, ERRORS, 600, &[&argument]).await;
    stage.ready(&[&argument]);
    stage.roll();
    stage.load.answers(1_200).await;
    std::fs::write(&outage, "").unwrap();
    stage.load.answers(3_000).await;
    std::fs::remove_file(&outage).unwrap();
    stage.load.answers(1_200).await;
    assert_eq!(stage.share(), Some(Weight::from_percent(10)), "{}", stage.installation.ok(&["explain", "api"]));
    let canary = stage.evidence()["canary"]["errors"].as_u64().unwrap();
    assert!(canary > 50, "the canary failed too: {canary}");
}
