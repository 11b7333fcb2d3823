//! The real `ionledger up` with 300 services of a node each. First it is idle: what processor time does it take? Then 50 of the
//! services roll under load: how long does a rollback take, and how long do users wait, beside calls of the nodes themselves?
//!
//! `cargo run --release -p benches --bin services [-- SERVICES ROLLING]`, with `ionledger` built in the same profile. Ends with 1
//! if a bound is missed or a request is lost.

#![allow(clippy::print_stdout)] // its results

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use api::client::Client;
use benches::up_process::{Process, applied, declare, ionledger, send, stacks_are_ready, start_version, store_service};
use benches::users::{Seen, Users};
use benches::{Error, exit_code, processor_time, verdict};
use hdrhistogram::Histogram;
use schemas::command::{self, Command, PlanAsked, StackWeight};
use schemas::{DeploymentId, Weight};
use workers::traffic::ProxyControl;

/// How many services there are, and how many of them roll.
const SERVICES: (usize, usize) = (300, 50);

/// How often each of those is rolled back.
const ROUNDS: usize = 4;

/// What users send to the services that roll, and beside them to nodes themselves, in requests a second.
const THROUGH_THE_PROXY: u32 = 600;
const TO_NODES: u32 = 200;

/// How long the processor time of the idle processes is counted.
const IDLE: Duration = Duration::from_secs(30);

/// The most of a core that `up` and the proxy may take together while they are idle.
const IDLE_MAX: f64 = 0.08;

/// The most that a rollback may take, at the 99th percentile.
const ROLLBACK_MAX: Duration = Duration::from_millis(50);

/// The most that users may wait, as a multiple of a call of a node itself, at the 99th percentile.
const USERS_MAX: f64 = 1.2;

const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit_code(run().await)
}

async fn run() -> Result<bool, Error> {
    let asked: Vec<usize> = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<_, _>>()?;
    let (services, rolling) = match asked[..] {
        [] => SERVICES,
        [services, rolling] if rolling > 0 && rolling <= services => (services, rolling),
        _ => return Err("usage: services [SERVICES ROLLING]".into()),
    };
    let folder = tempfile::tempdir()?;
    let (exe, data) = (ionledger()?, folder.path().join("data"));
    let artifact = store_service(&exe, folder.path(), &data)?;
    let mut process = Process::start(&exe, folder.path(), &data, None)?;
    let (client, proxy) = (Client::of_data(&data), ProxyControl::of(&data));
    process.answers(&client).await?;
    let deployments: Vec<DeploymentId> =
        (0..services).map(|n| format!("production/service-{n:03}").parse()).collect::<Result<_, _>>()?;
    for deployment in &deployments {
        declare(&client, deployment, 1).await?;
        start_version(&client, deployment, OLD, artifact.clone()).await?;
    }
    stacks_are_ready(&client, services).await?;
    for deployment in &deployments {
        traffic(&client, deployment, OLD).await?;
    }
    let pids = [("up", process.pid()), ("the proxy", proxy.status().await?.pid)];
    let is_quiet = idle(services, pids).await?;

    for deployment in &deployments[..rolling] {
        start_version(&client, deployment, NEW, artifact.clone()).await?;
    }
    stacks_are_ready(&client, services + rolling).await?;
    let (mut entrances, mut nodes) = (Vec::new(), Vec::new());
    for deployment in &deployments[..rolling] {
        let held = proxy.routes(deployment).await?.ok_or("the proxy holds no routes")?;
        entrances.push(held.listening);
        nodes.extend(held.routes.backends.values().flat_map(|stack| &stack.nodes).map(|node| node.address));
    }
    let is_quick = under_load(&client, &deployments[..rolling], entrances, nodes).await?;
    process.end()?;
    Ok(is_quiet && is_quick)
}

async fn traffic(client: &Client, deployment: &DeploymentId, version: &str) -> Result<(), Error> {
    let shares = vec![StackWeight { version: version.parse()?, weight: Weight::FULL }];
    let deployment = deployment.clone();
    applied(
        &send(client, Command::Traffic(command::Traffic { deployment, shares, supersede: true, again: true })).await?,
    )
}

/// Measures the processor time of the idle processes, and says whether it is within the bound.
async fn idle(services: usize, pids: [(&str, u32); 2]) -> Result<bool, Error> {
    tokio::time::sleep(Duration::from_secs(5)).await; // what was begun ends
    let before = pids.map(|(_, pid)| processor_time(pid));
    let began = Instant::now();
    tokio::time::sleep(IDLE).await;
    let took = began.elapsed().as_secs_f64();
    let mut all = 0.0;
    for ((name, pid), before) in pids.into_iter().zip(before) {
        let share = (processor_time(pid)? - before?).as_secs_f64() / took;
        println!("{services} services of a node each, idle: {name} takes {:.1} % of a core", share * 100.0);
        all += share;
    }
    println!("bound {:.0} % for both: {}", IDLE_MAX * 100.0, verdict(all <= IDLE_MAX));
    Ok(all <= IDLE_MAX)
}

/// Rolls all of `deployments` and rolls one after the other back, again and again, while users ask.
async fn under_load(
    client: &Client,
    deployments: &[DeploymentId],
    entrances: Vec<SocketAddr>,
    nodes: Vec<SocketAddr>,
) -> Result<bool, Error> {
    let users = Users::start(entrances, THROUGH_THE_PROXY)?;
    let beside = Users::start(nodes, TO_NODES)?;
    let mut rollbacks = Histogram::<u64>::new(3)?;
    for _ in 0..ROUNDS {
        for deployment in deployments {
            let (from, to, deployment) = (OLD.parse()?, NEW.parse()?, deployment.clone());
            let roll = command::Roll { deployment, from, to, plan: PlanAsked::default(), supersede: true, again: true };
            send(client, Command::Roll(roll)).await?;
        }
        tokio::time::sleep(Duration::from_secs(5)).await; // they are judged
        for deployment in deployments {
            let began = Instant::now();
            let rollback = command::Rollback { deployment: deployment.clone(), unready: false };
            applied(&send(client, Command::Rollback(rollback)).await?)?;
            rollbacks.record(u64::try_from(began.elapsed().as_micros())?)?;
        }
    }
    let (users, beside) = (users.stop()?, beside.stop()?);
    println!("\n| while {} roll | times | p50, ms | p99, ms |", deployments.len());
    println!("| --- | ---: | ---: | ---: |");
    row("rollback, from command to applied", &rollbacks);
    row("a user's request through the proxy", &users.latencies);
    row("a request to a node itself", &beside.latencies);
    let lost =
        |seen: &Seen| seen.first_loss.as_ref().map(|first| format!("{} were lost, the first: {first}", seen.lost));
    for lost in [&users, &beside].into_iter().filter_map(lost) {
        println!("{lost}");
    }
    let took = rollbacks.value_at_quantile(0.99);
    let is_quick = u128::from(took) <= ROLLBACK_MAX.as_micros();
    println!("\nrollback's p99, bound {ROLLBACK_MAX:?}: {}", verdict(is_quick));
    let ratio = users.latencies.value_at_quantile(0.99) as f64 / beside.latencies.value_at_quantile(0.99) as f64;
    println!("users' p99 beside a node's {ratio:.2}, bound {USERS_MAX}: {}", verdict(ratio <= USERS_MAX));
    Ok(is_quick && ratio <= USERS_MAX && users.lost + beside.lost == 0)
}

fn row(what: &str, times: &Histogram<u64>) {
    let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    println!("| {what} | {} | {:.2} | {:.2} |", times.len(), ms(0.5), ms(0.99));
}
