//! One run of a script: its own process group, a cleared environment, a deadline that is kept, output that is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::end::{self, Traces};
use super::lock;

/// Of each output, the first and the last so many bytes are kept.
pub const KEEP: usize = 32 << 10;
/// The same for a list of nodes, which may be long.
pub const KEEP_LIST: usize = 4 << 20;
/// A lack of processes, descriptors or memory may pass: how long a start is tried again, and how often.
const START: Duration = Duration::from_secs(20);
const START_AGAIN: Duration = Duration::from_millis(200);
/// How long the output of a script that has ended is waited for: a child of it may hold the pipe open for ever.
const DRAIN: Duration = Duration::from_secs(1);
/// How much of what a script printed goes into an error.
const QUOTED_CHARS: usize = 300;

/// What is to be run.
pub struct Script {
    pub argv: Vec<String>,
    /// All of it: nothing else is inherited.
    pub environment: BTreeMap<String, String>,
    pub deadline: Duration,
    pub keep: usize,
}

/// Where a script's input comes from.
pub enum Input {
    /// Through a pipe; it must be short.
    Text(String),
    /// A lock file with the input in it, and its path.
    Locked(File, PathBuf),
}

/// How it went.
#[derive(Debug)]
pub struct Ran {
    /// `None` when it did not end by itself.
    pub code: Option<i32>,
    /// How it ended, in words.
    pub ending: String,
    pub stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Ran {
    /// `what`, with the end of what the script printed, fit for one line.
    pub fn said(&self, what: &str) -> String {
        let output = if self.stderr.is_empty() { &self.stdout } else { &self.stderr };
        let text = String::from_utf8_lossy(output);
        let printable: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let skipped = printable.chars().count().saturating_sub(QUOTED_CHARS);
        let end: String = printable.chars().skip(skipped).collect();
        if end.is_empty() { what.to_string() } else { format!("{what}: {end}") }
    }
}

impl Script {
    /// Runs it to its end, or to its deadline: then it is ended with everyone who works for it. A caller that goes away
    /// leaves the script running.
    ///
    /// # Errors
    /// When it could not be started: nothing happened then.
    pub async fn run(&self, input: Input) -> Result<Ran, String> {
        let mut child = self.start(&input).await?;
        // Its leader is not reaped before the group has ended: from then on the number could belong to another.
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let output: BTreeSet<String> =
            [end::pipe(child.stdout.as_ref()), end::pipe(child.stderr.as_ref())].into_iter().flatten().collect();
        let mut traces = Traces::of_group(group, output.clone());
        match input {
            Input::Locked(_, path) => {
                traces.add_lock(&path);
                lock::note_output(&path, output);
            }
            Input::Text(text) => {
                if let Some(mut pipe) = child.stdin.take() {
                    let _ = pipe.write_all(text.as_bytes()).await; // fits the pipe; a script need not read it
                }
            }
        }
        let stdout = Capture::of(child.stdout.take(), self.keep);
        let stderr = Capture::of(child.stderr.take(), KEEP);
        let ended = self.wait(&mut child, &traces).await;
        let (stdout, stderr) = tokio::join!(stdout.end(), stderr.end());
        let (code, ending) = match ended {
            Ok(status) => (status.code(), status.to_string()),
            Err(why) => (None, why),
        };
        Ok(Ran { code, ending, stdout, stderr })
    }

    async fn start(&self, input: &Input) -> Result<Child, String> {
        let Some((program, arguments)) = self.argv.split_first() else { return Err("no script is configured".into()) };
        let failed = |e: io::Error| format!("{program}: {e}");
        let began = Instant::now();
        loop {
            let stdin = match input {
                Input::Text(_) => Stdio::piped(),
                Input::Locked(file, _) => file.try_clone().map_err(failed)?.into(),
            };
            let mut command = Command::new(program);
            command.args(arguments).env_clear().envs(&self.environment);
            command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
            match command.spawn() {
                Ok(child) => return Ok(child),
                Err(e) if may_pass(&e) && began.elapsed() < START.min(self.deadline) => {
                    tokio::time::sleep(START_AGAIN).await;
                }
                Err(e) => return Err(failed(e)),
            }
        }
    }

    /// Waits for the script itself, not for the end of its output.
    async fn wait(&self, child: &mut Child, traces: &Traces) -> Result<ExitStatus, String> {
        let lost = |e: io::Error| format!("it cannot be waited for: {e}");
        if let Ok(ended) = tokio::time::timeout(self.deadline, child.wait()).await {
            return ended.map_err(lost);
        }
        let left = traces.end().await;
        let _ = tokio::time::timeout(DRAIN, child.wait()).await;
        let mut why = format!("not done within {} s, ended by force", self.deadline.as_secs_f64());
        if left > 0 {
            why.push_str(&format!("; {left} of its processes could not be ended"));
        }
        Err(why)
    }
}

/// Nothing that this process opens itself passes on to a program that it starts; this is for what it was started with.
pub fn seal_descriptors() {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for number in open.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).filter(|fd| *fd > 2) {
        // SAFETY: borrowed for one call that sets a flag. Should it be closed by now, that call fails.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
}

/// Whether a start may succeed a little later with nothing changed: too many processes or open files, too little memory,
/// or the program is being written just now.
fn may_pass(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::AGAIN, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::TXTBSY];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

/// Output that is read to its end and kept at its two ends only.
struct Capture {
    kept: Arc<Mutex<Kept>>,
    keep: usize,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: Vec<u8>,
    dropped: bool,
}

impl Kept {
    fn take(&mut self, mut bytes: &[u8], keep: usize) {
        let room = keep.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        bytes = &bytes[room..];
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * keep {
            self.cut(keep);
        }
    }

    fn cut(&mut self, keep: usize) {
        let over = self.tail.len().saturating_sub(keep);
        self.dropped |= over > 0;
        self.tail.drain(..over);
    }
}

impl Capture {
    fn of(pipe: Option<impl AsyncRead + Unpin + Send + 'static>, keep: usize) -> Capture {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let into = kept.clone();
        let reader = tokio::spawn(async move {
            let Some(mut pipe) = pipe else { return };
            let mut buffer = vec![0; 16 << 10];
            while let Ok(read) = pipe.read(&mut buffer).await {
                if read == 0 {
                    return;
                }
                into.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take(&buffer[..read], keep);
            }
        });
        Capture { kept, keep, reader }
    }

    async fn end(self) -> Vec<u8> {
        let Capture { kept, keep, mut reader } = self;
        if tokio::time::timeout(DRAIN, &mut reader).await.is_err() {
            reader.abort();
        }
        let mut kept = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        kept.cut(keep);
        let Kept { head, tail, dropped } = std::mem::take(&mut *kept);
        let gap: &[u8] = if dropped { b"\n[...]\n" } else { b"" };
        [&head[..], gap, &tail[..]].concat()
    }
}
