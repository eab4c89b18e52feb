//! A scratch file of pages, and those of them that are kept in memory. Regions of it are handed out and come back.
//!
//! A page ends with a checksum of its number and its bytes, which is compared whenever it is read from the file.
//! Nothing here gives an error: what fails is told to the index's [`Health`], and from then on reads find nothing and
//! writes do nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use crc32fast::Hasher;
use foldhash::fast::RandomState;

use super::home::{Health, IndexHome, Reservation};

/// A scratch file and its cache.
pub struct Pages {
    page_bytes: usize,
    /// Pages that are kept whatever the budget says.
    frames_min: usize,
    health: Arc<Health>,
    state: Mutex<State>,
}

struct State {
    file: File,
    frames: Vec<Frame>,
    by_page: HashMap<u32, usize, RandomState>,
    /// Where the search for a frame to give up goes on.
    hand: usize,
    /// Lengths of free runs of pages, by their first.
    free: BTreeMap<u32, u32>,
    /// Pages of the file.
    end: u32,
    reservation: Reservation,
}

struct Frame {
    /// None if its region was given back.
    page: Option<u32>,
    dirty: bool,
    /// Asked for since the hand last passed.
    used: bool,
    bytes: Box<[u8]>,
}

/// A run of pages that is one array of bytes; given back when dropped. Units of so many bytes never straddle pages.
pub struct Region {
    pages: Arc<Pages>,
    start: u32,
    count: u32,
    /// Bytes used of each page.
    usable: usize,
}

const CHECKSUM_BYTES: usize = 4;

fn checksum(number: u32, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize().to_le_bytes()
}

/// Writes the checksum of a page at its end.
fn seal(number: u32, page: &mut [u8]) {
    let (bytes, sum) = page.split_at_mut(page.len() - CHECKSUM_BYTES);
    sum.copy_from_slice(&checksum(number, bytes));
}

fn is_sealed(number: u32, page: &[u8]) -> io::Result<()> {
    let (bytes, sum) = page.split_at(page.len() - CHECKSUM_BYTES);
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a page of its scratch file is not as it was written");
    if sum == checksum(number, bytes) { Ok(()) } else { Err(damaged()) }
}

impl Pages {
    pub fn create(home: &IndexHome, health: Arc<Health>) -> io::Result<Arc<Self>> {
        let state = State {
            file: home.scratch_file()?,
            frames: Vec::new(),
            by_page: HashMap::default(),
            hand: 0,
            free: BTreeMap::new(),
            end: 0,
            reservation: Reservation::new(home),
        };
        let frames_min = (home.memory_min / home.page_bytes).max(1);
        Ok(Arc::new(Self { page_bytes: home.page_bytes, frames_min, health, state: Mutex::new(state) }))
    }

    /// A region that begins with `bytes` and can hold `room`.
    pub fn store(self: &Arc<Self>, bytes: &[u8], room: usize, unit: usize) -> Region {
        let usable = (self.page_bytes - CHECKSUM_BYTES) / unit * unit;
        let count = room.max(bytes.len()).div_ceil(usable);
        let mut physical = vec![0; count * self.page_bytes];
        for (page, bytes) in physical.chunks_mut(self.page_bytes).zip(bytes.chunks(usable)) {
            page[..bytes.len()].copy_from_slice(bytes);
        }
        let start = self.run(|state| {
            let start = state.take(u32::try_from(count).map_err(io::Error::other)?, self.page_bytes)?;
            (start..).zip(physical.chunks_mut(self.page_bytes)).for_each(|(number, page)| seal(number, page));
            state.file.write_all_at(&physical, u64::from(start) * self.page_bytes as u64)?;
            Ok(start)
        });
        let (start, count) = start.map_or((0, 0), |start| (start, count as u32));
        Region { pages: self.clone(), start, count, usable }
    }

    /// Bytes of the pages kept.
    pub fn bytes_in_memory(&self) -> usize {
        self.run(|state| Ok(state.frames.len() * self.page_bytes)).unwrap_or(0)
    }

    /// Bytes of the file.
    pub fn bytes_on_disk(&self) -> usize {
        self.run(|state| Ok(state.end as usize * self.page_bytes)).unwrap_or(0)
    }

    fn run<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> Option<T> {
        if self.health.has_failed() {
            return None;
        }
        let mut state = self.state.lock().expect("nobody panics while pages are moved");
        work(&mut state).inspect_err(|error| self.health.fail(error)).ok()
    }

    /// Puts another file in the place of its own, to see what becomes of an index whose disk fails.
    #[cfg(test)]
    pub fn replace_file(&self, file: File) -> File {
        std::mem::replace(&mut self.state.lock().expect("nobody panics while pages are moved").file, file)
    }
}

impl Region {
    pub fn pages(&self) -> Arc<Pages> {
        self.pages.clone()
    }

    /// Bytes that it can hold.
    pub fn room(&self) -> usize {
        self.count as usize * self.usable
    }

    /// False if they could not be read.
    pub fn read(&self, at: usize, out: &mut [u8]) -> bool {
        self.pieces(at, out.len(), |frame, place, piece| out[piece].copy_from_slice(&frame.bytes[place])).is_some()
    }

    pub fn write(&self, at: usize, bytes: &[u8]) {
        self.pieces(at, bytes.len(), |frame, place, piece| {
            frame.dirty = true;
            frame.bytes[place].copy_from_slice(&bytes[piece]);
        });
    }

