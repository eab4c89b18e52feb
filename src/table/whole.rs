//! Uploads in parts that become one put: an object is whole or not there at all, and nothing of an upload that ended
//! half-way stays in the store. What is uploaded so, the log's checkpoints, is small.

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, PutResult, Result, UploadPart};

/// Parts of one object, kept in memory until all are there.
#[derive(Debug)]
pub(super) struct WholeUpload<S> {
    store: S,
    location: Path,
    parts: Vec<PutPayload>,
}

impl<S: ObjectStore> WholeUpload<S> {
    /// An upload to `location`, which is replaced when the upload completes.
    pub(super) fn new(store: S, location: Path) -> Self {
        Self { store, location, parts: Vec::new() }
    }
}

#[async_trait]
impl<S: ObjectStore> MultipartUpload for WholeUpload<S> {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        Box::pin(std::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload = std::mem::take(&mut self.parts).into_iter().flatten().collect();
        self.store.put(&self.location, payload).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}
