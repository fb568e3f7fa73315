//! Membership of the VRRP group: what a socket asked for, and what the kernel has.
//!
//! The two part when the kernel gives a family up on an interface (an MTU below 1280 ends IPv6
//! there): its list of groups goes, the socket's stays, and nothing that the socket sees tells. What
//! is left of the old membership must go before the new one comes, or its end would take that away.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::vrrp_socket::{GROUP_V4, GROUP_V6, step};
use super::{clock, sys};
use crate::node::Instant;
use crate::node::kernel::Port;
use crate::wire::Family;

/// EADDRNOTAVAIL: the socket is no member.
const NO_MEMBER: i32 = libc::EADDRNOTAVAIL;
/// For how long what the kernel listed counts: many sockets may be asked for at once, and the list
/// is as long as there are interfaces.
const FRESH: Duration = Duration::from_millis(20);

/// A receiving socket's membership.
#[derive(Clone, Debug)]
pub struct Membership {
    pub(super) port: Port,
    pub(super) socket: Arc<OwnedFd>,
}

impl Membership {
    /// Whose it is.
    #[must_use]
    pub const fn port(&self) -> Port {
        self.port
    }

    /// Leaves the group and joins it again: the kernel has it then, and routers and switches are
    /// told. Takes the kernel's RTNL lock.
    ///
    /// # Errors
    /// ENODEV when the interface is gone or has no such family; ENOBUFS.
    pub fn renew(&self) -> io::Result<()> {
        let fd = self.socket.as_fd();
        match change(fd, self.port, [libc::IP_DROP_MEMBERSHIP, libc::IPV6_DROP_MEMBERSHIP]) {
            Err(error) if error.raw_os_error() != Some(NO_MEMBER) => {
                Err(step("leaving the group")(error))
            }
            Ok(()) | Err(_) => join(fd, self.port),
        }
    }
}

/// Joins the group. Takes the kernel's RTNL lock.
pub(super) fn join(fd: BorrowedFd<'_>, port: Port) -> io::Result<()> {
    let what = match port.family {
        Family::V4 => "joining 224.0.0.18",
        Family::V6 => "joining ff02::12",
    };
    change(fd, port, [libc::IP_ADD_MEMBERSHIP, libc::IPV6_ADD_MEMBERSHIP]).map_err(step(what))
}

fn change(fd: BorrowedFd<'_>, port: Port, [v4, v6]: [libc::c_int; 2]) -> io::Result<()> {
    let index = sys::signed(port.index)?;
    match port.family {
        Family::V4 => {
            // struct ip_mreqn: group, local address, index.
            let mut request = [0; 12];
            request[..4].copy_from_slice(&GROUP_V4.octets());
            request[8..].copy_from_slice(&index.to_ne_bytes());
            sys::set_bytes(fd, libc::IPPROTO_IP, v4, &request)
        }
        Family::V6 => {
            // struct ipv6_mreq: group, index.
            let mut request = [0; 20];
            request[..16].copy_from_slice(&GROUP_V6.octets());
            request[16..].copy_from_slice(&index.to_ne_bytes());
            sys::set_bytes(fd, libc::IPPROTO_IPV6, v6, &request)
        }
    }
}

/// What the kernel has: /proc/net/igmp and /proc/net/igmp6 of the calling thread's network.
#[derive(Debug, Default)]
pub struct Groups {
    v4: Option<(Instant, String)>,
    v6: Option<(Instant, String)>,
}

impl Groups {
    /// Whether the kernel has the VRRP group on this interface. `true` where it does not say.
    pub fn has(&mut self, port: Port) -> bool {
        let (kept, path) = match port.family {
            Family::V4 => (&mut self.v4, "/proc/thread-self/net/igmp"),
            Family::V6 => (&mut self.v6, "/proc/thread-self/net/igmp6"),
        };
        let now = clock::now();
        let (_, text) = match kept.take_if(|(at, _)| now.since(*at) < FRESH) {
            Some(fresh) => kept.insert(fresh),
            None => match fs::read_to_string(path) {
                Ok(text) => kept.insert((now, text)),
                Err(_) => return true,
            },
        };
        match port.family {
            Family::V4 => has_v4(text, port.index.0),
            Family::V6 => has_v6(text, port.index.0),
        }
    }
}

/// An interface a line, that begins with its index; below it its groups, as hexadecimal numbers in
/// the machine's own order of bytes.
fn has_v4(text: &str, index: u32) -> bool {
    let group = format!("{:08X}", u32::from_ne_bytes(GROUP_V4.octets()));
    let mut is_here = false;
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        let first = words.next();
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            is_here = first.and_then(|number| number.parse().ok()) == Some(index);
        } else if is_here && first == Some(&group) {
            return true;
        }
    }
    false
}

/// A group a line: the interface's index, its name, the group in hexadecimal.
fn has_v6(text: &str, index: u32) -> bool {
    let group: String = GROUP_V6.octets().iter().map(|byte| format!("{byte:02x}")).collect();
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        let number = words.next().and_then(|number| number.parse().ok());
        number == Some(index) && words.nth(1) == Some(&group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_on_its_own_interface_alone() {
        let group = format!("{:08X}", u32::from_ne_bytes([224, 0, 0, 18]));
        let text = format!(
            "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
             1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
             2\teth0      :     2      V3\n\t\t\t\t{group}     1 0:00000000\t\t0\n\
             \t\t\t\t010000E0     1 0:00000000\t\t0\n\
             12\teth1      :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n"
        );
        assert_eq!([1, 2, 12, 3].map(|index| has_v4(&text, index)), [false, true, false, false]);
        let text = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n\
                    2    eth0            ff020000000000000000000000000012     1 00000004 0\n\
                    12   eth1            ff020000000000000000000000000001     1 00000008 0\n";
        assert_eq!([1, 2, 12, 3].map(|index| has_v6(text, index)), [false, true, false, false]);
        assert!(!has_v4("", 1) && !has_v6("", 1));
    }
}
