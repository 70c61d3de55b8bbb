//! Gives back the event it is given. It shows the smallest event-mode handler: JSON in, JSON out,
//! as with AWS Lambda.

use serde_json::Value;
use shardmill_guest::{Context, Error};

shardmill_guest::handler!(event: on_event);

/// The handler.
pub fn on_event(event: Value, _ctx: &mut Context) -> Result<Value, Error> {
    Ok(event)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shardmill_guest::testing;

    use super::*;

    #[test]
    fn an_event_comes_back_as_it_was() {
        let event = json!({"text": "żółw", "list": [1, 2.5, null], "nested": {"yes": true}});
        let outcome = testing::run_event(on_event, &event);
        assert_eq!(outcome.response, Some(event));
    }
}
