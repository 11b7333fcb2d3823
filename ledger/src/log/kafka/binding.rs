//! A commit as a Kafka record: the CloudEvents binary binding, so that other programs can read it.
//!
//! The value is the commit's exact bytes. Key and headers are derived from it and say nothing that it does not:
//!
//! ```text
//! key              the first stream it extends
//! ce_specversion   1.0
//! ce_id            the commit's id
//! ce_source        /ionledger
//! ce_type          ionledger.commit.v1, where 1 is the number of the rule that it was written for
//! ce_time          the commit's time
//! ce_subject       the first stream it extends
//! content-type     application/json
//! ```
//!
//! A commit under any other key or headers was not written by ionledger and is malformed, for every reader and for ever:
//! what other programs are told of a record is never something else than what the ledger takes it for. What does not
//! even begin as a commit has neither key nor headers.
//!
//! Of a record for a later rule, this program knows only what every rule keeps: exactly one header `ce_type`, which carries
//! the number that the value carries as `rule`. A record in which both agree on a later rule stops the reader; where they
//! do not agree, it is malformed. So nobody stops readers by accident, with a value that happens to look like one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use schemas::Timestamp;
use schemas::envelope::{Envelope, RULE};

use crate::rule::{self, Parsed};

const SOURCE: &str = "/ionledger";
const TYPE: &str = "ionledger.commit.v1";
/// What stands in `ce_type` before the number of the rule.
const TYPE_OF_RULE: &str = "ionledger.commit.v";
const TYPE_HEADER: &str = "ce_type";
const CONTENT: &str = "application/json";

/// How many headers a commit has.
const COUNT: usize = 7;

/// The place of `ce_time` among them.
const TIME_AT: usize = 4;

/// How many bytes records share. Who keeps one keeps them all.
const ROOM: usize = 1 << 18;

/// A header's name and value.
type Pair<'a> = (&'a str, &'a [u8]);

/// A record to append.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: Option<OwnedHeaders>,
    pub(super) value: Bytes,
}

impl Outgoing {
    /// Returns the record that carries `bytes`, or their stub if they are no commit.
    pub(super) fn of(bytes: &Bytes) -> Self {
        if let Some(told) = StatedBinding::at_the_beginning_of(bytes) {
            return Self::told(bytes, &told);
        }
        let parsed = Parsed::of(bytes);
        match parsed.envelope {
            Some(envelope) => Self::told(bytes, &StatedBinding::by(&envelope)),
            None if parsed.rule > RULE => Self { key: None, headers: Some(of_rule(parsed.rule)), value: bytes.clone() },
            None => Self { key: None, headers: None, value: rule::canonical(bytes) },
        }
    }

    fn told<T: AsRef<[u8]>>(bytes: &Bytes, told: &StatedBinding<T>) -> Self {
        Self { key: Some(told.subject.as_ref().to_vec()), headers: Some(told.headers()), value: bytes.clone() }
    }
}

/// Returns the bytes of a record that was read: a commit's own, or the stub of what is none. They are copied into what is
/// left of `room`.
pub(super) fn bytes_of(message: &BorrowedMessage<'_>, room: &mut BytesMut) -> Bytes {
    let value = message.payload().unwrap_or_default();
    // The name of a header that is no text lets the client library panic.
    let taken = catch_unwind(AssertUnwindSafe(|| {
        let kind = || type_of(message);
        taken(value, message.key(), headers_of(message).as_ref(), kind, room)
    }));
    taken.unwrap_or_else(|_| taken_for(value, None, None))
}

/// Returns when the commit in a record was made and when its broker took it in, as far as its headers tell: those of a commit
/// say what it says itself.
pub(super) fn times_of(message: &BorrowedMessage<'_>) -> Option<(Timestamp, Timestamp)> {
    let header = message.headers().filter(|headers| headers.count() == COUNT)?;
    let made = catch_unwind(AssertUnwindSafe(|| {
        let header = header.try_get(TIME_AT)?;
        std::str::from_utf8(header.value?).ok()?.parse().ok()
    }));
    let taken = message.timestamp().to_millis().and_then(|ms| Timestamp::from_millisecond(ms).ok())?;
    Some((made.ok()??, taken))
}

/// Returns the value of the one header `ce_type`; none if there is no such header, or more than one.
fn type_of<'a>(message: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    let headers = message.headers()?;
    let mut types = headers.iter().filter(|header| header.key == TYPE_HEADER);
    let only = types.next()?.value?;
    types.next().is_none().then_some(only)
}

