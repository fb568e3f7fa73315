//! From the merged tree to the validated configuration of one node.
//!
//! One bad router does not stop the others: it keeps the form it had, and is reported. And a
//! mistake is not an order: keys that vanish while they are still listed release nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::effective::{Found, View, built_in, is_original};
use super::key::router_key;
use super::model::{Check, Config, IfName, NodeName, Prefix, Router, RouterName};
use super::policy::{Facts, Policy};
use super::problem::{Problem, Severity};
use super::tree::{Entry, Tree, Value};
use super::value::{self, Parsed};
use crate::wire::Family;
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
}

/// A configuration, and what was wrong on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What to run.
    pub config: Config,
    /// What to tell.
    pub problems: Vec<Problem>,
}

/// Makes the configuration of one node.
#[must_use]
pub fn build(input: &Input<'_>) -> Outcome {
    let mut builder =
        Builder { input, view: View { tree: input.tree, node: input.node }, problems: Vec::new() };
    let names = builder.listed();
    let mut wanted = Vec::new();
    for name in &names {
        if let Some(router) = builder.router(name) {
            wanted.push(router);
        }
    }
    let routers = builder.without_conflicts(wanted);
    let node_ip = builder.node_ip();
    builder.unknown_keys(&names);
    let config = Config { node: input.node.clone(), node_ip, routers };
    Outcome { config, problems: builder.problems }
}

struct Builder<'a> {
    input: &'a Input<'a>,
    view: View<'a>,
    problems: Vec<Problem>,
}

/// A router whose keys are not all right; what is wrong was reported.
struct Bad;

impl<'a> Builder<'a> {
    /// Names of the routers that the node is to run.
    fn listed(&mut self) -> Vec<RouterName> {
        let path = format!("node/{}/vrids", self.input.node);
        let running =
            || self.input.previous.map_or_else(Vec::new, |c| c.routers.keys().cloned().collect());
        let Some(entry) = self.input.tree.get(&path) else {
            let kept: Vec<RouterName> = running();
            if !kept.is_empty() {
                let message = "gone; a mistake is not an order, so what ran goes on; to release \
                               the routers set it to \"none\"";
                self.problems.push(Problem::missing(Severity::Error, &path, message.into()));
            }
            return kept;
        };
        let mut names = Vec::new();
        for item in entry.value.items() {
            match RouterName::new(item) {
                Ok(name) if names.contains(&name) => {
                    let message = format!("{name} is listed twice");
                    self.report(Severity::Warning, &path, entry, message);
                }
                Ok(name) => names.push(name),
                Err(why) => {
                    let message = format!("\"{}\": {why}", value::short(item));
                    self.report(Severity::Error, &path, entry, message);
                }
            }
        }
        names
    }

    fn report(&mut self, severity: Severity, path: &str, entry: &Entry, message: String) {
        self.problems.push(Problem::at(severity, path, &entry.origin, message));
    }

    /// The router of this name, or the form it had if its keys are not right; `None` if it is
    /// disabled, or there is nothing to keep.
    fn router(&mut self, name: &RouterName) -> Option<Arc<Router>> {
        let before = self.problems.len();
        let result = self.parse_router(name);
        for problem in self.problems.iter_mut().skip(before) {
            problem.router = Some(name.clone());
        }
        match result {
            Ok(router) => router.map(Arc::new),
            Err(Bad) => self.keep(name, "its keys are not right"),
        }
    }

