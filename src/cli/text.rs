//! Numbers, instants and rows as people read them. Pure.

use std::time::Duration;

use crate::units;

/// Columns as wide as their widest cell, two blanks apart, each line indented by two.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(format!("  {}", cells.join("  ")).trim_end());
        text.push('\n');
    }
    text
}

/// `0.42` as `42 %`, `0.0042` as `0.4 %`.
pub fn percent(share: Option<f64>) -> String {
    match share.map(|share| share * 100.0) {
        Some(percent) if percent > 0.0 && percent < 9.95 => format!("{percent:.1} %"),
        Some(percent) => format!("{percent:.0} %"),
        None => "-".into(),
    }
}

/// At most three digits after the point, none that say nothing.
pub fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".into() };
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// A time in seconds; one that no clock can hold is as long as can be.
pub fn seconds(seconds: f64) -> String {
    units::time(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// `2026-01-31T03:12:00.123Z` as `2026-01-31 03:12:00Z`; anything else stays.
pub fn instant(rfc3339: &str) -> String {
    match crate::model::Timestamp::parse(rfc3339) {
        Some(at) => at.to_string().get(..19).map_or_else(|| rfc3339.into(), |t| format!("{}Z", t.replace('T', " "))),
        None => rfc3339.into(),
    }
}

/// Line breaks and other control characters as blanks: what comes over the network draws nothing on a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [(Some(0.8123), "0.812"), (Some(500.0), "500"), (Some(0.5), "0.5"), (Some(0.0), "0"), (None, "-")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        for (value, text) in [(90.0, "90 s"), (-1.0, "0 s"), (f64::NAN, "0 s")] {
            assert_eq!(seconds(value), text);
        }
    }

    #[test]
    fn instants_lose_their_fraction() {
        assert_eq!(instant("2026-01-31T04:12:00.999+01:00"), "2026-01-31 03:12:00Z");
        assert_eq!(instant("never"), "never");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_string(), "bb".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(table(&rows), "  a    bb\n  ccc  d\n");
    }
}
