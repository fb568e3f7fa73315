//! From the merged tree to the validated configuration of one node.
//!
//! One bad router does not stop the others: it keeps the form it had, and is reported. And a
//! mistake is not an order: keys that vanish while they are still listed release nothing.

mod vips;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::conflict;
use super::effective::{Found, View, built_in, is_original};
use super::key::router_key;
use super::list;
use super::model::{Check, Config, IfName, NodeName, Prefix, Router, RouterName};
use super::policy::{Facts, Policy};
use super::problem::{Problem, Report, Severity, nearest};
use super::shown::short;
use super::tree::{Entry, Origin, Tree, Value};
use super::value::{self, Parsed};
use super::vanished::{Vanished, is_none};
use crate::wire::vrrp::{Version, Vrid};

/// What a configuration is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// All sources laid over each other.
    pub tree: &'a Tree,
    /// Whose configuration.
    pub node: &'a NodeName,
    /// What runs now.
    pub previous: Option<&'a Config>,
    /// What the store may do on this box.
    pub policy: &'a Policy,
    /// What the box is.
    pub facts: &'a Facts,
    /// What becomes of that which runs and is gone.
    pub vanished: Vanished,
    /// Routers that the node listed at any time since the store was restored: who leaves one of
    /// them out knows of it.
    pub listed_since: Option<&'a BTreeSet<RouterName>>,
}

/// A configuration, and what was wrong on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What to run.
    pub config: Config,
    /// What to tell.
    pub problems: Vec<Problem>,
    /// Routers that go on only because nobody said that they shall not.
    pub held: BTreeSet<RouterName>,
    /// Those, and all others that go on in the form they had.
    pub kept: BTreeSet<RouterName>,
    /// Routers that the node lists.
    pub listed: BTreeSet<RouterName>,
    /// Those of them that do not run, and why.
    pub idle: BTreeMap<RouterName, String>,
}

/// Routers that a node lists: more than any box can run.
const ROUTERS_MAX: usize = 4096;
/// Problems that are told one by one.
const PROBLEMS_MAX: usize = 1000;

/// Makes the configuration of one node.
#[must_use]
pub fn build(input: &Input<'_>) -> Outcome {
    let (mut outcome, listed) = routers(input);
    outcome.problems.extend(super::unknown::for_node(input.tree, input.node, &listed));
    outcome
}

/// The same without a word on unknown keys, and the routers that the node lists.
pub(super) fn routers(input: &Input<'_>) -> (Outcome, BTreeSet<RouterName>) {
    let mut builder = Builder::new(input);
    let mut wanted = Vec::new();
    let listed = builder.listed();
    for name in &listed {
        wanted.extend(builder.router(name));
    }
    builder.hold_restored(&listed, &mut wanted);
    let routers = builder.without_conflicts(wanted);
    let node_ip = builder.node_ip();
    let config = Config { node: input.node.clone(), node_ip, routers };
    let Builder { problems, held, mut kept, named, mut idle, .. } = builder;
    kept.extend(held.iter().cloned());
    idle.retain(|name, _| !config.routers.contains_key(name));
    (Outcome { config, problems: problems.into_vec(), held, kept, listed: named, idle }, listed)
}

/// What is wrong with these routers by themselves, whether the node lists them or not.
pub(super) fn alone(input: &Input<'_>, names: &BTreeSet<RouterName>) -> Vec<Problem> {
    let mut builder = Builder::new(input);
    for name in names {
        let before = builder.problems.len();
        let _ = builder.parse_router(name);
        builder.problems.about(before, name);
    }
    builder.problems.into_vec()
}

pub(super) struct Builder<'a> {
    pub(super) input: &'a Input<'a>,
    pub(super) view: View<'a>,
    pub(super) problems: Report,
    /// Routers that go on only because nobody said that they shall not.
    pub(super) held: BTreeSet<RouterName>,
    /// Routers whose keys are not right, and that go on in the form they had.
    kept: BTreeSet<RouterName>,
    /// Routers that the list itself names.
    named: BTreeSet<RouterName>,
    /// Routers that do not run, and why.
    idle: BTreeMap<RouterName, String>,
    /// Interfaces that this box does not have.
    absent: BTreeSet<IfName>,
    /// Where the VIPs of each router stand, for what shows only beside the others.
    places: BTreeMap<RouterName, Found<'a>>,
}

