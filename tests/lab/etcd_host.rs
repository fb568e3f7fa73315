//! A real etcd on a host of the lab, and its `etcdctl`.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use super::peer::{folder, is_there};
use super::{Daemon, Host, skip, wait};

/// A running etcd; ends with this.
pub struct Etcd {
    pub host: Host,
    version: &'static str,
    child: Child,
}

/// Something that happened to a key; `None`: it was deleted.
pub type Change = (String, Option<String>);

impl Etcd {
    /// Starts the one of this name, `etcd-3.4` or `etcd-3.5`.
    pub fn start(host: Host, version: &'static str) -> Self {
        let child = Self::spawn(&host, version);
        let etcd = Self { host, version, child };
        wait("etcd answers", || etcd.ctl(&["endpoint", "health"]).is_some());
        etcd
    }

    /// Whether it can be started; says that `test` is skipped if not.
    pub fn is_there(version: &str, test: &str) -> bool {
        let there = is_there(version);
        if !there {
            skip(test, &format!("no etcd; run tests/lab/fetch {version}"));
        }
        there
    }

    fn spawn(host: &Host, version: &str) -> Child {
        let url = format!("http://{}:2379", host.ip());
        let mut program = Command::new(folder(version).join("usr/bin/etcd"));
        program.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        program.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--logger", "zap"]);
        program.arg("--data-dir").arg(host.folder().join("data"));
        host.start(&mut program, &host.folder().join("etcd.log"))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = Self::spawn(&self.host, self.version);
        wait("etcd answers", || self.ctl(&["endpoint", "health"]).is_some());
    }

    /// Where it listens, without a scheme.
    pub fn endpoint(&self) -> String {
        format!("{}:2379", self.host.ip())
    }

    /// Path of its `etcdctl`.
    pub fn etcdctl(&self) -> PathBuf {
        folder(self.version).join("usr/bin/etcdctl")
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(self.etcdctl());
        program.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint()]).args(arguments);
        program
    }

    /// Output of `etcdctl` if it succeeded.
    pub fn ctl(&self, arguments: &[&str]) -> Option<String> {
        let output = self.host.within(|| self.program(arguments).output().unwrap());
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    pub fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", "--", key, value]).unwrap_or_else(|| panic!("put {key}"));
    }

    /// A key's value without white space around it; empty where there is none.
    pub fn get(&self, key: &str) -> String {
        self.ctl(&["get", "--print-value-only", key]).unwrap().trim().to_owned()
    }

    /// All of these operations, in etcdctl's words, at one revision.
    pub fn txn(&self, operations: &[String]) {
        let text = format!("\n{}\n\n\n", operations.join("\n"));
        let output: Output = self.host.within(|| {
            let mut program = self.program(&["txn"]);
            program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = program.spawn().unwrap();
            child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        assert!(output.status.success(), "{operations:?}: {output:?}");
    }

    /// Starts a daemon that has nothing but this etcd.
    pub fn gateway(&self, host: &Host) -> Daemon {
        host.daemon(&format!(
            "[etcd]\nendpoints = [\"{}\"]\n[snapshot]\npath = \"{}\"\ninterval = 0\n",
            self.endpoint(),
            host.folder().join("state").display()
        ))
    }

    /// Begins to note every change of any key.
    pub fn watch(&self) -> Watch<'_> {
        let log = self.host.folder().join("watch.log");
        fs::write(&log, "").unwrap();
        let child = self.host.start(&mut self.program(&["watch", "--prefix", "/"]), &log);
        let mut watch = Watch { etcd: self, child, log, marks: 0 };
        // It says nothing when it has begun, so it is tried until it hears something.
        wait("the watch hears", || {
            watch.mark();
            watch.events().last().is_some()
        });
        watch.changes();
        watch
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What changes, in order.
pub struct Watch<'a> {
    etcd: &'a Etcd,
    child: Child,
    log: PathBuf,
    marks: u32,
}

impl Watch<'_> {
    const MARK: &'static str = "/mark";

    fn mark(&mut self) {
        self.marks += 1;
        self.etcd.put(Self::MARK, &self.marks.to_string());
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
