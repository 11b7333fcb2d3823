//! Addresses: how a question is written as a path and a query, and read back. Client and server share this
//! code, so that what is unknown, missing or wrong in an address gives the same error for every question.

use jiff::Zoned;
use jiff::civil::Date;
use replay::Moment;
use schemas::{CommitId, DeploymentId, EnvironmentName, Offset, ServiceName, StackName, Timestamp, Weight};

use crate::moment;
use crate::problem::Problem;

/// What has an address: the field of a type is a part of the path if the path names it in braces, else a parameter of the query.
pub trait Addressed: Parameter {
    /// Its paths, as `/v1/history/{service}`. A question has the first of which it has every part.
    const PATHS: &'static [&'static str];
}

/// A parameter of an address, or several that stand together.
pub trait Parameter: Sized {
    /// Writes it; what is left out of the address stays out.
    fn write(&self, name: &'static str, to: &mut WrittenParameters);

    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`Code::Malformed`](crate::Code::Malformed) with the parameter's name.
    fn read(name: &'static str, from: &mut ReceivedParameters) -> Result<Self, Problem>;
}

/// Parameters by their name.
pub type WrittenParameters = Vec<(&'static str, String)>;

/// The parameters of an address as they came.
#[derive(Debug)]
pub struct ReceivedParameters {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
    /// The time that it is, in the zone of times that name none.
    now: Zoned,
}

/// Makes a type of its fields, each a parameter of the same name.
macro_rules! parameters {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl $crate::question::Parameter for $type {
            fn write(&self, _: &'static str, _to: &mut $crate::question::address::WrittenParameters) {
                $($crate::question::Parameter::write(&self.$field, stringify!($field), _to);)*
            }

            fn read(
                _: &'static str,
                _from: &mut $crate::question::address::ReceivedParameters,
            ) -> Result<Self, $crate::problem::Problem> {
                Ok(Self { $($field: $crate::question::Parameter::read(stringify!($field), _from)?),* })
            }
        }
    };
}

/// As [`parameters`], for a question with its paths.
macro_rules! addressed {
    ($type:ty, [$($path:literal),+], { $($field:ident),* $(,)? }) => {
        $crate::question::address::parameters!($type { $($field),* });

        impl $crate::question::Addressed for $type {
            const PATHS: &'static [&'static str] = &[$($path),+];
        }
    };
}

pub(crate) use {addressed, parameters};

/// Returns where `question` is asked.
pub fn address<Q: Addressed>(question: &Q) -> String {
    let mut written = WrittenParameters::new();
    question.write("", &mut written);
    let has = |name: &str| written.iter().any(|(written, _)| *written == name);
    let path = Q::PATHS.iter().find(|path| names(path).all(has));
    let mut address = (*path.expect("a question has every part of one of its paths")).to_owned();
    let mut mark = '?';
    for (name, value) in written {
        let (part, value) = (format!("{{{name}}}"), escape(&value));
        if address.contains(&part) {
            address = address.replace(&part, &value);
        } else {
            address.push_str(&format!("{mark}{name}={value}"));
            mark = '&';
        }
    }
    address
}

/// Reads a question from the parts of its path and from its query. `now` has the time and zone for times like `2 hours ago`.
///
/// # Errors
///
/// [`Code::Malformed`](crate::Code::Malformed): a parameter is unknown, missing, there twice, or wrong.
pub fn read<Q: Addressed>(path: Vec<(String, String)>, query: Vec<(String, String)>, now: Zoned) -> Result<Q, Problem> {
    let of_path: Vec<&str> = Q::PATHS.iter().flat_map(|path| names(path)).collect();
    let (misplaced, query): (Vec<_>, Vec<_>) =
        query.into_iter().partition(|(name, _)| of_path.contains(&name.as_str()));
    let mut from = ReceivedParameters { left: path.into_iter().chain(query).collect(), known: vec![], now };
    let question = Q::read("", &mut from)?;
    let Some((unknown, _)) = misplaced.first().or_else(|| from.left.first()) else { return Ok(question) };
    let known = from.known.iter().filter(|name| !of_path.contains(name)).map(|name| format!("`{name}`"));
    let next = match known.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "this address takes none".to_owned(),
        known => format!("this address takes {known}"),
    };
    Err(Problem::malformed(format!("unknown field `{}`; {next}", shown(unknown))))
}

