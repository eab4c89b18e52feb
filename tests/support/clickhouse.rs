//! A real ClickHouse: the user's own by `WEIR_TEST_CLICKHOUSE_URL`, or one that the project's script fetches and starts.

use std::sync::OnceLock;

use super::{path, services};

/// A server that is stopped when dropped, unless it is the user's own.
pub struct Clickhouse {
    /// With the database `weir`.
    pub url: String,
    folder: Option<tempfile::TempDir>,
}

impl Clickhouse {
    /// The server that tests share, each with a database of its own. It ends with the test process.
    pub fn shared() -> &'static Clickhouse {
        static SHARED: OnceLock<Clickhouse> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("WEIR_TEST_CLICKHOUSE_URL") {
            Ok(url) => Clickhouse { url, folder: None },
            Err(_) => Clickhouse::start(),
        })
    }

    /// A server of the test's own, for those that stop it.
    ///
    /// # Panics
    /// If it cannot be fetched or started: a test without its server fails.
    pub fn start() -> Clickhouse {
        let folder = tempfile::Builder::new().prefix("weir-clickhouse-").tempdir().expect("a temporary folder");
        let url = services(&["clickhouse-start", path(folder.path())]).trim().to_owned();
        Clickhouse { url, folder: Some(folder) }
    }

    /// SIGKILL.
    pub fn kill(&self) {
        services(&["clickhouse-stop", self.folder(), "--kill"]);
    }

    /// Starts it again after `kill`, with the data and under the url that it had.
    pub fn restart(&self) {
        let url = services(&["clickhouse-start", self.folder()]);
        assert_eq!(url.trim(), self.url, "somebody else took the server's port while it was down");
    }

    /// The url with a database for one source alone, which does not exist before weir makes it.
    pub fn url_of(&self, source: &str) -> String {
        let (server, _) = self.url.rsplit_once('/').expect("a url with a database");
        format!("{server}/weir_{}", source.replace('-', "_"))
    }

    fn folder(&self) -> &str {
        path(self.folder.as_ref().expect("a server of the test's own").path())
    }
}

impl Drop for Clickhouse {
    fn drop(&mut self) {
        if self.folder.is_some() {
            self.kill();
        }
    }
}
