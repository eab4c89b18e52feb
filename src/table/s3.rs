//! A prefix of a bucket as an object store: put-if-absent is `If-None-Match: *`, an answer that leaves open who wins is
//! asked for again, and errors say what the server said, without what is secret.
//!
//! A put whose answer was lost is not settled here: the commit's id, or the state object's bytes, say whose it is.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    RetryConfig,
};
use url::Url;

use super::s3_options::S3Options;
use super::whole::WholeUpload;
use crate::limits::{
    STORE_CONFLICT_DELAY, STORE_CONFLICT_TRIES, STORE_CONNECT_MAX, STORE_REQUEST_MAX, STORE_REQUEST_MAX_OF_COMMANDS,
    STORE_RETRIES, STORE_RETRY_MAX, STORE_RETRY_MAX_OF_COMMANDS,
};

/// Characters of a server's answer that an error shows.
const ANSWER_SHOWN: usize = 400;

/// How long a store that is away is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Somebody waits for the command.
    Command,
    /// A restart of the server is nothing that a table needs to hear of.
    Service,
}

/// The objects below a prefix of a bucket. Clones share the client.
#[derive(Clone)]
pub(super) struct S3Folder {
    store: Arc<dyn ObjectStore>,
    name: Arc<str>,
    /// Texts that no error shows.
    secrets: Arc<[String]>,
}

impl S3Folder {
    /// The folder that `url`, `s3://bucket/prefix`, names. Nothing is asked of the server yet.
    ///
    /// # Errors
    /// When url and options do not make a client.
    pub(super) fn open(url: &Url, options: &S3Options, patience: Patience) -> std::result::Result<Self, String> {
        let bucket =
            url.host_str().filter(|bucket| !bucket.is_empty()).ok_or("it must name a bucket: s3://bucket/prefix")?;
        if bucket.ends_with("--x-s3") {
            return Err("directory buckets list in no order, on which readers of Delta logs count".into());
        }
        let prefix = Path::from_url_path(url.path()).map_err(|error| error.to_string())?;
        options.check()?;
        let (request_max, retry_max) = match patience {
            Patience::Command => (STORE_REQUEST_MAX_OF_COMMANDS, STORE_RETRY_MAX_OF_COMMANDS),
            Patience::Service => (STORE_REQUEST_MAX, STORE_RETRY_MAX),
        };
        let client = ClientOptions::new().with_timeout(request_max).with_connect_timeout(STORE_CONNECT_MAX);
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: STORE_RETRIES, retry_timeout: retry_max };
        let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry);
        for (key, value) in options.values() {
            builder = builder.with_config(*key, value);
        }
        let secrets: Arc<[String]> = options.secrets().into();
        let store = builder
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .build()
            .map_err(|error| without(&secrets, error.to_string()))?;
        let name = format!("S3({bucket}/{prefix})").into();
        Ok(Self { store: Arc::new(PrefixStore::new(store, prefix)), name, secrets })
    }

    /// The same error, with what the server said in a few words.
    fn plain(&self, error: Error) -> Error {
        let text = |source: &dyn fmt::Display| without(&self.secrets, in_words(&source.to_string()));
        match error {
            Error::Generic { store, source } => Error::Generic { store, source: text(&source).into() },
            Error::NotFound { path, source } => Error::NotFound { path, source: text(&source).into() },
            Error::AlreadyExists { path, source } => Error::AlreadyExists { path, source: text(&source).into() },
            Error::Precondition { path, source } => Error::Precondition { path, source: text(&source).into() },
            Error::NotModified { path, source } => Error::NotModified { path, source: text(&source).into() },
            Error::PermissionDenied { path, source } => Error::PermissionDenied { path, source: text(&source).into() },
            Error::Unauthenticated { path, source } => Error::Unauthenticated { path, source: text(&source).into() },
            error => error,
        }
    }

    /// Puts what nothing has the name of. What the server answers with a conflict, since another put of the same name was
    /// under way, is put again: the name may be free after it.
    async fn create(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let mut pause = STORE_CONFLICT_DELAY;
        for _ in 0..STORE_CONFLICT_TRIES {
            match self.store.put_opts(location, payload.clone(), options.clone()).await {
                Err(error) if is_conflict(&error) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                result => return result.map_err(|error| self.plain(error)),
            }
        }
        let source =
            format!("{location}: other puts of the same name were under way, {STORE_CONFLICT_TRIES} times in a row");
        Err(Error::Generic { store: "S3", source: source.into() })
    }
}

/// Whether it is not known that the name is taken, although the client says so: it calls status 409 by that name, too, by
/// which S3 says that the request met another. Of one that is known to be taken (412) the cause is the failed condition.
fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { source, .. } if !source.is::<Error>())
}

/// An error's text with the XML of the server's answer as its code and message. What else such an answer holds, the
/// request's own headers among it, is nobody's business.
fn in_words(text: &str) -> String {
    if text.contains(INSTANCE_KEYS) {
        return shortened(&format!("{NO_KEYS}: {text}"));
    }
    let Some(start) = text.find("<?xml").or_else(|| text.find("<Error")) else { return shortened(text) };
    let (before, answer) = text.split_at(start);
    let tag = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(value, _)| value)
    };
    let said: Vec<&str> = [tag("Code"), tag("Message")].into_iter().flatten().collect();
    let before = before.trim_end_matches([' ', ':', '"']);
    shortened(&if said.is_empty() { before.to_owned() } else { format!("{before}: {}", said.join(": ")) })
}

/// Where a client that was given no keys asks for those of the machine.
const INSTANCE_KEYS: &str = "http://169.254.169.254/";
const NO_KEYS: &str = "no keys are set, neither by options nor by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the machine \
                       has none of its own";

