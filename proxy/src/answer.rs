//! A node's answer: what its head says of its body has one reading, or the user gets a 502.
//!
//! Source: RFC 9112 section 6.3. hyper reads a body by the first rule that fits and keeps every header. So an answer with
//! `Transfer-Encoding` and `Content-Length` would reach the user with the length of something else; one in `gzip, chunked`
//! would pass for plain text; and what a node sends after an answer that has no body would be taken for the next answer.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version, response};
use hyper::body::{Body, Incoming};

use super::headers::{self, Length};
use super::refused::Refused;

/// Whether the connection that an answer came by can be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    Yes,
    /// What it says of its end is not to be relied upon.
    No,
}

/// Returns the length of `body` as hyper reads it.
pub(super) fn length(body: &Incoming) -> Length {
    match body.size_hint().exact() {
        _ if body.is_end_stream() => Length::None,
        Some(length) => Length::Exact(length),
        None => Length::Chunked,
    }
}

/// Makes `head`, a node's to a request by `method`, the head of the answer to the user, with a body of `length`.
///
/// # Errors
///
/// [`Refused`] if it can be read in two ways.
pub(super) fn accept(head: &mut response::Parts, method: &Method, length: Length) -> Result<Reuse, Refused> {
    let bad = |words| Err(Refused(StatusCode::BAD_GATEWAY, words));
    let headers = &mut head.headers;
    let has_encoding = headers.contains_key(header::TRANSFER_ENCODING);
    let has_length = headers.contains_key(header::CONTENT_LENGTH);
    let never_has_body = head.status == StatusCode::NO_CONTENT;
    let has_no_body = never_has_body || head.status == StatusCode::NOT_MODIFIED || *method == Method::HEAD;
    if has_encoding && !has_no_body && !headers::is_chunked_or_nothing(headers) {
        return bad("the service used a transfer encoding other than `chunked`");
    }
    // Where there is an encoding, the length says nothing, be it legal or not.
    let said = if has_encoding { None } else { said_length(headers)? };
    let ends_where_it_says = match said {
        Some(length) => !never_has_body || length == 0,
        None => !(has_encoding && (has_length || never_has_body)),
    };
    let trailers = if length == Length::Chunked && has_encoding { headers::trailers(headers) } else { None };
    headers::strip(headers);
    headers.remove(header::CONTENT_LENGTH);
    let told = match length {
        Length::None if never_has_body => None,
        Length::None if has_no_body => said,
        Length::None => Some(0),
        Length::Exact(length) => Some(length),
        Length::Chunked => None,
    };
    told.map(|length| headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length)));
    trailers.map(|names| headers.insert(header::TRAILER, names));
    headers::append_via(headers);
    // Its version says what the node speaks; hyper would speak it to the user too.
    head.version = Version::HTTP_11;
    Ok(if ends_where_it_says { Reuse::Yes } else { Reuse::No })
}

/// Returns the one length that `headers` say.
fn said_length(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    const BAD: Refused = Refused(StatusCode::BAD_GATEWAY, "the service sent a Content-Length that is not one number");
    let mut said = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for text in value.to_str().map_err(|_| BAD)?.split(',').map(str::trim) {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let length = text.parse::<u64>().ok().filter(|_| digits).ok_or(BAD)?;
            if said.is_some_and(|said| said != length) {
                return Err(BAD);
            }
            said = Some(length);
        }
    }
    Ok(said)
}

