//! Series selectors as PromQL writes them: text in, [`Selector`] out; and whether a sample is meant. Pure.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

use super::exposition::Sample;
use super::settings::{MatchOp, Matcher, Selector};

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} selects no series: {what}")]
pub struct SelectorError {
    /// At most 120 characters of it.
    pub text: String,
    pub what: String,
}

impl Selector {
    /// Reads `name`, `name{label="v",other=~"a|b"}` or `{"name in UTF-8",label!="v"}`. A text that begins with `/` is
    /// a JSON pointer, whole.
    ///
    /// # Errors
    /// Says what is wrong, and where it can, what to write instead.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        if text.starts_with('/') {
            return Ok(Selector::new(text.into(), Vec::new()));
        }
        let mut parser = Parser { left: text.trim().chars().peekable() };
        parser.selector().map_err(|what| SelectorError { text: text.chars().take(120).collect(), what })
    }

    /// Whether the sample's series is meant. Allocates only for a regular expression on a value with escapes.
    pub fn matches(&self, sample: &Sample<'_, '_>) -> bool {
        sample.name.is(&self.name) && self.matches_labels(sample)
    }

    /// The same without a look at the name.
    pub fn matches_labels(&self, sample: &Sample<'_, '_>) -> bool {
        self.matchers.iter().all(|matcher| {
            let value = sample.label(&matcher.label);
            let is = |text: &str| value.map_or(text.is_empty(), |v| v.is(text));
            let like = |regex: &Regex| value.map_or_else(|| regex.is_match(""), |v| regex.is_match(&v.text()));
            match &matcher.op {
                MatchOp::Equal(text) => is(text),
                MatchOp::NotEqual(text) => !is(text),
                MatchOp::Like(regex) => like(regex),
                MatchOp::NotLike(regex) => !like(regex),
            }
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (i, matcher) in self.matchers.iter().enumerate() {
            let (op, text) = match &matcher.op {
                MatchOp::Equal(text) => ("=", text.as_str()),
                MatchOp::NotEqual(text) => ("!=", text.as_str()),
                MatchOp::Like(regex) => ("=~", pattern(regex)),
                MatchOp::NotLike(regex) => ("!~", pattern(regex)),
            };
            write!(f, "{}{}{op}{text:?}", if i == 0 { "{" } else { "," }, matcher.label)?;
        }
        f.write_str(if self.matchers.is_empty() { "" } else { "}" })
    }
}

const ANCHORED: (&str, &str) = ("^(?s:", ")$");

/// Anchored at both ends, and `.` takes line breaks too: as Prometheus 3 does.
fn anchored(pattern: &str) -> Result<Regex, String> {
    let refused = |error: &dyn fmt::Display| format!("{pattern:?} is no regular expression: {error}");
    // By itself first: `a)(b` must not close our bracket.
    Regex::new(pattern).map_err(|error| refused(&error))?;
    Regex::new(&format!("{}{pattern}{}", ANCHORED.0, ANCHORED.1)).map_err(|error| refused(&error))
}

fn pattern(regex: &Regex) -> &str {
    let text = regex.as_str();
    text.strip_prefix(ANCHORED.0).and_then(|t| t.strip_suffix(ANCHORED.1)).unwrap_or(text)
}

struct Parser<'t> {
    left: Peekable<Chars<'t>>,
}

