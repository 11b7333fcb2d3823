//! One small adapter for each port, to read before you write your own.
//!
//! `cargo run -p workers --example adapters` runs all of them, and `cargo run -p workers --example adapters nodes` one of them.
//! Each file is one adapter and a `run` that takes it through some turns of its port; each says what it leaves out.
#![allow(clippy::print_stdout)] // what a run shows

mod nodes;
mod checks;
mod router;
mod measures;
mod log;
mod heartbeats;

use std::error::Error;

type Ran = Result<(), Box<dyn Error>>;

const NAMES: [&str; 6] = ["nodes", "checks", "router", "measures", "log", "heartbeats"];

#[tokio::main]
async fn main() -> Ran {
    match std::env::args().nth(1) {
        Some(name) => run(&name).await,
        None => {
            for name in NAMES {
                run(name).await?;
            }
            Ok(())
        }
    }
}

async fn run(name: &str) -> Ran {
    println!("== {name}");
    match name {
        "nodes" => nodes::run().await,
        "checks" => checks::run().await,
        "router" => router::run().await,
        "measures" => measures::run().await,
        "log" => log::run().await,
        "heartbeats" => heartbeats::run(),
        other => Err(format!("no example {other}; name one of {}", NAMES.join(", ")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_example_runs() {
        for name in NAMES {
            run(name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[tokio::test]
    async fn an_example_that_is_not_there_is_refused_with_the_names_of_all() {
        let error = run("cloud").await.unwrap_err().to_string();
        assert_eq!(error, "no example cloud; name one of nodes, checks, router, measures, log, heartbeats");
    }
}
