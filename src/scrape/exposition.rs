//! Reads a Prometheus text page (0.0.4) or an OpenMetrics page sample by sample, borrowing from the page: no
//! allocation per sample. Pure.
//!
//! It takes and refuses what the scraper of Prometheus 3.5 takes and refuses (its lexer is the standard, odd corners
//! included: `  m 1` is a series named `"  m"`, `{a="1" b="2"}` needs no comma). Three departures:
//! - the whole page must be UTF-8, comments too;
//! - a NUL at the start of a line is an error, where Prometheus takes it for the end of the page;
//! - negative timestamps are taken, as the format has them and `promtool` does.
//!
//! Two samples of one series are both given; the first counts, see [`Sample::identity`].

mod escaped;
#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};

pub use escaped::Escaped;

/// How the page is written; told by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `text/plain`, version 0.0.4 or 1.0.0.
    Text,
    /// `application/openmetrics-text`: more types, exemplars, timestamps in seconds, and `# EOF` at the end.
    OpenMetrics,
}

impl Dialect {
    /// The dialect that a `Content-Type` header means. `None`: no page to read, as Prometheus 3 judges
    /// (a missing one included).
    pub fn of_content_type(header: &str) -> Option<Dialect> {
        let essence = header.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("text/plain") {
            Some(Dialect::Text)
        } else if essence.eq_ignore_ascii_case("application/openmetrics-text") {
            Some(Dialect::OpenMetrics)
        } else {
            None
        }
    }
}

/// What a page may cost. The page's size is limited where it is fetched.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one line.
    pub line: usize,
    /// Labels of one series.
    pub labels: usize,
    /// Samples of one page.
    pub samples: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { line: 64 << 10, labels: 64, samples: 500_000 }
    }
}

/// Why a page cannot be read. One error makes the whole page unreadable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PageError {
    /// Counts from 1.
    pub line: usize,
    pub what: String,
}

/// One label. Its name has escapes only when the page quotes it.
#[derive(Clone, Copy, Debug)]
pub struct Label<'p> {
    pub name: Escaped<'p>,
    pub value: Escaped<'p>,
}

/// One sample: borrows its texts from the page, its list of labels from the reader.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'r, 'p> {
    pub name: Escaped<'p>,
    /// In the order of the page; no name twice.
    pub labels: &'r [Label<'p>],
    /// May be NaN or infinite.
    pub value: f64,
    /// Milliseconds since 1970, if the page gives it.
    pub timestamp_millis: Option<i64>,
}

impl<'p> Sample<'_, 'p> {
    /// The value of a label; `None` when the series does not have it.
    pub fn label(&self, name: &str) -> Option<Escaped<'p>> {
        self.labels.iter().find(|l| l.name.is(name)).map(|l| l.value)
    }

    /// The same for two samples of one series, in whatever order their labels stand; an empty label is none.
    pub fn identity(&self) -> u64 {
        let hash = |label: Option<&Label<'_>>| {
            let mut hasher = std::hash::DefaultHasher::new();
            match label {
                Some(label) => (label.name, label.value).hash(&mut hasher),
                None => self.name.hash(&mut hasher),
            }
            hasher.finish()
        };
        let labels = self.labels.iter().filter(|l| !l.value.is(""));
        labels.fold(hash(None), |sum, label| sum.wrapping_add(hash(Some(label))))
    }
}

/// Walks over a page.
#[derive(Debug)]
pub struct Reader<'p> {
    page: &'p str,
    dialect: Dialect,
    limits: Limits,
    /// The next byte to look at.
    at: usize,
    /// Where the present line began.
    start: usize,
    samples: usize,
    /// Of the present sample; kept between samples so that it is allocated once.
    labels: Vec<Label<'p>>,
    exemplar_labels: Vec<Label<'p>>,
    /// `# EOF` was read, or the page is at its end, or it is broken.
    ended: bool,
}

/// What stands between the name of a sample and the end of its line.
struct Rest {
    value: f64,
    timestamp_millis: Option<i64>,
}

