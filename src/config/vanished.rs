//! A mistake is not an order: what becomes of a router that ran and that the store has no more,
//! or not as it was, without anyone's word that it shall go.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::build::Builder;
use super::key::router_key;
use super::model::{IfName, Prefix, Router, RouterName};
use super::problem::{Problem, Severity};
use super::tree::{Entry, Origin, Value};
use super::value;

/// How far it is believed that something is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vanished {
    /// Routers whose keys, or whose node's key, are gone go on; an order releases them.
    #[default]
    Hold,
    /// The store was restored or replaced, so that what it had at this revision is nobody's word
    /// of now: routers that would be released by it, or lose addresses, go on as they were.
    /// Later words count.
    HoldSince(i64),
    /// It is gone, and shall be: an operator said so.
    Release,
}

impl Vanished {
    /// Whether a word that stands in an entry was given knowing what runs now.
    fn believes(self, entry: &Entry) -> bool {
        match (self, &entry.origin) {
            (Self::HoldSince(since), Origin::Etcd { mod_revision, .. }) => *mod_revision > since,
            (Self::HoldSince(_), Origin::Snapshot { .. } | Origin::Import { .. }) => false,
            (Self::HoldSince(_), Origin::Local { .. } | Origin::BuiltIn(_))
            | (Self::Hold | Self::Release, _) => true,
        }
    }
}

impl Builder<'_> {
    /// Puts back what a restored store would take away without a word of now.
    pub(super) fn hold_restored(
        &mut self,
        listed: &BTreeSet<RouterName>,
        wanted: &mut Vec<Arc<Router>>,
    ) {
        let Some(previous) = self.input.previous else { return };
        if !matches!(self.input.vanished, Vanished::HoldSince(_)) {
            return;
        }
        for (name, before) in &previous.routers {
            let at = wanted.iter().position(|router| router.name == *name);
            let lost = match at.map(|at| &wanted[at]) {
                None => "be released".to_owned(),
                Some(now) => match lost(before, now) {
                    lost if lost.is_empty() => continue,
                    lost => format!("lose {}", shown(&lost)),
                },
            };
            if self.is_ordered(name, listed.contains(name)) {
                continue;
            }
            let message = format!(
                "etcd was restored or replaced, and this router would {lost}: it goes on in the \
                 form it had; put the keys back, or type `havip confirm` to let it go"
            );
            let path = format!("virtual_router/{name}");
            self.problems.push(Problem::missing(Severity::Error, &path, message).of(name));
            self.held.insert(name.clone());
            match at {
                Some(at) => wanted[at] = Arc::clone(before),
                None => wanted.push(Arc::clone(before)),
            }
        }
    }

    /// Whether somebody who knew the store as it is now said that the router shall go, or have
    /// other addresses. Who changes a list that never had it does not know of it.
    fn is_ordered(&self, name: &RouterName, is_listed: bool) -> bool {
        let believed = |entry: &Entry| self.input.vanished.believes(entry);
        if !is_listed {
            let path = format!("node/{}/vrids", self.input.node);
            let was_listed = self.input.listed_since.is_some_and(|since| since.contains(name));
            return self.input.tree.get(&path).is_some_and(|entry| {
                believed(entry) && (was_listed || is_none(&entry.value) || is_local(entry))
            });
        }
        ["enabled", "vips", "vips_excluded"]
            .into_iter()
            .filter_map(|key| self.view.find(name.as_str(), router_key(key)?))
            .any(|found| believed(found.entry))
    }

    /// Whether anything at all stands in the tree for a router.
    pub(super) fn is_there(&self, name: &RouterName) -> bool {
        let (node, tree) = (self.input.node, self.input.tree);
        [format!("virtual_router/{name}/"), format!("node/{node}/virtual_router/{name}/")]
            .iter()
            .any(|prefix| tree.below(prefix).next().is_some())
    }
}

/// Whether a list says in so many words that there is none.
pub(super) fn is_none(value: &Value) -> bool {
    match value {
        Value::None => true,
        Value::List(items) => items.is_empty(),
        Value::Text(_) => false,
    }
}

const fn is_local(entry: &Entry) -> bool {
    matches!(entry.origin, Origin::Local { .. })
}

/// Addresses that one form of a router holds on its interface and the other does not.
fn lost(before: &Router, now: &Router) -> Vec<Prefix> {
    let all = |router: &Router| -> BTreeSet<(IfName, Prefix)> {
        let vips = router.vips.iter().chain(&router.vips_excluded);
        vips.map(|vip| (router.interface.clone(), *vip)).collect()
    };
    all(before).difference(&all(now)).map(|(_, prefix)| *prefix).collect()
}

fn shown(prefixes: &[Prefix]) -> String {
    let texts: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
    value::short(&texts.join(", "))
}
