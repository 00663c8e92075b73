//! JSON stats pages: a selector's name is a JSON pointer to a number. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::{Gap, Raw, Signal};
use crate::scrape::settings::{Selector, Source};

use super::{Extract, all, count, quotient};

/// Reads a JSON page. A page that is no JSON leaves none of its signals known.
pub fn from_json(page: &[u8], signals: &BTreeMap<Signal, Source>) -> Extract {
    match serde_json::from_slice::<Value>(page) {
        Ok(page) => signals.iter().map(|(signal, source)| (signal.clone(), raw(&page, signal, source))).collect(),
        Err(error) => all(signals, &Gap::Unreadable(format!("no JSON: {error}"))),
    }
}

fn raw(page: &Value, signal: &Signal, source: &Source) -> Result<Raw, Gap> {
    match source {
        Source::Gauge { series, factor, .. } => Ok(Raw::Gauge(signal.checked(number(page, series)? * factor)?)),
        Source::Quotient { part, whole, complement } => {
            let share = quotient(number(page, part)?, number(page, &whole.series)?, whole, *complement)?;
            Ok(Raw::Gauge(signal.checked(share)?))
        }
        Source::Counter { series, factor } => Ok(Raw::Counter(count(number(page, series)? * factor)?)),
        Source::Ratio { failed, total } => {
            Ok(Raw::Ratio { failed: count(number(page, failed)?)?, total: count(number(page, total)?)? })
        }
        Source::Histogram { series, .. } => Err(Gap::NoSeries(format!("{series}: a JSON page has no histograms"))),
    }
}

/// `null` is as good as nothing there.
fn number(page: &Value, pointer: &Selector) -> Result<f64, Gap> {
    match page.pointer(&pointer.name) {
        None | Some(Value::Null) => Err(Gap::NoSeries(pointer.name.clone())),
        Some(Value::Number(number)) => Ok(number.as_f64().unwrap_or(f64::NAN)),
        Some(_) => Err(Gap::NotANumber(format!("{} is no number", pointer.name))),
    }
}
