//! `havip version`.

use super::flags::{Command, Given, Word};
use super::{Exit, print};

pub(super) const COMMAND: Command = Command {
    name: "version",
    summary: "print version and features",
    about: "Prints the version, the target and what was built in.",
    argument: Word::None,
    flags: &[],
    run,
};

fn run(_: &Given) -> Exit {
    let etcd = if cfg!(feature = "etcd") { " +etcd" } else { "" };
    let tls = if cfg!(feature = "tls") { " +tls" } else { "" };
    print(&format!(
        "havip {} {}-{}{etcd}{tls}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
    ));
    Exit::Done
}
