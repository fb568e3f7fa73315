//! Keys that nobody knows: a slip in the local file is an error, in the store a warning, since
//! others, and newer versions, write there.

use std::collections::BTreeSet;

use super::key::{BINDING_KEYS, BRANCHES, NODE_KEYS, ROUTER_KEYS};
use super::model::{NodeName, RouterName};
use super::problem::{Problem, Report, Severity, way_out};
use super::tree::{Entry, Origin, Tree};

fn severity(origin: &Origin) -> Severity {
    match origin {
        Origin::Local { .. } => Severity::Error,
        Origin::BuiltIn(_)
        | Origin::Etcd { .. }
        | Origin::Snapshot { .. }
        | Origin::Import { .. } => Severity::Warning,
    }
}

fn unknown<'a>(
    path: &str,
    name: &str,
    entry: &Entry,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Problem {
    let way_out = way_out(name, known);
    Problem::at(severity(&entry.origin), path, &entry.origin, format!("unknown key; {way_out}"))
}

/// An entry below `virtual_router/`; `rest` is what follows. `names`: only of these routers.
pub(super) fn of_router(
    path: &str,
    rest: &str,
    entry: &Entry,
    names: Option<&BTreeSet<&str>>,
) -> Option<Problem> {
    let (router, key) = rest.split_once('/').unwrap_or((rest, ""));
    if names.is_some_and(|names| !names.contains(router)) && entry.origin.is_store() {
        return None;
    }
    let known = || ROUTER_KEYS.iter().map(|key| key.name);
    match ROUTER_KEYS.iter().find(|known| known.name == key) {
        None => Some(unknown(path, key, entry, known())),
        Some(known) if router == "default" && !known.in_default => {
            let message = format!("{key} belongs to one router, and cannot be a default");
            Some(Problem::at(severity(&entry.origin), path, &entry.origin, message))
        }
        Some(_) => None,
    }
}

/// An entry below `node/NODE/`; `rest` is what follows.
pub(super) fn of_node(path: &str, rest: &str, entry: &Entry) -> Option<Problem> {
    if let Some(rest) = rest.strip_prefix("virtual_router/") {
        return of_router(path, rest, entry, None);
    }
    let known = || NODE_KEYS.iter().copied().chain(["virtual_router"]);
    (!NODE_KEYS.contains(&rest)).then(|| unknown(path, rest, entry, known()))
}

/// What is unknown, as far as it concerns this node and these routers.
pub(super) fn for_node(
    tree: &Tree,
    node: &NodeName,
    routers: &BTreeSet<RouterName>,
) -> Vec<Problem> {
    let node = format!("node/{node}/");
    let names: BTreeSet<&str> = routers.iter().map(RouterName::as_str).chain(["default"]).collect();
    let mut problems = Report::default();
    for (path, entry) in tree.below("virtual_router/") {
        let rest = path.strip_prefix("virtual_router/").unwrap_or_default();
        of_router(path, rest, entry, Some(&names)).into_iter().for_each(|p| problems.push(p));
    }
    for (path, entry) in tree.below(&node) {
        let rest = path.strip_prefix(&node).unwrap_or_default();
        of_node(path, rest, entry).into_iter().for_each(|p| problems.push(p));
    }
    problems.into_vec()
}

/// What is unknown in a whole tree, whoever it concerns. `settings` are the tables that only the
/// local file has.
pub(super) fn in_tree(tree: &Tree, settings: &[&str]) -> Vec<Problem> {
    let mut problems = Report::default();
    for (path, entry) in tree.below("") {
        let (branch, rest) = path.split_once('/').unwrap_or((path, ""));
        let problem = match branch {
            "virtual_router" => of_router(path, rest, entry, None),
            "node" => of_node(path, rest.split_once('/').map_or("", |(_, rest)| rest), entry),
            "binding" => {
                let key = rest.split_once('/').map_or("", |(_, key)| key);
                (!BINDING_KEYS.contains(&key))
                    .then(|| unknown(path, key, entry, BINDING_KEYS.iter().copied()))
            }
            "status" | "vRouterGateway" if entry.origin.is_store() => None,
            "status" | "vRouterGateway" => {
                let message = "havip writes this branch and never reads it; delete it".to_owned();
                Some(Problem::at(Severity::Warning, path, &entry.origin, message))
            }
            branch if settings.contains(&branch) && path.contains('/') => None,
            branch if settings.contains(&branch) => {
                Some(unknown(path, "", entry, settings.iter().copied()))
            }
            branch => {
                let known = BRANCHES.iter().chain(settings).copied();
                Some(unknown(path, branch, entry, known))
            }
        };
        problem.into_iter().for_each(|problem| problems.push(problem));
    }
    problems.into_vec()
}
