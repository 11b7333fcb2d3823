//! The table of a service's file: a row for each key of `SERVICE.toml`.
//!
//! The reader (`api::definition`), the JSON Schema for editors, the reference file `docs/service.toml` and what `show` prints
//! all walk over these rows. A new key is a field with its default and its limits where it is stored (`policy.rs`, `run.rs`),
//! and a row here.

use crate::policy::metric::METRICS;
use crate::policy::{Deadline, HoldAfter, Metric, Policy, Prometheus, Queries};
use crate::run::{Capacity, EnvValue, RunSpec};
use crate::service::Definition;
use crate::text;
use crate::weight::Weight;

/// A table of the file, or what stands before the first of them.
pub struct Table {
    /// Its name; empty for what stands before the first table.
    pub name: &'static str,
    /// What it is about, in the reference file.
    pub help: &'static str,
    /// Its keys, in the order in which they are read and shown.
    pub keys: Vec<Key>,
}

/// A key of the file.
pub struct Key {
    /// Its name in its table.
    pub name: String,
    /// What is written there, and where the declaration has it.
    pub kind: Kind,
    /// What it is, in one line.
    pub help: &'static str,
    /// What the reference file has, where that is not the default as `show` writes it. A key without a default stands there as
    /// a comment.
    pub example: Option<&'static str>,
    /// What to do about it where it is missing, if it must be there.
    pub required: Option<&'static str>,
}

