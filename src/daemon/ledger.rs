//! Which addresses this daemon put on interfaces, in a file that outlives it, for kernels that do
//! not keep IFA_PROTO (before 5.18). Where the kernel keeps it, the kernel alone is asked, and
//! there is no file.
//!
//! A line is written before the kernel is asked to put an address, and another one after it
//! removed it, so that a process that dies in between has named too many addresses and never too
//! few. There is a file while there is something to name. What the file names is believed only of
//! the boot and the network namespace that wrote it, and only where an address without owner is
//! there with the kind of lifetime that was asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::Prefix;
use crate::linux::file;
use crate::node::kernel::{Errno, Op, Snapshot, Verb};
use crate::wire::{Family, IfIndex};

/// Its name in the run directory.
const FILE: &str = "addresses";
/// How it begins; the number is the form's.
const MAGIC: &str = "havip addresses 1";
/// Largest file that is read, and the size beyond which it is written anew, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

type Place = (IfIndex, Prefix);

/// The file, or nothing where the kernel needs none.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    /// Whether the kernel needs it, and it can be written.
    kept: bool,
    /// While there is something to name.
    file: Option<File>,
    /// What it names, and whether each has a lifetime.
    held: BTreeMap<Place, bool>,
    bytes: u64,
}

/// What an earlier run left, as far as its file can be believed.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Addresses that are there, without owner, as that run put them, and whether with a lifetime.
    pub(super) places: Vec<(Place, bool)>,
    /// Why the file was not used, or none could be made.
    pub(super) warnings: Vec<String>,
}

