//! A record of everything that enters a node, and of what came out, so that a run of a daemon can
//! be had again, turn by turn, from its file.
//!
//! The file is [`MAGIC`], then frames: a length in bytes (u32), then as many bytes, of which the
//! first says what the frame is. All numbers are little-endian.
//!
//! | first byte | frame |
//! | --- | --- |
//! | 0 | an address of an earlier run that the node was told of before its first turn |
//! | 1 | a turn: the time, whether everything was read, the events, a hash of the actions |
//! | 2 | the end: 0 the node stopped, 1 a turn was lost, 2 the file grew too large |
//! | 3 | the node was told before its first turn that there is a fence |
//!
//! Values follow one another without padding, in the order of the fields that `code.rs` names;
//! lists and texts begin with their number of elements or bytes (u32), what may be absent with a
//! byte that is 0 or 1. A record without a last frame was cut off, and is good up to there. It
//! holds the configuration as the node got it, so a password too.

mod code;

use super::{Actions, Host, Inbox, Instant, Node, turn};
use crate::config::Prefix;
use crate::wire::IfIndex;
use code::{Code, Reader, hash};

/// What a record begins with; the number is its format's.
pub const MAGIC: &[u8] = b"havip record 2\n";
/// Longest frame that is read, in bytes: more than a turn can bring.
const FRAME_MAX: usize = 64 * 1024 * 1024;

const REMEMBERED: u8 = 0;
const TURN: u8 = 1;
const END: u8 = 2;
const FENCED: u8 = 3;

/// Why a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The node stopped.
    Stopped,
    /// A turn was not written, because the disk was too slow or refused: what follows is missing.
    Hole,
    /// The file reached its limit.
    Full,
}

/// A frame that says that the node knows of an address of an earlier run.
#[must_use]
pub fn remembered(index: IfIndex, prefix: Prefix, fenced: bool) -> Vec<u8> {
    let mut frame = begin(REMEMBERED);
    ((index, prefix), fenced).put(&mut frame);
    finish(frame)
}

/// A frame that says that there is a fence.
#[must_use]
pub fn fenced() -> Vec<u8> {
    finish(begin(FENCED))
}

/// A frame that says why there are no more.
#[must_use]
pub fn end(why: End) -> Vec<u8> {
    let mut frame = begin(END);
    let why: u8 = match why {
        End::Stopped => 0,
        End::Hole => 1,
        End::Full => 2,
    };
    why.put(&mut frame);
    finish(frame)
}

/// A host that writes down what passes through it.
#[derive(Debug)]
pub struct Recording<'a, H> {
    host: &'a mut H,
    inbox: Vec<u8>,
    heard_all: bool,
    frame: Vec<u8>,
}

impl<'a, H: Host> Recording<'a, H> {
    /// For one turn.
    pub fn new(host: &'a mut H) -> Self {
        Self { host, inbox: Vec::new(), heard_all: false, frame: Vec::new() }
    }

    /// The turn's frame.
    #[must_use]
    pub fn frame(self) -> Vec<u8> {
        finish(self.frame)
    }
}

impl<H: Host> Host for Recording<'_, H> {
    fn drain(&mut self, inbox: &mut Inbox) -> bool {
        self.heard_all = self.host.drain(inbox);
        inbox.put(&mut self.inbox);
        self.heard_all
    }

    fn now(&mut self) -> Instant {
        let now = self.host.now();
        self.frame = begin(TURN);
        now.put(&mut self.frame);
        self.heard_all.put(&mut self.frame);
        self.frame.append(&mut self.inbox);
        now
    }

    fn flush(&mut self, node: &Node, actions: &Actions) {
        hash(actions).put(&mut self.frame);
        self.host.flush(node, actions);
    }
}

/// How a replay went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Turns that came out as they were recorded.
    pub turns: u64,
    /// Why the record ends; `None`: it was cut off.
    pub end: Option<End>,
}

/// Why a replay ended before the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is no record, or one of another format.
    Magic,
    /// A frame, counted from 1, cannot be read.
    Frame(u64),
    /// The node did something else than recorded in this turn, counted from 1.
    Differs {
        /// Which turn.
        turn: u64,
        /// When it was, by the machine's clock.
        at: Instant,
    },
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Magic => f.write_str("not a record of havip's, or of another version"),
            Self::Frame(number) => write!(f, "frame {number} cannot be read"),
            Self::Differs { turn, at } => {
                write!(f, "turn {turn}, at {at:?}, does something else than was recorded")
            }
        }
    }
}

impl std::error::Error for Broken {}

/// Feeds a record to a fresh node, and sees whether the same comes out. `see` is shown the node and
/// its actions after each turn.
///
/// # Errors
/// What is wrong with the record, or where the node differs from it.
pub fn replay(
    record: &[u8],
    mut see: impl FnMut(Instant, &Node, &Actions),
) -> Result<Replayed, Broken> {
    let mut rest = record.strip_prefix(MAGIC).ok_or(Broken::Magic)?;
    let mut node = Node::new();
    let mut actions = Actions::default();
    let (mut turns, mut frames) = (0, 0);
    while let Some((frame, after)) = split(rest) {
        rest = after;
        frames += 1;
        let broken = Broken::Frame(frames);
        let mut reader = Reader::new(frame);
        match reader.take::<u8>().ok_or(broken)? {
            REMEMBERED => {
                let ((index, prefix), fenced) = reader.last().ok_or(broken)?;
                node.remember(index, prefix, fenced);
            }
            FENCED => node.fence(),
            TURN => {
                let (now, heard_all, inbox, expected): (_, _, _, u64) =
                    reader.last().ok_or(broken)?;
                let mut host = Replay { now, heard_all, inbox: Some(inbox) };
                turn(&mut node, &mut host, &mut Inbox::default(), &mut actions);
                turns += 1;
                see(now, &node, &actions);
                if hash(&actions) != expected {
                    return Err(Broken::Differs { turn: turns, at: now });
                }
            }
            END => {
                let end = match reader.last::<u8>().ok_or(broken)? {
                    0 => End::Stopped,
                    1 => End::Hole,
                    2 => End::Full,
                    _ => return Err(broken),
                };
                return Ok(Replayed { turns, end: Some(end) });
            }
            _ => return Err(broken),
        }
    }
    Ok(Replayed { turns, end: None })
}

struct Replay {
    now: Instant,
    heard_all: bool,
    inbox: Option<Inbox>,
}

impl Host for Replay {
    fn drain(&mut self, inbox: &mut Inbox) -> bool {
        *inbox = self.inbox.take().unwrap_or_default();
        self.heard_all
    }

    fn now(&mut self) -> Instant {
        self.now
    }

    fn flush(&mut self, _node: &Node, _actions: &Actions) {}
}

/// A frame without its length, which [`finish`] fills in.
fn begin(kind: u8) -> Vec<u8> {
    vec![0, 0, 0, 0, kind]
}

fn finish(mut frame: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(frame.len().saturating_sub(4)).unwrap_or(u32::MAX);
    if let Some(head) = frame.first_chunk_mut() {
        *head = length.to_le_bytes();
    }
    frame
}

/// The first whole frame of what is left, and what follows it.
fn split(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    (length <= FRAME_MAX).then(|| rest.split_at_checked(length))?
}
