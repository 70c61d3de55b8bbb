//! A handler: counts views, and keeps each visitor's last page.

use serde::Deserialize;
use shardmill_guest::{Context, Error, Record};

shardmill_guest::handler!(record: on_click);

#[derive(Deserialize)]
struct Click<'a> {
    page: &'a str,
}

/// Is called for each record; an error fails that record, and those before it are done.
pub fn on_click(record: &Record, ctx: &mut Context) -> Result<(), Error> {
    let click: Click = record.json()?;
    ctx.counter_add("views", 1);
    ctx.state().set("last_page", click.page)
}

#[cfg(test)]
mod tests {
    use shardmill_guest::testing::{self, record};

    use super::*;

    #[test]
    fn a_view_is_counted_and_the_page_is_kept() {
        let clicks = [
            record("ann", r#"{"page": "/"}"#),
            record("ann", r#"{"page": "/cart"}"#),
        ];
        let outcome = testing::run_record(on_click, &clicks);
        assert_eq!(outcome.counters["views"], 2);
        assert_eq!(outcome.state_text("ann", "last_page"), Some(r#""/cart""#));
    }
}
