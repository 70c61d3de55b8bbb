//! What people read: why a pattern is refused, what it probably means, why a record is dropped.

use super::*;

#[test]
fn a_refused_pattern_says_where_and_why() {
    let cases = [
        (
            "",
            "filter 1, line 1, column 1: the text ends where a value is expected",
        ),
        (
            "simple string",
            "filter 1, line 1, column 1: expected a value",
        ),
        (
            "{\"data\":\n  {\"ü\": 1,}}",
            "filter 1, line 2, column 11: expected a key in double quotes",
        ),
        (
            "{\"a\":[1]} x",
            "filter 1, line 1, column 11: text behind the end of the value",
        ),
        (
            "{'a':[1]}",
            "filter 1, line 1, column 2: expected a key in double quotes",
        ),
        ("null", "filter 1, at its top: Filter is not an object"),
        ("[1]", "filter 1, at its top: Filter is not an object"),
        ("{}", "filter 1, at its top: Empty objects are not allowed"),
        (
            r#"{"data":{"a":{}}}"#,
            "filter 1, data.a: Empty objects are not allowed",
        ),
        (
            r#"{"data":{"a":"x"}}"#,
            "filter 1, data.a: \"a\" must be an object or an array: rules are a list, [\"value\"]",
        ),
        (
            r#"{"data":{"a":[]}}"#,
            "filter 1, data.a: Empty arrays are not allowed",
        ),
        (
            r#"{"data":["x"]}"#,
            "filter 1, data: \"data\" must be an object: rules are about fields of a JSON payload",
        ),
        (
            r#"{"data":{"a":[[1]]}}"#,
            "filter 1, data.a: Match value must be String, number, true, false, or null",
        ),
        (
            r#"{"data":{"a":[{"EXISTS":true}]}}"#,
            "filter 1, data.a: Unrecognized match type EXISTS: \"exists\" is meant?",
        ),
        (
            r#"{"data":{"a":[{"matches":"x"}]}}"#,
            "filter 1, data.a: Unrecognized match type matches; there are prefix, suffix, \
             equals-ignore-case, anything-but, numeric, exists, wildcard, cidr",
        ),
        (
            r#"{"data":{"a":[{}]}}"#,
            "filter 1, data.a: Match expression name not found",
        ),
        (
            r#"{"data":{"a":[{"prefix":"x","suffix":"y"}]}}"#,
            "filter 1, data.a: Only one key allowed in match expression, and here are \"prefix\" and \"suffix\"",
        ),
        (
            r#"{"data":{"a":[{"prefix":1}]}}"#,
            "filter 1, data.a: prefix match pattern must be a string",
        ),
        (
            r#"{"data":{"a":[{"exists":1}]}}"#,
            "filter 1, data.a: exists match pattern must be either true or false.",
        ),
        (
            r#"{"data":{"a":[{"numeric":10}]}}"#,
            "filter 1, data.a: Value of numeric must be an array.",
        ),
        (
            r#"{"data":{"a":[{"numeric":[]}]}}"#,
            "filter 1, data.a: Invalid member in numeric match: an operator comes first",
        ),
        (
            r#"{"data":{"a":[{"numeric":[">"]}]}}"#,
            "filter 1, data.a: Value of > must be numeric",
        ),
        (
            r#"{"data":{"a":[{"numeric":["=","1"]}]}}"#,
            "filter 1, data.a: Value of equals must be numeric",
        ),
        (
            r#"{"data":{"a":[{"numeric":["!=",1]}]}}"#,
            "filter 1, data.a: Unrecognized numeric range operator: !=",
        ),
        (
            r#"{"data":{"a":[{"numeric":[">",0,">",0]}]}}"#,
            "filter 1, data.a: Bad numeric range operator: >",
        ),
        (
            r#"{"data":{"a":[{"numeric":["<",0,">",-1]}]}}"#,
            "filter 1, data.a: Too many elements in numeric expression: nothing follows the value of <",
        ),
        (
            r#"{"data":{"a":[{"numeric":[">",5,"<",5]}]}}"#,
            "filter 1, data.a: Bottom must be less than top",
        ),
        (
            r#"{"data":{"a":[{"numeric":[">",5,"<",6,"<",7]}]}}"#,
            "filter 1, data.a: Too many terms in numeric range expression",
        ),
        (
            r#"{"data":{"a":[{"anything-but":[null]}]}}"#,
            "filter 1, data.a: Inside anything but list, start|null|boolean is not supported.",
        ),
        (
            r#"{"data":{"a":[{"anything-but":[1,"x"]}]}}"#,
            "filter 1, data.a: Inside anything but list, either all values are number or string, mixed type is not supported",
        ),
        (
            r#"{"data":{"a":[{"anything-but":true}]}}"#,
            "filter 1, data.a: Value of anything-but must be an array or single string/number value.",
        ),
        (
            r#"{"data":{"a":[{"anything-but":{"numeric":["=",1]}}]}}"#,
            "filter 1, data.a: Unsupported anything-but pattern: numeric",
        ),
        (
            r#"{"data":{"a":[{"anything-but":{"prefix":""}}]}}"#,
            "filter 1, data.a: Null prefix/suffix not allowed: prefix of anything-but is \"\"",
        ),
        (
            r#"{"data":{"a":[{"wildcard":"a**"}]}}"#,
            "filter 1, data.a: consecutive wildcard characters at position 1",
        ),
        (
            r#"{"data":{"a":[{"cidr":"10.0.0.0"}]}}"#,
            "filter 1, data.a: malformed CIDR \"10.0.0.0\", one '/' required",
        ),
        (
            r#"{"data":{"$or":{"a":[1]}}}"#,
            "filter 1, data.$or: It must be an Array followed with $or.",
        ),
        (
            r#"{"data":{"$or":[{"a":[1]}]}}"#,
            "filter 1, data.$or: There must have at least 2 Objects in $or relationship.",
        ),
        (
            r#"{"$or":[{"a":[1]},7]}"#,
            "filter 1, $or: Only JSON object is allowed in array of $or relationship.",
        ),
    ];
    for (pattern, wanted) in cases {
        let error = FilterCriteria::compile(&[pattern]).expect_err(pattern);
        assert_eq!(error.to_string(), wanted, "{pattern}");
        assert_eq!(error.aws_message(), "Invalid filter pattern definition.");
    }
}

