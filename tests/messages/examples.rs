//! An example of each way in which the ledger refuses and the client fails. A variant without one does not compile.

use api::client::{Error, Listener};
use api::{Code, Problem};
use ledger::decision::Rejection;
use ledger::execute::Refusal;
use ledger::log::AppendError;
use schemas::weight::NotAllTraffic;
use schemas::{CommandId, DeploymentId, ErrorText, Fence, Role, ServiceName, StackName, Version, Weight};
use uuid::Uuid;

/// An example's name with its text.
pub type Example = (String, ErrorText);

/// Makes the examples of an enum: a value for each pattern, and a match of the patterns that the compiler holds to be whole.
macro_rules! examples {
    ($enum:ident, $told:expr; $($variant:ident $fields:tt => $example:expr;)+) => {{
        fn name(of: &$enum) -> &'static str {
            match of { $($enum::$variant $fields => concat!(stringify!($enum), "::", stringify!($variant)),)+ }
        }
        let mut examples: Vec<Example> = vec![];
        $({
            let example: $enum = $example;
            let expected = concat!(stringify!($enum), "::", stringify!($variant));
            assert_eq!(name(&example), expected, "the example of another variant");
            examples.push((expected.to_owned(), $told(&example)));
        })+
        examples
    }};
}

fn deployment() -> DeploymentId {
    "production/api".parse().unwrap()
}

