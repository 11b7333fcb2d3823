//! Headers: what is for one hop stays on it, and the next hop is told who asked.
//!
//! Source: RFC 9110 section 7.6, RFC 9112 sections 3.2 and 6. hyper refuses differing `Content-Length`s and
//! malformed heads; of a message with both `Transfer-Encoding` and `Content-Length` it keeps the former alone and
//! closes the connection after it; and it writes every message's framing anew. So one message has one reading.
//!
//! Choices: `Upgrade` is ignored, as RFC 9110 7.8 permits, except that a WebSocket is refused (501) where it would
//! only be misunderstood. `X-Forwarded-*` are believed from this machine alone (a TLS terminator beside the proxy).

use std::net::SocketAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version, request};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const VIA: HeaderValue = HeaderValue::from_static("1.1 ionledger");

/// What is never a hop's own, whatever `Connection` names.
const END_TO_END: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE];

/// Who asks: the same for all requests of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    address: HeaderValue,
    here: HeaderValue,
    trusted: bool,
}

/// A request that is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) StatusCode, pub(super) &'static str);

impl Peer {
    /// Returns the user at `peer` who has connected to `here`.
    pub(super) fn new(peer: SocketAddr, here: SocketAddr) -> Self {
        let ip = peer.ip().to_canonical();
        let value = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"));
        Self { address: value(ip.to_string()), here: value(here.to_string()), trusted: ip.is_loopback() }
    }
}

/// Makes `head` the head of the request to the node.
///
/// # Errors
///
/// [`Refused`], with what to answer.
pub(super) fn forward(head: &mut request::Parts, peer: &Peer) -> Result<(), Refused> {
    check(head)?;
    let host = host(head, peer)?;
    strip(&mut head.headers);
    head.headers.remove(header::EXPECT); // hyper has said 100 or will
    introduce(&mut head.headers, &host, peer);
    head.headers.insert(header::HOST, host);
    head.headers.append(header::VIA, VIA);
    if head.uri.authority().is_some() {
        head.uri = head.uri.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    head.version = Version::HTTP_11;
    Ok(())
}

/// Makes `headers`, a node's, those of the answer to the user.
pub(super) fn answer(headers: &mut HeaderMap) {
    strip(headers);
    headers.append(header::VIA, VIA);
}

fn check(head: &request::Parts) -> Result<(), Refused> {
    if head.method == Method::CONNECT {
        return Err(Refused(StatusCode::NOT_IMPLEMENTED, "CONNECT is not available here; call the service directly"));
    }
    let headers = &head.headers;
    if headers.get_all(header::UPGRADE).iter().any(|value| names(value).any(|name| name == "websocket")) {
        return Err(Refused(StatusCode::NOT_IMPLEMENTED, "WebSockets are not available here; use plain HTTP"));
    }
    let encodings = headers.get_all(header::TRANSFER_ENCODING);
    if encodings.iter().enumerate().any(|(i, value)| i > 0 || !value.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(Refused(StatusCode::NOT_IMPLEMENTED, "of transfer encodings, only `chunked` is available here"));
    }
    if headers.get(header::EXPECT).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refused(StatusCode::EXPECTATION_FAILED, "of expectations, only `100-continue` is known here"));
    }
    Ok(())
}

/// Returns the host asked for: the target's own if it has one, else the one `Host` header.
fn host(head: &request::Parts, peer: &Peer) -> Result<HeaderValue, Refused> {
    const BAD: Refused = Refused(StatusCode::BAD_REQUEST, "send exactly one Host header");
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(BAD);
    }
    if let Some(authority) = head.uri.authority() {
        if authority.as_str().contains('@') {
            return Err(Refused(StatusCode::BAD_REQUEST, "leave user names out of the target"));
        }
        return HeaderValue::from_str(authority.as_str()).map_err(|_| BAD);
    }
    match first {
        Some(host) => Ok(host.clone()),
        None if head.version == Version::HTTP_11 => Err(BAD),
        None => Ok(peer.here.clone()),
    }
}

/// Says to the node who asked, how, and for which host.
fn introduce(headers: &mut HeaderMap, host: &HeaderValue, peer: &Peer) {
    if !peer.trusted {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, header::FORWARDED] {
            headers.remove(name);
        }
    }
    headers.append(X_FORWARDED_FOR, peer.address.clone());
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
}

/// Removes what is for one hop.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(names)
            .filter_map(|name| HeaderName::try_from(name).ok())
            .filter(|name| !END_TO_END.contains(name))
            .collect();
        named.into_iter().for_each(|name| {
            headers.remove(name);
        });
        headers.remove(header::CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE]
    {
        headers.remove(name);
    }
}

/// Returns the comma-separated names in `value`, in lower case.
fn names(value: &HeaderValue) -> impl Iterator<Item = String> {
    value
        .to_str()
        .unwrap_or_default()
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn peer(ip: &str) -> Peer {
        Peer::new(format!("{ip}:5000").parse().unwrap(), "127.0.0.1:80".parse().unwrap())
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
        forward(&mut head, &peer(ip))?;
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
    fn who_asked_is_believed_from_this_machine_alone() {
        let asked = [("host", "api"), ("x-forwarded-for", "9.9.9.9"), ("x-forwarded-proto", "https")];
        let lines = forwarded("/", &asked, "127.0.0.1").unwrap();
        assert!(lines.contains(&"x-forwarded-for: 9.9.9.9".to_owned()));
        assert!(lines.contains(&"x-forwarded-for: 127.0.0.1".to_owned()));
        assert!(lines.contains(&"x-forwarded-proto: https".to_owned()));

        let lines = forwarded("/", &asked, "10.0.0.8").unwrap();
        assert!(!lines.contains(&"x-forwarded-for: 9.9.9.9".to_owned()));
        assert!(lines.contains(&"x-forwarded-for: 10.0.0.8".to_owned()));
        assert!(lines.contains(&"x-forwarded-proto: http".to_owned()));
    }

    #[test]
    fn the_target_of_the_request_goes_before_its_host_header() {
        let lines = forwarded("http://real.example/x", &[("host", "other")], "127.0.0.1").unwrap();
        assert!(lines.contains(&"host: real.example".to_owned()), "{lines:?}");
        assert!(lines.contains(&"/x".to_owned()), "{lines:?}");
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
