//! `havip check`: is a configuration right?

use std::path::Path;

use super::flags::{Command, Given};
use super::{Exit, print};
use crate::config::{Facts, Input, NodeName, NodeNaming, Problem, Severity, build, check_all};
use crate::daemon::sources::Local;

pub(super) const COMMAND: Command = Command {
    name: "check",
    summary: "check a configuration without running it",
    about: "\
Reads FILE (default /etc/havip/havip.toml) and prints every problem with its place and the way
out, for every node that FILE names. Ends with 0 if there is none, 3 if something cannot run, 4
if there are warnings only.",
    argument: Some("FILE"),
    flags: &[],
    run,
};

fn run(given: &Given) -> Exit {
    let path = given.argument.as_deref().unwrap_or(super::CONFIG);
    let local = match Local::load(Path::new(path)) {
        Ok(local) => local,
        Err(error) => return super::run::report(&error),
    };
    let problems = check_all(&local.tree, &local.settings.policy, &Facts::default());
    for problem in &problems {
        print(&format!("{problem}\n"));
    }
    let worst = problems.iter().map(|problem| problem.severity).min();
    match worst {
        Some(Severity::Error) => Exit::Config,
        Some(Severity::Warning) => Exit::Warnings,
        Some(Severity::Note) | None => {
            let nodes = nodes(&local).len();
            print(&format!("{path}: right, for {nodes} node(s)\n"));
            Exit::Done
        }
    }
}

/// The errors of a local file in what concerns this node, if its name is in the file.
pub(super) fn local_errors(local: &Local) -> Vec<Problem> {
    let NodeNaming::Name(node) = &local.settings.node else { return Vec::new() };
    // Beside etcd, what is missing here may stand there.
    if beside_store(local) {
        return Vec::new();
    }
    let outcome = build(&Input {
        tree: &local.tree,
        node,
        previous: None,
        policy: &local.settings.policy,
        facts: &Facts::default(),
    });
    outcome.problems.into_iter().filter(Problem::is_error).collect()
}

#[cfg(feature = "etcd")]
fn beside_store(local: &Local) -> bool {
    crate::daemon::follow::endpoints(&local.settings).is_ok_and(|(found, _)| found.is_some())
}

#[cfg(not(feature = "etcd"))]
const fn beside_store(_: &Local) -> bool {
    false
}

/// The nodes that a file names.
fn nodes(local: &Local) -> Vec<NodeName> {
    local.tree.children("node/").iter().filter_map(|name| NodeName::new(name).ok()).collect()
}
