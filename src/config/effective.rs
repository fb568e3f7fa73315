//! Which value holds: the places of a key, in the order in which they are asked.

use std::cell::RefCell;

use super::key::{Key, router_key};
use super::list::all_routers;
use super::model::NodeName;
use super::shown;
use super::tree::{Entry, Origin, Tree, Value};

/// A value that holds, and where it was found.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    pub(super) path: String,
    pub(super) entry: &'a Entry,
}

/// The keys of a router that are set right below a path: no more than there are in
/// [`key`](super::key), however much stands there beside them.
#[derive(Debug)]
struct Section<'a> {
    prefix: String,
    keys: Vec<(&'a str, &'a Entry)>,
}

impl<'a> Section<'a> {
    fn new(tree: &'a Tree, prefix: String) -> Self {
        let set = tree.below(&prefix).filter(|(_, entry)| entry.value != Value::None);
        let named = set.filter_map(|(path, entry)| Some((path.strip_prefix(&prefix)?, entry)));
        let keys = named.filter(|(name, _)| router_key(name).is_some()).collect();
        Self { prefix, keys }
    }

    /// A node's own words on a router, and what holds for every node.
    fn pair(tree: &'a Tree, node: &NodeName, router: &str) -> [Self; 2] {
        let path = format!("virtual_router/{router}/");
        [format!("node/{node}/{path}"), path].map(|prefix| Self::new(tree, prefix))
    }

    fn find(&self, key: &str) -> Option<Found<'a>> {
        let (_, entry) = self.keys.iter().find(|(name, _)| *name == key)?;
        Some(Found { path: format!("{}{key}", self.prefix), entry })
    }
}

/// The tree as one node sees it.
#[derive(Debug)]
pub(super) struct View<'a> {
    tree: &'a Tree,
    node: &'a NodeName,
    default: [Section<'a>; 2],
    /// The router that was asked for last: its keys are asked for one after the other.
    recent: RefCell<Option<(String, [Section<'a>; 2])>>,
}

impl<'a> View<'a> {
    pub(super) fn new(tree: &'a Tree, node: &'a NodeName) -> Self {
        let default = Section::pair(tree, node, "default");
        Self { tree, node, default, recent: RefCell::default() }
    }

    /// The value of a key of a router, unless it is built in: of the node's own for this router,
    /// the node's own for all, the router's and that of all, the first that is set.
    pub(super) fn find(&self, router: &str, key: &Key) -> Option<Found<'a>> {
        let mut recent = self.recent.borrow_mut();
        let known = recent.take().filter(|(name, _)| name == router);
        let sections = || (router.to_owned(), Section::pair(self.tree, self.node, router));
        let (_, own) = recent.insert(known.unwrap_or_else(sections));
        own.iter().zip(&self.default).find_map(|(own, all)| {
            own.find(key.name).or_else(|| all.find(key.name).filter(|_| key.in_default))
        })
    }

    /// Where a key of a router is best written: its own place.
    pub(super) fn own_place(router: &str, key: &str) -> String {
        format!("virtual_router/{router}/{key}")
    }
}

/// What a key is when nobody sets it; `original` is the profile of the original havip's agents.
/// `None`: nothing.
pub(super) fn built_in(key: &str, original: bool) -> Option<(&'static str, &'static str)> {
    const PROFILE: &str = "profile original";
    const BUILT_IN: &str = "built in";
    let value = match (key, original) {
        ("version", true) => ("2", PROFILE),
        ("version", false) => ("3", BUILT_IN),
        ("priority", true) => ("50", PROFILE),
        ("priority", false) => ("100", BUILT_IN),
        ("preempt", true) => ("false", PROFILE),
        ("preempt", false) => ("true", BUILT_IN),
        // What every agent of the original has in its template.
        ("auth_pass", true) => ("Sylvanas", PROFILE),
        ("preempt_delay" | "carrier_delay", _) => ("0", BUILT_IN),
        ("probe_interval", _) => ("60", BUILT_IN),
        // Longer than the interval that nearly everybody has: one who is there is heard.
        ("listen_first", _) => ("1.2", BUILT_IN),
        ("enabled" | "accept" | "yield_on_send_errors", _) => ("true", BUILT_IN),
        ("advert_interval", _) => ("1", BUILT_IN),
        ("checksum" | "address_lifetime", _) => ("auto", BUILT_IN),
        _ => return None,
    };
    Some(value)
}

/// One effective value, as `havip show` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The router's name.
    pub router: String,
    /// The key.
    pub key: &'static str,
    /// Its value; `(hidden)` if it is a secret.
    pub value: String,
    /// Where it was found; empty if it is built in.
    pub path: String,
    /// Its origin.
    pub origin: Origin,
}

/// Every effective value of the routers that `node` lists, with path and origin.
#[must_use]
pub fn effective(tree: &Tree, node: &NodeName) -> Vec<Shown> {
    let view = View::new(tree, node);
    let Some(list) = tree.set(&format!("node/{node}/vrids")) else { return Vec::new() };
    let mut shown = Vec::new();
    for router in all_routers(&list.value) {
        let router = router.as_str();
        let original = is_original(&view, router);
        for key in super::key::ROUTER_KEYS {
            let hide = |value: String| if key.secret { "(hidden)".to_owned() } else { value };
            let router = router.to_owned();
            if let Some(found) = view.find(&router, key) {
                shown.push(Shown {
                    router,
                    key: key.name,
                    value: hide(display(&found.entry.value)),
                    path: found.path,
                    origin: found.entry.origin.clone(),
                });
            } else if let Some((value, origin)) = built_in(key.name, original) {
                shown.push(Shown {
                    router,
                    key: key.name,
                    value: hide(value.to_owned()),
                    path: String::new(),
                    origin: Origin::BuiltIn(origin),
                });
            }
        }
    }
    shown
}

/// Whether a router has `profile = "original"`.
pub(super) fn is_original(view: &View<'_>, router: &str) -> bool {
    router_key("profile")
        .and_then(|key| view.find(router, key))
        .is_some_and(|found| found.entry.value == Value::Text("original".to_owned()))
}

fn display(value: &Value) -> String {
    match value {
        Value::None => "none".to_owned(),
        Value::Text(text) => shown::whole(text),
        Value::List(items) => shown::whole(&items.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_is_not_searched_for_each_key() {
        let known = ("/havip/virtual_router/default/priority".to_owned(), "7");
        let strange = (0..1_000).map(|n| (format!("/havip/virtual_router/default/x{n}"), "1"));
        let keys: Vec<(String, &str)> = strange.chain([known]).collect();
        let keys = keys.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes(), 1));
        let (tree, _) = Tree::from_flat("/havip/", keys);
        let node = NodeName::new("gw1").unwrap();
        let view = View::new(&tree, &node);
        let kept = view.default.iter().map(|section| section.keys.len()).sum::<usize>();
        assert_eq!(kept, 1);
        let found = view.find("51", router_key("priority").unwrap()).unwrap();
        assert_eq!(found.path, "virtual_router/default/priority");
    }
}
