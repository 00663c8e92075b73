//! Matchers as Alertmanager from 0.27 on reads them in its own configuration: UTF-8 syntax first, and where a text is not
//! of that, the classic one. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

/// All of them must match; there is at least one.
#[derive(Clone, Debug, Default)]
pub struct Matchers(Vec<Matcher>);

#[derive(Clone, Debug)]
struct Matcher {
    label: String,
    op: &'static str,
    value: String,
    /// For `=~` and `!~`; anchored at both ends.
    pattern: Option<Regex>,
}

/// Why a text is no matcher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no matcher: {what}")]
pub struct NotAMatcher {
    /// At most 120 characters of it.
    pub text: String,
    pub what: String,
}

/// Longer operators first.
const OPERATORS: [&str; 4] = ["=~", "!~", "!=", "="];

impl Matchers {
    /// Reads texts that hold one or more matchers each: `severity="page"`, `severity=~page|critical`,
    /// `{"vec.node/zone"="a", severity!=info}`.
    ///
    /// # Errors
    /// For the first text that is neither of the UTF-8 nor of the classic syntax, or holds no matcher.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Matchers, NotAMatcher> {
        let mut all = Vec::new();
        for text in texts {
            let wrong = |what: String| NotAMatcher { text: text.chars().take(120).collect(), what };
            // What the first reader says is the better advice for a text that neither takes.
            let read = utf8(text).or_else(|what| classic(text).map_err(|_| what)).map_err(wrong)?;
            if read.is_empty() {
                return Err(wrong("it is empty".into()));
            }
            all.extend(read);
        }
        Ok(Matchers(all))
    }

    /// Whether an alert with these labels is meant. A label that is absent has the empty value.
    pub fn match_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|matcher| matcher.matches(labels.get(&matcher.label).map_or("", String::as_str)))
    }

    /// Whether any of them looks at this label.
    pub fn look_at(&self, label: &str) -> bool {
        self.0.iter().any(|matcher| matcher.label == label)
    }
}

impl fmt::Display for Matchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, matcher) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}{}{:?}", matcher.label, matcher.op, matcher.value)?;
        }
        Ok(())
    }
}

impl Matcher {
    fn new(label: String, op: &'static str, value: String) -> Result<Matcher, String> {
        let pattern = match op {
            "=~" | "!~" => Some(anchored(&value)?),
            _ => None,
        };
        Ok(Matcher { label, op, value, pattern })
    }

    fn matches(&self, value: &str) -> bool {
        let is_like = self.pattern.as_ref().map_or_else(|| value == self.value, |pattern| pattern.is_match(value));
        is_like != self.op.starts_with('!')
    }
}

/// Unlike Prometheus, Alertmanager lets `.` stop at line breaks.
fn anchored(pattern: &str) -> Result<Regex, String> {
    let refused = |error: regex::Error| format!("{pattern:?} is no regular expression: {error}");
    // By itself first: `a)(b` must not close our bracket.
    Regex::new(pattern).map_err(refused)?;
    Regex::new(&format!("^(?:{pattern})$")).map_err(refused)
}

/// Names and values are words without reserved characters, or texts in double quotes with Go's escapes.
fn utf8(text: &str) -> Result<Vec<Matcher>, String> {
    let mut reader = Reader { left: text.chars().peekable() };
    let braced = reader.take('{');
    let mut matchers = Vec::new();
    while !matches!(reader.peek(), None | Some('}')) {
        let label = reader.word("a label name")?;
        let op = reader.operator(&label)?;
        let value = reader.word("a value")?;
        matchers.push(Matcher::new(label, op, value)?);
        if !reader.take(',') && !matches!(reader.peek(), None | Some('}')) {
            return Err(
                "a comma is expected between two matchers; a value with such characters is put in quotes".into()
            );
        }
    }
    match (braced, reader.take('}')) {
        (true, false) => Err("the closing brace is missing".into()),
        (false, true) => Err("the opening brace is missing".into()),
        _ if reader.peek().is_some() => Err("something follows the closing brace".into()),
        _ => Ok(matchers),
    }
}

struct Reader<'t> {
    left: Peekable<Chars<'t>>,
}

