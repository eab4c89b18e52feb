//! Where a configuration comes from, to be read again, and the one that a service runs by.
//!
//! In: a path, and the variables that the process was started with. Out: what the file holds at this moment, and the
//! settings that makes. When to look, and what to do about a change, is the service's business.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use super::Config;
use crate::error::Error;

/// A configuration file and the variables above it.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    /// Nobody has named it, so it may be missing.
    is_default: bool,
    environment: BTreeMap<String, String>,
}

/// What stands in the files of a configuration at one moment. Not shown: there are passwords in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents(Vec<Result<Vec<u8>, ErrorKind>>);

impl ConfigFile {
    pub fn new(path: &Path, is_default: bool, environment: BTreeMap<String, String>) -> Self {
        Self { path: path.to_owned(), is_default, environment }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The settings that it makes at this moment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(&self) -> Result<Config, Error> {
        Config::load(&self.path, self.is_default, &self.environment)
    }

    /// What stands in it, and in the files that `running`, which came from it, names for secrets.
    pub fn contents(&self, running: &Config) -> Contents {
        let files =
            std::iter::once(&self.path).chain(&running.source.password_file).chain(&running.source.hash_salt_file);
        Contents(files.map(|file| std::fs::read(file).map_err(|error| error.kind())).collect())
    }
}

/// The configuration that a process runs by: a reload puts another in its place. Clones share it.
#[derive(Debug, Clone)]
pub struct Configured {
    running: Arc<RwLock<Arc<Config>>>,
    file: Option<Arc<ConfigFile>>,
}

impl Configured {
    /// By a configuration that stays as it is.
    pub fn fixed(config: Config) -> Self {
        Self { running: Arc::new(RwLock::new(Arc::new(config))), file: None }
    }

    /// By what `file` holds, now and later. `config` is what it has been read as.
    pub fn of_file(config: Config, file: ConfigFile) -> Self {
        Self { file: Some(Arc::new(file)), ..Self::fixed(config) }
    }

    pub fn get(&self) -> Arc<Config> {
        self.running.read().expect("no code panics while holding it").clone()
    }

    /// Where it comes from, if it can change.
    pub fn file(&self) -> Option<Arc<ConfigFile>> {
        self.file.clone()
    }

    /// From here on the process runs by `config`.
    pub fn replace(&self, config: Arc<Config>) {
        *self.running.write().expect("no code panics while holding it") = config;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[source]\nname = \"shop\"\nurl = \"mysql://weir@db\"\ntables = [\"shop.*\"]\n";

    #[test]
    fn what_is_read_is_what_stands_in_the_file_and_in_that_of_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weir.toml");
        let text = format!("{TEXT}password_file = \"secret\"\n");
        std::fs::write(folder.path().join("secret"), "one").unwrap();
        std::fs::write(&path, &text).unwrap();
        let file = ConfigFile::new(&path, false, BTreeMap::new());
        let running = file.load().unwrap();
        let first = file.contents(&running);
        assert!(first == file.contents(&running));
        std::fs::write(folder.path().join("secret"), "two").unwrap();
        let second = file.contents(&running);
        assert!(first != second);
        assert_eq!(file.load().unwrap().source.password.unwrap().expose(), "two");
        std::fs::remove_file(&path).unwrap();
        assert!(second != file.contents(&running));
        assert!(file.load().is_err());
    }

    #[test]
    fn everyone_who_has_it_sees_what_it_is_replaced_by() {
        let configured = Configured::fixed(Config::default());
        let other = configured.clone();
        let mut config = Config::default();
        config.apply.commit_interval_ms = 7;
        configured.replace(Arc::new(config));
        assert_eq!(other.get().apply.commit_interval_ms, 7);
    }
}
