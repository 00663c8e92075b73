//! The reader agrees with Prometheus on recorded pages, and takes nothing that it cannot read whole.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

type Series = (BTreeMap<String, String>, f64);

/// What Prometheus would store of the page: the first sample of each series, none from long ago.
fn stored(page: &[u8], dialect: Dialect) -> Result<Vec<Series>, PageError> {
    let mut reader = Reader::new(page, dialect, Limits::default())?;
    let (mut seen, mut series) = (HashSet::new(), Vec::new());
    while let Some(sample) = reader.next_sample()? {
        let long_ago = sample.timestamp_millis.is_some_and(|at| at < 1_700_000_000_000);
        if !seen.insert(sample.identity()) || long_ago {
            continue;
        }
        let mut labels: BTreeMap<String, String> = sample
            .labels
            .iter()
            .map(|l| (l.name.text().into_owned(), l.value.text().into_owned()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        labels.insert("__name__".into(), sample.name.text().into_owned());
        series.push((labels, sample.value));
    }
    Ok(series)
}

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/exposition/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter(|b| *b != b'=').map(|b| DIGITS.iter().position(|d| *d == b).unwrap() as u32);
    let (mut bits, mut held, mut bytes) = (0u32, 0, Vec::new());
    for digit in digits {
        bits = bits << 6 | digit;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

/// Storage writes `le="1"` as `le="1.0"` and values in its own way: compared as numbers, in one order.
fn comparable(mut series: Vec<Series>) -> Vec<(BTreeMap<String, String>, String)> {
    for (labels, _) in &mut series {
        if let Some(le) = labels.get_mut("le") {
            *le = format!("{}", float(le).expect("a number"));
        }
    }
    let mut shown: Vec<_> = series.into_iter().map(|(labels, value)| (labels, format!("{value}"))).collect();
    shown.sort();
    shown
}

#[test]
fn agrees_with_prometheus_3_5_3_on_every_recorded_case() {
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&fixture("parse-cases.json")).unwrap();
    assert_eq!(cases.len(), 39);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let page = match case["text"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => base64(case["text_base64"].as_str().unwrap()),
        };
        let ours = stored(&page, Dialect::Text);
        let up = case["scrape_3.5.3"] == "up";
        assert_eq!(ours.is_ok(), up, "{name}: ours {ours:?}, Prometheus {}", case["scrape_3.5.3_error"]);
        let theirs: Vec<Series> =
            serde_json::from_value::<Vec<(BTreeMap<String, String>, String)>>(case["scrape_3.5.3_series"].clone())
                .unwrap()
                .into_iter()
                .map(|(labels, value)| (labels, float(&value).unwrap()))
                .collect();
        assert_eq!(comparable(ours.unwrap_or_default()), comparable(theirs), "{name}");
    }
}

#[test]
fn reads_the_torture_page() {
    let page = fixture("torture.txt");
    let mut reader = Reader::new(&page, Dialect::Text, Limits::default()).unwrap();
    let mut lines = Vec::new();
    while let Some(sample) = reader.next_sample().unwrap() {
        let labels: Vec<_> = sample.labels.iter().map(|l| format!("{}={:?}", l.name.text(), l.value)).collect();
        lines.push(format!(
            "{} [{}] {} {:?}",
            sample.name.text(),
            labels.join(" "),
            sample.value,
            sample.timestamp_millis
        ));
    }
    let expected = [
        r#"vecdb_odd_labels [path="a,b=\"c\"{d}\\e\nf" node="é"] 1 None"#,
        r#"vecdb_odd_labels [path="spaces" node="n1"] 2 Some(1395066363000)"#,
        r#"vecdb_odd_labels [path="" node=""] inf None"#,
        r#"vecdb_odd_labels [path="}" node="="] NaN None"#,
        r#"vecdb_odd_labels [path="neg" node="n"] -inf None"#,
        r#"vecdb_odd_labels [path="exp" node="n"] 0.0000000015 None"#,
        r#"job:vecdb_rps:rate5m [cluster="prod"] 45.2 None"#,
        "vecdb_untyped_no_help [] 7 None",
        "vecdb_untyped_ts [] 8 Some(-1395066363000)",
        r#"vecdb_latency_seconds_bucket [le="0.1"] 3 None"#,
        r#"vecdb_latency_seconds_bucket [le="+Inf"] 5 None"#,
        "vecdb_latency_seconds_sum [] 1.25 None",
        "vecdb_latency_seconds_count [] 5 None",
        r#"vecdb_rpc_seconds [quantile="0.5"] 0.02 None"#,
        r#"vecdb_rpc_seconds [quantile="0.99"] NaN None"#,
        "vecdb_rpc_seconds_sum [] 3 None",
        "vecdb_rpc_seconds_count [] 100 None",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn reads_the_recorded_pages() {
    for (name, dialect) in [
        ("node_exporter-1.11.1.txt", Dialect::Text),
        ("node_exporter-1.5.0.txt", Dialect::Text),
        ("prometheus-3.5.3.txt", Dialect::Text),
        ("alertmanager-0.33.1.txt", Dialect::Text),
        ("python-client-0.26.0.txt", Dialect::Text),
        ("python-client-0.26.0.openmetrics.txt", Dialect::OpenMetrics),
        ("qdrant-1.19.0.txt", Dialect::Text),
    ] {
        let page = fixture(name);
        let series = stored(&page, dialect).unwrap_or_else(|error| panic!("{name}: {error}"));
        let lines = String::from_utf8(page).unwrap().lines().filter(|l| !l.starts_with('#')).count();
        assert_eq!(series.len(), lines, "{name}: every line that is no comment is a series");
    }
}

#[test]
fn both_writings_of_one_registry_say_the_same() {
    let values = |name, dialect| -> BTreeMap<String, String> {
        let series = stored(&fixture(name), dialect).unwrap();
        let told = comparable(series).into_iter().map(|(labels, value)| (format!("{labels:?}"), value));
        told.filter(|(labels, _)| !labels.contains("_created")).collect()
    };
    let text = values("python-client-0.26.0.txt", Dialect::Text);
    let open = values("python-client-0.26.0.openmetrics.txt", Dialect::OpenMetrics);
    assert_eq!(text, open);
}

#[test]
fn what_openmetrics_takes_and_refuses() {
    let good = [
        "# TYPE a info\na_info{v=\"1\"} 1\n# EOF\n",
        "# TYPE a stateset\n# TYPE b unknown\n# TYPE c gaugehistogram\n# UNIT d_bytes bytes\n# EOF",
        "a_total 1 # {trace_id=\"x\"} 0.5 1.5\n# EOF\n",
        "a_total{b=\"c\"} 1 2.5 # {} 0.5\n# EOF\n",
        "# EOF\n",
    ];
    for page in good {
        stored(page.as_bytes(), Dialect::OpenMetrics).unwrap_or_else(|error| panic!("{page:?}: {error}"));
    }
    let bad = [
        ("", "ends without # EOF"),
        ("a 1\n", "ends without # EOF"),
        ("a 1", "ends without # EOF"),
        ("a 1\n# EOF\nb 1\n", "after # EOF"),
        ("# TYPE a untyped\n# EOF\n", "no type"),
        ("# a comment\n# EOF\n", "no comments"),
        ("\n# EOF\n", "empty line"),
        ("a 1 # {b=\"c\"}\n# EOF\n", "exemplar is missing"),
        ("a 1 # 5\n# EOF\n", "labels of an exemplar"),
        ("a 1 NaN\n# EOF\n", "no timestamp"),
        ("a{b=\"c\nd\"} 1\n# EOF\n", "does not end"),
    ];
    for (page, says) in bad {
        let error = stored(page.as_bytes(), Dialect::OpenMetrics).expect_err(page);
        assert!(error.what.contains(says), "{page:?}: {error}");
    }
    let page = b"a_total 1 2.5 # {} 0.5\n# EOF\n";
    let mut reader = Reader::new(page, Dialect::OpenMetrics, Limits::default()).unwrap();
    assert_eq!(reader.next_sample().unwrap().unwrap().timestamp_millis, Some(2500));
}

#[test]
fn corners_of_the_text_format() {
    let good = [
        ("m.5\n", "m", 0.5),
        ("m{a=\"b\"}1\n", "m", 1.0),
        ("m{a=\"1\" b=\"2\"} 1\n", "m", 1.0),
        ("m{\"a b\"=\"1\"} 1\n", "m", 1.0),
        ("{\"a\\\"b\"} 1\n", "a\"b", 1.0),
        ("m{a=\"line\nbreak\"} 1\n", "m", 1.0),
        ("m 1 \n", "m", 1.0),
        ("m 9007199254740993\n", "m", 9007199254740993.0),
        ("# HELP m\n#TYPE m widget\nm 1\n", "m", 1.0),
        ("# TYPE \"a b\" gauge\nm 1\n", "m", 1.0),
    ];
    for (page, name, value) in good {
        let mut reader = Reader::new(page.as_bytes(), Dialect::Text, Limits::default()).unwrap();
        let sample = reader.next_sample().unwrap_or_else(|error| panic!("{page:?}: {error}")).expect(page);
        assert!(sample.name.is(name) && sample.value == value, "{page:?}: {sample:?}");
    }
    let bad = [
        "m +nan\n",
        "m 1e999\n",
        "m 0x1\n",
        "m +-1\n",
        "m{a=\"1\",,b=\"2\"} 1\n",
        "m{,} 1\n",
        "m{\"a\"} 1\n",
        "{a=\"1\"} 1\n",
        "{\"\"} 1\n",
        "m{\"\"=\"a\"} 1\n",
        "m{a=\"b\\\nc\"} 1\n",
        "m{a=\"1\"}{b=\"2\"} 1\n",
        "m{a=\"1\"\n} 1\n",
        "m 1 +5\n",
        "m 1 99999999999999999999\n",
        "m 1 2 3\n",
        "# TYPE m  gauge\n",
        "# TYPE m gauge \n",
        "# TYPE m\n",
        "# HELP 1m x\n",
        "m 1\n\0\n",
        "<html>\n",
    ];
    for page in bad {
        let read = stored(page.as_bytes(), Dialect::Text);
        assert!(read.is_err(), "{page:?} was read as {read:?}");
    }
}

#[test]
fn an_error_names_its_line() {
    let error = stored(b"# HELP m x\nm 1\n\nm{a=b} 2\n", Dialect::Text).unwrap_err();
    assert_eq!(error.to_string(), "line 4: a quoted label value is expected, not 'b'");
    let error = stored(b"m 1\nn \xff\n", Dialect::Text).unwrap_err();
    assert_eq!(error.to_string(), "line 2: not UTF-8");
}

#[test]
fn limits_hold() {
    let limits = Limits { line: 40, labels: 2, samples: 2 };
    let read = |page: &str| {
        let mut reader = Reader::new(page.as_bytes(), Dialect::Text, limits)?;
        while reader.next_sample()?.is_some() {}
        Ok::<_, PageError>(())
    };
    let long = "x".repeat(60);
    let cases = [
        (format!("m{{a=\"{long}\"}} 1\n"), "a quoted text does not end"),
        (format!("m{long} 1\n"), "longer than 40 bytes"),
        (format!("# {long}\n"), "longer than 40 bytes"),
        ("m{a=\"1\",b=\"2\",c=\"3\"} 1\n".into(), "more than 2 labels"),
        ("a 1\nb 1\nc 1\n".into(), "more than 2 samples"),
    ];
    for (page, says) in cases {
        let error = read(&page).expect_err(&page);
        assert!(error.what.contains(says), "{page:?}: {error}");
    }
    read("a{b=\"1\",c=\"2\"} 1\nb 1\n").unwrap();
}

#[test]
fn a_series_is_known_again_in_any_order_and_writing() {
    let identity = |line: &str| {
        let mut reader = Reader::new(line.as_bytes(), Dialect::Text, Limits::default()).unwrap();
        reader.next_sample().unwrap().unwrap().identity()
    };
    let one = identity("m{a=\"x\\q\",b=\"2\"} 1\n");
    assert_eq!(one, identity("m{b=\"2\",a=\"x\\\\q\"} 7\n"));
    assert_eq!(one, identity("{\"m\",b=\"2\",\"a\"=\"x\\q\",c=\"\"} 7\n"));
    for other in ["n{a=\"x\\q\",b=\"2\"} 1", "m{a=\"2\",b=\"x\\q\"} 1", "m{a=\"x\\q\"} 1", "m{a=\"xq\",b=\"2\"} 1"] {
        assert_ne!(one, identity(other), "{other}");
    }
}

/// Cuts, doubles and spoils parts of a page.
fn spoil(page: &mut Vec<u8>, edits: &[(usize, u8, u8)]) {
    for (place, what, byte) in edits {
        if page.is_empty() {
            return;
        }
        let at = place % page.len();
        match what % 5 {
            0 => page[at] = *byte,
            1 => page.insert(at, *byte),
            2 => drop(page.remove(at)),
            3 => page.truncate(at),
            _ => page.extend_from_within(at..),
        }
    }
}

const NASTY: &[u8] = b"{}\"\\=,# \t\n\r\0\xff\xc3+-.eEnNiI1";

fn edits() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    let byte = prop_oneof![proptest::sample::select(NASTY), any::<u8>()];
    proptest::collection::vec((any::<usize>(), any::<u8>(), byte), 0..6)
}

/// Reads it all and touches everything that is borrowed; gives how many samples there were.
fn walk(page: &[u8], dialect: Dialect) -> Result<usize, PageError> {
    let mut reader = Reader::new(page, dialect, Limits::default())?;
    let mut samples = 0;
    while let Some(sample) = reader.next_sample()? {
        samples += 1;
        sample.identity();
        let texts = sample.labels.iter().flat_map(|l| [l.name.text(), l.value.text()]);
        assert!(texts.chain([sample.name.text()]).all(|text| text.len() <= page.len()));
    }
    Ok(samples)
}

proptest! {
    #[test]
    fn no_page_makes_the_reader_panic(
        name in proptest::sample::select(vec![
            "torture.txt", "python-client-0.26.0.openmetrics.txt", "python-client-0.26.0.txt", "qdrant-1.19.0.txt",
        ]),
        edits in edits(),
        open in any::<bool>(),
    ) {
        let mut page = fixture(name);
        spoil(&mut page, &edits);
        let _ = walk(&page, if open { Dialect::OpenMetrics } else { Dialect::Text });
    }

    #[test]
    fn no_bytes_do_either(page in proptest::collection::vec(prop_oneof![proptest::sample::select(NASTY), any::<u8>()], 0..200)) {
        for dialect in [Dialect::Text, Dialect::OpenMetrics] {
            let _ = walk(&page, dialect);
        }
    }

    #[test]
    fn what_is_written_is_read(
        series in proptest::collection::vec(("[a-z_:][a-z0-9_:]{0,8}", proptest::collection::btree_map("[a-z]{1,4}", "\\PC{0,6}|[\\\\\"\n]{1,3}", 0..4), any::<f64>()), 0..8),
    ) {
        let mut page = String::new();
        for (name, labels, value) in &series {
            let escaped = |v: &str| v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let labels: Vec<_> = labels.iter().map(|(n, v)| format!("{n}=\"{}\"", escaped(v))).collect();
            page += &format!("{name}{{{}}} {value:e}\n", labels.join(","));
        }
        let mut reader = Reader::new(page.as_bytes(), Dialect::Text, Limits::default()).unwrap();
        for (name, labels, value) in &series {
            let sample = reader.next_sample().unwrap().expect("one sample per series");
            prop_assert!(sample.name.is(name));
            prop_assert!(sample.value == *value || (sample.value.is_nan() && value.is_nan()));
            prop_assert_eq!(sample.labels.len(), labels.len());
            for (label, text) in labels {
                prop_assert_eq!(sample.label(label).unwrap().text(), text.as_str());
                prop_assert!(sample.label(label).unwrap().is(text));
            }
        }
        prop_assert!(reader.next_sample().unwrap().is_none());
    }
}
