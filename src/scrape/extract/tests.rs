//! Pages and sources -> what is read of them, and why the rest is a gap.

use super::*;
use crate::model::Stat;
use crate::scrape::settings::{Combine, Selector, Whole};

fn series(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

fn gauge(text: &str, combine: Option<Combine>, factor: f64) -> Source {
    Source::Gauge { series: series(text), combine, factor }
}

fn histogram(stat: Stat) -> Source {
    Source::Histogram { series: series("h"), stat, factor: 1000.0 }
}

fn ratio(failed: &str, total: &str) -> Source {
    Source::Ratio { failed: series(failed), total: series(total) }
}

fn share(part: &str, whole: &str, complement: bool) -> Source {
    Source::Quotient { part: series(part), whole: Whole::plain(series(whole)), complement }
}

/// At 100 s, with an interval of 30 s.
fn read(signal: Signal, source: Source, page: &str) -> Result<Raw, Gap> {
    let fresh = Freshness::two(Duration::from_secs(30), Timestamp::from_millis(100_000));
    from_text(page.as_bytes(), Dialect::Text, &BTreeMap::from([(signal.clone(), source)]), fresh)
        .remove(&signal)
        .expect("one entry per signal")
}

#[test]
fn what_a_page_says() {
    use Combine::{Max, Mean, Sum};
    use Signal::{Cpu, ErrorRate, Latency, Throughput, Vectors};
    let custom = || Signal::Custom("queue".into());
    let not = |text: &str| Err(Gap::NotANumber(text.into()));
    let none = |text: &str| Err(Gap::NoSeries(text.into()));
    let two = "m{a=\"1\"} 4\nm{a=\"2\"} 2\n";
    type Case<'c> = (&'c str, Signal, Source, &'c str, Result<Raw, Gap>);
    let cases: Vec<Case<'_>> = vec![
        ("one gauge", Vectors, gauge("m", None, 1.0), "m 3\n", Ok(Raw::Gauge(3.0))),
        ("units", Latency, gauge("m", None, 1000.0), "m 0.25\n", Ok(Raw::Gauge(250.0))),
        ("two gauges need a combine", Vectors, gauge("m", None, 1.0), two, Err(Gap::Ambiguous(2))),
        ("sum", Vectors, gauge("m", Some(Sum), 1.0), two, Ok(Raw::Gauge(6.0))),
        ("max", Vectors, gauge("m", Some(Max), 1.0), two, Ok(Raw::Gauge(4.0))),
        ("mean", Vectors, gauge("m", Some(Mean), 1.0), two, Ok(Raw::Gauge(3.0))),
        ("matchers choose", Vectors, gauge("m{a=\"2\"}", None, 1.0), two, Ok(Raw::Gauge(2.0))),
        ("the first of a series", Vectors, gauge("m", None, 1.0), "m 1\nm 2\n", Ok(Raw::Gauge(1.0))),
        ("none", Vectors, gauge("m{a=\"3\"}", None, 1.0), two, none("m{a=\"3\"}")),
        ("max sees a NaN", Vectors, gauge("m", Some(Max), 1.0), "m{a=\"1\"} NaN\nm 1\n", not("NaN")),
        ("NaN", Cpu, gauge("m", None, 1.0), "m NaN\n", not("NaN")),
        ("infinity", Throughput, gauge("m", None, 1.0), "m +Inf\n", not("inf")),
        ("a share has an end", Cpu, gauge("m", None, 1.0), "m 1\n", Ok(Raw::Gauge(1.0))),
        ("a little over is all", Cpu, gauge("m", None, 1.0), "m 1.02\n", Ok(Raw::Gauge(1.0))),
        ("a percentage is no share", Cpu, gauge("m", None, 1.0), "m 85\n", not("85")),
        ("unless it says so", Cpu, gauge("m", None, 0.01), "m 85\n", Ok(Raw::Gauge(0.85))),
        ("negative", Latency, gauge("m", None, 1.0), "m -1\n", not("-1")),
        ("a custom one may be", custom(), gauge("m", None, 1.0), "m -1\n", Ok(Raw::Gauge(-1.0))),
        ("part of whole", Cpu, share("p", "w", false), "p 1\nw 4\n", Ok(Raw::Gauge(0.25))),
        ("and what is left", Cpu, share("p", "w", true), "p 1\nw 4\n", Ok(Raw::Gauge(0.75))),
        ("of nothing", Cpu, share("p", "w", false), "p 1\nw 0\n", not("1 of 0")),
        ("without a whole", Cpu, share("p", "w", false), "p 1\n", none("w")),
        (
            "counters add up",
            Throughput,
            Source::Counter { series: series("m"), factor: 1.0 },
            two,
            Ok(Raw::Counter(6.0)),
        ),
        ("a NaN in a sum", Throughput, Source::Counter { series: series("m"), factor: 1.0 }, "m NaN\n", not("NaN")),
        ("no counter is not 0", Throughput, Source::Counter { series: series("x"), factor: 1.0 }, two, none("x")),
        ("ratio", ErrorRate, ratio("m{a=\"2\"}", "m"), two, Ok(Raw::Ratio { failed: 2.0, total: 6.0 })),
        ("nothing failed yet", ErrorRate, ratio("m{a=\"5\"}", "m"), two, Ok(Raw::Ratio { failed: 0.0, total: 6.0 })),
        ("nothing at all", ErrorRate, ratio("x{a=\"5\"}", "x"), two, none("x")),
        ("old", Cpu, gauge("m", None, 1.0), "m 0.5 30000\n", Err(Gap::Stale(70))),
        ("two intervals old", Cpu, gauge("m", None, 1.0), "m 0.5 40000\n", Ok(Raw::Gauge(0.5))),
        ("one of two is old", Vectors, gauge("m", Some(Sum), 1.0), "m{a=\"1\"} 4 1000\nm 2\n", Err(Gap::Stale(99))),
        (
            "an error elsewhere",
            Cpu,
            gauge("m", None, 1.0),
            "m 0.5\nn x\n",
            Err(Gap::Unreadable("line 2: \"x\" is no number".into())),
        ),
    ];
    for (name, signal, source, page, expected) in cases {
        assert_eq!(read(signal, source, page), expected, "{name}");
    }
}

