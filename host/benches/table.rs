//! The report as Markdown that also reads well in a terminal: the machine, then the rows.

use crate::bench::Report;
use crate::row::Row;

const HEAD: [&str; 7] = ["", "median", "range", "limit", "ratio", "goal", ""];

/// The whole report.
pub(crate) fn render(report: &Report) -> String {
    let mut out = String::new();
    for (name, fact) in report.machine.facts() {
        out += &format!("- {name}: {fact}\n");
    }
    if report.quick {
        out += "- short turns (`--quick`): figures to look at, not to quote\n";
    }
    let rows: Vec<[String; 7]> = report.rows.iter().map(cells).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEAD[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |cells: [&str; 7]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: [String; 7] = std::array::from_fn(|column| "-".repeat(widths[column].max(3)));
    out += "\n";
    out += &line(HEAD);
    out += &line(rule.each_ref().map(String::as_str));
    for row in &rows {
        out += &line(row.each_ref().map(String::as_str));
    }
    out
}

fn cells(row: &Row) -> [String; 7] {
    let limit = row.limit.as_ref().map(|limit| {
        let range = limit.figure.range();
        let range = if range.is_empty() {
            range
        } else {
            format!(" ({range})")
        };
        format!("{}: {}{range}", limit.what, limit.figure)
    });
    let ratio = row.ratio.map(|ratio| match ratio.range() {
        range if range.is_empty() => ratio.to_string(),
        range => format!("{ratio} ({range})"),
    });
    [
        format!("{}: {}", row.group, row.name),
        row.measured.to_string(),
        row.measured.range(),
        limit.unwrap_or_default(),
        ratio.unwrap_or_default(),
        row.goal_text(),
        row.verdict().to_owned(),
    ]
}
