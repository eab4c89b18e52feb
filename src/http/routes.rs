//! Paths and answers, and what every answer says to browsers.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::get;

use super::face::Face;
use super::{metrics, page};

/// Whom a browser may have been told that we are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guests {
    /// Only programs of this machine reach us, so that other names were made to lead here by somebody else.
    only_loopback: bool,
}

impl Guests {
    pub(super) fn of(listening: SocketAddr) -> Self {
        Self { only_loopback: listening.ip().is_loopback() }
    }

    /// Whether `host`, as a request names it, may be us.
    fn may_call(self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(inner) => inner.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let is_loopback = name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        !self.only_loopback || is_loopback || name.eq_ignore_ascii_case("localhost")
    }
}

/// Everything that is answered: GET and HEAD of these paths.
pub(super) fn router(face: Arc<Face>, guests: Guests) -> Router {
    Router::new()
        .route("/", get(|| async { page::html() }))
        .route("/page.css", get(|| async { page::style() }))
        .route("/page.js", get(|| async { page::script() }))
        .route("/metrics", get(show_metrics))
        .route("/status", get(show_status))
        .route("/healthz", get(show_health))
        .route("/readyz", get(show_readiness))
        .fallback(|| async { plain(StatusCode::NOT_FOUND, "there is /, /status, /metrics, /healthz and /readyz") })
        .with_state(face)
        .layer(from_fn_with_state(guests, guard))
}

/// What browsers must keep to: nothing from outside, nowhere to send anything, in no frame.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Refuses requests that were meant for another name, and gives every answer its headers.
async fn guard(State(guests): State<Guests>, request: Request, next: Next) -> Response<Body> {
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default().to_owned());
    let mut answer = match host {
        Some(host) if !guests.may_call(&host) => {
            plain(StatusCode::MISDIRECTED_REQUEST, "this name is not one of this machine's; ask 127.0.0.1 or localhost")
        }
        // Programs without a browser may leave it out.
        _ => next.run(request).await,
    };
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

async fn show_metrics(State(face): State<Arc<Face>>) -> Response<Body> {
    let shown = face.shown().await.ok();
    match metrics::text(shown.as_ref(), face.not_ready().is_none()) {
        Ok(text) => answer(StatusCode::OK, metrics::CONTENT_TYPE, text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn show_status(State(face): State<Arc<Face>>) -> Response<Body> {
    let json = match face.shown().await {
        Ok(shown) => serde_json::to_string(&shown).map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    match json {
        Ok(json) => answer(StatusCode::OK, "application/json", json),
        Err(error) => {
            let json = serde_json::json!({ "error": error, "service": face.service() });
            answer(StatusCode::SERVICE_UNAVAILABLE, "application/json", json.to_string())
        }
    }
}

async fn show_health(State(face): State<Arc<Face>>) -> Response<Body> {
    said(face.ails())
}

async fn show_readiness(State(face): State<Arc<Face>>) -> Response<Body> {
    said(face.not_ready())
}

fn said(trouble: Option<String>) -> Response<Body> {
    match trouble {
        None => plain(StatusCode::OK, "ok"),
        Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// An answer that is whole before any of it is sent.
pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_loopback_only_loopback_s_names_are_answered() {
        let here = Guests::of("127.0.0.1:9187".parse().unwrap());
        for host in ["localhost:9187", "LOCALHOST", "127.0.0.1:9187", "127.0.0.1", "[::1]:9187", "127.8.8.8"] {
            assert!(here.may_call(host), "{host}");
        }
        for host in
            ["evil.example:9187", "evil.example", "localhost.evil.example", "10.0.0.1:9187", "[fe80::1]:9187", ""]
        {
            assert!(!here.may_call(host), "{host}");
        }
        assert!(Guests::of("0.0.0.0:9187".parse().unwrap()).may_call("weir.example:9187"));
    }
}
