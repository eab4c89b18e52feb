//! Who may read what weir makes on local disk: its user, and the group; nobody else, since rows and keys of the source lie there.
//!
//! In come paths, out go files of mode 0640 and folders of 0750, less what the process's umask takes away. What is there
//! already keeps its mode: a folder that somebody has made is theirs to open or to close.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const FILE: u32 = 0o640;
const FOLDER: u32 = 0o750;

/// The permissions of a file, whatever the umask is.
pub fn of_files() -> Permissions {
    Permissions::from_mode(FILE)
}

/// The options with which a file is made.
pub fn options() -> OpenOptions {
    let mut options = File::options();
    options.mode(FILE);
    options
}

/// An empty file to be written, in the place of one that may be there.
pub fn create_file(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// The folder; its parent is there.
pub fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER).create(path)
}

/// The folder and those above it that are missing.
pub fn create_folders(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn others_may_read_nothing_that_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        create_folders(&inner).unwrap();
        create_folders(&inner).unwrap();
        let file = inner.join("file");
        create_file(&file).unwrap();
        assert_eq!([&inner, inner.parent().unwrap(), &file].map(|path| mode_of(path) & 0o007), [0; 3]);
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        create_file(&file).unwrap();
        assert_eq!(mode_of(&file), 0o600, "what is there keeps its mode");
    }
}
