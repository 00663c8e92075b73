//! Numbers with units: read as people write them (`1h30m`, `500ms`, `256MiB`), and written as people read them (`14 min`,
//! `1.5 KiB`, `3 nodes`). Pure.

use std::time::Duration;

/// Units of a duration, longest first, in milliseconds.
const TIMES: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of a size, in bytes.
const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads whole numbers with units, longest unit first, each at most once: `5m`, `1h30m`, `500ms`. `None` for all else.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut millis = 0u64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (number, unit, after) = quantity(rest)?;
        let at = TIMES.iter().position(|(name, _)| *name == unit)?;
        if at < next_unit {
            return None;
        }
        next_unit = at + 1;
        millis = millis.checked_add(number.checked_mul(TIMES[at].1)?)?;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// Reads a whole number with a unit, in bytes: `256MiB`, `1 GB`. `None` for all else.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit, after) = quantity(text)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit)?;
    if after.is_empty() { number.checked_mul(*bytes) } else { None }
}

/// Splits `90min left` into 90, `min` and ` left`; one blank between number and unit is allowed.
fn quantity(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text[..digits].parse().ok()?;
    let rest = text[digits..].strip_prefix(' ').unwrap_or(&text[digits..]);
    let unit = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    Some((number, &rest[..unit], &rest[unit..]))
}

/// `212 s`, `14 min`, `2.5 h`: seconds up to ten minutes, for they are what a person counts down.
pub fn time(time: Duration) -> String {
    let secs = time.as_secs_f64();
    match secs {
        ..600.0 => format!("{} s", secs.ceil()),
        ..7200.0 => format!("{} min", (secs / 60.0).ceil()),
        _ => format!("{:.1} h", secs / 3600.0),
    }
}

/// `17 B`, `1.5 KiB`, `256.0 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1 node`, `3 nodes`.
pub fn count(n: u32, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_for_people() {
        for (secs, text) in
            [(0.0, "0 s"), (90.0, "90 s"), (211.2, "212 s"), (600.0, "10 min"), (5400.0, "90 min"), (9000.0, "2.5 h")]
        {
            assert_eq!(time(Duration::from_secs_f64(secs)), text);
        }
        for (value, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (256 << 20, "256.0 MiB"), (u64::MAX, "16777216.0 TiB")]
        {
            assert_eq!(bytes(value), text);
        }
        assert_eq!((count(1, "node"), count(0, "node")), ("1 node".into(), "0 nodes".into()));
    }

    #[test]
    fn durations() {
        let cases: [(&str, Option<u64>); 20] = [
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("500ms", Some(500)),
            ("0s", Some(0)),
            ("1s500ms", Some(1_500)),
            ("2d", Some(172_800_000)),
            ("1w", Some(604_800_000)),
            ("15 m", Some(900_000)),
            ("90", None), // seconds are written as a number, not as text
            ("", None),
            ("m", None),
            ("5min", None),
            ("30m1h", None), // the wrong way round
            ("1m1m", None),
            ("1.5h", None),
            ("-5m", None),
            ("5m ", None),
            ("5M", None),
            ("99999999999999999999s", None),
            ("18446744073709551615w", None),
        ];
        for (text, millis) in cases {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        let cases: [(&str, Option<u64>); 11] = [
            ("256MiB", Some(256 << 20)),
            ("1GiB", Some(1 << 30)),
            ("1 GB", Some(1_000_000_000)),
            ("17B", Some(17)),
            ("256", None),
            ("MiB", None),
            ("1GiB1MiB", None),
            ("1mib", None),
            ("-1MiB", None),
            ("99999999999TiB", None),
            ("", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), bytes, "{text:?}");
        }
    }
}
