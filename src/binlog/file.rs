//! Archived binlog files, read one behind the other as if they were one log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use weir_model::{GtidSet, LogPosition};

use super::assemble::{Assembler, Place};
use super::checksum::{ChecksumAlgorithm, open_event};
use super::event::{EventHeader, FLAG_IN_USE, HEADER_LEN, kind, kind_name};
use super::gtid::decode_gtid_set;
use super::mariadb::parse_gtid_list;
use super::{LogError, Source, SourceError, SourceEvent};

const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
const ENCRYPTED_MAGIC: [u8; 4] = [0xfd, b'b', b'i', b'n'];
/// Read from disk at a time.
const READ_BYTES: usize = 1 << 20;

/// Reads archived files in the order given, and ends behind the last.
///
/// If the last file was copied while its server wrote to it (its in-use flag is set), a last event or transaction of which
/// only a part is there is left out without an error; anywhere else that is damage.
pub struct FileSource {
    /// In reading order, from the last to the first.
    to_read: Vec<PathBuf>,
    current: Option<RawFile>,
    assembler: Assembler,
}

impl FileSource {
    /// # Errors
    /// When a file is missing or their numbers leave a gap.
    pub fn open(paths: Vec<PathBuf>) -> Result<Self, SourceError> {
        for path in &paths {
            std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        }
        for pair in paths.windows(2) {
            if let (Some(first), Some(second)) = (file_number(&pair[0]), file_number(&pair[1]))
                && second != first + 1
            {
                let (first, second) = (pair[0].display(), pair[1].display());
                let why =
                    format!("between {first} and {second} binlog files are missing; every file is needed, in order");
                return Err(SourceError::AuthOrConfig { why });
            }
        }
        let to_read = paths.into_iter().rev().collect();
        Ok(Self { to_read, current: None, assembler: Assembler::new(ChecksumAlgorithm::None) })
    }

    /// Transactions have no GTIDs if `position` has none: then they are named by their places in its log.
    #[must_use]
    pub fn of_log(mut self, position: &GtidSet) -> Self {
        self.assembler = self.assembler.of_log(position);
        self
    }

    /// Reads one raw event into the assembler; whether there was one.
    async fn advance(&mut self) -> Result<bool, SourceError> {
        let file = match &mut self.current {
            Some(file) => file,
            None => match self.to_read.last() {
                Some(path) => {
                    self.current = Some(RawFile::open(path).await?);
                    self.to_read.pop();
                    return Ok(true);
                }
                None => return Ok(false),
            },
        };
        let is_last = self.to_read.is_empty();
        match file.next_event().await? {
            Next::Event(bytes, place) => {
                let header = EventHeader::parse(&bytes).map_err(|why| place.error(0, why))?;
                let event =
                    open_event(bytes, self.assembler.checksums()).map_err(|why| place.error(header.kind, why))?;
                if header.kind == kind::FORMAT_DESCRIPTION {
                    file.in_use = header.flags & FLAG_IN_USE != 0;
                }
                self.assembler.feed(&event, &place)?;
            }
            Next::CutOff(_) if file.in_use && is_last => self.current = None,
            Next::CutOff(error) => return Err(error.into()),
            Next::End => {
                // A group that a copy in use ends in is only left out at the end of everything; before another file the
                // assembler refuses it.
                if self.assembler.in_group() && !file.in_use {
                    let why = "the file ends inside a transaction; take a whole copy of it";
                    return Err(file.error(why).into());
                }
                self.current = None;
            }
        }
        Ok(true)
    }
}

impl Source for FileSource {
    async fn next(&mut self) -> Result<Option<SourceEvent>, SourceError> {
        loop {
            if let Some(event) = self.assembler.next()? {
                return Ok(Some(event));
            }
            if !self.advance().await? {
                return Ok(None);
            }
        }
    }
}

/// The binlog files in `dir`, in the order of their numbers. Other files are left out.
///
/// # Errors
/// When the folder can't be read, or holds files of more than one binlog.
pub fn list_binlog_dir(dir: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|error| unreadable(dir, &error))? {
        let path = entry.map_err(|error| unreadable(dir, &error))?.path();
        if let Some(number) = file_number(&path) {
            files.push((number, path));
        }
    }
    files.sort();
    if let Some(pair) = files.windows(2).find(|pair| pair[0].1.file_stem() != pair[1].1.file_stem()) {
        let why = format!(
            "{} and {} belong to different binlogs; give each a folder of its own",
            pair[0].1.display(),
            pair[1].1.display()
        );
        return Err(SourceError::AuthOrConfig { why });
    }
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// The transactions that were executed before `path` began: what a reader must have to go on with that file.
///
/// # Errors
/// When the file does not begin as a binlog of MySQL 5.6, MariaDB 10.0 or later does.
pub async fn previous_gtids(path: &Path) -> Result<GtidSet, SourceError> {
    let mut file = RawFile::open(path).await?;
    let mut assembler = Assembler::new(ChecksumAlgorithm::None);
    loop {
        let Next::Event(bytes, place) = file.next_event().await? else {
            return Err(file.error("it ends before its PREVIOUS_GTIDS_LOG_EVENT").into());
        };
        let event = open_event(bytes, assembler.checksums()).map_err(|why| place.error(0, why))?;
        match event.header.kind {
            kind::FORMAT_DESCRIPTION => assembler.feed(&event, &place)?,
            kind::PREVIOUS_GTIDS => {
                return Ok(decode_gtid_set(&event.body).map_err(|why| place.error(kind::PREVIOUS_GTIDS, why))?);
            }
            kind::GTID_LIST => {
                return Ok(parse_gtid_list(&event.body).map_err(|why| place.error(kind::GTID_LIST, why))?);
            }
            other => {
                let why = "the file should begin with its PREVIOUS_GTIDS_LOG_EVENT, or GTID_LIST_EVENT";
                return Err(place.error(other, why).into());
            }
        }
    }
}

