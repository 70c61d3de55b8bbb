//! What a record may cost, whoever wrote it and the filter.

use super::*;

fn verdict(criteria: &FilterCriteria, data: &str) -> Verdict {
    let block = block("k", data.as_bytes());
    criteria.check(&block.iter().next().expect("a record"))
}

/// A filter about the field `v`, with as many rules as fit.
fn wide(rule: impl Fn(usize) -> String) -> String {
    let mut rules = rule(0);
    for number in 1.. {
        let next = rule(number);
        if rules.len() + next.len() > MAX_PATTERN_CHARS - 40 {
            break;
        }
        rules += ",";
        rules += &next;
    }
    format!("{{\"data\":{{\"v\":[{rules}]}}}}")
}

fn list(count: usize, item: &str) -> String {
    vec![item; count].join(",")
}

#[test]
fn rules_look_at_a_value_once_however_many_arrays_are_around_it() {
    // Every array asked again what is below it, so that a value below 100 of them was judged 100
    // times.
    let criteria = compile(&wide(|n| format!("{{\"prefix\":\"{n}\"}}")));
    let (open, close) = ("[".repeat(100), "]".repeat(100));
    let data = format!("{{\"v\":0,\"v\":{open}{}{close}}}", list(5_000, "\"x\""));
    assert_eq!(verdict(&criteria, &data), Verdict::NoMatch);
}

#[test]
fn a_record_that_takes_too_many_steps_is_given_up_and_says_so() {
    let each_value = wide(|n| format!("{{\"prefix\":\"{n}\"}}"));
    let each_byte = wide(|n| format!("{{\"wildcard\":\"*{n}*\"}}"));
    // 512 ways, each of which has to visit every element.
    let choice = "\"$or\":[{\"a\":[1]},{\"a\":[1]}]";
    let ways = (0..8).fold(format!("{{{choice},\"b\":[1]}}"), |inner, _| {
        format!("{{{choice},\"n\":{inner}}}")
    });
    let each_element = format!("{{\"data\":{{\"v\":{ways}}}}}");
    let apart = "{\"a\":1,\"n\":{\"a\":1,\"n\":{\"a\":1}}},";
    let deep = |inner: &str| (0..8).fold(inner.to_owned(), |d, _| format!("{{\"n\":{d}}}"));
    let below = (0..8).fold("{\"a\":1}".to_owned(), |d, _| {
        format!("{{\"a\":1,\"n\":{d}}}")
    });
    for (name, pattern, data) in [
        (
            "each value",
            &each_value,
            format!("{{\"v\":[{}]}}", list(350_000, "\"\"")),
        ),
        (
            "each value of a tree",
            &each_value,
            format!("{{\"v\":1,\"v\":[{}]}}", list(30_000, "\"\"")),
        ),
        (
            "each byte",
            &each_byte,
            format!("{{\"v\":\"{}\"}}", "x".repeat(1_000_000)),
        ),
        (
            "each element",
            &each_element,
            format!(
                "{{\"v\":[{}{},{below}]}}",
                apart.repeat(9_000),
                deep("{\"b\":1}")
            ),
        ),
        (
            "each value that is kept",
            &each_element,
            format!("{{\"v\":1,\"v\":[{}]}}", list(300_000, "{}")),
        ),
    ] {
        let criteria = compile(pattern);
        assert_eq!(verdict(&criteria, &data), Verdict::TooCostly, "{name}");
        let block = block("k", data.as_bytes());
        let record = block.iter().next().expect("a record");
        let explained = criteria.explain(&record);
        assert_eq!(joined(&explained), Verdict::TooCostly, "{name}");
        let reason = &explained[0].mismatches[0].reason;
        assert!(reason.contains("more than 4194304 steps"), "{reason}");
    }
}

#[test]
fn steps_are_those_of_all_filters_together() {
    let pattern = wide(|n| format!("{{\"prefix\":\"{n}\"}}"));
    let data = format!("{{\"v\":[{}]}}", list(10_000, "\"x\""));
    assert_eq!(verdict(&compile(&pattern), &data), Verdict::NoMatch);
    let criteria = FilterCriteria::compile(&[&pattern; 10]).expect("criteria");
    assert_eq!(verdict(&criteria, &data), Verdict::TooCostly);
}

#[test]
fn a_list_of_values_to_be_equal_to_is_one_step() {
    let texts = wide(|n| format!("\"{n}\""));
    let numbers = wide(|n| n.to_string());
    let none_of = texts
        .replace("[", "[{\"anything-but\":[")
        .replace("]", "]}]");
    for (pattern, other, wanted) in [
        (&texts, "\"x\"", "\"7\""),
        (&numbers, "-1", "7.0"),
        (&none_of, "\"7\"", "\"x\""),
    ] {
        let criteria = compile(pattern);
        let values = list(100_000, other);
        let data = format!("{{\"v\":[{values}]}}");
        assert_eq!(verdict(&criteria, &data), Verdict::NoMatch, "{pattern}");
        let data = format!("{{\"v\":[{values},{wanted}]}}");
        assert_eq!(verdict(&criteria, &data), Verdict::Match, "{pattern}");
    }
}

#[test]
fn the_first_three_values_of_a_field_are_shown_and_the_others_counted() {
    let criteria = compile(r#"{"data":{"v":["y"]}}"#);
    let block = block(
        "k",
        format!("{{\"v\":[{}]}}", list(100, "\"x\"")).as_bytes(),
    );
    let explained = criteria.explain(&block.iter().next().expect("a record"));
    let mismatch = &explained[0].mismatches[0];
    assert_eq!(mismatch.found, ["\"x\"", "\"x\"", "\"x\""]);
    assert!(
        mismatch
            .reason
            .ends_with("; 97 more values do not match either")
    );
}