/// What is written for a key, with its limits, and where the declaration has it.
pub enum Kind {
    /// The service's name, which is no part of the declaration.
    Name,
    /// A text.
    Text {
        /// Where it is.
        at: At<String>,
        /// Returns it as it is kept, or what is wrong with it.
        read: fn(&str) -> Result<String, String>,
        /// What it looks like, for editors; empty if it may be anything.
        pattern: &'static str,
    },
    /// A text, or none.
    TextIfAny {
        /// Where it is.
        at: At<Option<String>>,
        /// What it looks like, for editors.
        pattern: &'static str,
    },
    /// A list of texts.
    Texts(At<Vec<String>>),
    /// An address for each environment: the table itself.
    Addresses,
    /// The environment variables: a table of its own.
    Variables,
    /// A whole number.
    Whole {
        /// The lowest that is valid.
        from: u64,
        /// The highest.
        to: u64,
        /// Returns it.
        get: fn(&Definition) -> u64,
        /// Sets it, and says whether it fits into its type.
        set: fn(&mut Definition, u64) -> bool,
    },
    /// True or false.
    Flag(At<bool>),
    /// A length of time, in milliseconds.
    Duration {
        /// Where it is.
        at: At<u64>,
        /// The shortest that is valid.
        from_ms: u64,
        /// The longest.
        to_ms: u64,
        /// Whether only the declaration as a whole says if it fits.
        with_others: bool,
    },
    /// A length of time in milliseconds, or none.
    DurationIfAny {
        /// Where it is.
        at: At<Option<u64>>,
        /// The shortest that is valid.
        from_ms: u64,
    },
    /// One of a few words.
    Choice {
        /// The words.
        words: &'static [&'static str],
        /// Returns which of them it is, from 0.
        get: fn(&Definition) -> usize,
        /// Sets it to one of them.
        set: fn(&mut Definition, usize),
        /// What is said of every other word.
        wrong: &'static str,
    },
    /// Rising shares of traffic.
    Shares(At<Vec<Weight>>),
    /// A share of traffic.
    Share(At<Weight>),
    /// `never`, or `after` a length of time.
    After(At<Option<u64>>),
    /// A percentage, in parts per million.
    Percent(At<u32>),
    /// What is tolerated of a metric, as a percentage; right or wrong together with its ratio.
    Tolerance(&'static Metric),
    /// How many times the baseline's share of a metric is tolerated.
    Ratio(&'static Metric),
    /// A whole percentage for each metric.
    Weights,
    /// A server that measures: a table of its own, which may be left out.
    Server {
        /// Its keys.
        keys: fn() -> Vec<Key>,
        /// Whether the declaration has it.
        is_there: fn(&Definition) -> bool,
        /// Copies it from one declaration to another.
        copy: fn(&Definition, &mut Definition),
    },
    /// Where a server listens; checked with its whole table, so that no other key is said to be wrong for it.
    Url(At<String>),
    /// A secret, which is only referred to, or none.
    Reference(At<Option<EnvValue>>),
    /// A query of a server by its name.
    Query(&'static str, At<Queries>),
}

/// Where the declaration has a value.
pub type At<T> = fn(&mut Definition) -> &mut T;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const WEEKS_52: u64 = 52 * 7 * DAY;

/// Returns what a file says that has a name and an owner alone.
pub fn smallest(owner: &str) -> Definition {
    Definition {
        owner: owner.to_owned(),
        description: String::new(),
        listen: Default::default(),
        run: RunSpec::default(),
        capacity: Capacity::default(),
        policy: Policy::default(),
    }
}

/// Reads a whole number into the type of this field, and says whether it fits.
macro_rules! whole {
    ($from:expr, $to:expr, $($field:ident).+) => {
        Kind::Whole {
            from: $from,
            to: $to,
            get: |of| u64::from(of.$($field).+),
            set: |of, number| number.try_into().map(|number| of.$($field).+ = number).is_ok(),
        }
    };
}

/// Every table with its keys, in the file's order.
pub fn tables() -> Vec<Table> {
    let table = |name, help, keys| Table { name, help, keys };
    vec![
        table("", "", head()),
        table(
            "listen",
            "where users' traffic arrives, an address an environment; one left out gets a free port",
            vec![key("", Kind::Addresses, "")],
        ),
        table("run", "how its next releases are run; a release keeps what was said when it was recorded", run()),
        table("check", "what a node must pass before it gets user traffic, and go on passing", check()),
        table(
            "capacity",
            "of its next stacks",
            vec![
                key("nodes", whole!(1, 100, capacity.nodes), "how many each of them has"),
                key("min_ready", whole!(1, 100, capacity.min_ready), "fewer, and the stack is unhealthy"),
            ],
        ),
        table("rollout", "how a release gets its traffic", rollout()),
        table(
            "judgement",
            "docs/judgement.md says what it means; a canary is worse if it fails more often than",
            judgement(),
        ),
        table("retention", "how long stacks are kept", retention()),
    ]
}

fn key(name: &str, kind: Kind, help: &'static str) -> Key {
    Key { name: name.to_owned(), kind, help, example: None, required: None }
}

impl Key {
    fn like(self, example: &'static str) -> Self {
        Self { example: Some(example), ..self }
    }

    fn required(self, next: &'static str) -> Self {
        Self { required: Some(next), ..self }
    }
}

fn duration(at: At<u64>, from_ms: u64, to_ms: u64) -> Kind {
    Kind::Duration { at, from_ms, to_ms, with_others: false }
}

fn head() -> Vec<Key> {
    vec![
        key("name", Kind::Name, "as addresses are written: lower-case letters, digits and `-`, at most 63")
            .like("\"api\"")
            .required("name the service as its address is written, `api`"),
        key(
            "owner",
            Kind::Text { at: |of| &mut of.owner, read: owner, pattern: "\\S" },
            "the team that answers for it",
        )
        .like("\"team-checkout\"")
        .required("name the team that answers for it"),
        key(
            "description",
            Kind::Text { at: |of| &mut of.description, read: description, pattern: "" },
            "what it is, in a sentence",
        ),
    ]
}

fn run() -> Vec<Key> {
    let args = Kind::Texts(|of| &mut of.run.args);
    let user = Kind::TextIfAny { at: |of| &mut of.run.user, pattern: "^[a-z_][a-z0-9_-]{0,31}$" };
    vec![
        key("args", args, "`{port}` stands for the node's port, which it also finds in PORT"),
        key(
            "start_deadline",
            duration(|of| &mut of.run.start_deadline_ms, SECOND, DAY),
            "from asking for a stack to its being ready",
        ),
        key("user", user, "as whom its nodes run where ionledger is root; left out, a user made for the service")
            .like("\"api\""),
        key("env", Kind::Variables, "beside PORT, IONLEDGER_VERSION, IONLEDGER_STACK_NAME and the like"),
    ]
}

fn check() -> Vec<Key> {
    let path = Kind::Text { at: |of| &mut of.run.check.path, read: |text| Ok(text.to_owned()), pattern: "^/" };
    vec![
        key("path", path, "what is asked for"),
        key("status", whole!(100, 599, run.check.status), "what it answers"),
        key("timeout", duration(|of| &mut of.run.check.timeout_ms, 10, 60 * SECOND), "for one answer"),
        key("interval", duration(|of| &mut of.run.check.interval_ms, 10, 60 * SECOND), "between two probes"),
        key(
            "healthy_after",
            whole!(1, 100, run.check.healthy_after),
            "probes in a row, to be ready and to be unhealthy",
        ),
        key(
            "latency_max",
            Kind::DurationIfAny { at: |of| &mut of.run.check.latency_ms_max, from_ms: 1 },
            "the longest time an answer may take and still pass",
        )
        .like("\"200 ms\""),
    ]
}

fn rollout() -> Vec<Key> {
    let hold_after = Kind::Choice {
        words: &["rollback", "any", "never"],
        get: |of| of.policy.rollout.hold_after as usize,
        set: |of, n| of.policy.rollout.hold_after = [HoldAfter::Rollback, HoldAfter::Any, HoldAfter::Never][n],
        wrong: "is not one of `rollback` (a person's), `any` and `never`",
    };
    vec![
        key(
            "steps",
            Kind::Shares(|of| &mut of.policy.rollout.steps),
            "the canary's share in percent, also \"0.5 %\"; rising, the last 100",
        )
        .like("[1, 2, 5, 10, 25, 50, 100]"),
        key(
            "duration",
            duration(|of| &mut of.policy.rollout.duration_ms, 0, WEEKS_52),
            "from the first step to the last",
        ),
        key(
            "on_release",
            Kind::Flag(|of| &mut of.policy.rollout.on_release),
            "whether a release that CI reports is rolled out by itself",
        ),
        key(
            "early",
            Kind::After(|of| &mut of.policy.rollout.early_after_ms),
            "\"after 30 minutes\": by then all traffic goes to a canary that is accepted",
        ),
        key(
            "bake",
            duration(|of| &mut of.policy.rollout.bake_ms, 0, WEEKS_52),
            "for so long after `duration` the old version keeps a share; we recommend \"1 hour\"",
        ),
        key("control", Kind::Share(|of| &mut of.policy.rollout.control), "that share"),
        key(
            "rollback_past_target",
            Kind::Flag(|of| &mut of.policy.rollout.rollback_past_target),
            "a rollback whose target does not pass its check goes to an older one that does",
        ),
        key(
            "hold_after",
            hold_after,
            "a person's rollback holds CI's next releases back; or \"any\": the judge's too; \"never\"",
        ),
    ]
}

fn judgement() -> Vec<Key> {
    let deadline = Kind::Choice {
        words: &["go on", "hold"],
        get: |of| of.policy.judgement.deadline as usize,
        set: |of, n| of.policy.judgement.deadline = [Deadline::GoOn, Deadline::Hold][n],
        wrong: "is unknown; write `go on` or `hold`",
    };
    let soak = Kind::Duration {
        at: |of| &mut of.policy.judgement.soak_ms,
        from_ms: 0,
        to_ms: 2 * WEEKS_52,
        with_others: true,
    };
    let prometheus = Kind::Server {
        keys: prometheus,
        is_there: |of| of.policy.judgement.prometheus.is_some(),
        copy: |from, to| to.policy.judgement.prometheus.clone_from(&from.policy.judgement.prometheus),
    };
    let mut keys: Vec<Key> = METRICS.iter().flat_map(of_metric).collect();
    keys.extend([
        key("weights", Kind::Weights, "in percent; how they share alpha; without one it is not judged"),
        key(
            "alpha",
            Kind::Percent(|of| &mut of.policy.judgement.alpha_ppm),
            "the chance that a good canary comes back, over the whole rollout",
        ),
        key(
            "beta",
            Kind::Percent(|of| &mut of.policy.judgement.beta_ppm),
            "the chance that one at or beyond a tolerance is accepted",
        ),
        key(
            "requests_min",
            Kind::Whole {
                from: 1,
                to: u64::MAX,
                get: |of| of.policy.judgement.requests_min,
                set: |of, number| {
                    of.policy.judgement.requests_min = number;
                    true
                },
            },
            "how many requests of its own a rollout must have seen",
        ),
        key("soak", soak, "how long after its first step it may have all traffic at the earliest"),
        key("deadline", deadline, "or \"hold\": with one that is neither worse nor accepted at the plan's end"),
        key(
            "warm_up",
            duration(|of| &mut of.policy.judgement.warm_up_ms, 0, DAY),
            "for so long a new node's latencies do not count",
        ),
        key(
            "burst_cap",
            Kind::Flag(|of| &mut of.policy.judgement.burst_cap),
            "a node's second of trouble is one event, not fifty",
        ),
        key(
            "bad_requests_max",
            whole!(1, u64::from(u32::MAX), policy.judgement.bad_requests_max),
            "what the ramp may risk in the time that it takes to move the weights back",
        ),
        key("prometheus", prometheus, "who measures; left out: the router")
            .like("{ address = \"http://127.0.0.1:9090\", scrape_interval = \"15 s\" }"),
    ]);
    keys
}

/// The keys of `[judgement.prometheus]`.
fn prometheus() -> Vec<Key> {
    fn server(of: &mut Definition) -> &mut Prometheus {
        of.policy.judgement.prometheus.get_or_insert_with(|| Prometheus::at("http://localhost"))
    }
    let interval = duration(|of| &mut server(of).scrape_interval_ms, 100, 600 * SECOND);
    let mut keys = vec![
        key("address", Kind::Url(|of| &mut server(of).address), "with the path before /api/v1, if it has one")
            .required("write where it listens, `http://prometheus:9090`"),
        key(
            "token",
            Kind::Reference(|of| &mut server(of).token),
            "a bearer token, `{ from_env = \"NAME\" }` or from_file",
        ),
        key("scrape_interval", interval, "how often it scrapes the service"),
    ];
    keys.extend(Queries::names().map(|(name, what)| key(name, Kind::Query(name, |of| &mut server(of).queries), what)));
    keys
}

fn of_metric(metric: &'static Metric) -> impl Iterator<Item = Key> {
    let [tolerance, ratio] = metric.help;
    let ratio = metric.ratio_key().map(|name| key(&name, Kind::Ratio(metric), ratio));
    ratio.into_iter().chain([key(&metric.tolerance_key(), Kind::Tolerance(metric), tolerance)])
}

fn retention() -> Vec<Key> {
    vec![
        key("serving_max", whole!(2, 100, policy.retention.serving_max), "how many versions may have traffic at once"),
        key(
            "warm_for",
            duration(|of| &mut of.policy.retention.warm_for_ms, 0, WEEKS_52),
            "how long a stack without traffic is kept",
        ),
        key("warm_max", whole!(0, u64::from(u16::MAX), policy.retention.warm_max), "how many of them at most"),
        key("drain", duration(|of| &mut of.policy.retention.drain_ms, 0, HOUR), "how long a removal waits"),
    ]
}

fn owner(written: &str) -> Result<String, String> {
    match written.trim() {
        "" => Err("it is empty; name the team that answers for the service".to_owned()),
        name => text::check("it", name, 200).map(|()| name.to_owned()).map_err(|error| error.to_string()),
    }
}

fn description(written: &str) -> Result<String, String> {
    // A description may be written on several lines; it is one sentence all the same.
    let joined = written.split_whitespace().collect::<Vec<_>>().join(" ");
    text::check("it", &joined, 2_000).map(|()| joined).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limits of a row are those that the declaration is checked by.
    #[test]
    fn every_limit_of_a_row_is_the_declarations() {
        let holds = |set: &dyn Fn(&mut Definition)| {
            let mut definition = smallest("team");
            // So that no other limit is met first.
            definition.capacity.nodes = 100;
            set(&mut definition);
            definition.validate().is_ok()
        };
        let mut seen = 0;
        let tables = tables();
        let rows = tables.iter().flat_map(|table| table.keys.iter().map(|key| (table.name, key)));
        for (table, key) in rows.chain(prometheus().iter().map(|key| ("judgement.prometheus", key))) {
            let name = &format!("{table}.{}", key.name);
            let within = match key.kind {
                Kind::Whole { from, to, set, .. } => {
                    let fits = |number: u64| holds(&move |of| assert!(set(of, number), "{name}: {number}"));
                    let beyond = |number: u64| set(&mut smallest("team"), number) && fits(number);
                    let outside = [from.checked_sub(1), to.checked_add(1)].into_iter().flatten().any(beyond);
                    [fits(from), fits(to), !outside]
                }
                Kind::Duration { at, from_ms, to_ms, with_others: false } => {
                    let fits = |ms: u64| holds(&move |of| *at(of) = ms);
                    [
                        fits(from_ms),
                        fits(to_ms),
                        ![from_ms.checked_sub(1), Some(to_ms + 1)].into_iter().flatten().any(fits),
                    ]
                }
                Kind::DurationIfAny { at, from_ms } => {
                    let fits = |ms: u64| holds(&move |of| *at(of) = Some(ms));
                    [fits(from_ms), true, !fits(from_ms - 1)]
                }
                _ => continue,
            };
            assert_eq!(within, [true; 3], "{name}: its first value is taken, its last is, none beyond is");
            seen += 1;
        }
        assert!(seen > 15, "rows with limits: {seen}");
    }

    #[test]
    fn a_key_of_one_table_has_a_name_of_its_own_and_a_help() {
        for table in tables() {
            let names: std::collections::BTreeSet<&str> = table.keys.iter().map(|key| key.name.as_str()).collect();
            assert_eq!(names.len(), table.keys.len(), "[{}]", table.name);
            let helpless = |key: &&Key| key.help.is_empty() && !key.name.is_empty() && !key.name.starts_with("4xx");
            assert_eq!(table.keys.iter().find(helpless).map(|key| &key.name), None, "[{}]", table.name);
        }
    }
}
