//! Does what each record's data commands, failures of every kind included: the guest of the tests
//! on retries, bisecting and exactly-once effects. This is its record mode; `poison-batch` and
//! `poison-event` are the other two.

mod command;

use shardmill_guest::{Context, Error, Record};

use crate::command::Verdict;

shardmill_guest::handler!(record: on_record);

/// The handler. `fail` fails the record as `error` does.
pub fn on_record(record: &Record, ctx: &mut Context) -> Result<(), Error> {
    match command::run(record.text()?, record.partition_key(), ctx)? {
        Verdict::Done => Ok(()),
        Verdict::Failed => Err(Error::new("Failed", "the record says fail")),
    }
}

#[cfg(test)]
mod tests {
    use shardmill_guest::testing::{TestHost, record, run_record};

    use super::*;

    #[test]
    fn commands_leave_their_effects_and_failures_none() {
        let mut host = TestHost::default();
        let commands = [
            "ok",
            "count a",
            "state s",
            "state s",
            "emit out some data",
            "loop in",
        ];
        let records = commands.map(|command| record("k", command));
        let outcome = host.run_record(on_record, &records);
        assert_eq!((outcome.failed_at, outcome.error), (None, None));
        assert_eq!(outcome.counters["done"], 6);
        assert_eq!(outcome.counters["a"], 1);
        assert_eq!(host.state_text("k", "s"), Some("2"));
        let emitted = outcome
            .emitted
            .iter()
            .map(|one| (one.stream.as_str(), one.data.as_slice()));
        assert!(emitted.eq([("out", b"some data".as_slice()), ("in", b"loop in")]));

        for (command, error) in [
            ("error", "Commanded: the record says error"),
            ("fail", "Failed: the record says fail"),
            ("panic", "Panic: the record says panic"),
            ("dance", "UnknownCommand: dance"),
        ] {
            let outcome = run_record(
                on_record,
                &["ok", command, "ok"].map(|one| record("k", one)),
            );
            assert_eq!(outcome.failed_at, Some(1), "{command}");
            assert_eq!(outcome.counters["done"], 1, "{command}");
            assert_eq!(
                outcome.error.map(|error| error.to_string()).as_deref(),
                Some(error)
            );
        }
    }
}
