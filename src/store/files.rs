//! Files of this node's that say who it is: passwords, keys, certificates.

#[cfg(feature = "tls")]
use std::collections::BTreeSet;
#[cfg(feature = "tls")]
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::linux::file;

/// Largest such file, in bytes; the system's bundle of authorities has a quarter of it.
const FILE_MAX: u64 = 1024 * 1024;
/// Files of one folder that are looked at.
#[cfg(feature = "tls")]
const NAMES_MAX: usize = 10_000;
/// Permission bits of those who are neither the owner nor in the group.
const OTHERS: u32 = 0o007;
/// All permission bits.
const MODE: u32 = 0o7777;

/// Reads a file whose content is no secret.
///
/// # Errors
/// Why not, with the path.
#[cfg(feature = "tls")]
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let (_, bytes) = open(path)?;
    Ok(bytes)
}

/// Names of all that is in a folder.
///
/// # Errors
/// Why they cannot be had, with the path.
#[cfg(feature = "tls")]
pub(super) fn names(dir: &Path) -> Result<BTreeSet<OsString>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    let entries = std::fs::read_dir(dir).map_err(failed)?;
    entries.map(|entry| Ok(entry.map_err(failed)?.file_name())).take(NAMES_MAX).collect()
}

/// Reads a file that holds a secret, if only its owner and group may do that: whoever else can
/// read it can be this node.
///
/// # Errors
/// Why not, with the path, and the command that mends it.
pub(super) fn read_secret(path: &Path) -> Result<Vec<u8>, String> {
    let (mode, bytes) = open(path)?;
    if mode & OTHERS != 0 {
        let path = path.display();
        return Err(format!(
            "{path}: others may use it (mode {:04o}); type: chmod 600 {path}",
            mode & MODE
        ));
    }
    Ok(bytes)
}

/// Mode and content of one and the same file, whatever happens to its name meanwhile.
fn open(path: &Path) -> Result<(u32, Vec<u8>), String> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => format!("{}: there is no such file", path.display()),
        _ => format!("{}: {error}", path.display()),
    };
    let (metadata, bytes) = file::read(path, FILE_MAX).map_err(failed)?;
    Ok((metadata.mode(), bytes))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let name = format!("havip-secret-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, "hunter2\n").unwrap();
        for (mode, good) in [(0o600, true), (0o640, true), (0o644, false), (0o602, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let result = read_secret(&path);
            assert_eq!(result.is_ok(), good, "{mode:o}");
            #[cfg(feature = "tls")]
            assert!(read(&path).is_ok());
            if let Err(error) = result {
                assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
                assert!(!error.contains("hunter2"), "{error}");
            }
        }
        fs::remove_file(&path).unwrap();
        assert!(read_secret(&path).unwrap_err().contains("no such file"));
        assert!(read_secret(&std::env::temp_dir()).unwrap_err().contains("not a regular file"));
    }
}