/// A router whose keys are not all right; what is wrong was reported.
struct Bad;

impl<'a> Builder<'a> {
    fn new(input: &'a Input<'a>) -> Self {
        Self {
            input,
            view: View::new(input.tree, input.node),
            problems: Report::of_at_most(PROBLEMS_MAX),
            places: BTreeMap::new(),
            held: BTreeSet::new(),
            kept: BTreeSet::new(),
            named: BTreeSet::new(),
            idle: BTreeMap::new(),
            absent: BTreeSet::new(),
        }
    }

    /// Names of the routers that the node is to run: what its `vrids` lists. Where that word is
    /// missing or not clear, what runs goes on.
    fn listed(&mut self) -> BTreeSet<RouterName> {
        let path = format!("node/{}/vrids", self.input.node);
        let running: BTreeSet<RouterName> =
            self.input.previous.map_or_else(BTreeSet::new, |c| c.routers.keys().cloned().collect());
        let release = self.input.vanished == Vanished::Release;
        let Some(entry) = self.input.tree.get(&path) else {
            if running.is_empty() || release {
                self.problems.push(self.no_such_node(&path));
                return BTreeSet::new();
            }
            let message = "gone; a mistake is not an order, so what ran goes on; to release the \
                           routers set it to \"none\", or type `havip confirm`";
            self.problems.push(Problem::missing(Severity::Error, &path, message.into()));
            self.held.extend(running.iter().cloned());
            return running;
        };
        if is_none(&entry.value) {
            return BTreeSet::new();
        }
        let mut names = BTreeSet::new();
        let mut clear = true;
        for item in entry.value.items() {
            let listed = list::routers(item).unwrap_or_else(|message| {
                self.report(Severity::Error, &path, entry, message);
                clear = false;
                Vec::new()
            });
            for name in listed {
                if names.contains(&name) {
                    let message = format!("{name} is listed twice");
                    self.report(Severity::Warning, &path, entry, message);
                } else if names.len() < ROUTERS_MAX {
                    names.insert(name);
                } else if clear {
                    let message = format!("more than {ROUTERS_MAX} routers; the rest does not run");
                    self.report(Severity::Error, &path, entry, message);
                    clear = false;
                }
            }
        }
        self.named.clone_from(&names);
        if names.is_empty() && clear {
            let message = "empty; set it to \"none\" if this node is to run no router".into();
            self.report(Severity::Error, &path, entry, message);
            clear = false;
        }
        // Who knows whether it was the garbled item that named it.
        if !clear && !running.is_subset(&names) {
            let held: Vec<&str> = running.difference(&names).map(RouterName::as_str).collect();
            let message = format!(
                "not clear, so what is no longer listed goes on ({}); correct the list",
                short(&held.join(", "))
            );
            self.report(Severity::Error, &path, entry, message);
            self.kept.extend(running.difference(&names).cloned());
            names.extend(running);
        }
        names
    }

    /// That nothing says what this node is to run: most likely it has another name there.
    fn no_such_node(&self, path: &str) -> Problem {
        let node = self.input.node;
        let mut known = self.input.tree.children("node/");
        known.retain(|other| *other != node.as_str());
        let way_out = match nearest(node.as_str(), known.iter().map(String::as_str)) {
            Some(near) => {
                format!("did you mean \"{}\"? [havip] node says which node this is", short(near))
            }
            _ if known.is_empty() => "list its routers there, or set it to \"none\"".to_owned(),
            _ => format!(
                "list its routers there, or correct [havip] node; known: {}",
                short(&known.join(", "))
            ),
        };
        let message = format!("missing, so node {node} runs no router; {way_out}");
        Problem::missing(Severity::Error, path, message)
    }

    fn report(&mut self, severity: Severity, path: &str, entry: &Entry, message: String) {
        self.problems.push(Problem::at(severity, path, &entry.origin, message));
    }

