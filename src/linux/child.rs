//! Programs that must not outlive the one that started them.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// Has the kernel kill the program that `command` starts when the thread that starts it ends,
/// however it ends.
pub fn die_with_parent(command: &mut Command) {
    let before_exec = || {
        // SAFETY: prctl(2) with integers; async-signal-safe, as it must be between fork and exec.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one async-signal-safe call and allocates only after it failed.
    unsafe { command.pre_exec(before_exec) };
}

/// Sends SIGTERM to a program that was started and not waited for yet.
///
/// # Errors
/// ESRCH when it has ended, EPERM when it changed its user.
pub fn terminate(child: &Child) -> io::Result<()> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: kill(2) takes integers; the number is this child's until it is waited for.
    match unsafe { libc::kill(pid, libc::SIGTERM) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
