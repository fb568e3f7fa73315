//! The control thread beside a store: follows it, keeps the snapshot, tells it what happened.

use std::io;

use smol::{Executor, Task};

use super::super::follow::Follow;
use super::super::keep::Keep;
use super::super::status::StoreStatus;
use super::{Control, Store, Wake};
use crate::config::{RouterName, Tree};
use crate::linux::clock;
use crate::node::Instant;
use crate::store::StoreEvent;

impl Control {
    pub(super) fn follow_store(
        &mut self,
        executor: &'static Executor<'static>,
        store: Option<Store>,
    ) -> Option<Task<()>> {
        let (follow, work) = Follow::new(store?);
        self.follow = Some(follow);
        let settings = &self.sources.local.settings;
        self.keep = Some(Keep::new(
            settings.snapshot_path.clone(),
            settings.snapshot_interval,
            self.sources.node.clone(),
            settings.prefix.clone(),
        ));
        self.sources.beside_store = true;
        self.waits_until = Some(clock::now() + self.sources.local.settings.etcd_timeout);
        self.demand();
        Some(executor.spawn(work))
    }

    pub(super) const fn follows(&self) -> bool {
        self.follow.is_some()
    }

    pub(super) fn write_at(&self) -> Option<Instant> {
        self.keep.as_ref().and_then(Keep::due_at)
    }

    pub(super) async fn write_snapshot(&mut self) {
        if let Some(keep) = &mut self.keep {
            keep.write().await;
        }
    }

    /// The store did not answer in time: the snapshot stands in for it.
    pub(super) fn start_without_store(&mut self) {
        match self.keep.as_mut().and_then(Keep::load) {
            Some(snapshot) => {
                log::warn!(
                    "etcd did not answer in time: starting from {}, revision {}",
                    snapshot.path.display(),
                    snapshot.header.revision
                );
                if let Some(follow) = &mut self.follow {
                    follow.uses_snapshot(&snapshot.header);
                }
                self.sources.store = Some(snapshot.tree);
                self.sources.store_problems = snapshot.problems;
            }
            None => log::warn!(
                "etcd did not answer in time, and there is no snapshot: starting without either"
            ),
        }
    }

    pub(super) async fn store_speaks(&self) -> io::Result<Wake> {
        match &self.follow {
            Some(follow) => match follow.events.recv().await {
                Some(event) => Ok(Wake::Store(event)),
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    pub(super) fn store(&mut self, event: StoreEvent) {
        let Some(state) = self.follow.as_mut().and_then(|follow| follow.take(event)) else {
            return;
        };
        if let Some(keep) = &mut self.keep {
            keep.note(&state);
        }
        let keys = state
            .entries
            .iter()
            .map(|entry| (entry.key.as_slice(), entry.value.as_slice(), entry.mod_revision));
        let (tree, problems) = Tree::from_flat(&self.sources.local.settings.prefix, keys);
        let before = self.sources.running.clone();
        let known = std::mem::take(&mut self.sources.problems);
        self.sources.store = Some(tree);
        self.sources.store_problems = problems;
        self.waits_until = None;
        let config = self.sources.rebuild(&self.identity.facts);
        self.tell_problems(&known);
        if before.is_none_or(|before| before != config) {
            log::info!("etcd: revision {} is taken over", state.revision);
            self.send_config(config);
        }
    }

    pub(super) fn demand(&mut self) {
        let Some(follow) = &mut self.follow else { return };
        let local = &self.sources.local.tree;
        let listed = local
            .set(&format!("node/{}/vrids", self.sources.node))
            .into_iter()
            .flat_map(|entry| entry.value.items())
            .filter_map(|name| RouterName::new(name).ok());
        follow.demand(listed, self.sources.running.as_ref(), &self.active, &self.identity);
    }

    pub(super) fn store_status(&self) -> Option<StoreStatus> {
        let mut status = self.follow.as_ref().map(Follow::status)?;
        if let Some(error) = self.keep.as_ref().and_then(|keep| keep.error.clone()) {
            status.error.get_or_insert(error);
        }
        Some(status)
    }
}