    /// The router of this name, or the form it had if its keys are not right; `None` if it is
    /// disabled, or there is nothing to keep.
    fn router(&mut self, name: &RouterName) -> Option<Arc<Router>> {
        let before = self.problems.len();
        let result = self.parse_router(name);
        self.problems.about(before, name);
        match result {
            Ok(router) => {
                let router = router?;
                self.left_where_it_is(&router).or_else(|| Some(Arc::new(router)))
            }
            Err(Bad) => {
                let kept = self.input.previous.and_then(|config| config.routers.get(name));
                // Wrong keys are a mistake; that there are none at all can be meant.
                let gone = !self.is_there(name);
                let kept = kept.filter(|_| !(gone && self.input.vanished == Vanished::Release));
                if kept.is_some() {
                    let set = if gone { &mut self.held } else { &mut self.kept };
                    set.insert(name.clone());
                }
                self.fate(name, "its keys are not right", kept.is_some());
                kept.cloned()
            }
        }
    }

    /// The form that a router had, if it was on an interface of this box and shall go to one that
    /// the box does not have: a slip in a name, most likely, and no order to give its VIPs up. Once
    /// there is such an interface it goes.
    fn left_where_it_is(&mut self, router: &Router) -> Option<Arc<Router>> {
        let there = self.input.facts.interfaces.as_ref()?;
        let before = self.input.previous?.routers.get(&router.name)?;
        let (old, new) = (&before.interface, &router.interface);
        if there.contains(new) || !there.contains(old) {
            return None;
        }
        let name = &router.name;
        if self.absent.insert(new.clone()) {
            let near = nearest(new.as_str(), there.iter().map(IfName::as_str));
            let hint = match (self.input.facts.other_names.get(new), near) {
                (Some(real), _) => format!(" (it is another name of {real}: write that)"),
                (None, Some(near)) => format!(" (did you mean \"{near}\"?)"),
                (None, None) => String::new(),
            };
            let message = format!(
                "this box has no interface {new} to run on{hint}; a router that runs on another \
                 one stays there until it has"
            );
            let found = router_key("interface").and_then(|key| self.view.find(name.as_str(), key));
            if let Some(found) = found {
                self.report(Severity::Error, &found.path, found.entry, message);
            }
        }
        self.kept.insert(name.clone());
        self.fate(name, &format!("there is no interface {new}"), true);
        Some(Arc::clone(before))
    }

    /// Says what becomes of a router that cannot be as it should.
    fn fate(&mut self, name: &RouterName, why: &str, kept: bool) {
        let path = format!("virtual_router/{name}");
        let then = if kept {
            "goes on in the form it had; to release it, set enabled = false"
        } else {
            "does not run"
        };
        if !kept {
            self.idle.insert(name.clone(), format!("refused: {why}"));
        }
        let message = format!("{why}: this router {then}");
        self.problems.push(Problem::missing(Severity::Error, &path, message).of(name));
    }

    /// Reads one key; `Ok(None)` if nobody sets it and nothing is built in.
    fn read<T>(
        &mut self,
        name: &RouterName,
        key: &'static str,
        original: bool,
        parse: impl Fn(&Value) -> Parsed<T>,
    ) -> Result<Option<(T, Option<Found<'a>>)>, Bad> {
        let Some(key) = router_key(key) else { return Ok(None) };
        if let Some(found) = self.view.find(name.as_str(), key) {
            if found.entry.origin.is_store()
                && let Err(why) = self.input.policy.allows_key(key.name)
            {
                self.report(Severity::Error, &found.path, found.entry, why);
                return Err(Bad);
            }
            return match parse(&found.entry.value) {
                Ok(value) => Ok(Some((value, Some(found)))),
                Err(why) => {
                    self.report(Severity::Error, &found.path, found.entry, why);
                    Err(Bad)
                }
            };
        }
        let Some((text, _)) = built_in(key.name, original) else { return Ok(None) };
        // A built-in value that does not parse would show in the first test.
        Ok(parse(&Value::Text(text.to_owned())).ok().map(|value| (value, None)))
    }

    /// Reads a key that must be set, or is built in.
    fn need<T>(
        &mut self,
        name: &RouterName,
        key: &'static str,
        original: bool,
        parse: impl Fn(&Value) -> Parsed<T>,
    ) -> Result<(T, Option<Found<'a>>), Bad> {
        if let Some(found) = self.read(name, key, original, parse)? {
            return Ok(found);
        }
        let path = View::own_place(name.as_str(), key);
        let or = if router_key(key).is_some_and(|key| key.in_default) {
            " (or virtual_router/default/)"
        } else {
            ""
        };
        let message = format!("missing; set it here{or}");
        self.problems.push(Problem::missing(Severity::Error, &path, message));
        Err(Bad)
    }

