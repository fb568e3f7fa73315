//! The last will: what is to be sent and taken away if this process dies, kept where another
//! process can read it then. No such process exists yet; this is its door.
//!
//! A file of two halves, of which one is whole at any time, since the writer may be killed in the
//! middle of a word. Each half: sequence number (u64), length of the rest (u32), hash of the rest
//! (u32), all little-endian; then for each active router: interface index (u32), family (u8: 4 or
//! 6), length (u16) and bytes of the complete IP packet with priority 0, number of addresses
//! (u16), and each address as family (u8), prefix length (u8) and 16 bytes, IPv4 in the first 4.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;

use crate::config::Prefix;
use crate::linux::memfd;
use crate::node::{Farewell, Node};
use crate::wire::Family;

/// Bytes of one half: room for a thousand routers with ten thousand addresses.
const HALF: usize = 512 * 1024;
const HEAD: usize = 16;

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
        let size = u64::try_from(2 * HALF).unwrap_or(u64::MAX);
        Ok(Self { file: memfd(c"havip-will", size)?, sequence: 0, bytes: Vec::new() })
    }

    /// Another descriptor of it, for whoever is to read it.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn reader(&self) -> io::Result<File> {
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
        let offset = (self.sequence % 2) * u64::try_from(HALF).unwrap_or(0);
        // Cannot fail within the size that the file was made with; if it does, the other half
        // stands, and is old.
        let _ = self.file.write_all_at(&self.bytes, offset);
    }
}

fn put(out: &mut Vec<u8>, farewell: &Farewell) {
    let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes();
    for packet in &farewell.packets {
        out.extend(farewell.port.index.0.to_le_bytes());
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

/// The newest whole half of a will.
///
/// # Errors
/// It cannot be read; InvalidData when neither half is whole.
pub fn newest(file: &File) -> io::Result<Vec<u8>> {
    let half = |number: u64| -> Option<(u64, Vec<u8>)> {
        let offset = number * u64::try_from(HALF).ok()?;
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, offset).ok()?;
        let (sequence, rest) = head.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (sum, _) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let mut body = vec![0; length.min(HALF - HEAD)];
        file.read_exact_at(&mut body, offset + u64::try_from(HEAD).ok()?).ok()?;
        let sequence = u64::from_le_bytes(*sequence);
        (sequence > 0 && hash(&body) == u32::from_le_bytes(*sum)).then_some((sequence, body))
    };
    let halves = [half(0), half(1)];
    let newest = halves.into_iter().flatten().max_by_key(|(sequence, _)| *sequence);
    newest.map(|(_, body)| body).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_half_is_read() {
        let mut will = Will::new().unwrap();
        let reader = will.reader().unwrap();
        assert!(newest(&reader).is_err(), "nothing is written yet");
        let node = Node::new();
        will.update(&node);
        assert!(newest(&reader).unwrap().is_empty());
        will.update(&node);
        // Killed in the middle of writing: the other half stands.
        will.file.write_all_at(&[7], 8).unwrap();
        assert!(newest(&reader).unwrap().is_empty());
        will.file.write_all_at(&[7], u64::try_from(HALF).unwrap() + 8).unwrap();
        assert!(newest(&reader).is_err());
    }

    #[test]
    fn an_entry_is_laid_out_as_documented() {
        let mut out = Vec::new();
        let farewell = Farewell {
            port: crate::node::kernel::Port { index: crate::wire::IfIndex(3), family: Family::V4 },
            packets: vec![vec![9, 9, 9]],
            addresses: vec![Prefix { ip: [10, 0, 0, 3].into(), len: 24 }],
        };
        put(&mut out, &farewell);
        let mut expected = vec![3, 0, 0, 0, 4, 3, 0, 9, 9, 9, 1, 0, 4, 24, 10, 0, 0, 3];
        expected.extend([0; 12]);
        assert_eq!(out, expected);
    }
}
