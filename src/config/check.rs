//! A whole tree judged at once, for every node in it, as `havip check` does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::build::{Input, alone, routers};
use super::effective::View;
use super::key::router_key;
use super::model::{IfName, NodeName, RouterName};
use super::policy::{Facts, Policy};
use super::problem::{Problem, Report, Severity};
use super::settings::TABLES;
use super::tree::{Entry, Tree};
use super::vanished::Vanished;
use super::{unknown, value};

/// Everything that is wrong with a tree, whichever node it concerns; sorted by place. `partial`:
/// what is missing in it may stand elsewhere.
#[must_use]
pub fn check_all(tree: &Tree, policy: &Policy, facts: &Facts, partial: bool) -> Vec<Problem> {
    let mut problems: BTreeSet<Problem> = unknown::in_tree(tree, &TABLES).into_iter().collect();
    let mut listed: BTreeSet<RouterName> = BTreeSet::new();
    let mut judged: BTreeSet<RouterName> = BTreeSet::new();
    let mut holders: Holders = BTreeMap::new();
    for name in tree.children("node/") {
        match NodeName::new(&name) {
            Ok(node) => {
                let input = at_first(tree, &node, policy, facts);
                let (mut outcome, names) = routers(&input);
                // That it is to run nothing may be meant; on the node itself it is an error.
                let list = format!("node/{node}/vrids");
                for problem in &mut outcome.problems {
                    if problem.origin.is_none() && problem.path == list {
                        problem.severity = Severity::Warning;
                    }
                }
                problems.extend(outcome.problems);
                let own = tree.children(&format!("node/{node}/virtual_router/"));
                let mut own: BTreeSet<RouterName> =
                    own.iter().filter_map(|name| RouterName::new(name).ok()).collect();
                own.retain(|name| !names.contains(name));
                problems.extend(unlisted_keys(&input, &own));
                judged.extend(own);
                listed.extend(names);
                for router in outcome.config.routers.values() {
                    let vips = router.vips.iter().chain(&router.vips_excluded);
                    for vip in vips {
                        let place = (router.interface.clone(), vip.ip);
                        holders.entry(place).or_default().insert(router.name.clone());
                    }
                }
            }
            Err(why) => {
                let path = format!("node/{}", value::short(&name));
                let message = format!("{why}; rename it");
                problems.insert(Problem::missing(Severity::Warning, &path, message));
            }
        }
    }
    judged.extend(listed.iter().cloned());
    problems.extend(unlisted(tree, &listed));
    problems.extend(unlisted_by_all(tree, policy, facts, &judged));
    problems.extend(shared(&holders));
    problems.extend(orphans(tree));
    let is_told = |problem: &Problem| {
        !partial || problem.origin.is_some() || problem.severity == Severity::Note
    };
    let mut problems: Vec<Problem> = problems.into_iter().filter(is_told).collect();
    problems.sort_by(|a, b| (&a.origin, &a.path).cmp(&(&b.origin, &b.path)));
    problems
}

/// What a node has at its first start: nothing ran before.
fn at_first<'a>(
    tree: &'a Tree,
    node: &'a NodeName,
    policy: &'a Policy,
    facts: &'a Facts,
) -> Input<'a> {
    Input {
        tree,
        node,
        previous: None,
        policy,
        facts,
        vanished: Vanished::Hold,
        listed_since: None,
    }
}

/// Which routers put an address on an interface of this name, on whichever node.
type Holders = BTreeMap<(IfName, IpAddr), BTreeSet<RouterName>>;

/// VIPs of two routers on different nodes, of which each may be active. On one node the second one
/// is refused. Only a note: interfaces of one name need not be on one LAN.
fn shared(holders: &Holders) -> Vec<Problem> {
    let mut problems = Report::default();
    for ((interface, ip), routers) in holders {
        let mut routers = routers.iter();
        let Some(first) = routers.next() else { continue };
        for router in routers {
            let path = View::own_place(router.as_str(), "vips");
            let message = format!(
                "{ip} on {interface}: the same VIP as router {first}'s on another node; on one \
                 LAN, take it out of one of the two"
            );
            problems.push(Problem::missing(Severity::Note, &path, message).of(router));
        }
    }
    problems.into_vec()
}

