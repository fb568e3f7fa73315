//! Files that this daemon reads and makes. Whoever may write in a folder of theirs can plant a FIFO,
//! a device or a link there: what is read is a regular file of bounded size, and what is made is
//! new, or this user's own.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

/// Reads a regular file of at most `max` bytes, by whatever links lead to it. Does not wait for
/// another process, but perhaps for the file system.
///
/// # Errors
/// What the file system says; that it is no regular file, or larger.
pub fn read(path: &Path, max: u64) -> io::Result<(Metadata, Vec<u8>)> {
    // Opening some devices does something: they are not opened at all.
    regular(&fs::metadata(path)?)?;
    // It may be another by now, and a FIFO without a writer would be waited for.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok((metadata, up_to(file, max)?))
}

/// Reads a regular file of this user's own, of at most `max` bytes.
///
/// # Errors
/// It is a link, or another user's; else as [`read`].
pub fn read_own(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    own(&file.metadata()?)?;
    up_to(file, max)
}

fn up_to(file: File, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("larger than {max} bytes")));
    }
    Ok(bytes)
}

/// Makes a file, with exactly this mode.
///
/// # Errors
/// There is something of that name, be it a link that leads nowhere; what the file system says.
pub fn create(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Makes a file with this content, and puts it in the place of what is there under that name.
///
/// # Errors
/// What the file system says; what was there is there still.
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    // Mostly there is none: what a crash left.
    let _ = fs::remove_file(new);
    let mut file = create(new, mode)?;
    let put = file.write_all(bytes).and_then(|()| fs::rename(new, path));
    if put.is_err() {
        let _ = fs::remove_file(new);
    }
    put.map(|()| file)
}

/// Opens a file of this user's own for reading and writing, which is made if it is not there, and
/// gives it this mode.
///
/// # Errors
/// It is a link, no regular file, or another user's; what the file system says.
pub fn open_own(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    own(&file.metadata()?)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

fn own(metadata: &Metadata) -> io::Result<()> {
    regular(metadata)?;
    let (owner, user) = (metadata.uid(), super::sys::user());
    if owner != user {
        return Err(refused(&format!("it belongs to user {owner}, not to {user}; remove it")));
    }
    // A second name may be that of a file which is something else.
    if metadata.nlink() != 1 {
        return Err(refused("it has another name, too (a hard link); remove it"));
    }
    Ok(())
}

fn refused(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(refused(&format!("it is {}, not a regular file", kind(metadata.file_type()))))
}

fn kind(file: FileType) -> &'static str {
    match file {
        _ if file.is_dir() => "a directory",
        _ if file.is_fifo() => "a FIFO",
        _ if file.is_socket() => "a socket",
        _ if file.is_char_device() || file.is_block_device() => "a device",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("havip-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        let folder = Folder::new("read");
        let (file, link) = (folder.file("file"), folder.file("link"));
        fs::write(&file, "12345").unwrap();
        symlink(&file, &link).unwrap();
        assert_eq!(read(&file, 5).unwrap().1, b"12345");
        assert_eq!(read(&link, 5).unwrap().1, b"12345");
        let why = |path: &Path| read(path, 4).unwrap_err().to_string();
        assert!(why(&file).contains("larger than 4 bytes"));
        let (fifo, socket) = (folder.file("fifo"), folder.file("socket"));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, kind) in [
            (folder.0.as_path(), "a directory"),
            (&fifo, "a FIFO"),
            (&socket, "a socket"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            assert!(why(path).contains(kind), "{}", why(path));
        }
    }

    #[test]
    fn what_is_made_follows_no_link_and_has_the_mode_that_was_asked_for() {
        let folder = Folder::new("made");
        let (target, link) = (folder.file("target"), folder.file("link"));
        symlink(&target, &link).unwrap();
        assert!(create(&link, 0o600).is_err());
        assert!(open_own(&link, 0o600).is_err());
        assert!(!target.exists());
        replace(&link, 0o644, b"mine").unwrap();
        assert!(!target.exists());
        let metadata = fs::symlink_metadata(&link).unwrap();
        assert_eq!((metadata.is_file(), metadata.mode() & 0o7777), (true, 0o644));
        drop(open_own(&link, 0o600).unwrap());
        assert_eq!(fs::metadata(&link).unwrap().mode() & 0o7777, 0o600);
        fs::hard_link(&link, folder.file("second")).unwrap();
        assert!(open_own(&link, 0o600).unwrap_err().to_string().contains("hard link"));
    }
}
