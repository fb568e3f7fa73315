//! The local file, read from disk.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::Problem;
pub use crate::config::sources::{Local, Sources};

/// Largest local file that is read, in bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// Why the local file is not used.
#[derive(Debug)]
pub enum LoadError {
    /// It is not there.
    Absent(PathBuf),
    /// It cannot be read.
    Unreadable(PathBuf, std::io::Error),
    /// What is wrong in it.
    Wrong(Vec<Problem>),
}

impl Local {
    /// Reads the local file.
    ///
    /// # Errors
    /// It is absent, cannot be read, or holds something that is wrong by itself, whatever node
    /// it is for.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let unreadable = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => LoadError::Absent(path.to_owned()),
            _ => LoadError::Unreadable(path.to_owned(), error),
        };
        let size = fs::metadata(path).map_err(unreadable)?.len();
        if size > FILE_MAX {
            let error = std::io::Error::other("larger than 16 MiB");
            return Err(LoadError::Unreadable(path.to_owned(), error));
        }
        let text = fs::read(path).map_err(unreadable)?;
        Self::parse(path, &text).map_err(LoadError::Wrong)
    }

    /// Reads it again. What did without the file goes on without it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_again(&self) -> Result<Self, LoadError> {
        match Self::load(&self.path) {
            Err(LoadError::Absent(path)) if !self.is_there => Ok(Self::absent(&path)),
            loaded => loaded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_did_without_the_file_goes_on_without_it() {
        let name = format!("havip-sources-{}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        let local = Local::absent(&path).load_again().unwrap();
        fs::write(&path, "[havip]\nnode = \"gw1\"\n").unwrap();
        let local = local.load_again().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(local.load_again(), Err(LoadError::Absent(_))));
    }
}
