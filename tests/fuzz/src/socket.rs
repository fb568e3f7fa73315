//! Any bytes from a client of the control socket: it is answered in HTTP or not at all, and no
//! more is asked of the daemon than there are resources.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use havip::daemon::socket::{Ask, client};
use smol::Async;

/// Takes any bytes.
pub(crate) fn run(data: &[u8]) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    // Less than a socket holds, so that nobody waits.
    ours.write_all(data.get(..16 * 1024).unwrap_or(data)).unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    let (asks, questions) = smol::channel::bounded(4);
    let daemon = async {
        let mut asked = 0;
        while let Ok(ask) = questions.recv().await {
            asked += 1;
            let (Ask::Status(reply) | Ask::Config(reply) | Ask::Confirm(reply)) = ask;
            let _ = reply.try_send(b"{}".to_vec());
        }
        asked
    };
    let asked: u32 = smol::block_on(async {
        let served = async {
            client(Async::new(theirs).unwrap(), asks).await;
        };
        smol::future::zip(served, daemon).await.1
    });
    assert!(asked <= 1, "one question, one answer");
    let mut answer = Vec::new();
    ours.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
}
