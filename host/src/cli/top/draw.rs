//! Draws the table: a pure function of the model and the area.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::model::{Row, Top};
use crate::cli::print;

/// Width of the columns behind the name: state, records/s, invocations/s, errors/s, fuel/s, age,
/// behind, parked, trend.
const WIDTHS: [u16; 9] = [9, 6, 6, 6, 6, 6, 6, 6, 8];
const HEADINGS: [&str; 9] = [
    "STATE", "REC/S", "INV/S", "ERR/S", "FUEL/S", "AGE", "BEHIND", "PARKED", "TREND",
];
/// Columns that stand at the left of their place.
const LEFT: [usize; 2] = [0, 8];
/// The name is not narrower.
const MIN_NAME: u16 = 12;
/// Lines above the rows, and below them.
const HEAD_LINES: u16 = 2;
const FOOT_LINES: u16 = 2;

/// What keys do, in eighty columns.
const KEYS: &str = "q quit  ↑↓ ⏎ shards  p pause  \
                    sort: a age b behind r rec e err f fuel n name";

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws on a terminal.
pub(super) fn draw(frame: &mut Frame<'_>, top: &Top) {
    let area = frame.area();
    draw_on(frame.buffer_mut(), area, top, true);
}

/// The table as text, whole, for a terminal of this width.
pub(super) fn text(top: &Top, width: u16) -> String {
    let rows = u16::try_from(top.shown().len()).unwrap_or(u16::MAX);
    let height = rows.saturating_add(HEAD_LINES);
    let area = Rect::new(0, 0, width, height.max(HEAD_LINES + 1));
    let mut buffer = Buffer::empty(area);
    draw_on(&mut buffer, area, top, false);
    lines(&buffer).join("\n")
}

