//! The command line: one file a sub-command, one table of all.

mod ask;
mod check;
#[cfg(feature = "etcd")]
mod confirm;
mod demo;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "etcd")]
mod export;
mod flags;
mod guard;
#[cfg(feature = "etcd")]
mod import;
mod refused;
mod run;
mod show;
mod status;
mod version;

use std::path::PathBuf;

use flags::{Command, Flag, Given, Line as Typed};

use crate::config::shown::Line;

/// Where the local file is, unless said otherwise.
pub const CONFIG: &str = "/etc/havip/havip.toml";

/// How a command ends. The numbers are part of havip's interface and do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Done = 0,
    /// It failed while doing it.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration cannot run.
    Config = 3,
    /// The configuration runs, but has warnings; or (`status --check`) not all is well.
    Warnings = 4,
    /// A permission or capability is missing.
    Permission = 5,
    /// There is no configuration.
    NoConfig = 6,
    /// No daemon answers.
    Unreachable = 7,
}

pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 configuration cannot run, 4 configuration has warnings,
(status --check) not all is well or (export) a key is left out, 5 permission missing,
6 no configuration, 7 no daemon answers.
";

const CONFIG_FLAG: Flag = Flag {
    long: "config",
    short: Some('c'),
    value: Some("FILE"),
    help: "The local file (default /etc/havip/havip.toml).",
};
const RUN_DIR_FLAG: Flag = Flag {
    long: "run-dir",
    short: None,
    value: Some("DIR"),
    help: "Where the daemon's control socket is (default: as the local file says).",
};
const JSON_FLAG: Flag =
    Flag { long: "json", short: None, value: None, help: "Print JSON, with a \"schema\" number." };

static COMMANDS: &[Command] = &[
    run::COMMAND,
    check::COMMAND,
    show::COMMAND,
    status::COMMAND,
    #[cfg(feature = "etcd")]
    confirm::COMMAND,
    #[cfg(feature = "etcd")]
    export::COMMAND,
    #[cfg(feature = "etcd")]
    import::COMMAND,
    demo::COMMAND,
    version::COMMAND,
    guard::COMMAND,
];

/// Does what the arguments (without the program's name) say.
#[must_use]
pub fn main(arguments: Vec<std::ffi::OsString>) -> Exit {
    match flags::parse(COMMANDS, arguments) {
        Typed::Run(command, given) => (command.run)(&given),
        Typed::Help(text) => {
            print(&text);
            Exit::Done
        }
        Typed::Wrong(text) => {
            complain(&text);
            Exit::Usage
        }
    }
}

/// To standard output; a reader that went away is not an error of ours.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// To standard error, as one line with the program's name.
fn complain(text: &str) {
    use std::io::Write as _;
    let mut line = String::new();
    let _ = std::fmt::Write::write_str(&mut Line(&mut line), text);
    let _ = writeln!(std::io::stderr().lock(), "havip: {line}");
}

fn config_path(given: &Given) -> PathBuf {
    given.value("config").unwrap_or(CONFIG).into()
}

/// The code for what an operating-system error is about.
fn exit_of(error: &std::io::Error) -> Exit {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Exit::Permission,
        _ => Exit::Failed,
    }
}
