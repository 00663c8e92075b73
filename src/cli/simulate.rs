//! `vecscale simulate`: seeds of an invented cluster, each a story of load, faults and crashes, played on all cores; the
//! first that breaks a promise is told.

use std::io::{IsTerminal, Write};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::args::Output;
use super::{Failure, text};
use crate::replay::{self, Found, Profile, Tally};

/// Between two words of progress: on a terminal, and in a pipe.
const WORD_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];

#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// The seeds to be played, both ends included; the same seed always gives the same story
    #[arg(long, value_name = "FIRST..LAST", default_value = "1..1000", value_parser = range)]
    pub seeds: RangeInclusive<u64>,
    /// The kind of trouble; left out, each seed draws its own
    #[arg(long, value_enum)]
    pub profile: Option<Profile>,
    /// For people, or as JSON
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
}

/// Plays the seeds and says what was played.
///
/// # Errors
/// When a law was broken: its story, and how to play it again.
pub fn run(args: &SimulateArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let began = Instant::now();
    let progress = Progress::of(&args.seeds);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = replay::many(args.seeds.clone(), args.profile, threads, &|done| progress.say(done));
    progress.end();
    let took = began.elapsed();
    match args.output {
        Output::Json => writeln!(out, "{}", in_json(args, &found, took))?,
        Output::Text => out.write_all(in_words(&found, took).as_bytes())?,
    }
    match found.broken {
        None => Ok(()),
        Some(_) if args.output == Output::Json => Err(Failure { code: 1, text: String::new() }),
        Some(played) => {
            let (seed, profile) = (played.seed, args.profile.map(|p| format!(" --profile {}", p.as_str())));
            Err(Failure::failed(format!(
                "{}\nseed {seed} breaks a promise: {}\n    hint: `vecscale simulate --seeds {seed}..{seed}{}` plays it again",
                played.story,
                played.broken.unwrap_or_default(),
                profile.unwrap_or_default()
            )))
        }
    }
}

fn in_json(args: &SimulateArgs, found: &Found, took: Duration) -> serde_json::Value {
    let broken = found.broken.as_ref().map(
        |played| json!({"seed": played.seed, "profile": played.profile, "law": played.broken, "story": played.story}),
    );
    json!({
        "first": args.seeds.start(), "last": args.seeds.end(), "profile": args.profile,
        "seconds": took.as_secs_f64(), "played": found.tally, "broken": broken,
    })
}

fn in_words(found: &Found, took: Duration) -> String {
    let Tally { stories, simulated_seconds, checks, calls, most_at_once, faults, operations } = &found.tally;
    let verdict = if found.broken.is_some() { "a promise was broken" } else { "no promise was broken" };
    let mut words = format!(
        "{stories} stories, {} h of a cluster's life, {checks} checks, {calls} calls in {:.1} s: {verdict}\n\
         up to {most_at_once} shards on their way at once\n",
        simulated_seconds / 3600,
        took.as_secs_f64()
    );
    for (title, counts) in [("what went wrong", faults), ("operations that ended", operations)] {
        words.push_str(&format!("{title}\n"));
        let rows: Vec<Vec<String>> = counts.iter().map(|(name, n)| vec![name.clone(), n.to_string()]).collect();
        words.push_str(&text::table(&rows));
    }
    words
}

/// How far it is, on standard error: one line that changes on a terminal, else a line now and then.
struct Progress {
    all: u64,
    on_terminal: bool,
    began: Instant,
    said: Mutex<Instant>,
}

impl Progress {
    fn of(seeds: &RangeInclusive<u64>) -> Progress {
        let all = seeds.end().saturating_sub(*seeds.start()).saturating_add(1);
        let now = Instant::now();
        Progress { all, on_terminal: std::io::stderr().is_terminal(), began: now, said: Mutex::new(now) }
    }

    fn say(&self, done: u64) {
        let Ok(mut said) = self.said.try_lock() else { return };
        if said.elapsed() < WORD_EVERY[usize::from(!self.on_terminal)] {
            return;
        }
        *said = Instant::now();
        let rate = done as f64 / self.began.elapsed().as_secs_f64();
        let words = format!("{done} of {} seeds, {rate:.0}/s", self.all);
        // Whoever does not watch misses nothing.
        let _ = if self.on_terminal {
            write!(std::io::stderr(), "\r{words}\x1b[K")
        } else {
            writeln!(std::io::stderr(), "{words}")
        };
    }

    fn end(&self) {
        if self.on_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K"); // as above
        }
    }
}

/// Reads `1..1000`.
fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let wrong = || "a first and a last seed are needed, such as 1..1000".to_string();
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let (first, last) = (first.parse::<u64>().map_err(|_| wrong())?, last.parse::<u64>().map_err(|_| wrong())?);
    if first <= last && last < u64::MAX { Ok(first..=last) } else { Err("the first seed is above the last".into()) }
}
