//! `havip run`: the daemon.

use std::path::Path;

use super::flags::{Command, Flag, Given, Word};
use super::{CONFIG_FLAG, Exit, complain, config_path, exit_of};
#[cfg(feature = "etcd")]
use crate::daemon::access::environment;
#[cfg(feature = "etcd")]
use crate::daemon::sources::LoadError;
use crate::daemon::sources::Local;
use crate::daemon::{self, Error};

const RECORD_FLAG: Flag = Flag {
    long: "record",
    short: None,
    value: Some("FILE"),
    help: "Write all that the node decides by to a new FILE, 256 MiB at most; passwords too.",
};

pub(super) const COMMAND: Command = Command {
    name: "run",
    summary: "run the daemon in the foreground",
    about: "\
Reads the local file, takes part in VRRP for the routers that it lists for this node, and puts
their VIPs on interfaces while it is active. Without that file ETCD_ENDPOINTS says where etcd is.
Logs to standard error.
SIGTERM or SIGINT: sends priority 0, takes the VIPs away, ends with 0.
SIGHUP: reads the local file again; one with a mistake in it changes nothing.
SIGUSR1: logs what `havip status` shows. SIGUSR2: logs the counters.",
    argument: Word::Config,
    flags: &[CONFIG_FLAG, RECORD_FLAG],
    run,
};

fn run(given: &Given) -> Exit {
    let path = config_path(given);
    let local = match Local::load(&path) {
        Ok(local) => local,
        // The environment alone says where etcd is, as with the original's agents.
        #[cfg(feature = "etcd")]
        Err(LoadError::Absent(_))
            if given.value("config").is_none() && environment("ETCD_ENDPOINTS").is_some() =>
        {
            Local::absent(&path)
        }
        Err(error) => return super::refused::report(&error),
    };
    let nothing = super::check::local_errors(&local);
    if !nothing.is_empty() {
        for problem in nothing {
            complain(&problem.to_string());
        }
        return Exit::Config;
    }
    match daemon::run(local, given.value("record").map(Path::new), super::status::TEXTS) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(&error.to_string());
            match &error {
                Error::System(_, error) => exit_of(error),
                Error::Rights(_) => Exit::Permission,
                Error::Settings(_) => Exit::Config,
                Error::Lock(_) | Error::Owner(_) => Exit::Failed,
            }
        }
    }
}
