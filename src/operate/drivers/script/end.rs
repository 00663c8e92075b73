//! Ends whoever still works for a script: its process group, and everyone else of our user who holds its lock or its
//! output, in whatever session. TERM first, some grace, then KILL. Linux' `/proc` tells who that is.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, geteuid, getpgrp, kill_process_group, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);
/// How long KILL is repeated: what forks is killed again.
const KILLING: Duration = Duration::from_secs(2);
const KILL_AGAIN: Duration = Duration::from_millis(20);
/// Between two looks at who is left.
const LOOK: Duration = Duration::from_millis(100);

/// How the processes of one script are known.
pub struct Traces {
    /// The group that the script was started in. Its leader is a child of ours that is not reaped yet, so that the
    /// number cannot belong to another.
    group: Option<Pid>,
    /// Open files, written as `/proc/PID/fd` has them.
    files: BTreeSet<String>,
    inherited: Option<Inherited>,
}

/// The lock of a script that another controller started, and whether a later script holds it by now.
struct Inherited {
    lock: String,
    has_passed_on: Box<dyn Fn() -> bool + Send + Sync>,
}

/// A pipe, by our own end of it.
pub fn pipe(ours: Option<impl AsFd>) -> Option<String> {
    let inode = rustix::fs::fstat(ours?).ok()?.st_ino;
    Some(format!("pipe:[{inode}]"))
}

impl Traces {
    pub fn of_group(group: Option<Pid>, output: BTreeSet<String>) -> Traces {
        Traces { group, files: output, inherited: None }
    }

    /// Of a script that another controller started: its group is known by its members only. Once it has let go of its
    /// lock, `has_passed_on` says whether a later script was given it: that one is not to be ended.
    pub fn of_lock(
        lock: &Path,
        output: BTreeSet<String>,
        has_passed_on: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Traces {
        let inherited = Inherited { lock: as_opened(lock), has_passed_on: Box::new(has_passed_on) };
        Traces { group: None, files: output, inherited: Some(inherited) }
    }

    pub fn add_lock(&mut self, lock: &Path) {
        self.files.insert(as_opened(lock));
    }

    /// Gives how many processes are left in the end.
    pub async fn end(&self) -> usize {
        self.tell(&self.processes().await, Signal::TERM);
        let killing_at = Instant::now() + GRACE;
        while !self.processes().await.is_empty() && Instant::now() < killing_at {
            tokio::time::sleep(LOOK).await;
        }
        let lost_at = Instant::now() + KILLING;
        let mut quiet = 0;
        loop {
            let left = self.processes().await;
            quiet = if left.is_empty() { quiet + 1 } else { 0 };
            // One look may miss what is born while it looks.
            if quiet == 2 || Instant::now() >= lost_at {
                return left.len();
            }
            self.tell(&left, Signal::KILL);
            tokio::time::sleep(KILL_AGAIN).await;
        }
    }

    fn tell(&self, processes: &BTreeSet<Process>, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal); // all of it at once: gone if it is empty
        }
        for process in processes {
            // Held by descriptor and looked at again: a number alone could be another's by now.
            let Some(pid) = Pid::from_raw(process.id) else { continue };
            let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            if stat(process.id).is_some_and(|now| now.process == *process) {
                let _ = pidfd_send_signal(held, signal);
            }
        }
    }

    /// Who is alive: members of the group, holders of the files, and the members of the holders' groups.
    async fn processes(&self) -> BTreeSet<Process> {
        let Some(Inherited { lock, has_passed_on }) = &self.inherited else { return self.holders(None).await };
        let found = self.holders(Some(lock)).await;
        // Asked after the look: a script that was seen had been given the lock before.
        if has_passed_on() { self.holders(None).await } else { found }
    }

    async fn holders(&self, lock: Option<&String>) -> BTreeSet<Process> {
        let group = self.group.map(|group| group.as_raw_nonzero().get());
        let files = self.files.iter().chain(lock).cloned().collect();
        tokio::task::spawn_blocking(move || scan(group, &files)).await.unwrap_or_default()
    }
}

/// The path as `/proc/PID/fd` has it.
fn as_opened(file: &Path) -> String {
    fs::canonicalize(file).unwrap_or_else(|_| file.into()).display().to_string()
}

/// One process: its number may be given again, but not with the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    id: i32,
    started: u64,
}

struct Stat {
    process: Process,
    state: char,
    parent: i32,
    group: i32,
}

fn scan(group: Option<i32>, files: &BTreeSet<String>) -> BTreeSet<Process> {
    let (us, our_group, user) =
        (std::process::id().cast_signed(), getpgrp().as_raw_nonzero().get(), geteuid().as_raw());
    // Between fork and exec a child of ours has all our files for a moment, and runs our program.
    let our_program = fs::read_link("/proc/self/exe").ok();
    let is_starting =
        |stat: &Stat| stat.parent == us && fs::read_link(format!("/proc/{}/exe", stat.process.id)).ok() == our_program;
    let mut groups: BTreeSet<i32> = group.into_iter().collect();
    let mut all = Vec::new();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(id) = id.filter(|id| *id != us) else { continue };
        if !entry.metadata().is_ok_and(|of| of.uid() == user) {
            continue;
        }
        let Some(stat) = stat(id).filter(|stat| !matches!(stat.state, 'Z' | 'X')) else { continue };
        if !is_starting(&stat) && holds(id, files) {
            found.insert(stat.process);
            groups.insert(stat.group);
        }
        all.push(stat);
    }
    groups.remove(&our_group);
    found.extend(all.iter().filter(|stat| groups.contains(&stat.group)).map(|stat| stat.process));
    found
}

fn holds(id: i32, files: &BTreeSet<String>) -> bool {
    let open = fs::read_dir(format!("/proc/{id}/fd"));
    let mut links = open.into_iter().flatten().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|link| link.to_str().is_some_and(|link| files.contains(link)))
}

/// From `/proc/PID/stat`: the name in parentheses may hold anything, the rest is plain.
fn stat(id: i32) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    let process = Process { id, started: fields.get(19)?.parse().ok()? };
    Some(Stat {
        process,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
    })
}
