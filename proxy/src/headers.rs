//! Headers: what is for one hop stays on it, and the next hop is told who asked.
//!
//! Source: RFC 9110 section 7.6, RFC 9112 sections 6 and 7. hyper refuses differing `Content-Length`s and malformed
//! heads of users; of a message with both `Transfer-Encoding` and `Content-Length` it keeps the former alone; and it
//! writes every message's framing anew. What it lets pass of nodes' answers is in `answer`.
//!
//! Choices: `Upgrade` is ignored, as RFC 9110 7.8 permits, except that a WebSocket is refused (501) where it would
//! only be misunderstood. Trailers pass if `Trailer` names them. Who asked is believed from trusted proxies alone.

use std::net::SocketAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version, request};

use super::refused::Refused;
use super::target;
use super::trusted::TrustedProxies;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");
const VIA: HeaderValue = HeaderValue::from_static("1.1 ionledger");

/// What is never a hop's own, whatever `Connection` names.
const END_TO_END: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE];

/// What is for one hop even where `Connection` does not name it.
const ONE_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// By what else than `X-Forwarded-*` proxies say who asked. A stranger's are forged.
const WHO_ASKED: [&str; 12] = [
    "forwarded",
    "x-original-forwarded-for",
    "x-original-host",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "x-proxyuser-ip",
    "x-envoy-external-address",
    "cf-connecting-ip",
    "fastly-client-ip",
];

/// Who asks: the same for all requests of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    address: HeaderValue,
    here: HeaderValue,
    trusted: bool,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// There is no body.
    None,
    /// So many bytes.
    Exact(u64),
    /// It comes in chunks until it says that it is over.
    Chunked,
}

impl Peer {
    /// Returns the user at `peer` who has connected to `here`.
    pub(super) fn new(peer: SocketAddr, here: SocketAddr, trusted: &TrustedProxies) -> Self {
        let ip = peer.ip().to_canonical();
        let value = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"));
        Self { address: value(ip.to_string()), here: value(here.to_string()), trusted: trusted.contain(ip) }
    }

    /// Returns the address that the user has connected to.
    pub(super) fn here(&self) -> &HeaderValue {
        &self.here
    }
}

/// Makes `head` the head of the request to the node, with a body of `length`.
///
/// # Errors
///
/// [`Refused`], with what to answer.
pub(super) fn forward(head: &mut request::Parts, length: Length, peer: &Peer) -> Result<(), Refused> {
    check(head)?;
    let host = target::resolve(head, peer.here())?;
    let headers = &mut head.headers;
    let takes_trailers = names(headers, &header::CONNECTION).any(|name| name == "te")
        && names(headers, &header::TE).any(|name| name == "trailers");
    let trailers = trailers(headers);
    strip(headers);
    headers.remove(header::EXPECT); // hyper has said 100 or will
    frame(headers, length, trailers);
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    introduce(headers, &host, peer);
    headers.insert(header::HOST, host);
    headers.append(header::VIA, VIA);
    head.version = Version::HTTP_11;
    Ok(())
}

/// Says in `headers` how long the body is, in one way.
fn frame(headers: &mut HeaderMap, length: Length, trailers: Option<HeaderValue>) {
    match length {
        Length::None if headers.contains_key(header::CONTENT_LENGTH) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        Length::None => {}
        Length::Exact(length) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        Length::Chunked => {
            headers.remove(header::CONTENT_LENGTH);
            // hyper would leave out the body of a GET whose length it is not told.
            headers.insert(header::TRANSFER_ENCODING, CHUNKED);
            trailers.map(|names| headers.insert(header::TRAILER, names));
        }
    }
}

