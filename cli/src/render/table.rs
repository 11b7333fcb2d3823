//! Tables: rows whose columns stand below each other, in colour.

use owo_colors::{OwoColorize as _, Style};

use super::words::{plain, style_of};

/// A piece of text in one style.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Returns text without a style. Control characters are shown, not obeyed.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self::styled(text, Style::new())
    }

    /// Returns text in a style.
    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: plain(text.as_ref()), style }
    }

    /// Returns a glyph and a word in the glyph's colour.
    pub(crate) fn glyph(glyph: &str, word: &str) -> Self {
        Self::styled(format!("{glyph} {word}").trim_end(), style_of(glyph))
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Returns one line per row, each column as wide as its widest cell, without blanks at the end.
pub(crate) fn lines(rows: &[Vec<Cell>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter().map(|row| line(row, &widths)).collect()
}

fn line(row: &[Cell], widths: &[usize]) -> String {
    let used = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1);
    let mut line = String::new();
    for (n, cell) in row[..used].iter().enumerate() {
        line.push_str(&paint(&cell.text, cell.style));
        if n + 1 < used {
            line.extend(std::iter::repeat_n(' ', widths[n] - cell.width() + 2));
        }
    }
    line
}

/// Returns text in a style.
pub(crate) fn paint(text: &str, style: Style) -> String {
    if style == Style::new() || text.is_empty() { text.to_owned() } else { text.style(style).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_though_they_are_coloured() {
        let rows = [
            vec![Cell::glyph("✔", "ready"), Cell::new("1"), Cell::new("")],
            vec![Cell::new("x"), Cell::new("22"), Cell::new("last")],
        ];
        let shown: Vec<String> =
            lines(&rows).iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert_eq!(shown, ["✔ ready  1", "x        22  last"]);
        assert!(lines(&rows)[0].starts_with("\u{1b}[32m"));
    }
}
