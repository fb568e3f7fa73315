//! Who this node is to an etcd with users, and the token that says so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use etcd_client::AuthClient;
use hyper::header::HeaderValue;

use super::channel::within;
use super::endpoint::Endpoint;
use super::error::{Error, ErrorKind};
use super::files;
use crate::config::EtcdLogin;
use crate::linux::clock;
use crate::node::Instant;
use crate::offload::{self, Lane};

const LOGGING_IN: &str = "logging in";
/// Least time between two tokens: each costs the server a slow hash.
const INTERVAL: Duration = Duration::from_secs(1);
/// A token that says that it lives longer is not renewed before it is refused.
const LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The token that every request carries, also those of streams that open later.
#[derive(Clone, Default)]
pub(super) struct Token(Arc<Mutex<Option<HeaderValue>>>);

impl Token {
    pub(super) fn get(&self) -> Option<HeaderValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, token: Option<HeaderValue>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

/// A user on one connection.
pub(super) struct Login {
    user: EtcdLogin,
    endpoint: Endpoint,
    client: AuthClient,
    timeout: Duration,
    token: Token,
    /// Since when the token is there.
    since: Option<Instant>,
    /// When it is renewed before anybody refuses it: known of those that say when they end.
    pub(super) renew_at: Option<Instant>,
}

impl Login {
    pub(super) fn new(
        endpoint: &Endpoint,
        user: EtcdLogin,
        client: AuthClient,
        timeout: Duration,
        token: Token,
    ) -> Self {
        let endpoint = endpoint.clone();
        Self { user, endpoint, client, timeout, token, since: None, renew_at: None }
    }

    /// Whether the token is so new that another would not help.
    pub(super) fn is_fresh(&self) -> bool {
        self.since.is_some_and(|since| clock::now().since(since) < INTERVAL)
    }

    /// Gets a new token, with the password that the file has now. A server that has no users
    /// gets none.
    ///
    /// # Errors
    /// [`ErrorKind::WrongPassword`], [`ErrorKind::LocalFile`], or what calls give.
    pub(super) async fn renew(&mut self) -> Result<(), Error> {
        let wrong = |kind, why: &str| Error::new(&self.endpoint, LOGGING_IN, kind, why);
        let path = self.user.password_file.clone();
        let doing = format!("reading {}", path.display());
        let bytes = offload::run(Lane::Secrets, doing, move || files::read_secret(&path))
            .await
            .map_err(|error| error.to_string())
            .and_then(|bytes| bytes)
            .map_err(|why| wrong(ErrorKind::LocalFile, &why))?;
        let password = String::from_utf8(bytes)
            .map_err(|_| {
                let why = format!("{}: not UTF-8 text", self.user.password_file.display());
                wrong(ErrorKind::LocalFile, &why)
            })?
            // What an editor or echo puts at the end belongs to no password.
            .trim_end_matches(['\n', '\r'])
            .to_owned();
        // One that is refused would only be in the way.
        self.token.set(None);
        let call = self.client.authenticate(self.user.username.clone(), password);
        let answer = within(&self.endpoint, LOGGING_IN, self.timeout, call).await;
        self.since = Some(clock::now());
        self.renew_at = None;
        let token = match answer {
            Ok(answer) => answer.token().to_owned(),
            Err(error) if error.kind() == ErrorKind::AuthDisabled => return Ok(()),
            Err(error) => return Err(error),
        };
        self.renew_at = life(&token, clock::wall()).map(|life| clock::now() + life * 3 / 4);
        let mut value = HeaderValue::try_from(token).map_err(|_| {
            let why = "a token that no header can carry";
            Error::new(&self.endpoint, LOGGING_IN, ErrorKind::Protocol, why)
        })?;
        value.set_sensitive(true);
        self.token.set(Some(value));
        Ok(())
    }
}

/// How long a token lives from `now` (seconds since 1970) on, if it says so: a JWT does
/// (RFC 7519 section 4.1.4), etcd's simple tokens live on with each use.
fn life(token: &str, now: u64) -> Option<Duration> {
    let mut parts = token.split('.');
    let claims = parts.nth(1).filter(|_| parts.count() == 1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let left = Duration::from_secs(claims.get("exp")?.as_u64()?.checked_sub(now)?);
    // A clock that is wrong would make it nothing or ages: then a refusal tells.
    (left >= INTERVAL && left <= LIFE_MAX).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("aGVhZA.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_jwt_says_how_long_it_lives_and_anything_else_says_nothing() {
        let now = 1_700_000_000;
        let good = jwt("{\"exp\": 1700000300, \"username\": \"gw1\", \"revision\": 7}");
        assert_eq!(life(&good, now), Some(Duration::from_secs(300)));
        for token in [
            "ltBYIGFpHRXWbOTm.9",
            "",
            "..",
            "a.b.c",
            "a.b.c.d",
            &jwt("{}"),
            &jwt("{\"exp\": \"soon\"}"),
            &jwt("{\"exp\": -1}"),
            &jwt("{\"exp\": 1700000000}"),
            &jwt("{\"exp\": 1600000000}"),
            &jwt("{\"exp\": 1800000000}"),
        ] {
            assert_eq!(life(token, now), None, "{token}");
        }
    }
}
