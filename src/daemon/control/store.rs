//! The control thread beside a store: follows it, keeps the snapshot, tells it what happened.

use std::io;
use std::time::Duration;

use smol::Timer;
use smol::future::or;

use super::super::access::{access, environment};
use super::super::follow::{Follow, News};
use super::super::identity::Identity;
use super::super::keep::{Keep, Written};
use super::super::sources::Sources;
use super::super::status::StoreStatus;
use super::looks::LOOK_SOON;
use super::{Control, Store, Wake};
use crate::config::{Problem, RouterName, Settings, Tree, Vanished, all_routers};
use crate::linux::clock;
use crate::node::Instant;
use crate::store::StoreEvent;
use crate::store::report::ReportedRouter;

/// Longest time that a stop waits for the disk, and then for etcd.
const LEAVE: Duration = Duration::from_millis(250);

impl Control {
    /// Follows the store, if there is one to follow.
    pub(super) async fn follow_store(&mut self, store: Option<Store>) {
        let Some(found) = store else { return };
        let etcd_timeout = self.sources.local.settings.etcd_timeout;
        self.waits_until = Some(clock::now() + etcd_timeout);
        // Before etcd's first word, which is laid over it. A disk that hangs has as long as etcd.
        let mut keep = self.new_keep();
        self.last = or(keep.load(), async {
            Timer::after(etcd_timeout).await;
            let path = self.sources.local.settings.snapshot_path.display();
            log::warn!("the snapshot in {path} was not read in time; starting without it");
            None
        })
        .await;
        self.keep = Some(keep);
        self.follow_with(found);
        if let (Some(follow), Some(last)) = (&mut self.follow, &self.last) {
            follow.knows(&last.header);
        }
    }

    fn new_keep(&self) -> Keep {
        let Settings { snapshot_path, snapshot_interval, .. } = &self.sources.local.settings;
        Keep::new(snapshot_path.clone(), *snapshot_interval, self.sources.node.clone())
    }

    /// Follows it with these settings, from where it was followed with others.
    fn follow_with(&mut self, found: Store) {
        for warning in &found.warnings {
            log::warn!("{warning}");
        }
        let (follow, work) = Follow::new(found, self.follow.take());
        self.follow = Some(follow);
        if self.keep.is_none() {
            self.keep = Some(self.new_keep());
        }
        self.sources.beside_store = true;
        // Before anything is read, who this node is must be known.
        self.demand();
        // The session before ends with this.
        self.work = Some(self.executor.spawn(work));
    }

    /// Follows the store as the local file says now, if it says something else than it did.
    ///
    /// # Errors
    /// Why it cannot be; it is followed as before.
    pub(super) fn follow_anew(&mut self) -> Result<(), String> {
        let Sources { local, node, .. } = &self.sources;
        let found = access(&local.settings, node, None, &environment)?;
        match (found, &self.follow) {
            (Some(found), follow) => {
                if follow.as_ref().is_none_or(|follow| !follow.is_with(&found.options)) {
                    log::info!("etcd: followed as {} says now", local.path.display());
                    self.follow_with(found);
                }
                Ok(())
            }
            (None, Some(_)) => {
                Err("[etcd] endpoints: gone; etcd is followed until the next start".to_owned())
            }
            (None, None) => Ok(()),
        }
    }

    pub(super) const fn follows(&self) -> bool {
        self.follow.is_some()
    }

    pub(super) fn write_at(&self) -> Option<Instant> {
        self.keep.as_ref().and_then(Keep::due_at)
    }

    /// Begins to write what is due.
    pub(super) fn write_snapshot(&mut self) {
        if let Some(keep) = &mut self.keep {
            keep.write(self.executor);
        }
    }

    pub(super) fn written(&mut self, written: Written) {
        if let Some(keep) = &mut self.keep {
            keep.written(written);
        }
    }

    /// The store did not answer in time: the snapshot stands in for it.
    pub(super) fn start_without_store(&mut self) {
        match &self.last {
            Some(snapshot) => {
                log::warn!(
                    "etcd did not answer in time: starting from {}, revision {}",
                    snapshot.path.display(),
                    snapshot.header.revision
                );
                if let Some(follow) = &mut self.follow {
                    follow.uses_snapshot(&snapshot.header);
                }
                self.sources.store = Some(snapshot.tree.clone());
                self.sources.store_problems.clone_from(&snapshot.problems);
            }
            None => log::warn!(
                "etcd did not answer in time, and there is no snapshot: starting without either"
            ),
        }
    }

    /// What the store says, or the disk that keeps it.
    pub(super) async fn store_speaks(&self) -> io::Result<Wake> {
        let event = async {
            match &self.follow {
                Some(follow) => follow.events.recv().await.map(Wake::Store),
                None => None,
            }
        };
        let written = async {
            match &self.keep {
                Some(keep) => keep.done().await.map(Wake::Written),
                None => None,
            }
        };
        let or_never = async |wake: Option<Wake>| match wake {
            Some(wake) => Ok(wake),
            None => std::future::pending().await,
        };
        or(async { or_never(event.await).await }, async { or_never(written.await).await }).await
    }

