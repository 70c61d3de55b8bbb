//! The table against golden text, and what keys do to it.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::draw::{draw, lines, text};
use super::model::{Command, Order, Top};

fn shard(number: u32, age: u64, behind: u64, processed: u64) -> Value {
    json!({
        "shard": format!("shardId-{number:012}"),
        "state": if behind > 0 { "retrying" } else { "idle" },
        "iterator_age_ms": age, "records_behind": behind, "bytes_behind": behind * 100,
        "processed": processed, "invocations": processed / 10, "errors": behind / 100,
        "fuel": processed * 30_000, "parked": 0, "paused": null,
        "last_error": if behind > 0 { json!({"at": 1, "message": "trap: unreachable"}) }
            else { Value::Null },
    })
}

fn answer(second: u64) -> Value {
    let done = second * 500;
    json!({ "mappings": [
        {
            "name": "clicks", "state": "Enabled", "circuit": "closed", "parked_records": 3,
            "processed": done * 2, "invocations": done / 5, "errors": 0, "fuel": done * 60_000,
            "shards": [shard(0, 0, 0, done), shard(1, 90_000, 12_345, done)],
        },
        {
            "name": "a-mapping-with-a-long-name", "state": "Paused", "circuit": "open",
            "parked_records": 0, "processed": 7, "invocations": 1, "errors": 1, "fuel": 9,
            "shards": [shard(12, 7_200_000, 5, 7)],
        },
    ]})
}

fn after(seconds: u64) -> Top {
    let mut top = Top::new("http://127.0.0.1:4566");
    for second in 0..=seconds {
        // More in later seconds.
        top.update(&answer(second * second), 1_000_000 + second * 1000);
    }
    top
}

#[test]
fn the_table_is_drawn_at_eighty_columns() {
    let mut top = after(4);
    assert!(top.obey(Command::Down) && top.obey(Command::Expand));
    let mut terminal = Terminal::new(TestBackend::new(80, 10)).unwrap();
    terminal.draw(|frame| draw(frame, &top)).unwrap();
    let drawn = lines(terminal.backend().buffer());
    let want = "\
http://127.0.0.1:4566  2 mappings  by age
MAPPING      STATE      REC/S  INV/S  ERR/S FUEL/S    AGE BEHIND PARKED TREND
a-mapping-w… open           0      0      0      0     2h      5      0 ▁▁▁▁
clicks       enabled     7000    700      0   210M    90s    12k      3 ▂▄▆█
  shard 1    retrying    3500    350      0   105M    90s    12k      0 ▂▄▆█
  shard 0    idle        3500    350      0   105M      0      0      0 ▂▄▆█


circuit closed, 1205 KiB behind, last error: trap: unreachable
q quit  ↑↓ ⏎ shards  p pause  sort: a age b behind r rec e err f fuel n name";
    let drawn: Vec<&str> = drawn.iter().map(|line| line.trim_end()).collect();
    assert_eq!(drawn.join("\n"), want, "\n{}", drawn.join("\n"));
    assert!(drawn.iter().all(|line| line.chars().count() <= 80));
}

#[test]
fn text_has_every_row_and_no_keys() {
    let mut top = after(1);
    top.expand_all();
    let text = text(&top, 80);
    assert_eq!(text.lines().count(), 2 + 2 + 3, "{text}");
    assert!(!text.contains("q quit"), "{text}");
    assert_eq!(
        super::draw::text(&Top::new("e"), 80).lines().last(),
        Some("no mappings")
    );
}

#[test]
fn small_screens_show_what_fits_and_keep_the_selected_row() {
    let mut top = after(1);
    top.expand_all();
    for (width, height) in [(1, 1), (20, 2), (40, 4), (80, 5), (200, 50)] {
        for _ in 0..10 {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &top)).unwrap();
            if height == 5 && top.selected() == 4 {
                let drawn = lines(terminal.backend().buffer()).join("\n");
                assert!(drawn.contains("shard 0"), "{drawn}");
            }
            assert!(top.obey(Command::Down));
        }
    }
}

#[test]
fn rows_are_sorted_and_the_selected_one_stays_selected() {
    let mut top = after(2);
    let names =
        |top: &Top| -> Vec<String> { top.shown().iter().map(|r| r.mapping.clone()).collect() };
    assert_eq!(
        names(&top),
        ["a-mapping-with-a-long-name", "clicks"],
        "by age"
    );
    assert!(top.obey(Command::Down));
    assert_eq!(top.selected(), 1);
    for (order, first) in [
        (Order::Behind, "clicks"),
        (Order::Records, "clicks"),
        (Order::Fuel, "clicks"),
        (Order::Name, "a-mapping-with-a-long-name"),
    ] {
        assert!(top.obey(Command::Sort(order)));
        assert_eq!(names(&top)[0], first, "{order:?}");
        assert_eq!(names(&top)[top.selected()], "clicks", "{order:?}");
    }
    assert!(top.obey(Command::Pause) && top.paused);
    assert!(!top.obey(Command::Quit));
}

#[test]
fn rates_begin_anew_with_the_host() {
    let mut top = after(3);
    top.update(&answer(0), 2_000_000);
    assert!(top.shown().iter().all(|r| r.records_per_second == 0.0));
    top.update(&json!({ "mappings": [] }), 2_001_000);
    assert!(top.shown().is_empty());
    assert!(top.obey(Command::Expand) && top.obey(Command::Down));
}

#[test]
fn a_table_that_is_not_refreshed_says_how_old_it_is() {
    let mut top = after(1);
    let title = |top: &Top| text(top, 80).lines().next().unwrap().to_owned();
    assert!(!top.tick(1_001_000 + 2_999), "one refresh may be late");
    assert!(!title(&top).contains("old"));
    assert!(top.tick(1_001_000 + 3_500));
    assert!(!top.tick(1_001_000 + 3_900), "in whole seconds");
    assert!(title(&top).ends_with("  3 s old"), "{}", title(&top));
    top.update(&answer(2), 1_010_000);
    assert!(!title(&top).contains("old"));
}

#[test]
fn names_and_errors_do_not_command_the_terminal() {
    let mut top = Top::new("");
    let answer = json!({ "mappings": [{ "name": "a\u{1b}[2Jb", "shards": [] }] });
    top.update(&answer, 1);
    assert!(text(&top, 80).contains("a\\u{1b}[2"), "{}", text(&top, 80));
}
