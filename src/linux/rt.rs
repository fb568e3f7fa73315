//! What keeps the engine's thread on time: real-time priority and memory that is never paged out.

use std::io;
use std::ptr;
use std::time::Duration;

use super::{clock, sys};

/// Gives the calling thread SCHED_RR with `priority` (1 to 99). Threads and programs that it starts
/// have the normal priority again (SCHED_RESET_ON_FORK).
///
/// # Errors
/// EPERM without CAP_SYS_NICE or in a user namespace; EINVAL outside 1 to 99.
pub fn realtime(priority: u8) -> io::Result<()> {
    let priority = libc::c_int::from(priority);
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // The system call itself: musl's sched_setscheduler only gives ENOSYS. The kernel's sched_param
    // is one int.
    // SAFETY: the pointer is to a live int; 0 is the calling thread.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the process once `time` has passed, if it has not ended by then, whatever its other threads
/// wait for; as one that did what it should, or not.
pub fn end_after(time: Duration, is_right: bool) -> ! {
    let end = clock::now() + time;
    while clock::now() < end {
        std::thread::park_timeout(end.since(clock::now()));
    }
    // SAFETY: takes a number; no destructor runs, and none is needed.
    unsafe { libc::_exit(i32::from(!is_right)) }
}

/// Keeps every page of the process in memory once it has been touched, so that a thread that must
/// be on time never waits for a disk. Only where all that the process may ever need can be locked:
/// a limit would leave no room for later stacks and allocations, and end the process.
///
/// # Errors
/// Why it is not, with the way out; EINVAL before Linux 4.4.
pub fn lock_memory() -> io::Result<()> {
    let limit = memory_limit()?;
    // A limit of half of all addresses is none.
    let is_none = limit == libc::RLIM_INFINITY || usize::try_from(limit).is_err();
    if !is_none && !is_exempt(limit)? {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "RLIMIT_MEMLOCK is {} KiB and CAP_IPC_LOCK is missing; give it that capability, \
                 or set the limit to unlimited (LimitMEMLOCK=infinity, ulimit -l unlimited)",
                limit / 1024
            ),
        ));
    }
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: takes flags alone.
    sys::check(unsafe { libc::mlockall(flags) }).map(drop)
}

fn memory_limit() -> io::Result<libc::rlim_t> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live structure.
    sys::check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) })?;
    Ok(limit.rlim_cur)
}

/// Descriptors that this process may have open at a time.
///
/// # Errors
/// None that Linux is known to give.
pub fn descriptor_limit() -> io::Result<u64> {
    descriptor_limits().map(|limit| limit.rlim_cur)
}

/// Allows this process as many descriptors as it may allow itself: what limits them by default is
/// there for programs that use select(2).
///
/// # Errors
/// None that Linux is known to give.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = descriptor_limits()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live structure.
    sys::check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

fn descriptor_limits() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live structure.
    sys::check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok(limit)
}

/// Whether this process may lock more than `limit` bytes. Asked by doing so: a capability that is
/// held in a user namespace looks the same as one that counts.
fn is_exempt(limit: libc::rlim_t) -> io::Result<bool> {
    /// Larger than a page anywhere.
    const MORE: usize = 1 << 20;
    /// MLOCK_ONFAULT (asm-generic/mman-common.h).
    const ONFAULT: libc::c_int = 1;
    let size = usize::try_from(limit).unwrap_or(usize::MAX / 4).saturating_add(MORE);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, where the kernel likes; nobody may touch it.
    let start = unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // Locks no page, as none is touched.
    // SAFETY: the mapping of this size from above.
    let locked = unsafe { libc::syscall(libc::SYS_mlock2, start, size, ONFAULT) };
    // SAFETY: the mapping from above, of which nobody knows.
    sys::check(unsafe { libc::munmap(start, size) })?;
    Ok(locked == 0)
}