    fn keep(&mut self, name: &RouterName, why: &str) -> Option<Arc<Router>> {
        let kept = self.input.previous.and_then(|config| config.routers.get(name)).cloned();
        let path = format!("virtual_router/{name}");
        let then = if kept.is_some() { "goes on in the form it had" } else { "does not run" };
        let message = format!("{why}: this router {then}");
        self.problems.push(Problem::missing(Severity::Error, &path, message).of(name));
        kept
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
        if !self.need(name, "enabled", false, value::boolean)?.0 {
            return Ok(None);
        }
        self.read(name, "profile", false, |value| match value::single(value)? {
            "original" => Ok(()),
            other => Err(format!("\"{}\": the one profile is \"original\"", value::short(other))),
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
        let accept = self.need(name, "accept", original, accept);
        let checksum = self.need(name, "checksum", original, value::checksum);
        let lifetime = self.need(name, "address_lifetime", original, value::lifetime);
        let check = self.check(name);
        let version = version?;
        let interval =
            self.need(name, "advert_interval", original, |v| value::advert_interval(v, version.0));
        let auth = self.auth_pass(name, original, version.0);
        accept?;
        let vips = self.checked_vips(vips?)?;
        let excluded = match excluded? {
            Some(excluded) => self.checked_vips(excluded)?,
            None => (Vec::new(), None),
        };
        let family = self.family(name, &vips, version.0)?;
        let interface = interface?;
        self.check_policy(name, &interface, &[&vips, &excluded])?;
        Ok(Some(Router {
            name: name.clone(),
            vrid: vrid?,
            version: version.0,
            family,
            interface: interface.0,
            priority: priority?.0,
            preempt: preempt?.0,
            preempt_delay: delay?.0,
            advert_interval: interval?.0,
            auth_pass: auth?,
            vips: vips.0,
            vips_excluded: excluded.0,
            checksum: checksum?.0,
            address_lifetime: lifetime?.0,
            check: check?,
        }))
    }

    fn vrid(&mut self, name: &RouterName) -> Result<Vrid, Bad> {
        let key = self.read(name, "vrid", false, value::vrid)?;
        let digits = name.as_str().bytes().all(|byte| byte.is_ascii_digit());
        let path = View::own_place(name.as_str(), "vrid");
        let fail = |message: String| Problem::missing(Severity::Error, &path, message);
        match (digits, key) {
            (false, Some((vrid, _))) => Ok(vrid),
            (false, None) => {
                self.problems.push(fail(
                    "missing; a router that is not named by its VRID needs this key".into(),
                ));
                Err(Bad)
            }
            (true, key) => {
                let number = name.as_str().parse().ok().and_then(Vrid::new);
                let Some(number) = number else {
                    self.problems.push(fail(format!(
                        "a router named by a number has a VRID from 1 to 255 as its name, and \
                         {name} is none; rename it"
                    )));
                    return Err(Bad);
                };
                match key {
                    Some((vrid, Some(found))) if vrid != number => {
                        let message = format!(
                            "{vrid}, but the router is named {name}; delete this key, or give \
                             the router a name that is no number"
                        );
                        self.report(Severity::Error, &found.path, found.entry, message);
                        Err(Bad)
                    }
                    Some(_) | None => Ok(number),
                }
            }
        }
    }

    fn checked_vips(
        &mut self,
        ((vips, doubles), found): ((Vec<Prefix>, Vec<Prefix>), Option<Found<'a>>),
    ) -> Result<(Vec<Prefix>, Option<Found<'a>>), Bad> {
        if let Some(found) = &found {
            for double in doubles {
                let message = format!("{double} is listed twice");
                self.report(Severity::Warning, &found.path, found.entry, message);
            }
        }
        Ok((vips, found))
    }

    /// The one family of the VIPs, and what follows from it.
    fn family(
        &mut self,
        name: &RouterName,
        (vips, found): &(Vec<Prefix>, Option<Found<'a>>),
        version: Version,
    ) -> Result<Family, Bad> {
        let path = found
            .as_ref()
            .map_or_else(|| View::own_place(name.as_str(), "vips"), |found| found.path.clone());
        let mut fail = |message: String| {
            let problem = match found {
                Some(found) => Problem::at(Severity::Error, &path, &found.entry.origin, message),
                None => Problem::missing(Severity::Error, &path, message),
            };
            self.problems.push(problem);
            Err(Bad)
        };
        let Some(first) = vips.first() else {
            return fail("empty; a router has at least one VIP".into());
        };
        let family = Family::of(&first.ip);
        if let Some(other) = vips.iter().find(|vip| Family::of(&vip.ip) != family) {
            return fail(format!(
                "{first} and {other} are of different families; put those of one family into \
                 vips_excluded, or into a router of their own"
            ));
        }
        if let IpAddr::V6(ip) = first.ip
            && !ip.is_unicast_link_local()
        {
            return fail(format!(
                "{first} comes first, but peers discard adverts whose first IPv6 address is not \
                 link-local; put one from fe80::/10 in front"
            ));
        }
        if version == Version::V2 && family == Family::V6 {
            return fail("version 2 has no IPv6; set version = \"3\"".into());
        }
        Ok(family)
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
        let program = self.read(name, "check", false, |v| Ok(value::single(v)?.to_owned()))?;
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

    fn check_policy(
        &mut self,
        name: &RouterName,
        (interface, interface_found): &(IfName, Option<Found<'a>>),
        vips: &[&(Vec<Prefix>, Option<Found<'a>>)],
    ) -> Result<(), Bad> {
        let policy = self.input.policy;
        let mut refused = Vec::new();
        if let Some(found) = interface_found
            && found.entry.origin.is_store()
            && let Err(why) = policy.allows_interface(interface)
        {
            refused.push((found, why));
        }
        for (vips, found) in vips {
            let Some(found) = found.as_ref().filter(|found| found.entry.origin.is_store()) else {
                continue;
            };
            let why =
                vips.iter().find_map(|vip| policy.allows_address(&vip.ip, self.input.facts).err());
            refused.extend(why.map(|why| (found, why)));
        }
        // A local interface does not make a store's VIP harmless, nor the other way round: each
        // value is judged by its own origin.
        let bad = !refused.is_empty();
        for (found, why) in refused {
            let problem = Problem::at(Severity::Error, &found.path, &found.entry.origin, why);
            self.problems.push(problem.of(name));
        }
        if bad { Err(Bad) } else { Ok(()) }
    }

    /// Takes out routers that cannot run beside the others. Who runs already goes first.
    fn without_conflicts(&mut self, wanted: Vec<Arc<Router>>) -> BTreeMap<RouterName, Arc<Router>> {
        let runs = |router: &Router| {
            self.input.previous.is_some_and(|config| config.routers.contains_key(&router.name))
        };
        let (old, new): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|router| runs(router));
        let mut kept: BTreeMap<RouterName, Arc<Router>> = BTreeMap::new();
        let mut taken = Taken::default();
        for router in old.into_iter().chain(new) {
            if let Err(why) = taken.take(&router) {
                let path = format!("virtual_router/{}", router.name);
                let problem = Problem::missing(Severity::Error, &path, why);
                self.problems.push(problem.of(&router.name));
                let before = self.keep(&router.name, "it cannot run beside the others");
                if let Some(before) = before
                    && taken.take(&before).is_ok()
                {
                    kept.insert(before.name.clone(), before);
                }
                continue;
            }
            kept.insert(router.name.clone(), router);
        }
        kept
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

    /// Reports keys that nobody knows, as far as they concern this node.
    fn unknown_keys(&mut self, names: &[RouterName]) {
        let node = format!("node/{}/", self.input.node);
        let names: BTreeSet<&str> =
            names.iter().map(RouterName::as_str).chain(["default"]).collect();
        let tree = self.input.tree;
        let mut found = Vec::new();
        for (path, entry) in tree.below("virtual_router/") {
            let rest = path.strip_prefix("virtual_router/").unwrap_or_default();
            found.extend(super::unknown::of_router(path, rest, entry, Some(&names)));
        }
        for (path, entry) in tree.below(&node) {
            let rest = path.strip_prefix(&node).unwrap_or_default();
            found.extend(super::unknown::of_node(path, rest, entry));
        }
        self.problems.extend(found);
    }
}

/// What may stand only once.
#[derive(Default)]
struct Taken {
    ids: BTreeMap<(IfName, Family, Vrid), RouterName>,
    vips: BTreeMap<(IfName, IpAddr), RouterName>,
}

impl Taken {
    fn take(&mut self, router: &Router) -> Result<(), String> {
        let id = (router.interface.clone(), router.family, router.vrid);
        if let Some(other) = self.ids.get(&id) {
            return Err(format!(
                "VRID {} of {} on {} is router {other}'s already; choose another vrid or interface",
                router.vrid, router.family, router.interface
            ));
        }
        let vips = || router.vips.iter().chain(&router.vips_excluded);
        for vip in vips() {
            if let Some(other) = self.vips.get(&(router.interface.clone(), vip.ip)) {
                return Err(format!(
                    "{} on {} is router {other}'s already; take it out of one of them",
                    vip.ip, router.interface
                ));
            }
        }
        for vip in vips() {
            self.vips.insert((router.interface.clone(), vip.ip), router.name.clone());
        }
        self.ids.insert(id, router.name.clone());
        Ok(())
    }
}

fn interface(value: &Value) -> Parsed<IfName> {
    let text = value::single(value)?;
    IfName::new(text).map_err(|why| format!("\"{}\": {why}", value::short(text)))
}

fn accept(value: &Value) -> Parsed<()> {
    if value::boolean(value)? {
        Ok(())
    } else {
        Err("accept = false needs a packet filter that havip does not have yet; delete it".into())
    }
}
