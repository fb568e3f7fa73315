//! The local file, read from disk.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::key::is_secret;
pub use crate::config::sources::{Local, Sources};
use crate::config::{Problem, Severity, TomlFile, Tree, settings, utf8};
use crate::linux::file;

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
        let (text, mode) = read(path)?;
        let mut local = Self::parse(path, &text).map_err(LoadError::Wrong)?;
        local.problems.extend(exposed(&local.tree, path, mode));
        Ok(local)
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

/// Where a daemon with this local file has its control socket, also if something else in the file
/// is wrong.
///
/// # Errors
/// As [`Local::load`], of what tells it.
pub fn run_dir_of(path: &Path) -> Result<PathBuf, LoadError> {
    let (text, _) = read(path)?;
    let file = TomlFile::Local(path.display().to_string().into());
    let read = utf8(&text, &file).and_then(|text| Tree::from_toml(text, &file));
    let (tree, _) = read.map_err(|problem| LoadError::Wrong(vec![problem]))?;
    let (settings, problems) = settings(&tree);
    let is_about_it = |problem: &Problem| problem.is_error() && problem.path == "havip/run_dir";
    let wrong: Vec<Problem> = problems.into_iter().filter(is_about_it).collect();
    if wrong.is_empty() { Ok(settings.run_dir) } else { Err(LoadError::Wrong(wrong)) }
}

/// A file's bytes, and who may read it.
fn read(path: &Path) -> Result<(Vec<u8>, u32), LoadError> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => LoadError::Absent(path.to_owned()),
        _ => LoadError::Unreadable(path.to_owned(), error),
    };
    let (metadata, bytes) = file::read(path, FILE_MAX).map_err(unreadable)?;
    Ok((bytes, metadata.mode()))
}

/// A password in a file that others than its owner may read.
fn exposed(tree: &Tree, path: &Path, mode: u32) -> Option<Problem> {
    let (at, entry) = tree.below("").find(|(path, _)| is_secret(path))?;
    (mode & 0o077 != 0).then(|| {
        let message = format!(
            "a password in a file that others may read (mode {:04o}); run: chmod 600 {}",
            mode & 0o7777,
            path.display()
        );
        Problem::at(Severity::Warning, at, &entry.origin, message)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_password_that_others_may_read_is_told_and_nothing_else_is() {
        let local = |text: &str| Local::parse(Path::new("h.toml"), text.as_bytes()).unwrap().tree;
        let secret = local("[virtual_router.51]\nauth_pass = \"geheim\"\n");
        for (tree, mode, told) in [
            (&secret, 0o100_644, true),
            (&secret, 0o100_640, true),
            (&secret, 0o100_604, true),
            (&secret, 0o100_600, false),
            (&local("[virtual_router.51]\npriority = 7\n"), 0o100_644, false),
        ] {
            let found = exposed(tree, Path::new("h.toml"), mode);
            assert_eq!(found.is_some(), told, "{mode:o}");
            let text = found.map(|problem| problem.to_string()).unwrap_or_default();
            let at = "h.toml:2: warning: virtual_router/51/auth_pass: a password in a file";
            assert!(
                !told || (text.starts_with(at) && text.ends_with("run: chmod 600 h.toml")),
                "{text}"
            );
            assert!(!text.contains("geheim"));
        }
    }

    #[test]
    fn a_wrong_file_still_says_where_its_daemon_is() {
        let name = format!("havip-run-dir-{}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, "[havip]\nrun_dir = \"/run/other\"\nnonsense = 1\n").unwrap();
        assert!(matches!(Local::load(&path), Err(LoadError::Wrong(_))));
        assert_eq!(run_dir_of(&path).unwrap(), Path::new("/run/other"));
        fs::write(&path, "[havip]\nrun_dir = 7\n").unwrap();
        assert!(matches!(run_dir_of(&path), Err(LoadError::Wrong(_))));
        fs::remove_file(&path).unwrap();
        assert!(matches!(run_dir_of(&path), Err(LoadError::Absent(_))));
    }

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
