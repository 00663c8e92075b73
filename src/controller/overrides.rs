//! Thresholds as the file has them, with what people changed by the API on top; what scheduled windows lay over both is
//! `schedule`'s. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Override, ScalingThresholds, Source, ThresholdProblem, ThresholdSource, Timestamp};
use crate::schedule::Window;

/// The file's thresholds and the overrides over them.
#[derive(Clone, Debug)]
pub struct Settings {
    base: ScalingThresholds,
    from_file: Vec<&'static str>,
    /// They must fit over the whole, each by itself.
    windows: Vec<Arc<Window>>,
    overrides: Vec<Override>,
}

impl Settings {
    /// `from_file` names the thresholds that the file sets itself; the others are the profile's.
    pub fn new(
        base: ScalingThresholds,
        from_file: Vec<&'static str>,
        windows: Vec<Arc<Window>>,
        overrides: Vec<Override>,
    ) -> Settings {
        Settings { base, from_file, windows, overrides }
    }

    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// What holds while no window is open.
    pub fn effective(&self) -> ScalingThresholds {
        let mut thresholds = self.base;
        for change in &self.overrides {
            thresholds.set(&change.name, change.value);
        }
        thresholds
    }

    /// Everything wrong with the whole; not empty when a new file and an old override do not fit together.
    pub fn problems(&self) -> Vec<ThresholdProblem> {
        self.problems_of(&self.effective())
    }

    fn problems_of(&self, whole: &ScalingThresholds) -> Vec<ThresholdProblem> {
        let problems = whole.problems();
        if !problems.is_empty() {
            return problems;
        }
        let with = self.windows.iter().flat_map(|window| window.problems(whole).into_iter().map(move |p| (window, p)));
        let told = |(window, p): (&Arc<Window>, ThresholdProblem)| {
            let what = format!("{}, while window {} is open", p.what, window.name);
            ThresholdProblem { what, ..p }
        };
        with.map(told).collect()
    }

    /// The settings with `changes` on top, checked as a whole.
    ///
    /// # Errors
    /// All that is wrong, one sentence each; the settings themselves stay as they were.
    pub fn with(
        &self,
        changes: &BTreeMap<String, f64>,
        by: &str,
        reason: Option<&str>,
        ttl: Option<Duration>,
        now: Timestamp,
    ) -> Result<Settings, Vec<String>> {
        let mut problems = Vec::new();
        let mut trial = self.effective();
        let mut next = self.clone();
        for (name, &value) in changes {
            match trial.set(name, value) {
                None => problems.push(format!("{name}: there is no such threshold")),
                Some(Err(problem)) => problems.push(in_words(&problem)),
                Some(Ok(())) => {
                    next.overrides.retain(|o| &o.name != name);
                    next.overrides.push(Override {
                        name: name.clone(),
                        value,
                        by: by.into(),
                        since: now,
                        until: ttl.map(|ttl| now.plus(ttl)),
                        reason: reason.map(Into::into),
                    });
                }
            }
        }
        problems.extend(self.problems_of(&trial).iter().map(in_words));
        if problems.is_empty() { Ok(next) } else { Err(problems) }
    }

    /// The settings without one override, or without any. `None` when there is no such override.
    ///
    /// # Errors
    /// When what is left does not stand as a whole.
    pub fn without(&self, name: Option<&str>) -> Option<Result<Settings, Vec<String>>> {
        let mut next = self.clone();
        next.overrides.retain(|o| name.is_some_and(|name| o.name != name));
        if name.is_some() && next.overrides.len() == self.overrides.len() {
            return None;
        }
        let problems: Vec<String> = next.problems().iter().map(in_words).collect();
        Some(if problems.is_empty() { Ok(next) } else { Err(problems) })
    }

    /// The settings without the overrides whose time is up, and those overrides; `None` when there are none.
    /// An override stays while the rest would not stand without it.
    pub fn expired(&self, now: Timestamp) -> Option<(Settings, Vec<Override>)> {
        let (over, kept): (Vec<_>, Vec<_>) =
            self.overrides.iter().cloned().partition(|o| o.until.is_some_and(|until| until <= now));
        let next = Settings { overrides: kept, ..self.clone() };
        (!over.is_empty() && next.problems().is_empty()).then_some((next, over))
    }

    /// The same overrides over another file.
    pub fn rebased(
        &self,
        base: ScalingThresholds,
        from_file: Vec<&'static str>,
        windows: Vec<Arc<Window>>,
    ) -> Settings {
        Settings { base, from_file, windows, overrides: self.overrides.clone() }
    }

    /// Where each threshold comes from.
    pub fn sources(&self) -> BTreeMap<String, ThresholdSource> {
        let plain = |source| ThresholdSource { source, by: None, since: None, until: None, reason: None };
        let mut sources: BTreeMap<String, ThresholdSource> = ScalingThresholds::names()
            .map(|name| {
                let source = if self.from_file.contains(&name) { Source::File } else { Source::Profile };
                (name.to_string(), plain(source))
            })
            .collect();
        for change in &self.overrides {
            sources.insert(
                change.name.clone(),
                ThresholdSource {
                    source: Source::Api,
                    by: Some(change.by.clone()),
                    since: Some(change.since),
                    until: change.until,
                    reason: change.reason.clone(),
                },
            );
        }
        sources
    }
}

fn in_words(problem: &ThresholdProblem) -> String {
    format!("{}: {} (hint: {})", problem.name, problem.what, problem.hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Profile;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn settings() -> Settings {
        Settings::new(ScalingThresholds::of(Profile::Default), vec!["max_nodes"], Vec::new(), Vec::new())
    }

    fn change(of: &Settings, name: &str, value: f64) -> Result<Settings, Vec<String>> {
        of.with(&BTreeMap::from([(name.to_string(), value)]), "api", None, None, NOW)
    }

    #[test]
    fn a_change_lies_over_the_file_and_says_who() {
        let changed = change(&settings(), "cpu_threshold_high", 0.8).unwrap();
        assert_eq!(changed.effective().cpu_threshold_high, 0.8);
        assert_eq!(changed.sources()["cpu_threshold_high"].by.as_deref(), Some("api"));
        assert_eq!(changed.sources()["max_nodes"].source, Source::File);
        assert_eq!(changed.sources()["min_nodes"].source, Source::Profile);
        let dropped = changed.without(Some("cpu_threshold_high")).unwrap().unwrap();
        assert_eq!(dropped.effective(), settings().effective());
        assert!(changed.without(Some("max_nodes")).is_none(), "there is no such override");
    }

    #[test]
    fn a_change_that_does_not_fit_the_whole_is_refused_whole() {
        for (name, value, says) in [
            ("cpu_threshold_low", 0.75, "not below cpu_threshold_high"),
            ("max_nodes", 2.0, "below min_nodes"),
            ("cpu_threshold_high", f64::NAN, "not allowed"),
            ("cpu_hihg", 0.5, "no such threshold"),
        ] {
            let problems = change(&settings(), name, value).expect_err(name);
            assert!(problems.iter().any(|p| p.contains(says)), "{name}: {problems:?}");
        }
    }

    #[test]
    fn a_change_with_a_time_to_live_ends() {
        let ttl = Some(Duration::from_secs(60));
        let changed =
            settings().with(&BTreeMap::from([("max_nodes".to_string(), 15.0)]), "api", None, ttl, NOW).unwrap();
        assert!(changed.expired(NOW.plus(Duration::from_secs(59))).is_none());
        let (after, over) = changed.expired(NOW.plus(Duration::from_secs(60))).unwrap();
        assert_eq!((after.effective().max_nodes, over.len()), (10, 1));
    }
}
