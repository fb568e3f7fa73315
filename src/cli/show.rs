//! `havip show`: every effective value, and where it comes from.

use serde_json::Value;

use super::ask::Daemon;
use super::flags::{Command, Given, Word};
use super::{CONFIG_FLAG, Exit, JSON_FLAG, RUN_DIR_FLAG, print};

pub(super) const COMMAND: Command = Command {
    name: "show",
    summary: "show the effective configuration with the origin of each value",
    about: "\
Asks the running daemon for every value that holds for the routers of this node, the path at
which it was found and the file and line, or the key and revision, that it comes from. Secrets
are not shown.",
    argument: Word::Config,
    flags: &[CONFIG_FLAG, RUN_DIR_FLAG, JSON_FLAG],
    run,
};

fn run(given: &Given) -> Exit {
    let body = match Daemon::of(given).and_then(|daemon| daemon.get("/v1/config")) {
        Ok(body) => body,
        Err(exit) => return exit,
    };
    if given.has("json") {
        print(&format!("{body}\n"));
        return Exit::Done;
    }
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut last = String::new();
    for value in body["values"].as_array().into_iter().flatten() {
        let router = text(value, "router");
        if router != last {
            let gap = if last.is_empty() { "" } else { "\n" };
            print(&format!("{gap}{router}\n"));
            last = router;
        }
        let (path, origin) = (text(value, "path"), text(value, "origin"));
        let from = if path.is_empty() { origin } else { format!("{path}  {origin}") };
        print(&format!("  {:<17} {:<24} {from}\n", text(value, "key"), text(value, "value")));
    }
    Exit::Done
}
