//! The terminal's other screen, on which a frame is shown in place, as much of it as fits.

use std::io::Write as _;

use super::keys::Scroll;
use crate::failure::CommandResult;
use crate::halted;
use crate::out::{Out, written};
use crate::render::wrap::wrapped;

/// The screen, and which part of the frame is on it.
#[derive(Debug, Default)]
pub(super) struct Screen {
    entered: bool,
    /// The frame's line at the top, from 0.
    top: usize,
    /// How many lines the frame has, and how many of them fit.
    lines: usize,
    room: usize,
}

impl Screen {
    /// Moves to another part of the frame.
    pub(super) fn scroll(&mut self, scroll: Scroll) {
        let by = |lines: isize| self.top.saturating_add_signed(lines);
        let screen = isize::try_from(self.room.max(1)).unwrap_or(isize::MAX);
        let top = match scroll {
            Scroll::Lines(lines) => by(lines),
            Scroll::Screens(screens) => by(screens.saturating_mul(screen)),
            Scroll::Top => 0,
            Scroll::Bottom => self.lines,
        };
        self.top = top.min(self.lines.saturating_sub(self.room));
    }

    /// Draws a frame.
    pub(super) fn draw(&mut self, out: Out, frame: &str, rows: usize, columns: usize) -> CommandResult<()> {
        let enter = if self.entered { "" } else { "\u{1b}[?1049h\u{1b}[?25l" };
        self.entered = true;
        // A word that is longer than the terminal must not push the others off it: lines are not wrapped by the terminal.
        raw(&format!("{enter}\u{1b}[?7l\u{1b}[H"))?;
        let shown = self.fitting(frame, rows, columns);
        halted::say_first();
        raw(&if out.has_colours() { shown } else { uncoloured(&shown) })?;
        raw("\u{1b}[J\u{1b}[?7h")
    }

    /// Returns the lines that fit from the top on, each on a cleared line; the last says which they are, if there are more.
    fn fitting(&mut self, frame: &str, rows: usize, columns: usize) -> String {
        let frame = wrapped(frame, columns);
        let lines: Vec<&str> = frame.lines().collect();
        self.lines = lines.len();
        if lines.len() < rows {
            (self.room, self.top) = (rows, 0);
            return lines.iter().map(|line| cleared(line)).collect();
        }
        self.room = rows.saturating_sub(2).max(1);
        self.top = self.top.min(lines.len() - self.room.min(lines.len()));
        let end = (self.top + self.room).min(lines.len());
        let shown: String = lines[self.top..end].iter().map(|line| cleared(line)).collect();
        // Colours of a line that was cut off end here.
        let last = format!("... {} to {end} of {} lines; arrows scroll, q leaves", self.top + 1, lines.len());
        format!("{shown}\u{1b}[0m{}", cleared(&last))
    }

    /// Gives the terminal back.
    pub(super) fn leave(&mut self) -> CommandResult<()> {
        if std::mem::take(&mut self.entered) { raw("\u{1b}[?25h\u{1b}[?1049l") } else { Ok(()) }
    }
}

/// Returns a line that takes the place of what stands there. That is cleared first: the cursor stays on the last character of
/// a line that is as wide as the terminal, and would clear it.
fn cleared(line: &str) -> String {
    format!("{CLEARS}{line}\n")
}

/// Clears the rest of a line.
const CLEARS: &str = "\u{1b}[K";

/// Returns lines without their colours, each still on a cleared line.
fn uncoloured(shown: &str) -> String {
    let lines: Vec<String> = shown.split(CLEARS).map(|line| anstream::adapter::strip_str(line).to_string()).collect();
    lines.join(CLEARS)
}

/// Writes to the terminal itself, without anything being left out.
fn raw(text: &str) -> CommandResult<()> {
    let mut stdout = std::io::stdout().lock();
    written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_each_line_is_cleared_all_the_same() {
        let shown = format!("{}{}\u{1b}[0m{}", cleared("\u{1b}[31mred\u{1b}[0m"), cleared("plain"), cleared("last"));
        assert_eq!(uncoloured(&shown), "\u{1b}[Kred\n\u{1b}[Kplain\n\u{1b}[Klast\n");
    }

    fn frame(lines: usize) -> String {
        (1..=lines).map(|n| format!("line {n}\n")).collect()
    }

    #[test]
    fn a_frame_never_scrolls_its_head_off_the_screen() {
        let mut screen = Screen::default();
        let shown = screen.fitting(&frame(30), 10, 80);
        assert!(shown.starts_with("\u{1b}[Kline 1\n"));
        assert!(shown.ends_with("... 1 to 8 of 30 lines; arrows scroll, q leaves\n"), "{shown:?}");
        assert_eq!(shown.lines().count(), 9);
        let wrapped = screen.fitting(&format!("{}\n{}\nc\n", "a ".repeat(50), "b ".repeat(50)), 5, 40);
        assert!(wrapped.starts_with("\u{1b}[Ka a") && wrapped.lines().count() == 4, "{wrapped:?}");
        assert_eq!(screen.fitting(&frame(9), 10, 80).lines().count(), 9, "what fits is shown whole");
    }

    #[test]
    fn it_scrolls_to_the_last_line_and_no_further() {
        let mut screen = Screen::default();
        let mut at = |scroll| {
            screen.fitting(&frame(30), 10, 80);
            screen.scroll(scroll);
            screen.fitting(&frame(30), 10, 80).lines().next().unwrap().trim_start_matches("\u{1b}[K").to_owned()
        };
        assert_eq!(at(Scroll::Lines(-1)), "line 1");
        assert_eq!(at(Scroll::Lines(2)), "line 3");
        assert_eq!(at(Scroll::Screens(1)), "line 11");
        assert_eq!(at(Scroll::Bottom), "line 23");
        assert_eq!(at(Scroll::Lines(1)), "line 23");
        assert_eq!(at(Scroll::Top), "line 1");
        assert!(
            screen.fitting(&frame(3), 10, 80).starts_with("\u{1b}[Kline 1\n"),
            "a shorter frame is shown from its head"
        );
    }
}