    pub(super) fn store(&mut self, event: StoreEvent) {
        let Some(follow) = &mut self.follow else { return };
        match follow.take(event) {
            News::Nothing | News::Gone => {}
            // Nothing of the store, then, nor of the snapshot, which is the same.
            News::NameTaken if self.waits_until.is_some() => self.start(),
            News::NameTaken => {}
            News::State { is_other, is_first } => self.take_state(is_other, is_first),
        }
    }

    fn take_state(&mut self, is_other: bool, is_first: bool) {
        let Some(state) = self.follow.as_ref().and_then(Follow::state) else { return };
        let keys = state
            .entries
            .iter()
            .map(|entry| (entry.key.as_slice(), entry.value.as_slice(), entry.mod_revision));
        let found = Tree::from_flat(&self.sources.local.settings.prefix, keys);
        let revision = state.revision;
        let before = self.sources.running.clone();
        let known = std::mem::take(&mut self.sources.problems);
        if is_other {
            log::warn!(
                "etcd: revision {revision} is another store's, or an older state of it: restored \
                 or set up anew"
            );
        }
        let (last, facts) = (self.last.take(), &self.identity.facts);
        let config = self.sources.take_state(found, revision, (is_other, is_first), last, facts);
        self.waits_until = None;
        self.note_state();
        self.tell_problems(&known);
        if self.sources.problems.iter().any(Problem::is_error) {
            self.look_at = self.look_at.min(clock::now() + LOOK_SOON);
        }
        if before.is_none_or(|before| before != config) {
            log::info!("etcd: revision {revision} is taken over");
            self.send_config(config);
        }
    }

    /// Keeps on disk what the configuration is from.
    pub(super) fn note_state(&mut self) {
        let since = match self.sources.vanished {
            Vanished::HoldSince(since) => since,
            Vanished::Hold | Vanished::Release => 0,
        };
        let state = self.follow.as_ref().and_then(Follow::state);
        if let (Some(keep), Some(state)) = (&mut self.keep, state) {
            keep.note(&self.sources.local.settings.prefix, state, &self.sources.kept, since);
        }
    }

    /// An operator's word that what is held may go.
    pub(super) fn confirm(&mut self) -> Vec<String> {
        // Nothing is held by who has not begun.
        if self.sources.held.is_empty() {
            return Vec::new();
        }
        let known = std::mem::take(&mut self.sources.problems);
        let (config, released) = self.sources.confirm(&self.identity.facts);
        self.note_state();
        if let Some(keep) = &mut self.keep {
            keep.hurry();
        }
        self.tell_problems(&known);
        let released: Vec<String> = released.iter().map(ToString::to_string).collect();
        log::warn!("released, as an operator confirmed: {}", released.join(", "));
        self.send_config(config);
        released
    }

    /// Takes back what this node says of itself in the store; as long as that is worth waiting
    /// for.
    pub(super) async fn leave(&mut self) {
        if let Some(keep) = &mut self.keep {
            // What waits for its time would be lost.
            or(keep.finish(self.executor), async {
                Timer::after(LEAVE).await;
            })
            .await;
        }
        let Some(follow) = &mut self.follow else { return };
        if !follow.is_connected() {
            return;
        }
        follow.leave();
        let gone = async {
            while let Some(event) = follow.events.recv().await {
                if follow.take(event) == News::Gone {
                    break;
                }
            }
        };
        or(gone, async {
            Timer::after(LEAVE).await;
        })
        .await;
    }

    pub(super) fn demand(&mut self) {
        let Some(follow) = &mut self.follow else { return };
        let local = &self.sources.local.tree;
        let listed = local
            .set(&format!("node/{}/vrids", self.sources.node))
            .into_iter()
            .flat_map(|entry| all_routers(&entry.value));
        let running = self.sources.running.as_ref();
        let routers = self
            .states
            .iter()
            .map(|(name, (state, since))| {
                (name.to_string(), ReportedRouter { state, since: *since })
            })
            .collect();
        let is_active = |(_, (state, _)): &(&RouterName, &(&str, u64))| *state == "active";
        let active = self.states.iter().filter(is_active).map(|(name, _)| name.clone()).collect();
        let default = self.sources.default_interface();
        let node_ip = running
            .and_then(|config| config.node_ip)
            .or_else(|| self.identity.node_ip(default.as_deref()));
        let Identity { mac, macs, .. } = &self.identity;
        let report = follow.report(&self.sources.node, self.started, node_ip, macs, routers);
        follow.demand(listed, running, &active, node_ip, *mac, Some(report));
    }

    /// What is odd about the way to the store.
    pub(super) fn store_warnings(&self) -> &[String] {
        self.follow.as_ref().map_or(&[], |follow| &follow.warnings)
    }

    pub(super) fn store_status(&self) -> Option<StoreStatus> {
        let mut status = self.follow.as_ref().map(Follow::status)?;
        if let Some(error) = self.keep.as_ref().and_then(|keep| keep.error.clone()) {
            status.error.get_or_insert(error);
        }
        status.held = self.sources.held.iter().map(ToString::to_string).collect();
        Some(status)
    }
}
