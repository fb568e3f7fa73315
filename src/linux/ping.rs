//! ICMP echo, as the demonstration's client sends it.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use super::{sys, wait_readable};
use crate::wire::checksum;

const ECHO_REQUEST: u8 = 8;

/// A raw ICMP socket of the calling thread's network namespace.
#[derive(Debug)]
pub struct Pinger {
    socket: OwnedFd,
    target: Ipv4Addr,
    identifier: u16,
}

impl Pinger {
    /// For echoes of one address.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW.
    pub fn open(target: Ipv4Addr) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
        let socket = sys::socket(libc::AF_INET, kind, libc::IPPROTO_ICMP)?;
        let identifier = u16::try_from(std::process::id() & 0xffff).unwrap_or(0);
        Ok(Self { socket, target, identifier })
    }

    /// Asks once. That nobody answers, or no neighbour is known, is not an error.
    pub fn send(&self, sequence: u16) {
        let [i0, i1] = self.identifier.to_be_bytes();
        let [s0, s1] = sequence.to_be_bytes();
        let mut packet = [ECHO_REQUEST, 0, 0, 0, i0, i1, s0, s1];
        let [c0, c1] = checksum::Sum::of(&packet).checksum().to_be_bytes();
        (packet[2], packet[3]) = (c0, c1);
        let to = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from(self.target).to_be() },
            sin_zero: [0; 8],
        };
        // SAFETY: packet and address live through the call, and the lengths are theirs.
        unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap_or(16),
            )
        };
    }

    /// Waits for the next answer; `None` if none came in time.
    pub fn receive(&self, time: Duration) -> Option<u16> {
        let mut packet = [0_u8; 128];
        if !wait_readable(self.socket.as_fd(), time).unwrap_or(false) {
            return None;
        }
        // SAFETY: the buffer lives through the call and has the length given.
        let length = unsafe {
            libc::recv(self.socket.as_raw_fd(), packet.as_mut_ptr().cast(), packet.len(), 0)
        };
        let packet = packet.get(..usize::try_from(length).ok()?)?;
        let (meta, message) = crate::wire::ip::parse_ipv4(packet).ok()?;
        match message {
            &[0, 0, _, _, i0, i1, s0, s1, ..]
                if u16::from_be_bytes([i0, i1]) == self.identifier
                    && meta.src == std::net::IpAddr::V4(self.target) =>
            {
                Some(u16::from_be_bytes([s0, s1]))
            }
            _ => None,
        }
    }
}