impl<'p> Reader<'p> {
    /// # Errors
    /// When the page is not UTF-8.
    pub fn new(page: &'p [u8], dialect: Dialect, limits: Limits) -> Result<Reader<'p>, PageError> {
        let page = std::str::from_utf8(page).map_err(|error| {
            let line = 1 + page[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            PageError { line, what: "not UTF-8".into() }
        })?;
        Ok(Reader {
            page,
            dialect,
            limits,
            at: 0,
            start: 0,
            samples: 0,
            labels: Vec::with_capacity(16),
            exemplar_labels: Vec::new(),
            ended: false,
        })
    }

    /// The next sample; `None` after the last. After an error there is nothing more to read.
    ///
    /// # Errors
    /// When the page is broken, or larger than the limits allow.
    pub fn next_sample(&mut self) -> Result<Option<Sample<'_, 'p>>, PageError> {
        match self.advance() {
            Ok(Some((name, rest))) => Ok(Some(Sample {
                name,
                labels: &self.labels,
                value: rest.value,
                timestamp_millis: rest.timestamp_millis,
            })),
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(what) => {
                self.ended = true;
                let line = 1 + self.page.as_bytes()[..self.start].iter().filter(|b| **b == b'\n').count();
                Err(PageError { line, what })
            }
        }
    }

    fn advance(&mut self) -> Result<Option<(Escaped<'p>, Rest)>, String> {
        while !self.ended {
            self.start = self.at;
            self.skip_blanks();
            match self.peek() {
                None if self.dialect == Dialect::OpenMetrics => return Err("the page ends without # EOF".into()),
                None => break,
                Some(b'\n') if self.dialect == Dialect::OpenMetrics => return Err("an empty line".into()),
                Some(b'\n') => self.at += 1,
                Some(b'#') => self.comment()?,
                Some(b'{') => return self.sample(None).map(Some),
                Some(b) if starts_name(b) => {
                    self.skip_while(in_name);
                    // The name begins with the line: so does Prometheus take leading blanks.
                    let name = Escaped::plain(&self.page[self.start..self.at]);
                    return self.sample(Some(name)).map(Some);
                }
                Some(_) => return Err(format!("a line cannot begin with {}", self.shown())),
            }
            self.check_line()?;
        }
        Ok(None)
    }

    /// Labels, value and timestamp of a sample whose name, if it stands before the braces, is already read.
    fn sample(&mut self, name: Option<Escaped<'p>>) -> Result<(Escaped<'p>, Rest), String> {
        self.labels.clear();
        self.skip_blanks();
        let name = if self.peek() == Some(b'{') { self.label_block(name)? } else { name };
        let name = name.filter(|n| !n.is("")).ok_or("a series without a name")?;
        let rest = self.rest()?;
        self.check_line()?;
        self.samples += 1;
        if self.samples > self.limits.samples {
            return Err(format!("more than {} samples", self.limits.samples));
        }
        Ok((name, rest))
    }

    /// `{a="1", "quoted label"="2"}`, or `{"quoted name", a="1"}`; gives the name.
    fn label_block(&mut self, mut name: Option<Escaped<'p>>) -> Result<Option<Escaped<'p>>, String> {
        self.at += 1;
        self.skip_blanks();
        loop {
            let (label, quoted) = match self.peek() {
                Some(b'}') => {
                    self.at += 1;
                    return Ok(name);
                }
                Some(b'"') => (self.quoted()?, true),
                Some(b) if starts_label(b) => {
                    let from = self.at;
                    self.skip_while(in_label);
                    (Escaped::plain(&self.page[from..self.at]), false)
                }
                _ => return Err(format!("a label name is expected, not {}", self.shown())),
            };
            self.skip_blanks();
            match self.peek() {
                Some(b'=') => {
                    self.at += 1;
                    self.skip_blanks();
                    if self.peek() != Some(b'"') {
                        return Err(format!("a quoted label value is expected, not {}", self.shown()));
                    }
                    let value = self.quoted()?;
                    self.add_label(Label { name: label, value })?;
                }
                Some(b',' | b'}') if quoted && name.is_none() => name = Some(label),
                Some(b',' | b'}') if quoted => return Err("the name is given twice".into()),
                _ => return Err(format!("'=' is expected after the label name, not {}", self.shown())),
            }
            self.skip_blanks();
            if self.peek() == Some(b',') {
                self.at += 1;
                self.skip_blanks();
            }
        }
    }

    fn add_label(&mut self, label: Label<'p>) -> Result<(), String> {
        if label.name.is("") {
            return Err("a label without a name".into());
        }
        // Every series has its name under `__name__` already.
        if label.name.is("__name__") || self.labels.iter().any(|l| l.name == label.name) {
            return Err(format!("label {:?} stands twice", label.name.text()));
        }
        if self.labels.len() == self.limits.labels {
            return Err(format!("more than {} labels", self.limits.labels));
        }
        self.labels.push(label);
        Ok(())
    }

    /// A text in double quotes; the text format lets it hold line breaks.
    fn quoted(&mut self) -> Result<Escaped<'p>, String> {
        let bytes = self.page.as_bytes();
        let from = self.at + 1;
        let most = bytes.len().min(from + self.limits.line);
        let mut escapes = false;
        let mut at = from;
        while at < most {
            match bytes[at] {
                b'"' => {
                    self.at = at + 1;
                    return Ok(Escaped::new(&self.page[from..at], escapes));
                }
                b'\\' if bytes.get(at + 1) != Some(&b'\n') => {
                    escapes = true;
                    at += 2;
                }
                b'\\' => break,
                b'\n' if self.dialect == Dialect::OpenMetrics => break,
                _ => at += 1,
            }
        }
        Err("a quoted text does not end".into())
    }

    /// Value, timestamp and, in OpenMetrics, exemplar, up to and including the end of the line.
    fn rest(&mut self) -> Result<Rest, String> {
        let value = self.number("value")?;
        let mut timestamp_millis = None;
        self.skip_blanks();
        if !self.at_line_end() && self.peek() != Some(b'#') {
            let text = self.token();
            timestamp_millis = Some(match self.dialect {
                Dialect::Text => integer(text).ok_or_else(|| format!("{text:?} is no timestamp"))?,
                Dialect::OpenMetrics => (seconds(text)? * 1000.0) as i64,
            });
            self.skip_blanks();
        }
        if self.peek() == Some(b'#') && self.dialect == Dialect::OpenMetrics {
            self.exemplar()?;
        }
        if !self.at_line_end() {
            return Err(format!("the line should end before {}", self.shown()));
        }
        self.end_line(self.at);
        Ok(Rest { value, timestamp_millis })
    }

    /// `# {trace_id="…"} 0.1 1795455617.4`: checked and passed over.
    fn exemplar(&mut self) -> Result<(), String> {
        self.at += 1;
        self.skip_blanks();
        if self.peek() != Some(b'{') {
            return Err(format!("the labels of an exemplar are expected, not {}", self.shown()));
        }
        std::mem::swap(&mut self.labels, &mut self.exemplar_labels);
        self.labels.clear();
        let named = self.label_block(None)?;
        std::mem::swap(&mut self.labels, &mut self.exemplar_labels);
        if named.is_some() {
            return Err("an exemplar has no name".into());
        }
        self.number("value of the exemplar")?;
        self.skip_blanks();
        if !self.at_line_end() {
            seconds(self.token())?;
            self.skip_blanks();
        }
        Ok(())
    }

    fn number(&mut self, what: &str) -> Result<f64, String> {
        self.skip_blanks();
        if self.at_line_end() {
            return Err(format!("the {what} is missing"));
        }
        let text = self.token();
        float(text).ok_or_else(|| format!("{:?} is no number", shorten(text)))
    }

    /// A line that begins with `#`: only types are looked at, the rest is passed over.
    fn comment(&mut self) -> Result<(), String> {
        self.at += 1;
        let line = &self.page[self.at..];
        let end = line.find('\n').unwrap_or(line.len());
        self.end_line(self.at + end);
        let line = &line[..end];
        let words = line.trim_start_matches(is_blank);
        let keyword = |word| words.len() < line.len() && follows(words, word).is_some();
        if self.dialect == Dialect::OpenMetrics {
            if words == "EOF" && words.len() < line.len() {
                self.ended = true;
                let nothing_left = self.peek().is_none();
                return if nothing_left { Ok(()) } else { Err("there is something after # EOF".into()) };
            }
            if !(keyword("HELP") || keyword("TYPE") || keyword("UNIT")) {
                return Err("OpenMetrics has no comments".into());
            }
        }
        for word in ["HELP", "TYPE", "UNIT"] {
            if word == "UNIT" && self.dialect == Dialect::Text {
                continue;
            }
            if let Some(meta) = follows(words, word).filter(|_| words.len() < line.len()) {
                return self.meta(word, meta.trim_start_matches(is_blank));
            }
        }
        Ok(())
    }

    /// `name text` after HELP, TYPE or UNIT.
    fn meta(&self, word: &str, meta: &str) -> Result<(), String> {
        let after = after_name(meta).ok_or_else(|| format!("a name is expected after {word}"))?;
        if word != "TYPE" {
            return Ok(());
        }
        let mut kind = after.chars();
        kind.next();
        let kind = kind.as_str();
        let known: &[&str] = match self.dialect {
            Dialect::Text => &["counter", "gauge", "histogram", "summary", "untyped"],
            Dialect::OpenMetrics => {
                &["counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset", "unknown"]
            }
        };
        if known.contains(&kind) { Ok(()) } else { Err(format!("{:?} is no type", shorten(kind))) }
    }

    /// Goes on after the line that ends at `end`; the last line of a page may lack its line break.
    fn end_line(&mut self, end: usize) {
        self.at = (end + 1).min(self.page.len());
    }

    fn check_line(&self) -> Result<(), String> {
        if self.at - self.start > self.limits.line + 1 {
            return Err(format!("longer than {} bytes", self.limits.line));
        }
        Ok(())
    }

    /// What is neither blank, line break nor `{`: a value or a timestamp.
    fn token(&mut self) -> &'p str {
        let from = self.at;
        self.skip_while(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'{'));
        &self.page[from..self.at]
    }

