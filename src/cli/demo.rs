//! `havip demo`.
use super::Exit;
use super::flags::{Command, Given};
pub(super) const COMMAND: Command =
    Command { name: "demo", summary: "", about: "", argument: None, flags: &[], run };
fn run(_: &Given) -> Exit {
    Exit::Done
}