    /// From `at` to the end of its page, or to `end` if that comes first.
    pub fn rest_of_page(&self, at: usize, end: usize) -> Option<Vec<u8>> {
        let mut rest = vec![0; (self.usable - at % self.usable).min(end.saturating_sub(at))];
        self.read(at, &mut rest).then_some(rest)
    }

    /// The first `len` bytes, read in one go; none if they could not be.
    pub fn load(&self, len: usize) -> Vec<u8> {
        let (page_bytes, count) = (self.pages.page_bytes, len.div_ceil(self.usable));
        let physical = self.pages.run(|state| {
            let mut physical = vec![0; count * page_bytes];
            state.file.read_exact_at(&mut physical, u64::from(self.start) * page_bytes as u64)?;
            for (page, bytes) in (self.start..).zip(physical.chunks_mut(page_bytes)) {
                is_sealed(page, bytes)?;
                if let Some(frame) = state.by_page.get(&page) {
                    bytes.copy_from_slice(&state.frames[*frame].bytes);
                }
            }
            Ok(physical)
        });
        let mut bytes = physical.unwrap_or_default();
        if self.usable < page_bytes {
            for page in 1..bytes.len() / page_bytes {
                bytes.copy_within(page * page_bytes..page * page_bytes + self.usable, page * self.usable);
            }
        }
        bytes.truncate(len);
        bytes
    }

    /// Goes through the pages that bytes from `at` on lie in: what of the page is meant, and what of the bytes.
    fn pieces(
        &self,
        at: usize,
        len: usize,
        mut each: impl FnMut(&mut Frame, std::ops::Range<usize>, std::ops::Range<usize>),
    ) -> Option<()> {
        if at + len > self.room() {
            // Only a region that could not be stored is too small.
            self.pages.health.fail(&io::Error::other("a page is read that was never written"));
            return None;
        }
        self.pages.run(|state| {
            let mut done = 0;
            while done < len {
                let within = (at + done) % self.usable;
                let piece = (self.usable - within).min(len - done);
                let page = self.start + ((at + done) / self.usable) as u32;
                let frame = state.frame(page, &self.pages)?;
                each(frame, within..within + piece, done..done + piece);
                done += piece;
            }
            Ok(())
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.pages.run(|state| {
            state.give_back(self.start, self.count);
            Ok(())
        });
    }
}

impl State {
    /// The frame of a page, read if it is not kept.
    fn frame(&mut self, page: u32, pages: &Pages) -> io::Result<&mut Frame> {
        if let Some(&at) = self.by_page.get(&page) {
            let frame = &mut self.frames[at];
            frame.used = true;
            return Ok(frame);
        }
        let at = self.vacant(pages)?;
        let frame = &mut self.frames[at];
        self.file.read_exact_at(&mut frame.bytes, u64::from(page) * pages.page_bytes as u64)?;
        is_sealed(page, &frame.bytes)?;
        (frame.page, frame.dirty, frame.used) = (Some(page), false, true);
        self.by_page.insert(page, at);
        Ok(frame)
    }

    /// A frame that holds no page: another one while the budget has room, else the first that was not asked for lately.
    fn vacant(&mut self, pages: &Pages) -> io::Result<usize> {
        let page_bytes = pages.page_bytes;
        let below_min = self.frames.len() < pages.frames_min;
        if below_min || self.reservation.grow_cache(page_bytes) {
            if below_min {
                self.reservation.set(self.reservation.bytes() + page_bytes);
            }
            let bytes = vec![0; page_bytes].into_boxed_slice();
            self.frames.push(Frame { page: None, dirty: false, used: false, bytes });
            return Ok(self.frames.len() - 1);
        }
        loop {
            let at = self.hand;
            self.hand = (at + 1) % self.frames.len();
            let frame = &mut self.frames[at];
            if std::mem::take(&mut frame.used) {
                continue;
            }
            if let Some(page) = frame.page {
                if frame.dirty {
                    seal(page, &mut frame.bytes);
                    self.file.write_all_at(&frame.bytes, u64::from(page) * page_bytes as u64)?;
                }
                self.by_page.remove(&page);
                frame.page = None;
            }
            return Ok(at);
        }
    }

    /// A free run of `count` pages, the first that is long enough, or one at the end of the file.
    fn take(&mut self, count: u32, page_bytes: usize) -> io::Result<u32> {
        if let Some((&start, &len)) = self.free.iter().find(|(_, len)| **len >= count) {
            self.free.remove(&start);
            if len > count {
                self.free.insert(start + count, len - count);
            }
            return Ok(start);
        }
        let start = self.end;
        let end = start.checked_add(count).ok_or_else(|| io::Error::other("the scratch file has too many pages"))?;
        self.file.set_len(u64::from(end) * page_bytes as u64)?;
        self.end = end;
        Ok(start)
    }

    fn give_back(&mut self, mut start: u32, mut count: u32) {
        if count == 0 {
            return;
        }
        for page in start..start + count {
            if let Some(at) = self.by_page.remove(&page) {
                let frame = &mut self.frames[at];
                (frame.page, frame.dirty, frame.used) = (None, false, false);
            }
        }
        if let Some(behind) = self.free.remove(&(start + count)) {
            count += behind;
        }
        if let Some((&before, &len)) = self.free.range(..start).next_back()
            && before + len == start
        {
            self.free.remove(&before);
            (start, count) = (before, count + len);
        }
        self.free.insert(start, count);
    }
}
