//! A store between a table and the true one, in which requests go wrong as planned. For tests.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

/// What befalls a request whose path ends as given. Each is used up.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A put: nothing is written, and the caller hears of an error.
    Lost,
    /// A put: it is written, and the caller hears of an error.
    AnswerLost,
    /// A put if absent: it is written, its answer is lost, and the client's own second attempt is told that the name is taken.
    Retried,
    /// A put: someone else writes these bytes there first.
    Overtaken(Bytes),
    /// A put: it is written whatever is there.
    Overwriting,
    /// A put: nothing is written, and this is the answer.
    Answered(fn() -> Error),
    /// A put waits between `reached` and `go`.
    Stalled { reached: Arc<Notify>, go: Arc<Notify> },
    /// A get: it cannot be read.
    Unreadable,
    /// A get: it is cleaned away before it can be read.
    CleanedAway,
    /// A listing: it says what there was when it was asked for, this much later.
    Late(Duration),
}

/// Which requests a fault is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Puts,
    Gets,
    Listings,
}

impl Fault {
    fn of(&self) -> Of {
        match self {
            Self::Unreadable | Self::CleanedAway => Of::Gets,
            Self::Late(_) => Of::Listings,
            _ => Of::Puts,
        }
    }
}

/// A store with faults that are used up one by one, and a record of every put that was written.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Mutex<Vec<(String, Fault)>>,
    written: Mutex<Vec<String>>,
    /// What the time that requests take follows from; none if they take none.
    pace: Mutex<Option<u64>>,
}

impl Default for FaultyStore {
    /// In memory.
    fn default() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }
}

impl FaultyStore {
    pub fn over(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, faults: Mutex::default(), written: Mutex::default(), pace: Mutex::default() }
    }

    /// The next request of the fault's kind for a path that ends with `suffix` meets `fault`.
    pub fn plan(&self, suffix: &str, fault: Fault) {
        locked(&self.faults).push((suffix.to_owned(), fault));
    }

    /// From here on others go on while a request is under way, now longer and now shorter, as follows from `seed`.
    pub fn dawdle(&self, seed: u64) {
        *locked(&self.pace) = Some(seed);
    }

    async fn take_time(&self) {
        let turns = locked(&self.pace).as_mut().map_or(0, |seed| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*seed >> 33) % 5
        });
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// Paths of the puts that were written since the last call, in order.
    pub fn take_written(&self) -> Vec<String> {
        std::mem::take(&mut locked(&self.written))
    }

    fn next_fault(&self, path: &str, of: Of) -> Option<Fault> {
        let mut faults = locked(&self.faults);
        let at = faults.iter().position(|(suffix, fault)| path.ends_with(suffix.as_str()) && fault.of() == of)?;
        Some(faults.remove(at).1)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while holding it")
}

fn broken() -> Error {
    Error::Generic { store: "faulty", source: "the connection was reset".into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        self.take_time().await;
        let fault = self.next_fault(location.as_ref(), Of::Puts);
        match &fault {
            Some(Fault::Lost) => return Err(broken()),
            Some(Fault::Answered(answer)) => return Err(answer()),
            Some(Fault::Overtaken(theirs)) => {
                self.inner.put(location, theirs.clone().into()).await?;
            }
            Some(Fault::Overwriting) => options.mode = object_store::PutMode::Overwrite,
            Some(Fault::Stalled { reached, go }) => {
                reached.notify_one();
                go.notified().await;
            }
            _ => {}
        }
        let result = self.inner.put_opts(location, payload, options).await?;
        locked(&self.written).push(location.to_string());
        match fault {
            Some(Fault::AnswerLost) => Err(broken()),
            Some(Fault::Retried) => {
                let source = "the answer to the first attempt was lost".into();
                Err(Error::AlreadyExists { path: location.to_string(), source })
            }
            _ => Ok(result),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.take_time().await;
        let fault = if options.head { None } else { self.next_fault(location.as_ref(), Of::Gets) };
        match fault {
            Some(Fault::Unreadable) => return Err(broken()),
            Some(Fault::CleanedAway) => self.inner.delete(location).await?,
            _ => {}
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listing = self.inner.list(prefix);
        match self.next_fault(prefix.map_or("", Path::as_ref), Of::Listings) {
            Some(Fault::Late(pause)) => futures::stream::once(async move {
                let objects: Vec<ObjectMeta> = listing.try_collect().await?;
                tokio::time::sleep(pause).await;
                Ok::<_, Error>(futures::stream::iter(objects.into_iter().map(Ok)))
            })
            .try_flatten()
            .boxed(),
            _ => listing,
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
