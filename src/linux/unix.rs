//! Unix sockets as std cannot make them: with a mode from their first moment on, and connected
//! without waiting.

use std::fs::{File, Permissions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::sys;

/// Connections that may wait to be accepted.
const BACKLOG: libc::c_int = 64;

/// Listens at a path, with this mode: nobody can connect before it is right.
///
/// # Errors
/// Something of that name is there; what the file system says; out of descriptors.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let file = File::from(socket()?);
    // The kernel makes the path with the socket's own mode, less the umask: 0600 is left as it is.
    file.set_permissions(Permissions::from_mode(mode))?;
    listen_as(OwnedFd::from(file), path.as_os_str().as_bytes())
}

/// Listens at a name that is this network namespace's.
///
/// # Errors
/// EADDRINUSE; out of descriptors.
pub(super) fn listen_at_name(name: &[u8]) -> io::Result<UnixListener> {
    listen_as(socket()?, &[&[0], name].concat())
}

/// User and process that listen at such a name; 0 is a process of another process namespace.
///
/// # Errors
/// ECONNREFUSED: nobody does; EAGAIN: too many wait there already; out of descriptors.
pub(super) fn listener_at_name(name: &[u8]) -> io::Result<(u32, u32)> {
    let socket = socket()?;
    let (address, length) = address(&[&[0], name].concat())?;
    let fd = socket.as_raw_fd();
    // SAFETY: the address is initialised and as long as is said.
    sys::check(unsafe { libc::connect(fd, (&raw const address).cast(), length) })?;
    peer(socket.as_fd())
}

fn peer(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    let (fd, value) = (socket.as_raw_fd(), (&raw mut peer).cast());
    // SAFETY: the buffer is a live ucred, and its length is given.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, value, &raw mut length)
    };
    sys::check(result)?;
    Ok((peer.uid, u32::try_from(peer.pid).unwrap_or(0)))
}

fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers alone.
    sys::owned(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })
}

fn listen_as(socket: OwnedFd, name: &[u8]) -> io::Result<UnixListener> {
    let (address, length) = address(name)?;
    let fd = socket.as_raw_fd();
    // SAFETY: the address is initialised and as long as is said.
    sys::check(unsafe { libc::bind(fd, (&raw const address).cast(), length) })?;
    // SAFETY: takes numbers alone.
    sys::check(unsafe { libc::listen(fd, BACKLOG) })?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(false)?;
    Ok(listener)
}

/// A path, or a zero byte and a name.
fn address(name: &[u8]) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: a plain C structure of integers, for which all zeroes hold.
    let mut address: libc::sockaddr_un = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // One zero byte is left behind a path.
    if name.len() >= address.sun_path.len() {
        let most = address.sun_path.len() - 1;
        let why = format!("a socket's path has at most {most} bytes; choose a shorter run_dir");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    let length = std::mem::offset_of!(libc::sockaddr_un, sun_path) + name.len();
    Ok((address, length as libc::socklen_t))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_socket_has_its_mode_and_replaces_nothing() {
        let path = std::env::temp_dir().join(format!("havip-unix-{}", std::process::id()));
        let listener = listen(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(listen(&path, 0o600).is_err());
        drop(listener);
        fs::remove_file(&path).unwrap();
        let long = path.with_file_name("x".repeat(200));
        assert!(listen(&long, 0o600).unwrap_err().to_string().contains("shorter run_dir"));
    }
}
