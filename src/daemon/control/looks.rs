//! What the control thread looks at every few seconds: the box, its run_dir, and what hangs.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::super::identity::Identity;
use super::super::run_dir::RunDir;
use super::super::socket;
use super::reload::Reload;
use super::{Control, Done, Made};
use crate::config::Problem;
use crate::linux::clock;
use crate::linux::netlink::DefaultRoutes;
use crate::offload::{self, Lane};

/// How often the box is looked at for what the store is told of it: its address, and the MAC of
/// its tunnel.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// How soon, if it changed, or if what it was does not fit a new state of the store.
pub(super) const LOOK_SOON: Duration = Duration::from_secs(1);

impl Control {
    /// Looks at the box again, for what the store is told of it.
    pub(super) fn look(&mut self) {
        if self.waits_until.is_some_and(|until| clock::now() >= until) {
            self.start_without_store();
            self.start();
        }
        self.write_snapshot();
        if clock::now() < self.look_at {
            return;
        }
        self.look_at = clock::now() + LOOK;
        self.tell_hanging();
        if let Some(mut run_dir) = self.run_dir.take() {
            self.begin(Lane::RunDir, run_dir.doing(), move || {
                let made = run_dir.mend();
                Done::Mended(run_dir, made)
            });
        }
        // The box may change so that what was refused can be.
        let is_refused = || self.sources.problems.iter().any(Problem::is_error);
        if !self.is_looking && (self.reload == Reload::Looks || self.follows() || is_refused()) {
            self.is_looking = true;
            let tunnel = self.sources.local.settings.tunnel_interface.clone();
            let vips = self.sources.vips();
            // A dump may wait for the kernel's lock.
            let mut routes = self.routes.take().unwrap_or_else(DefaultRoutes::watch);
            self.begin(Lane::Kernel, "asking the kernel for links and addresses", move || {
                let identity = Identity::read(&mut routes, &tunnel, &vips);
                Done::Looked(routes, identity)
            });
        }
    }

    pub(super) fn looked(&mut self, identity: io::Result<Identity>) {
        self.is_looking = false;
        if let Ok(identity) = identity {
            self.take_identity(identity);
        }
        if self.reload == Reload::Looks {
            self.reload = Reload::Reads;
            self.load();
        }
    }

    fn take_identity(&mut self, identity: Identity) {
        let before = std::mem::replace(&mut self.identity, identity);
        // What the box is decides on what it may be given.
        if before.facts != self.identity.facts && self.waits_until.is_none() {
            let known = std::mem::take(&mut self.sources.problems);
            let running = self.sources.running.clone();
            let config = self.sources.rebuild(&self.identity.facts);
            self.note_state();
            self.tell_problems(&known);
            if running.is_none_or(|running| running != config) {
                self.send_config(config);
            }
        }
    }

    /// Says what takes longer than it should, and what has ended after all.
    fn tell_hanging(&mut self) {
        let now: BTreeSet<String> =
            offload::hanging().into_iter().map(|(doing, _)| doing).collect();
        for doing in now.difference(&self.hanging) {
            log::warn!("{doing}: not finished yet; routers and adverts do not wait for it");
        }
        for doing in self.hanging.difference(&now) {
            log::info!("{doing}: finished");
        }
        self.hanging = now;
    }

    /// Serves a control socket that was made, and says why there is none.
    pub(super) fn mended(&mut self, run_dir: RunDir, made: Made) {
        self.run_dir = Some(run_dir);
        match made {
            Ok(None) => {}
            Ok(Some(listener)) => {
                if self.server.is_some() || self.no_socket.take().is_some() {
                    log::info!("the control socket was created again");
                }
                // Whoever was connected to the one before is answered.
                self.server = self
                    .asks
                    .clone()
                    .map(|asks| self.executor.spawn(socket::serve(self.executor, listener, asks)));
            }
            Err(error) => {
                let why = format!(
                    "run_dir: {error}; no command reaches this daemon (havip status, show, \
                     confirm) until that is corrected; trying again every {} s",
                    LOOK.as_secs()
                );
                if self.no_socket.as_ref() != Some(&why) {
                    log::warn!("{why}");
                }
                self.no_socket = Some(why);
            }
        }
    }
}
