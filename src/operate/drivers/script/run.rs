//! One run of a script: its own process group, a cleared environment, a deadline that is kept, output that is bounded.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Of each output, the first and the last so many bytes are kept.
pub const KEEP: usize = 32 << 10;
/// The same for a list of nodes, which may be long.
pub const KEEP_LIST: usize = 4 << 20;
/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);
/// How long the output of a script that has ended is waited for: a child of it may hold the pipe open for ever.
const DRAIN: Duration = Duration::from_secs(1);
/// How much of what a script printed goes into an error.
const QUOTED_CHARS: usize = 300;

/// What is to be run.
pub struct Script<'a> {
    pub argv: &'a [String],
    /// All of it: nothing else is inherited.
    pub environment: BTreeMap<String, String>,
    pub deadline: Duration,
    pub keep: usize,
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

impl Script<'_> {
    /// Runs it to its end, or to its deadline: then TERM, some grace, and KILL, to the whole process group. `input`
    /// is for a piped stdin, and must be short. A caller that goes away leaves the script running.
    ///
    /// # Errors
    /// When it could not be started: nothing happened then.
    pub async fn run(&self, stdin: Stdio, input: Option<String>) -> Result<Ran, String> {
        let Some((program, arguments)) = self.argv.split_first() else { return Err("no script is configured".into()) };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&self.environment);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
        drop(command); // and with it our own end of its stdin
        if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
            let _ = pipe.write_all(input.as_bytes()).await; // fits the pipe; a script need not read it
        }
        let stdout = Capture::of(child.stdout.take(), self.keep);
        let stderr = Capture::of(child.stderr.take(), KEEP);
        let ended = self.wait(&mut child).await;
        let (stdout, stderr) = tokio::join!(stdout.end(), stderr.end());
        let (code, ending) = match ended {
            Ok(status) => (status.code(), status.to_string()),
            Err(why) => (None, why),
        };
        Ok(Ran { code, ending, stdout, stderr })
    }

    /// Waits for the script itself, not for the end of its output.
    async fn wait(&self, child: &mut Child) -> Result<ExitStatus, String> {
        // Taken before it is reaped: from then on the number could belong to another.
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let lost = |e: std::io::Error| format!("it cannot be waited for: {e}");
        if let Ok(ended) = tokio::time::timeout(self.deadline, child.wait()).await {
            return ended.map_err(lost);
        }
        let tell = |signal| group.map(|group| kill_process_group(group, signal));
        tell(Signal::TERM);
        let _ = tokio::time::timeout(GRACE, child.wait()).await;
        tell(Signal::KILL); // also what is left of the group when its leader heeded TERM
        let _ = tokio::time::timeout(DRAIN, child.wait()).await;
        Err(format!("not done within {} s, ended by force", self.deadline.as_secs_f64()))
    }
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
