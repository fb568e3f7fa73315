//! SIGHUP: the local file is read again, and taken if nothing in it is wrong.

use super::super::sources::{LoadError, Local};
use super::{Control, Done};
use crate::config::{Problem, Settings, Severity, diff};
use crate::linux::clock;
use crate::offload::Lane;

/// How far SIGHUP has come: an operator may have changed the box, too, and that counts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// Nothing is under way.
    None,
    /// The box is looked at.
    Looks,
    /// The local file is read.
    Reads,
}

impl Control {
    /// SIGHUP: reads the local file again.
    pub(super) fn load(&self) {
        let local = self.sources.local.clone();
        let doing = format!("reading {}", local.path.display());
        self.begin(Lane::File, doing, move || Done::Loaded(local.load_again().into()));
    }

    /// Takes the local file if nothing in it is wrong.
    pub(super) fn reload(&mut self, loaded: Result<Local, LoadError>) {
        self.reload = Reload::None;
        let path = self.sources.local.path.clone();
        let before = self.sources.running.clone();
        let known = self.sources.problems.clone();
        let result = match loaded {
            Ok(local) => self.sources.replace_local(local, &self.identity.facts),
            Err(LoadError::Wrong(problems)) => Err(problems),
            Err(LoadError::Absent(path)) => {
                Err(vec![file_problem(format!("{}: not there any more", path.display()))])
            }
            Err(LoadError::Unreadable(path, error)) => {
                Err(vec![file_problem(format!("{}: {error}", path.display()))])
            }
        };
        match result {
            Ok(config) => {
                self.read_at = clock::now();
                if let Some(before) = before {
                    let diff = diff(&before, &config);
                    log::info!(
                        "{}: read again: {} router(s) added, {} removed, {} changed",
                        path.display(),
                        diff.added.len(),
                        diff.removed.len(),
                        diff.changed.len()
                    );
                }
                self.tell_problems(&known);
                self.send_config(config);
                self.refused = start_only(&self.at_start, &self.sources.local.settings);
                if let Err(why) = self.follow_anew() {
                    self.refused.push(why);
                }
                for refused in &self.refused {
                    log::warn!("{}: {refused}", path.display());
                }
            }
            Err(problems) => {
                for problem in &problems {
                    log::error!("{problem:#}");
                }
                log::error!(
                    "{}: not applied; havip keeps the last valid configuration",
                    path.display()
                );
                self.refused = problems.iter().map(ToString::to_string).collect();
            }
        }
    }
}

/// Settings that have changed since the start, and count only at a start.
fn start_only(before: &Settings, now: &Settings) -> Vec<String> {
    [
        ("[havip] node", before.node == now.node),
        ("[havip] run_dir", before.run_dir == now.run_dir),
        ("[havip] realtime", before.realtime == now.realtime),
        ("[havip] guard", before.guard == now.guard),
        ("[havip] fence", before.fence == now.fence),
        ("[havip] log_level", before.log_level == now.log_level),
        ("[snapshot] path", before.snapshot_path == now.snapshot_path),
        ("[snapshot] interval", before.snapshot_interval == now.snapshot_interval),
    ]
    .into_iter()
    .filter(|(_, same)| !same)
    .map(|(name, _)| format!("{name}: changed; it counts from the next start on"))
    .collect()
}

fn file_problem(message: String) -> Problem {
    Problem::missing(Severity::Error, "", message)
}
