//! What the kernel lets this process do in its network namespace: found out by asking for it.

use std::io;

use super::netlink::Requests;
use super::sys;
use crate::config::Prefix;
use crate::node::kernel::{Errno, Op, Verb};
use crate::wire::{IfIndex, vrrp};

/// No interface has this index: what is asked of it has no effect.
const NO_LINK: IfIndex = IfIndex(0);

/// The capabilities that VRRP needs and the kernel refuses, by what it answers: in a user namespace
/// a process may seem to have what counts for nothing in its network namespace.
///
/// # Errors
/// Netlink does not work.
pub fn missing(requests: &mut Requests) -> io::Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    let prefix = Prefix::host(std::net::Ipv4Addr::LOCALHOST.into());
    let op = Op { index: NO_LINK, prefix, verb: Verb::Remove };
    if requests.apply(&[op])?.contains(&Err(Errno(libc::EPERM))) {
        missing.push("CAP_NET_ADMIN");
    }
    let protocol = libc::c_int::from(vrrp::PROTOCOL);
    let raw = sys::socket(libc::AF_INET, libc::SOCK_RAW, protocol);
    if raw.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)) {
        missing.push("CAP_NET_RAW");
    }
    Ok(missing)
}