    fn peek(&self) -> Option<u8> {
        self.page.as_bytes().get(self.at).copied()
    }

    fn at_line_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'\n'))
    }

    fn skip_blanks(&mut self) {
        self.skip_while(|b| b == b' ' || b == b'\t');
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        let left = &self.page.as_bytes()[self.at..];
        self.at += left.iter().position(|b| !wanted(*b)).unwrap_or(left.len());
    }

    /// The character at the cursor, for a message.
    fn shown(&self) -> String {
        match self.page[self.at..].chars().next() {
            None | Some('\n') => "the end of the line".into(),
            Some(c) => format!("{c:?}"),
        }
    }
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// What follows `word` and a blank.
fn follows<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    text.strip_prefix(word).filter(|after| after.starts_with(is_blank))
}

/// What follows a plain or quoted name. `None` if `text` does not begin with a name.
fn after_name(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    if bytes.first() == Some(&b'"') {
        let mut at = 1;
        while at < bytes.len() {
            match bytes[at] {
                b'"' => return Some(&text[at + 1..]),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        return None;
    }
    bytes.first().copied().filter(|b| starts_name(*b))?;
    let end = bytes.iter().position(|b| !in_name(*b)).unwrap_or(bytes.len());
    Some(&text[end..])
}

fn starts_label(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_'
}

fn in_label(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

fn starts_name(b: u8) -> bool {
    starts_label(b) || b == b':'
}

fn in_name(b: u8) -> bool {
    in_label(b) || b == b':'
}

/// A number as Go reads it, hexadecimal and `_` left out: what Rust reads, but neither `+nan` nor `1e999`.
pub fn float(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    // Most values are small whole numbers: exact, and several times as fast.
    if bytes.len() <= 15 && !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit) {
        return Some(bytes.iter().fold(0u64, |n, b| n * 10 + u64::from(b - b'0')) as f64);
    }
    let value: f64 = text.parse().ok()?;
    let has_digit = || bytes.iter().any(u8::is_ascii_digit);
    if (value.is_nan() && bytes.len() != 3) || (value.is_infinite() && has_digit()) { None } else { Some(value) }
}

fn integer(text: &str) -> Option<i64> {
    // Rust takes a plus sign, Prometheus does not.
    if text.starts_with('+') { None } else { text.parse().ok() }
}

fn seconds(text: &str) -> Result<f64, String> {
    float(text).filter(|s| s.is_finite()).ok_or_else(|| format!("{:?} is no timestamp", shorten(text)))
}

/// At most 60 characters of a text, for a message.
fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}