fn service() -> ServiceName {
    "api".parse().unwrap()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn stack(text: &str) -> StackName {
    text.parse().unwrap()
}

fn command() -> CommandId {
    CommandId(Uuid::from_u128(7))
}

/// Returns every example.
pub fn all() -> Vec<Example> {
    [rejections(), refusals(), client()].concat()
}

fn rejections() -> Vec<Example> {
    examples! { Rejection, |of: &Rejection| told(Refusal::Rejected(of.clone()));
        Unknown { .. } => Rejection::unknown_release(&service(), &version("1.2.33"), [&version("1.2.2"), &version("1.2.3")]);
        Immutable { .. } => Rejection::Immutable { service: service(), version: version("1.2.3"), what: "artifact" };
        NotReady { .. } => Rejection::NotReady {
            deployment: deployment(), version: stack("1.2.3"),
            why: "its stack failed (no node was ready; exit code 1: cannot bind; is it taken?)".into(),
            next: "mend the release and ship a new version".into(),
        };
        BaselineFails { .. } => Rejection::BaselineFails {
            version: stack("1.2.2"), because: " (the last one: exit code 1: cannot bind; is it taken?)".to_owned(),
            next: "move all of them to a version that is ready with `ionledger traffic api VERSION 100`".to_owned(),
        };
        Weights(_) => Rejection::Weights(NotAllTraffic(9_500));
        TooManyVersions { .. } => Rejection::TooManyVersions { deployment: deployment(), asked: 3, allowed: 2 };
        RolloutRunning { .. } => Rejection::RolloutRunning {
            deployment: deployment(), from: stack("1.2.2"), to: stack("1.2.3"), weight: Weight::from_percent(5),
        };
        Older { .. } => Rejection::Older {
            deployment: deployment(), version: Box::new(stack("1.2.2")), newer: Box::new(stack("1.2.3")), does: "serves",
            next: "`ionledger new` and then `ionledger roll`".into(),
        };
        NoRollout { .. } => Rejection::NoRollout {
            deployment: deployment(), last: " (its last one completed)".to_owned(), next: "start one with `ionledger roll`".to_owned(),
        };
        NoTarget { .. } => Rejection::NoTarget { deployment: deployment() };
        AllRejected { .. } => Rejection::AllRejected {
            deployment: deployment(),
            rejected: "1.2.2 is rejected since a rollback 2 days ago, `ionledger traffic api 1.2.2 100 --again --reason WHY`".to_owned(),
        };
        Rejected { .. } => Rejection::Rejected {
            deployment: deployment(), version: stack("1.2.3"), why: "is rejected since a rollback: checkout fails; it was slow".to_owned(),
        };
        Ambiguous { .. } => Rejection::Ambiguous {
            deployment: deployment(), version: version("1.2.3"), stacks: vec![stack("1.2.3"), stack("1.2.3~2")],
        };
        OnHold { .. } => Rejection::OnHold {
            deployment: deployment(), why: "on hold since 10:32 (the database is being moved)".to_owned(),
            lift: "ionledger hold api --lift".to_owned(),
        };
        Fenced { .. } => Rejection::Fenced { deployment: deployment(), asked: Fence(3), now: Fence(4) };
        Invalid(_) => Rejection::Invalid("a hold needs a reason; add --reason WHY".to_owned());
        Outdated(_) => Rejection::Outdated("production/api has other weights set by now".to_owned());
    }
}

fn refusals() -> Vec<Example> {
    examples! { Refusal, |of: &Refusal| told(of.clone());
        Rejected(_) => Refusal::Rejected(Rejection::NoTarget { deployment: deployment() });
        Conflict { .. } => Refusal::Conflict {
            stream: "deployment/production/api".to_owned(), since: "person:ana set weights".to_owned(),
        };
        OtherContent { .. } => Refusal::OtherContent { id: command() };
        ReadOnly { .. } => Refusal::ReadOnly {
            stream: "service/api".to_owned(), why: "offset 12 holds `service.renamed` version 1, which is unknown here".to_owned(),
        };
        Sealed { .. } => Refusal::Sealed { target: "kafka://127.0.0.1:9092".to_owned() };
        Deposed { .. } => Refusal::Deposed { role: Role::Collector, holder: "host:12".to_owned() };
        TooLarge { .. } => Refusal::TooLarge { bytes: 1_200_000 };
        ClockAhead { .. } => Refusal::ClockAhead { ahead_s: 4_000 };
        Indeterminate { .. } => Refusal::Indeterminate { id: command(), why: "no answer came within 10 s".to_owned() };
        NotTaken(_) => Refusal::NotTaken(AppendError::Full("/var/lib/ionledger has no room for 900 more bytes".to_owned()));
        Cold(_) => Refusal::Cold(
            "no node of the rollback target 1.2.3 passes its check (connection refused), and without the ledger nothing starts it again; \
             users stay on 1.2.4; `ionledger rollback api --unready` sends all traffic there now".to_owned(),
        );
        Halted(_) => Refusal::Halted("the log ends at offset 12, and 20 records were read before".to_owned());
    }
}

fn client() -> Vec<Example> {
    let who = || Listener::Process { data: "/var/lib/ionledger".into(), pid: Some(4_711) };
    examples! { Error, |of: &Error| ErrorText::of(of);
        NotRunning { .. } => Error::NotRunning { data: "/var/lib/ionledger".into() };
        NotAllowed { .. } => Error::NotAllowed { socket: "/var/lib/ionledger/api.sock".into() };
        Unreachable { .. } => Error::Unreachable { address: "127.0.0.1:7070".to_owned(), why: "connection refused".to_owned() };
        Silent { .. } => Error::Silent { who: who() };
        Hung { .. } => Error::Hung { who: who(), sent: Some(command()) };
        Refused(_) => Error::Refused(Problem::new(Code::Busy, "all 64 connections of this socket or port are in use; \
                                                               close some"));
        Indeterminate { .. } => Error::Indeterminate { command: command(), why: "connection reset".to_owned() };
        Broken(_) => Error::Broken("the connection closed before message completed".to_owned());
        File { .. } => Error::File { path: "bin/api".into(), cause: std::io::ErrorKind::NotFound.into() };
    }
}

/// A refusal as it goes over the wire: its text, and its hint apart.
fn told(refusal: Refusal) -> ErrorText {
    let problem = Problem::from(refusal);
    ErrorText::with_hint(&problem.message, problem.hint.as_deref())
}
