//! The last will: what is to be sent and taken away if this process dies, kept where the guard
//! can read it then ([`super::guard`]).
//!
//! Memory behind a descriptor, all numbers little-endian. First 64 bytes: `havip`, 0, `w2`,
//! and `disarmed` (u32): 0 as long as the guard has to act, 1 from a clean end on, and where
//! another daemon takes over what this one leaves. Then two halves, of which one is whole at any
//! time, since the writer may be killed in the middle of a word. Each half: sequence number (u64),
//! length of the rest (u32), hash of the rest (u32); then, for each packet of an active router:
//! interface index (u32), routing table (u32), family (u8: 4 or 6), length (u16) and bytes of the
//! complete IP packet with priority 0, number of addresses (u16), and each address as family (u8),
//! prefix length of its on-link route (u8) and 16 bytes, IPv4 in the first 4. The addresses
//! themselves are host addresses.
//!
//! All of it is written at each change of a state: for a thousand routers some 60 KB and 0.2 ms of
//! the engine's time, since the packets are made once and kept with the routers' other adverts.
//!
//! Who is killed between a change and its writing leaves a will that is one change old. That does
//! no harm: a router that is not active any more has its priority 0 answered by the one that is,
//! and addresses are told by the kernel's mark where it has one.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt as _;

use crate::config::Prefix;
use crate::linux::{is_sealed, memfd};
use crate::node::kernel::Port;
use crate::node::{Farewell, Node};
use crate::wire::{Family, IfIndex};

/// How it begins; the number is the form's.
const MAGIC: [u8; 8] = *b"havip\0w2";
/// Where `disarmed` stands.
const DISARMED: u64 = 8;
/// Where the first half begins.
const HALVES: u64 = 64;
/// Bytes of one half: room for a thousand routers with ten thousand addresses.
const HALF: usize = 512 * 1024;
const HEAD: usize = 16;
/// Bytes of one address.
const ADDRESS: usize = 18;

/// The writing end, in the engine.
#[derive(Debug)]
pub struct Will {
    file: File,
    sequence: u64,
    bytes: Vec<u8>,
}

impl Will {
    /// An empty will.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        let size = HALVES + u64::try_from(2 * HALF).unwrap_or(u64::MAX);
        let file = memfd(c"havip-will", size)?;
        file.write_all_at(&MAGIC, 0)?;
        Ok(Self { file, sequence: 0, bytes: Vec::new() })
    }

    /// Another descriptor of it.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Writes down what the active routers would say and have. Memory only: it does not wait.
    pub fn update(&mut self, node: &Node) {
        self.bytes.clear();
        self.bytes.resize(HEAD, 0);
        for farewell in node.farewells() {
            let before = self.bytes.len();
            put(&mut self.bytes, &farewell);
            if self.bytes.len() > HALF {
                // More than anybody has: the rest is left to the lifetime of its addresses.
                self.bytes.truncate(before);
                break;
            }
        }
        self.sequence += 1;
        let (head, rest) = self.bytes.split_at_mut(HEAD);
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let parts = self.sequence.to_le_bytes().into_iter();
        let parts = parts.chain(length.to_le_bytes()).chain(hash(rest).to_le_bytes());
        for (to, from) in head.iter_mut().zip(parts) {
            *to = from;
        }
        // Cannot fail within the size that the file was made with; if it does, the other half
        // stands, and is old.
        let _ = self.file.write_all_at(&self.bytes, offset_of(self.sequence % 2));
    }
}

/// Tells the guard that there is nothing to do when this process ends: it has done everything
/// itself, or another one goes on with it. There is no way back.
///
/// # Errors
/// None that the kernel is known to give for memory that is there.
pub fn disarm(will: &File) -> io::Result<()> {
    will.write_all_at(&1u32.to_le_bytes(), DISARMED)
}

const fn offset_of(half: u64) -> u64 {
    HALVES + half * HALF as u64
}

