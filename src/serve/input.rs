//! What a request says, read strictly: JSON bodies, query parameters, durations. Unknown names are refused with the
//! name that was probably meant. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::problem::Problem;
use crate::model::Timestamp;
use crate::spelling::did_you_mean;
use crate::units;

/// The fields of a JSON object in a body; each is taken once, what is left over is unknown.
#[derive(Debug)]
pub struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// Reads a body; an empty one has no fields.
    ///
    /// # Errors
    /// 415 when it is not `application/json` or is compressed, 400 when it is not one JSON object without duplicates.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Fields, Problem> {
        if body.is_empty() {
            return Ok(Fields(BTreeMap::new()));
        }
        check_json(headers)?;
        let mut reader = serde_json::Deserializer::from_slice(body);
        let fields = reader.deserialize_map(Object).and_then(|fields| reader.end().map(|()| fields));
        let fields =
            fields.map_err(|why| Problem::malformed(format!("the body is not the JSON that is expected: {why}")))?;
        Ok(Fields(fields))
    }

    /// Refuses fields that are not among `known`.
    ///
    /// # Errors
    /// 400 with the path of the unknown field and a near name.
    pub fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(Problem::malformed(unknown("field", &format!("/{}", cut(name)), name, known))),
        }
    }

    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// # Errors
    /// 400 when it is no text, 422 when it is longer than 1000 characters or has control characters.
    pub fn take_text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.chars().count() > 1000 || text.chars().any(char::is_control) => {
                Err(Problem::unacceptable(format!("/{name}: at most 1000 characters, on one line")))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(name, "a text", &other)),
        }
    }

    /// # Errors
    /// 400 when it is neither true nor false.
    pub fn take_flag(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong_type(name, "true or false", &other)),
        }
    }

    /// A whole number from 1 to `most`.
    ///
    /// # Errors
    /// 400 when it is no number, 422 when it is another number.
    pub fn take_count(&mut self, name: &str, most: u32) -> Result<Option<u32>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_f64().ok_or_else(|| wrong_type(name, "a whole number", &value))?;
        if number.fract() == 0.0 && (1.0..=f64::from(most)).contains(&number) {
            Ok(Some(number as u32))
        } else {
            Err(Problem::unacceptable(format!("/{name}: {value} is not a whole number from 1 to {most}")))
        }
    }

    /// A positive time: a number of seconds, or a text such as "2h".
    ///
    /// # Errors
    /// 400 when it is neither, 422 when it is not above zero or beyond a year.
    pub fn take_duration(&mut self, name: &str) -> Result<Option<Duration>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let seconds = seconds(name, &value)?;
        if seconds > 0.0 && seconds <= YEAR_SECS {
            Ok(Some(Duration::from_secs_f64(seconds)))
        } else {
            Err(Problem::unacceptable(format!("/{name}: {value} is not a time above zero and at most a year")))
        }
    }
}

const YEAR_SECS: f64 = 31_536_000.0;

/// Seconds from a JSON number, or from a text such as "5m".
///
/// # Errors
/// 400 when it is neither.
pub fn seconds(name: &str, value: &Value) -> Result<f64, Problem> {
    match value {
        Value::Number(_) => number(name, value),
        Value::String(text) => parse_duration(text).map(|d| d.as_secs_f64()).ok_or_else(|| {
            Problem::malformed(format!(
                "/{name}: {:?} is not a duration, such as \"90s\", \"5m\" or \"1h30m\"",
                cut(text)
            ))
        }),
        other => Err(wrong_type(name, "a number of seconds or a duration such as \"5m\"", other)),
    }
}

/// A finite JSON number.
///
/// # Errors
/// 400 when it is none.
pub fn number(name: &str, value: &Value) -> Result<f64, Problem> {
    value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| wrong_type(name, "a number", value))
}

fn wrong_type(name: &str, wanted: &str, got: &Value) -> Problem {
    let kind = match got {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Problem::malformed(format!("/{name}: {kind} where {wanted} is needed"))
}

/// # Errors
/// 415 when the body is not `application/json`, or is compressed.
pub fn check_json(headers: &HeaderMap) -> Result<(), Problem> {
    check_encoding(headers)?;
    check_type(headers)
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()).to_lowercase());
    let essence = given.as_deref().and_then(|t| t.split(';').next()).map(str::trim);
    if essence == Some("application/json") {
        return Ok(());
    }
    let what = match essence {
        None => "the body has no Content-Type".to_string(),
        Some(other) => format!("Content-Type {:?} is not taken", cut(other)),
    };
    Err(unsupported(format!("{what}: send JSON with -H 'Content-Type: application/json' (curl -d alone sends a form)")))
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(unsupported("compressed bodies are not taken: send the JSON as it is, without Content-Encoding"))
        }
        _ => Ok(()),
    }
}

fn unsupported(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
}

/// Reads one JSON object and refuses a name that comes twice, which serde_json would let pass.
struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = BTreeMap<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object such as {\"max_nodes\": 15}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if fields.contains_key(&name) {
                return Err(serde::de::Error::custom(format!("field {:?} is given twice", cut(&name))));
            }
            fields.insert(name, value);
        }
        Ok(fields)
    }
}

