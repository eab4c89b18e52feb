//! A real server that speaks S3: the user's own by `WEIR_TEST_S3_URL`, or one that the project's script builds and starts;
//! and what goes wrong on the way to one.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::{path, services};

/// A server that is stopped when dropped, unless it is the user's own.
pub struct S3 {
    /// `http(s)://host:port`.
    pub endpoint: String,
    pub bucket: String,
    pub access_key: String,
    pub secret_key: String,
    folder: Option<tempfile::TempDir>,
}

impl S3 {
    /// The server that tests share, each below a prefix of its own. It ends with the test process.
    pub fn shared() -> &'static S3 {
        static SHARED: OnceLock<S3> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("WEIR_TEST_S3_URL") {
            Ok(url) => S3::at(&url, None),
            Err(_) => S3::start(),
        })
    }

    /// A server of the test's own, for those that kill it.
    ///
    /// # Panics
    /// If it cannot be built or started: a test without its server fails.
    pub fn start() -> S3 {
        let folder = tempfile::Builder::new().prefix("weir-s3-").tempdir().expect("a temporary folder");
        let url = services(&["s3-start", path(folder.path())]).trim().to_owned();
        S3::at(&url, Some(folder))
    }

    /// `http(s)://KEY:SECRET@host:port/bucket`.
    fn at(url: &str, folder: Option<tempfile::TempDir>) -> S3 {
        let parsed = url::Url::parse(url).expect("a url");
        let port = parsed.port().map_or(String::new(), |port| format!(":{port}"));
        S3 {
            endpoint: format!("{}://{}{port}", parsed.scheme(), parsed.host_str().expect("a host")),
            bucket: parsed.path().trim_matches('/').to_owned(),
            access_key: parsed.username().to_owned(),
            secret_key: parsed.password().expect("http://KEY:SECRET@host:port/bucket").to_owned(),
            folder,
        }
    }

    /// SIGKILL.
    pub fn kill(&self) {
        services(&["s3-stop", self.folder(), "--kill"]);
    }

    /// Starts it again after `kill`, with the data and under the address that it had.
    pub fn restart(&self) {
        let url = services(&["s3-start", self.folder()]);
        assert!(
            url.contains(&self.endpoint["http://".len()..]),
            "somebody else took the server's port while it was down"
        );
    }

    /// `[warehouse] url` for a prefix.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.bucket)
    }

    /// The options of a client of this server, or of what stands before it at `endpoint`.
    pub fn options_at(&self, endpoint: &str) -> Vec<(String, String)> {
        [
            ("aws_access_key_id", self.access_key.as_str()),
            ("aws_secret_access_key", &self.secret_key),
            ("endpoint", endpoint),
            ("region", "us-east-1"),
            ("allow_http", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// The same for clients that are told by variables.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", self.access_key.as_str()),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_key),
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ALLOW_HTTP", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// The section that makes a configuration write below `prefix`, through `endpoint`.
    pub fn section_at(&self, endpoint: &str, prefix: &str) -> String {
        let options: Vec<String> =
            self.options_at(endpoint).iter().map(|(name, value)| format!("{name} = \"{value}\"")).collect();
        format!("[warehouse]\nurl = \"{}\"\n[warehouse.options]\n{}\n", self.url(prefix), options.join("\n"))
    }

    /// Where the objects below `prefix` lie as files; none on a server of the user's own.
    pub fn files(&self, prefix: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.path().join("data").join(&self.bucket).join(prefix))
    }

    fn folder(&self) -> &str {
        path(self.folder.as_ref().expect("a server of the test's own").path())
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if self.folder.is_some() {
            self.kill();
        }
    }
}