fn put(out: &mut Vec<u8>, farewell: &Farewell<'_>) {
    let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
    for packet in farewell.packets.iter() {
        out.extend(farewell.port.index.0.to_le_bytes());
        out.extend(farewell.table.to_le_bytes());
        out.push(match farewell.port.family {
            Family::V4 => 4,
            Family::V6 => 6,
        });
        out.extend(short(packet.len()));
        out.extend(packet);
        out.extend(short(farewell.addresses.len()));
        for address in &farewell.addresses {
            put_address(out, address);
        }
    }
}

fn put_address(out: &mut Vec<u8>, prefix: &Prefix) {
    let mut bytes = [0; 16];
    let family = match prefix.ip {
        IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            4
        }
        IpAddr::V6(ip) => {
            bytes = ip.octets();
            6
        }
    };
    out.extend([family, prefix.len]);
    out.extend(bytes);
}

/// FNV-1a with 32 bits: enough to see a torn write.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619))
}

/// The reading end, in the guard. Does not allocate after [`Self::new`].
#[derive(Debug)]
pub struct Reader {
    file: File,
    body: Vec<u8>,
}

impl Reader {
    /// Of the will behind `file`.
    ///
    /// # Errors
    /// InvalidData: it is no will, or another version's.
    pub fn new(file: File) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        if !is_sealed(&file) || file.read_exact_at(&mut magic, 0).is_err() || magic != MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { file, body: vec![0; HALF] })
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_disarmed(&self) -> bool {
        let mut word = [0; 4];
        self.file.read_exact_at(&mut word, DISARMED).is_ok() && word != [0; 4]
    }

    /// What the newest whole half says; nothing when neither is whole.
    pub fn read(&mut self) -> Entries<'_> {
        let heads = [0, 1].map(|half| (half, self.head(half)));
        // The newer one first.
        let newer =
            usize::from(heads[1].1.is_some_and(|[sequence, ..]| {
                heads[0].1.is_none_or(|[other, ..]| sequence > other)
            }));
        for (half, head) in [heads[newer], heads[1 - newer]] {
            let Some([_, length, sum]) = head else { continue };
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(HALF - HEAD);
            let Some(body) = self.body.get_mut(..length) else { continue };
            let offset = offset_of(half) + HEAD as u64;
            if self.file.read_exact_at(body, offset).is_ok() && u64::from(hash(body)) == sum {
                return Entries(self.body.get(..length).unwrap_or_default());
            }
        }
        Entries(&[])
    }

    /// Sequence number, length and hash of a half that was written.
    fn head(&self, half: u64) -> Option<[u64; 3]> {
        let mut head = [0; HEAD];
        self.file.read_exact_at(&mut head, offset_of(half)).ok()?;
        let (sequence, rest) = head.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (sum, _) = rest.split_first_chunk::<4>()?;
        let sequence = u64::from_le_bytes(*sequence);
        let [length, sum] = [*length, *sum].map(|word| u64::from(u32::from_le_bytes(word)));
        (sequence > 0).then_some([sequence, length, sum])
    }
}

/// One packet, and the addresses of its router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where it goes out.
    pub port: Port,
    /// Where its on-link routes are.
    pub table: u32,
    /// The complete IP packet.
    pub packet: &'a [u8],
    addresses: &'a [u8],
}

impl Entry<'_> {
    /// Whether this is an address as the router's are put.
    #[must_use]
    pub fn names(&self, index: IfIndex, prefix: &Prefix) -> bool {
        self.port.index == index
            && *prefix == Prefix::host(prefix.ip)
            && self.addresses().any(|named| named.ip == prefix.ip)
    }

    /// Its addresses, with the prefix lengths of their on-link routes.
    pub fn addresses(&self) -> impl Iterator<Item = Prefix> {
        self.addresses.chunks_exact(ADDRESS).filter_map(address)
    }
}

