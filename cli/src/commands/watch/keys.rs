//! Keys, as somebody at the terminal presses them.

use std::io::{IsTerminal as _, Read as _};

use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// To see another part of what is shown.
    Scroll(Scroll),
    /// To leave.
    Leave,
}

/// Which part of what is shown to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scroll {
    /// So many lines down, or up if less than none.
    Lines(isize),
    /// So many screens down.
    Screens(isize),
    /// The first line.
    Top,
    /// The last.
    Bottom,
}

/// The terminal's keys, each told as it is pressed. When it is dropped, the terminal is as it was.
pub(super) struct Keys {
    pressed: Option<UnboundedReceiver<Key>>,
    before: Option<Termios>,
}

impl Keys {
    /// Listens to the terminal, if `wanted` and somebody is there to press keys.
    pub(super) fn of_terminal(wanted: bool) -> Self {
        let stdin = std::io::stdin();
        // In the background a terminal stops whoever changes it.
        let in_front = || tcgetpgrp(&stdin).is_ok_and(|front| front == getpgrp());
        let before = (wanted && stdin.is_terminal() && in_front()).then(|| tcgetattr(&stdin).ok()).flatten();
        let Some(mut mode) = before.clone() else { return Self { pressed: None, before: None } };
        // Ctrl-C stays a signal.
        mode.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        mode.special_codes[SpecialCodeIndex::VMIN] = 1;
        mode.special_codes[SpecialCodeIndex::VTIME] = 0;
        if tcsetattr(&stdin, OptionalActions::Now, &mode).is_err() {
            return Self { pressed: None, before: None };
        }
        let (sender, pressed) = unbounded_channel();
        // It ends with the process, or with the terminal.
        std::thread::spawn(move || {
            let mut bytes = [0; 64];
            while let Ok(read @ 1..) = std::io::stdin().lock().read(&mut bytes) {
                if keys_in(&bytes[..read]).into_iter().any(|key| sender.send(key).is_err()) {
                    break;
                }
            }
        });
        Self { pressed: Some(pressed), before }
    }

    /// Returns the next key; never where nobody can press one.
    pub(super) async fn next(&mut self) -> Key {
        if let Some(pressed) = &mut self.pressed
            && let Some(key) = pressed.recv().await
        {
            return key;
        }
        self.pressed = None;
        std::future::pending().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Returns the keys that a terminal's bytes mean; others mean nothing.
fn keys_in(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        if let Some((key, len)) =
            SEQUENCES.iter().find(|(text, _)| rest.starts_with(text)).map(|(text, key)| (*key, text.len()))
        {
            keys.push(Key::Scroll(key));
            rest = &rest[len..];
            continue;
        }
        keys.extend(match first {
            b'q' => Some(Key::Leave),
            b'j' | b'\n' | b'\r' => Some(Key::Scroll(Scroll::Lines(1))),
            b'k' => Some(Key::Scroll(Scroll::Lines(-1))),
            b' ' | b'f' => Some(Key::Scroll(Scroll::Screens(1))),
            b'b' => Some(Key::Scroll(Scroll::Screens(-1))),
            b'g' => Some(Key::Scroll(Scroll::Top)),
            b'G' => Some(Key::Scroll(Scroll::Bottom)),
            _ => None,
        });
        rest = after;
    }
    keys
}

/// What terminals send for keys that have no character.
const SEQUENCES: [(&[u8], Scroll); 10] = [
    (b"\x1b[A", Scroll::Lines(-1)),
    (b"\x1b[B", Scroll::Lines(1)),
    (b"\x1bOA", Scroll::Lines(-1)),
    (b"\x1bOB", Scroll::Lines(1)),
    (b"\x1b[5~", Scroll::Screens(-1)),
    (b"\x1b[6~", Scroll::Screens(1)),
    (b"\x1b[H", Scroll::Top),
    (b"\x1b[1~", Scroll::Top),
    (b"\x1b[F", Scroll::Bottom),
    (b"\x1b[4~", Scroll::Bottom),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_alone_and_in_a_row() {
        let down = Key::Scroll(Scroll::Lines(1));
        assert_eq!(keys_in(b"j\x1b[B\x1bOBq"), [down, down, down, Key::Leave]);
        assert_eq!(
            keys_in(b"\x1b[5~ G"),
            [-1, 1]
                .map(|by| Key::Scroll(Scroll::Screens(by)))
                .into_iter()
                .chain([Key::Scroll(Scroll::Bottom)])
                .collect::<Vec<_>>()
        );
        assert_eq!(keys_in(b"xyz\x1b"), []);
    }
}