/// Returns the names of a path's parts.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// Writes text so that it can stand in a query or a path's part.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Returns at most 60 characters of what somebody wrote, without control characters.
fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_default).collect()
}

impl ReceivedParameters {
    fn has(&mut self, name: &'static str) -> bool {
        self.known.push(name);
        self.left.iter().any(|(left, _)| left == name)
    }

    fn take(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        if !self.has(name) {
            return Ok(None);
        }
        let (mut taken, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.left).into_iter().partition(|(left, _)| left == name);
        self.left = left;
        match taken.len() {
            0 | 1 => Ok(taken.pop().map(|(_, value)| value)),
            _ => Err(Problem::malformed(format!("`{name}` is given twice; write it once"))),
        }
    }

    fn parsed<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Problem> {
        let text = self.take(name)?.ok_or_else(|| Problem::malformed(format!("`{name}` is missing")))?;
        parse(&text).map_err(|why| Problem::malformed(format!("`{name}={}`: {why}", shown(&text))))
    }
}

macro_rules! by_text {
    ($wrong:expr; $($type:ty),+) => {
        $(impl Parameter for $type {
            fn write(&self, name: &'static str, to: &mut WrittenParameters) {
                to.push((name, self.to_string()));
            }

            fn read(name: &'static str, from: &mut ReceivedParameters) -> Result<Self, Problem> {
                from.parsed(name, |text| text.parse::<$type>().map_err($wrong))
            }
        })+
    };
}

by_text!(|error| error.to_string(); String, ServiceName, EnvironmentName, StackName, Offset, CommitId);
by_text!(|_| "write a whole number".to_owned(); u16, u64, usize);
by_text!(|_| "write a number".to_owned(); f64);

impl<T: Parameter> Parameter for Option<T> {
    fn write(&self, name: &'static str, to: &mut WrittenParameters) {
        if let Some(value) = self {
            value.write(name, to);
        }
    }

    fn read(name: &'static str, from: &mut ReceivedParameters) -> Result<Self, Problem> {
        if from.has(name) { T::read(name, from).map(Some) } else { Ok(None) }
    }
}

/// What is left out is no.
impl Parameter for bool {
    fn write(&self, name: &'static str, to: &mut WrittenParameters) {
        if *self {
            to.push((name, "true".to_owned()));
        }
    }

    fn read(name: &'static str, from: &mut ReceivedParameters) -> Result<Self, Problem> {
        if !from.has(name) {
            return Ok(false);
        }
        from.parsed(name, |text| text.parse().map_err(|_| "write true or false".to_owned()))
    }
}

/// In basis points.
impl Parameter for Weight {
    fn write(&self, name: &'static str, to: &mut WrittenParameters) {
        self.basis_points().write(name, to);
    }

    fn read(name: &'static str, from: &mut ReceivedParameters) -> Result<Self, Problem> {
        from.parsed(name, |text| {
            Weight::from_basis_points(text.parse().map_err(|_| "write basis points, 0 to 10000")?)
                .map_err(|error| error.to_string())
        })
    }
}

parameters!(DeploymentId { environment, service });

/// A time without a zone is in UTC, as the caller's zone is not known here. Between date and time stands `T`: a space may have
/// been the `+` of an offset, which an address turns into a space.
impl Parameter for Timestamp {
    fn write(&self, name: &'static str, to: &mut WrittenParameters) {
        to.push((name, self.to_string()));
    }

    fn read(name: &'static str, from: &mut ReceivedParameters) -> Result<Self, Problem> {
        let now = from.now.clone();
        let text = from.parsed(name, |text| Ok(text.to_owned()))?;
        if text.bytes().any(|byte| byte == b' ') && text.parse::<Date>().is_ok() {
            let why = "write T between date and time, and the + of an offset as %2B";
            return Err(Problem::malformed(format!("`{}`: {why}", shown(&text))));
        }
        moment::parse(&text, &now).map_err(|error| Problem::malformed(error.to_string()))
    }
}

/// `at`, `offset` or `event`; now if there is none.
impl Parameter for Moment {
    fn write(&self, _: &'static str, to: &mut WrittenParameters) {
        match self {
            Moment::Now => {}
            Moment::Time(time) => time.write("at", to),
            Moment::Offset(offset) => offset.write("offset", to),
            Moment::Event(commit) => commit.write("event", to),
        }
    }

