//! One daemon for each run directory.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{file, sys};

/// A lock on a file, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Why a lock was not had.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it.
    Held {
        /// The file.
        path: PathBuf,
        /// Who holds it, as the file says.
        pid: Option<u32>,
    },
    /// The file cannot be made, opened or locked.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { path, pid } => {
                write!(f, "{}: locked by ", path.display())?;
                match pid {
                    Some(pid) => write!(f, "process {pid}")?,
                    None => f.write_str("another process")?,
                }
                f.write_str(
                    "; stop it, or, if it is in another network namespace, set another run_dir here",
                )
            }
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Held { .. } => None,
            Self::Io { error, .. } => Some(error),
        }
    }
}

impl Lock {
    /// Locks `path`, which is made if absent (mode 0600, as whoever may read it could lock it, too),
    /// and writes the process number into it. Does not wait.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process holds it, else what the file system says.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let io = |error| LockError::Io { path: path.to_owned(), error };
        let mut file = file::open_own(path, 0o600).map_err(io)?;
        // flock and not fcntl: it belongs to the open file, so no other close of it lets go.
        // SAFETY: the descriptor is open; the call takes flags alone.
        let locked = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        match sys::check(locked) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(LockError::Held { path: path.to_owned(), pid: read_pid(&mut file) });
            }
            Err(error) => return Err(io(error)),
        }
        // For whoever is refused; a disk that is full does not cost the lock.
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        Ok(Self { file })
    }

    /// Whether the file that is locked is still the one at `path`.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let there = fs::symlink_metadata(path).map(identity);
        there.is_ok() && there.ok() == self.file.metadata().map(identity).ok()
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_is_refused_and_told_who_has_it() {
        let path = std::env::temp_dir().join(format!("havip-lock-{}", std::process::id()));
        let held = Lock::acquire(&path).unwrap();
        match Lock::acquire(&path) {
            Err(LockError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(held);
        let again = Lock::acquire(&path).unwrap();
        drop(again);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_refused() {
        let dir = std::env::temp_dir();
        let path = dir.join(format!("havip-lock-link-{}", std::process::id()));
        std::os::unix::fs::symlink(dir.join("havip-lock-target"), &path).unwrap();
        assert!(matches!(Lock::acquire(&path), Err(LockError::Io { .. })));
        fs::remove_file(&path).unwrap();
    }
}