    fn parse_router(&mut self, name: &RouterName) -> Result<Option<Router>, Bad> {
        let (enabled, found) = self.need(name, "enabled", false, value::boolean)?;
        if !enabled {
            let place = found.map_or_else(String::new, |found| match &found.entry.origin {
                origin @ Origin::Etcd { .. } => format!(" at {origin}"),
                origin => format!(" at {origin}, {}", found.path),
            });
            self.idle.insert(name.clone(), format!("disabled: enabled = false{place}"));
            return Ok(None);
        }
        self.read(name, "profile", false, |value| match value::single(value)? {
            "original" => Ok(()),
            other => Err(format!("\"{}\": the one profile is \"original\"", short(other))),
        })?;
        let original = is_original(&self.view, name.as_str());
        // Every key is read before any mistake ends it: an operator wants all of them at once.
        let vrid = self.vrid(name);
        let vips = self.need(name, "vips", original, value::vips);
        let excluded = self.read(name, "vips_excluded", original, value::vips);
        let interface = self.need(name, "interface", original, interface);
        let version = self.need(name, "version", original, value::version);
        let priority = self.need(name, "priority", original, value::priority);
        let preempt = self.need(name, "preempt", original, value::boolean);
        let delay = self.need(name, "preempt_delay", original, |v| value::seconds(v, 1000));
        let listen = self.need(name, "listen_first", original, |v| value::seconds(v, 600));
        let carrier = self.need(name, "carrier_delay", original, |v| value::seconds(v, 60));
        let probe = self.need(name, "probe_interval", original, |v| value::seconds(v, 3600));
        let yields = self.need(name, "yield_on_send_errors", original, value::boolean);
        let accept = self.need(name, "accept", original, accept);
        let checksum = self.need(name, "checksum", original, value::checksum);
        let lifetime = self.need(name, "address_lifetime", original, value::lifetime);
        let check = self.check(name);
        let version = version?;
        let interval =
            self.need(name, "advert_interval", original, |v| value::advert_interval(v, version.0));
        let auth = self.auth_pass(name, original, version.0);
        accept?;
        let (vips, vips_found) = self.without_doubles(vips?);
        let (excluded, excluded_found) = match excluded? {
            Some(excluded) => self.without_doubles(excluded),
            None => (Vec::new(), None),
        };
        let excluded = self.not_both(&vips, excluded, excluded_found.as_ref());
        let family = self.family(name, &vips, vips_found.as_ref(), &version)?;
        let (interface, interface_found) = interface?;
        self.policy_of_interface(&interface, interface_found.as_ref())?;
        self.policy_of_vips(&vips, vips_found.as_ref())?;
        self.policy_of_vips(&excluded, excluded_found.as_ref())?;
        if let Some(found) = vips_found {
            self.places.insert(name.clone(), found);
        }
        Ok(Some(Router {
            name: name.clone(),
            vrid: vrid?,
            version: version.0,
            family,
            interface,
            priority: priority?.0,
            preempt: preempt?.0,
            preempt_delay: delay?.0,
            listen_first: listen?.0,
            carrier_delay: carrier?.0,
            probe_interval: probe?.0,
            yield_on_send_errors: yields?.0,
            advert_interval: interval?.0,
            auth_pass: auth?,
            vips,
            vips_excluded: excluded,
            checksum: checksum?.0,
            address_lifetime: lifetime?.0,
            check: check?,
        }))
    }

