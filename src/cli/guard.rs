//! `havip guard`: what the daemon starts beside itself; not for people, and not listed.

use super::flags::{Command, Flag, Given, Word};
use super::{Exit, complain, exit_of};
use crate::daemon::guard::{self, Refused};

pub(super) const COMMAND: Command = Command {
    name: "guard",
    summary: "",
    about: "\
Started by the daemon, never by hand: waits for the daemon's end, and if that was no clean one
sends priority 0 for the routers that were active and takes the VIPs away.",
    argument: Word::Other("PID"),
    flags: &[
        Flag { long: "realtime", short: None, value: None, help: "Ask for real-time priority." },
        Flag { long: "fence", short: None, value: None, help: "Remove the fence as well." },
    ],
    run,
};

fn run(given: &Given) -> Exit {
    let daemon = given.argument.as_deref().and_then(|pid| pid.parse().ok());
    match daemon.map(|daemon| guard::run(daemon, given.has("realtime"), given.has("fence"))) {
        Some(Ok(())) => Exit::Done,
        Some(Err(Refused::Failed(error))) => {
            complain(&format!("guard: {error}"));
            exit_of(&error)
        }
        Some(Err(Refused::ByHand)) | None => {
            complain("guard: the daemon starts it by itself, with what it needs; use havip run");
            Exit::Usage
        }
    }
}
