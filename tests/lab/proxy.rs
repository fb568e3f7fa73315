//! What stands between clients and a server, to be cut, held and counted.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use super::LIMIT;

/// A connection that is passed on, by two threads of its own.
pub struct Line([TcpStream; 2]);

impl Line {
    /// Passes `client` on to a server, if that one listens. `up` sees what the client sends before
    /// the server does, `down` what the server sends, and may change it.
    pub fn new(
        client: TcpStream,
        server: SocketAddr,
        up: impl Fn(&[u8]) + Send + 'static,
        mut down: impl FnMut(&mut Vec<u8>) + Send + 'static,
    ) -> Option<Self> {
        let server = TcpStream::connect(server).ok()?;
        let ends = || [&client, &server].map(|end| end.try_clone().expect("descriptors are left"));
        let ([up_from, up_to], line) = (ends(), Self(ends()));
        thread::spawn(move || pass(up_from, up_to, |bytes| up(bytes)));
        thread::spawn(move || pass(server, client, |bytes| down(bytes)));
        Some(line)
    }

    /// Ends it.
    pub fn cut(&self) {
        self.0.iter().for_each(close);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(&mut Vec<u8>)) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let mut bytes = buffer[..read].to_vec();
        seen(&mut bytes);
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    close(&to);
    close(&from);
}

fn close(end: &TcpStream) {
    // An error says that it is closed already.
    let _ = end.shutdown(Shutdown::Both);
}

/// A port on loopback that leads to a server.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// None while connections are refused.
    lines: Mutex<Option<Vec<Line>>>,
    received: AtomicU64,
    gate: Gate,
    /// What the server says when a stream is to fall silent.
    mute_at: Mutex<Option<Vec<u8>>>,
}

impl Proxy {
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let lines = Mutex::new(Some(Vec::new()));
        let shared = Arc::new(Shared {
            lines,
            received: AtomicU64::new(0),
            gate: Gate::default(),
            mute_at: Mutex::default(),
        });
        let proxy = Self { address, shared: Arc::clone(&shared) };
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Held till the line is noted: no cut comes between.
                let mut lines = locked(&shared.lines);
                let Some(lines) = lines.as_mut() else { continue };
                let (above, below) = (Arc::clone(&shared), Arc::clone(&shared));
                let up = move |bytes: &[u8]| {
                    above.gate.wait_for(false);
                    above.gate.client_said(bytes);
                };
                let mut streams = locked(&shared.mute_at).is_some().then(Streams::default);
                let down = move |bytes: &mut Vec<u8>| {
                    below.received.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                    if let Some(streams) = &mut streams {
                        streams.pass(bytes, &mut locked(&below.mute_at));
                    }
                    below.gate.server_said(bytes);
                };
                lines.extend(Line::new(client, server, up, down));
            }
        });
        proxy
    }

    /// What clients dial, as `IP:PORT`.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// How many bytes the server has sent.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }

    /// Once the server says `word`, holds back what the client sends from then on.
    pub fn hold_at(&self, word: &str) {
        locked(&self.shared.gate.state).word = Some(word.as_bytes().to_vec());
    }

    /// Once the server says `word` on an HTTP/2 stream of a connection that is made from now on,
    /// nothing more comes over that stream, the word included; all others go on.
    pub fn mute_at(&self, word: &str) {
        *locked(&self.shared.mute_at) = Some(word.as_bytes().to_vec());
    }

    /// Waits until the client has said `word`, which it must not have said before.
    #[track_caller]
    pub fn wait_said(&self, word: &str) {
        let said = |all: &[u8]| all.windows(word.len()).any(|part| part == word.as_bytes());
        let state = locked(&self.shared.gate.state);
        let changed = &self.shared.gate.changed;
        let waited = changed.wait_timeout_while(state, LIMIT, |state| !said(&state.said));
        let is = said(&waited.expect("nobody panics holding it").0.said);
        assert!(is, "the client did not say {word} in time");
    }

    /// Waits until it does so.
    #[track_caller]
    pub fn wait_held(&self) {
        self.shared.gate.wait_for(true);
    }

    /// Passes on what was held back.
    pub fn let_go(&self) {
        locked(&self.shared.gate.state).held = false;
        self.shared.gate.changed.notify_all();
    }

    /// Ends every connection, and every new one at once.
    pub fn cut(&self) {
        locked(&self.shared.lines).take().iter().flatten().for_each(Line::cut);
    }

    /// Takes connections again.
    pub fn mend(&self) {
        *locked(&self.shared.lines) = Some(Vec::new());
    }
}

/// The HTTP/2 streams of one connection, as the server uses them.
#[derive(Default)]
struct Streams {
    /// The beginning of a frame.
    rest: Vec<u8>,
    mute: Option<[u8; 4]>,
}

impl Streams {
    /// Leaves of `bytes` the frames that are whole now and of no muted stream.
    fn pass(&mut self, bytes: &mut Vec<u8>, mute_at: &mut Option<Vec<u8>>) {
        self.rest.append(bytes);
        // RFC 9113, section 4.1: length, type, flags, stream.
        while let Some((&[a, b, c, _, _, ref stream @ ..], _)) = self.rest.split_first_chunk::<9>()
        {
            let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
            let stream = *stream;
            let Some(frame) = self.rest.get(9..end) else { return };
            let says = |word: &Vec<u8>| frame.windows(word.len()).any(|part| part == *word);
            if mute_at.take_if(|word| says(word)).is_some() {
                self.mute = Some(stream);
            }
            let frame = self.rest.drain(..end);
            if self.mute != Some(stream) {
                bytes.extend(frame);
            }
        }
    }
}

/// Holds back what the client sends.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    /// What the server says when the gate is to close.
    word: Option<Vec<u8>>,
    held: bool,
    /// What the client said that was passed on.
    said: Vec<u8>,
}

impl Gate {
    fn server_said(&self, bytes: &[u8]) {
        let mut state = locked(&self.state);
        let said = |word: &Vec<u8>| bytes.windows(word.len()).any(|part| part == word.as_slice());
        if state.word.as_ref().is_some_and(said) {
            state.word = None;
            state.held = true;
            self.changed.notify_all();
        }
    }

    fn client_said(&self, bytes: &[u8]) {
        locked(&self.state).said.extend_from_slice(bytes);
        self.changed.notify_all();
    }

    #[track_caller]
    fn wait_for(&self, held: bool) {
        let state = locked(&self.state);
        let waited = self.changed.wait_timeout_while(state, LIMIT, |state| state.held != held);
        // The lock is not held any more when this panics.
        let is = waited.expect("nobody panics holding it").0.held;
        assert_eq!(is, held, "the line was not held, or not let go, in time");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics holding it")
}
