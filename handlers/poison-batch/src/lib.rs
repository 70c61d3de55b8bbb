//! The commands of `poison`, in batch mode.
//!
//! Each record is named to the host before its command runs. A batch that holds the data `blind`
//! names none: it shows what happens without a hint (`blind` itself does nothing, and without a
//! current record there is no keyed state).

#[path = "../../poison/src/command.rs"]
mod command;

use shardmill_guest::{Batch, BatchResponse, Context, Error};

use crate::command::Verdict;

shardmill_guest::handler!(batch: on_batch);

const BLIND: &[u8] = b"blind";

/// The handler.
pub fn on_batch(batch: &Batch, ctx: &mut Context) -> Result<BatchResponse, Error> {
    let blind = batch.iter().any(|record| record.data() == BLIND);
    let mut failed = Vec::new();
    for record in batch.iter().filter(|record| record.data() != BLIND) {
        if !blind {
            ctx.current(record.index());
        }
        match command::run(record.text()?, record.partition_key(), ctx)? {
            Verdict::Done => {}
            Verdict::Failed => failed.push(record.index()),
        }
    }
    Ok(BatchResponse::failed(failed))
}

#[cfg(test)]
mod tests {
    use shardmill_guest::testing::{Outcome, record, run_batch};

    use super::*;

    fn run(commands: &[&str]) -> Outcome {
        let records: Vec<_> = commands
            .iter()
            .map(|command| record("k", *command))
            .collect();
        run_batch(on_batch, &records)
    }

    #[test]
    fn a_partial_response_keeps_what_was_done_below_its_lowest_index() {
        let outcome = run(&["ok", "fail", "ok", "fail"]);
        assert_eq!((outcome.failed_at, outcome.error), (Some(1), None));
        assert_eq!(outcome.counters["done"], 1);

        let outcome = run(&["ok", "error", "ok"]);
        assert_eq!(outcome.failed_at, Some(0));
        assert!(outcome.counters.is_empty());
        assert_eq!(run(&["ok", "state s"]).failed_at, None);
    }

    #[test]
    fn a_blind_batch_has_no_current_record() {
        let outcome = run(&["ok", "blind", "ok"]);
        assert_eq!((outcome.failed_at, outcome.counters["done"]), (None, 2));
        let error = run(&["blind", "state s"]).error.expect("no current record");
        assert_eq!(error.error_type(), "HostCallRefused");
        // A part of the batch would be kept, and nobody knows which effects belong to it.
        let error = run(&["blind", "ok", "fail"])
            .error
            .expect("effects without a record");
        assert_eq!(error.error_type(), "UntaggedEffect");
    }
}
