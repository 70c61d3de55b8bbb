//! Every case of `tests/golden/lambda/filter-cases.json`, and cases beside them.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Case {
    name: String,
    pattern: Patterns,
    record: Record,
    /// None: the pattern is refused.
    matches: Option<bool>,
    why: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Patterns {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    partition_key: String,
    data: Option<String>,
    data_base64: Option<String>,
}

impl Record {
    fn bytes(&self) -> Vec<u8> {
        match (&self.data, &self.data_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(text)) => base64_simd::STANDARD.decode_to_vec(text).expect("Base64"),
            _ => panic!("a record has either data or dataBase64"),
        }
    }
}

#[test]
fn every_recorded_case_ends_as_recorded() {
    let text = include_str!("../../../../../../../tests/golden/lambda/filter-cases.json");
    let cases: Vec<Case> = serde_json::from_str(text).expect("the cases");
    assert!(cases.len() >= 112);
    for case in cases {
        let patterns = match case.pattern {
            Patterns::One(pattern) => vec![pattern],
            Patterns::Several(patterns) => patterns,
        };
        let compiled = FilterCriteria::compile(&patterns);
        let found = match &compiled {
            Ok(criteria) => {
                let verdict = check(criteria, &case.record.partition_key, &case.record.bytes());
                Some(verdict == Verdict::Match)
            }
            Err(error) => {
                assert_eq!(error.aws_message(), "Invalid filter pattern definition.");
                None
            }
        };
        let (name, why) = (case.name, case.why);
        assert_eq!(found, case.matches, "{name}: {why} {compiled:?}");
    }
}

use Verdict::{Match, NoMatch, NotJson};

