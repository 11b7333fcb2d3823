//! A request's target and host: which are legal, and what the node is told of them.
//!
//! Source: RFC 9112 section 3.2 (the four forms of a target), RFC 3986 section 3.2 (host and port).

use http::header::{self, HeaderValue};
use http::{Method, StatusCode, Uri, Version, request};

use super::refused::Refused;

const fn bad(words: &'static str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, words)
}

/// Makes the target of `head` the one that the node gets, a path or `*`, and returns the host that it is for: `here`, where the user
/// has connected, if it names none.
///
/// # Errors
///
/// [`Refused`] for a target or host that is not legal.
pub(super) fn resolve(head: &mut request::Parts, here: &HeaderValue) -> Result<HeaderValue, Refused> {
    let named = named(head)?;
    if head.uri.path_and_query().is_some_and(|target| !target.as_str().bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(bad("escape what is not ASCII in the target"));
    }
    let host = match (head.uri.scheme_str(), head.uri.authority()) {
        (Some("http" | "https"), Some(authority)) => {
            if !is_host(authority.as_str().as_bytes()) || authority.host().is_empty() {
                return Err(bad("the target does not name a valid host; write http://HOST[:PORT]/PATH"));
            }
            let host = HeaderValue::from_str(authority.as_str());
            host.map_err(|_| bad("the target does not name a valid host; write http://HOST[:PORT]/PATH"))?
        }
        (None, None) => {
            let target = head.uri.path_and_query().map_or("", |target| target.as_str());
            match target {
                "*" if head.method == Method::OPTIONS => {}
                target if target.starts_with('/') => {}
                _ => return Err(bad("the target is not a path; begin it with `/`")),
            }
            named.unwrap_or_else(|| here.clone())
        }
        _ => return Err(bad("this form of the target is not allowed for this method; begin it with `/`")),
    };
    if head.uri.authority().is_some() {
        head.uri = head.uri.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    Ok(host)
}

/// Returns the one `Host` header, which only HTTP/1.0 may leave out.
fn named(head: &request::Parts) -> Result<Option<HeaderValue>, Refused> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(Some(host.clone())),
        (Some(_), None) => Err(bad("the Host header is not HOST[:PORT]")),
        (None, _) if head.version == Version::HTTP_10 => Ok(None),
        (None, _) | (Some(_), Some(_)) => Err(bad("send exactly one Host header")),
    }
}

/// Returns whether `text` is `HOST[:PORT]`. An empty host is one; a comma is not, though RFC 3986 has it: a reader that
/// splits lists would find two.
fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !text[colon..].contains(&b']') => (&text[..colon], &text[colon + 1..]),
        _ => (text, &[][..]),
    };
    let is_port = port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    let port = std::str::from_utf8(port).unwrap_or_default();
    let in_range = port.is_empty() || port.parse::<u16>().is_ok();
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte);
    let is_literal = |byte: &u8| byte.is_ascii_alphanumeric() || b":.%-".contains(byte);
    let is_host = match host {
        [b'[', literal @ .., b']'] => !literal.is_empty() && literal.iter().all(is_literal),
        name => name.iter().all(is_name),
    };
    is_port && in_range && is_host
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn resolved(method: &str, uri: &str, hosts: &[&str]) -> Result<(String, String), u16> {
        let mut request = Request::builder().method(method).uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let here = HeaderValue::from_static("10.0.0.2:80");
        let host = resolve(&mut head, &here).map_err(|refused| refused.0.as_u16())?;
        Ok((head.uri.to_string(), host.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_target_in_a_legal_form_is_resolved() {
        for (method, uri, host, target, resolved_host) in [
            ("GET", "/", "api", "/", "api"),
            ("GET", "//a/b?c=%zz&d={e}|f", "api:80", "//a/b?c=%zz&d={e}|f", "api:80"),
            ("OPTIONS", "*", "api", "*", "api"),
            ("GET", "http://real.example/x", "other", "/x", "real.example"),
            ("GET", "http://real.example?x", "other", "/?x", "real.example"),
            ("GET", "HTTPS://[::1]:8080", "other", "/", "[::1]:8080"),
            ("GET", "/", "", "/", ""),
        ] {
            let expected = Ok((target.to_owned(), resolved_host.to_owned()));
            assert_eq!(resolved(method, uri, &[host]), expected, "{method} {uri}");
        }
    }

    #[test]
    fn any_other_target_is_refused() {
        for (method, uri) in [
            ("GET", "*"),
            ("GET", "api"),
            ("GET", "api:80"),
            ("GET", "ftp://api/"),
            ("GET", "http://user@api/"),
            ("GET", "http://user:word@api/"),
            ("GET", "http://api:99999/"),
            ("GET", "/\u{e9}"),
            ("GET", "http://a,b/"),
        ] {
            assert_eq!(resolved(method, uri, &["api"]), Err(400), "{method} {uri}");
        }
    }

    #[test]
    fn a_host_is_one_host() {
        for host in
            ["a b", "a,b", "a/b", "user@a", "a:b", "a:123456", "a:70000", "[::1", "::1", "a\"", "[]", "a?b", "a#b"]
        {
            assert_eq!(resolved("GET", "/", &[host]), Err(400), "{host}");
            assert_eq!(resolved("GET", "http://api/", &[host]), Err(400), "{host}");
        }
        assert_eq!(resolved("GET", "/", &[]), Err(400));
        assert_eq!(resolved("GET", "/", &["a", "a"]), Err(400));
        for host in ["api", "api:", "api:0", "a.b-c_d~e%20", "[fe80::1%25eth0]:80", "127.0.0.1:65535"] {
            assert!(resolved("GET", "/", &[host]).is_ok(), "{host}");
        }
    }
}
