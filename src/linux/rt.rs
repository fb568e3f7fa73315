//! What keeps the engine's thread on time: real-time priority and memory that is never paged out.

use std::io;

use super::sys;

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

/// Keeps every page of the process in memory once it has been touched, so that a thread that must
/// be on time never waits for a disk.
///
/// # Errors
/// EPERM or ENOMEM by RLIMIT_MEMLOCK; EINVAL before Linux 4.4.
pub fn lock_memory() -> io::Result<()> {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: takes flags alone.
    sys::check(unsafe { libc::mlockall(flags) }).map(drop)
}