/// Returns the header of a record for another rule, as far as this program knows it.
fn of_rule(rule: u32) -> OwnedHeaders {
    let kind = format!("{TYPE_OF_RULE}{rule}");
    OwnedHeaders::new().insert(Header { key: TYPE_HEADER, value: Some(kind.as_bytes()) })
}

/// Returns the number of the rule that a `ce_type` carries, if it carries one and is spelt as it would be written.
fn rule_in(kind: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(kind).ok()?.strip_prefix(TYPE_OF_RULE)?;
    digits.parse::<u32>().ok().filter(|rule| rule.to_string() == digits)
}

fn headers_of<'a>(message: &'a BorrowedMessage<'_>) -> Option<[Pair<'a>; COUNT]> {
    let headers = message.headers().filter(|headers| headers.count() == COUNT)?;
    let mut pairs: [Pair<'a>; COUNT] = [("", &[]); COUNT];
    for (at, pair) in pairs.iter_mut().enumerate() {
        let header = headers.try_get(at)?;
        *pair = (header.key, header.value?);
    }
    Some(pairs)
}

/// What key and headers say of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StatedBinding<T = String> {
    id: T,
    time: T,
    subject: T,
}

impl StatedBinding {
    /// What they must say of this one.
    fn by(envelope: &Envelope<'_>) -> Self {
        let subject = envelope.extends.first().map(|expected| expected.stream.to_string());
        Self {
            id: envelope.id.to_string(),
            time: envelope.time.to_string(),
            subject: subject.expect("a commit extends a stream"),
        }
    }
}

impl<T: AsRef<[u8]>> StatedBinding<T> {
    fn headers(&self) -> OwnedHeaders {
        let pairs: [Pair<'_>; COUNT] = [
            ("ce_specversion", b"1.0"),
            ("ce_id", self.id.as_ref()),
            ("ce_source", SOURCE.as_bytes()),
            (TYPE_HEADER, TYPE.as_bytes()),
            ("ce_time", self.time.as_ref()),
            ("ce_subject", self.subject.as_ref()),
            ("content-type", CONTENT.as_bytes()),
        ];
        pairs.into_iter().fold(OwnedHeaders::new_with_capacity(COUNT), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        })
    }
}

