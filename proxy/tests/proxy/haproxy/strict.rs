//! A strict reader: it takes only what every reader reads alike. Source: RFC 9112, without what it lets readers forgive.

use std::fmt;

/// What a node got on a connection.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    /// A whole message.
    Whole(Message),
    /// What can be read in two ways.
    Bad(String),
}

/// A message as every reader reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message {
    start: String,
    pub(super) lines: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

/// What a user got.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    interim: Vec<String>,
    pub(super) status: String,
    lines: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    trailers: Vec<(String, String)>,
    pub(super) is_cut: bool,
    /// Whether it is not as strict as it should be.
    pub(super) is_loose: bool,
    /// Whether only the end of the connection ends it.
    pub(super) is_open_ended: bool,
    /// What follows.
    rest: usize,
}

type Lines = Vec<(String, String)>;
type Read<T> = Result<Option<T>, String>;

impl Seen {
    pub(super) fn message(&self) -> Option<&Message> {
        match self {
            Seen::Whole(message) => Some(message),
            Seen::Bad(_) => None,
        }
    }
}

impl Message {
    /// Returns the headers that begin with `x` and are not for one hop.
    pub(super) fn own(&self) -> Lines {
        let hop = value(&self.lines, "connection").unwrap_or_default().to_ascii_lowercase();
        let is_own = |name: &str| {
            name.starts_with('x') && !name.starts_with("x-forwarded") && !hop.split(',').any(|hop| hop.trim() == name)
        };
        self.lines.iter().filter(|(name, _)| is_own(name)).cloned().collect()
    }
}

/// Reads a request from the beginning of `bytes`: it and its length, or nothing if it is not whole.
pub(super) fn request(bytes: &[u8]) -> Read<(Message, usize)> {
    let Some((start, lines, mut at)) = head(bytes)? else { return Ok(None) };
    let words: Vec<&str> = start.split(' ').collect();
    match words[..] {
        [method, target, "HTTP/1.1" | "HTTP/1.0"]
            if !method.is_empty() && method.bytes().all(is_token) && !target.is_empty() && !target.contains('#') => {}
        _ => return Err(format!("the line `{start}`")),
    }
    if lines.iter().filter(|(name, _)| name == "host").count() > 1 {
        return Err("several hosts".to_owned());
    }
    let mut message = Message { start, lines, ..Message::default() };
    match framing(&message.lines)? {
        Framing::Chunked => {
            let Some((body, trailers, end)) = chunks(&bytes[at..])? else { return Ok(None) };
            (message.body, message.trailers, at) = (body, trailers, at + end);
        }
        Framing::Length(length) => {
            let Some(body) = bytes[at..].get(..length) else { return Ok(None) };
            (message.body, at) = (body.to_vec(), at + length);
        }
        Framing::None => {}
    }
    Ok(Some((message, at)))
}

/// Reads all that a user got of one request.
pub(super) fn answer(bytes: &[u8], is_head: bool) -> Answer {
    let mut answer = Answer::default();
    let mut at = 0;
    loop {
        let (start, lines, end) = match head(&bytes[at..]) {
            Ok(Some(head)) => head,
            head @ (Ok(None) | Err(_)) => {
                (answer.is_cut, answer.is_loose) = (true, head.is_err());
                answer.status = if bytes.is_empty() { "-" } else { "?" }.to_owned();
                return answer;
            }
        };
        at += end;
        let status = start.split(' ').nth(1).unwrap_or("?").to_owned();
        if status.starts_with('1') && status.len() == 3 && status != "101" {
            answer.interim.push(status);
            continue;
        }
        (answer.status, answer.lines) = (status, lines);
        break;
    }
    let rest = &bytes[at..];
    if is_head || ["101", "204", "304"].contains(&answer.status.as_str()) {
        answer.rest = rest.len();
        return answer;
    }
    match framing(&answer.lines) {
        Ok(Framing::Chunked) => match chunks(rest) {
            Ok(Some((body, trailers, end))) => {
                (answer.body, answer.trailers, answer.rest) = (body, trailers, rest.len() - end)
            }
            Ok(None) => answer.is_cut = true,
            Err(_) => (answer.is_cut, answer.is_loose) = (true, true),
        },
        Ok(Framing::Length(length)) => {
            answer.body = rest[..length.min(rest.len())].to_vec();
            answer.is_cut = rest.len() < length;
            answer.rest = rest.len().saturating_sub(length);
        }
        Ok(Framing::None) => (answer.body, answer.is_open_ended) = (rest.to_vec(), true),
        Err(_) => (answer.is_cut, answer.is_loose) = (true, true),
    }
    answer
}

/// Returns the statuses in all that a user got.
pub(super) fn statuses(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.split("HTTP/1.").skip(1).map(|part| part.chars().skip(2).take(3).collect()).collect()
}

