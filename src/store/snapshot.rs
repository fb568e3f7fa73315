//! The last configuration on disk, for a start without etcd.
//!
//! Its text is [`config::snapshot`](crate::config::snapshot)'s. The one before is kept beside it.
//!
//! Nothing here reads a clock or decides what a value means; a file that is not this node's whole
//! snapshot is refused by name, never used in part.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Entry;
use crate::config::snapshot::fnv1a64;
pub use crate::config::snapshot::{Header, Refused, Snapshot, body, decode, encode, graft};
use crate::config::{NodeName, Tree};
use crate::linux::file;
use crate::node::Instant;

/// Name of the file in the snapshot's directory.
pub const FILE: &str = "snapshot.toml";
/// Name of the one before it.
pub const FILE_OLD: &str = "snapshot.toml.old";
const FILE_NEW: &str = "snapshot.toml.new";

/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 64 * 1024 * 1024;
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
    Refused(Refused),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, doing, cause } => {
                write!(f, "snapshot {}: {doing}: {cause}", path.display())
            }
            Self::Refused(refused) => refused.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { cause, .. } => Some(cause),
            Self::Refused(_) => None,
        }
    }
}

/// What of the store is kept, as [`kept`](crate::config::snapshot::kept) says.
#[must_use]
pub fn kept(prefix: &str, entries: &[Entry]) -> Tree {
    let keys = entries.iter().map(|e| (e.key.as_slice(), e.value.as_slice(), e.mod_revision));
    crate::config::snapshot::kept(prefix, keys)
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
    decode(&text, &new, &header.node).map_err(Error::Refused)?;
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
    let mut file = file::create(path, 0o600).map_err(at(path, "creating"))?;
    file.write_all(text.as_bytes()).map_err(at(path, "writing"))?;
    file.sync_all().map_err(at(path, "syncing"))
}

fn read(path: &Path, node: &NodeName) -> Result<Snapshot, Error> {
    let refuse = |why: &str| Error::Refused(Refused { path: path.to_owned(), why: why.to_owned() });
    let (_, bytes) = file::read(path, FILE_MAX).map_err(at(path, "reading"))?;
    let text = String::from_utf8(bytes).map_err(|_| refuse("not UTF-8: torn or foreign"))?;
    decode(&text, path, node).map_err(Error::Refused)
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

#[cfg(test)]
mod tests;
