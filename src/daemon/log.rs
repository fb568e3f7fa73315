//! Log lines to standard error, for journald, procd or a terminal to stamp and keep.

use std::io::Write as _;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::config::LogLevel;
use crate::config::shown::Line;

struct Stderr;

static STDERR: Stderr = Stderr;

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
            write(&line);
        }
    }

    fn flush(&self) {}
}

/// Writes a line that was asked for. A reader that went away must not end a daemon that others'
/// traffic depends on, so this is neither `eprintln!` nor a crate that uses it.
pub fn write(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Has everything logged up to `level`; once a process.
pub fn init(level: LogLevel) {
    // Fails only the second time, and then the first one stands.
    let _ = log::set_logger(&STDERR);
    log::set_max_level(match level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
    });
}
