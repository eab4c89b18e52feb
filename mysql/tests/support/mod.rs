//! A real MySQL for tests: the user's own (WEIR_TEST_MYSQL_URL), else one that scripts/services.sh starts and that ends
//! with this process. A test that finds neither fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use weir_mysql::{SourceOptions, TableDescription, connect, describe};

/// Url of the server, with an account that may do everything.
pub(crate) fn server_url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| std::env::var("WEIR_TEST_MYSQL_URL").unwrap_or_else(|_| start()))
}

pub(crate) fn source() -> SourceOptions {
    SourceOptions::new(server_url())
}

/// A connection and a database of its own, empty, for the test called `name`.
pub(crate) async fn database(name: &str) -> Conn {
    let mut conn = connect(&source()).await.expect("the test server answers");
    conn.query_drop(format!("DROP DATABASE IF EXISTS {name}")).await.unwrap();
    conn.query_drop(format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await.unwrap();
    conn.query_drop(format!("USE {name}")).await.unwrap();
    conn
}

pub(crate) async fn described(conn: &mut Conn, database: &str, table: &str) -> TableDescription {
    describe(conn, &weir_model::TableId::new(database, table)).await.unwrap().expect("the table exists")
}

fn start() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/services.sh");
    let folders = Path::new(env!("CARGO_TARGET_TMPDIR"));
    sweep(folders);
    let pid = std::process::id().to_string();
    let output = Command::new(&script)
        .arg("mysql-start")
        .arg(folders.join(format!("{FOLDER}{pid}")))
        .env("WEIR_SERVICE_OWNER_PID", &pid)
        .output()
        .unwrap_or_else(|e| panic!("no WEIR_TEST_MYSQL_URL, and {} does not run: {e}", script.display()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "no WEIR_TEST_MYSQL_URL, and no server could be started: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

const FOLDER: &str = "mysql-";

/// Removes the folders of test processes that are gone.
fn sweep(folders: &Path) {
    for entry in std::fs::read_dir(folders).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(FOLDER) else { continue };
        let stopped = !entry.path().join("mysqld.pid").exists();
        if stopped && !PathBuf::from("/proc").join(pid).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
