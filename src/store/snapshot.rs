//! The last configuration on disk, for a start without etcd.
//!
//! A snapshot is the store's layer alone, as TOML that an operator can read: a table `[snapshot]`
//! that says what it is, then the tree that etcd had for this node. The first thing in it is a
//! hash of all the rest, against a torn write, not against an attacker: the file belongs to root.
//! The one before is kept beside it.
//!
//! Nothing here reads a clock or decides what a value means; a file that is not this node's whole
//! snapshot is refused by name, never used in part.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Entry;
use crate::config::{NodeName, Problem, RouterName, TomlFile, Tree, Value, to_toml};
use crate::node::Instant;

/// Name of the file in the snapshot's directory.
pub const FILE: &str = "snapshot.toml";
/// Name of the one before it.
pub const FILE_OLD: &str = "snapshot.toml.old";
const FILE_NEW: &str = "snapshot.toml.new";

/// The form of the file that this version writes and reads.
const FORMAT: i64 = 1;
/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 64 * 1024 * 1024;
/// Deepest path that is written: deeper than any key of havip's, flatter than parsers mind.
const SEGMENTS_MAX: usize = 16;
/// What every snapshot begins with.
const MAGIC: &str = "[snapshot]\nhash = \"fnv1a64:";

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

/// Why a file is not used, or not written.
#[derive(Debug)]
pub enum Error {
    /// The file system said so.
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What was to be done.
        doing: &'static str,
        /// What came of it.
        cause: io::Error,
    },
    /// It is not a whole snapshot of this node's.
    Refused {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, doing, cause } => {
                write!(f, "snapshot {}: {doing}: {cause}", path.display())
            }
            Self::Refused { path, why } => {
                write!(f, "snapshot {}: not used: {why}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { cause, .. } => Some(cause),
            Self::Refused { .. } => None,
        }
    }
}

/// What of the store is kept: all but what nodes write, and what cannot stand in the file and is
/// no key of havip's: a path of one segment or of very many, a value that is a table too.
#[must_use]
pub fn kept(prefix: &str, entries: &[Entry]) -> Tree {
    let keys = entries.iter().map(|e| (e.key.as_slice(), e.value.as_slice(), e.mod_revision));
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
    let listed = now.set(&path).into_iter().flat_map(|entry| entry.value.items());
    let mut names: BTreeSet<RouterName> =
        listed.filter_map(|name| RouterName::new(name).ok()).collect();
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
pub fn decode(text: &str, path: &Path, node: &NodeName) -> Result<Snapshot, Error> {
    let refuse = |why: &str| Error::Refused { path: path.to_owned(), why: why.to_owned() };
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
        let shown: String = owner.chars().take(64).collect();
        return Err(refuse(&format!("it belongs to node \"{shown}\", this is \"{node}\"")));
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

/// The snapshot in `directory`, or the one before if it cannot be used; and why what was not used
/// was not. Neither: there is none yet.
#[must_use]
pub fn load(directory: &Path, node: &NodeName) -> (Option<Snapshot>, Vec<Error>) {
    let mut refused = Vec::new();
    for name in [FILE, FILE_OLD] {
        match read(&directory.join(name), node) {
            Ok(snapshot) => return (Some(snapshot), refused),
            Err(Error::File { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(error) => refused.push(error),
        }
    }
    (None, refused)
}

/// Writes a snapshot in `directory`, which is made if it is not there: whole or not at all, for
/// its owner's eyes only. The one before stays beside it.
///
/// # Errors
/// What the file system refused; what was there is there still.
pub fn write(directory: &Path, header: &Header, body: &str) -> Result<(), Error> {
    let (now, old, new) =
        (directory.join(FILE), directory.join(FILE_OLD), directory.join(FILE_NEW));
    let text = encode(header, body);
    // What cannot be read back must not replace what can.
    decode(&text, &new, &header.node)?;
    fs::create_dir_all(directory).map_err(at(directory, "making the directory"))?;
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(at(&new, "removing what an earlier write left")(error));
        }
        _ => {}
    }
    let written = create(&new, &text).and_then(|()| {
        // A file that cannot be used must not push out the older one that can.
        if read(&now, &header.node).is_ok() {
            fs::rename(&now, &old).map_err(at(&now, "keeping it as the older one"))?;
        }
        fs::rename(&new, &now).map_err(at(&now, "putting the new one in its place"))
    });
    if written.is_err() {
        // It may not be there; the first failure is the one to tell.
        let _ = fs::remove_file(&new);
    }
    written?;
    let sync = File::open(directory).and_then(|directory| directory.sync_all());
    sync.map_err(at(directory, "syncing the directory"))
}

fn create(path: &Path, text: &str) -> Result<(), Error> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(at(path, "creating"))?;
    file.write_all(text.as_bytes()).map_err(at(path, "writing"))?;
    file.sync_all().map_err(at(path, "syncing"))
}

fn read(path: &Path, node: &NodeName) -> Result<Snapshot, Error> {
    // Not to hang at what is a pipe.
    let kind = fs::metadata(path).map_err(at(path, "reading"))?;
    if !kind.is_file() {
        return Err(Error::Refused { path: path.to_owned(), why: "not a file".to_owned() });
    }
    let file = File::open(path).map_err(at(path, "reading"))?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(at(path, "reading"))?;
    let refuse = |why: &str| Error::Refused { path: path.to_owned(), why: why.to_owned() };
    if bytes.len() as u64 > FILE_MAX {
        return Err(refuse("larger than 64 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| refuse("not UTF-8: torn or foreign"))?;
    decode(&text, path, node)
}

fn at(path: &Path, doing: &'static str) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::File { path: path.clone(), doing, cause }
}

/// When to write: only what is new, and not too often, as flash wears out.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// Of what is on disk, as far as is known, with its revision.
    written: Option<(u64, i64)>,
    next_at: Instant,
}

/// What [`Pace`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// What is on disk is the same.
    Never,
    /// Not before this.
    At(Instant),
    /// At once.
    Now,
}

impl Pace {
    /// With the least time between two writes; nothing is on disk, as far as is known.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self { interval, written: None, next_at: Instant::ZERO }
    }

    /// Takes note of what is on disk.
    pub fn found(&mut self, header: &Header, body: &str) {
        self.written = Some((mark(header, body), header.revision));
    }

    /// Whether this is to be written: not for a newer revision of the same body, but for an older
    /// one, which is not to be taken for a restored store at the next start.
    #[must_use]
    pub fn due(&self, now: Instant, header: &Header, body: &str) -> Due {
        let same = |&(written, revision): &(u64, i64)| {
            written == mark(header, body) && revision <= header.revision
        };
        if self.written.as_ref().is_some_and(same) {
            Due::Never
        } else if now < self.next_at {
            Due::At(self.next_at)
        } else {
            Due::Now
        }
    }

    /// This body was written, or could not be: then it will be tried again, no sooner.
    pub fn tried(&mut self, now: Instant, header: &Header, body: &str, written: bool) {
        self.next_at = now + self.interval;
        if written {
            self.found(header, body);
        }
    }
}

fn mark(header: &Header, body: &str) -> u64 {
    fnv1a64(format!("{} {:?} {body}", header.cluster_id, header.held).as_bytes())
}

/// FNV-1a with 64 bits: enough to see a torn write.
fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