impl<'a> StatedBinding<&'a [u8]> {
    /// What these say; nothing if they are not those of a commit.
    fn of(key: Option<&[u8]>, headers: &[Pair<'a>; COUNT]) -> Option<Self> {
        match *headers {
            [
                ("ce_specversion", b"1.0"),
                ("ce_id", id),
                ("ce_source", source),
                ("ce_type", kind),
                ("ce_time", time),
                ("ce_subject", subject),
                ("content-type", content),
            ] if source == SOURCE.as_bytes()
                && kind == TYPE.as_bytes()
                && content == CONTENT.as_bytes()
                && key == Some(subject) =>
            {
                Some(Self { id, time, subject })
            }
            _ => None,
        }
    }

    /// What a value that begins as this program writes a commit says, if it is one at all: then it need not be parsed to
    /// know that.
    fn at_the_beginning_of(value: &'a [u8]) -> Option<Self> {
        let rest = value.strip_prefix(br#"{"rule":1,"id":""#)?;
        let (id, rest) = rest.split_at_checked(UUID_LEN)?;
        let rest = rest.strip_prefix(br#"","command":{"id":""#)?;
        let (command, rest) = rest.split_at_checked(UUID_LEN)?;
        let (hash, rest) = rest.strip_prefix(br#"","hash":""#)?.split_at_checked(HASH_LEN)?;
        let rest = rest.strip_prefix(br#""},"time":""#)?;
        let (time, rest) = rest.split_at(memchr::memchr(b'"', rest)?);
        let rest = rest.strip_prefix(br#"","extends":[{"stream":""#)?;
        let (subject, rest) = rest.split_at(memchr::memchr(b'"', rest)?);
        let are_plain = [id, command, hash, time, subject].into_iter().all(is_plain);
        (are_plain && rest.starts_with(br#"","#)).then_some(Self { id, time, subject })
    }

    fn is(&self, told: &StatedBinding) -> bool {
        self.id == told.id.as_bytes() && self.time == told.time.as_bytes() && self.subject == told.subject.as_bytes()
    }
}

/// Whether text stands in a commit as it is. Every byte is looked at, many at once, rather than up to the first bad one.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, b| plain & b.is_ascii_graphic() & (*b != b'"') & (*b != b'\\'))
}

const UUID_LEN: usize = 36;
const HASH_LEN: usize = 64;

/// Returns what a record is taken for. `kind` is asked for its `ce_type` where the quick look is not enough.
fn taken<'a>(
    value: &[u8],
    key: Option<&[u8]>,
    headers: Option<&[Pair<'_>; COUNT]>,
    kind: impl FnOnce() -> Option<&'a [u8]>,
    room: &mut BytesMut,
) -> Bytes {
    let told = headers.and_then(|headers| StatedBinding::of(key, headers));
    match &told {
        Some(told) if StatedBinding::at_the_beginning_of(value).as_ref() == Some(told) => copied(value, room),
        _ => taken_for(value, told.as_ref(), kind()),
    }
}

/// Copies a record into a room that it shares with those before and after it: one allocation is for a thousand of them.
fn copied(value: &[u8], room: &mut BytesMut) -> Bytes {
    if room.capacity() < value.len() {
        *room = BytesMut::with_capacity(ROOM.max(value.len()));
    }
    room.extend_from_slice(value);
    room.split().freeze()
}

fn taken_for(value: &[u8], told: Option<&StatedBinding<&[u8]>>, kind: Option<&[u8]>) -> Bytes {
    let bytes = Bytes::copy_from_slice(value);
    let parsed = Parsed::of(&bytes);
    match parsed.envelope {
        Some(envelope) if told.is_none_or(|told| !told.is(&StatedBinding::by(&envelope))) => rule::stub(&bytes),
        Some(_) => bytes.clone(),
        None if parsed.rule == RULE => rule::canonical(&bytes),
        // Headers and value agree on a later rule: every reader that does not know it stops.
        None if parsed.rule > RULE && kind.and_then(rule_in) == Some(parsed.rule) => bytes.clone(),
        None => rule::stub(&bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::contract::{Commit, step};
    use crate::rule::NO_HEAD;

    fn taken(value: &[u8], key: Option<&[u8]>, headers: Option<&[Pair<'_>; COUNT]>) -> Bytes {
        let kind = headers.and_then(|headers| headers.iter().find(|(name, _)| *name == TYPE_HEADER));
        super::taken(value, key, headers, || kind.map(|(_, value)| *value), &mut BytesMut::new())
    }

    /// Reads a value with nothing but this `ce_type`.
    fn under(value: &Bytes, kind: Option<&str>) -> Bytes {
        super::taken(value, None, None, || kind.map(str::as_bytes), &mut BytesMut::new())
    }

    /// Reads a value under the key and headers of another, after `change`.
    fn read(
        value: &Bytes,
        told_by: &Bytes,
        change: impl Fn(&mut Option<Vec<u8>>, &mut Vec<(String, Vec<u8>)>),
    ) -> Bytes {
        let outgoing = Outgoing::of(told_by);
        let mut key = outgoing.key;
        let headers = outgoing.headers.iter().flat_map(|headers| headers.iter());
        let mut headers: Vec<(String, Vec<u8>)> =
            headers.map(|header| (header.key.to_owned(), header.value.unwrap().to_vec())).collect();
        change(&mut key, &mut headers);
        let pairs: Vec<Pair<'_>> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        taken(value, key.as_deref(), pairs.first_chunk::<COUNT>().filter(|_| pairs.len() == COUNT))
    }

    fn commit() -> Bytes {
        step(7, "service/api", NO_HEAD)
    }

    #[test]
    fn a_commit_is_told_in_cloudevents_headers_and_read_back_as_its_bytes() {
        let outgoing = Outgoing::of(&commit());
        assert_eq!(outgoing.key.as_deref(), Some(&b"service/api"[..]));
        assert_eq!(outgoing.value, commit());
        let headers = outgoing.headers.unwrap();
        let told: Vec<(&str, &str)> =
            headers.iter().map(|header| (header.key, std::str::from_utf8(header.value.unwrap()).unwrap())).collect();
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", "00000000-0000-0000-0000-000000000007"),
            ("ce_source", "/ionledger"),
            ("ce_type", "ionledger.commit.v1"),
            ("ce_time", "1970-01-01T00:00:00Z"),
            ("ce_subject", "service/api"),
            ("content-type", "application/json"),
        ];
        assert_eq!(told, expected);
        assert_eq!(read(&commit(), &commit(), |_, _| ()), commit());
    }

    #[test]
    fn a_commit_under_another_key_or_other_headers_is_malformed() {
        let stub = rule::stub(&commit());
        for at in 0..COUNT {
            assert_eq!(read(&commit(), &commit(), |_, headers| headers[at].1.push(b'x')), stub, "value {at}");
            assert_eq!(read(&commit(), &commit(), |_, headers| headers[at].0.push('x')), stub, "name {at}");
            assert_eq!(read(&commit(), &commit(), |_, headers| drop(headers.remove(at))), stub, "without {at}");
            assert_eq!(read(&commit(), &commit(), |_, headers| headers.swap(at, (at + 1) % COUNT)), stub, "moved {at}");
        }
        assert_eq!(read(&commit(), &commit(), |key, _| *key = None), stub);
        assert_eq!(read(&commit(), &commit(), |_, headers| headers.push(("traceparent".to_owned(), vec![]))), stub);
        for other in [step(8, "service/api", NO_HEAD), step(7, "service/ap", NO_HEAD), step(7, "service/api2", NO_HEAD)]
        {
            assert_eq!(read(&commit(), &other, |_, _| ()), stub);
        }
        assert_eq!(taken(&commit(), None, None), stub);
    }

    /// The same commit in other words: the quick look does not know it, parsing does.
    #[test]
    fn a_commit_that_another_program_spelt_is_read_under_the_headers_of_what_it_says() {
        let spelt = String::from_utf8(commit().to_vec()).unwrap().replace("{\"rule\":1,", "{ \"rule\" : 1,");
        let spelt = Bytes::from(spelt);
        assert_eq!(read(&spelt, &spelt, |_, _| ()), spelt);
        assert_eq!(read(&spelt, &step(8, "service/api", NO_HEAD), |_, _| ()), rule::stub(&spelt));
        let quoted = Commit::new(1).extends("a\"b\\", NO_HEAD).event("a\"b\\", "test.stepped").bytes();
        assert_eq!(read(&quoted, &quoted, |_, _| ()), quoted);
    }

    /// What the quick look takes is what parsing would have taken.
    #[test]
    fn what_is_hidden_between_the_places_of_the_quick_look_is_found_by_parsing() {
        let text = String::from_utf8(commit().to_vec()).unwrap();
        let id = "00000000-0000-0000-0000-000000000007";
        for hidden in [r#"x","id":"00000000-0000-0000-000000007"#, "\\u0030000000-0000-0000-0000-0000000000"] {
            let forged =
                text.replacen(&format!(r#""command":{{"id":"{id}""#), &format!(r#""command":{{"id":"{hidden}""#), 1);
            let forged = Bytes::from(forged);
            assert_eq!(read(&forged, &commit(), |_, _| ()), rule::canonical(&forged));
        }
    }

    #[test]
    fn what_is_no_commit_is_its_stub() {
        for bytes in [&b""[..], b"garbage", b"\xff\xfe", &[b'x'; 1 << 20]] {
            let bytes = Bytes::copy_from_slice(bytes);
            assert_eq!(taken(&bytes, None, None), rule::stub(&bytes));
            let outgoing = Outgoing::of(&bytes);
            assert!(outgoing.key.is_none() && outgoing.headers.is_none());
            assert_eq!(taken(&outgoing.value, None, None), rule::stub(&bytes), "a stub stays the stub it is");
        }
    }

    #[test]
    fn only_a_record_whose_type_and_value_agree_on_a_later_rule_is_kept_for_one() {
        let later = Bytes::from_static(br#"{"rule":2,"other":"shape"}"#);
        assert_eq!(under(&later, Some("ionledger.commit.v2")), later);
        let disagree = [
            None,
            Some(""),
            Some("ionledger.commit.v1"),
            Some("ionledger.commit.v3"),
            Some("ionledger.commit.v02"),
            Some("ionledger.commit.v+2"),
            Some("ionledger.commit.v2 "),
            Some("Ionledger.commit.v2"),
            Some("order.placed"),
        ];
        for kind in disagree {
            assert_eq!(under(&later, kind), rule::stub(&later), "{kind:?}");
        }
        for earlier in [br#"{"rule":0}"#, br#"{"rule":1}"#] {
            let earlier = Bytes::from_static(earlier);
            for kind in ["ionledger.commit.v0", "ionledger.commit.v1", "ionledger.commit.v2"] {
                assert_eq!(under(&earlier, Some(kind)), rule::stub(&earlier), "{kind}");
            }
        }
        // A commit of today under the type of another rule is none.
        assert_eq!(under(&commit(), Some("ionledger.commit.v2")), rule::stub(&commit()));
        let written = Outgoing::of(&later);
        let headers = written.headers.unwrap();
        assert_eq!(headers.get(0), Header { key: TYPE_HEADER, value: Some(&b"ionledger.commit.v2"[..]) });
        assert_eq!((headers.count(), written.value), (1, later));
    }
}
