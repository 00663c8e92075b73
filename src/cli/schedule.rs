//! `vecscale schedule next`: when windows open and close, read from the configuration file alone.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::Output;
use super::status::pretty;
use super::{Failure, text};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, PoolConfig};
use crate::model::Timestamp;
use crate::schedule::Window;

#[derive(Clone, Debug, Subcommand)]
pub enum ScheduleCommand {
    /// The coming openings and closings of the scheduled windows
    Next(NextArgs),
}

#[derive(Clone, Debug, Args)]
pub struct NextArgs {
    /// The configuration
    #[arg(long = "config.file", value_name = "FILE", default_value = "config.yaml")]
    config_file: PathBuf,
    /// Only this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// From this instant on, such as 2026-03-29T00:00:00Z; now unless given
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: Option<Timestamp>,
    /// For people, or for programs
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

fn instant(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| "a time as in 2026-01-31T03:12:00Z is needed".into())
}

/// A window that opens or closes.
struct Change<'a> {
    at: Timestamp,
    pool: &'a PoolConfig,
    window: &'a Window,
}

pub fn next(args: &NextArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let config = config::load(&args.config_file).map_err(|error| Failure::usage(error.to_string()))?;
    let wanted = |pool: &&PoolConfig| args.pool.as_ref().is_none_or(|name| **name == *pool.name);
    let pools: Vec<&PoolConfig> = config.pools.iter().filter(wanted).collect();
    if let (Some(name), true) = (&args.pool, pools.is_empty()) {
        let names: Vec<&str> = config.pools.iter().map(|pool| &*pool.name).collect();
        return Err(Failure::usage(format!("there is no pool {name}; there are: {}", names.join(", "))));
    }
    let from = args.at.unwrap_or_else(|| SystemClock.now());
    let coming = coming(&pools, from, args.count as usize);
    let said = match args.output {
        Output::Json => pretty(&json!({"items": coming.iter().map(Change::shown).collect::<Vec<_>>()})),
        Output::Text => words(&coming, &open_now(&pools, from)),
    };
    out.write_all(said.as_bytes())?;
    Ok(())
}

/// The next changes of all windows, earliest first.
fn coming<'a>(pools: &[&'a PoolConfig], from: Timestamp, count: usize) -> Vec<Change<'a>> {
    let each = pools.iter().flat_map(|pool| pool.schedules.iter().map(move |window| (*pool, &**window)));
    let mut all: Vec<Change> = each
        .flat_map(|(pool, window)| {
            let next = move |at: &Timestamp| window.span.next_change(*at);
            std::iter::successors(next(&from), next).take(count).map(move |at| Change { at, pool, window })
        })
        .collect();
    all.sort_by_key(|change| change.at);
    all.truncate(count);
    all
}

impl Change<'_> {
    fn opens(&self) -> bool {
        self.window.span.open_since(self.at).is_some()
    }

    /// The instant on the clock of the window's zone.
    fn wall(&self) -> String {
        self.window.span.zone().wall_clock(self.at)
    }

    fn shown(&self) -> Value {
        json!({
            "at": self.at,
            "local": self.wall(),
            "timezone": self.window.span.zone().name(),
            "pool": self.pool.name,
            "window": self.window.name,
            "opens": self.opens(),
            "asks": self.window.asks,
        })
    }
}

/// "office (default)" for each window that is open.
fn open_now(pools: &[&PoolConfig], at: Timestamp) -> Vec<String> {
    let each = pools.iter().flat_map(|pool| pool.schedules.iter().map(move |window| (pool, window)));
    let open = each.filter(|(_, window)| window.span.open_since(at).is_some());
    open.map(|(pool, window)| format!("{} ({})", window.name, pool.name)).collect()
}

