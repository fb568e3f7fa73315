//! Where the configuration comes from when it is not the local file: etcd, and the snapshot of
//! what etcd said last.
//!
//! - [`endpoint`]: where etcd listens, as operators write it.
//! - `channel`: one connection to one endpoint; the only place that dials.
//! - `tls`, `login`: how that connection is kept private, and who it is for; `files`: what both read.
//! - `ranges`: which keys this node needs to know, and no others.
//! - `list`: those keys, all at one revision.
//! - `session`: list, watch, write, notice that the server is gone; `follower`: go to the next.
//! - `writes`: which of this node's own keys are to be put, and when; `presence`: the lease under
//!   which it says that it lives; [`report`]: what it says.
//! - `oneshot`: one read or one transaction for the command line.
//! - `letters`: what the session and the rest of the daemon tell each other; [`mailbox`]: how:
//!   newest wins, nobody waits.
//! - [`snapshot`]: the last configuration on disk, for a start without etcd.
//!
//! Nothing here decides. What a key means, whether a value holds, what a loss of etcd does to an
//! address: [`config`](crate::config) and [`node`](crate::node) say that. Here bytes are moved,
//! and what came is handed over whole: the complete set of keys at one revision, never a
//! difference that has to be applied in order. A loss of the store is reported and changes
//! nothing else.
//!
//! Nothing here starts a thread or needs an executor: a session is one future that also drives
//! its connection, and dropping it closes the socket. Everything that the server sends is bounded.

#![forbid(unsafe_code)]

#[cfg(feature = "etcd")]
mod backoff;
#[cfg(feature = "etcd")]
mod channel;
pub mod endpoint;
#[cfg(feature = "etcd")]
mod error;
#[cfg(feature = "etcd")]
mod files;
#[cfg(feature = "etcd")]
mod follower;
#[cfg(feature = "etcd")]
mod letters;
#[cfg(feature = "etcd")]
mod list;
#[cfg(feature = "etcd")]
mod login;
pub mod mailbox;
#[cfg(feature = "etcd")]
mod oneshot;
#[cfg(feature = "etcd")]
mod presence;
#[cfg(feature = "etcd")]
mod ranges;
#[cfg(feature = "etcd")]
pub mod report;
#[cfg(feature = "etcd")]
mod session;
pub mod snapshot;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "etcd")]
mod writes;

pub use endpoint::Endpoint;
#[cfg(feature = "etcd")]
pub use error::{Error, ErrorKind};
#[cfg(feature = "etcd")]
pub use follower::run;
#[cfg(feature = "etcd")]
pub use letters::{Counters, Demand, Options, State, StoreEvent};
#[cfg(feature = "etcd")]
pub use oneshot::{Dump, Guard, dump_prefix, import};

/// One key as the store has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: Vec<u8>,
    /// Its value; it may be a secret.
    pub value: Vec<u8>,
    /// Revision of its last change.
    pub mod_revision: i64,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("key", &String::from_utf8_lossy(&self.key))
            .field("value", &"..")
            .field("mod_revision", &self.mod_revision)
            .finish()
    }
}