fn shortened(text: &str) -> String {
    match text.char_indices().nth(ANSWER_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn without(secrets: &[String], text: String) -> String {
    secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), "***"))
}

impl fmt::Debug for S3Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for S3Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl ObjectStore for S3Folder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if options.mode == PutMode::Create {
            return self.create(location, payload, options).await;
        }
        self.store.put_opts(location, payload, options).await.map_err(|error| self.plain(error))
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(WholeUpload::new(self.clone(), location.clone())))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.store.get_opts(location, options).await.map_err(|error| self.plain(error))?;
        if let GetResultPayload::Stream(stream) = result.payload {
            let folder = self.clone();
            result.payload = GetResultPayload::Stream(stream.map_err(move |error| folder.plain(error)).boxed());
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(location, ranges).await.map_err(|error| self.plain(error))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let folder = self.clone();
        self.store.delete_stream(locations).map_err(move |error| folder.plain(error)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = self.clone();
        self.store.list(prefix).map_err(move |error| folder.plain(error)).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = self.clone();
        self.store.list_with_offset(prefix, offset).map_err(move |error| folder.plain(error)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await.map_err(|error| self.plain(error))
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".into(), implementer: self.name.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::table::faulty::{Fault, FaultyStore};

    /// Over a server that answers puts so, and then does as it should.
    fn folder_over(answers: &[fn() -> Error]) -> (Arc<FaultyStore>, S3Folder) {
        let server = Arc::new(FaultyStore::default());
        answers.iter().for_each(|answer| server.plan("", Fault::Answered(*answer)));
        let store = server.clone();
        (server, S3Folder { store, name: "S3(b/p)".into(), secrets: Arc::new(["hush".to_owned()]) })
    }

    /// As the client tells status 409.
    fn conflict() -> Error {
        let source = "409 Conflict: <?xml?><Error><Code>ConditionalRequestConflict</Code></Error>";
        Error::AlreadyExists { path: "a".into(), source: source.into() }
    }

    /// As the client tells status 412.
    fn taken() -> Error {
        let source = Box::new(Error::Precondition { path: "a".into(), source: "412 Precondition Failed".into() });
        Error::AlreadyExists { path: "a".into(), source }
    }

    fn malformed_token() -> Error {
        let source = "Error performing PUT http://s/b/a in 3ms - Server returned non-2xx status code: 400 Bad Request: \
                      <?xml version=\"1.0\"?><Error><Code>InvalidToken</Code><Message>The token hush is wrong.</Message>\
                      <Token-0>another-token</Token-0></Error>";
        Error::Generic { store: "S3", source: source.into() }
    }

    async fn create(folder: &S3Folder) -> Result<PutResult> {
        folder.put_opts(&Path::from("a"), "x".into(), PutMode::Create.into()).await
    }

    #[tokio::test]
    async fn a_put_that_met_another_is_put_again_and_may_find_the_name_free_or_taken() {
        let (server, folder) = folder_over(&[conflict, conflict]);
        create(&folder).await.unwrap();
        assert_eq!(server.take_written(), ["a"]);
        let (server, folder) = folder_over(&[conflict, taken]);
        let error = create(&folder).await.unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
        assert_eq!(server.take_written(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn conflicts_without_end_leave_the_outcome_open() {
        let answers: Vec<fn() -> Error> = vec![conflict; STORE_CONFLICT_TRIES as usize];
        let (server, folder) = folder_over(&answers);
        let error = create(&folder).await.unwrap_err();
        assert!(matches!(error, Error::Generic { .. }), "{error}");
        assert_eq!(server.take_written(), Vec::<String>::new());
        create(&folder).await.unwrap();
    }

    #[tokio::test]
    async fn errors_say_what_the_server_said_and_nothing_secret() {
        let (_, folder) = folder_over(&[malformed_token]);
        let error = create(&folder).await.unwrap_err();
        assert_eq!(
            format!("{error}"),
            "Generic S3 error: Error performing PUT http://s/b/a in 3ms - Server returned non-2xx status code: 400 Bad \
             Request: InvalidToken: The token *** is wrong."
        );
        assert!(!format!("{error:?}").contains("another-token"), "{error:?}");
    }

    #[test]
    fn nothing_that_is_shown_of_a_folder_holds_its_keys() {
        let options: BTreeMap<String, String> = [
            ("aws_access_key_id", "key-hush"),
            ("aws_secret_access_key", "secret-hush"),
            ("aws_session_token", "token-hush"),
            ("endpoint", "http://127.0.0.1:1"),
            ("allow_http", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let url = Url::parse("s3://bucket/a/prefix").unwrap();
        let options = S3Options::read(&options, []).unwrap();
        let folder = S3Folder::open(&url, &options, Patience::Command).unwrap();
        assert_eq!(format!("{folder:?} {folder}"), "S3(bucket/a/prefix) S3(bucket/a/prefix)");
    }

    #[test]
    fn what_is_not_a_bucket_is_refused() {
        for url in ["s3:///prefix", "s3://lake--use1-az4--x-s3/prefix"] {
            let opened = S3Folder::open(&Url::parse(url).unwrap(), &S3Options::default(), Patience::Command);
            assert!(opened.is_err(), "{url}");
        }
        let numbers = [("aws_virtual_hosted_style_request".to_owned(), "perhaps".to_owned())].into();
        let options = S3Options::read(&numbers, []).unwrap();
        assert!(S3Folder::open(&Url::parse("s3://b/p").unwrap(), &options, Patience::Command).is_err());
    }
}
