//! `havip check`: is a configuration right?

use std::collections::BTreeMap;

#[cfg(feature = "etcd")]
use super::flags::Flag;
use super::flags::{Command, Given, Word};
use super::{Exit, print};
use crate::config::shown::short;
use crate::config::{
    Facts, Input, NodeName, NodeNaming, Problem, Severity, Tree, Vanished, build, check_all,
};
use crate::daemon::sources::Local;

pub(super) const COMMAND: Command = Command {
    name: "check",
    summary: "check a configuration without running it",
    about: "\
Reads FILE (default /etc/havip/havip.toml) and prints every problem with its place and the way
out, for every node that FILE names, and for routers that no node lists; with --etcd, of what etcd
has, where FILE says how to reach it. Ends with 0 if there is none, 3 if something cannot run or no
node is named, 4 if there are warnings only.",
    argument: Word::Config,
    flags: &[
        #[cfg(feature = "etcd")]
        Flag { long: "etcd", short: None, value: None, help: "Check what etcd has." },
        #[cfg(feature = "etcd")]
        super::etcd::ENDPOINTS_FLAG,
        super::CONFIG_FLAG,
    ],
    run,
};

fn run(given: &Given) -> Exit {
    #[cfg(feature = "etcd")]
    if given.has("etcd") {
        return run_etcd(given);
    }
    let path = super::config_path(given);
    let local = match Local::load(&path) {
        Ok(local) => local,
        Err(error) => return super::refused::report(&error),
    };
    // Beside etcd, what is missing here may stand there.
    let elsewhere = beside_store(&local);
    let mut problems = check_all(&local.tree, &local.settings.policy, &Facts::default(), elsewhere);
    if !elsewhere {
        problems.extend(of_this_node(&local));
    }
    problems.extend(local.problems.iter().cloned());
    let where_etcd_is = beside(&local);
    let what = path.display().to_string();
    let exit = verdict(&what, problems, nodes(&local.tree), elsewhere);
    if where_etcd_is == Exit::Done { exit } else { where_etcd_is }
}

/// What a daemon with this file alone would say because of its node's name.
fn of_this_node(local: &Local) -> Vec<Problem> {
    let known = local.tree.children("node/");
    match &local.settings.node {
        _ if known.is_empty() => Vec::new(),
        NodeNaming::Name(node) => built(local, node),
        NodeNaming::Host => {
            let Ok(name) = crate::daemon::host_name() else { return Vec::new() };
            if known.contains(&name) {
                return Vec::new();
            }
            let message = format!(
                "this host's name is {}, which is no node of this file: a daemon with this file would \
                 run no router here; set [havip] node, or list this node's routers; known: {}",
                short(&name),
                short(&known.join(", "))
            );
            vec![Problem::missing(Severity::Note, "", message)]
        }
        // Which address that is, only the box knows.
        NodeNaming::Mac(_) => Vec::new(),
    }
}

/// What is wrong or odd about the way to etcd, as the file alone has it.
#[cfg(feature = "etcd")]
fn beside(local: &Local) -> Exit {
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
    problems.extend(check_all(&tree, &store.policy, &Facts::default(), false));
    problems.extend(store.node.and_then(|node| unknown_node(&tree, &node)));
    verdict(&format!("etcd, revision {}", dump.revision), problems, nodes(&tree), false)
}

/// That etcd has nothing for the node that the local file names.
#[cfg(feature = "etcd")]
fn unknown_node(tree: &Tree, node: &NodeName) -> Option<Problem> {
    let path = format!("node/{node}/vrids");
    let known = tree.children("node/");
    if tree.get(&path).is_some() || known.is_empty() {
        return None;
    }
    let message = format!(
        "missing, and the local file says that this node is {node}; put the list of its routers \
         there, or correct [havip] node; known: {}",
        short(&known.join(", "))
    );
    Some(Problem::missing(Severity::Warning, &path, message))
}

/// Prints every problem, and the worst one's exit code. `elsewhere`: what is not here may stand
/// in etcd.
fn verdict(what: &str, problems: Vec<Problem>, nodes: usize, elsewhere: bool) -> Exit {
    // What is told twice is told once, at its worst.
    let mut worst: BTreeMap<_, Severity> = BTreeMap::new();
    let place =
        |problem: &Problem| (problem.origin.clone(), problem.path.clone(), problem.message.clone());
    for problem in &problems {
        let severity = worst.entry(place(problem)).or_insert(problem.severity);
        *severity = problem.severity.min(*severity);
    }
    for problem in &problems {
        if worst.get(&place(problem)) == Some(&problem.severity) {
            worst.remove(&place(problem));
            print(&format!("{problem}\n"));
        }
    }
    if nodes == 0 && !elsewhere {
        print(&format!(
            "{what}: error: it names no node, so no router would run; \
             list the routers of each node in node/NAME/vrids (see conf/havip.toml)\n"
        ));
        return Exit::Config;
    }
    match problems.iter().map(|problem| problem.severity).min() {
        Some(Severity::Error) => Exit::Config,
        Some(Severity::Warning) => Exit::Warnings,
        Some(Severity::Note) | None if nodes == 0 => {
            print(&format!(
                "{what}: right; its nodes are in etcd, which havip check --etcd checks\n"
            ));
            Exit::Done
        }
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
    // What is missing altogether may come with the next SIGHUP.
    let stands = |problem: &Problem| problem.origin.is_some() || problem.router.is_some();
    built(local, node).into_iter().filter(|problem| problem.is_error() && stands(problem)).collect()
}

/// What is wrong for this node, with the local file alone.
fn built(local: &Local, node: &NodeName) -> Vec<Problem> {
    build(&Input {
        tree: &local.tree,
        node,
        previous: None,
        policy: &local.settings.policy,
        facts: &Facts::default(),
        vanished: Vanished::Hold,
        listed_since: None,
    })
    .problems
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
