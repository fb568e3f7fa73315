//! What the environment allows a daemon: memory that may be locked, tasks. None of it ends one.

#![cfg(feature = "daemon")]

#[macro_use]
mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{Daemon, Lan, skip, wait};

/// What Debian 12 lets an ordinary user lock, in bytes.
const MEMLOCK: &str = "8388608";

/// A program that executes havip with what `setpriv` and `prlimit` say.
fn limited(arguments: &[&str]) -> Command {
    let mut program = Command::new("setpriv");
    program.args(["--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]);
    program.arg("prlimit").args(arguments).arg(env!("CARGO_BIN_EXE_havip"));
    program
}

/// KiB of a process that are locked.
fn locked(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn routers(host: u8, count: u8) -> String {
    let names: Vec<u8> = (1..=count).collect();
    let mut text = format!("[node.gw{host}]\nvrids = {names:?}\n");
    for name in names {
        text += &format!(
            "[virtual_router.{name}]\ninterface = \"eth0\"\nvips = [\"198.51.100.{name}\"]\n"
        );
    }
    text
}

isolated! {
    fn memory_is_locked_only_where_all_of_it_may_be_and_else_there_is_a_warning() {
        let mut lan = Lan::new();
        let host = lan.host();
        let memlock = format!("--memlock={MEMLOCK}:{MEMLOCK}");
        let text = host.config(&routers(host.number(), 1));
        let mut daemon = host.daemon_by(limited(&[&memlock]), &[], &text);
        daemon.wait_for("active");
        assert_eq!(locked(&daemon), 0);
        let warnings = daemon.status()["warnings"].to_string();
        assert!(warnings.contains("RLIMIT_MEMLOCK is 8192 KiB"), "{warnings}");
        // What it needs later is there.
        daemon.reload(&host.config(&routers(host.number(), 250)));
        wait("all are active", || {
            let status = daemon.status();
            let routers = status["vrrp"]["routers"].as_array().unwrap();
            routers.len() == 250 && routers.iter().all(|router| router["state"] == "active")
        });
        assert!(daemon.stop().success());
    }
}

isolated! {
    fn a_capability_of_a_user_namespace_locks_no_memory_and_the_boxs_own_locks_all() {
        let mut lan = Lan::new();
        let host = lan.host();
        let daemon = host.daemon(&routers(host.number(), 1));
        daemon.wait_for("active");
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let limit = limits.lines().find(|line| line.starts_with("Max locked memory")).unwrap();
        // The whole range of numbers, and not a user namespace's.
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        let is_exempt = map.contains("4294967295") || limit.contains("unlimited");
        assert_eq!(locked(&daemon) > 0, is_exempt, "{limit}");
        let warnings = daemon.status()["warnings"].to_string();
        assert_ne!(warnings.contains("memory is not locked"), is_exempt, "{warnings}");
    }
}

/// A cgroup that limits tasks, by either version of the interface.
struct Tasks(PathBuf);

impl Tasks {
    fn new() -> Option<Self> {
        let name = format!("havip-test-{}", std::process::id());
        ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().find_map(|root| {
            let path = Path::new(root).join(&name);
            fs::create_dir(&path).ok()?;
            let tasks = Self(path);
            fs::exists(tasks.0.join("pids.max")).unwrap().then_some(tasks)
        })
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    fn limit(&self, max: &str) {
        fs::write(self.0.join("pids.max"), max).unwrap();
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // Whoever was in it has ended, and the kernel may still be at that.
        lab::holds_within(lab::LIMIT, || fs::remove_dir(&self.0).is_ok());
    }
}

isolated! {
    fn a_daemon_that_can_have_no_more_tasks_works_on_and_says_that_its_guard_cannot_be_started() {
        let mut lan = Lan::new();
        let host = lan.host();
        let Some(tasks) = Tasks::new() else {
            return skip("a_daemon_that_can_have_no_more_tasks", "needs a cgroup for tasks");
        };
        let text = host.config(&routers(host.number(), 1));
        let mut daemon = host.daemon_of(&text);
        daemon.wait_for("active");
        wait("it has a guard", || daemon.status()["guard"]["state"] == "running");
        let guard = daemon.status()["guard"]["pid"].to_string();
        tasks.take(daemon.pid());
        tasks.limit("1");
        assert!(Command::new("kill").args(["-KILL", &guard]).status().unwrap().success());
        wait("the shortage is told", || {
            let why = daemon.status()["guard"]["why"].to_string();
            why.contains("no new thread or process can be had") && why.contains("pids.max")
        });
        assert!(!fs::exists(format!("/proc/{guard}")).unwrap(), "it is a zombie");
        assert!(daemon.log().contains("no new thread or process can be had"));
        // What is done off the control thread needs no new one.
        daemon.reload(&host.config(&routers(host.number(), 2)));
        wait("the file is read", || {
            daemon.status()["vrrp"]["routers"].as_array().unwrap().len() == 2
        });
        tasks.limit("max");
        wait("it has a guard again", || daemon.status()["guard"]["state"] == "running");
        assert!(daemon.stop().success());
        drop(daemon);
    }
}
