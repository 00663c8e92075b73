//! The lines, bounds and times of a pool: one table gives their names, limits and values per profile. Pure.

use serde::{Deserialize, Serialize};

/// Lines and bounds of one pool, with exactly these names in config, API and docs. Units: shares 0..1, latency in
/// milliseconds, times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScalingThresholds {
    pub cpu_threshold_high: f64,
    pub cpu_threshold_low: f64,
    pub memory_threshold_high: f64,
    pub memory_threshold_low: f64,
    pub storage_threshold_high: f64,
    pub storage_threshold_low: f64,
    pub latency_threshold_high: f64,
    pub latency_threshold_low: f64,
    pub error_rate_threshold_high: f64,
    pub error_rate_threshold_low: f64,
    pub min_nodes: u32,
    pub max_nodes: u32,
    pub scale_up_cooldown: f64,
    pub scale_down_cooldown: f64,
    pub health_check_interval: f64,
    pub healthy_ratio_min: f64,
    /// Mean over nodes, replicas counted; 0 switches the capacity trigger off.
    pub max_vectors_per_node: u64,
}

/// A named set of defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    #[default]
    Default,
    Development,
    Production,
}

impl Profile {
    pub const ALL: [Profile; 3] = [Profile::Default, Profile::Development, Profile::Production];

    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Default => "default",
            Profile::Development => "development",
            Profile::Production => "production",
        }
    }
}

impl ScalingThresholds {
    /// The defaults of a profile; the only place where they stand.
    pub const fn of(profile: Profile) -> ScalingThresholds {
        let default = ScalingThresholds {
            cpu_threshold_high: 0.75,
            cpu_threshold_low: 0.30,
            memory_threshold_high: 0.80,
            memory_threshold_low: 0.40,
            storage_threshold_high: 0.85,
            storage_threshold_low: 0.50,
            latency_threshold_high: 500.0,
            latency_threshold_low: 100.0,
            error_rate_threshold_high: 0.05,
            error_rate_threshold_low: 0.01,
            min_nodes: 3,
            max_nodes: 10,
            scale_up_cooldown: 300.0,
            scale_down_cooldown: 600.0,
            health_check_interval: 30.0,
            healthy_ratio_min: 0.80,
            max_vectors_per_node: 1_000_000,
        };
        match profile {
            Profile::Default => default,
            Profile::Development => ScalingThresholds {
                cpu_threshold_high: 0.30,
                cpu_threshold_low: 0.10,
                memory_threshold_high: 0.40,
                memory_threshold_low: 0.15,
                latency_threshold_high: 200.0,
                latency_threshold_low: 50.0,
                min_nodes: 2,
                max_nodes: 5,
                scale_up_cooldown: 30.0,
                scale_down_cooldown: 60.0,
                ..default
            },
            Profile::Production => ScalingThresholds {
                cpu_threshold_high: 0.85,
                memory_threshold_high: 0.90,
                latency_threshold_high: 1000.0,
                min_nodes: 5,
                max_nodes: 20,
                scale_up_cooldown: 600.0,
                scale_down_cooldown: 1800.0,
                max_vectors_per_node: 0,
                ..default
            },
        }
    }
}

/// A threshold that cannot stand, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThresholdProblem {
    pub name: &'static str,
    pub what: String,
    pub hint: String,
}

/// The values one threshold may take.
#[derive(Clone, Copy, PartialEq)]
enum Limits {
    Share,
    AboveZero,
    Seconds { least: f64 },
    Count { least: f64, most: f64 },
}

/// Reads and writes one threshold as a number.
struct Field {
    name: &'static str,
    limits: Limits,
    get: fn(&ScalingThresholds) -> f64,
    set: fn(&mut ScalingThresholds, f64),
}

macro_rules! field {
    ($name:ident, $limits:expr) => {
        Field { name: stringify!($name), limits: $limits, get: |t| t.$name as f64, set: |t, v| t.$name = v as _ }
    };
}

const FIELDS: [Field; 17] = [
    field!(cpu_threshold_high, Limits::Share),
    field!(cpu_threshold_low, Limits::Share),
    field!(memory_threshold_high, Limits::Share),
    field!(memory_threshold_low, Limits::Share),
    field!(storage_threshold_high, Limits::Share),
    field!(storage_threshold_low, Limits::Share),
    field!(latency_threshold_high, Limits::AboveZero),
    field!(latency_threshold_low, Limits::AboveZero),
    field!(error_rate_threshold_high, Limits::Share),
    field!(error_rate_threshold_low, Limits::Share),
    field!(min_nodes, Limits::Count { least: 1.0, most: 1000.0 }),
    field!(max_nodes, Limits::Count { least: 1.0, most: 1000.0 }),
    field!(scale_up_cooldown, Limits::Seconds { least: 0.0 }),
    field!(scale_down_cooldown, Limits::Seconds { least: 0.0 }),
    field!(health_check_interval, Limits::Seconds { least: 1.0 }),
    field!(healthy_ratio_min, Limits::Share),
    field!(max_vectors_per_node, Limits::Count { least: 0.0, most: 1e15 }),
];

