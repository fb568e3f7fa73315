//! A real etcd on loopback with a data directory of its own, and a proxy to put before it.
//!
//! The binary is `$HAVIP_ETCD`, else `target/peers/etcd-3.4/usr/bin/etcd` (Debian's packages
//! `etcd-server` and `etcd-client`, downloaded and unpacked, not installed); `etcdctl` is beside
//! it. Without it a test says that it is skipped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Longest wait for anything: these boxes may be slow, none is that slow.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running etcd; ends with this.
pub(crate) struct Etcd {
    binary: PathBuf,
    dir: PathBuf,
    client: u16,
    peer: u16,
    child: Option<Child>,
}

impl Etcd {
    /// Starts one, or says that the test is skipped.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let (binary, named) = binary();
        if !binary.is_file() {
            assert!(!named, "HAVIP_ETCD: no file at {}", binary.display());
            // Not by a macro: what those print of a test that passes is never seen.
            let _ = writeln!(
                std::io::stderr(),
                "{test}: skipped: no etcd at {}; set HAVIP_ETCD",
                binary.display()
            );
            return None;
        }
        // Between choosing a free port and using it another may take it.
        let started = (0..5).find_map(|_| {
            let mut etcd = Self {
                binary: binary.clone(),
                dir: directory(),
                client: free_port(),
                peer: free_port(),
                child: None,
            };
            etcd.run().then_some(etcd)
        });
        Some(started.expect("etcd starts"))
    }

    /// Where it listens.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.client).into()
    }

    /// Starts it on its data, and waits until it serves clients.
    pub(crate) fn run(&mut self) -> bool {
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer));
        let mut child = Command::new(&self.binary)
            .args(["--name", "n", "--data-dir"])
            .arg(self.dir.join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("n={peer}")])
            // Architectures that etcd's authors do not test are ours too.
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH.replace("aarch64", "arm64"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcd starts");
        let lines = lines(child.stderr.take().expect("its stderr is a pipe"));
        self.child = Some(child);
        loop {
            match lines.recv_timeout(DEADLINE) {
                Ok(line) if line.contains("strongly discouraged") => return true,
                Ok(_) => {}
                Err(_) => {
                    self.kill();
                    return false;
                }
            }
        }
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error says that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends it a signal: STOP, CONT.
    pub(crate) fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("it runs");
        let done =
            Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
        assert!(done.expect("kill runs").success());
    }

    /// Runs etcdctl, and returns what it says.
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        let output = Command::new(self.binary.with_file_name("etcdctl"))
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoint()))
            .args(args)
            .output()
            .expect("etcdctl runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {args:?}: {said}{wrong}");
        said
    }

    pub(crate) fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", "--", key, value]);
    }

    /// A number out of etcdctl's JSON.
    pub(crate) fn number(&self, args: &[&str], name: &str) -> i64 {
        let said = self.ctl(args);
        // What is 0 is left out.
        let Some((_, rest)) = said.split_once(&format!("\"{name}\":")) else { return 0 };
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Passes connections on, counts what the server sends, and can cut or hold the line.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) received: Arc<AtomicU64>,
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
    gate: Arc<Gate>,
}

/// Holds back what the client sends, from when the server said a certain word.
#[derive(Default)]
struct Gate {
    state: Mutex<(Option<Vec<u8>>, bool)>,
    changed: Condvar,
}

impl Gate {
    fn server_said(&self, bytes: &[u8]) {
        let mut state = self.state.lock().expect("no test panics holding it");
        let said = |word: &Vec<u8>| bytes.windows(word.len()).any(|part| part == word.as_slice());
        if state.0.as_ref().is_some_and(said) {
            *state = (None, true);
            self.changed.notify_all();
        }
    }

    fn wait_for(&self, held: bool) {
        let state = self.state.lock().expect("as above");
        let (state, _) = self
            .changed
            .wait_timeout_while(state, DEADLINE, |(_, is)| *is != held)
            .expect("as above");
        assert_eq!(state.1, held, "the line was not held, or not let go, in time");
    }
}

impl Proxy {
    pub(crate) fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let received = Arc::new(AtomicU64::new(0));
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let gate = Arc::new(Gate::default());
        let (count, streams) = (Arc::clone(&received), Arc::clone(&open));
        let gates = Arc::clone(&gate);
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut streams = streams.lock().expect("no test panics holding it");
                let Some(streams) = streams.as_mut() else { continue };
                let Ok(upstream) = TcpStream::connect(server) else { continue };
                for stream in [&client, &upstream] {
                    streams.push(stream.try_clone().expect("descriptors are left"));
                }
                let (from, to) = (client.try_clone().expect("as above"), upstream.try_clone());
                let to = to.expect("as above");
                let gate = Arc::clone(&gates);
                thread::spawn(move || pass(from, to, |_| gate.wait_for(false)));
                let (count, gate) = (Arc::clone(&count), Arc::clone(&gates));
                thread::spawn(move || {
                    pass(upstream, client, |bytes| {
                        count.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                        gate.server_said(bytes);
                    });
                });
            }
        });
        Self { port, received, open, gate }
    }

    /// Once the server says `word`, holds back what the client sends from then on.
    pub(crate) fn hold_at(&self, word: &str) {
        self.gate.state.lock().expect("as above").0 = Some(word.as_bytes().to_vec());
    }

    /// Waits until it does so.
    pub(crate) fn wait_held(&self) {
        self.gate.wait_for(true);
    }

    /// Passes on what was held back.
    pub(crate) fn let_go(&self) {
        self.gate.state.lock().expect("as above").1 = false;
        self.gate.changed.notify_all();
    }

    /// Ends every connection, and every new one at once.
    pub(crate) fn cut(&self) {
        let streams = self.open.lock().expect("as above").take();
        for stream in streams.into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes connections again.
    pub(crate) fn mend(&self) {
        *self.open.lock().expect("as above") = Some(Vec::new());
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, seen: impl Fn(&[u8])) {
    let mut bytes = [0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        seen(&bytes[..read]);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Where it should be, and whether somebody said so.
fn binary() -> (PathBuf, bool) {
    match std::env::var_os("HAVIP_ETCD") {
        Some(path) => (path.into(), true),
        None => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            (root.join("target/peers/etcd-3.4/usr/bin/etcd"), false)
        }
    }
}

fn directory() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name =
        format!("havip-etcd-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir).expect("the temporary directory is writable");
    dir
}

/// A port that was free just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // Nobody listens once it is ready, but a full pipe would stop it.
            let _ = sender.send(line);
        }
    });
    receiver
}
