//! The listening socket, and what connections may cost: so many at once, so long, so large a head.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::face::Face;
use super::routes::{Guests, router};
use crate::config::HTTP_OFF;
use crate::error::Error;
use crate::figures::counters;
use crate::limits::{HTTP_BIND_RETRY, HTTP_CONNECTION_MAX, HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_MAX};

/// An address to listen on.
pub(super) enum Bound {
    Here(TcpListener),
    /// Another process has it.
    Taken(SocketAddr),
}

/// Begins to listen on `address`; none if that says to serve nothing.
///
/// # Errors
/// Of kind [`crate::error::Kind::Config`] if this process can never listen there.
pub(super) async fn bind(address: &str) -> Result<Option<Bound>, Error> {
    if address == HTTP_OFF {
        return Ok(None);
    }
    let wrong = |what: String| {
        Error::config(what)
            .at(format!("[http] listen = \"{address}\""))
            .way_out("name an address of this machine and a port above 1023, port 0 for any that is free, or \"off\"")
    };
    let mut addresses = tokio::net::lookup_host(address)
        .await
        .map_err(|error| wrong(format!("the address to listen on is not known: {error}")))?;
    let first = addresses.next().ok_or_else(|| wrong("the address to listen on is not known".into()))?;
    match TcpListener::bind(first).await {
        Ok(listener) => Ok(Some(Bound::Here(listener))),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            tracing::warn!(
                address = %first,
                "another process listens there, so nothing is served over HTTP until it ends; [http] listen names another \
                 address, port 0 any that is free"
            );
            Ok(Some(Bound::Taken(first)))
        }
        Err(error) => Err(wrong(format!("{first} cannot be listened on: {error}"))),
    }
}

impl Bound {
    /// Waits until the address is ours.
    pub(super) async fn listener(self) -> TcpListener {
        let address = match self {
            Self::Here(listener) => return listener,
            Self::Taken(address) => address,
        };
        loop {
            tokio::time::sleep(HTTP_BIND_RETRY).await;
            if let Ok(listener) = TcpListener::bind(address).await {
                return listener;
            }
        }
    }
}

/// Serves until `stop`. Connections that are open then are closed.
pub(super) async fn serve(listener: TcpListener, face: Arc<Face>, stop: CancellationToken) {
    let Ok(address) = listener.local_addr() else { return };
    face.listens_on(address);
    tracing::info!(url = format!("http://{address}"), "serving metrics, health and status");
    let service = TowerToHyperService::new(router(face, Guests::of(address)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HTTP_HEAD_MAX).max_buf_size(HTTP_HEAD_BYTES_MAX);
    let room = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream: TcpStream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that was gone at once: nothing that ends the service.
                tracing::debug!(%error, "an HTTP connection could not be taken");
                tokio::time::sleep(HTTP_BIND_RETRY / 20).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            counters().http_refused();
            continue;
        };
        let connection = http.serve_connection(TokioIo::new(stream), service.clone());
        connections.spawn(async move {
            // What goes wrong with a client is the client's.
            let _ = tokio::time::timeout(HTTP_CONNECTION_MAX, connection).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn what_is_taken_is_waited_for_and_what_is_not_ours_is_refused() {
        let Some(Bound::Here(first)) = bind("127.0.0.1:0").await.unwrap() else { panic!("port 0 is always free") };
        let address = first.local_addr().unwrap();
        let Some(taken @ Bound::Taken(_)) = bind(&address.to_string()).await.unwrap() else { panic!("it is taken") };
        drop(first);
        assert_eq!(taken.listener().await.local_addr().unwrap(), address);
        let Err(error) = bind("192.0.2.1:9187").await else { panic!("that address is nobody's") };
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.render().contains("192.0.2.1:9187") && error.render().contains("way out"), "{}", error.render());
        assert!(bind("off").await.unwrap().is_none());
    }
}
