//! What one file of the in-memory disk holds: what a reader sees now, and what a crash leaves for sure.
//!
//! Bytes live in pages shared between the two images, so that a preallocated file costs nothing and a sync copies
//! pointers. A page that was written since the last sync also keeps some of its states in between: a crash picks one
//! of them for each sector, which tears writes and lets later ones survive earlier ones.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rand::{Rng, RngCore};

/// Size of a page in bytes: the unit in which room is counted.
pub const PAGE_BYTES: u64 = 4096;
/// Size of a sector in bytes: the unit that a crash keeps or loses.
const SECTOR_BYTES: usize = 512;
/// States of a page kept between two syncs, so that a page rewritten a thousand times doesn't cost a thousand pages.
const STATES_PER_PAGE_MAX: usize = 4;

type Page = Arc<[u8; PAGE_BYTES as usize]>;

/// The bytes of a file, and what is safe of them.
#[derive(Clone, Default)]
pub struct Content {
    now: Image,
    safe: Image,
    /// Pages written since the last sync, with the states that they had between that sync and now.
    dirty: BTreeMap<u64, Vec<Page>>,
    /// The least length since the last sync: what was cut off must not come back from `safe` at a sync.
    shortest: u64,
    /// Pages below this one have room reserved.
    reserved_pages: u64,
    /// Pages at or above `reserved_pages` that hold bytes.
    loose_pages: u64,
}

#[derive(Clone, Default)]
struct Image {
    length: u64,
    /// An absent page is all zeros.
    pages: BTreeMap<u64, Page>,
}

impl Content {
    /// Length in bytes as a reader sees it.
    pub fn length(&self) -> u64 {
        self.now.length
    }

    /// Room taken.
    pub fn used_pages(&self) -> u64 {
        self.reserved_pages + self.loose_pages
    }