impl Parser<'_> {
    fn selector(&mut self) -> Result<Selector, String> {
        let mut name = self.word(|c| c == ':');
        self.skip_blanks();
        let mut matchers = Vec::new();
        if self.take('{') {
            self.matchers(&mut name, &mut matchers)?;
            self.skip_blanks();
        }
        match self.left.peek() {
            Some('[' | '(') => Err("one series is meant here, no PromQL expression".into()),
            Some('.' | '-') => Err("a name with such characters is written {\"my.name\"}".into()),
            Some(c) => Err(format!("{c:?} stands where nothing may follow")),
            None if name.is_empty() => Err("the name is missing".into()),
            None => Ok(Selector::new(name, matchers)),
        }
    }

    fn matchers(&mut self, name: &mut String, matchers: &mut Vec<Matcher>) -> Result<(), String> {
        loop {
            self.skip_blanks();
            if self.take('}') {
                return Ok(());
            }
            let quoted = matches!(self.left.peek(), Some('"' | '\''));
            let label = if quoted { self.quoted()? } else { self.word(|_| false) };
            self.skip_blanks();
            if quoted && name.is_empty() && matches!(self.left.peek(), Some(',' | '}')) {
                *name = label;
            } else if label.is_empty() {
                return Err(match self.left.peek() {
                    None => "the closing brace is missing".into(),
                    Some(c) => format!("a label name is expected, not {c:?}"),
                });
            } else if label == "__name__" {
                return Err("the name stands before the braces, or as {\"name\"}".into());
            } else {
                let op = self.operation(&label)?;
                matchers.push(Matcher { label, op });
            }
            self.skip_blanks();
            if !self.take(',') && self.left.peek() != Some(&'}') {
                return Err(match self.left.peek() {
                    None => "the closing brace is missing".into(),
                    Some(c) => format!("',' or '}}' is expected, not {c:?}"),
                });
            }
        }
    }

    fn operation(&mut self, label: &str) -> Result<MatchOp, String> {
        let (first, second) = (self.left.next(), self.left.peek().copied());
        let make: fn(String) -> Result<MatchOp, String> = match (first, second) {
            (Some('='), Some('~')) => |text| anchored(&text).map(MatchOp::Like),
            (Some('!'), Some('~')) => |text| anchored(&text).map(MatchOp::NotLike),
            (Some('!'), Some('=')) => |text| Ok(MatchOp::NotEqual(text)),
            (Some('='), _) => |text| Ok(MatchOp::Equal(text)),
            _ => return Err(format!("after label {label} one of = != =~ !~ is expected")),
        };
        if first == Some('!') || second == Some('~') {
            self.left.next();
        }
        self.skip_blanks();
        match self.left.peek() {
            Some('"' | '\'' | '`') => make(self.quoted()?),
            _ => Err(format!("the value of label {label} must be quoted")),
        }
    }

    /// A text in double or single quotes with escapes, or in backquotes without any.
    fn quoted(&mut self) -> Result<String, String> {
        let quote = self.left.next().expect("the caller has seen a quote");
        let mut text = String::new();
        loop {
            match self.left.next() {
                None => return Err(format!("the closing {quote} is missing")),
                Some(c) if c == quote => return Ok(text),
                Some('\\') if quote != '`' => text.push(match self.left.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some(c @ ('\\' | '"' | '\'')) => c,
                    Some(c) => {
                        return Err(format!("\\{c} is no escape: write \\\\{c}, or put the text in backquotes"));
                    }
                    None => return Err(format!("the closing {quote} is missing")),
                }),
                Some(c) => text.push(c),
            }
        }
    }

    /// `[a-zA-Z_][a-zA-Z0-9_]*`, and what `also` allows; empty if there is none.
    fn word(&mut self, also: fn(char) -> bool) -> String {
        let mut word = String::new();
        while let Some(&c) = self.left.peek() {
            let fits = c.is_ascii_alphabetic() || c == '_' || also(c) || (c.is_ascii_digit() && !word.is_empty());
            if !fits {
                break;
            }
            word.push(c);
            self.left.next();
        }
        word
    }

    fn take(&mut self, wanted: char) -> bool {
        self.left.next_if_eq(&wanted).is_some()
    }

    fn skip_blanks(&mut self) {
        while self.left.next_if(|c| c.is_ascii_whitespace()).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrape::exposition::{Dialect, Limits, Reader};

    #[test]
    fn which_series_are_meant() {
        let cases: &[(&str, &str, bool)] = &[
            ("m", "m 1", true),
            ("m", "mm 1", false),
            ("m{}", "m{a=\"1\"} 1", true),
            ("m{a=\"1\"}", "m{a=\"1\"} 1", true),
            ("m{a='1'}", "m{a=\"1\"} 1", true),
            ("m{a=`1`}", "m{a=\"1\"} 1", true),
            (" m { a = \"1\" , } ", "m{a=\"1\"} 1", true),
            ("m{a=\"1\"}", "m{a=\"2\"} 1", false),
            ("m{a=\"\"}", "m 1", true),
            ("m{a=\"\"}", "m{a=\"\"} 1", true),
            ("m{a!=\"\"}", "m 1", false),
            ("m{a!=\"1\"}", "m 1", true),
            ("m{a=~\"a|b\"}", "m{a=\"b\"} 1", true),
            ("m{a=~\"a|b\"}", "m{a=\"ab\"} 1", false),
            ("m{a=~\"5..\"}", "m{a=\"503\"} 1", true),
            ("m{a=~\"5..\"}", "m{a=\"5033\"} 1", false),
            ("m{a=~\".*\"}", "m 1", true),
            ("m{a=~\".+\"}", "m 1", false),
            ("m{a!~\"5..\"}", "m 1", true),
            ("m{a!~\"5..\"}", "m{a=\"500\"} 1", false),
            ("m{a=~\"x.y\"}", "m{a=\"x\\ny\"} 1", true),
            ("m{a=\"x\\ny\"}", "m{a=\"x\\ny\"} 1", true),
            ("m{a=~\"a\\\\.b\"}", "m{a=\"a.b\"} 1", true),
            ("m{a=~`a\\.b`}", "m{a=\"axb\"} 1", false),
            ("m{a=\"1\",b!~\"2\"}", "m{b=\"3\",a=\"1\"} 1", true),
            ("{\"vec.cpu ratio\",a=\"1\"}", "{\"vec.cpu ratio\",a=\"1\"} 1", true),
            ("m{\"a b\"=\"1\"}", "m{\"a b\"=\"1\"} 1", true),
            ("job:m:rate5m", "job:m:rate5m 1", true),
        ];
        for (selector, line, meant) in cases {
            let parsed = Selector::parse(selector).unwrap_or_else(|error| panic!("{error}"));
            let mut reader = Reader::new(line.as_bytes(), Dialect::Text, Limits::default()).unwrap();
            let sample = reader.next_sample().unwrap().unwrap();
            assert_eq!(parsed.matches(&sample), *meant, "{selector} on {line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("", "the name is missing"),
            ("{}", "the name is missing"),
            ("m{", "closing brace is missing"),
            ("m{a", "one of = != =~ !~"),
            ("m{a=}", "must be quoted"),
            ("m{a=b}", "must be quoted"),
            ("m{a=\"b\"", "closing brace is missing"),
            ("m{a=\"b}", "closing \" is missing"),
            ("m{a=\"b\" c=\"d\"}", "',' or '}' is expected"),
            ("m{,}", "a label name is expected, not ','"),
            ("m{a=~\"(\"}", "no regular expression"),
            ("m{a=~\"a)(b\"}", "no regular expression"),
            ("m{a=\"\\d\"}", "write \\\\d"),
            ("m{__name__=\"x\"}", "before the braces"),
            ("rate(m[5m])", "no PromQL expression"),
            ("m[5m]", "no PromQL expression"),
            ("a.b", "{\"my.name\"}"),
            ("m 1", "'1' stands where nothing may follow"),
        ];
        for (text, says) in cases {
            let error = Selector::parse(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn shown_as_it_was_written() {
        for text in ["m", "m{a=\"1\",b!=\"2\",c=~\"3.*\",d!~\"4\"}", "/cpu/usage"] {
            assert_eq!(Selector::parse(text).unwrap().to_string(), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-z{}\"'`=!~,\\\\/ \\PC]{0,40}") {
            if let Ok(selector) = Selector::parse(&text) {
                let _ = selector.to_string();
            }
        }
    }
}
