//! What a running service shows of itself over HTTP: metrics, health, its status, and a page for people.
//!
//! In: the process's [`figures`](crate::figures) and the service's status. Out: answers to GET. Nothing here changes
//! anything, and nothing that a client does, or leaves undone, holds anything of the service: answers are made whole
//! before they are sent, and connections are bounded in number and time (`listen`).

mod face;
mod health;
mod listen;
mod metrics;
mod page;
mod process;
mod routes;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use self::face::Face;
use self::listen::{Bound, bind};
use crate::config::Configured;
use crate::error::Error;
use crate::service::Role;

/// Does `work`, which runs the service in `role`, and serves beside it as `[http]` says.
///
/// # Errors
/// Those of `work`; before it begins, of kind [`crate::error::Kind::Config`] if the address can never be listened on. One
/// that another process has is waited for.
pub async fn beside<T>(
    configured: &Configured,
    role: Role,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(bound) = bind(&configured.get().http.listen).await? else { return work.await };
    let face = Arc::new(Face::new(configured, role)?);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(bound, face, stop.clone()));
    let done = work.await;
    stop.cancel();
    // Nothing in it waits for a client.
    let _ = serving.await;
    done
}

async fn serve(bound: Bound, face: Arc<Face>, stop: CancellationToken) {
    let listener = tokio::select! {
        () = stop.cancelled() => return,
        listener = bound.listener() => listener,
    };
    listen::serve(listener, face, stop).await;
}