    fn vrid(&mut self, name: &RouterName) -> Result<Vrid, Bad> {
        let key = self.read(name, "vrid", false, value::vrid)?;
        let path = View::own_place(name.as_str(), "vrid");
        let text = name.as_str();
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            if let Some((vrid, _)) = key {
                return Ok(vrid);
            }
            let message = "missing; a router that is not named by its VRID needs this key";
            self.problems.push(Problem::missing(Severity::Error, &path, message.into()));
            return Err(Bad);
        }
        // No leading zeros: one router has one name.
        let number = text.parse().ok().filter(|number: &u8| number.to_string() == text);
        let Some(number) = number.and_then(Vrid::new) else {
            let message = format!(
                "a router named by a number has its VRID, 1 to 255, as its name, and {} is none; \
                 rename it",
                short(text)
            );
            self.problems.push(Problem::missing(
                Severity::Error,
                &format!("virtual_router/{name}"),
                message,
            ));
            return Err(Bad);
        };
        match key {
            Some((vrid, Some(found))) if vrid != number => {
                let message = format!(
                    "{vrid}, but the router is named {name}; delete this key, or give the router \
                     a name that is no number"
                );
                self.report(Severity::Error, &found.path, found.entry, message);
                Err(Bad)
            }
            Some(_) | None => Ok(number),
        }
    }

    fn auth_pass(
        &mut self,
        name: &RouterName,
        original: bool,
        version: Version,
    ) -> Result<Option<super::model::Secret>, Bad> {
        match self.read(name, "auth_pass", original && version == Version::V2, value::auth_pass)? {
            Some((_, Some(found))) if version == Version::V3 => {
                let message = "version 3 has no authentication: not used; set version = \"2\", \
                               or delete it";
                self.report(Severity::Warning, &found.path, found.entry, message.into());
                Ok(None)
            }
            found => Ok(found.map(|(secret, _)| secret)),
        }
    }

    fn check(&mut self, name: &RouterName) -> Result<Option<Check>, Bad> {
        let duration = |v: &Value| value::seconds(v, 86_400);
        let count = |v: &Value| value::number::<u32>(v, (1, 1000), "1 to 1000");
        let program = self.read(name, "check", false, value::program)?;
        let interval = self.read(name, "check_interval", false, duration)?;
        let timeout = self.read(name, "check_timeout", false, duration)?;
        let rise = self.read(name, "check_rise", false, count)?;
        let fall = self.read(name, "check_fall", false, count)?;
        let found = [
            program.as_ref().and_then(|(_, found)| found.as_ref()),
            interval.as_ref().and_then(|(_, found)| found.as_ref()),
            timeout.as_ref().and_then(|(_, found)| found.as_ref()),
            rise.as_ref().and_then(|(_, found)| found.as_ref()),
            fall.as_ref().and_then(|(_, found)| found.as_ref()),
        ];
        let Some(first) = found.into_iter().flatten().next() else { return Ok(None) };
        let message = "check and check_* are read, but nothing acts on them yet";
        let problem =
            Problem::at(Severity::Note, &first.path, &first.entry.origin, message.to_owned());
        self.problems.push(problem);
        Ok(Some(Check {
            name: program.map(|(value, _)| value),
            interval: interval.map(|(value, _)| value),
            timeout: timeout.map(|(value, _)| value),
            rise: rise.map(|(value, _)| value),
            fall: fall.map(|(value, _)| value),
        }))
    }

    /// Takes out routers that cannot run beside the others.
    fn without_conflicts(&mut self, wanted: Vec<Arc<Router>>) -> BTreeMap<RouterName, Arc<Router>> {
        let (chosen, refused) = conflict::settle(wanted, self.input.previous);
        for refused in refused {
            let name = &refused.router;
            let problem = match self.places.get(name) {
                Some(found) => Problem::at(
                    Severity::Error,
                    &found.path,
                    &found.entry.origin,
                    refused.message(),
                ),
                None => {
                    let path = format!("virtual_router/{name}");
                    Problem::missing(Severity::Error, &path, refused.message())
                }
            };
            self.problems.push(problem.of(name));
            self.fate(name, "it cannot run beside the others", refused.kept);
            if refused.kept {
                self.kept.insert(name.clone());
            }
        }
        chosen
    }

    fn node_ip(&mut self) -> Option<IpAddr> {
        let path = format!("node/{}/node_ip", self.input.node);
        let entry = self.input.tree.set(&path)?;
        match value::single(&entry.value).and_then(value::prefix) {
            Ok(prefix) if prefix == Prefix::host(prefix.ip) => Some(prefix.ip),
            Ok(_) => {
                self.report(Severity::Error, &path, entry, "an address without /LEN".into());
                self.input.previous.and_then(|config| config.node_ip)
            }
            Err(why) => {
                self.report(Severity::Error, &path, entry, why);
                self.input.previous.and_then(|config| config.node_ip)
            }
        }
    }
}

fn interface(value: &Value) -> Parsed<IfName> {
    let text = value::single(value)?;
    IfName::new(text).map_err(|why| format!("\"{}\": {why}", short(text)))
}

fn accept(value: &Value) -> Parsed<()> {
    if value::boolean(value)? {
        Ok(())
    } else {
        Err("accept = false needs a packet filter that havip does not have yet; delete it".into())
    }
}
