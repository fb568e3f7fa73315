//! One daemon for each network namespace: addresses, routes and tables are the namespace's, and two
//! that do not know of each other would take away each other's.
//!
//! The owner listens at a name that only one socket of the namespace can have, and that goes with
//! the process, however it ends. Any user can have such a name: only a daemon of root's or of one's
//! own user is believed.

use std::fmt;
use std::io;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use super::{sys, unix};

/// The name.
const NAME: &[u8] = b"havip/network";
/// How often, and how far apart, an owner is asked that has too many who ask.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Why this process is not the owner.
#[derive(Debug)]
pub enum NotOwner {
    /// Another daemon is.
    Other {
        /// Its process, unless it is of another process namespace.
        pid: Option<u32>,
    },
    /// Somebody who is no daemon has the name.
    Squatter {
        /// Its user, if that is known.
        user: Option<u32>,
    },
    /// The name cannot be had.
    Io(io::Error),
}

impl fmt::Display for NotOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { pid } => {
                match pid {
                    Some(pid) => write!(f, "process {pid} is")?,
                    None => f.write_str("a process of another container is")?,
                }
                f.write_str(
                    " a havip daemon in this network namespace already; stop it first: one daemon \
                     runs all routers of a network namespace",
                )
            }
            Self::Squatter { user } => {
                match user {
                    Some(user) => write!(f, "user {user}")?,
                    None => f.write_str("somebody")?,
                }
                let name = String::from_utf8_lossy(NAME);
                write!(
                    f,
                    " has the abstract socket \"{name}\", by which havip notices a second daemon in \
                     this network namespace; find that process (ss -xlp) and stop it"
                )
            }
            Self::Io(error) => write!(
                f,
                "cannot make sure that no second daemon runs in this network namespace: abstract \
                 socket \"{}\": {error}",
                String::from_utf8_lossy(NAME)
            ),
        }
    }
}

/// Makes this process the owner of its network namespace for as long as the listener is open. It is
/// to accept who connects, and has nothing to say.
///
/// # Errors
/// Why it is not.
pub fn claim() -> Result<UnixListener, NotOwner> {
    for _ in 0..TRIES {
        match unix::listen_at_name(NAME) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result.map_err(NotOwner::Io),
        }
        match unix::listener_at_name(NAME) {
            Ok((user, pid)) if user == 0 || user == sys::user() => {
                return Err(NotOwner::Other { pid: (pid != 0).then_some(pid) });
            }
            Ok((user, _)) => return Err(NotOwner::Squatter { user: Some(user) }),
            // It has ended meanwhile, or has too many connections that nobody accepts.
            Err(_) => thread::park_timeout(PAUSE),
        }
    }
    // A daemon accepts.
    Err(NotOwner::Squatter { user: None })
}
