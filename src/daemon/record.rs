//! `havip run --record`: what enters the node, on disk, by a thread of its own. The one that sends
//! adverts never waits for it: a turn that finds the queue full is a hole, at which the record ends.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::channel::{self, Bell, Ringer};
use crate::linux::file;
use crate::node::record::{self, End};

/// Turns that may wait for the disk.
const TURNS_MAX: usize = 4096;
/// Largest record, in bytes: days of a quiet gateway, an hour of a busy one.
const FILE_MAX: u64 = 256 * 1024 * 1024;

/// The engine's end of a record.
#[derive(Debug)]
pub(super) struct Tape {
    frames: SyncSender<Vec<u8>>,
    bell: Ringer,
    has_hole: Arc<AtomicBool>,
}

impl Tape {
    /// A record in a new file, which its owner alone can read, and the thread that writes it: it
    /// ends once the tape is gone and everything is on disk.
    ///
    /// # Errors
    /// The file is there already or cannot be made, or there is no thread to be had.
    pub(super) fn open(path: &Path) -> io::Result<(Self, JoinHandle<()>)> {
        let file = file::create(path, 0o600)?;
        let (frames, turns) = sync_channel(TURNS_MAX);
        let (ringer, bell) = channel::bell()?;
        let has_hole = Arc::new(AtomicBool::new(false));
        let hole = Arc::clone(&has_hole);
        let name = path.display().to_string();
        let writer = super::spawn("record", move || {
            if let Err(error) = write(file, &turns, &bell, &hole) {
                log::error!("record {name}: {error}; recording has stopped");
            }
        })?;
        Ok((Self { frames, bell: ringer, has_hole }, writer))
    }

    /// Passes a frame on; `false` if the record has ended. Never waits.
    pub(super) fn take(&self, frame: Vec<u8>) -> bool {
        let taken = self.frames.try_send(frame).is_ok();
        if !taken {
            self.has_hole.store(true, Ordering::Release);
        }
        self.bell.ring();
        taken
    }
}

/// Writes until nobody is left to record, a turn was lost, or the file is full.
fn write(
    file: File,
    turns: &Receiver<Vec<u8>>,
    bell: &Bell,
    has_hole: &AtomicBool,
) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    file.write_all(record::MAGIC)?;
    let mut size = 0;
    let mut is_live = true;
    while is_live {
        // What was sent before it rang for the last time is still to be read.
        is_live = bell.wait();
        for frame in turns.try_iter() {
            size += frame.len() as u64;
            if size > FILE_MAX {
                file.write_all(&record::end(End::Full))?;
                return file.flush();
            }
            file.write_all(&frame)?;
        }
        if has_hole.load(Ordering::Acquire) {
            file.write_all(&record::end(End::Hole))?;
            return file.flush();
        }
        file.flush()?;
    }
    file.write_all(&record::end(End::Stopped))?;
    file.flush()
}