/// Routers that run nowhere.
fn unlisted(tree: &Tree, listed: &BTreeSet<RouterName>) -> Vec<Problem> {
    let mut problems = Report::default();
    for name in tree.children("virtual_router/") {
        let path = format!("virtual_router/{name}");
        match RouterName::new(&name) {
            _ if name == "default" => {}
            Ok(name) if listed.contains(&name) => {}
            Ok(name) => {
                let message = "no node lists it in its vrids: it runs nowhere".to_owned();
                problems.push(Problem::missing(Severity::Note, &path, message).of(&name));
            }
            Err(why) => {
                let path = format!("virtual_router/{}", value::short(&name));
                problems.push(Problem::missing(
                    Severity::Warning,
                    &path,
                    format!("{why}; rename it"),
                ));
            }
        }
    }
    problems.into_vec()
}

/// What is wrong with the keys of routers that no node has anything to say about.
fn unlisted_by_all(
    tree: &Tree,
    policy: &Policy,
    facts: &Facts,
    judged: &BTreeSet<RouterName>,
) -> Vec<Problem> {
    let names = tree.children("virtual_router/");
    let names = names.iter().filter_map(|name| RouterName::new(name).ok());
    let names: BTreeSet<RouterName> = names.filter(|name| !judged.contains(name)).collect();
    // As a node sees them that has no word of its own.
    let Ok(node) = NodeName::new("-") else { return Vec::new() };
    let input = at_first(tree, &node, policy, facts);
    unlisted_keys(&input, &names)
}

/// The same of routers that this node does not list: nothing fails to run by it now.
fn unlisted_keys(input: &Input<'_>, names: &BTreeSet<RouterName>) -> Vec<Problem> {
    let mut problems = alone(input, names);
    for problem in &mut problems {
        problem.severity = problem.severity.max(Severity::Warning);
    }
    problems
}

/// Bindings to a router that does not have the VIP. The original leaves them behind when a VIP
/// is taken out of its router; no node acts on a binding.
fn orphans(tree: &Tree) -> Vec<Problem> {
    let mut problems = Report::default();
    let mut vips: BTreeMap<&str, Option<BTreeSet<IpAddr>>> = BTreeMap::new();
    let bindings = tree.below("binding/").filter_map(|(path, entry)| {
        let vip = path.strip_prefix("binding/")?.strip_suffix("/vrid")?;
        Some((path, vip, entry))
    });
    for (path, vip, entry) in bindings {
        let mut tell = |severity, message| {
            problems.push(Problem::at(severity, path, &entry.origin, message));
        };
        let Ok(ip) = vip.parse::<IpAddr>() else {
            tell(
                Severity::Warning,
                format!("\"{}\" is not an IP address; delete it", value::short(vip)),
            );
            continue;
        };
        let Ok(router) = value::single(&entry.value) else { continue };
        let has = vips.entry(router).or_insert_with(|| vips_of(tree, router));
        if !has.as_ref().is_some_and(|vips| vips.contains(&ip)) {
            let router = value::short(router);
            tell(
                Severity::Note,
                format!(
                    "orphaned: virtual_router/{router}/vips does not list {ip}, and vips decides; \
                     delete this key, or add the VIP there"
                ),
            );
        }
    }
    problems.into_vec()
}

/// The VIPs of a router wherever they stand; `None` if it has no readable list.
fn vips_of(tree: &Tree, router: &str) -> Option<BTreeSet<IpAddr>> {
    let keys = ["vips", "vips_excluded"].into_iter().filter_map(router_key);
    let own = keys.map(|key| View::own_place(router, key.name));
    let lists: Vec<&Entry> = own.filter_map(|path| tree.set(&path)).collect();
    let all = lists.iter().filter_map(|entry| value::vips(&entry.value).ok());
    let ips: BTreeSet<IpAddr> = all.flat_map(|(vips, _)| vips).map(|vip| vip.ip).collect();
    (!lists.is_empty()).then_some(ips)
}