/// The query parameters, each at most once.
#[derive(Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// # Errors
    /// 400 for a parameter that is unknown, given twice or badly encoded.
    pub fn read(text: Option<&str>, known: &[&str]) -> Result<Query, Problem> {
        let mut query = BTreeMap::new();
        for pair in text.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = percent_decoded(&name.replace('+', " ")).zip(percent_decoded(&value.replace('+', " ")));
            let (name, value) =
                decoded.ok_or_else(|| Problem::malformed(format!("?{}: not percent-encoded UTF-8", cut(pair))))?;
            if !known.contains(&name.as_str()) {
                return Err(Problem::malformed(unknown("query parameter", &format!("?{}", cut(&name)), &name, known)));
            }
            if query.insert(name.clone(), value).is_some() {
                return Err(Problem::malformed(format!("?{name}= is given twice")));
            }
        }
        Ok(Query(query))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// # Errors
    /// 400 when it is not RFC 3339.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let wrong = |text: &str| {
            Problem::malformed(format!("?{name}={}: not an RFC 3339 time, such as 2026-01-31T03:12:00Z", cut(text)))
        };
        self.get(name).map(|text| Timestamp::parse(text).ok_or_else(|| wrong(text))).transpose()
    }

    /// A whole number.
    ///
    /// # Errors
    /// 400 when it is none.
    pub fn whole(&self, name: &str) -> Result<Option<u64>, Problem> {
        let wrong = |text: &str| Problem::malformed(format!("?{name}={}: not a whole number", cut(text)));
        self.get(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }

    /// `limit`: 100 unless given, 1 to 1000.
    ///
    /// # Errors
    /// 400 when it is no number, 422 when it is outside.
    pub fn limit(&self) -> Result<usize, Problem> {
        match self.whole("limit")? {
            None => Ok(100),
            Some(limit @ 1..=1000) => Ok(limit as usize),
            Some(other) => Err(Problem::unacceptable(format!("?limit={other}: 1 to 1000"))),
        }
    }
}

/// Decodes `%41`; `None` for a broken escape or what is not UTF-8 then.
pub fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { hex(rest.next()?)? << 4 | hex(rest.next()?)? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

/// Reads `90s`, `5m`, `1h30m`, `250ms`, `2d`, `1w`; a plain number is seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => units::duration(text),
    }
}

/// "unknown field /cpu_treshold_high; did you mean cpu_threshold_high?"
pub fn unknown(what: &str, place: &str, name: &str, known: &[&str]) -> String {
    let hint = did_you_mean(name, known).unwrap_or_else(|| match known {
        [] => "none is taken here".into(),
        known => format!("known: {}", known.join(", ")),
    });
    format!("unknown {what} {place}; {hint}")
}

/// At most 80 characters of what a client sent.
pub fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [
            ("90s", Some(90.0)),
            ("5m", Some(300.0)),
            ("1h30m", Some(5400.0)),
            ("250ms", Some(0.25)),
            ("30", Some(30.0)),
            ("0.5", Some(0.5)),
            ("", None),
            ("5", Some(5.0)),
            ("m", None),
            ("5x", None),
            ("-5m", None),
            ("-5", None),
            ("NaN", None),
            ("inf", None),
            ("5 m", Some(300.0)),
        ] {
            assert_eq!(parse_duration(text).map(|d| d.as_secs_f64()), seconds, "{text:?}");
        }
    }

    #[test]
    fn a_body_cannot_be_too_deep() {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"))]);
        let body = format!("{{\"max_nodes\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let refused = Fields::read(&headers, body.as_bytes()).expect_err("too deep");
        assert!(format!("{refused:?}").contains("recursion limit"), "{refused:?}");
    }

    #[test]
    fn near_names_are_proposed() {
        let known = ["cpu_threshold_high", "min_nodes"];
        assert!(unknown("field", "/x", "cpu_treshold_high", &known).ends_with("did you mean cpu_threshold_high?"));
        assert!(unknown("field", "/x", "zebra", &known).ends_with("known: cpu_threshold_high, min_nodes"));
        assert!(unknown("field", "/x", &"x".repeat(100_000), &known).contains("known:"));
    }

    #[test]
    fn queries_are_decoded_and_strict() {
        let query = Query::read(Some("since=2026-01-31T03%3A12%3A00%2B01:00&limit=7"), &["since", "limit"]);
        let query = query.expect("a query");
        assert_eq!(query.limit().expect("a limit"), 7);
        assert_eq!(query.time("since").expect("a time"), Timestamp::parse("2026-01-31T02:12:00Z"));
        for bad in ["limt=7", "limit=1&limit=2", "limit=%zz", "limit=%"] {
            assert!(Query::read(Some(bad), &["limit"]).is_err(), "{bad}");
        }
        for bad in ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit="] {
            assert!(Query::read(Some(bad), &["limit"]).expect("known").limit().is_err(), "{bad}");
        }
    }
}
