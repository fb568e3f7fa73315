//! Log lines to standard error, for journald, procd or a terminal to stamp and keep. A thread of
//! their own writes them: whoever logs does not wait for a reader that stands still.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use std::{io, iter};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::config::LogLevel;
use crate::config::shown::Line;

/// Texts that may wait for a reader of standard error.
const LINES_MAX: usize = 1024;
/// How long the end of the daemon waits for one.
const FINISH: Duration = Duration::from_millis(200);

/// What the thread is to do.
enum Task {
    Text(String),
    /// Say so once all lines before are written.
    Finish(SyncSender<()>),
}

struct Stderr {
    tasks: SyncSender<Task>,
    /// Texts that found no room, and were not told of yet.
    lost: &'static AtomicU64,
}

static STDERR: OnceLock<Stderr> = OnceLock::new();

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Other crates speak of their own matters: only what is wrong there is worth a line.
        metadata.target().starts_with("havip") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            let mut line = format!("{level}: ");
            let _ = std::fmt::Write::write_fmt(&mut Line(&mut line), *record.args());
            self.put(line);
        }
    }

    fn flush(&self) {
        let (sender, finished) = sync_channel(1);
        if self.tasks.try_send(Task::Finish(sender)).is_ok() {
            let _ = finished.recv_timeout(FINISH);
        }
    }
}

impl Stderr {
    /// Has a line written, or several.
    fn put(&self, mut text: String) {
        text.push('\n');
        if self.tasks.try_send(Task::Text(text)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes what was asked for, of one line or several.
pub fn put(text: String) {
    if let Some(stderr) = STDERR.get() {
        stderr.put(text);
    }
}

/// Has everything logged up to `level`; once a process.
///
/// # Errors
/// There is no thread to be had.
pub fn init(level: LogLevel) -> io::Result<()> {
    static LOST: AtomicU64 = AtomicU64::new(0);
    let (tasks, waiting) = sync_channel(LINES_MAX);
    super::spawn("log", move || write(&waiting, &LOST))?;
    // Both fail only the second time, and then the first one stands.
    let _ = log::set_logger(STDERR.get_or_init(|| Stderr { tasks, lost: &LOST }));
    log::set_max_level(match level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
    });
    Ok(())
}

/// Waits a moment for what was logged to be written.
pub fn finish() {
    log::logger().flush();
}

fn write(tasks: &Receiver<Task>, lost: &AtomicU64) {
    for task in iter::from_fn(|| tasks.recv().ok()) {
        match task {
            // A reader that went away must not end a daemon that others' traffic depends on, so
            // this is neither `eprintln!` nor a crate that uses it.
            Task::Text(text) => drop(io::stderr().write_all(text.as_bytes())),
            Task::Finish(finished) => drop(finished.send(())),
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let told = format!(
                "warn: {lost} message(s) of this log are lost: standard error was not read in time\n"
            );
            let _ = io::stderr().write_all(told.as_bytes());
        }
    }
}
