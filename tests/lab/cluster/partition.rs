//! What stands between members that can be cut off: a proxy before the peer port of each.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// The proxies of a cluster.
pub(super) struct Network(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The process of each member, which tells who dials.
    processes: Vec<u32>,
    cut: BTreeSet<usize>,
    /// Both ends of each connection, and its two halves.
    connections: Vec<([usize; 2], [TcpStream; 2])>,
}

impl Network {
    /// A proxy for each pair of the port that others dial and the port that the member listens at.
    pub(super) fn new(address: IpAddr, ports: impl Iterator<Item = (u16, u16)>) -> Self {
        let network = Self(Arc::default());
        for (index, (port, behind)) in ports.enumerate() {
            network.state().processes.push(0);
            let listener = TcpListener::bind((address, port)).expect("the port is free");
            let server = SocketAddr::new(address, behind);
            let state = Arc::clone(&network.0);
            // Ends with the test's process.
            thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    connect(&state, index, client, server);
                }
            });
        }
        network
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics holding it")
    }

    /// Says which process a member is now.
    pub(super) fn is_process(&self, index: usize, pid: u32) {
        self.state().processes[index] = pid;
    }

    /// Ends a member's connections and lets it make no new ones, or lets it again.
    pub(super) fn cut(&self, index: usize, cut: bool) {
        let mut state = self.state();
        if !cut {
            state.cut.remove(&index);
            return;
        }
        state.cut.insert(index);
        state.connections.retain(|(ends, halves)| {
            let stays = !ends.contains(&index);
            if !stays {
                halves.iter().for_each(close);
            }
            stays
        });
    }
}

/// Passes a connection on, unless one of its ends is cut off.
fn connect(state: &Mutex<State>, to: usize, client: TcpStream, server: SocketAddr) {
    let Ok(dialer) = client.peer_addr() else { return };
    // Held till the connection is noted: no cut comes between.
    let mut state = state.lock().expect("nobody panics holding it");
    let Some(from) = state.processes.iter().position(|&pid| has_socket(pid, dialer)) else {
        return;
    };
    if state.cut.contains(&from) || state.cut.contains(&to) {
        return;
    }
    let Ok(upstream) = TcpStream::connect(server) else { return };
    let clone = |stream: &TcpStream| stream.try_clone().expect("descriptors are left");
    state.connections.push(([from, to], [clone(&client), clone(&upstream)]));
    let (there, back) = ((clone(&client), clone(&upstream)), (upstream, client));
    thread::spawn(move || pass(there.0, there.1));
    thread::spawn(move || pass(back.0, back.1));
}

/// Whether a process has the socket with this local address.
fn has_socket(pid: u32, local: SocketAddr) -> bool {
    let table = if local.is_ipv4() { "tcp" } else { "tcp6" };
    let table = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
    // Fields: number, local address, remote address, state, ..., inode.
    let port = format!(":{:04X}", local.port());
    let mut inodes = table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        (fields.get(1)?.ends_with(&port) && *fields.get(3)? == "01").then(|| fields[9].to_owned())
    });
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let links: Vec<_> =
        files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).collect();
    inodes.any(|inode| links.iter().any(|link| link.as_os_str() == &*format!("socket:[{inode}]")))
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    close(&to);
    close(&from);
}

fn close(stream: &TcpStream) {
    // An error says that it is closed already.
    let _ = stream.shutdown(Shutdown::Both);
}