fn check(head: &request::Parts) -> Result<(), Refused> {
    if head.method == Method::CONNECT {
        return Err(Refused(StatusCode::NOT_IMPLEMENTED, "CONNECT is not available here; call the service directly"));
    }
    let headers = &head.headers;
    if names(headers, &header::UPGRADE).any(|name| name == "websocket") {
        return Err(Refused(StatusCode::NOT_IMPLEMENTED, "WebSockets are not available here; use plain HTTP"));
    }
    if !is_chunked_or_nothing(headers) {
        return Err(Refused(StatusCode::NOT_IMPLEMENTED, "of transfer encodings, only `chunked` is available here"));
    }
    if headers.get_all(header::EXPECT).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refused(StatusCode::EXPECTATION_FAILED, "of expectations, only `100-continue` is known here"));
    }
    Ok(())
}

/// Returns whether `headers` name no transfer encoding, or `chunked` once.
pub(super) fn is_chunked_or_nothing(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => true,
        (Some(encoding), None) => encoding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Says to the node who asked, how, and for which host.
fn introduce(headers: &mut HeaderMap, host: &HeaderValue, peer: &Peer) {
    if !peer.trusted {
        let forged: Vec<HeaderName> = headers.keys().filter(|name| says_who_asked(name)).cloned().collect();
        forged.iter().for_each(|name| drop(headers.remove(name)));
    }
    // One line: a node that reads one of several must not miss the last.
    let before = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    let all: Vec<&[u8]> = before.filter(|text| !text.is_empty()).chain([peer.address.as_bytes()]).collect();
    let all = HeaderValue::from_bytes(&all.join(&b", "[..])).unwrap_or_else(|_| peer.address.clone());
    headers.insert(X_FORWARDED_FOR, all);
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
}

/// Returns whether `name` says who asked. Some nodes read `_` as `-`.
fn says_who_asked(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is = |known: &str| name.bytes().map(dashed).eq(known.bytes());
    name.bytes().take(11).map(dashed).eq("x-forwarded".bytes()) || WHO_ASKED.iter().any(|known| is(known))
}

fn dashed(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte }
}

/// Returns the trailers that `headers` announce, without those that must not come so late: what frames or routes a
/// message, what is for one hop, and who asked.
pub(super) fn trailers(headers: &HeaderMap) -> Option<HeaderValue> {
    let late = |name: &HeaderName| !ONE_HOP.contains(name) && !END_TO_END.contains(name) && !says_who_asked(name);
    let announced: Vec<String> = names(headers, &header::TRAILER)
        .filter(|name| HeaderName::try_from(name.as_str()).is_ok_and(|name| late(&name)))
        .collect();
    if announced.is_empty() { None } else { HeaderValue::try_from(announced.join(", ")).ok() }
}

/// Removes what is for one hop.
pub(super) fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = names(headers, &header::CONNECTION)
            .filter_map(|name| HeaderName::try_from(name).ok())
            .filter(|name| !END_TO_END.contains(name))
            .collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
    }
    ONE_HOP.iter().for_each(|name| drop(headers.remove(name)));
}

/// Appends this proxy to those that an answer has come through.
pub(super) fn append_via(headers: &mut HeaderMap) {
    headers.append(header::VIA, VIA);
}

