//! Which value holds: the places of a key, in the order in which they are asked.

use super::key::Key;
use super::model::{NodeName, RouterName};
use super::tree::{Entry, Origin, Tree, Value};

/// A value that holds, and where it was found.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    pub(super) path: String,
    pub(super) entry: &'a Entry,
}

/// The tree as one node sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) tree: &'a Tree,
    pub(super) node: &'a NodeName,
}

impl<'a> View<'a> {
    /// The places of a key of a router: the first that is set holds.
    pub(super) fn places(&self, router: &str, key: &str) -> [String; 4] {
        let node = self.node;
        [
            format!("node/{node}/virtual_router/{router}/{key}"),
            format!("node/{node}/virtual_router/default/{key}"),
            format!("virtual_router/{router}/{key}"),
            format!("virtual_router/default/{key}"),
        ]
    }

    /// The value of a key of a router, unless it is built in.
    pub(super) fn find(&self, router: &str, key: &Key) -> Option<Found<'a>> {
        self.places(router, key.name)
            .into_iter()
            .enumerate()
            .filter(|(at, _)| key.in_default || at % 2 == 0)
            .find_map(|(_, path)| {
                let entry = self.tree.set(&path)?;
                Some(Found { path, entry })
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
    let view = View { tree, node };
    let Some(list) = tree.set(&format!("node/{node}/vrids")) else { return Vec::new() };
    let mut shown = Vec::new();
    for router in list.value.items().filter(|name| RouterName::new(name).is_ok()) {
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
    super::key::router_key("profile")
        .and_then(|key| view.find(router, key))
        .is_some_and(|found| found.entry.value == Value::Text("original".to_owned()))
}

/// Without control characters: a value of the store must not write to an operator's terminal.
fn display(value: &Value) -> String {
    let text = match value {
        Value::None => "none".to_owned(),
        Value::Text(text) => text.clone(),
        Value::List(items) => items.join(","),
    };
    text.chars().filter(|c| !c.is_control()).collect()
}
