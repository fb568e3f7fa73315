//! What goes wrong with members.

use std::process::Command;

use havip::linux::terminate;

use super::{Cluster, LIMIT, holds_within, name};

impl Cluster {
    /// SIGSTOP: the member is silent, its connections stay.
    #[track_caller]
    pub fn stop(&mut self, index: usize) {
        self.signal(index, "-STOP");
        self.members[index].stopped = true;
    }

    /// SIGCONT.
    #[track_caller]
    pub fn cont(&mut self, index: usize) {
        self.signal(index, "-CONT");
        self.members[index].stopped = false;
    }

    /// SIGKILL, as a crash; nothing when it does not run.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].child.take() {
            // An error says that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and its end; nothing when it does not run.
    #[track_caller]
    pub fn terminate(&mut self, index: usize) {
        let Some(mut child) = self.members[index].child.take() else { return };
        let _ = terminate(&child);
        let ended = holds_within(LIMIT, || !matches!(child.try_wait(), Ok(None)));
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
        }
        assert!(ended, "{} goes on after SIGTERM\n{}", name(index), self.log(index));
    }

    /// Starts a member again on its data, after its end if it runs, and waits until all that run
    /// are healthy; needs a majority (`spawn` does not).
    #[track_caller]
    pub fn restart(&mut self, index: usize) {
        self.terminate(index);
        self.spawn(index);
        self.wait_healthy();
    }

    /// Cuts a member off from all others; clients still reach it. Needs `Setup::partitions`.
    #[track_caller]
    pub fn partition(&mut self, index: usize) {
        self.set_cut(index, true);
    }

    /// Joins it again.
    #[track_caller]
    pub fn join(&mut self, index: usize) {
        self.set_cut(index, false);
    }

    #[track_caller]
    fn set_cut(&mut self, index: usize, cut: bool) {
        let network = self.network.as_ref().expect("Setup::partitions is set");
        network.cut(index, cut);
        self.members[index].cut = cut;
    }

    #[track_caller]
    fn signal(&self, index: usize, signal: &str) {
        let child = self.members[index].child.as_ref().expect("it runs");
        let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }
}
