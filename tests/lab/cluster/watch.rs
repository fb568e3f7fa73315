//! What changes in a cluster, heard by etcdctl.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use havip::linux::die_with_parent;

use super::Cluster;
use crate::lab::wait;

/// Something that happened to a key; `None`: it was deleted.
pub type Change = (String, Option<String>);

/// What changes, in order.
pub struct Watch<'a> {
    cluster: &'a Cluster,
    child: Child,
    log: PathBuf,
    marks: u32,
}

impl Cluster {
    /// Begins to note every change of any key; one watch at a time.
    pub fn watch(&self) -> Watch<'_> {
        let log = self.folder().join("watch.log");
        let file = fs::File::create(&log).unwrap();
        let mut program = self.etcdctl();
        program.args(["watch", "--prefix", "/"]);
        program.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        die_with_parent(&mut program);
        let child = program.spawn().expect("etcdctl is there");
        let mut watch = Watch { cluster: self, child, log, marks: 0 };
        // It says nothing when it has begun, so it is tried until it hears something.
        wait("the watch hears", || {
            watch.mark();
            watch.events().last().is_some()
        });
        watch.changes();
        watch
    }
}

impl Watch<'_> {
    const MARK: &'static str = "/mark";

    fn mark(&mut self) {
        self.marks += 1;
        self.cluster.put(Self::MARK, &self.marks.to_string());
    }

    fn events(&self) -> Vec<Change> {
        let text = fs::read_to_string(&self.log).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let event = |lines: &[&str]| match *lines {
            ["PUT", key, value] => Some((key.to_owned(), Some(value.to_owned()))),
            ["DELETE", key, _] => Some((key.to_owned(), None)),
            _ => None,
        };
        lines.chunks(3).map_while(event).collect()
    }

    /// Everything that has changed since the watch began.
    pub fn changes(&mut self) -> Vec<Change> {
        self.mark();
        let last = (Self::MARK.to_owned(), Some(self.marks.to_string()));
        wait("the watch comes up with the present", || self.events().last() == Some(&last));
        self.events().into_iter().filter(|(key, _)| key != Self::MARK).collect()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