/// Returns the bytes of an interim answer that passes (103 and its like), or nothing for one that is for this hop alone.
pub(super) fn interim(status: StatusCode, headers: &HeaderMap) -> Option<Vec<u8>> {
    if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
        return None;
    }
    let mut headers = headers.clone();
    headers::strip(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or("Interim");
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(b"\r\n");
    Some(text)
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn accepted(method: Method, status: u16, lines: &[(&str, &str)], length: Length) -> Result<(String, Reuse), u16> {
        let mut response = Response::builder().status(status);
        for (name, value) in lines {
            response = response.header(*name, *value);
        }
        let mut head = response.body(()).unwrap().into_parts().0;
        let reuse = accept(&mut head, &method, length).map_err(|refused| refused.0.as_u16())?;
        head.headers.remove(header::VIA);
        let lines = head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        Ok((lines.collect::<Vec<_>>().join("; "), reuse))
    }

    #[test]
    fn an_answer_with_encoding_and_length_loses_the_length_and_the_connection() {
        for lines in [
            [("transfer-encoding", "chunked"), ("content-length", "2")],
            [("content-length", "999"), ("transfer-encoding", "Chunked")],
            [("content-length", "two"), ("transfer-encoding", "chunked")],
        ] {
            assert_eq!(
                accepted(Method::GET, 200, &lines, Length::Chunked),
                Ok((String::new(), Reuse::No)),
                "{lines:?}"
            );
        }
        let lines = [("transfer-encoding", "chunked")];
        assert_eq!(accepted(Method::GET, 200, &lines, Length::Chunked), Ok((String::new(), Reuse::Yes)));
    }

    #[test]
    fn an_encoding_that_is_not_chunked_alone_is_a_502() {
        for encodings in [
            &["gzip"][..],
            &["gzip, chunked"],
            &["chunked, gzip"],
            &["identity"],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["gzip", "chunked"],
            &[""],
        ] {
            let lines: Vec<_> = encodings.iter().map(|encoding| ("transfer-encoding", *encoding)).collect();
            assert_eq!(accepted(Method::GET, 200, &lines, Length::Chunked), Err(502), "{encodings:?}");
        }
    }

    #[test]
    fn a_length_is_one_number_and_written_once() {
        for values in [&["5"][..], &["5, 5"], &["5", "5"], &["05"]] {
            let lines: Vec<_> = values.iter().map(|value| ("content-length", *value)).collect();
            let expected = Ok(("content-length: 5".to_owned(), Reuse::Yes));
            assert_eq!(accepted(Method::GET, 200, &lines, Length::Exact(5)), expected, "{values:?}");
            assert_eq!(accepted(Method::HEAD, 200, &lines, Length::None), expected, "{values:?}");
            assert_eq!(accepted(Method::GET, 304, &lines, Length::None), expected, "{values:?}");
        }
        for values in [&["5, 6"][..], &["5", "6"], &["+5"], &[""], &["5,"], &["99999999999999999999"], &["0x5"]] {
            let lines: Vec<_> = values.iter().map(|value| ("content-length", *value)).collect();
            for (method, status) in [(Method::HEAD, 200), (Method::GET, 304), (Method::GET, 200)] {
                assert_eq!(accepted(method, status, &lines, Length::None), Err(502), "{values:?}");
            }
        }
    }

    #[test]
    fn a_204_has_no_body_whatever_it_says_and_what_follows_is_no_answer() {
        for (line, reuse) in [
            (("content-length", "5"), Reuse::No),
            (("transfer-encoding", "chunked"), Reuse::No),
            (("content-length", "0"), Reuse::Yes),
            (("x", "1"), Reuse::Yes),
        ] {
            let (lines, seen) = accepted(Method::GET, 204, &[line], Length::None).unwrap();
            assert!(seen == reuse && !lines.contains("content-length"), "{line:?}: {lines}");
        }
    }

    #[test]
    fn announced_trailers_stay_announced_where_there_are_chunks() {
        let lines = [("transfer-encoding", "chunked"), ("trailer", "X-Sum, Content-Length")];
        let expected = Ok(("trailer: x-sum".to_owned(), Reuse::Yes));
        assert_eq!(accepted(Method::GET, 200, &lines, Length::Chunked), expected);
        let (lines, _) = accepted(Method::GET, 200, &[("trailer", "x-sum")], Length::Exact(1)).unwrap();
        assert_eq!(lines, "content-length: 1");
    }

    #[test]
    fn hints_pass_and_what_is_for_one_hop_does_not() {
        let mut headers = HeaderMap::new();
        headers.insert("link", "</a.css>".parse().unwrap());
        headers.insert("connection", "x-hop".parse().unwrap());
        headers.insert("x-hop", "1".parse().unwrap());
        let text = interim(StatusCode::EARLY_HINTS, &headers).unwrap();
        assert_eq!(text, b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        assert_eq!(interim(StatusCode::CONTINUE, &headers), None);
    }
}
