//! Builds metric families for collectors that draw a whole table at once. Pure.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// One gauge or counter family under construction.
pub struct Family {
    family: MetricFamily,
    labels: &'static [&'static str],
    kind: MetricType,
    metrics: Vec<Metric>,
}

impl Family {
    /// A gauge family; `labels` are in alphabetical order, as Prometheus prints them.
    pub fn gauge(name: &str, labels: &'static [&'static str], help: &str) -> Family {
        Family::new(name, labels, help, MetricType::GAUGE)
    }

    pub fn counter(name: &str, labels: &'static [&'static str], help: &str) -> Family {
        Family::new(name, labels, help, MetricType::COUNTER)
    }

    fn new(name: &str, labels: &'static [&'static str], help: &str, kind: MetricType) -> Family {
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        Family { family, labels, kind, metrics: Vec::new() }
    }

    /// Adds a sample; a value that is not known, or is no finite number, adds none.
    pub fn sample<const N: usize>(&mut self, values: [&str; N], value: impl Into<Option<f64>>) {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.family.name());
        let Some(value) = value.into().filter(|v: &f64| v.is_finite()) else { return };
        let mut metric = Metric::from_label(self.labels.iter().zip(values).map(|(n, v)| label(n, v)).collect());
        match self.kind {
            MetricType::COUNTER => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.metrics.push(metric);
    }

    pub fn done(mut self) -> MetricFamily {
        self.family.set_metric(self.metrics);
        self.family
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.into());
    pair.set_value(value.into());
    pair
}