/// Returns the comma-separated names in all of `header`, in lower case.
fn names<'a>(headers: &'a HeaderMap, header: &HeaderName) -> impl Iterator<Item = String> + use<'a> {
    let values = headers.get_all(header).into_iter();
    values
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn peer(ip: &str) -> Peer {
        let trusted = "127.0.0.1".parse().unwrap();
        Peer::new(format!("{ip}:5000").parse().unwrap(), "127.0.0.1:80".parse().unwrap(), &trusted)
    }

    fn head(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn forwarded(uri: &str, headers: &[(&str, &str)], ip: &str) -> Result<Vec<String>, Refused> {
        let mut head = head(uri, headers);
        let length = head.headers.get("content-length").map(|value| value.to_str().unwrap().parse().unwrap());
        forward(&mut head, length.map_or(Length::None, Length::Exact), &peer(ip))?;
        let lines = head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let mut lines: Vec<String> = lines.chain([format!("{}", head.uri)]).collect();
        lines.sort();
        Ok(lines)
    }

    #[test]
    fn what_is_for_one_hop_is_not_passed_on() {
        let asked = [
            ("host", "api"),
            ("connection", "close, X-Hop, Host, Content-Length"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("x-mine", "1"),
            ("content-length", "3"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
        ];
        let lines = forwarded("/a?b=c", &asked, "127.0.0.1").unwrap();
        assert_eq!(
            lines,
            [
                "/a?b=c",
                "content-length: 3",
                "host: api",
                "via: 1.1 ionledger",
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: api",
                "x-forwarded-proto: http",
                "x-mine: 1",
            ]
        );
    }

    #[test]
    fn who_asked_is_believed_from_trusted_proxies_alone() {
        let asked = [
            ("host", "api"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-for", "8.8.8.8"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=9.9.9.9"),
        ];
        let lines = forwarded("/", &asked, "127.0.0.1").unwrap();
        assert!(lines.contains(&"x-forwarded-for: 9.9.9.9, 8.8.8.8, 127.0.0.1".to_owned()), "{lines:?}");
        assert!(lines.contains(&"x-forwarded-proto: https".to_owned()));
        assert!(lines.contains(&"forwarded: for=9.9.9.9".to_owned()));

        let lines = forwarded("/", &asked, "10.0.0.8").unwrap();
        let expected = ["/", "host: api", "via: 1.1 ionledger", "x-forwarded-for: 10.0.0.8", "x-forwarded-host: api"];
        assert_eq!(lines[..5], expected);
        assert_eq!(lines[5..], ["x-forwarded-proto: http"]);
    }

    #[test]
    fn a_strangers_word_on_who_asked_is_dropped_under_every_name() {
        for name in WHO_ASKED.into_iter().chain([
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded",
            "x_forwarded_for",
            "X-Forwarded_Proto",
            "X_Real-IP",
        ]) {
            let lines = forwarded("/", &[("host", "api"), (name, "forged")], "10.0.0.8").unwrap();
            assert!(!lines.iter().any(|line| line.contains("forged")), "{name}: {lines:?}");
        }
        let lines = forwarded("/", &[("host", "api"), ("x-forward", "1")], "10.0.0.8").unwrap();
        assert!(lines.contains(&"x-forward: 1".to_owned()), "{lines:?}");
    }

    #[test]
    fn trailers_are_announced_without_what_must_not_come_late() {
        let announced = |names: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::TRAILER, HeaderValue::from_static(names));
            trailers(&headers)
        };
        let kept = announced("X-Sum, Content-Length, Transfer-Encoding, Host, X-Forwarded-For, Connection,, X-End");
        assert_eq!(kept, Some(HeaderValue::from_static("x-sum, x-end")));
        assert_eq!(announced("Content-Length"), None);
    }

    #[test]
    fn only_who_names_te_as_its_connections_own_takes_trailers() {
        let asked = |connection| [("host", "api"), ("te", "trailers, deflate"), ("connection", connection)];
        assert!(forwarded("/", &asked("close, TE"), "10.0.0.8").unwrap().contains(&"te: trailers".to_owned()));
        assert!(!forwarded("/", &asked("close"), "10.0.0.8").unwrap().iter().any(|line| line.starts_with("te:")));
    }

    #[test]
    fn requests_that_could_be_read_two_ways_are_refused() {
        let host = ("host", "api");
        for (headers, status) in [
            (&[("x-any", "1")][..], 400),
            (&[host, host], 400),
            (&[host, ("transfer-encoding", "gzip, chunked")], 501),
            (&[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], 501),
            (&[host, ("upgrade", "WebSocket")], 501),
            (&[host, ("expect", "tea")], 417),
        ] {
            assert_eq!(forwarded("/", headers, "127.0.0.1").unwrap_err().0.as_u16(), status, "{headers:?}");
        }
        assert_eq!(forwarded("http://a@b/", &[host], "127.0.0.1").unwrap_err().0.as_u16(), 400);
    }
}
