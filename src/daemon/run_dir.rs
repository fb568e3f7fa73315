//! `run_dir`: a lock and the control socket. Nothing in it is needed to serve, so what cannot be
//! made is told and tried again, and what somebody deletes is made again.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::socket;
use crate::linux::lock::{Lock, LockError};

/// What this daemon has in it.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    lock: Option<Lock>,
    /// Device and number of the socket's file.
    socket: Option<(u64, u64)>,
}

impl RunDir {
    /// With nothing in it.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, lock: None, socket: None }
    }

    /// What is done there, for the status.
    pub(super) fn doing(&self) -> String {
        format!("looking after run_dir {}", self.path.display())
    }

    /// Makes what is not there, or not there any more. Gives a new control socket, if it made one.
    ///
    /// # Errors
    /// [`LockError::Held`]: another daemon has this folder; else what the file system says.
    pub(super) fn mend(&mut self) -> Result<Option<UnixListener>, LockError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| LockError::Io { path, error }
        };
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.path);
        made.map_err(at(&self.path))?;
        let lock = self.path.join("havip.lock");
        if self.lock.as_ref().is_none_or(|held| !held.is_at(&lock)) {
            self.lock = Some(Lock::acquire(&lock)?);
        }
        let path = self.socket_path();
        if self.socket.is_some() && identity(&path).ok() == self.socket {
            return Ok(None);
        }
        let listener = socket::bind(&path).map_err(at(&path))?;
        self.socket = Some(identity(&path).map_err(at(&path))?);
        Ok(Some(listener))
    }

    /// Removes the control socket, unless another's is there; to be called while it is listened at,
    /// as its number may be another's afterwards.
    pub(super) fn leave(&self) {
        let path = self.socket_path();
        if self.socket.is_some() && identity(&path).ok() == self.socket {
            // Nobody is to be served there any more.
            let _ = fs::remove_file(path);
        }
    }

    fn socket_path(&self) -> PathBuf {
        self.path.join("havip.sock")
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deleted_is_made_again_and_what_is_anothers_is_left() {
        let path = std::env::temp_dir().join(format!("havip-run-dir-{}", std::process::id()));
        let mut run_dir = RunDir::new(path.join("run"));
        let first = run_dir.mend().unwrap();
        assert!(first.is_some() && run_dir.mend().unwrap().is_none());
        fs::remove_file(run_dir.socket_path()).unwrap();
        let second = run_dir.mend().unwrap();
        fs::remove_dir_all(&path).unwrap();
        let third = run_dir.mend().unwrap();
        assert!(second.is_some() && third.is_some());
        let mut other = RunDir::new(path.join("run"));
        assert!(matches!(other.mend(), Err(LockError::Held { .. })));
        run_dir.leave();
        assert!(!run_dir.socket_path().exists());
        fs::write(run_dir.socket_path(), "another's").unwrap();
        run_dir.leave();
        assert!(run_dir.socket_path().exists());
        fs::remove_dir_all(&path).unwrap();
    }
}
