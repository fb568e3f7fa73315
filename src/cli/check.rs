//! `havip check`: is a configuration right?

use std::path::Path;

#[cfg(feature = "etcd")]
use super::flags::Flag;
use super::flags::{Command, Given};
use super::{Exit, print};
use crate::config::{
    Facts, Input, NodeNaming, Problem, Severity, Tree, Vanished, build, check_all,
};
use crate::daemon::sources::Local;

pub(super) const COMMAND: Command = Command {
    name: "check",
    summary: "check a configuration without running it",
    about: "\
Reads FILE (default /etc/havip/havip.toml) and prints every problem with its place and the way
out, for every node that FILE names; with --etcd, of what etcd has. Ends with 0 if there is none, 3
if something cannot run, 4 if there are warnings only.",
    argument: Some("FILE"),
    flags: &[
        #[cfg(feature = "etcd")]
        Flag { long: "etcd", short: None, value: None, help: "Check what etcd has." },
        #[cfg(feature = "etcd")]
        super::etcd::ENDPOINTS_FLAG,
        #[cfg(feature = "etcd")]
        super::CONFIG_FLAG,
    ],
    run,
};

fn run(given: &Given) -> Exit {
    #[cfg(feature = "etcd")]
    if given.has("etcd") {
        return run_etcd(given);
    }
    let path = given.argument.as_deref().unwrap_or(super::CONFIG);
    let local = match Local::load(Path::new(path)) {
        Ok(local) => local,
        Err(error) => return super::refused::report(&error),
    };
    let mut problems = check_all(&local.tree, &local.settings.policy, &Facts::default());
    for problem in &local.problems {
        if !problems.contains(problem) {
            problems.push(problem.clone());
        }
    }
    let where_etcd_is = beside(&local);
    let exit = verdict(path, &problems, nodes(&local.tree));
    if where_etcd_is == Exit::Done { exit } else { where_etcd_is }
}

/// What is wrong or odd about the way to etcd, as the file alone has it.
#[cfg(feature = "etcd")]
fn beside(local: &Local) -> Exit {
    use crate::config::NodeName;
    // Whose name stands here does not matter.
    let Ok(node) = NodeName::new("-") else { return Exit::Done };
    match crate::daemon::access::access(&local.settings, &node, None, &|_| None) {
        Ok(found) => {
            for warning in found.into_iter().flat_map(|found| found.warnings) {
                print(&format!("note: {warning}\n"));
            }
            Exit::Done
        }
        Err(error) => {
            print(&format!("{}: error: {error}\n", local.path.display()));
            Exit::Config
        }
    }
}

#[cfg(not(feature = "etcd"))]
const fn beside(_: &Local) -> Exit {
    Exit::Done
}

#[cfg(feature = "etcd")]
fn run_etcd(given: &Given) -> Exit {
    let store = match super::etcd::find(given) {
        Ok(store) => store,
        Err(exit) => return exit,
    };
    let (dump, tree, mut problems) = match super::etcd::dump(&store) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    problems.extend(check_all(&tree, &store.policy, &Facts::default()));
    verdict(&format!("etcd, revision {}", dump.revision), &problems, nodes(&tree))
}

/// Prints every problem, and the worst one's exit code.
fn verdict(what: &str, problems: &[Problem], nodes: usize) -> Exit {
    for problem in problems {
        print(&format!("{problem}\n"));
    }
    match problems.iter().map(|problem| problem.severity).min() {
        Some(Severity::Error) => Exit::Config,
        Some(Severity::Warning) => Exit::Warnings,
        Some(Severity::Note) | None => {
            print(&format!("{what}: right, for {nodes} node(s)\n"));
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
        vanished: Vanished::Hold,
        listed_since: None,
    });
    outcome.problems.into_iter().filter(Problem::is_error).collect()
}

#[cfg(feature = "etcd")]
fn beside_store(local: &Local) -> bool {
    let environment = crate::daemon::access::environment("ETCD_ENDPOINTS");
    local.settings.etcd_endpoints.is_some() || environment.is_some()
}

#[cfg(not(feature = "etcd"))]
const fn beside_store(_: &Local) -> bool {
    false
}

/// Number of nodes that a tree names.
fn nodes(tree: &Tree) -> usize {
    tree.children("node/").len()
}