#[test]
fn histograms_add_up_and_heal() {
    let inf = f64::INFINITY;
    let raw = |buckets: &[(f64, f64)], sum: f64, count: f64, stat: Stat| {
        Ok(Raw::Histogram { buckets: buckets.to_vec(), sum, count, factor: 1000.0, stat })
    };
    let whole = "h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_sum 4\nh_count 3\n";
    let two = "h_bucket{a=\"1\",le=\"1.0\"} 2\nh_bucket{a=\"2\",le=\"1\"} 1\nh_bucket{a=\"1\",le=\"+Inf\"} 3\n\
               h_bucket{a=\"2\",le=\"+Inf\"} 1\nh_sum{a=\"1\"} 4\nh_sum{a=\"2\"} 1\nh_count{a=\"1\"} 3\nh_count{a=\"2\"} 1\n";
    let cases = [
        ("quantile", Stat::P95, whole, raw(&[(1.0, 2.0), (inf, 3.0)], 0.0, 3.0, Stat::P95)),
        ("mean", Stat::Mean, whole, raw(&[], 4.0, 3.0, Stat::Mean)),
        ("two series", Stat::P50, two, raw(&[(1.0, 3.0), (inf, 4.0)], 0.0, 4.0, Stat::P50)),
        (
            "no +Inf",
            Stat::P50,
            "h_bucket{le=\"1\"} 2\nh_count 3\n",
            raw(&[(1.0, 2.0), (inf, 3.0)], 0.0, 3.0, Stat::P50),
        ),
        ("no count", Stat::Mean, "h_bucket{le=\"+Inf\"} 3\nh_sum 6\n", raw(&[], 6.0, 3.0, Stat::Mean)),
        (
            "a summary has a mean",
            Stat::Mean,
            "h{quantile=\"0.5\"} 1\nh_sum 4\nh_count 3\n",
            raw(&[], 4.0, 3.0, Stat::Mean),
        ),
        (
            "but no quantile of ours",
            Stat::P99,
            "h_sum 4\nh_count 3\n",
            Err(Gap::NoSeries("h_bucket, needed for a quantile".into())),
        ),
        ("neither count nor +Inf", Stat::P50, "h_bucket{le=\"1\"} 2\n", Err(Gap::NoSeries("h".into()))),
        (
            "a bad bound",
            Stat::P50,
            "h_bucket{le=\"x\"} 2\nh_count 2\n",
            Err(Gap::NotANumber("h_bucket has le=\"x\"".into())),
        ),
        ("a NaN", Stat::Mean, "h_sum NaN\nh_count 2\n", Err(Gap::NotANumber("NaN".into()))),
        ("old", Stat::Mean, "h_sum 1 1000\nh_count 2 1000\n", Err(Gap::Stale(99))),
    ];
    for (name, stat, page, expected) in cases {
        assert_eq!(read(Signal::Latency, histogram(stat), page), expected, "{name}");
    }
}

#[test]
fn json_pages() {
    let page =
        br#"{"cpu": {"usage": 0.5}, "mem": {"used": 3, "all": 4}, "ok": true, "none": null, "n": 7, "deep": [1, 2]}"#;
    let not = |text: &str| Err(Gap::NotANumber(text.into()));
    let cases = [
        (Signal::Cpu, gauge("/cpu/usage", None, 1.0), Ok(Raw::Gauge(0.5))),
        (Signal::Memory, share("/mem/used", "/mem/all", false), Ok(Raw::Gauge(0.75))),
        (Signal::Vectors, gauge("/deep/1", None, 1.0), Ok(Raw::Gauge(2.0))),
        (Signal::Throughput, Source::Counter { series: series("/n"), factor: 1.0 }, Ok(Raw::Counter(7.0))),
        (Signal::ErrorRate, ratio("/deep/0", "/n"), Ok(Raw::Ratio { failed: 1.0, total: 7.0 })),
        (Signal::Storage, gauge("/ok", None, 1.0), not("/ok is no number")),
        (Signal::Latency, gauge("/none", None, 1.0), Err(Gap::NoSeries("/none".into()))),
        (Signal::Custom("q".into()), gauge("/gone", None, 1.0), Err(Gap::NoSeries("/gone".into()))),
    ];
    for (signal, source, expected) in cases {
        let read = from_json(page, &BTreeMap::from([(signal.clone(), source)]));
        assert_eq!(read[&signal], expected, "{signal}");
    }
    let read = from_json(b"{\"cpu\": 1", &BTreeMap::from([(Signal::Cpu, gauge("/cpu", None, 1.0))]));
    assert!(matches!(&read[&Signal::Cpu], Err(Gap::Unreadable(why)) if why.starts_with("no JSON")), "{read:?}");
}

#[test]
fn bounds_keep_their_order() {
    let bounds = [f64::NEG_INFINITY, -2.0, -1.0, 0.0, 0.1, 1.0, 1e300, f64::INFINITY];
    let page: String = bounds.iter().rev().map(|le| format!("h_bucket{{le=\"{le}\"}} 1\n")).collect();
    let Ok(Raw::Histogram { buckets, .. }) = read(Signal::Latency, histogram(Stat::P50), &page) else { panic!() };
    assert_eq!(buckets.iter().map(|(bound, _)| *bound).collect::<Vec<_>>(), bounds);
}
