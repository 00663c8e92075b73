//! Numbers, instants and rows as people read them. Pure.

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

pub fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..=119 => format!("{whole} s"),
        120..=7199 => format!("{} min", whole / 60),
        _ => format!("{:.1} h", whole as f64 / 3600.0),
    }
}

pub fn count(n: u32, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
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
        for (value, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (256 << 20, "256.0 MiB"), (u64::MAX, "16777216.0 TiB")]
        {
            assert_eq!(bytes(value), text);
        }
        for (value, text) in [(0.4, "0 s"), (90.0, "90 s"), (600.0, "10 min"), (9000.0, "2.5 h"), (-1.0, "0 s")] {
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