    /// Fills `buffer` from `offset`; the caller has checked that the file reaches so far.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let inside = (at % PAGE_BYTES) as usize;
            let size = (PAGE_BYTES as usize - inside).min(buffer.len() - done);
            let target = &mut buffer[done..done + size];
            match self.now.pages.get(&(at / PAGE_BYTES)) {
                Some(page) => target.copy_from_slice(&page[inside..inside + size]),
                None => target.fill(0),
            }
            done += size;
        }
    }

    /// Bytes of a range, as far as the file reaches. What was never written costs nothing but its memory.
    pub fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let end = range.end.min(self.now.length);
        let mut bytes = vec![0; end.saturating_sub(range.start) as usize];
        for (number, page) in self.now.pages.range(range.start / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let page_start = number * PAGE_BYTES;
            let (from, to) = (range.start.max(page_start), end.min(page_start + PAGE_BYTES));
            let source = &page[(from - page_start) as usize..(to - page_start) as usize];
            bytes[(from - range.start) as usize..(to - range.start) as usize].copy_from_slice(source);
        }
        bytes
    }

    /// Writes while at most `room_pages` pages more are taken; returns how many bytes found room.
    pub fn write(&mut self, offset: u64, bytes: &[u8], mut room_pages: u64) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let number = at / PAGE_BYTES;
            if number >= self.reserved_pages && !self.now.pages.contains_key(&number) {
                if room_pages == 0 {
                    break;
                }
                room_pages -= 1;
                self.loose_pages += 1;
            }
            let inside = (at % PAGE_BYTES) as usize;
            let size = (PAGE_BYTES as usize - inside).min(bytes.len() - done);
            self.dirty_page(number)[inside..inside + size].copy_from_slice(&bytes[done..done + size]);
            done += size;
        }
        if done > 0 {
            self.now.length = self.now.length.max(offset + done as u64);
        }
        done
    }

    /// Pages that [`Content::allocate`] of `length` would take.
    pub fn pages_to_allocate(&self, length: u64) -> u64 {
        let wanted = length.div_ceil(PAGE_BYTES);
        if wanted <= self.reserved_pages {
            return 0;
        }
        let there = self.now.pages.range(self.reserved_pages..wanted).count() as u64;
        wanted - self.reserved_pages - there
    }

    /// Reserves room up to `length` and grows the file to it.
    pub fn allocate(&mut self, length: u64) {
        let taken = self.pages_to_allocate(length);
        let wanted = length.div_ceil(PAGE_BYTES);
        if wanted > self.reserved_pages {
            self.loose_pages -= wanted - self.reserved_pages - taken;
            self.reserved_pages = wanted;
        }
        self.now.length = self.now.length.max(length);
    }

    /// Cuts the file or grows it by a hole.
    pub fn set_length(&mut self, length: u64) {
        if length < self.now.length {
            if !length.is_multiple_of(PAGE_BYTES) && self.now.pages.contains_key(&(length / PAGE_BYTES)) {
                self.dirty_page(length / PAGE_BYTES)[(length % PAGE_BYTES) as usize..].fill(0);
            }
            let end = length.div_ceil(PAGE_BYTES);
            self.now.pages.split_off(&end);
            self.dirty.split_off(&end);
            self.reserved_pages = self.reserved_pages.min(end);
            self.loose_pages = self.now.pages.range(self.reserved_pages..).count() as u64;
            self.shortest = self.shortest.min(length);
        }
        self.now.length = length;
    }

    /// Makes what a reader sees safe.
    pub fn sync(&mut self) {
        if self.shortest < self.safe.length {
            self.safe.cut(self.shortest);
        }
        for &number in self.dirty.keys() {
            if let Some(page) = self.now.pages.get(&number) {
                self.safe.pages.insert(number, page.clone());
            }
        }
        self.safe.length = self.now.length;
        self.forget_dirt();
    }

    /// A failed fsync: nothing became safe, and yet the system believes that nothing is left to write.
    pub fn forget_dirt(&mut self) {
        self.dirty.clear();
        self.shortest = self.now.length;
    }

    /// Replaces what a reader sees by what a power cut may leave.
    pub fn crash(&mut self, rng: &mut dyn RngCore) {
        let mut left = self.safe.clone();
        // Files differ in their luck: all lost, all kept, and everything between must come up often.
        let keep = match rng.random_range(0..4u8) {
            0 => 0.0,
            1 => 1.0,
            _ => rng.random::<f64>(),
        };
        for (number, states) in &self.dirty {
            let newest = self.now.pages.get(number);
            let states: Vec<&Page> = states.iter().chain(newest).collect();
            if states.is_empty() {
                continue;
            }
            let page = Arc::make_mut(left.pages.entry(*number).or_insert_with(zeros));
            for at in (0..PAGE_BYTES as usize).step_by(SECTOR_BYTES) {
                if rng.random_bool(keep) {
                    let state = states[rng.random_range(0..states.len())];
                    page[at..at + SECTOR_BYTES].copy_from_slice(&state[at..at + SECTOR_BYTES]);
                }
            }
        }
        let (least, most) = (self.safe.length.min(self.now.length), self.safe.length.max(self.now.length));
        let length = match rng.random_range(0..3u8) {
            0 => self.safe.length,
            1 => self.now.length,
            _ => rng.random_range(least..=most),
        };
        left.cut(length);
        let reserved_pages = self.reserved_pages.min(length.div_ceil(PAGE_BYTES));
        let loose_pages = left.pages.range(reserved_pages..).count() as u64;
        *self = Self {
            now: left.clone(),
            safe: left,
            dirty: BTreeMap::new(),
            shortest: length,
            reserved_pages,
            loose_pages,
        };
    }

    /// Flips bits of one byte, on the disk and for every reader.
    pub fn flip(&mut self, offset: u64, mask: u8) {
        for image in [&mut self.now, &mut self.safe] {
            if offset < image.length {
                let page = image.pages.entry(offset / PAGE_BYTES).or_insert_with(zeros);
                Arc::make_mut(page)[(offset % PAGE_BYTES) as usize] ^= mask;
            }
        }
    }

    /// The page's bytes, to be changed; the state before becomes one that a crash may leave.
    fn dirty_page(&mut self, number: u64) -> &mut [u8; PAGE_BYTES as usize] {
        let page = self.now.pages.entry(number).or_insert_with(zeros);
        match self.dirty.get_mut(&number) {
            Some(states) if states.len() < STATES_PER_PAGE_MAX => states.push(page.clone()),
            Some(_) => {}
            None => drop(self.dirty.insert(number, Vec::new())),
        }
        Arc::make_mut(page)
    }
}

impl Image {
    /// Sets the length; nothing of what was behind it is left.
    fn cut(&mut self, length: u64) {
        self.length = length;
        self.pages.split_off(&length.div_ceil(PAGE_BYTES));
        if !length.is_multiple_of(PAGE_BYTES)
            && let Some(page) = self.pages.get_mut(&(length / PAGE_BYTES))
        {
            Arc::make_mut(page)[(length % PAGE_BYTES) as usize..].fill(0);
        }
    }
}

fn zeros() -> Page {
    Arc::new([0; PAGE_BYTES as usize])
}