fn words(coming: &[Change], open: &[String]) -> String {
    let open = if open.is_empty() { String::new() } else { format!("open now: {}\n", open.join(", ")) };
    if coming.is_empty() {
        return format!("{open}no window opens or closes any more\n");
    }
    let row = |change: &Change| {
        let (what, asks) =
            if change.opens() { ("opens", change.window.asks.in_words()) } else { ("closes", String::new()) };
        vec![
            text::instant(&change.at.to_string()),
            change.wall(),
            change.pool.name.to_string(),
            change.window.name.to_string(),
            what.into(),
            asks,
        ]
    };
    format!("{open}{}", text::table(&coming.iter().map(row).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: &str = "
pools:
  - name: default
    schedules:
      - {name: office, start: '0 8 * * Mon-Fri', duration: 10h, timezone: Europe/Berlin, min_nodes: 5, freeze: down}
      - {name: night, start: '30 2 * * *', end: '30 3 * * *', timezone: Europe/Berlin, desired_nodes: 3}
  - name: other
    schedules: [{name: launch, from: 2026-03-29T05:00, to: 2026-03-30, freeze: all}]
  - name: quiet
";

    fn types(line: &str) -> Result<String, Failure> {
        let dir = tempfile::tempdir().expect("a folder");
        let config_file = dir.path().join("config.yaml");
        std::fs::write(&config_file, WINDOWS).expect("a file");
        let args = NextArgs { config_file, ..parsed(line) };
        let mut said = Vec::new();
        next(&args, &mut said)?;
        Ok(String::from_utf8(said).expect("text"))
    }

    fn parsed(line: &str) -> NextArgs {
        use clap::Parser;
        let words = ["vecscale", "schedule", "next"].into_iter().chain(line.split_whitespace());
        match super::super::Cli::try_parse_from(words).expect("a command").into_command() {
            super::super::Command::Short(super::super::Short::Schedule(ScheduleCommand::Next(args))) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_opens_and_closes_next_over_a_change_of_the_clock() {
        let said = types("--at 2026-03-28T01:45:00Z --count 7").expect("windows");
        insta::assert_snapshot!(said, @r"
        open now: night (default)
          2026-03-28 02:30:00Z  Sat 2026-03-28 03:30 CET   default  night   closes
          2026-03-29 01:00:00Z  Sun 2026-03-29 03:00 CEST  default  night   opens   desired_nodes 3
          2026-03-29 01:30:00Z  Sun 2026-03-29 03:30 CEST  default  night   closes
          2026-03-29 05:00:00Z  Sun 2026-03-29 05:00 UTC   other    launch  opens   freeze all
          2026-03-30 00:00:00Z  Mon 2026-03-30 00:00 UTC   other    launch  closes
          2026-03-30 00:30:00Z  Mon 2026-03-30 02:30 CEST  default  night   opens   desired_nodes 3
          2026-03-30 01:30:00Z  Mon 2026-03-30 03:30 CEST  default  night   closes
        ");
        let said = types("--at 2026-04-01T00:00:00Z --pool other").expect("windows");
        assert_eq!(said, "no window opens or closes any more\n");
        assert_eq!(types("--pool quiet").expect("no windows"), said);
    }

    #[test]
    fn programs_get_json_and_a_wrong_pool_is_wrong_usage() {
        let said = types("--at 2026-03-30T05:00:00Z --count 1 --output json").expect("windows");
        let said: Value = serde_json::from_str(&said).expect("JSON");
        let expected = json!({"items": [{
            "at": "2026-03-30T06:00:00.000Z", "local": "Mon 2026-03-30 08:00 CEST", "timezone": "Europe/Berlin",
            "pool": "default", "window": "office", "opens": true,
            "asks": {"sets": {"min_nodes": 5.0}, "desired_nodes": null, "freeze": "down"},
        }]});
        assert_eq!(said, expected);
        let failure = types("--pool othre").expect_err("no such pool");
        assert_eq!(
            (failure.code, failure.text.as_str()),
            (2, "there is no pool othre; there are: default, other, quiet")
        );
    }
}
