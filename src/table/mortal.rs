//! A store whose client dies: so many of its requests are answered, and then it hears of nothing any more and does nothing
//! more, as a process that is killed.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

use crate::table::whole::WholeUpload;

/// What becomes of the request during which the client dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    NotDone,
    /// It is done, and its answer is lost.
    Done,
}

/// What befalls a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Answered,
    DoneUnanswered,
    Never,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Requests are answered and not counted.
    Spared,
    /// So many more are answered.
    Exposed {
        left: usize,
        last: Last,
    },
    Dead,
}

#[derive(Debug)]
struct Life {
    state: Mutex<State>,
    ended: Notify,
    /// Whether the dead hear errors, instead of nothing.
    hears: AtomicBool,
}

/// A store as one client sees it. Clones are of the same client.
#[derive(Debug, Clone)]
pub struct MortalStore {
    inner: Arc<dyn ObjectStore>,
    life: Arc<Life>,
}

impl MortalStore {
    /// Whoever uses it is spared at first.
    pub fn over(inner: Arc<dyn ObjectStore>) -> Self {
        let life = Life { state: Mutex::new(State::Spared), ended: Notify::new(), hears: AtomicBool::new(false) };
        Self { inner, life: Arc::new(life) }
    }

    /// Gives what comes of `step`, in which requests of the dead fail: for a step that holds its thread until they are answered.
    pub async fn heard<T, E: fmt::Debug>(&self, step: impl Future<Output = std::result::Result<T, E>>) -> T {
        self.life.hears.store(true, Ordering::SeqCst);
        let done = step.await;
        self.life.hears.store(false, Ordering::SeqCst);
        match done {
            Ok(done) => done,
            Err(_) if matches!(*self.life.state.lock().expect("no code panics while holding it"), State::Dead) => {
                std::future::pending().await
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// From here on `left` requests are answered; the client dies in the next.
    pub fn expose(&self, left: usize, last: Last) {
        *self.life.state.lock().expect("no code panics while holding it") = State::Exposed { left, last };
    }

    /// From here on requests are answered again and not counted.
    pub fn spare(&self) {
        *self.life.state.lock().expect("no code panics while holding it") = State::Spared;
    }

    /// What comes of `step`, whose requests are answered and not counted.
    pub async fn spared<T>(&self, step: impl Future<Output = T>) -> T {
        let before =
            std::mem::replace(&mut *self.life.state.lock().expect("no code panics while holding it"), State::Spared);
        let done = step.await;
        *self.life.state.lock().expect("no code panics while holding it") = before;
        done
    }

    /// What comes of `step`; `None` if the client died in it.
    pub async fn outlives<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.life.ended.notified() => None,
            done = step => Some(done),
        }
    }

    fn turn(&self) -> Turn {
        let mut state = self.life.state.lock().expect("no code panics while holding it");
        match *state {
            State::Spared => Turn::Answered,
            State::Exposed { left: 0, last } => {
                *state = State::Dead;
                if last == Last::Done { Turn::DoneUnanswered } else { Turn::Never }
            }
            State::Exposed { left, last } => {
                *state = State::Exposed { left: left - 1, last };
                Turn::Answered
            }
            State::Dead => Turn::Never,
        }
    }

    async fn request<T>(&self, ask: impl Future<Output = Result<T>>) -> Result<T> {
        let turn = self.turn();
        if turn != Turn::Never {
            let answer = ask.await;
            if turn == Turn::Answered {
                return answer;
            }
        }
        self.life.ended.notify_one();
        if !self.life.hears.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Err(object_store::Error::Generic { store: "mortal", source: "its client is dead".into() })
    }
}

impl fmt::Display for MortalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MortalStore")
    }
}

#[async_trait]
impl ObjectStore for MortalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.request(self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        // As in the stores that warehouses lie in, an upload is one put.
        Ok(Box::new(WholeUpload::new(self.clone(), location.clone())))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.request(self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let client = self.clone();
        let delete = move |location: Result<Path>| {
            let client = client.clone();
            async move {
                let location = location?;
                client.request(client.inner.delete(&location)).await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (client, prefix) = (self.clone(), prefix.cloned());
        let listing = async move {
            let listed = client.inner.list(prefix.as_ref()).try_collect::<Vec<ObjectMeta>>();
            Ok::<_, object_store::Error>(futures::stream::iter(client.request(listed).await?.into_iter().map(Ok)))
        };
        futures::stream::once(listing).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request(self.inner.copy_opts(from, to, options)).await
    }
}