    fn read(_: &'static str, from: &mut ReceivedParameters) -> Result<Self, Problem> {
        match (Option::read("at", from)?, Option::read("offset", from)?, Option::read("event", from)?) {
            (None, None, None) => Ok(Moment::Now),
            (Some(at), None, None) => Ok(Moment::Time(at)),
            (None, Some(offset), None) => Ok(Moment::Offset(offset)),
            (None, None, Some(event)) => Ok(Moment::Event(event)),
            _ => Err(Problem::malformed("give only one of at, offset and event")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use axum::extract::Query;
    use replay::HistoryQuery;
    use workers::nodes::process::logs::Wanted;

    use super::super::*;
    use super::*;
    use crate::forecast;
    use crate::problem::Code;

    /// Reads an address as the server does: the first path that fits gives its parts.
    fn received<Q: Addressed>(address: &str) -> Result<Q, Problem> {
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        let decoded = |query: &str| {
            let uri = format!("/?{query}").parse().unwrap();
            Query::<Vec<(String, String)>>::try_from_uri(&uri).unwrap().0
        };
        let parts = |template: &&str| {
            let both: Vec<_> = template.split('/').zip(path.split('/')).collect();
            let fits = template.split('/').count() == path.split('/').count();
            let same = |(is, found): &(&str, &str)| is.starts_with('{') || is == found;
            (fits && both.iter().all(same)).then(|| {
                let named = both.iter().filter(|(is, _)| is.starts_with('{'));
                named.flat_map(|(is, found)| decoded(&format!("{}={found}", is.trim_matches(['{', '}'])))).collect()
            })
        };
        let now = "2026-11-22T22:00:00Z".parse::<Timestamp>().unwrap().to_zoned(jiff::tz::TimeZone::UTC);
        read(Q::PATHS.iter().find_map(parts).expect(address), decoded(query), now)
    }

    fn refused<Q: Addressed + Debug>(address: &str) -> String {
        let problem = received::<Q>(address).expect_err(address);
        assert_eq!(problem.code, Code::Malformed, "{address}");
        problem.message
    }

    /// Asks with a parameter that no address takes.
    fn unknown<Q: Addressed>() -> String {
        let path = Q::PATHS[0].replace("{environment}", "test").replace("{service}", "api").replace("{what}", "1");
        let problem = received::<Q>(&format!("{path}?when=now")).err().expect(&path);
        assert_eq!(problem.code, Code::Malformed, "{path}");
        problem.message
    }

    #[track_caller]
    fn there_and_back<Q: Addressed + Debug + PartialEq>(question: Q, expected: &str) {
        let written = address(&question);
        assert_eq!(written, expected);
        assert_eq!(received::<Q>(&written), Ok(question));
    }

    #[test]
    fn every_question_is_read_as_it_was_written() {
        let deployment = || "production/api".parse::<DeploymentId>().unwrap();
        let service: ServiceName = "api".parse().unwrap();
        let time: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
        there_and_back(StatusQuestion::now(None, None), "/v1/status");
        let of_one = StatusQuestion { moment: Moment::Offset(Offset(7)), ..StatusQuestion::now(Some(&service), None) };
        there_and_back(of_one, "/v1/status?service=api&offset=7");
        there_and_back(HistoryQuery::default(), "/v1/history");
        let history = HistoryQuery {
            service: Some(service.clone()),
            environment: Some(EnvironmentName::production()),
            limit: Some(3),
            since: Some(time),
            before: Some(Offset(9)),
            voids: true,
            counts: true,
        };
        let all = "environment=production&limit=3&since=2026-11-01T12%3A00%3A00Z&before=9&voids=true&counts=true";
        there_and_back(history, &format!("/v1/history/api?{all}"));
        let moment = Moment::Event(CommitId("0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03".parse().unwrap()));
        there_and_back(
            DeclarationQuestion { service: service.clone(), moment },
            "/v1/services/api?event=0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03",
        );
        let moment = Moment::Time(time);
        let at = "at=2026-11-01T12%3A00%3A00Z";
        there_and_back(
            WhoShippedQuestion { deployment: deployment(), moment },
            &format!("/v1/who-shipped/production/api?{at}"),
        );
        there_and_back(
            ExplainQuestion { deployment: deployment(), moment },
            &format!("/v1/explain/production/api?{at}"),
        );
        let named = ExplainNamedQuestion {
            what: "1.2.3~2/?".to_owned(),
            service: Some(service),
            environment: Some(EnvironmentName::production()),
            moment: Moment::Now,
        };
        there_and_back(named, "/v1/explain/1.2.3~2%2F%3F?service=api&environment=production");
        there_and_back(ProductionQuestion { moment }, &format!("/v1/replay?{at}"));
        there_and_back(VerifyQuestion, "/v1/verify");
        there_and_back(StandingQuestion, "/v1/ledger");
        let planned = forecast::PlannedRollout {
            requests_per_minute: Some(2.5),
            share: Some(Weight::from_percent(10)),
            duration_ms: Some(60_000),
            steps: Some("100,10000".to_owned()),
        };
        there_and_back(
            ForecastQuestion { deployment: deployment(), planned },
            "/v1/forecast/production/api?requests_per_minute=2.5&share=1000&duration_ms=60000&steps=100%2C10000",
        );
        let wanted = Wanted {
            deployment: deployment(),
            version: Some("1.2.3~2".parse().unwrap()),
            node: Some("1".to_owned()),
            since: Some(time),
            follow: true,
        };
        there_and_back(
            wanted,
            "/v1/logs/production/api?version=1.2.3~2&node=1&since=2026-11-01T12%3A00%3A00Z&follow=true",
        );
        there_and_back(EventsQuestion { from: Offset(4), follow: false }, "/v1/events?from=4&follow=false");
        assert_eq!(received("/v1/events"), Ok(EventsQuestion { from: Offset(0), follow: true }));
    }

    #[test]
    fn what_is_wrong_in_an_address_is_the_same_for_every_question() {
        struct Refused;

        impl ForEach for Refused {
            fn question<Q: Question>(&mut self) {
                let unknown = unknown::<Q>();
                assert!(unknown.starts_with("unknown field `when`; this address takes "), "{unknown}");
            }
        }

        for_each(&mut Refused);
        let wrong = "`limit=-1`: write a whole number";
        assert_eq!(refused::<HistoryQuery>("/v1/history?limit=-1"), wrong);
        assert_eq!(refused::<HistoryQuery>("/v1/history?limit=1&limit=2"), "`limit` is given twice; write it once");
        assert_eq!(refused::<HistoryQuery>("/v1/history?voids=1"), "`voids=1`: write true or false");
        assert!(refused::<HistoryQuery>("/v1/history?service=api").starts_with("unknown field `service`; "));
        assert!(refused::<WhoShippedQuestion>("/v1/who-shipped/production/api?service=b").starts_with("unknown field"));
        let takes = "unknown field `when`; this address takes `at`, `offset`, `event`";
        assert_eq!(refused::<ProductionQuestion>("/v1/replay?when=now"), takes);
        assert_eq!(refused::<VerifyQuestion>("/v1/verify?at=now"), "unknown field `at`; this address takes none");
        let twice = "give only one of at, offset and event";
        assert_eq!(refused::<ProductionQuestion>("/v1/replay?at=now&offset=1"), twice);
        for at in ["/v1/replay?at=yesterday", "/v1/replay?at=2020-01-01+02:00", "/v1/replay?event=7"] {
            refused::<ProductionQuestion>(at);
        }
        assert!(refused::<StatusQuestion>("/v1/status?service=API").starts_with("`service=API`: "));
    }

    #[test]
    fn every_address_and_what_it_takes_is_in_the_documents() {
        struct Documented;

        impl ForEach for Documented {
            fn question<Q: Question>(&mut self) {
                let written = |part: &str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                    Some(name) => name.to_uppercase(),
                    None => part.to_owned(),
                };
                let path = Q::PATHS[0].split('/').map(written).collect::<Vec<_>>().join("/");
                let begins = [format!("| `GET {path}`"), format!("| `GET {path}[?")];
                let mut rows = include_str!("../../../docs/api.md").lines();
                let row = rows.find(|row| begins.iter().any(|begin| row.starts_with(begin)));
                let row = row.unwrap_or_else(|| panic!("docs/api.md has no row for {path}"));
                for name in unknown::<Q>().split('`').skip(3).step_by(2) {
                    assert!(row.contains(name), "docs/api.md: the row of {path} does not name {name}");
                }
            }
        }

        for_each(&mut Documented);
    }

    #[test]
    fn nothing_that_means_something_in_an_address_is_left() {
        assert_eq!(
            escape("2026-11-01T12:00+01:00[Europe/Berlin]"),
            "2026-11-01T12%3A00%2B01%3A00%5BEurope%2FBerlin%5D"
        );
    }
}
