//! One connection to one endpoint; the only place that dials.
//!
//! A connection is a client and a future that moves its bytes. Nothing is spawned: whoever holds
//! the connection polls [`Drive::run`] beside its own work, and dropping it closes the socket
//! with everything that was under way.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use hyper::client::conn::http2;
use hyper::http::uri::{Authority, PathAndQuery, Uri};
use hyper::rt::{Read, Write};
use hyper::{Request, Response};
use smol::future::or;
use smol::{Async, Executor, Timer};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use tonic::body::Body;
use tower::Service;
use tower::util::BoxCloneSyncService;

use super::endpoint::{Endpoint, Host, Scheme};
use super::error::{Error, ErrorKind};
use super::letters::Options;
use super::login::{Login, Token};
use crate::offload::{self, Lane};

/// Between http2 pings while a stream is open. Servers take less than 5 s for an attack.
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// How long a ping may stay without an answer.
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// Bytes of response headers and trailers: those of etcd are small.
const HEADERS_MAX: u32 = 64 * 1024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

const CONNECTING: &str = "connecting";

/// A client on a connection of its own, and what moves the connection's bytes.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) drive: Drive,
    /// Where a user is given.
    pub(super) login: Option<Login>,
}

/// What moves a connection's bytes.
pub(super) struct Drive {
    endpoint: Endpoint,
    executor: Arc<Executor<'static>>,
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

impl Drive {
    /// Moves bytes until the connection ends, and says why it did.
    pub(super) async fn run(&mut self) -> Error {
        match self.executor.run(&mut self.connection).await {
            Ok(()) => Error::new(&self.endpoint, CONNECTED, ErrorKind::Closed, "by the server"),
            Err(error) => Error::caused(&self.endpoint, CONNECTED, ErrorKind::Closed, error),
        }
    }
}

const CONNECTED: &str = "connection";

/// Dials one endpoint: name, TCP, TLS and the beginning of http2 within the dial's time, and the
/// login within that of a call. Without one, whether an etcd answers there shows at the first
/// call, as http2 does not wait for its peer.
pub(super) async fn connect(endpoint: &Endpoint, options: &Options) -> Result<Connection, Error> {
    let timeout = options.dial_timeout;
    let dial = async {
        let stream = tcp(endpoint, timeout).await?;
        match endpoint.scheme {
            Scheme::Http => handshake(endpoint, options, FuturesIo::new(stream)).await,
            #[cfg(feature = "tls")]
            Scheme::Https => {
                let stream = super::tls::wrap(endpoint, &options.tls, stream).await?;
                handshake(endpoint, options, FuturesIo::new(stream)).await
            }
            #[cfg(not(feature = "tls"))]
            Scheme::Https => Err(Error::new(endpoint, CONNECTING, ErrorKind::TlsMissing, "")),
        }
    };
    let mut connection = or(dial, async {
        Timer::after(timeout).await;
        Err(Error::timed_out(endpoint, CONNECTING, timeout))
    })
    .await?;
    let Connection { drive, login, .. } = &mut connection;
    if let Some(login) = login {
        or(async { Err(drive.run().await) }, login.renew()).await?;
    }
    Ok(connection)
}

async fn tcp(endpoint: &Endpoint, timeout: Duration) -> Result<Async<TcpStream>, Error> {
    let unreachable =
        |error: io::Error| Error::caused(endpoint, CONNECTING, ErrorKind::Unreachable, error);
    let mut addresses = match &endpoint.host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, endpoint.port)],
        Host::Name(name) => {
            let (doing, name, port) = (format!("resolving {name}"), name.clone(), endpoint.port);
            let resolve = move || (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
            offload::run(Lane::Names, doing, resolve)
                .await
                .and_then(|addresses| addresses)
                .map_err(unreachable)?
        }
    };
    addresses.truncate(ADDRESSES_MAX);
    // One that swallows everything must not cost the others their turn.
    let share = timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        let late = async {
            Timer::after(share).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        match or(Async::<TcpStream>::connect(address), late).await {
            Ok(stream) => {
                // Small requests that somebody waits for.
                stream.get_ref().set_nodelay(true).map_err(unreachable)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(unreachable(last))
}

async fn handshake<S>(
    endpoint: &Endpoint,
    options: &Options,
    stream: S,
) -> Result<Connection, Error>
where
    S: Read + Write + Send + Unpin + 'static,
{
    let protocol =
        |error: hyper::Error| Error::caused(endpoint, CONNECTING, ErrorKind::Protocol, error);
    let executor = Arc::new(Executor::new());
    let mut builder = http2::Builder::new(Spawn(Arc::downgrade(&executor)));
    builder
        .timer(SmolTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(false)
        .max_header_list_size(HEADERS_MAX);
    let (requests, connection) = executor.run(builder.handshake(stream)).await.map_err(protocol)?;
    let token = Token::default();
    let channel = Http2 {
        requests,
        token: token.clone(),
        // Letters, digits and brackets that `Endpoint` has checked.
        authority: Authority::try_from(endpoint.authority())
            .map_err(|error| Error::caused(endpoint, CONNECTING, ErrorKind::Protocol, error))?,
        scheme: endpoint.scheme,
    };
    let how = ConnectOptions::new().with_require_leader(true);
    // Speaks to nobody as long as there are no credentials.
    let client =
        Client::from_channel(Channel::Custom(BoxCloneSyncService::new(channel)), Some(how))
            .await
            .map_err(|error| Error::call(endpoint, CONNECTING, error))?;
    let drive = Drive { endpoint: endpoint.clone(), executor, connection: Box::pin(connection) };
    let login = options
        .login
        .clone()
        .map(|user| Login::new(endpoint, user, client.auth_client(), options.call_timeout, token));
    Ok(Connection { client, drive, login })
}

/// Where hyper puts what it wants to run: beside the connection, so that it ends with it.
#[derive(Clone)]
struct Spawn(Weak<Executor<'static>>);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        // Gone: the connection is being dropped, and this would be with it.
        if let Some(executor) = self.0.upgrade() {
            executor.spawn(future).detach();
        }
    }
}

/// An http2 connection as the client wants to see it.
#[derive(Clone)]
struct Http2 {
    requests: http2::SendRequest<Body>,
    token: Token,
    authority: Authority,
    scheme: Scheme,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Request<Body>> for Http2 {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.requests.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The client writes paths alone; http2 wants to know where to.
        let path = request.uri().path_and_query().cloned();
        let uri = Uri::builder()
            .scheme(match self.scheme {
                Scheme::Http => "http",
                Scheme::Https => "https",
            })
            .authority(self.authority.clone())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build();
        match uri {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return Box::pin(async move { Err(error.into()) }),
        }
        // Here, not in the client, which would keep the one that it began with.
        if let Some(token) = self.token.get() {
            request.headers_mut().insert("token", token);
        }
        let response = self.requests.send_request(request);
        Box::pin(async move { Ok(response.await?.map(Body::new)) })
    }
}

/// Waits for a call, but not longer than `timeout`.
pub(super) async fn within<T>(
    endpoint: &Endpoint,
    doing: &'static str,
    timeout: Duration,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Error> {
    or(async { call.await.map_err(|error| Error::call(endpoint, doing, error)) }, async {
        Timer::after(timeout).await;
        Err(Error::timed_out(endpoint, doing, timeout))
    })
    .await
}
