//! What can go wrong with etcd, named, with the way out.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};

use super::endpoint::{Endpoint, Scheme};
use crate::config::shown::whole;

/// Characters of a server's own words that are shown.
const DETAIL_MAX: usize = 300;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server has no users, and got one.
    AuthDisabled,
    /// The server wants a user and got none.
    AuthRequired,
    /// The server's certificate is another's.
    CertificateName,
    /// The server's certificate is over, or is not valid yet.
    CertificateTime,
    /// Nobody who is trusted signed the server's certificate.
    CertificateUntrusted,
    /// The server does not take this node's certificate, or wants one.
    ClientCertificate,
    /// The server's database is full (alarm NOSPACE): it reads and does not write.
    NoSpace,
    /// The connection ended.
    Closed,
    /// The revision that was asked for is compacted.
    Compacted,
    /// A condition of a transaction did not hold; nothing was written.
    GuardFailed,
    /// TLS did not come about.
    Handshake,
    /// The lease ended.
    LeaseGone,
    /// A file of this node's cannot be used: a password, a key, a certificate.
    LocalFile,
    /// A cluster without a leader, or a request that it could not bring to an end.
    NoLeader,
    /// The user may not do this.
    PermissionDenied,
    /// It spoke something else than etcd does.
    Protocol,
    /// An answer in time did not come.
    TimedOut,
    /// The token is not valid any more.
    TokenInvalid,
    /// An answer that is larger than anything of havip's.
    TooLarge,
    /// A transaction with more operations than the server takes.
    TooManyOperations,
    /// The endpoint wants TLS, which this build does not have.
    TlsMissing,
    /// No connection could be made.
    Unreachable,
    /// The server ended a watch.
    WatchCanceled,
    /// The user or the password is wrong.
    WrongPassword,
}

impl ErrorKind {
    /// Whether it is about the connection or the whole session, not about one request's content.
    pub(super) const fn ends_session(self) -> bool {
        matches!(
            self,
            Self::AuthDisabled
                | Self::AuthRequired
                | Self::CertificateName
                | Self::CertificateTime
                | Self::CertificateUntrusted
                | Self::ClientCertificate
                | Self::Closed
                | Self::Handshake
                | Self::LocalFile
                | Self::NoLeader
                | Self::TimedOut
                | Self::TlsMissing
                | Self::TokenInvalid
                | Self::Unreachable
                | Self::WrongPassword
        )
    }

    /// Whether logging in again may help.
    pub(super) const fn wants_login(self) -> bool {
        matches!(self, Self::AuthDisabled | Self::AuthRequired | Self::TokenInvalid)
    }

    /// What it is called, and what to do about it.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::AuthDisabled => ("authentication is off", ""),
            Self::AuthRequired => (
                "authentication required",
                "set [etcd] username and password_file, or cert and key of a user",
            ),
            Self::CertificateName => (
                "the server's certificate is another's",
                "use a name or address that is in it, or set [etcd] server_name to one",
            ),
            Self::CertificateTime => (
                "the server's certificate is not valid now",
                "look at this box's clock, then at the certificate's dates",
            ),
            Self::CertificateUntrusted => (
                "the server's certificate is not trusted",
                "set [etcd] ca to the file of the authority that signed it",
            ),
            Self::ClientCertificate => (
                "the server does not take this node's certificate",
                "set [etcd] cert and key to one that its authority signed for clients",
            ),
            Self::NoSpace => ("database full", "compact, defragment and disarm the alarm"),
            Self::Closed => ("connection lost", ""),
            Self::Compacted => ("revision compacted", ""),
            Self::GuardFailed => ("nothing written", "read again and repeat"),
            Self::Handshake => (
                "no TLS",
                "if the server speaks plain http, write http://; a certificate of --auto-tls can \
                 only be used with [etcd] insecure_skip_verify",
            ),
            Self::LeaseGone => ("lease gone", ""),
            Self::LocalFile => ("a file cannot be used", ""),
            Self::NoLeader => ("no leader", "look after the cluster's quorum"),
            Self::PermissionDenied => {
                ("permission denied", "grant the user read on the prefix, and write on its outputs")
            }
            Self::Protocol => ("not understood", ""),
            Self::TimedOut => ("no answer", ""),
            Self::TokenInvalid => ("token not valid any more", ""),
            Self::TooLarge => ("too large", ""),
            Self::TooManyOperations => (
                "too many keys for one transaction",
                "raise --max-txn-ops of the servers (default 128), or write in parts",
            ),
            Self::TlsMissing => ("this havip was built without TLS", "take one that has it"),
            Self::Unreachable => ("unreachable", ""),
            Self::WatchCanceled => ("watch ended by the server", ""),
            Self::WrongPassword => (
                "wrong user or password",
                "correct [etcd] username or the password file; tried once in 30 to 60 s",
            ),
        }
    }
}

/// What went wrong at which endpoint, while doing what.
#[derive(Debug)]
pub struct Error {
    endpoint: Option<Endpoint>,
    doing: &'static str,
    kind: ErrorKind,
    detail: String,
    cause: Option<Box<dyn StdError + Send + Sync>>,
    /// What to do about it, where that is not the same as for a daemon.
    way_out: Option<Box<str>>,
}