enum Framing {
    None,
    Length(usize),
    Chunked,
}

fn framing(lines: &[(String, String)]) -> Result<Framing, String> {
    let all =
        |wanted: &str| lines.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value).collect::<Vec<_>>();
    match (&all("transfer-encoding")[..], &all("content-length")[..]) {
        ([], []) => Ok(Framing::None),
        ([encoding], []) if *encoding == "chunked" => Ok(Framing::Chunked),
        ([], [length]) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            length.parse().map(Framing::Length).map_err(|_| "a length".to_owned())
        }
        (encodings, lengths) => Err(format!("encodings {encodings:?} and lengths {lengths:?}")),
    }
}

/// Reads a head: its first line, its other lines, where it ends.
fn head(bytes: &[u8]) -> Read<(String, Lines, usize)> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let (start, rest) = match bytes[..end].windows(2).position(|two| two == b"\r\n") {
        Some(first) => (&bytes[..first], &bytes[first + 2..end]),
        None => (&bytes[..end], &[][..]),
    };
    Ok(Some((line(start)?, fields(rest)?, end + 4)))
}

fn fields(bytes: &[u8]) -> Result<Lines, String> {
    if bytes.is_empty() {
        return Ok(Lines::new());
    }
    let text = line_by_line(bytes);
    text.into_iter()
        .map(|bytes| {
            let text = line(bytes)?;
            let (name, value) = text.split_once(':').ok_or_else(|| format!("no colon in `{text}`"))?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(format!("the name `{name}`"));
            }
            Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
        })
        .collect()
}

fn line_by_line(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut rest) = (Vec::new(), bytes);
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    lines
}

fn line(bytes: &[u8]) -> Result<String, String> {
    let is_plain = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
    let text = String::from_utf8_lossy(bytes).into_owned();
    if bytes.iter().all(is_plain) { Ok(text) } else { Err(format!("the bytes of `{}`", text.escape_debug())) }
}

/// Reads chunks: the body, the trailers, where they end.
fn chunks(bytes: &[u8]) -> Read<(Vec<u8>, Lines, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let size = line(&bytes[at..at + end])?;
        if size.is_empty() || size.len() > 8 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("the chunk size `{size}`"));
        }
        let length = usize::from_str_radix(&size, 16).map_err(|error| error.to_string())?;
        at += end + 2;
        if length == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..at + length + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk that does not end".to_owned());
        }
        body.extend_from_slice(&chunk[..length]);
        at += length + 2;
    }
    if bytes[at..].starts_with(b"\r\n") {
        return Ok(Some((body, Lines::new(), at + 2)));
    }
    let Some(end) = bytes[at..].windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    Ok(Some((body, fields(&bytes[at..at + end])?, at + end + 4)))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn value(lines: &[(String, String)], wanted: &str) -> Option<String> {
    lines.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
}

fn short(text: &str) -> String {
    let text: String = text.chars().flat_map(char::escape_debug).collect();
    if text.len() <= 60 { text } else { format!("({} bytes)", text.len()) }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Whole(message) => message.fmt(f),
            Seen::Bad(why) => write!(f, "BAD {}", short(why)),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start.rsplit_once(' ').map_or("", |(start, _)| start);
        let host = value(&self.lines, "host");
        let host = host.as_deref().map_or("-", |host| if host.starts_with("127.0.0.1:") { "here" } else { host });
        write!(f, "{} @{}", short(start), short(host))?;
        for (name, value) in self.own() {
            write!(f, " {}: {}", short(&name), short(&value))?;
        }
        if !self.body.is_empty() {
            write!(f, " \"{}\"", short(&String::from_utf8_lossy(&self.body)))?;
        }
        self.trailers.iter().try_for_each(|(name, value)| write!(f, " +{name}: {value}"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.interim.iter().try_for_each(|status| write!(f, "{status} "))?;
        f.write_str(&self.status)?;
        for (name, value) in self.lines.iter().filter(|(name, _)| name.starts_with('x')) {
            write!(f, " {}: {}", short(name), short(value))?;
        }
        let is_nodes = !self.status.starts_with(['4', '5']) || self.body == b"hello";
        if !self.body.is_empty() && is_nodes {
            write!(f, " \"{}\"", short(&String::from_utf8_lossy(&self.body)))?;
        }
        self.trailers.iter().try_for_each(|(name, value)| write!(f, " +{name}: {value}"))?;
        let marks = [(self.is_cut, " cut"), (self.is_open_ended, " until the end"), (self.rest > 0, " and more")];
        marks.into_iter().filter(|(is, _)| *is).try_for_each(|(_, mark)| f.write_str(mark))
    }
}