/// The text of a buffer, line by line, without blanks at the ends.
pub(super) fn lines(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    let line = |y: u16| {
        let cells = (0..area.width).filter_map(|x| buffer.cell((area.x + x, area.y + y)));
        let text: String = cells.map(|cell| cell.symbol()).collect();
        text.trim_end().to_owned()
    };
    let mut lines: Vec<String> = (0..area.height).map(line).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn draw_on(buffer: &mut Buffer, area: Rect, top: &Top, live: bool) {
    let dim = Style::new().add_modifier(Modifier::DIM);
    let shown = top.shown();
    let mappings = shown.iter().filter(|r| r.shard.is_none());
    let title = format!(
        "{}  {}  by {}{}{}",
        top.endpoint,
        print::count(mappings.count() as u64, "mapping"),
        top.order.word(),
        if top.paused { "  paused" } else { "" },
        top.stale_seconds
            .map_or_else(String::new, |s| format!("  {s} s old")),
    );
    put(buffer, area, 0, &title, Style::new());
    let heading = Style::new().add_modifier(Modifier::BOLD);
    let headings = HEADINGS.map(str::to_owned);
    put(
        buffer,
        area,
        1,
        &line(area.width, "MAPPING", &headings),
        heading,
    );
    let foot = if live { FOOT_LINES } else { 0 };
    let room = usize::from(area.height.saturating_sub(HEAD_LINES + foot));
    if shown.is_empty() {
        put(buffer, area, HEAD_LINES, "no mappings", dim);
    }
    // The selected row stays in sight.
    let skip = (top.selected() + 1).saturating_sub(room.max(1));
    for (index, row) in shown.iter().enumerate().skip(skip).take(room) {
        let y = HEAD_LINES + (index - skip) as u16;
        let mut style = style_of(row);
        if live && index == top.selected() {
            style = style.add_modifier(Modifier::REVERSED);
        }
        let name = match &row.shard {
            None => row.mapping.clone(),
            Some(shard) => format!("  shard {shard}"),
        };
        put(
            buffer,
            area,
            y,
            &line(area.width, &name, &cells(row)),
            style,
        );
    }
    if live && area.height > HEAD_LINES + FOOT_LINES {
        let about = match (&top.trouble, shown.get(top.selected())) {
            (Some(trouble), _) => trouble.clone(),
            (None, Some(row)) => about(row),
            (None, None) => String::new(),
        };
        put(
            buffer,
            area,
            area.height - 2,
            &print::one_line(&about),
            Style::new(),
        );
        put(buffer, area, area.height - 1, KEYS, dim);
    }
}

/// What does not fit into the row.
fn about(row: &Row) -> String {
    let size = print::size(row.bytes_behind);
    match row.last_error.as_str() {
        "" => format!("circuit {}, {size} behind, no error", row.circuit),
        error => format!(
            "circuit {}, {size} behind, last error: {error}",
            row.circuit
        ),
    }
}

fn style_of(row: &Row) -> Style {
    match row.state.as_str() {
        _ if row.circuit == "open" => Style::new().fg(Color::Red),
        "paused" => Style::new().fg(Color::Red),
        "retrying" => Style::new().fg(Color::Yellow),
        "idle" | "disabled" => Style::new().add_modifier(Modifier::DIM),
        _ => Style::new(),
    }
}

fn cells(row: &Row) -> [String; 9] {
    let state = match row.circuit.as_str() {
        "open" if row.shard.is_none() => "open",
        "half_open" if row.shard.is_none() => "half open",
        _ => row.state.as_str(),
    };
    [
        state.to_owned(),
        rate(row.records_per_second),
        rate(row.invocations_per_second),
        rate(row.errors_per_second),
        rate(row.fuel_per_second),
        age(row.age_ms),
        short(row.behind as f64),
        short(row.parked as f64),
        trend(&row.history),
    ]
}

/// A line of the table: the name takes what the other columns leave.
fn line(width: u16, name: &str, cells: &[String; 9]) -> String {
    let others: u16 = WIDTHS.iter().map(|w| w + 1).sum();
    let name_width = usize::from(width.saturating_sub(others).max(MIN_NAME));
    let mut line = fit(name, name_width, true);
    for (index, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        line.push(' ');
        line += &fit(cell, usize::from(width), LEFT.contains(&index));
    }
    line
}

/// A text in exactly this width; cut with `…` where it is longer.
fn fit(text: &str, width: usize, left: bool) -> String {
    if text.chars().count() > width {
        let kept: String = text.chars().take(width.saturating_sub(1)).collect();
        return format!("{kept}…");
    }
    if left {
        format!("{text:<width$}")
    } else {
        format!("{text:>width$}")
    }
}

fn put(buffer: &mut Buffer, area: Rect, y: u16, text: &str, style: Style) {
    if y < area.height {
        buffer.set_stringn(area.x, area.y + y, text, usize::from(area.width), style);
    }
}

fn rate(value: f64) -> String {
    match value {
        v if v <= 0.0 => "0".to_owned(),
        v if v < 9.95 => format!("{v:.1}"),
        v => short(v),
    }
}

/// A number in at most five characters.
fn short(value: f64) -> String {
    for (unit, suffix) in [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")] {
        if value >= unit {
            let scaled = value / if suffix == "k" { 1e3 } else { unit };
            return match scaled {
                s if s < 9.95 => format!("{s:.1}{suffix}"),
                s => format!("{s:.0}{suffix}"),
            };
        }
    }
    format!("{value:.0}")
}

fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        _ if millis == 0 => "0".to_owned(),
        0 => format!("{millis}ms"),
        1..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The last rates as bars, the highest one full.
fn trend(history: &[f64]) -> String {
    let width = usize::from(WIDTHS[8]);
    let last = &history[history.len().saturating_sub(width)..];
    let most = last.iter().copied().fold(0.0, f64::max);
    let bar = |rate: &f64| {
        let level = if most > 0.0 { rate / most * 7.0 } else { 0.0 };
        BARS[(level.round() as usize).min(7)]
    };
    last.iter().map(bar).collect()
}