impl Error {
    pub(super) fn new(
        endpoint: &Endpoint,
        doing: &'static str,
        kind: ErrorKind,
        detail: &str,
    ) -> Self {
        Self {
            endpoint: Some(endpoint.clone()),
            doing,
            kind,
            detail: shown(detail),
            cause: None,
            way_out: None,
        }
    }

    pub(super) fn caused(
        endpoint: &Endpoint,
        doing: &'static str,
        kind: ErrorKind,
        cause: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let cause = cause.into();
        let detail = shown(&chain(cause.as_ref()));
        let kind = if is_refused(&detail) { ErrorKind::ClientCertificate } else { kind };
        Self {
            endpoint: Some(endpoint.clone()),
            doing,
            kind,
            detail,
            cause: Some(cause),
            way_out: None,
        }
    }

    /// There is nothing to connect to.
    pub(super) fn nowhere() -> Self {
        Self {
            endpoint: None,
            doing: "connecting",
            kind: ErrorKind::Unreachable,
            detail: "no endpoint is given".to_owned(),
            cause: None,
            way_out: None,
        }
    }

    pub(super) fn timed_out(endpoint: &Endpoint, doing: &'static str, after: Duration) -> Self {
        let detail = format!("within {:.1} s", after.as_secs_f64());
        Self::new(endpoint, doing, ErrorKind::TimedOut, &detail)
    }

    /// From what a call of the client's gave.
    pub(super) fn call(
        endpoint: &Endpoint,
        doing: &'static str,
        error: etcd_client::Error,
    ) -> Self {
        let kind = match &error {
            etcd_client::Error::GRpcStatus(status) => classify(status),
            etcd_client::Error::IoError(_) | etcd_client::Error::TransportError(_) => {
                ErrorKind::Closed
            }
            etcd_client::Error::LeaseKeepAliveError(_) => ErrorKind::LeaseGone,
            // The request side of a watch's stream: its task is gone.
            etcd_client::Error::WatchError(_) => ErrorKind::Closed,
            _ => ErrorKind::Protocol,
        };
        let detail = shown(&match &error {
            etcd_client::Error::GRpcStatus(status) => words(status),
            other => chain(other),
        });
        let kind = if is_refused(&detail) { ErrorKind::ClientCertificate } else { kind };
        Self {
            endpoint: Some(endpoint.clone()),
            doing,
            kind,
            detail,
            cause: Some(error.into()),
            way_out: None,
        }
    }

    /// The same of a connection on which the server never said anything.
    pub(super) fn unheard(mut self) -> Self {
        let plain = self.endpoint.as_ref().is_some_and(|to| to.scheme == Scheme::Http);
        if plain && self.kind == ErrorKind::Closed {
            self.detail.push_str("; if the server speaks TLS, write https://");
        }
        self
    }

