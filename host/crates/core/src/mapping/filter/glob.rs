//! Wildcards: `*` stands for any characters, none included; `\*` and `\\` for themselves.
//!
//! Rules: EventBridge user guide, "Matching using wildcards", and the engine's messages.

/// A text with wildcards.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    /// What stands before the first wildcard.
    start: Box<str>,
    /// What stands between wildcards and behind the last one; none if there is no wildcard.
    rest: Box<[Box<str>]>,
}

impl Glob {
    /// # Errors
    /// Why the text is not a wildcard expression.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = vec![String::new()];
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|(_, next)| *next);
            match c {
                '*' if next == Some('*') => {
                    return Err(format!("consecutive wildcard characters at position {at}"));
                }
                '*' => parts.push(String::new()),
                '\\' if !matches!(next, Some('*' | '\\')) => {
                    return Err(format!(
                        "invalid escape character at position {at}; `\\*` and `\\\\` are escapes"
                    ));
                }
                _ => {
                    let escaped = if c == '\\' { chars.next() } else { None };
                    if let Some(part) = parts.last_mut() {
                        part.push(escaped.map_or(c, |(_, escaped)| escaped));
                    }
                }
            }
        }
        let mut parts = parts.into_iter().map(String::into_boxed_str);
        Ok(Self {
            start: parts.next().unwrap_or_default(),
            rest: parts.collect(),
        })
    }

    /// Pieces of text between its wildcards.
    pub(super) fn parts(&self) -> usize {
        1 + self.rest.len()
    }

    /// Whether the whole text is what the expression describes. Linear in the text for each part:
    /// taking the first place for every part but the last leaves the most to those behind it.
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some((end, middle)) = self.rest.split_last() else {
            return *self.start == *text;
        };
        let Some(mut text) = text.strip_prefix(&*self.start) else {
            return false;
        };
        for part in middle {
            let Some(at) = text.find(&**part) else {
                return false;
            };
            text = &text[at + part.len()..];
        }
        text.ends_with(&**end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_any_characters() {
        let cases = [
            ("a*b", "ab", true),
            ("a*b", "a--b", true),
            ("a*b", "a--bc", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("*", "Zürich", true),
            ("", "", true),
            ("", "x", false),
            ("plain", "plain", true),
            ("plain", "plainer", false),
            ("*ab*ab*", "abab", true),
            ("*ab*ab*", "aba", false),
            ("*/dir/*", "a/dir/b", true),
            ("*.p*g", "x.png", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"a\\*", r"a\b", true),
            ("*ü*", "Zürich", true),
        ];
        for (glob, text, wanted) in cases {
            let found = Glob::parse(glob).unwrap().matches(text);
            assert_eq!(found, wanted, "{glob} on {text}");
        }
    }

    #[test]
    fn a_wrong_wildcard_says_where() {
        for (glob, at) in [
            ("a**b", "position 1"),
            (r"ab\c", "position 2"),
            (r"a\", "position 1"),
        ] {
            let why = Glob::parse(glob).unwrap_err();
            assert!(why.contains(at), "{glob}: {why}");
        }
    }
}
