//! Which daemon a command speaks to, and what that answers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::flags::Given;
use super::{Exit, complain, config_path, refused};
use crate::daemon::socket;
use crate::daemon::sources::{LoadError, run_dir_of};

/// Where the control socket is where nothing else is said.
const RUN_DIR: &str = "/run/havip";
const STATUS: &str = "/v1/status";

/// The daemon that a command line means.
pub(super) struct Daemon {
    socket: PathBuf,
    /// The local file that it must run with.
    file: Option<PathBuf>,
}

impl Daemon {
    /// By flag, else by the local file, else at the built-in place.
    pub(super) fn of(given: &Given) -> Result<Self, Exit> {
        let file = given.value("config").map(PathBuf::from);
        let run_dir = match given.value("run-dir") {
            Some(run_dir) => run_dir.into(),
            None => match (run_dir_of(&config_path(given)), &file) {
                (Ok(run_dir), _) => run_dir,
                (Err(LoadError::Absent(_)), None) => RUN_DIR.into(),
                (Err(error), None) => {
                    let _ = refused::report(&error);
                    complain(&format!("asking the daemon in {RUN_DIR}; use --run-dir for another"));
                    RUN_DIR.into()
                }
                (Err(error), Some(file)) => return Err(refuse(&error, file)),
            },
        };
        Ok(Self { socket: run_dir.join("havip.sock"), file })
    }

    /// What it does.
    pub(super) fn status(&self) -> Result<Value, Exit> {
        let status = self.answer(socket::get(&self.socket, STATUS))?;
        let runs = status["config"]["file"].as_str().unwrap_or_default();
        match &self.file {
            Some(file) if !is_same(file, Path::new(runs)) => {
                complain(&format!(
                    "{}: this daemon runs with {runs}, not with {}; name the run_dir of the one \
                     that you mean with --run-dir",
                    self.socket.display(),
                    file.display()
                ));
                Err(Exit::Unreachable)
            }
            Some(_) | None => Ok(status),
        }
    }

    /// Another resource of it.
    pub(super) fn get(&self, resource: &str) -> Result<Value, Exit> {
        self.is_meant()?;
        self.answer(socket::get(&self.socket, resource))
    }

    /// Tells it to do something.
    #[cfg(feature = "etcd")]
    pub(super) fn post(&self, resource: &str) -> Result<Value, Exit> {
        self.is_meant()?;
        self.answer(socket::post(&self.socket, resource))
    }

    fn is_meant(&self) -> Result<(), Exit> {
        self.file.as_ref().map_or(Ok(()), |_| self.status().map(drop))
    }

    /// Says why there is no answer.
    fn answer(&self, body: io::Result<Vec<u8>>) -> Result<Value, Exit> {
        let path = self.socket.display();
        let body = body.map_err(|error| {
            let (way_out, exit) = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => (
                    "; no daemon runs there: start it with \"havip run\", or name its --run-dir",
                    Exit::Unreachable,
                ),
                io::ErrorKind::PermissionDenied => {
                    ("; only the daemon's own user may ask it", Exit::Permission)
                }
                _ => ("", Exit::Unreachable),
            };
            complain(&format!("{path}: {error}{way_out}"));
            exit
        })?;
        serde_json::from_slice(&body).map_err(|error| {
            complain(&format!("{path}: the answer is not JSON: {error}"));
            Exit::Failed
        })
    }
}

/// Says why a file does not tell where its daemon is, and how else that can be said.
fn refuse(error: &LoadError, file: &Path) -> Exit {
    let exit = match error {
        // The advice to write one, which `refused::report` gives, is for who starts a daemon.
        LoadError::Absent(path) => {
            complain(&format!("{}: no such file", path.display()));
            Exit::NoConfig
        }
        LoadError::Unreadable(..) | LoadError::Wrong(_) => refused::report(error),
    };
    complain(&format!(
        "{}: the daemon's run_dir is read from this file; name the file that the daemon was started \
         with, or leave the file out and give the run_dir with --run-dir",
        file.display()
    ));
    exit
}

/// Whether two paths lead to one file.
fn is_same(a: &Path, b: &Path) -> bool {
    match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        // It may be gone meanwhile.
        _ => std::path::absolute(a).is_ok_and(|a| a == b),
    }
}