#[test]
fn the_edges_are_as_documented() {
    let cases = [
        // A payload is JSON as a whole, whatever matched before its end.
        (r#"{"data":{"a":[1]}}"#, r#"{"a":1} x"#, NotJson),
        (r#"{"data":{"a":[1]}}"#, r#"{"a":1,}"#, NotJson),
        (r#"{"data":{"a":[1]}}"#, r#"{"a":1,"b":"\q"}"#, NotJson),
        (r#"{"data":{"a":[1]}}"#, "{\"a\":1,\"b\":\"\n\"}", NotJson),
        (r#"{"data":{"a":[1]}}"#, r#"{"a":1,"b":01}"#, NotJson),
        (r#"{"data":{"a":[1]}}"#, "\u{feff}{\"a\":1}", NotJson),
        (r#"{"data":{"a":[1]}}"#, " {\t\"a\"\r:\n1 } ", Match),
        (r#"{"data":{"a":[1]}}"#, r#"{"a":1,"b":1e999}"#, Match),
        // The last of two equal keys counts, however they are written.
        (r#"{"data":{"a":[1]}}"#, r#"{"a":1,"a":2}"#, NoMatch),
        (r#"{"data":{"a":[1]}}"#, r#"{"a":2,"\u0061":1}"#, Match),
        (
            r#"{"data":{"a":{"b":[1]}}}"#,
            r#"{"a":{"b":1},"a":{}}"#,
            NoMatch,
        ),
        (
            r#"{"data":{"a":[{"exists":false}]}}"#,
            r#"{"a":1,"a":{}}"#,
            Match,
        ),
        // Dots join keys on both sides.
        (r#"{"data.a":[1]}"#, r#"{"a":1}"#, Match),
        (r#"{"data":{"a.b":{"c":[1]}}}"#, r#"{"a":{"b.c":1}}"#, Match),
        (
            r#"{"data":{"a":{"b":[2]}}}"#,
            r#"{"a.b":1,"a":{"b":2}}"#,
            Match,
        ),
        (
            r#"{"data":{"a":{"b":[1]}}}"#,
            r#"{"a.b":1,"a":{"b":2}}"#,
            Match,
        ),
        (
            r#"{"data":{"a":{"b":[3]}}}"#,
            r#"{"a.b":1,"a":{"b":2}}"#,
            NoMatch,
        ),
        (r#"{"data":{"":[1]}}"#, r#"{"":1}"#, Match),
        (r#"{"data":{"a":{"":[1]}}}"#, r#"{"a.":1}"#, Match),
        // Leaves alone exist.
        (
            r#"{"data":{"a":[{"exists":false}]}}"#,
            r#"{"a":{"b":1}}"#,
            Match,
        ),
        (r#"{"data":{"a":[{"exists":false}]}}"#, r#"{"a":[]}"#, Match),
        (
            r#"{"data":{"a":[{"exists":true}]}}"#,
            r#"{"a":[[],[null]]}"#,
            Match,
        ),
        (
            r#"{"data":{"a":[{"exists":false},1]}}"#,
            r#"{"a":1}"#,
            Match,
        ),
        (
            r#"{"data":{"a":[{"exists":false},1]}}"#,
            r#"{"a":2}"#,
            NoMatch,
        ),
        // A field that is there in any element is there.
        (
            r#"{"data":{"i":{"id":["a"],"q":[{"exists":false}]}}}"#,
            r#"{"i":[{"id":"a"},{"id":"b","q":1}]}"#,
            NoMatch,
        ),
        // Values in an array match apart; what is deeper belongs together.
        (
            r#"{"data":{"a":["x"],"a.b":[1]}}"#,
            r#"{"a":["x",{"b":1}]}"#,
            Match,
        ),
        (
            r#"{"data":{"a":{"b":[1],"c":{"d":[2]}}}}"#,
            r#"{"a":[{"b":1,"c":[{"d":3}]},{"b":1,"c":[{"d":3},{"d":2}]}]}"#,
            Match,
        ),
        (
            r#"{"data":{"a":{"b":[1],"c":{"d":[2]}}}}"#,
            r#"{"a":[{"b":1,"c":[{"d":3}]},{"b":4,"c":[{"d":3},{"d":2}]}]}"#,
            NoMatch,
        ),
        (
            r#"{"data":{"a":{"b":[1],"c":[2],"d":[3]}}}"#,
            r#"{"a":[{"b":1,"c":2},{"b":1,"c":2,"d":3},{"c":2,"d":3}]}"#,
            Match,
        ),
        // $or is one of its objects, and what stands beside it.
        (
            r#"{"data":{"$or":[{"a":[1]},{"b":[1],"$or":[{"c":[1]},{"d":[1]}]}]}}"#,
            r#"{"b":1,"d":1}"#,
            Match,
        ),
        (
            r#"{"data":{"$or":[{"a":[1]},{"b":[1],"$or":[{"c":[1]},{"d":[1]}]}]}}"#,
            r#"{"b":1}"#,
            NoMatch,
        ),
        // A path that is named again has the later rules.
        (
            r#"{"data":{"a":["x"],"$or":[{"a":["y"]},{"b":[1]}]}}"#,
            r#"{"a":"y"}"#,
            Match,
        ),
        (
            r#"{"data":{"a":{"b":[1]},"a.b":[2]}}"#,
            r#"{"a":{"b":2}}"#,
            Match,
        ),
        // Strings are compared as they read.
        (
            r#"{"data":{"a":["\u00fc\ud83d\ude00"]}}"#,
            r#"{"a":"ü😀"}"#,
            Match,
        ),
        (
            r#"{"data":{"a":["ü😀"]}}"#,
            r#"{"a":"\u00FC\uD83D\uDE00"}"#,
            Match,
        ),
        (r#"{"data":{"a/b":["c/d"]}}"#, r#"{"a\/b":"c\/d"}"#, Match),
        (
            r#"{"data":{"a":[{"equals-ignore-case":"ÄÖ"}]}}"#,
            r#"{"a":"äÖ"}"#,
            Match,
        ),
        (
            r#"{"data":{"a":[{"prefix":"x\n"}]}}"#,
            r#"{"a":"x\ny"}"#,
            Match,
        ),
        // Numbers are compared by value, exactly.
        (
            r#"{"data":{"a":[9007199254740993]}}"#,
            r#"{"a":9007199254740992}"#,
            NoMatch,
        ),
        (r#"{"data":{"a":[-0]}}"#, r#"{"a":0.0}"#, Match),
        (
            r#"{"data":{"a":[{"numeric":["<",1]}]}}"#,
            r#"{"a":-1e400}"#,
            Match,
        ),
        (
            r#"{"data":{"a":[{"numeric":[">=",1,"<",2]}]}}"#,
            r#"{"a":1}"#,
            Match,
        ),
        (
            r#"{"data":{"a":[{"numeric":[">=",1,"<",2]}]}}"#,
            r#"{"a":2}"#,
            NoMatch,
        ),
        (
            r#"{"data":{"t":[{"numeric":[">",1700000000000]}]}}"#,
            r#"{"t":1700000000001}"#,
            Match,
        ),
        (
            r#"{"data":{"a":[{"anything-but":[5]}]}}"#,
            r#"{"a":5.0}"#,
            NoMatch,
        ),
        // anything-but is true of any other value, of whatever kind.
        (
            r#"{"data":{"a":[{"anything-but":[5]}]}}"#,
            r#"{"a":"5"}"#,
            Match,
        ),
        (
            r#"{"data":{"a":[{"anything-but":{"suffix":".png"}}]}}"#,
            r#"{"a":"x.png"}"#,
            NoMatch,
        ),
        (
            r#"{"data":{"a":[{"anything-but":{"suffix":".png"}}]}}"#,
            r#"{"a":7}"#,
            Match,
        ),
        (
            r#"{"data":{"a":[{"anything-but":{"equals-ignore-case":["x","y"]}}]}}"#,
            r#"{"a":"Y"}"#,
            NoMatch,
        ),
        (
            r#"{"data":{"a":[{"anything-but":{"wildcard":"*/lib/*"}}]}}"#,
            r#"{"a":"/lib/x"}"#,
            NoMatch,
        ),
        (
            r#"{"data":{"a":[{"anything-but":{"wildcard":"*/lib/*"}}]}}"#,
            r#"{"a":"/bin/x"}"#,
            Match,
        ),
        (
            r#"{"data":{"a":[{"cidr":"2001:db8::/32"}]}}"#,
            r#"{"a":"2001:db8::7"}"#,
            Match,
        ),
        (
            r#"{"data":{"a":[{"cidr":"2001:db8::/32"}]}}"#,
            r#"{"a":"10.0.0.1"}"#,
            NoMatch,
        ),
        // Metadata, beside the payload and without it.
        (r#"{"kinesisSchemaVersion":["1.0"]}"#, "no JSON", Match),
        (r#"{"sequenceNumber":[{"prefix":"49"}]}"#, "no JSON", Match),
        (
            r#"{"approximateArrivalTimestamp":[{"numeric":["=",1545084650.987]}]}"#,
            "no JSON",
            Match,
        ),
        (r#"{"partitionKey":[{"exists":true}]}"#, "no JSON", Match),
        (r#"{"partitionKey":[{"exists":false}]}"#, "no JSON", NoMatch),
        (r#"{"unknown":[{"exists":false}]}"#, "no JSON", Match),
        (r#"{"unknown":[{"exists":true}]}"#, "no JSON", NoMatch),
        (
            r#"{"partitionKey":["cold"],"data":{"a":[1]}}"#,
            "no JSON",
            NoMatch,
        ),
        (
            r#"{"partitionKey":["hot"],"data":{"a":[1]}}"#,
            "no JSON",
            NotJson,
        ),
        (
            r#"{"$or":[{"partitionKey":["hot"]},{"data":{"a":[1]}}]}"#,
            "no JSON",
            NotJson,
        ),
        (
            r#"{"$or":[{"partitionKey":["hot"]},{"data":{"a":[1]}}]}"#,
            "7",
            Match,
        ),
    ];
    for (pattern, data, wanted) in cases {
        let found = check(&compile(pattern), "hot", data.as_bytes());
        assert_eq!(found, wanted, "{pattern} on {data}");
    }
}

#[test]
fn nesting_is_followed_to_128_levels() {
    let criteria = compile(r#"{"data":{"a":[1]}}"#);
    for (around, depth, wanted) in [("[", 127, Match), ("[", 128, NotJson), ("", 126, Match)] {
        let close = |open: &str| open.replace('[', "]");
        let outer = around.repeat(depth);
        let data = format!("{outer}{{\"a\":1}}{}", close(&outer));
        let found = check(&criteria, "k", data.as_bytes());
        assert_eq!(found, wanted, "{depth} times {around}");
    }
    let skipped = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        check(
            &criteria,
            "k",
            format!("{{\"a\":1,\"b\":{open}{close}}}").as_bytes(),
        )
    };
    assert_eq!((skipped(127), skipped(128)), (Match, NotJson));
    assert_eq!(skipped(1_000_000), NotJson);
}

#[test]
fn criteria_are_equal_by_their_texts() {
    let (one, other) = (r#"{"data":{"a":[1]}}"#, r#"{"data": {"a": [1]}}"#);
    assert_eq!(compile(one), compile(one).clone());
    assert_ne!(compile(one), compile(other));
    assert_eq!(
        format!("{:?}", compile(one)),
        r#"FilterCriteria(["{\"data\":{\"a\":[1]}}"])"#
    );
    assert!(FilterCriteria::default().is_empty());
    let none: [&str; 0] = [];
    assert_eq!(
        FilterCriteria::compile(&none),
        Ok(FilterCriteria::default())
    );
}
