//! How a line of a node's log looks.

use workers::nodes::process::logs::Line;

use super::table::paint;
use super::words::{column, faint};

/// The columns of a line in a pipe.
pub(crate) const COLUMNS: &str = "version, number of the node, node, line";

/// Returns a line for pipes.
pub(crate) fn line(line: &Line) -> String {
    super::words::line(&[
        line.name().to_string(),
        (line.slot + 1).to_string(),
        line.node.to_string(),
        column(Some(&line.line)),
    ])
}

/// Returns a line for eyes: control characters are escaped, so that no program can write to the terminal but text.
pub(crate) fn eyes(line: &Line) -> String {
    let text: String = line.line.chars().map(|c| if c == '\t' { "\t".to_owned() } else { escaped(c) }).collect();
    format!("{} {text}\n", paint(&format!("{} node {}", line.name(), line.slot + 1), faint()))
}

fn escaped(c: char) -> String {
    if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_cannot_steer_the_terminal() {
        let node = "0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03".parse().unwrap();
        let line =
            Line { node, version: "1.2.3".parse().unwrap(), name: None, slot: 1, line: "a\t\u{1b}[2Jb".to_owned() };
        let eyes = eyes(&line);
        assert!(eyes.contains("a\t\\u{1b}[2Jb\n") && eyes.contains("1.2.3 node 2"), "{eyes:?}");
    }
}
