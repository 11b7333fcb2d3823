//! Heads: where the head of a request ends among the bytes of a connection, and what of its first line hyper does not tell.
//!
//! hyper drops a fragment (`/a#b`) from a request's target and reports nothing, so the first line is looked at here too. For
//! that, hyper is given one head at a time. Nothing rests on this but that one refusal: what a message is, hyper says.

/// The most of a first line that is kept, in bytes; hyper refuses a longer one.
const LINE_MAX: usize = 32 * 1_024;

/// A head on its way, looked at byte by byte.
#[derive(Debug, Default)]
pub(super) struct Heads {
    place: LastByte,
    line: Vec<u8>,
}

/// What the last byte was part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LastByte {
    /// Empty lines before the head, which are passed over.
    #[default]
    Before,
    /// The first line.
    Line,
    /// A later line.
    Text,
    /// The end of a line.
    Feed,
    /// A carriage return at the beginning of a line.
    FeedReturn,
    /// The empty line that ends the head.
    End,
}

impl Heads {
    /// Begins with another head.
    pub(super) fn begin(&mut self) {
        self.place = LastByte::Before;
        self.line.clear();
    }

    /// Returns how many of `bytes` belong to the head, with the empty line that ends it.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        if self.place == LastByte::End {
            self.begin();
        }
        for (i, byte) in bytes.iter().enumerate() {
            self.place = match (self.place, byte) {
                (LastByte::Before, b'\r' | b'\n') => LastByte::Before,
                (LastByte::Feed, b'\r') => LastByte::FeedReturn,
                (LastByte::Feed | LastByte::FeedReturn, b'\n') => LastByte::End,
                (LastByte::Line | LastByte::Text, b'\n') => LastByte::Feed,
                (LastByte::Before | LastByte::Line, _) => {
                    if self.line.len() < LINE_MAX {
                        self.line.push(*byte);
                    }
                    LastByte::Line
                }
                (LastByte::Text | LastByte::Feed | LastByte::FeedReturn | LastByte::End, _) => LastByte::Text,
            };
            if self.place == LastByte::End {
                return i + 1;
            }
        }
        bytes.len()
    }

    /// Returns whether the first line is a request's whose target has a fragment.
    pub(super) fn has_fragment(&self) -> bool {
        if !self.line.contains(&b'#') {
            return false;
        }
        let words: Vec<&[u8]> = self.line.trim_ascii_end().split(|byte| *byte == b' ').collect();
        matches!(words[..], [_, target, version] if target.contains(&b'#') && version.starts_with(b"HTTP/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_the_empty_line_however_it_arrives() {
        for head in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "\r\n\nGET / HTTP/1.1\nhost: a\n\n", "GET / HTTP/1.0\r\n\n"] {
            let bytes = [head.as_bytes(), b"body\r\n\r\n"].concat();
            assert_eq!(Heads::default().take(&bytes), head.len(), "{head:?}");
            let mut heads = Heads::default();
            assert!(
                bytes[..head.len() - 1].iter().all(|byte| heads.take(&[*byte]) == 1 && heads.place != LastByte::End)
            );
            assert_eq!((heads.take(&bytes[head.len() - 1..]), heads.place), (1, LastByte::End));
        }
    }

    #[test]
    fn only_a_targets_fragment_is_one() {
        for (line, fragment) in [
            ("GET /a#b HTTP/1.1", true),
            ("GET http://a/#b HTTP/1.0", true),
            ("GET # HTTP/1.1", true),
            ("GET /a%23b HTTP/1.1", false),
            ("G#T /a HTTP/1.1", false),
            ("ent: a#b curl", false),
        ] {
            let mut heads = Heads::default();
            heads.take(format!("{line}\r\nx: #\r\n\r\n").as_bytes());
            assert_eq!(heads.has_fragment(), fragment, "{line}");
        }
    }
}