impl Ledger {
    /// Reads what an earlier run left in `run_dir` and begins a file of its own, unless addresses
    /// in `snapshot` show that the kernel keeps their owner.
    pub(super) fn open(run_dir: &Path, snapshot: &Snapshot) -> (Self, Leftovers) {
        let path = run_dir.join(FILE);
        let mut ledger = Self { path, kept: true, file: None, held: BTreeMap::new(), bytes: 0 };
        let mut leftovers = Leftovers::default();
        if kernel_keeps_owners(snapshot) {
            ledger.stop();
            return (ledger, leftovers);
        }
        match read(&ledger.path) {
            Ok(text) => match parse(&text, &place_in_time()) {
                Ok(held) => ledger.held = still_there(held, snapshot),
                Err(why) => {
                    let path = ledger.path.display();
                    leftovers.warnings.push(format!(
                        "{path}: not used: {why}; addresses that it names go with their lifetime"
                    ));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                leftovers.warnings.push(format!("{}: not used: {error}", ledger.path.display()));
            }
        }
        leftovers.places = ledger.held.iter().map(|(place, fenced)| (*place, *fenced)).collect();
        if let Err(error) = ledger.rewrite() {
            leftovers.warnings.push(ledger.told(&error));
        }
        (ledger, leftovers)
    }

    /// To be called before the kernel is asked for `ops`.
    ///
    /// # Errors
    /// What the file system says, in words; nothing is written from then on.
    pub(super) fn before(&mut self, ops: &[Op]) -> Result<(), String> {
        let mut lines = String::new();
        for op in ops {
            let (Verb::Add { lifetime } | Verb::Renew { lifetime }) = op.verb else { continue };
            let fenced = lifetime.is_some();
            let place = (op.index, op.prefix);
            if self.kept && self.held.insert(place, fenced) != Some(fenced) {
                put_line(&mut lines, place, fenced);
            }
        }
        self.append(&lines)
    }

    /// To be called with the kernel's answers to `ops`.
    ///
    /// # Errors
    /// As [`Self::before`].
    pub(super) fn after(
        &mut self,
        ops: &[Op],
        results: &[Result<(), Errno>],
    ) -> Result<(), String> {
        let mut lines = String::new();
        for (op, result) in ops.iter().zip(results) {
            let place = (op.index, op.prefix);
            let gone = match op.verb {
                Verb::Remove => {
                    matches!(result, Ok(()) | Err(Errno(libc::EADDRNOTAVAIL | libc::ENODEV)))
                }
                // Another's is there.
                Verb::Add { .. } => *result == Err(Errno(libc::EEXIST)),
                Verb::Renew { .. } | Verb::Route { .. } | Verb::Unroute { .. } => false,
            };
            if gone && self.held.remove(&place).is_some() {
                let _ = writeln!(lines, "- {} {}/{}", place.0.0, place.1.ip, place.1.len);
            }
        }
        self.append(&lines)
    }

    /// Takes a dump: once it shows an owner, the file is not needed any more.
    pub(super) fn dumped(&mut self, snapshot: &Snapshot) {
        if self.kept && kernel_keeps_owners(snapshot) {
            self.stop();
        }
    }

    fn append(&mut self, lines: &str) -> Result<(), String> {
        if !self.kept || lines.is_empty() {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(lines.len() as u64);
        let written = match &mut self.file {
            Some(file) if self.bytes <= FILE_MAX && !self.held.is_empty() => {
                file.write_all(lines.as_bytes())
            }
            Some(_) | None => self.rewrite(),
        };
        written.map_err(|error| {
            (self.kept, self.file) = (false, None);
            self.told(&error)
        })
    }

    /// Writes all of it anew, beside the old one and then in its place; removes the file if there
    /// is nothing to name.
    fn rewrite(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            (self.file, self.bytes) = (None, 0);
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        let mut text = format!("{MAGIC}\n{}\n", place_in_time());
        for (place, fenced) in &self.held {
            put_line(&mut text, *place, *fenced);
        }
        let file = file::replace(&self.path, 0o644, text.as_bytes())?;
        (self.file, self.bytes) = (Some(file), text.len() as u64);
        Ok(())
    }

    fn told(&self, error: &io::Error) -> String {
        format!(
            "{}: {error}: addresses that a crash of this daemon leaves behind are not removed at \
             its next start",
            self.path.display()
        )
    }

    fn stop(&mut self) {
        (self.kept, self.file) = (false, None);
        self.held.clear();
        // Mostly there is none.
        let _ = fs::remove_file(&self.path);
    }
}

/// Loopback and link-local addresses, which the kernel makes itself, carry its mark since 5.18, as
/// do havip's own.
fn kernel_keeps_owners(snapshot: &Snapshot) -> bool {
    snapshot.addresses.iter().any(|address| address.proto != 0)
}

/// Which boot and which network namespace this is, as the file's second line.
fn place_in_time() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::metadata("/proc/self/ns/net").map_or(0, |metadata| metadata.ino());
    format!("boot {} namespace {namespace}", boot.trim())
}

fn read(path: &Path) -> io::Result<String> {
    // Twice: the last chunk before a rewrite goes over the bound.
    let bytes = file::read_own(path, 2 * FILE_MAX)?;
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn put_line(out: &mut String, (index, prefix): Place, fenced: bool) {
    let life = if fenced { "fenced" } else { "forever" };
    let _ = writeln!(out, "+ {} {}/{} {life}", index.0, prefix.ip, prefix.len);
}

/// What a file of this boot and namespace names.
fn parse(text: &str, now: &str) -> Result<BTreeMap<Place, bool>, &'static str> {
    // A process that died within a write leaves a line without an end.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _torn)| whole);
    let mut lines = whole.lines();
    if lines.next() != Some(MAGIC) {
        return Err("another version of havip wrote it");
    }
    let mut held = BTreeMap::new();
    if lines.next() != Some(now) {
        // Before a reboot, or in another container: what it names went with that.
        return Ok(held);
    }
    for line in lines {
        let mut words = line.split(' ');
        let (verb, index, address, life) = (words.next(), words.next(), words.next(), words.next());
        let place = place_of(index, address).ok_or("a line in it is not understood")?;
        match (verb, life) {
            (Some("+"), Some("fenced")) => _ = held.insert(place, true),
            (Some("+"), Some("forever")) => _ = held.insert(place, false),
            (Some("-"), None) => _ = held.remove(&place),
            _ => return Err("a line in it is not understood"),
        }
    }
    Ok(held)
}

fn place_of(index: Option<&str>, address: Option<&str>) -> Option<Place> {
    let index = IfIndex(index?.parse().ok()?);
    let (ip, len) = address?.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let len: u8 = len.parse().ok()?;
    (len <= Family::of(&ip).bits()).then_some((index, Prefix { ip, len }))
}

/// Those that are there as they were put: what has an owner, or was made permanent where havip
/// gave a lifetime, is another's by now.
fn still_there(mut held: BTreeMap<Place, bool>, snapshot: &Snapshot) -> BTreeMap<Place, bool> {
    held.retain(|place, fenced| {
        snapshot.addresses.iter().any(|address| {
            (address.index, address.prefix) == *place
                && address.proto == 0
                && address.permanent != *fenced
        })
    });
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::kernel::Address;

    const INDEX: IfIndex = IfIndex(3);

    fn prefix(last: u8) -> Prefix {
        Prefix::host([192, 0, 2, last].into())
    }

    fn put(last: u8, lifetime: Option<u32>) -> Op {
        Op { index: INDEX, prefix: prefix(last), verb: Verb::Add { lifetime } }
    }

    fn remove(last: u8) -> Op {
        Op { index: INDEX, prefix: prefix(last), verb: Verb::Remove }
    }

    fn there(last: u8, permanent: bool, proto: u8) -> Address {
        Address {
            index: INDEX,
            prefix: prefix(last),
            secondary: false,
            tentative: false,
            permanent,
            link_scope: false,
            proto,
        }
    }

    fn snapshot(addresses: &[Address]) -> Snapshot {
        Snapshot { links: Vec::new(), addresses: addresses.to_vec() }
    }

    /// A run directory, which goes with the value.
    struct RunDir(PathBuf);

    impl RunDir {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("havip-ledger-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        /// What a run leaves that does `work` and then dies.
        fn after_a_crash_of(self, work: impl FnOnce(&mut Ledger)) -> Self {
            let (mut ledger, _) = Ledger::open(&self.0, &Snapshot::default());
            work(&mut ledger);
            std::mem::forget(ledger);
            self
        }

        fn leftovers(&self, addresses: &[Address]) -> Leftovers {
            Ledger::open(&self.0, &snapshot(addresses)).1
        }

        fn text(&self) -> String {
            fs::read_to_string(self.0.join(FILE)).unwrap()
        }
    }

    impl Drop for RunDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_crash_leaves_what_was_put_and_not_removed() {
        let dir = RunDir::new("crash").after_a_crash_of(|ledger| {
            let puts = [put(1, Some(4)), put(2, Some(4)), put(3, None)];
            ledger.before(&puts).unwrap();
            ledger.after(&puts, &[Ok(()); 3]).unwrap();
            ledger.before(&[remove(2)]).unwrap();
            ledger.after(&[remove(2)], &[Ok(())]).unwrap();
        });
        let all = [there(1, false, 0), there(2, false, 0), there(3, true, 0)];
        let left = dir.leftovers(&all);
        assert_eq!(left.places, [((INDEX, prefix(1)), true), ((INDEX, prefix(3)), false)]);
        assert!(left.warnings.is_empty());
    }

    #[test]
    fn what_the_run_before_left_is_named_until_it_is_removed() {
        let dir = RunDir::new("twice").after_a_crash_of(|ledger| {
            ledger.before(&[put(1, Some(4))]).unwrap();
        });
        let all = snapshot(&[there(1, false, 0)]);
        for _ in 0..2 {
            let (ledger, left) = Ledger::open(&dir.0, &all);
            assert_eq!(left.places, [((INDEX, prefix(1)), true)]);
            std::mem::forget(ledger);
        }
    }

    #[test]
    fn an_address_that_another_has_put_there_meanwhile_is_not_a_leftover() {
        let dir = RunDir::new("others").after_a_crash_of(|ledger| {
            ledger.before(&[put(1, Some(4)), put(2, None)]).unwrap();
        });
        assert!(dir.leftovers(&[there(1, true, 0), there(2, false, 0)]).places.is_empty());
    }

    #[test]
    fn an_address_that_was_anothers_already_is_not_named() {
        let dir = RunDir::new("there").after_a_crash_of(|ledger| {
            let puts = [put(1, Some(4)), put(2, Some(4))];
            ledger.before(&puts).unwrap();
            ledger.after(&puts, &[Err(Errno(libc::EEXIST)), Ok(())]).unwrap();
        });
        let left = dir.leftovers(&[there(1, false, 0), there(2, false, 0)]);
        assert_eq!(left.places, [((INDEX, prefix(2)), true)]);
    }

    #[test]
    fn where_the_kernel_keeps_owners_there_is_no_file() {
        let dir = RunDir::new("owners").after_a_crash_of(|ledger| {
            ledger.before(&[put(1, Some(4))]).unwrap();
        });
        let (mut ledger, left) =
            Ledger::open(&dir.0, &snapshot(&[there(1, false, 0), there(9, true, 2)]));
        assert!(left.places.is_empty());
        ledger.before(&[put(2, Some(4))]).unwrap();
        assert!(!dir.0.join(FILE).exists());
    }

    #[test]
    fn the_first_dump_that_shows_an_owner_ends_the_file() {
        let dir = RunDir::new("dump");
        let (mut ledger, _) = Ledger::open(&dir.0, &Snapshot::default());
        ledger.before(&[put(1, Some(4))]).unwrap();
        ledger.dumped(&snapshot(&[there(1, false, 0)]));
        assert!(dir.0.join(FILE).exists());
        ledger.dumped(&snapshot(&[there(1, false, 0x48)]));
        assert!(!dir.0.join(FILE).exists());
    }

    #[test]
    fn renewals_write_nothing_and_there_is_no_file_while_there_is_nothing_to_name() {
        let dir = RunDir::new("clean");
        let (mut ledger, _) = Ledger::open(&dir.0, &Snapshot::default());
        ledger.before(&[put(1, Some(4))]).unwrap();
        let text = dir.text();
        ledger.before(&[put(1, Some(4))]).unwrap();
        ledger.before(&[put(1, Some(8))]).unwrap();
        assert_eq!(dir.text(), text);
        ledger.before(&[put(2, Some(4))]).unwrap();
        let results = [Ok(()), Err(Errno(libc::EADDRNOTAVAIL))];
        ledger.after(&[remove(1), remove(2)], &results).unwrap();
        assert!(!dir.0.join(FILE).exists());
        ledger.before(&[put(1, Some(4))]).unwrap();
        assert_eq!(dir.text(), text);
    }

    #[test]
    fn another_boot_another_version_and_a_torn_line_are_known() {
        let text = format!("{MAGIC}\nhere\n+ 3 192.0.2.1/32 fenced\n+ 3 192.0.2.");
        assert_eq!(parse(&text, "here"), Ok([((INDEX, prefix(1)), true)].into()));
        assert_eq!(parse(&text, "there"), Ok(BTreeMap::new()));
        assert!(parse("havip addresses 2\nhere\n", "here").is_err());
        assert!(parse("", "here").is_err());
        for line in ["+ 3 192.0.2.1/33 fenced", "+ x 192.0.2.1/32 fenced", "* 3 192.0.2.1/32"] {
            let text = format!("{MAGIC}\nhere\n{line}\n");
            assert!(parse(&text, "here").is_err(), "{line}");
        }
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let dir = RunDir::new("bound");
        let (mut ledger, _) = Ledger::open(&dir.0, &Snapshot::default());
        ledger.before(&[put(2, Some(4))]).unwrap();
        for _ in 0..20_000 {
            ledger.before(&[put(1, Some(4))]).unwrap();
            ledger.after(&[remove(1)], &[Ok(())]).unwrap();
        }
        assert!(dir.text().len() as u64 <= FILE_MAX);
    }
}
