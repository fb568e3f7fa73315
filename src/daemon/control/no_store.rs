//! The control thread of a build without a store.

use std::io;

use super::super::status::StoreStatus;
use super::{Control, Store, Wake};
use crate::node::Instant;

impl Control {
    pub(super) async fn follow_store(&mut self, store: Option<Store>) {
        match store {
            None => {}
            Some(store) => match store {},
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "with a store it can fail")]
    pub(super) const fn follow_anew(&mut self) -> Result<(), String> {
        Ok(())
    }

    pub(super) const fn follows(&self) -> bool {
        false
    }

    pub(super) const fn write_at(&self) -> Option<Instant> {
        None
    }

    pub(super) const fn write_snapshot(&mut self) {}

    pub(super) const fn note_state(&mut self) {}

    pub(super) fn start_without_store(&mut self) {}

    pub(super) async fn store_speaks(&self) -> io::Result<Wake> {
        std::future::pending().await
    }

    pub(super) fn demand(&mut self) {
        self.states.clear();
    }

    pub(super) const fn confirm(&mut self) -> Vec<String> {
        Vec::new()
    }

    pub(super) async fn leave(&mut self) {}

    #[expect(clippy::unused_self, reason = "with a store there may be some")]
    pub(super) const fn store_warnings(&self) -> &[String] {
        &[]
    }

    pub(super) const fn store_status(&self) -> Option<StoreStatus> {
        None
    }
}
