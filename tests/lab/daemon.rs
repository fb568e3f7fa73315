//! A daemon in a test: asked, waited for, sent signals, and ended with its test.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

use havip::daemon::socket;
use havip::linux::terminate;

use super::{LIMIT, holds_within, wait};

/// A running havip.
pub struct Daemon {
    pub(super) child: Child,
    pub config: PathBuf,
    pub(super) log: PathBuf,
    pub socket: PathBuf,
}

impl Daemon {
    /// Its status, once it answers.
    pub fn status(&self) -> serde_json::Value {
        let mut last = None;
        let answered = holds_within(LIMIT, || {
            last = Some(socket::get(&self.socket, "/v1/status"));
            matches!(last, Some(Ok(_)))
        });
        assert!(answered, "{last:?}\n{}", self.log());
        serde_json::from_slice(&last.unwrap().unwrap()).unwrap()
    }

    /// The code that `havip status --check` ends with, and what it says.
    pub fn check(&self) -> (Option<i32>, String) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
        program.args(["status", "--check", "--run-dir"]).arg(self.socket.parent().unwrap());
        let output = program.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// Its guard's process number, once that is ready.
    #[track_caller]
    pub fn guard(&self) -> u64 {
        let mut guard = serde_json::Value::Null;
        let ready = holds_within(LIMIT, || {
            guard = self.status()["guard"].clone();
            guard["state"] == "running"
        });
        assert!(ready, "{guard}\n{}", self.log());
        guard["pid"].as_u64().unwrap()
    }

    /// State of its first router.
    pub fn state(&self) -> String {
        self.status()["vrrp"]["routers"][0]["state"].as_str().unwrap_or("none").to_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, state: &str) {
        let came = holds_within(LIMIT, || self.state() == state);
        assert!(came, "not {state}: {:#}\n{}", self.status(), self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log says this: a thread of its own writes it, so the status may be first.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait(&format!("the log says {text:?}"), || self.log().contains(text));
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it another local file, and SIGHUP.
    pub fn reload(&self, text: &str) {
        fs::write(&self.config, text).unwrap();
        self.signal("-HUP");
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) -> ExitStatus {
        terminate(&self.child).unwrap();
        self.ended()
    }

    /// Its end, which must come by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = holds_within(LIMIT, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(ended, "it goes on\n{}", self.log());
        status.unwrap()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(name).arg(self.pid().to_string()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}
