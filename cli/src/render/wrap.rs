//! Wrapping: text for eyes, fitted to the terminal. Lines break between words and go on indented, below the column in which
//! they broke; a word that is longer than the terminal is left whole.

use textwrap::core::display_width;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// How much room a line's continuation has at least; where its column leaves less, it goes on further to the left.
const ROOM_MIN: usize = 24;

/// Returns the text with no line wider than `columns`, if its words allow that.
pub(crate) fn wrapped(text: &str, columns: usize) -> String {
    let mut shown = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        match display_width(line) <= columns {
            true => shown.push_str(line),
            false => shown.push_str(&folded(line, columns)),
        }
        shown.push_str(end);
    }
    shown
}

fn folded(line: &str, columns: usize) -> String {
    let bare = anstream::adapter::strip_str(line).to_string();
    let below = below(&bare, columns);
    let options = Options::new(columns)
        .subsequent_indent(&below)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    // A number stays with its percent sign.
    let line = line.replace(" %", "\u{a0}%");
    textwrap::wrap(&line, options).join("\n").replace("\u{a0}%", " %")
}

/// What stands before a line's continuation: the branches of its tree that go on, and blanks up to the column that it
/// breaks in.
fn below(line: &str, columns: usize) -> String {
    let branches: String = line.chars().map_while(branch_below).collect();
    let start = branches.chars().count();
    let room = |column: &usize| *column + ROOM_MIN <= columns;
    // On a narrow terminal a branch may be as wide as the columns that leave room.
    let column = columns_of(line, columns).into_iter().filter(|column| *column >= start).rfind(room).unwrap_or(start);
    // Below a sentence that stands alone its continuation is told from the next one by its indent.
    let alone = column == start && (start == 0 || branches.trim() != "" || line.contains('└'));
    let indent = if alone { column + 2 } else { column };
    format!("{branches}{}", " ".repeat(indent - start))
}

/// Returns what stands below a character of a tree, or nothing if it is none.
fn branch_below(c: char) -> Option<char> {
    match c {
        '├' | '│' => Some('│'),
        '└' | '─' | ' ' => Some(' '),
        _ => None,
    }
}

/// Returns where the columns of a line begin that begin on the terminal: after two blanks or more.
fn columns_of(line: &str, columns: usize) -> Vec<usize> {
    let (mut found, mut blanks, mut at) = (Vec::new(), 0, 0);
    for c in line.chars() {
        if c != ' ' && blanks >= 2 && at < columns {
            found.push(at);
        }
        blanks = if c == ' ' { blanks + 1 } else { 0 };
        at += display_width(c.encode_utf8(&mut [0; 4]));
    }
    found
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn a_line_goes_on_below_its_column_and_never_breaks_in_a_word() {
        let text = "production/api  serves\n  judge        not worse at step 2: canary 0 of 61 failed (0.00 %), \
            baseline 4 of 1,204 failed (0.33 %)\n├─ 1.2.4  ready\n│  ├─ node 3  ready  127.0.0.1:40002\n│  │  log \
            /var/lib/ionledger/nodes/0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03/output.log it is the first word that is too long\n";
        assert_snapshot!(wrapped(text, 60), @r"
production/api  serves
  judge        not worse at step 2: canary 0 of 61 failed
               (0.00 %), baseline 4 of 1,204 failed (0.33 %)
├─ 1.2.4  ready
│  ├─ node 3  ready  127.0.0.1:40002
│  │  log
│  │    /var/lib/ionledger/nodes/0193a6f0-0c41-7b66-b1d2-9e4a6c8f7d03/output.log
│  │    it is the first word that is too long
");
        assert_eq!(wrapped(text, 400), text);
    }

    #[test]
    fn on_a_terminal_of_any_width_no_word_is_lost() {
        let text = "production/y  1 serves\n  rolls back   to 1 as soon as its stack is ready\n├─ 1  target  0 %  failed\n\
            │  ├─ node 1  ✖ unhealthy  127.0.0.1:40002  connection refused\n│  │                  log /tmp/output.log is long\n";
        let words = |text: &str| -> Vec<String> {
            text.split_whitespace().filter(|word| !"├─│└".contains(*word)).map(str::to_owned).collect()
        };
        for columns in 1..200 {
            assert_eq!(words(&wrapped(text, columns)), words(text), "{columns}");
        }
    }

    #[test]
    fn colours_take_no_room_and_a_column_far_to_the_right_is_no_place_to_go_on() {
        let text = format!(
            "{}1.2.4  failed  0 %  \u{1b}[31mfailed\u{1b}[0m  0/2 nodes  12 min  3 min ago: it exited with 1",
            "└─ "
        );
        assert_snapshot!(anstream::adapter::strip_str(&wrapped(&text, 60)).to_string(), @r"
└─ 1.2.4  failed  0 %  failed  0/2 nodes  12 min  3 min ago:
                               it exited with 1
");
        let narrow = format!("\u{1b}[31m{}\u{1b}[0m", "a".repeat(60));
        assert_eq!(wrapped(&narrow, 60), narrow);
    }
}
