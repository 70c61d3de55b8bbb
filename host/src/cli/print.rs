//! How answers look: tables for people, JSON for scripts, data as text where it is text.

use std::borrow::Cow;
use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde_json::Value;
use shardmill_core::UnixMillis;

use crate::timestamp;

/// A table with these headings.
pub(super) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(headings.iter().map(|h| h.to_uppercase()));
    table
}

/// Writes a line to standard output; a reader that went away is an error that ends the command
/// quietly.
pub(super) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Writes lines that end themselves to standard output.
pub(super) fn text(text: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Writes a table without the blanks that pad its last column; `empty` where there is no row.
pub(super) fn rows(table: &Table, empty: &str) -> anyhow::Result<()> {
    if table.row_iter().next().is_none() {
        return line(empty);
    }
    let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    line(lines.join("\n"))
}

/// What was done: the host's answer for scripts, a sentence for people.
pub(super) fn done(json: bool, answer: &Value, text: &str) -> anyhow::Result<()> {
    if json { line(answer) } else { line(text) }
}

/// So many of a thing: `1 record`, `2 records`.
pub(super) fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// A text of several lines on one, safe for a terminal.
pub(super) fn one_line(text: &str) -> String {
    let joined = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    plain(&joined).into_owned()
}

/// A text that a terminal shows and does not obey: control characters other than line ends and
/// tabs, and those that turn the direction of writing, stand escaped. Guests and producers write
/// what they like.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| match c {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    };
    if !text.contains(is_bad) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_bad(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out.into()
}

/// A text as part of a line that nothing in it ends.
pub(super) fn in_line(text: &str) -> String {
    plain(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// Whether the command ends because nobody reads its output any more.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// A JSON value in a cell: texts without quotes, nothing for null; safe for a terminal.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text).into_owned(),
        other => plain(&other.to_string()).into_owned(),
    }
}

/// A frame of a guest's stack.
pub(super) fn frame(frame: &Value) -> String {
    match frame["module_offset"].as_u64() {
        Some(offset) => format!("{} (module offset {offset:#x})", cell(&frame["function"])),
        None => cell(&frame["function"]),
    }
}

/// Milliseconds since the epoch as a date and time; nothing for null.
pub(super) fn time(value: &Value) -> String {
    value
        .as_u64()
        .map(|millis| timestamp::format(UnixMillis(millis)))
        .unwrap_or_default()
}

/// A span in milliseconds, short.
pub(super) fn span(millis: u64) -> String {
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..120_000 => format!("{:.1} s", millis as f64 / 1000.0),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

/// Bytes, in the unit that people would use.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// Data in hexadecimal, cut after `limit` bytes with a note.
pub(super) fn hex(data: &[u8], limit: usize) -> String {
    let shown = &data[..data.len().min(limit / 2)];
    let digits: String = shown.iter().map(|b| format!("{b:02x}")).collect();
    match data.len() - shown.len() {
        0 => format!("0x{digits}"),
        rest => format!("0x{digits}… ({rest} bytes more)"),
    }
}

/// Data as text when it is UTF-8 without control characters other than line ends and tabs,
/// otherwise in hexadecimal; cut after `limit` bytes, with a note.
pub(super) fn data(data: &[u8], limit: usize) -> String {
    let text = std::str::from_utf8(data).ok();
    let text = text.filter(|t| {
        !t.chars()
            .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    });
    let Some(text) = text else {
        return hex(data, limit);
    };
    let end = (0..=limit.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    let shown = &text[..end.unwrap_or(0)];
    let rest = data.len() - shown.len();
    let shown = plain(shown);
    match rest {
        0 => shown.into_owned(),
        rest => format!("{shown}… ({rest} bytes more)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_text_where_it_is_text_and_hexadecimal_elsewhere() {
        for (bytes, limit, want) in [
            (b"a line".as_slice(), 100, "a line"),
            ("zwölf".as_bytes(), 3, "zw… (4 bytes more)"),
            (b"", 100, ""),
            (b"\xff\x00", 100, "0xff00"),
            (b"\x1b[2J", 100, "0x1b5b324a"),
            (b"\x00\x01\x02\x03", 4, "0x0001… (2 bytes more)"),
        ] {
            assert_eq!(data(bytes, limit), want);
        }
    }

    #[test]
    fn no_text_of_a_guest_or_a_producer_commands_the_terminal() {
        let evil = "a\u{1b}[2J\u{9b}31m\r\u{202e}b\u{7}\u{7f}";
        let shown = "a\\u{1b}[2J\\u{9b}31m\\r\\u{202e}b\\u{7}\\u{7f}";
        assert_eq!(cell(&Value::from(evil)), shown);
        assert_eq!(one_line(&format!(" {evil}\n c")), format!("{shown} c"));
        assert_eq!(frame(&serde_json::json!({ "function": evil })), shown);
        assert_eq!(data("\u{202e}x\r".as_bytes(), 100), "\\u{202e}x\\r");
        assert_eq!(
            cell(&Value::from("two\nlines\tas they are")),
            "two\nlines\tas they are"
        );
        assert_eq!(in_line("a\n2026-11-23 forged"), "a\\n2026-11-23 forged");
    }
}