impl Reader<'_> {
    /// The next character that is no blank.
    fn peek(&mut self) -> Option<char> {
        while self.left.next_if(|c| c.is_whitespace()).is_some() {}
        self.left.peek().copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        self.peek() == Some(wanted) && self.left.next().is_some()
    }

    fn word(&mut self, what: &str) -> Result<String, String> {
        match self.peek() {
            Some('"') => self.quoted(),
            Some(c) if !is_reserved(c) => Ok(std::iter::from_fn(|| self.left.next_if(|c| !is_reserved(*c))).collect()),
            Some(c) => Err(format!("{what} is expected, not {c:?}; such characters are put in double quotes")),
            None => Err(format!("{what} is missing")),
        }
    }

    fn operator(&mut self, label: &str) -> Result<&'static str, String> {
        let wanted = || format!("after {label:?} one of = != =~ !~ is expected");
        let first = self.peek().filter(|c| matches!(c, '=' | '!')).ok_or_else(wanted)?;
        self.left.next();
        let second = self.left.peek().copied();
        let op = OPERATORS.into_iter().find(|op| {
            let mut chars = op.chars();
            let (one, two) = (chars.next(), chars.next());
            one == Some(first) && (two.is_none() || two == second)
        });
        let op = op.ok_or_else(wanted)?;
        if op.len() == 2 {
            self.left.next();
        }
        Ok(op)
    }

    /// A text in double quotes, with the escapes of Go.
    fn quoted(&mut self) -> Result<String, String> {
        self.left.next();
        let mut bytes = Vec::new();
        loop {
            match self.left.next().ok_or("the closing quote is missing")? {
                '"' => return String::from_utf8(bytes).map_err(|_| "it is not UTF-8 once its escapes are read".into()),
                '\n' => return Err("a line break inside quotes is written \\n".into()),
                '\\' => self.escape(&mut bytes)?,
                c => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), String> {
        let c = self.left.next().ok_or("the closing quote is missing")?;
        let byte = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '"' => c as u8,
            'x' => self.number(16, 2)? as u8,
            'u' | 'U' => {
                let code = self.number(16, if c == 'u' { 4 } else { 8 })?;
                let c = char::from_u32(code).ok_or_else(|| format!("U+{code:X} is no character"))?;
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                return Ok(());
            }
            '0'..='7' => {
                let code = c as u32 - u32::from(b'0');
                let code = code * 64 + self.number(8, 2)?;
                u8::try_from(code).map_err(|_| format!("\\{code:o} is no byte"))?
            }
            c => return Err(format!("\\{c} is no escape: write \\\\{c}")),
        };
        bytes.push(byte);
        Ok(())
    }

    fn number(&mut self, radix: u32, digits: usize) -> Result<u32, String> {
        let mut number = 0u32;
        for _ in 0..digits {
            let digit = self.left.next().and_then(|c| c.to_digit(radix));
            let digit = digit.ok_or_else(|| format!("an escape needs {digits} digits here"))?;
            number = number.checked_mul(radix).and_then(|n| n.checked_add(digit)).ok_or("an escape is out of range")?;
        }
        Ok(number)
    }
}

fn is_reserved(c: char) -> bool {
    c.is_whitespace() || "{}!=~,\\\"'`".contains(c)
}

/// Names are of ASCII; a value goes on to the next comma outside quotes, with or without quotes around it, and a backslash
/// before anything but `"`, `\` and `n` is one.
fn classic(text: &str) -> Result<Vec<Matcher>, String> {
    let text = text.strip_prefix('{').unwrap_or(text);
    let text = text.strip_suffix('}').unwrap_or(text);
    split_at_commas(text).into_iter().map(classic_matcher).collect()
}

fn split_at_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            ',' if !quoted => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    if !text[from..].trim().is_empty() {
        parts.push(text[from..].trim());
    }
    parts
}

