//! The text of a snapshot: what etcd had for a node, for a start without etcd.
//!
//! A snapshot is the store's layer alone, as TOML that an operator can read: a table `[snapshot]`
//! that says what it is, then the tree that etcd had for this node. The first thing in it is a
//! hash of all the rest, against a torn write, not against an attacker: the file belongs to root.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use super::shown::short;
use super::{NodeName, Problem, RouterName, TomlFile, Tree, Value, all_routers, to_toml};

/// The form of the file that this version writes and reads.
const FORMAT: i64 = 1;
/// Deepest path that is written: deeper than any key of havip's, flatter than parsers mind.
const SEGMENTS_MAX: usize = 16;
/// What every snapshot begins with.
pub(crate) const MAGIC: &str = "[snapshot]\nhash = \"fnv1a64:";

/// What a snapshot says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the store when it was read.
    pub revision: i64,
    /// Which store.
    pub cluster_id: u64,
    /// Wall-clock time of writing, seconds since 1970; boxes without a battery clock may lie.
    pub time: u64,
    /// Whose configuration it is.
    pub node: NodeName,
    /// Some routers in it are as that store had them before: they go on in the form they had. Its
    /// revision when it was found restored or replaced; 0: it was not.
    pub held: Option<i64>,
}

/// A snapshot that was read.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What it says about itself.
    pub header: Header,
    /// The store's layer, with the file's lines as origins.
    pub tree: Tree,
    /// What is odd in it.
    pub problems: Vec<Problem>,
    /// Where it was read.
    pub path: PathBuf,
}

/// A file that is not this node's whole snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot {}: not used: {}", self.path.display(), self.why)
    }
}

/// What of the store is kept: all but what nodes write, and what cannot stand in the file and is
/// no key of havip's: a path of one segment or of very many, a value that is a table too.
#[must_use]
pub fn kept<'a>(prefix: &str, keys: impl IntoIterator<Item = (&'a [u8], &'a [u8], i64)>) -> Tree {
    // What is odd was reported when the same entries became the configuration.
    let (all, _) = Tree::from_flat(prefix, keys);
    let mut tree = Tree::default();
    for (path, entry) in all.below("") {
        let output = path.starts_with("vRouterGateway/") || path.starts_with("status/");
        let foreign = path.starts_with("snapshot/");
        let misplaced = !(2..=SEGMENTS_MAX).contains(&path.split('/').count());
        let also_table = all.below(&format!("{path}/")).next().is_some();
        if !(output || foreign || misplaced || also_table) {
            tree.insert(path, entry.value.clone(), entry.origin.clone());
        }
    }
    tree
}

/// A tree that stands for what runs: `now`, and of the routers that go on in the form they had,
/// what `last` had.
#[must_use]
pub fn graft(mut now: Tree, last: &Tree, node: &NodeName, kept: &BTreeSet<RouterName>) -> Tree {
    if kept.is_empty() {
        return now;
    }
    let take = |now: &mut Tree, prefix: &str, all: bool| {
        if all {
            now.remove_below(prefix);
        }
        for (path, entry) in last.below(prefix) {
            if now.get(path).is_none() {
                now.insert(path, entry.value.clone(), entry.origin.clone());
            }
        }
    };
    for name in kept {
        take(&mut now, &format!("virtual_router/{name}/"), true);
        take(&mut now, &format!("node/{node}/virtual_router/{name}/"), true);
    }
    // Where a default is gone, the router had it.
    take(&mut now, "virtual_router/default/", false);
    take(&mut now, &format!("node/{node}/virtual_router/default/"), false);
    let path = format!("node/{node}/vrids");
    let Some(origin) = now.get(&path).or_else(|| last.get(&path)).map(|e| e.origin.clone()) else {
        return now;
    };
    let listed = now.set(&path).into_iter().flat_map(|entry| all_routers(&entry.value));
    let mut names: BTreeSet<RouterName> = listed.collect();
    names.extend(kept.iter().cloned());
    let names: Vec<&str> = names.iter().map(RouterName::as_str).collect();
    now.insert(&path, Value::Text(names.join(",")), origin);
    now
}

/// The text of a tree without its header; equal for equal content.
#[must_use]
pub fn body(tree: &Tree) -> String {
    to_toml(tree)
}

/// Writes a snapshot's text: header and body.
#[must_use]
pub fn encode(header: &Header, body: &str) -> String {
    let Header { revision, cluster_id, time, node, held } = header;
    let mut rest = String::with_capacity(body.len() + 256);
    let _ = writeln!(rest, "format = {FORMAT}");
    let _ = writeln!(rest, "revision = {revision}");
    let _ = writeln!(rest, "cluster_id = \"{cluster_id:016x}\"");
    let _ = writeln!(rest, "time = {time}");
    let node = node.as_str().replace('\\', "\\\\").replace('"', "\\\"");
    let _ = writeln!(rest, "node = \"{node}\"");
    if let Some(held) = held {
        let _ = writeln!(rest, "held = {held}");
    }
    rest.push('\n');
    rest.push_str(body);
    format!("{MAGIC}{:016x}\"\n{rest}", fnv1a64(rest.as_bytes()))
}

/// Reads a snapshot's text.
///
/// # Errors
/// Why it is not one, or not this node's; nothing of what it holds.
pub fn decode(text: &str, path: &Path, node: &NodeName) -> Result<Snapshot, Refused> {
    let refuse = |why: &str| Refused { path: path.to_owned(), why: why.to_owned() };
    let (hash, rest) = text
        .strip_prefix(MAGIC)
        .and_then(|text| text.split_once("\"\n"))
        .ok_or_else(|| refuse("not a snapshot of havip's, or torn in its first line"))?;
    if u64::from_str_radix(hash, 16).ok() != Some(fnv1a64(rest.as_bytes())) {
        return Err(refuse("its hash is wrong: it was torn in writing, or changed by hand"));
    }
    let file = TomlFile::Snapshot(path.display().to_string().into());
    let (mut tree, problems) =
        Tree::from_toml(text, &file).map_err(|problem| refuse(&problem.to_string()))?;
    let field = |name: &str| {
        let entry = tree.get(&format!("snapshot/{name}"));
        // A text with commas is one text here.
        entry.map(|entry| entry.value.items().collect::<Vec<_>>().join(",")).unwrap_or_default()
    };
    let format = field("format");
    if format != FORMAT.to_string() {
        return Err(refuse("its format is unknown: another version of havip wrote it"));
    }
    let owner = field("node");
    if owner != node.as_str() {
        let owner = short(&owner);
        return Err(refuse(&format!("it belongs to node \"{owner}\", this is \"{node}\"")));
    }
    let header = Header {
        revision: field("revision").parse().map_err(|_| refuse("its revision is no number"))?,
        cluster_id: u64::from_str_radix(&field("cluster_id"), 16)
            .map_err(|_| refuse("its cluster_id is no number"))?,
        time: field("time").parse().map_err(|_| refuse("its time is no number"))?,
        node: node.clone(),
        held: match field("held").as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| refuse("its held is no number"))?),
        },
    };
    tree.remove_below("snapshot/");
    Ok(Snapshot { header, tree, problems, path: path.to_owned() })
}

/// FNV-1a with 64 bits: enough to see a torn write.
pub(crate) fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
