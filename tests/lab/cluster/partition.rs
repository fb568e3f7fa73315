//! What stands between members that can be cut off: a proxy before the peer port of each.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crate::lab::proxy::Line;

/// The proxies of a cluster.
pub(super) struct Network(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The process of each member, which tells who dials.
    processes: Vec<u32>,
    cut: BTreeSet<usize>,
    /// Each connection, and the members at its ends.
    connections: Vec<([usize; 2], Line)>,
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
        state.connections.retain(|(ends, line)| {
            let stays = !ends.contains(&index);
            if !stays {
                line.cut();
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
    let line = Line::new(client, server, |_| {}, |_| {});
    state.connections.extend(line.map(|line| ([from, to], line)));
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
