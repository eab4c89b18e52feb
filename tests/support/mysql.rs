//! A real MySQL: the user's own by `WEIR_TEST_MYSQL_URL`, or one that the project's script fetches and starts.

use std::sync::OnceLock;

use mysql_async::prelude::Queryable;

use super::{path, services};

/// Which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The newest.
    Mysql,
    Mysql80,
    Mysql57,
    Mariadb,
}

impl Flavour {
    /// The command of the script that starts one.
    fn start_command(self) -> &'static str {
        match self {
            Self::Mysql => "mysql-start",
            Self::Mysql80 => "mysql80-start",
            Self::Mysql57 => "mysql57-start",
            Self::Mariadb => "mariadb-start",
        }
    }
}

/// A server that is stopped when dropped, unless it is the user's own.
pub struct Mysql {
    pub url: String,
    folder: Option<tempfile::TempDir>,
}

impl Mysql {
    /// The server that tests share, each in a database of its own. It ends with the test process.
    pub fn shared() -> &'static Mysql {
        static SHARED: OnceLock<Mysql> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("WEIR_TEST_MYSQL_URL") {
            Ok(url) => Mysql { url, folder: None },
            Err(_) => Mysql::start(&[]),
        })
    }

    /// A server of the test's own, with more flags for mysqld.
    ///
    /// # Panics
    /// If it cannot be fetched or started: a test without its server fails.
    pub fn start(flags: &[&str]) -> Mysql {
        Mysql::start_flavour(Flavour::Mysql, flags)
    }

    /// The same of another flavour.
    pub fn start_flavour(flavour: Flavour, flags: &[&str]) -> Mysql {
        let folder = tempfile::Builder::new().prefix("weir-mysql-").tempdir().expect("a temporary folder");
        let url = start_in(folder.path(), flavour, flags);
        Mysql { url, folder: Some(folder) }
    }

    /// The folder of its data.
    pub fn data(&self) -> std::path::PathBuf {
        self.folder.as_ref().expect("a server of the test's own").path().join("data")
    }

    /// Names of its binlogs, ascending.
    pub fn binlogs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.data()).expect("a data folder").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut files: Vec<String> = names.filter(|name| name.starts_with("binlog.0")).collect();
        files.sort();
        files
    }

    /// Ends a server of the test's own; [`Self::start_again`] brings it back, with its data and at its address.
    pub fn stop(&self) {
        services(&["mysql-stop", path(self.folder.as_ref().expect("a server of the test's own").path())]);
    }

    /// SIGKILL to a server of the test's own.
    pub fn kill(&self) {
        services(&["mysql-stop", path(self.folder.as_ref().expect("a server of the test's own").path()), "--kill"]);
    }

    /// Of the newest flavour only.
    pub fn start_again(&self) {
        self.start_again_with(&[]);
    }

    /// The same with more flags for mysqld.
    pub fn start_again_with(&self, flags: &[&str]) {
        let folder = self.folder.as_ref().expect("a server of the test's own").path();
        assert_eq!(start_in(folder, Flavour::Mysql, flags), self.url);
    }

    /// Runs statements, separated by semicolons, on one connection.
    ///
    /// # Panics
    /// If one fails.
    pub fn run(&self, statements: &str) {
        let (url, statements) = (self.url.clone(), statements.to_owned());
        block_on(async move {
            let opts = mysql_async::Opts::from_url(&url).expect("a MySQL url");
            let mut connection = mysql_async::Conn::new(opts).await.expect("a connection to the test's server");
            connection.query_drop(&statements).await.unwrap_or_else(|error| panic!("{error}: {statements}"));
            connection.disconnect().await.expect("an orderly goodbye");
        });
    }

    /// Runs statements as [`Self::run`] does; the server's words if it refuses one. Those before it have been carried out.
    pub fn refusal(&self, statements: &str) -> Option<String> {
        let (url, statements) = (self.url.clone(), statements.to_owned());
        block_on(async move {
            let opts = mysql_async::Opts::from_url(&url).expect("a MySQL url");
            let mut connection = mysql_async::Conn::new(opts).await.expect("a connection to the test's server");
            let refusal = connection.query_drop(&statements).await.err().map(|error| error.to_string());
            let _ = connection.disconnect().await;
            refusal
        })
    }

    /// The single value that a query gives, as text.
    pub fn value(&self, query: &str) -> String {
        let (url, query) = (self.url.clone(), query.to_owned());
        block_on(async move {
            let opts = mysql_async::Opts::from_url(&url).expect("a MySQL url");
            let mut connection = mysql_async::Conn::new(opts).await.expect("a connection to the test's server");
            let value: Option<String> = connection.query_first(&query).await.expect("the query runs");
            connection.disconnect().await.expect("an orderly goodbye");
            value.expect("the query gives a row")
        })
    }
}

impl Drop for Mysql {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            services(&["mysql-stop", path(folder.path())]);
        }
    }
}

fn start_in(folder: &std::path::Path, flavour: Flavour, flags: &[&str]) -> String {
    let mut arguments = vec![flavour.start_command(), path(folder)];
    arguments.extend(flags);
    services(&arguments).trim().to_owned()
}

/// Runs a future to its end on a runtime of its own.
pub fn block_on<F: Future + Send + 'static>(future: F) -> F::Output
where
    F::Output: Send + 'static,
{
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    std::thread::spawn(move || runtime().block_on(future)).join().expect("no panic in the query")
}
