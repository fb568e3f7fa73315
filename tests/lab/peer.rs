//! A real keepalived as the other gateway.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use havip::linux::terminate;

use super::{Host, LIMIT, holds_within};

/// Where `tests/lab/fetch` unpacked a peer.
pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/peers").join(name)
}

/// Whether a peer is there.
pub fn is_there(name: &str) -> bool {
    folder(name).join(".packages").is_file()
}

/// The version of the package that a keepalived comes from, as Debian numbers it.
pub fn version(name: &str) -> String {
    let packages = fs::read_to_string(folder(name).join(".packages")).unwrap();
    let of = packages.lines().find_map(|line| line.strip_prefix("keepalived "));
    of.unwrap_or("without a version").to_owned()
}

/// How a peer's program is run: one of another Debian suite with all that it needs, for which an
/// empty folder is wanted.
fn program(peer: &str, path: &str, scratch: &Path) -> Command {
    let (home, libs) = (folder(peer), folder(peer).join("libs"));
    let has_loader = fs::read_dir(&libs).unwrap().any(|entry| {
        entry.is_ok_and(|entry| entry.file_name().as_encoded_bytes().starts_with(b"ld-linux"))
    });
    let mut program;
    if has_loader {
        let run = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/unpacked");
        program = Command::new(run);
        program.arg(home).arg(scratch).arg(path);
    } else {
        program = Command::new(home.join(path));
        program.env("LD_LIBRARY_PATH", libs);
    }
    program
}

/// Peers that are keepalived: Debian 12's, and a newer one.
pub const KEEPALIVEDS: [&str; 2] = ["keepalived", "keepalived-2.3"];

/// A running keepalived.
pub struct Keepalived {
    child: Child,
    log: PathBuf,
}

impl Keepalived {
    /// Starts a peer with one instance, VRID 51 on eth0, whose other settings are `keys`.
    pub fn start(peer: &str, host: &Host, keys: &str) -> Self {
        Self::run(
            peer,
            host,
            &format!(
                "global_defs {{\n  vrrp_startup_delay 0\n}}\nvrrp_instance VI_51 {{\n  state BACKUP\n  \
                 interface eth0\n  virtual_router_id 51\n{keys}\n}}\n"
            ),
        )
    }

    /// Starts a peer with this configuration.
    pub fn run(peer: &str, host: &Host, text: &str) -> Self {
        let folder = host.folder().join("keepalived");
        fs::create_dir_all(folder.join("etc")).unwrap();
        let config = folder.join("keepalived.conf");
        fs::write(&config, text).unwrap();
        let log = folder.join("log");
        let mut program = program(peer, "usr/sbin/keepalived", &folder.join("etc"));
        program.args(["--dont-fork", "--log-console", "--vrrp"]);
        program.arg("--use-file").arg(&config);
        program.arg("--pid").arg(folder.join("pid"));
        program.arg("--vrrp_pid").arg(folder.join("vrrp_pid"));
        // Of processes that it does not start: a file that it cannot write counts as a running one.
        program.arg("--checkers_pid").arg(folder.join("checkers_pid"));
        program.arg("--bfd_pid").arg(folder.join("bfd_pid"));
        let child = host.start(&mut program, &log);
        Self { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it another configuration, and SIGHUP.
    pub fn reload(&self, text: &str) {
        fs::write(self.log.with_file_name("keepalived.conf"), text).unwrap();
        let status = Command::new("kill").args(["-HUP", &self.pid().to_string()]).status();
        assert!(status.unwrap().success());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// kill -9 of all of it at once: its addresses stay behind.
    pub fn kill(mut self) {
        let signal = |name: &str, pid: &str| {
            let status = Command::new("kill").args([name, pid]).status();
            assert!(status.unwrap().success());
        };
        let parent = self.pid().to_string();
        let child = fs::read_to_string(self.log.with_file_name("vrrp_pid")).unwrap();
        // It would start another child.
        signal("-STOP", &parent);
        signal("-KILL", child.trim());
        signal("-KILL", &parent);
        self.child.wait().unwrap();
        // Where nobody reaps the orphan at once, the next start would take it for alive.
        fs::remove_file(self.log.with_file_name("vrrp_pid")).unwrap();
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) {
        let _ = terminate(&self.child);
        let ended = holds_within(LIMIT, || matches!(self.child.try_wait(), Ok(Some(_))));
        assert!(ended, "keepalived goes on\n{}", self.log());
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        // Its child gives up when it is told, or when its parent dies.
        let _ = terminate(&self.child);
        if !holds_within(std::time::Duration::from_secs(3), || {
            matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
        }) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- keepalived\n{}", self.log());
        }
    }
}
