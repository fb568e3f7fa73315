//! The control socket: HTTP/1 over a Unix socket that only its owner may open.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use smol::channel::Sender;
use smol::{Async, Executor, Timer};
use smol_hyper::rt::FuturesIo;

use crate::linux::unix;
use crate::offload;

/// Clients at once: more than operators and collectors on one box.
const CLIENTS_MAX: usize = 32;
/// How long one may take for everything.
const CLIENT_TIME: Duration = Duration::from_secs(10);
/// Largest answer that a client reads, in bytes.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// What a client asks for.
#[derive(Debug)]
pub enum Ask {
    /// `GET /v1/status`
    Status(Sender<Vec<u8>>),
    /// `GET /v1/config`: every effective value with its origin.
    Config(Sender<Vec<u8>>),
    /// `POST /v1/confirm`: lets go what is held.
    Confirm(Sender<Vec<u8>>),
}

/// Makes the socket at `path`, in place of one that a dead daemon left; the caller holds the lock.
///
/// # Errors
/// What the file system says.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    unix::listen(path, 0o600)
}

/// Serves clients for ever.
///
/// # Errors
/// The listener broke.
pub async fn serve(
    executor: &'static Executor<'static>,
    listener: UnixListener,
    asks: Sender<Ask>,
) -> io::Result<()> {
    let listener = Async::new(listener)?;
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: it passes, and others must not starve of it.
                log::warn!("control socket: {error}");
                Timer::after(Duration::from_secs(1)).await;
                continue;
            }
        };
        if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
            clients.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (asks, clients) = (asks.clone(), Arc::clone(&clients));
        executor
            .spawn(async move {
                smol::future::or(client(stream, asks), async {
                    Timer::after(CLIENT_TIME).await;
                })
                .await;
                clients.fetch_sub(1, Ordering::Relaxed);
            })
            .detach();
    }
}

/// Accepts whoever connects to the socket that makes this daemon the owner of its network namespace,
/// for ever: it has nothing to say.
pub(super) async fn refuse(owner: UnixListener) {
    let Ok(owner) = Async::new(owner) else { return };
    loop {
        drop(owner.accept().await);
        // Any user may connect.
        Timer::after(Duration::from_millis(10)).await;
    }
}

/// Serves one client: one question, one answer.
pub async fn client(stream: Async<UnixStream>, asks: Sender<Ask>) {
    let service = service_fn(|request| answer(request, asks.clone()));
    let connection =
        http1::Builder::new().keep_alive(false).serve_connection(FuturesIo::new(stream), service);
    // A client that breaks off is its own matter.
    let _ = connection.await;
}

async fn answer(
    request: Request<Incoming>,
    asks: Sender<Ask>,
) -> Result<Response<String>, Infallible> {
    let (reply, replies) = smol::channel::bounded(1);
    let ask = match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/status") => Ask::Status(reply),
        (&Method::GET, "/v1/config") => Ask::Config(reply),
        (&Method::POST, "/v1/confirm") => Ask::Confirm(reply),
        (_, "/v1/status" | "/v1/config" | "/v1/confirm") => {
            return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n"));
        }
        _ => return Ok(text(StatusCode::NOT_FOUND, "no such resource\n")),
    };
    let body = match asks.send(ask).await {
        Ok(()) => replies.recv().await.ok().and_then(|body| String::from_utf8(body).ok()),
        Err(_) => None,
    };
    Ok(match body {
        Some(body) => {
            let mut response = text(StatusCode::OK, &body);
            let json = hyper::header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
            response
        }
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping\n"),
    })
}

fn text(status: StatusCode, body: &str) -> Response<String> {
    let mut response = Response::new(body.to_owned());
    *response.status_mut() = status;
    response
}

/// Asks the daemon behind the socket at `path` for a resource, and gives the body of its answer.
///
/// # Errors
/// Nobody listens there, access is denied, or the answer is not 200.
pub fn get(path: &Path, resource: &str) -> io::Result<Vec<u8>> {
    ask(path, Method::GET, resource)
}

/// Tells it to do what a resource stands for.
///
/// # Errors
/// As [`get`].
pub fn post(path: &Path, resource: &str) -> io::Result<Vec<u8>> {
    ask(path, Method::POST, resource)
}

fn ask(path: &Path, method: Method, resource: &str) -> io::Result<Vec<u8>> {
    offload::reactor()?;
    smol::block_on(smol::future::or(fetch(path, method, resource), async {
        Timer::after(CLIENT_TIME).await;
        Err(io::Error::new(io::ErrorKind::TimedOut, "the daemon does not answer"))
    }))
}

async fn fetch(path: &Path, method: Method, resource: &str) -> io::Result<Vec<u8>> {
    let stream = Async::new(UnixStream::connect(path)?)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, String>(FuturesIo::new(stream))
            .await
            .map_err(io::Error::other)?;
    let request = Request::builder()
        .method(method)
        .uri(resource)
        .header(hyper::header::HOST, "havip")
        .body(String::new())
        .map_err(io::Error::other)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) =
            std::future::poll_fn(|context| std::pin::Pin::new(&mut incoming).poll_frame(context))
                .await
        {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                body.extend_from_slice(&data);
            }
            if body.len() > ANSWER_MAX {
                return Err(io::Error::other("the answer is larger than 64 MiB"));
            }
        }
        if status == StatusCode::OK {
            Ok(body)
        } else {
            let text = String::from_utf8_lossy(&body).trim().to_owned();
            Err(io::Error::other(format!("{status}: {text}")))
        }
    };
    let drive = async {
        let _ = connection.await;
        std::future::pending().await
    };
    smol::future::or(exchange, drive).await
}
