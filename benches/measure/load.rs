//! Work for all processors and the disk, beside what is measured.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use havip::linux::die_with_parent;

/// Programs that keep the machine busy until they are dropped.
pub(crate) struct Load {
    children: Vec<Child>,
    files: Vec<PathBuf>,
}

impl Load {
    /// Two busy programs a processor, and two that write to the disk and wait for it.
    pub(crate) fn start() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target");
        let files: Vec<PathBuf> = (0..2)
            .map(|number| folder.join(format!("load-{}-{number}", std::process::id())))
            .collect();
        let busy = std::iter::repeat_n("while :; do :; done".to_owned(), 2 * processors);
        let writing = files.iter().map(|file| {
            let file = file.display();
            format!("while dd if=/dev/zero of={file} bs=1M count=64 conv=fsync; do :; done")
        });
        let children = busy.chain(writing).map(|script| {
            let mut program = Command::new("sh");
            program.arg("-c").arg(script);
            program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            die_with_parent(&mut program);
            program.spawn().expect("sh is there")
        });
        Self { children: children.collect(), files }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}
