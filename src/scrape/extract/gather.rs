//! Collects the samples that one source asks for while a page goes by. Pure.

use std::collections::{BTreeMap, HashSet};

use crate::model::{Gap, Raw, Signal, Stat};
use crate::scrape::exposition::{Sample, float};
use crate::scrape::settings::{Combine, Selector, Source, Whole};

use super::{Freshness, count, quotient};

/// The samples that one source has met so far.
pub(super) enum Gathering<'s> {
    Gauge { series: Matched<'s>, combine: Option<Combine>, factor: f64 },
    Quotient { part: Matched<'s>, all: Matched<'s>, whole: &'s Whole, complement: bool },
    Counter { series: Matched<'s>, factor: f64 },
    Ratio { failed: Matched<'s>, total: Matched<'s> },
    Histogram(Box<Buckets<'s>>),
}

impl<'s> Gathering<'s> {
    pub(super) fn of(source: &'s Source) -> Gathering<'s> {
        match source {
            Source::Gauge { series, combine, factor } => {
                Gathering::Gauge { series: Matched::of(series), combine: *combine, factor: *factor }
            }
            Source::Quotient { part, whole, complement } => {
                let all = Matched::of(&whole.series);
                Gathering::Quotient { part: Matched::of(part), all, whole, complement: *complement }
            }
            Source::Counter { series, factor } => Gathering::Counter { series: Matched::of(series), factor: *factor },
            Source::Ratio { failed, total } => {
                Gathering::Ratio { failed: Matched::of(failed), total: Matched::of(total) }
            }
            Source::Histogram { series, stat, factor } => Gathering::Histogram(Box::new(Buckets {
                stat: *stat,
                factor: *factor,
                sums: Matched::of(series),
                counts: Matched::of(series),
                buckets: Matched::of(series),
                by_bound: BTreeMap::new(),
                bad_bound: None,
            })),
        }
    }

    pub(super) fn offer(&mut self, sample: &Sample<'_, '_>, fresh: Freshness) {
        match self {
            Gathering::Gauge { series, .. } | Gathering::Counter { series, .. } => {
                series.offer(sample, "", fresh);
            }
            Gathering::Quotient { part: one, all: other, .. } | Gathering::Ratio { failed: one, total: other } => {
                one.offer(sample, "", fresh);
                other.offer(sample, "", fresh);
            }
            Gathering::Histogram(buckets) => buckets.offer(sample, fresh),
        }
    }

    pub(super) fn finish(self, signal: &Signal) -> Result<Raw, Gap> {
        match self {
            Gathering::Gauge { series, combine, factor } => {
                Ok(Raw::Gauge(signal.checked(series.gauge(combine)? * factor)?))
            }
            Gathering::Quotient { part, all, whole, complement } => {
                let share = quotient(part.gauge(None)?, all.gauge(None)?, whole, complement)?;
                Ok(Raw::Gauge(signal.checked(share)?))
            }
            Gathering::Counter { series, factor } => Ok(Raw::Counter(count(series.summed()? * factor)?)),
            Gathering::Ratio { failed, total } => {
                let total = total.summed()?;
                // A counter by status has no series for a status that never came: none failed.
                let failed = if failed.samples == 0 { 0.0 } else { failed.summed()? };
                Ok(Raw::Ratio { failed, total })
            }
            Gathering::Histogram(buckets) => buckets.finish(),
        }
    }
}

/// The samples of one selector: how many, and their sum and highest. Of two samples of one series the first counts.
pub(super) struct Matched<'s> {
    selector: &'s Selector,
    samples: u32,
    sum: f64,
    highest: f64,
    /// The age of the oldest sample that is too old, seconds.
    stale: Option<u64>,
    seen: HashSet<u64>,
}

impl<'s> Matched<'s> {
    fn of(selector: &'s Selector) -> Matched<'s> {
        Matched { selector, samples: 0, sum: 0.0, highest: f64::NEG_INFINITY, stale: None, seen: HashSet::new() }
    }

    /// Takes the sample if it is named `<selector's name><suffix>` and its labels match; says whether it did.
    fn offer(&mut self, sample: &Sample<'_, '_>, suffix: &str, fresh: Freshness) -> bool {
        let of = |selector: &Selector| sample.name.is_joined(&selector.name, suffix) && selector.matches_labels(sample);
        let meant = of(self.selector) || self.selector.twin.as_deref().is_some_and(of);
        if !meant || !self.seen.insert(sample.identity()) {
            return false;
        }
        self.stale = self.stale.max(fresh.stale(sample.timestamp_millis));
        self.samples += 1;
        self.sum += sample.value;
        // `f64::max` would pass over a NaN.
        self.highest = if sample.value.is_nan() { f64::NAN } else { self.highest.max(sample.value) };
        true
    }

    /// Something matched, and none of it is too old.
    fn there(&self) -> Result<(), Gap> {
        match (self.samples, self.stale) {
            (0, _) if !self.selector.starts_absent => Err(Gap::NoSeries(self.selector.to_string())),
            (_, Some(age)) => Err(Gap::Stale(age)),
            _ => Ok(()),
        }
    }

    fn summed(&self) -> Result<f64, Gap> {
        self.there()?;
        count(self.sum)
    }

    fn gauge(&self, combine: Option<Combine>) -> Result<f64, Gap> {
        self.there()?;
        let value = match combine {
            _ if self.samples == 1 => self.sum,
            None => return Err(Gap::Ambiguous(self.samples)),
            Some(Combine::Sum) => self.sum,
            Some(Combine::Mean) => self.sum / f64::from(self.samples),
            Some(Combine::Max) if self.sum.is_nan() => f64::NAN,
            Some(Combine::Max) => self.highest,
        };
        if value.is_finite() { Ok(value) } else { Err(Gap::NotANumber(format!("{value}"))) }
    }
}

/// The series of a histogram, all matching ones summed; of a summary, sum and count give a mean too.
pub(super) struct Buckets<'s> {
    stat: Stat,
    factor: f64,
    sums: Matched<'s>,
    counts: Matched<'s>,
    buckets: Matched<'s>,
    /// Keyed by the order-preserving bits of the bound.
    by_bound: BTreeMap<u64, f64>,
    bad_bound: Option<String>,
}

impl Buckets<'_> {
    fn offer(&mut self, sample: &Sample<'_, '_>, fresh: Freshness) {
        if self.sums.offer(sample, "_sum", fresh)
            || self.counts.offer(sample, "_count", fresh)
            || !self.buckets.offer(sample, "_bucket", fresh)
        {
            return;
        }
        let le = sample.label("le").map(|le| le.text()).unwrap_or_default();
        match float(&le).filter(|bound| !bound.is_nan()) {
            Some(bound) => *self.by_bound.entry(ordered_bits(bound)).or_default() += sample.value,
            None => self.bad_bound = Some(le.into_owned()),
        }
    }

    fn finish(self) -> Result<Raw, Gap> {
        let name = &self.counts.selector.name;
        if let Some(le) = self.bad_bound {
            return Err(Gap::NotANumber(format!("{name}_bucket has le={le:?}")));
        }
        let mut buckets: Vec<(f64, f64)> =
            self.by_bound.into_iter().map(|(bits, n)| Ok((bound_of(bits), count(n)?))).collect::<Result<_, Gap>>()?;
        let endless = buckets.last().filter(|(bound, _)| *bound == f64::INFINITY).map(|(_, n)| *n);
        // `_count` and the bucket +Inf say the same; either will do.
        let count = match (self.counts.there(), endless) {
            (Err(Gap::NoSeries(_)), Some(endless)) => self.buckets.there().map(|()| endless)?,
            (Err(gap), _) => return Err(gap),
            (Ok(()), _) => self.counts.summed()?,
        };
        let sum = match self.stat {
            Stat::Mean => {
                buckets.clear(); // not needed, and there may be many
                self.sums.summed()?
            }
            Stat::P50 | Stat::P95 | Stat::P99 => {
                self.buckets.there().map_err(|gap| match gap {
                    Gap::NoSeries(_) => Gap::NoSeries(format!("{name}_bucket, needed for a quantile")),
                    other => other,
                })?;
                if endless.is_none() {
                    buckets.push((f64::INFINITY, count));
                }
                0.0
            }
        };
        Ok(Raw::Histogram { buckets, sum, count, factor: self.factor, stat: self.stat })
    }
}

/// Bits that sort as the numbers do.
fn ordered_bits(bound: f64) -> u64 {
    let bits = (bound + 0.0).to_bits(); // -0 is 0
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn bound_of(bits: u64) -> f64 {
    f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits })
}