#[test]
fn the_limits_are_kept() {
    let good = r#"{"partitionKey":["k"]}"#;
    assert!(FilterCriteria::compile(&[good; 10]).is_ok());
    let error = FilterCriteria::compile(&[good; 11]).unwrap_err();
    assert_eq!(error, BadFilter::TooMany { count: 11 });
    let padded = |chars: usize| format!("{good}{}", " ".repeat(chars - good.len()));
    assert!(FilterCriteria::compile(&[padded(4096)]).is_ok());
    let error = FilterCriteria::compile(&[good, &padded(4097)]).unwrap_err();
    let wanted = BadFilter::TooLong {
        index: 1,
        chars: 4097,
    };
    assert_eq!(error, wanted);
    let nested = format!("{{\"data\":{}", "{\"a\":".repeat(200));
    let error = FilterCriteria::compile(&[nested]).unwrap_err().to_string();
    assert!(
        error.ends_with("more than 128 arrays and objects within each other"),
        "{error}"
    );
    // Eleven `$or`s of two are 2,048 ways.
    let ors = r#"{"$or":[{"a":[1]},{"b":[1]}]}"#;
    let members: Vec<_> = (0..11).map(|n| format!("\"k{n}\":{ors}")).collect();
    let error = FilterCriteria::compile(&[format!("{{{}}}", members.join(","))]).unwrap_err();
    let wanted = "filter 1, k9.$or: the $or relationships make more than 1000 combinations";
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn a_key_that_no_record_has_is_warned_of() {
    let cases = [
        (
            r#"{"kinesis":{"data":{"a":[1]}}}"#,
            "`data` at the top is meant, without `kinesis`",
        ),
        (
            r#"{"kinesis.data.a":[1]}"#,
            "`data` at the top is meant, without `kinesis`",
        ),
        (
            r#"{"kinesis":{"partitionKey":["k"]}}"#,
            "its keys stand at the top",
        ),
        (r#"{"Data":{"a":[1]}}"#, "`data` is meant?"),
        (r#"{"partitionkey":["k"]}"#, "`partitionKey` is meant?"),
        (r#"{"body":{"a":[1]}}"#, "`data` is meant?"),
        (r#"{"eventSource":["aws:kinesis"]}"#, "the event around it"),
        (r#"{"status":["ERROR"]}"#, "`data.status` is meant"),
        (
            r#"{"$or":[{"status":["E"]},{"data":{"a":[1]}}]}"#,
            "`data.status` is meant",
        ),
        (
            r#"{"partitionKey":{"a":["k"]}}"#,
            "`partitionKey` is a single value",
        ),
    ];
    for (pattern, wanted) in cases {
        let warnings = compile(pattern).lint();
        assert_eq!(warnings.len(), 1, "{pattern}: {warnings:?}");
        let text = warnings[0].to_string();
        assert!(
            text.starts_with("filter 1, ") && text.contains(wanted),
            "{pattern}: {text}"
        );
    }
    let good = r#"{"data":{"a":[1]},"data.b":[1],"partitionKey":["k"],"sequenceNumber":["1"],
        "approximateArrivalTimestamp":[1],"kinesisSchemaVersion":["1.0"]}"#;
    assert_eq!(compile(good).lint(), []);
}

#[test]
fn a_dropped_record_is_explained_field_by_field() {
    // Pattern, payload, path, found, part of the reason.
    let cases: [(&str, &str, &str, &[&str], &str); 16] = [
        (
            r#"{"data":{"a":["x"]}}"#,
            r#"{"b":1}"#,
            "data.a",
            &[],
            "no such field",
        ),
        (
            r#"{"data":{"a":["x"]}}"#,
            r#"{"a":{"b":1}}"#,
            "data.a",
            &[],
            "it is an object",
        ),
        (
            r#"{"data":{"a":["x"]}}"#,
            r#"{"a":[]}"#,
            "data.a",
            &[],
            "an empty array",
        ),
        (
            r#"{"data":{"a":["x"]}}"#,
            r#"{"a":[1,2,3,4,5]}"#,
            "data.a",
            &["1", "2", "3"],
            "it is a number, and the rules are for a string; 2 more values do not match either",
        ),
        (
            r#"{"data":{"a":["ERROR"]}}"#,
            r#"{"a":"error"}"#,
            "data.a",
            &["\"error\""],
            "case differ",
        ),
        (
            r#"{"data":{"a":[{"prefix":"US-"}]}}"#,
            r#"{"a":"us-1"}"#,
            "data.a",
            &["\"us-1\""],
            "case differ",
        ),
        (
            r#"{"data":{"a":[1]}}"#,
            r#"{"a":2}"#,
            "data.a",
            &["2"],
            "no rule holds",
        ),
        (
            r#"{"data":{"a":[1]}}"#,
            r#"{"a":"1"}"#,
            "data.a",
            &["\"1\""],
            "it is a string, and the rules are for a number",
        ),
        (
            r#"{"data":{"a":[{"exists":false}]}}"#,
            r#"{"a":null}"#,
            "data.a",
            &["null"],
            "the field is there",
        ),
        (
            r#"{"data":{"a":[{"anything-but":["x"]}]}}"#,
            r#"{"a":"x"}"#,
            "data.a",
            &["\"x\""],
            "no rule holds",
        ),
        (
            r#"{"partitionKey":["cold"],"data":{"a":[1]}}"#,
            r#"{"a":1}"#,
            "partitionKey",
            &["\"hot\""],
            "no rule holds",
        ),
        (
            r#"{"partitionKey":["cold"],"data":{"a":[1]}}"#,
            "no JSON",
            "partitionKey",
            &["\"hot\""],
            "no rule holds",
        ),
        (
            r#"{"status":["x"]}"#,
            r#"{"status":"x"}"#,
            "status",
            &[],
            "the payload's are below `data`",
        ),
        (
            r#"{"data":{"$or":[{"a":[1],"b":[1]},{"c":[1]}]}}"#,
            r#"{"a":2}"#,
            "data.c",
            &[],
            "no such field",
        ),
        (
            r#"{"data":{"i":{"id":["a"],"q":[2]}}}"#,
            r#"{"i":[{"id":"a","q":1},{"id":"b","q":2}]}"#,
            "data.i.id, data.i.q",
            &[],
            "not within one element",
        ),
        (
            r#"{"data":{"a":[1]}}"#,
            "{\"a\":1,\n oops}",
            "data",
            &["\"{\\\"a\\\":1,\\n oops}\""],
            "the payload is not JSON: expected a key in double quotes, line 2, column 2",
        ),
    ];
    for (pattern, data, path, found, reason) in cases {
        let block = block("hot", data.as_bytes());
        let record = block.iter().next().expect("a record");
        let explanations = compile(pattern).explain(&record);
        let [explanation] = &explanations[..] else {
            panic!("{pattern}: {explanations:?}");
        };
        let [mismatch] = &explanation.mismatches[..] else {
            panic!("{pattern}: {explanation:?}");
        };
        assert_eq!(mismatch.path, path, "{pattern} on {data}");
        assert_eq!(mismatch.found, found, "{pattern} on {data}");
        assert!(
            mismatch.reason.contains(reason),
            "{pattern}: {}",
            mismatch.reason
        );
    }
}

#[test]
fn every_filter_is_explained_with_its_own_verdict() {
    let criteria = FilterCriteria::compile(&[
        r#"{"data":{"a":[1],"b":["x"]}}"#,
        r#"{"partitionKey":["hot"]}"#,
        r#"{"data":{"c":[1]}}"#,
    ])
    .expect("criteria");
    let block = block("hot", b"\xff");
    let record = block.iter().next().expect("a record");
    let explanations = criteria.explain(&record);
    let verdicts: Vec<_> = explanations.iter().map(|e| (e.filter, e.verdict)).collect();
    let wanted = [
        (0, Verdict::NotJson),
        (1, Verdict::Match),
        (2, Verdict::NotJson),
    ];
    assert_eq!(verdicts, wanted);
    assert_eq!(
        explanations[0].mismatches[0].reason,
        "the payload is not JSON: byte 1 is not UTF-8"
    );
    assert_eq!(criteria.check(&record), Verdict::Match);
}
