//! `havip confirm`: what vanished from etcd may go.

use super::ask::Daemon;
use super::flags::{Command, Given, Word};
use super::{Exit, print};

pub(super) const COMMAND: Command = Command {
    name: "confirm",
    summary: "release routers that vanished from etcd and are held",
    about: "\
Routers whose keys vanish from etcd without an order, or that a restored etcd does not have, go on,
and `havip status` lists them as held. This releases them: what etcd has now counts. Nothing else
changes. `[etcd] vanished = \"release\"` in the local file does so without asking.",
    argument: Word::Config,
    flags: &[super::CONFIG_FLAG, super::RUN_DIR_FLAG],
    run,
};

fn run(given: &Given) -> Exit {
    let answer = match Daemon::of(given).and_then(|daemon| daemon.post("/v1/confirm")) {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    let released = answer["released"].as_array().into_iter().flatten();
    let released: Vec<&str> = released.filter_map(serde_json::Value::as_str).collect();
    match released.as_slice() {
        [] => print("nothing was held\n"),
        names => print(&format!("released: {}\n", names.join(", "))),
    }
    Exit::Done
}