    /// The same with another way out.
    #[must_use]
    pub fn with_way_out(mut self, way_out: String) -> Self {
        self.way_out = Some(way_out.into());
        self
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Where; `None` if there was nowhere to go.
    #[must_use]
    pub const fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, way_out) = self.kind.words();
        let way_out = self.way_out.as_deref().unwrap_or(way_out);
        match &self.endpoint {
            Some(endpoint) => write!(f, "{endpoint}: {}: {what}", self.doing)?,
            None => write!(f, "etcd: {}: {what}", self.doing)?,
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if !way_out.is_empty() {
            write!(f, "; {way_out}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.cause.as_deref()?)
    }
}

/// Whether a server broke off because of this node's certificate. It does so when the connection
/// stands already (RFC 8446 section 4.4.2.4), and http2 keeps of it no more than its words.
fn is_refused(detail: &str) -> bool {
    const ALERTS: [&str; 8] = [
        "AccessDenied",
        "BadCertificate",
        "CertificateExpired",
        "CertificateRequired",
        "CertificateRevoked",
        "CertificateUnknown",
        "UnknownCA",
        "UnsupportedCertificate",
    ];
    let alert = detail.split_once("received fatal alert: ").map(|(_, alert)| alert);
    alert.is_some_and(|alert| ALERTS.iter().any(|name| alert.starts_with(name)))
}

/// What a status says. Text decides only where versions of etcd differ in the code.
fn classify(status: &Status) -> ErrorKind {
    let text = status.message();
    let has = |part: &str| text.contains(part);
    match status.code() {
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::Unauthenticated => ErrorKind::TokenInvalid,
        _ if has("invalid auth token") || has("revision of auth store is old") => {
            ErrorKind::TokenInvalid
        }
        _ if has("user name is empty") => ErrorKind::AuthRequired,
        _ if has("authentication is not enabled") => ErrorKind::AuthDisabled,
        _ if has("authentication failed") => ErrorKind::WrongPassword,
        _ if has("requested lease not found") => ErrorKind::LeaseGone,
        _ if has("too many operations") => ErrorKind::TooManyOperations,
        _ if has("request is too large") => ErrorKind::TooLarge,
        _ if has("has been compacted") => ErrorKind::Compacted,
        _ if has("database space exceeded") => ErrorKind::NoSpace,
        // The client's own bound of a message.
        Code::OutOfRange if has("message length too large") => ErrorKind::TooLarge,
        _ if has("no leader") || has("request timed out") || has("leader changed") => {
            ErrorKind::NoLeader
        }
        Code::Unavailable | Code::Cancelled => ErrorKind::Closed,
        Code::DeadlineExceeded => ErrorKind::TimedOut,
        // A transport's failure arrives as Unknown with the failure below it.
        _ if StdError::source(status).is_some() => ErrorKind::Closed,
        _ => ErrorKind::Protocol,
    }
}

/// The same for the reason that a watch's end carries.
pub(super) fn canceled(reason: &str) -> ErrorKind {
    let has = |part: &str| reason.contains(part);
    if has("PermissionDenied") || has("permission denied") {
        ErrorKind::PermissionDenied
    } else if has("no leader") {
        ErrorKind::NoLeader
    } else if has("invalid auth token") || has("revision of auth store is old") {
        ErrorKind::TokenInvalid
    } else if has("user name is empty") {
        ErrorKind::AuthRequired
    } else {
        ErrorKind::WatchCanceled
    }
}

fn words(status: &Status) -> String {
    // Its own text says the code too.
    with_causes(status.message().to_owned(), status)
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    with_causes(error.to_string(), error)
}

/// A text with all that is below the error, each said once.
fn with_causes(mut text: String, error: &(dyn StdError + 'static)) -> String {
    let mut below = error.source();
    for _ in 0..8 {
        let Some(error) = below else { break };
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        below = error.source();
    }
    text
}

/// Words of others, cut, with what would break a line of the log as escapes.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(DETAIL_MAX).collect();
    whole(&cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say_is_named() {
        for (code, text, kind) in [
            (Code::PermissionDenied, "etcdserver: permission denied", ErrorKind::PermissionDenied),
            (Code::Unauthenticated, "etcdserver: invalid auth token", ErrorKind::TokenInvalid),
            (Code::Unknown, "etcdserver: invalid auth token", ErrorKind::TokenInvalid),
            (
                Code::InvalidArgument,
                "etcdserver: revision of auth store is old",
                ErrorKind::TokenInvalid,
            ),
            (Code::InvalidArgument, "etcdserver: user name is empty", ErrorKind::AuthRequired),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                ErrorKind::WrongPassword,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
                ErrorKind::TooManyOperations,
            ),
            (Code::InvalidArgument, "etcdserver: request is too large", ErrorKind::TooLarge),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                ErrorKind::Compacted,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                ErrorKind::NoSpace,
            ),
            (Code::Unavailable, "etcdserver: no leader", ErrorKind::NoLeader),
            (Code::Unavailable, "etcdserver: request timed out", ErrorKind::NoLeader),
            (Code::Unavailable, "transport is closing", ErrorKind::Closed),
            (Code::Internal, "what?", ErrorKind::Protocol),
        ] {
            assert_eq!(classify(&Status::new(code, text)), kind, "{text}");
        }
    }

    #[test]
    fn a_refused_certificate_is_named_whoever_hears_of_it_first() {
        let endpoint = Endpoint::parse("https://h", Scheme::Http).unwrap();
        for text in ["UnknownCA", "BadCertificate", "CertificateRequired"] {
            let alert = std::io::Error::other(format!("received fatal alert: {text}"));
            let mut status = Status::unknown("connection error");
            status.set_source(std::sync::Arc::new(alert));
            let error = etcd_client::Error::GRpcStatus(status);
            let error = Error::call(&endpoint, "listing", error);
            assert_eq!(error.kind(), ErrorKind::ClientCertificate, "{error}");
            let alert = std::io::Error::other(format!("received fatal alert: {text}"));
            let error = Error::caused(&endpoint, "connection", ErrorKind::Closed, alert);
            assert_eq!(error.kind(), ErrorKind::ClientCertificate, "{error}");
        }
    }

    #[test]
    fn a_message_names_endpoint_deed_failure_and_way_out() {
        let endpoint = Endpoint::parse("10.0.0.1", Scheme::Http).unwrap();
        let status = Status::new(Code::PermissionDenied, "etcdserver: permission denied");
        let error = Error::call(&endpoint, "listing", etcd_client::Error::GRpcStatus(status));
        let text = error.to_string();
        assert!(text.starts_with("http://10.0.0.1:2379: listing: permission denied"), "{text}");
        assert!(text.contains("grant the user"), "{text}");
        assert!(error.source().is_some());
    }

    #[test]
    fn a_server_cannot_break_or_flood_the_log() {
        let endpoint = Endpoint::parse("h", Scheme::Http).unwrap();
        let detail = format!("a\nb\u{1b}[31m{}", "x".repeat(10_000));
        let text = Error::new(&endpoint, "listing", ErrorKind::Protocol, &detail).to_string();
        assert!(text.len() < 500 && !text.contains(['\n', '\u{1b}']), "{text}");
    }
}