/// `(low, high)` pairs of which the first must lie below the second.
const PAIRS: [(&str, &str); 5] = [
    ("cpu_threshold_low", "cpu_threshold_high"),
    ("memory_threshold_low", "memory_threshold_high"),
    ("storage_threshold_low", "storage_threshold_high"),
    ("latency_threshold_low", "latency_threshold_high"),
    ("error_rate_threshold_low", "error_rate_threshold_high"),
];

impl Limits {
    fn refuse(self, value: f64) -> Option<(String, String)> {
        let (ok, hint) = match self {
            _ if !value.is_finite() => (false, "a finite number is needed".to_string()),
            Limits::Share => ((0.0..=1.0).contains(&value), "a share between 0 and 1, such as 0.75".into()),
            Limits::AboveZero => (value > 0.0, "milliseconds, above 0".into()),
            Limits::Seconds { least } => {
                ((least..=31_536_000.0).contains(&value), format!("seconds, at least {least}, at most a year"))
            }
            Limits::Count { least, most } => (
                (least..=most).contains(&value) && value.fract() == 0.0,
                format!("a whole number from {least} to {most}"),
            ),
        };
        (!ok).then(|| (format!("{value} is not allowed"), hint))
    }
}

impl ScalingThresholds {
    /// All names, in the order of the documentation.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FIELDS.iter().map(|f| f.name)
    }

    /// The value by name; `None` for a name that is no threshold.
    pub fn get(&self, name: &str) -> Option<f64> {
        FIELDS.iter().find(|f| f.name == name).map(|f| (f.get)(self))
    }

    /// Sets one value; whether the whole then stands is asked by [`ScalingThresholds::problems`].
    ///
    /// # Errors
    /// When the value is outside what this threshold may take. `None` when there is no such threshold.
    pub fn set(&mut self, name: &str, value: f64) -> Option<Result<(), ThresholdProblem>> {
        let field = FIELDS.iter().find(|f| f.name == name)?;
        Some(match field.limits.refuse(value) {
            Some((what, hint)) => Err(ThresholdProblem { name: field.name, what, hint }),
            None => {
                (field.set)(self, value);
                Ok(())
            }
        })
    }

    /// Everything that is wrong with the whole; the one check for file, API and start.
    pub fn problems(&self) -> Vec<ThresholdProblem> {
        let mut problems: Vec<ThresholdProblem> = FIELDS
            .iter()
            .filter_map(|f| {
                f.limits.refuse((f.get)(self)).map(|(what, hint)| ThresholdProblem { name: f.name, what, hint })
            })
            .collect();
        let value = |name: &str| self.get(name).expect("the pairs name fields");
        for (low, high) in PAIRS {
            if value(low) >= value(high) {
                problems.push(ThresholdProblem {
                    name: low,
                    what: format!("{} is not below {high} ({})", value(low), value(high)),
                    hint: "leave a gap, or the cluster will grow and shrink in turns".into(),
                });
            }
        }
        if self.max_nodes < self.min_nodes {
            problems.push(ThresholdProblem {
                name: "max_nodes",
                what: format!("{} is below min_nodes ({})", self.max_nodes, self.min_nodes),
                hint: "raise max_nodes or lower min_nodes".into(),
            });
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_stands() {
        for profile in Profile::ALL {
            assert_eq!(ScalingThresholds::of(profile).problems(), [], "{profile:?}");
        }
    }

    #[test]
    fn what_cannot_stand_is_named() {
        let cases: [(&str, f64, &str); 9] = [
            ("cpu_threshold_high", f64::NAN, "not allowed"),
            ("cpu_threshold_high", -0.1, "not allowed"),
            ("memory_threshold_high", 1.01, "not allowed"),
            ("latency_threshold_high", f64::INFINITY, "not allowed"),
            ("latency_threshold_low", 0.0, "not allowed"),
            ("min_nodes", 0.0, "not allowed"),
            ("min_nodes", 2.5, "not allowed"),
            ("max_nodes", 1001.0, "not allowed"),
            ("health_check_interval", 0.5, "not allowed"),
        ];
        for (name, value, says) in cases {
            let mut thresholds = ScalingThresholds::of(Profile::Default);
            let problem = thresholds.set(name, value).expect("a threshold").expect_err(name);
            assert!(problem.what.contains(says), "{name}={value}: {problem:?}");
            assert_eq!(thresholds, ScalingThresholds::of(Profile::Default), "a refused value changed something");
        }
        assert!(ScalingThresholds::of(Profile::Default).set("cpu_high", 0.5).is_none());
    }

    #[test]
    fn low_lines_lie_below_high_lines_and_min_below_max() {
        let mut thresholds = ScalingThresholds::of(Profile::Default);
        thresholds.cpu_threshold_low = 0.75;
        thresholds.max_nodes = 2;
        let names: Vec<_> = thresholds.problems().into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["cpu_threshold_low", "max_nodes"]);
    }
}
