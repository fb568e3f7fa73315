//! What commands say of a local file that cannot be used, and the exit code that goes with it.

use super::{Exit, complain, exit_of};
use crate::daemon::sources::LoadError;

/// Says why a local file is not used.
pub(super) fn report(error: &LoadError) -> Exit {
    match error {
        LoadError::Absent(path) => {
            complain(&format!(
                "{}: no such file; write one (see conf/havip.toml), or name it with --config",
                path.display()
            ));
            Exit::NoConfig
        }
        LoadError::Unreadable(path, error) => {
            complain(&format!("{}: {error}", path.display()));
            exit_of(error)
        }
        LoadError::Wrong(problems) => {
            for problem in problems {
                complain(&problem.to_string());
            }
            Exit::Config
        }
    }
}
