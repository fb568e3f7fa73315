//! Texts from outside as messages show them: every character that a terminal would act on, or that
//! nobody can see, is written as TOML writes it, so that the message shows what is stored.

use std::fmt::{self, Write};

/// Characters of a value that a message shows.
const SHOWN_MAX: usize = 60;

/// So much of a text as belongs into a message, with escapes; `...` where it was cut.
#[must_use]
pub fn short(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    for c in rest.by_ref().take(SHOWN_MAX) {
        escape(c, &mut out);
    }
    if rest.next().is_some() {
        out.push_str("...");
    }
    out
}

/// The whole text, with escapes.
#[must_use]
pub fn whole(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        escape(c, &mut out);
    }
    out
}

/// Appends a character as it stands between quotes in TOML, quotes excepted.
pub(super) fn escape(c: char, out: &mut String) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c => {
            let _ = Line(out).write_char(c);
        }
    }
}

/// Writes what becomes one line: what would break it, or act on a terminal, as escapes. What was
/// escaped before stays as it is.
#[derive(Debug)]
pub struct Line<W>(pub W);

impl<W: Write> Write for Line<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_hidden(*c)) {
            let (before, from) = rest.split_at(at);
            self.0.write_str(before)?;
            match u32::from(c) {
                0x0a => self.0.write_str("\\n")?,
                code @ ..=0xffff => write!(self.0, "\\u{code:04X}")?,
                code => write!(self.0, "\\U{code:08X}")?,
            }
            rest = from.get(c.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

/// Whether a character shows nothing, or moves what others show: controls, and the format
/// characters of Unicode (joiners, marks of direction, tags).
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_what_is_stored_and_nothing_acts_on_a_terminal() {
        for (stored, shown) in [
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.\n0.1", "10.0.\\n0.1"),
            ("a\u{1b}[31mb\u{7f}\0", "a\\u001B[31mb\\u007F\\u0000"),
            ("eth0\u{200b}", "eth0\\u200B"),
            ("\u{202e}0hte", "\\u202E0hte"),
            ("\u{e0041}", "\\U000E0041"),
            ("a\\nb", "a\\\\nb"),
            ("Köln", "Köln"),
        ] {
            assert_eq!(short(stored), shown);
            assert_eq!(whole(stored), shown);
        }
        let mut line = String::new();
        write!(Line(&mut line), "a\nb \\n \u{1b}").unwrap();
        assert_eq!(line, "a\\nb \\n \\u001B");
        assert_eq!(short(&"x".repeat(61)), format!("{}...", "x".repeat(60)));
        assert_eq!(short(&"x".repeat(60)), "x".repeat(60));
    }
}