/// Whether the transactions of `path` have no GTIDs, as the first of them tells.
///
/// # Errors
/// When the file cannot be read.
pub async fn lacks_gtids(path: &Path) -> Result<bool, SourceError> {
    let mut file = RawFile::open(path).await?;
    while let Next::Event(bytes, place) = file.next_event().await? {
        match EventHeader::parse(&bytes).map_err(|why| place.error(0, why))?.kind {
            kind::ANONYMOUS_GTID => return Ok(true),
            kind::GTID | kind::GTID_TAGGED | kind::MARIADB_GTID => return Ok(false),
            _ => {}
        }
    }
    Ok(false)
}

/// Everything in the log of `position` that stands in the files before `path`.
///
/// # Errors
/// When that is a file of another log.
pub fn before_file(path: &Path, position: &GtidSet) -> Result<GtidSet, SourceError> {
    let Some((log, _)) = position.log_end() else { return Ok(GtidSet::default()) };
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    GtidSet::up_to(log, &LogPosition::beginning_of(file)).map_err(|error| SourceError::AuthOrConfig {
        why: format!("{} cannot be read as a file of the source's binlog: {error}", path.display()),
    })
}

/// The number that a binlog file's name ends in.
fn file_number(path: &Path) -> Option<u64> {
    let digits = path.extension()?.to_str()?;
    if digits.len() < 6 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn unreadable(path: &Path, error: &std::io::Error) -> SourceError {
    SourceError::AuthOrConfig { why: format!("cannot read {}: {error}", path.display()) }
}

/// One file as a sequence of undivided events. Offsets are counted here, since those in the events wrap at 4 GiB.
struct RawFile {
    path: PathBuf,
    name: Arc<str>,
    file: File,
    buffer: BytesMut,
    /// Offset of the first byte in `buffer`.
    offset: u64,
    in_use: bool,
}

enum Next {
    Event(Bytes, Place),
    /// The file ends within an event.
    CutOff(LogError),
    End,
}

impl RawFile {
    async fn open(path: &Path) -> Result<Self, SourceError> {
        let file = File::open(path).await.map_err(|error| unreadable(path, &error))?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into();
        Ok(Self { path: path.to_owned(), name, file, buffer: BytesMut::new(), offset: 0, in_use: false })
    }

    /// Can be dropped and called again: nothing leaves the buffer before a whole event is in it.
    async fn next_event(&mut self) -> Result<Next, SourceError> {
        if self.offset == 0 {
            self.read_magic().await?;
        }
        if !self.fill(HEADER_LEN).await? {
            return Ok(if self.buffer.is_empty() { Next::End } else { Next::CutOff(self.cut_off(HEADER_LEN)) });
        }
        let header = EventHeader::parse(&self.buffer).map_err(|why| self.error(why))?;
        let size = header.size as usize;
        let place = Place { file: Arc::clone(&self.name), start: self.offset, end: self.offset + size as u64 };
        if size < HEADER_LEN {
            return Err(place
                .error(header.kind, format!("its header says {size} bytes; the binlog is damaged"))
                .into());
        }
        if !self.fill(size).await? {
            return Ok(Next::CutOff(self.cut_off(size)));
        }
        self.offset = place.end;
        Ok(Next::Event(self.buffer.split_to(size).freeze(), place))
    }

    async fn read_magic(&mut self) -> Result<(), SourceError> {
        self.fill(MAGIC.len()).await?;
        match self.buffer.first_chunk() {
            Some(&MAGIC) => {
                let _ = self.buffer.split_to(MAGIC.len());
                self.offset = MAGIC.len() as u64;
                Ok(())
            }
            Some(&ENCRYPTED_MAGIC) => Err(self
                .error("the file is encrypted; fetch it with `mysqlbinlog --read-from-remote-server --raw` instead")
                .into()),
            _ => Err(self.error("the file does not begin as a binlog does (fe 62 69 6e)").into()),
        }
    }

    /// Has `len` bytes in the buffer, if the file has as many.
    async fn fill(&mut self, len: usize) -> Result<bool, SourceError> {
        while self.buffer.len() < len {
            // Not by `len`, which a damaged header can set to anything.
            self.buffer.reserve(READ_BYTES);
            let read = self.file.read_buf(&mut self.buffer).await.map_err(|error| unreadable(&self.path, &error))?;
            if read == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn cut_off(&self, wanted: usize) -> LogError {
        let kind = EventHeader::parse(&self.buffer).map_or("event".into(), |header| kind_name(header.kind));
        let (name, have) = (&self.name, self.buffer.len());
        LogError {
            at: self.position(),
            event: kind.into_owned(),
            why: format!("{name} ends after {have} of its {wanted} bytes; take a whole copy of the file"),
        }
    }

    fn error(&self, why: impl Into<String>) -> LogError {
        LogError { at: self.position(), event: "binlog file".into(), why: why.into() }
    }

    fn position(&self) -> LogPosition {
        LogPosition { file: self.name.to_string(), offset: self.offset }
    }
}

#[cfg(test)]
mod mutated_tests;
#[cfg(test)]
mod tests;
