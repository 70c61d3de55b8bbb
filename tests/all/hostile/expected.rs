//! What must come of an attack: a line of text, in which `*` stands for what differs from run to
//! run.

/// Whether `text` is what `pattern` says.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(part) = last.replace(part) {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |part| rest.ends_with(part))
}

/// What was wrong with the outcomes of a part of the corpus: all of it, not only the first.
#[derive(Default)]
pub(super) struct Complaints(Vec<String>);

impl Complaints {
    /// Holds an outcome against what must come of the attack.
    pub(super) fn expect(&mut self, attack: &str, expected: &str, outcome: &str) {
        if !fits(expected, outcome) {
            let told = format!("{attack}\n  expected: {expected}\n  outcome:  {outcome}");
            self.0.push(told);
        }
    }

    /// Ends the test when there were any.
    pub(super) fn end(parts: Vec<Self>) {
        let all: Vec<String> = parts.into_iter().flat_map(|part| part.0).collect();
        assert!(all.is_empty(), "{}", all.join("\n"));
    }
}

#[test]
fn a_star_stands_for_anything_and_nothing_else_does() {
    for (pattern, text, want) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a*", "ab", true),
        ("*b", "ab", true),
        ("a*c", "abc", true),
        ("a*c", "ac", true),
        ("a*c*e", "abcde", true),
        ("a*c*e", "abde", false),
        ("a*a", "a", false),
        ("", "", true),
        ("", "a", false),
    ] {
        assert_eq!(fits(pattern, text), want, "{pattern} {text}");
    }
}