fn classic_matcher(text: &str) -> Result<Matcher, String> {
    let bad = || String::from("it is not of the form name=\"value\"");
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))).ok_or_else(bad)?;
    let (label, rest) = text.split_at(end);
    if label.is_empty() || label.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(bad());
    }
    let rest = rest.trim_start();
    let op = OPERATORS.into_iter().find(|op| rest.starts_with(op)).ok_or_else(bad)?;
    let value = rest[op.len()..].trim_start();
    let unquoted = || String::from("a quote inside the value is written \\\"");
    let (inner, opened) = value.strip_prefix('"').map_or((value, false), |inner| (inner, true));
    let mut chars = inner.chars().peekable();
    let (mut read, mut closed) = (String::new(), false);
    while let Some(c) = chars.next() {
        match c {
            '"' if opened && chars.peek().is_none() => closed = true,
            '"' => return Err(unquoted()),
            '\\' => match chars.next() {
                Some('n') => read.push('\n'),
                Some(c @ ('"' | '\\')) => read.push(c),
                Some(c) => read.extend(['\\', c]),
                None => read.push('\\'),
            },
            c => read.push(c),
        }
    }
    if opened != closed {
        return Err(unquoted());
    }
    Matcher::new(label.into(), op, read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn which_alerts_are_meant() {
        let alert = labels(&[
            ("alertname", "Shard skew"),
            ("severity", "page"),
            ("path", "C:\\d"),
            ("note", "two\nlines, \"quoted\""),
            ("vec.node/zone", "eu-1a \"café\"\n\\x"),
            ("tab", "a\tb"),
            ("größe", "5"),
        ]);
        let cases: &[(&str, bool)] = &[
            // both syntaxes
            (r#"severity="page""#, true),
            (r#"severity="pager""#, false),
            ("severity=page", true),
            ("severity!=page", false),
            ("severity!=info", true),
            (r#"severity=~"page|critical""#, true),
            (r#"severity=~"pag""#, false),
            (r#"severity!~"info|warning""#, true),
            (r#"severity!~".*""#, false),
            (" severity = \"page\" ", true),
            (r#"absent="""#, true),
            (r#"absent!="""#, false),
            (r#"absent=~".*""#, true),
            (r#"absent=~".+""#, false),
            (r#"alertname="Shard skew""#, true),
            (r#"{severity="page",alertname="Shard skew"}"#, true),
            (r#"{severity="page",alertname="x"}"#, false),
            (r#"severity="page",alertname=~"Shard.*","#, true),
            (r#"{ severity="page" , }"#, true),
            (r#"note="two\nlines, \"quoted\"""#, true),
            (r#"note=~"two.lines.*""#, false), // `.` stops at line breaks
            (r#"note=~"(?s)two.lines.*""#, true),
            // only of the UTF-8 syntax
            (r#""vec.node/zone"="eu-1a \"café\"\n\\x""#, true),
            (r#"vec.node/zone=~"eu-1a.*""#, false),
            (r#"vec.node/zone=~"(?s)eu-1a.*""#, true),
            ("größe=5", true),
            (r#"tab="a\tb""#, true),
            (r#""sev\x65rity"="p\u0061ge""#, true),
            (r#"severity="\160age""#, true),
            // only of the classic syntax
            ("severity=~page|critical", true),
            ("alertname=Shard skew", true),
            (r#"path="C:\d""#, true),
            (r#"path=~"C:\\\d""#, true),
            (r#"alertname=~Shard\sskew"#, true),
            ("absent=", true),
            (r#"severity=page,alertname=Shard skew"#, true),
        ];
        for (text, meant) in cases {
            let matchers = Matchers::parse([*text]).unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(matchers.match_labels(&alert), *meant, "{text}");
        }
    }

    #[test]
    fn all_matchers_of_all_texts_must_match() {
        let both = Matchers::parse([r#"a="1""#, r#"b=~"2|3""#]).expect("two matchers");
        assert!(both.match_labels(&labels(&[("a", "1"), ("b", "3")])));
        assert!(!both.match_labels(&labels(&[("a", "1"), ("b", "4")])));
        assert_eq!((both.look_at("b"), both.look_at("c")), (true, false));
        assert_eq!(both.to_string(), r#"a="1",b=~"2|3""#);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("", "it is empty"),
            ("{}", "it is empty"),
            ("severity", "one of = != =~ !~"),
            ("severity~page", "one of = != =~ !~"),
            ("=page", "a label name is expected, not '='"),
            (r#"severity="page"#, "the closing quote is missing"),
            (r#"severity='page"x'"#, "a value is expected, not '\\''"),
            (r#"severity=~"(""#, "no regular expression"),
            (r#"severity=~"a)(b""#, "no regular expression"),
            (r#"{severity="page" alertname="x"}"#, "a comma is expected"),
            (r#""a b"="x"} y"#, "the opening brace is missing"),
            (r#"{"a b"="x""#, "the closing brace is missing"),
            (r#"{"a b"="x"} y"#, "something follows"),
            (r#""a b"="\q""#, "\\q is no escape"),
            (r#""a b"="\xff""#, "not UTF-8"),
            (r#""a b"="\ud800""#, "no character"),
            (r#""a b"="\777""#, "no byte"),
            ("1a~b", "one of = != =~ !~"),
        ];
        for (text, says) in cases {
            let error = Matchers::parse([text]).map(|m| m.to_string()).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-z{}\"'`=!~,\\\\x0-9 \\PC]{0,40}") {
            if let Ok(matchers) = Matchers::parse([text.as_str()]) {
                matchers.match_labels(&labels(&[("a", "b")]));
            }
        }

        #[test]
        fn what_is_shown_reads_as_the_same(label in "[a-zA-Z_][a-z0-9_]{0,8}", value in "[a-z \"\\\\]{0,12}", negated: bool) {
            let op = if negated { "!=" } else { "=" };
            let matchers = Matchers(vec![Matcher::new(label.clone(), op, value.clone()).expect("no pattern")]);
            let again = Matchers::parse([matchers.to_string().as_str()]).expect("what we show");
            proptest::prop_assert_eq!(again.match_labels(&labels(&[(&label, &value)])), !negated);
        }
    }
}