fn address(bytes: &[u8]) -> Option<Prefix> {
    let (&[family, len], octets) = bytes.split_first_chunk::<2>()?;
    let ip = match family {
        4 => Ipv4Addr::from(*octets.first_chunk::<4>()?).into(),
        6 => Ipv6Addr::from(*octets.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(Prefix { ip, len })
}

/// The entries of one half; ends before the first that makes no sense.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (index, rest) = self.0.split_first_chunk::<4>()?;
        let (table, rest) = rest.split_first_chunk::<4>()?;
        let (&family, rest) = rest.split_first()?;
        let family = match family {
            4 => Family::V4,
            6 => Family::V6,
            _ => return None,
        };
        let (packet, rest) = counted(rest, 1)?;
        let (addresses, rest) = counted(rest, ADDRESS)?;
        self.0 = rest;
        let port = Port { index: IfIndex(u32::from_le_bytes(*index)), family };
        Some(Entry { port, table: u32::from_le_bytes(*table), packet, addresses })
    }
}

/// So many items of `size` bytes each as the first two bytes say, and what follows.
fn counted(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*count)).checked_mul(size)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn farewell() -> Farewell<'static> {
        Farewell {
            port: Port { index: IfIndex(3), family: Family::V4 },
            table: 254,
            packets: vec![vec![9, 9, 9]].into(),
            addresses: vec![
                Prefix { ip: [10, 0, 0, 3].into(), len: 24 },
                Prefix::host("2001:db8::3".parse().unwrap()),
            ],
        }
    }

    /// Writes a half as `update` does, with this body and hash.
    fn write(will: &Will, sequence: u64, body: &[u8], sum: u32) {
        let mut half = sequence.to_le_bytes().to_vec();
        half.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        half.extend(sum.to_le_bytes());
        half.extend(body);
        will.file.write_all_at(&half, offset_of(sequence % 2)).unwrap();
    }

    #[test]
    fn the_newest_whole_half_is_read() {
        let mut will = Will::new().unwrap();
        let mut reader = Reader::new(will.file().unwrap()).unwrap();
        assert_eq!(reader.read().count(), 0, "nothing is written yet");
        let mut one = Vec::new();
        put(&mut one, &farewell());
        let two = one.repeat(2);
        write(&will, 1, &one, hash(&one));
        assert_eq!(reader.read().count(), 1);
        write(&will, 2, &two, hash(&two));
        assert_eq!(reader.read().count(), 2);
        // Killed in the middle of writing: the other half stands.
        write(&will, 3, &two, hash(&one));
        assert_eq!(reader.read().count(), 2);
        write(&will, 3, &one, hash(&one));
        write(&will, 4, &two, hash(&one));
        assert_eq!(reader.read().count(), 1);
        write(&will, 3, &one, hash(&two));
        assert_eq!(reader.read().count(), 0);
        will.sequence = 4;
        will.update(&Node::new());
        assert_eq!(reader.read().count(), 0, "whole, and nobody is active");
    }

    #[test]
    fn an_entry_is_laid_out_as_documented_and_read_back() {
        let mut out = Vec::new();
        let farewell = farewell();
        put(&mut out, &farewell);
        let mut expected =
            vec![3, 0, 0, 0, 254, 0, 0, 0, 4, 3, 0, 9, 9, 9, 2, 0, 4, 24, 10, 0, 0, 3];
        expected.extend([0; 12]);
        expected.extend([6, 128, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(out, expected);
        let entry = Entries(&out).next().unwrap();
        assert_eq!((entry.port, entry.packet), (farewell.port, &[9, 9, 9][..]));
        assert!(entry.addresses().eq(farewell.addresses.iter().copied()));
        for address in &farewell.addresses {
            let host = Prefix::host(address.ip);
            assert!(entry.names(IfIndex(3), &host));
            assert!(!entry.names(IfIndex(4), &host));
        }
        assert!(!entry.names(IfIndex(3), &farewell.addresses[0]), "a network's is another's");
    }

    #[test]
    fn a_disarmed_will_says_so_and_what_is_no_will_is_refused() {
        let will = Will::new().unwrap();
        let reader = Reader::new(will.file().unwrap()).unwrap();
        assert!(!reader.is_disarmed());
        disarm(&will.file).unwrap();
        assert!(reader.is_disarmed());
        assert!(Reader::new(memfd(c"other", 4096).unwrap()).is_err());
        assert!(Reader::new(File::open("/proc/self/exe").unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            for entry in Entries(&bytes) {
                let _ = entry.names(IfIndex(1), &Prefix::host([10, 0, 0, 3].into()));
            }
        }
    }
}
