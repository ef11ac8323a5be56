//! The journal: a ring of sectors, each a queue of its own.
//!
//! ```text
//!  sector   0        1        2        3        4        5        6
//!         | 3 3 4 | 4 4 4 | 4 4 R . |         |  junk  |  old   | 3 3 3 |     R: the record of generation 4
//!                            last ^    the next commit: erase, write, erase, write, up to the first of generation 4
//! ```
//!
//! A commit goes on after the last complete generation: in its last sector, if this very program has written that without
//! an error, or else in the next one, which is erased first. What it finds there, be it old generations, a commit that was
//! cut or half an erase, does not matter. So a sector is only ever written between its erase and the next restart, from
//! front to back, and whatever a power cut left at its end stays the last thing in it.

use crate::flash::{Blocking, View, erase_sector, run};
use crate::layout::{CHUNK, CHUNK_HEAD, Item, Layout, RECORD_LEN, Record, VERSION, mask};
use crate::{Error, Fault, RangeError};
use core::ops::Range;
use embedded_storage::nor_flash as blocking;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash};
use flowlet::control::AtRest;
use sequential_storage::cache::Cache;
use sequential_storage::queue::{QueueConfig, QueueStorage};

type Digest = crc::Digest<'static, u32, crc::NoTable>;

static CRC32: crc::Crc<u32, crc::NoTable> = crc::Crc::<u32, crc::NoTable>::new(&crc::CRC_32_ISO_HDLC);

/// Memory for an item. Some drivers want words to lie at multiples of four.
#[repr(align(4))]
struct Page<const PAGE: usize>([u8; PAGE]);

/// A state that was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Its number, from 1; larger than that of every state before it.
    pub generation: u32,
    /// Its bytes.
    pub length: usize,
}

/// What the flash has been through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wear {
    /// Erases of all sectors since the range was first used. Those of commits that a restart cut are not in it.
    pub erases: u32,
    /// Sectors, which are erased in turn.
    pub sectors: usize,
    /// Writes and erases that failed since this program began; each costs a sector's turn.
    pub faults: u32,
}

impl Wear {
    /// Erases of the sector that was erased most, if no commit was ever cut.
    pub const fn per_sector(&self) -> u32 {
        self.erases.div_ceil(self.sectors as u32)
    }
}

/// The last complete generation.
#[derive(Debug, Clone, Copy)]
struct Head {
    record: Record,
    /// The sector of its first item, and that of its record.
    first: usize,
    last: usize,
}

/// Learned state in a range of flash, in pages of at most `PAGE` bytes.
///
/// `PAGE` bounds what a step writes. For external flash it is the page of its program command; internal flash is written by
/// the word, and a smaller `PAGE` makes steps shorter and the journal's overhead larger.
#[derive(Debug)]
pub struct Journal<F, const PAGE: usize = 256> {
    flash: F,
    start: u32,
    sectors: usize,
    capacity: usize,
    loaded: bool,
    head: Option<Head>,
    /// The sector that may be written on: this program has erased it, and every write since was read back.
    open: Option<usize>,
    /// The largest number given so far.
    generation: u32,
    erases: u32,
    faults: u32,
}

impl<F: NorFlash, const PAGE: usize> Journal<F, PAGE> {
    /// A journal in `range` of `flash` for states of up to `capacity` bytes; the flash is not touched.
    ///
    /// [`Layout::sectors`] are needed. `PAGE` is checked against the flash by the compiler.
    pub fn new(flash: F, range: Range<u32>, capacity: usize) -> Result<Self, RangeError> {
        let sector = F::ERASE_SIZE;
        let most = usize::from(u16::MAX).saturating_mul(Layout::<F, PAGE>::PAYLOAD);
        if capacity > most {
            return Err(RangeError::StateTooLarge { most });
        }
        let (from, to) = (range.start as usize, range.end as usize);
        if from > to || to > flash.capacity() {
            return Err(RangeError::Outside { flash: flash.capacity() });
        }
        if !from.is_multiple_of(sector) || !to.is_multiple_of(sector) {
            return Err(RangeError::NotAligned { sector });
        }
        let (needed, given) = (Layout::<F, PAGE>::sectors(capacity), (to - from) / sector);
        if given < needed {
            return Err(RangeError::TooSmall { needed, given });
        }
        Ok(Self {
            flash,
            start: range.start,
            sectors: given,
            capacity,
            loaded: false,
            head: None,
            open: None,
            generation: 0,
            erases: 0,
            faults: 0,
        })
    }

    /// Copies the last complete state into `into`, as much of its parts as the state has bytes, one after the other.
    ///
    /// `None` where there is no state. Whatever the result but a loaded state, the content of `into` is undefined.
    /// Nothing is written or erased. Reads the range once and the state once more, bit by bit in two CRCs: for start-up,
    /// not for a control period.
    pub async fn load_async(
        &mut self,
        into: &mut [&mut [u8]],
        artefact: u32,
    ) -> Result<Option<Loaded>, Error<F::Error>> {
        let room = into.iter().map(|part| part.len()).sum();
        // Broken off, it has not been loaded.
        (self.loaded, self.head) = (false, None);
        let mut below = None;
        let found = loop {
            let found = self.newest(below).await;
            let Some(head) = found.head else { break found };
            let wanted = head.record.artefact == artefact && head.record.length as usize <= room;
            if let Some(first) = self.gather(&head, if wanted { into } else { &mut [] }).await {
                self.head = Some(Head { first, ..head });
                self.erases = self.erases.max(head.record.erases);
                break found;
            }
            below = Some(head.record.generation);
        };
        self.generation = self.generation.max(found.generation);
        self.loaded = true;
        let Some(Head { record, .. }) = self.head else {
            return match (found.other, found.error) {
                (Some((_, version)), _) => Err(Error::OtherVersion { found: version }),
                (None, Some(error)) => Err(Error::Read(error)),
                (None, None) => Ok(None),
            };
        };
        let length = record.length as usize;
        match found.other {
            Some((generation, found)) if generation > record.generation => Err(Error::OtherVersion { found }),
            _ if record.artefact != artefact => Err(Error::OtherArtefact { found: record.artefact }),
            _ if length > room => Err(Error::BufferTooSmall { needed: length }),
            _ => Ok(Some(Loaded { generation: record.generation, length })),
        }
    }

    /// Begins to store a state, the bytes of its parts one after the other, for the artefact with this CRC-32.
    ///
    /// It is stored when a [`Commit::step`] says so; until then, and for ever if the commit is dropped, the last one is.
    pub fn commit<'s>(
        &mut self,
        state: &'s [&'s [u8]],
        artefact: u32,
    ) -> Result<Commit<'_, 's, F, PAGE>, Error<F::Error>> {
        let length = state.iter().map(|part| part.len()).sum();
        if length > self.capacity {
            return Err(Error::StateTooLarge { capacity: self.capacity });
        }
        if !self.loaded {
            return Err(Error::NotLoaded);
        }
        self.generation = self.generation.checked_add(1).ok_or(Error::GenerationsUsedUp)?;
        let (sector, free, phase) = match self.head {
            None => (self.sectors - 1, self.sectors, Phase::Erase),
            Some(Head { first, last, .. }) => {
                let free = (first + self.sectors - last - 1) % self.sectors;
                (last, free, if self.open == Some(last) { Phase::Write } else { Phase::Erase })
            }
        };
        Ok(Commit {
            record: Record {
                chunks: Layout::<F, PAGE>::chunks(length) as u16,
                generation: self.generation,
                length: length as u32,
                artefact,
                first: 0,
                erases: 0,
                crc: 0,
            },
            journal: self,
            state,
            sector,
            free,
            phase,
            next: 0,
            first: None,
            digest: CRC32.digest(),
            fault: None,
        })
    }

    /// What the flash has been through. The number of erases is that of [loading](Self::load_async) and what came since.
    pub fn wear(&self) -> Wear {
        Wear { erases: self.erases, sectors: self.sectors, faults: self.faults }
    }

    /// The flash. Writing to the journal's range makes it forget.
    pub fn flash(&mut self) -> &mut F {
        &mut self.flash
    }

    /// Gives the flash back.
    pub fn release(self) -> F {
        self.flash
    }

    fn range(&self, sector: usize) -> Range<u32> {
        let start = self.start + (sector * F::ERASE_SIZE) as u32;
        start..start + F::ERASE_SIZE as u32
    }

    /// Shows the items of a sector, oldest first, up to what cannot be read.
    async fn items(&mut self, sector: usize, each: &mut dyn FnMut(&[u8])) -> Result<(), F::Error> {
        let Ok(config) = QueueConfig::try_new(self.range(sector)) else { return Ok(()) };
        let view = View { flash: &mut self.flash, writing: false };
        let mut queue = QueueStorage::new(view, config, Cache::new_uncached());
        let mut page = Page([0; PAGE]);
        let result = async {
            let mut items = queue.iter().await?;
            while let Some(mut item) = items.next(&mut page.0).await? {
                mask(&mut item);
                each(&item);
            }
            Ok(())
        };
        match result.await {
            Err(sequential_storage::Error::Storage { value: Fault::Flash(error), .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// The newest record, of a generation below the given one, and what else there is.
    async fn newest(&mut self, below: Option<u32>) -> Found<F::Error> {
        let mut found = Found { head: None, other: None, generation: 0, error: None };
        for sector in 0..self.sectors {
            let sectors = self.sectors;
            let mut each = |bytes: &[u8]| {
                let Some(item) = Item::of(bytes) else { return };
                found.generation = found.generation.max(item.generation());
                match item {
                    Item::Record(record)
                        if below.is_none_or(|below| record.generation < below)
                            && found.head.is_none_or(|head| head.record.generation < record.generation) =>
                    {
                        // In a range that has been changed since, any sector may be the first.
                        let first = record.first as usize;
                        let first = if first < sectors { first } else { (sector + 1) % sectors };
                        found.head = Some(Head { record, first, last: sector });
                    }
                    Item::Other { generation, version } if found.other.is_none_or(|(g, _)| g < generation) => {
                        found.other = Some((generation, version));
                    }
                    _ => {}
                }
            };
            if let Err(error) = self.items(sector, &mut each).await {
                found.error = Some(error);
            }
        }
        found
    }

    /// If all of a generation is there, with the right CRC-32, the sector in which it begins; copies what there is room for.
    async fn gather(&mut self, head: &Head, into: &mut [&mut [u8]]) -> Option<usize> {
        let mut digest = CRC32.digest();
        let (mut next, mut length) = (0, 0);
        let mut sector = head.first;
        let mut first = head.last;
        loop {
            let mut each = |bytes: &[u8]| match Item::of(bytes) {
                // A chunk that was written twice, because the first time seemed to fail, counts once.
                Some(Item::Chunk { generation, index, payload })
                    if generation == head.record.generation && u32::from(index) == next =>
                {
                    digest.update(payload);
                    copy_in(into, length, payload);
                    if next == 0 {
                        first = sector;
                    }
                    next += 1;
                    length += payload.len();
                }
                _ => {}
            };
            // A sector that cannot be read to its end may have given all that is needed; the CRC knows.
            let _ = self.items(sector, &mut each).await;
            if sector == head.last {
                break;
            }
            sector = (sector + 1) % self.sectors;
        }
        digest.update(&head.record.head());
        let complete = next == u32::from(head.record.chunks)
            && length == head.record.length as usize
            && digest.finalize() == head.record.crc;
        complete.then_some(first)
    }
}

/// For flash whose driver waits.
impl<F: blocking::NorFlash, const PAGE: usize> Journal<Blocking<F>, PAGE> {
    /// As [`load_async`](Self::load_async).
    pub fn load(&mut self, into: &mut [&mut [u8]], artefact: u32) -> Result<Option<Loaded>, Error<F::Error>> {
        run(self.load_async(into, artefact))
    }
}

/// What is in the sectors.
struct Found<E> {
    head: Option<Head>,
    /// The newest record of another version: its generation and version.
    other: Option<(u32, u8)>,
    /// The largest number of a generation.
    generation: u32,
    error: Option<E>,
}

/// Whether a commit is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There are more steps to do.
    More,
    /// The state is stored.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Erase the next sector.
    Erase,
    /// Write the next chunk, or the record.
    Write,
    Done,
    Broken,
}

/// A state on its way into the flash.
///
/// It borrows the state, which therefore stays what it is, for as many control periods as the steps take. Dropped before
/// its last step, it has stored nothing.
pub struct Commit<'j, 's, F: ErrorType, const PAGE: usize = 256> {
    journal: &'j mut Journal<F, PAGE>,
    state: &'s [&'s [u8]],
    record: Record,
    /// The sector that is written, and how many may be erased after it.
    sector: usize,
    free: usize,
    phase: Phase,
    /// Index of the next chunk.
    next: u16,
    /// The sector of the first item.
    first: Option<usize>,
    digest: Digest,
    fault: Option<Fault<F::Error>>,
}

impl<F: NorFlash, const PAGE: usize> Commit<'_, '_, F, PAGE> {
    /// Its generation, if it is completed.
    pub fn generation(&self) -> u32 {
        self.record.generation
    }

    /// Erases one sector, or writes at most `PAGE` bytes and a word, and reads back what it did.
    ///
    /// A write or an erase that fails costs the sector its turn; the next step goes on in the one after it, as long as
    /// there is one that the last complete generation does not need. After an error the commit is over; that generation is
    /// as it was.
    ///
    /// A future that is dropped before it is ready breaks the commit.
    pub async fn step_async(&mut self, _rest: AtRest<'_>) -> Result<Progress, Error<F::Error>> {
        let phase = core::mem::replace(&mut self.phase, Phase::Broken);
        let result = match phase {
            Phase::Erase => self.erase().await?,
            Phase::Write => self.write().await,
            Phase::Done => return self.done(),
            Phase::Broken => return Err(Error::Broken),
        };
        match result {
            Ok(phase) => self.phase = phase,
            Err(fault) => {
                self.journal.faults = self.journal.faults.saturating_add(1);
                self.fault = Some(fault);
                self.phase = Phase::Erase;
            }
        }
        if self.phase == Phase::Done { self.done() } else { Ok(Progress::More) }
    }

    fn done(&mut self) -> Result<Progress, Error<F::Error>> {
        self.phase = Phase::Done;
        Ok(Progress::Done)
    }

    /// Erases the next sector; the outer error is that there is none.
    async fn erase(&mut self) -> Result<Result<Phase, Fault<F::Error>>, Error<F::Error>> {
        let Some(free) = self.free.checked_sub(1) else { return Err(Error::NoSector(self.fault.take())) };
        self.free = free;
        let journal = &mut *self.journal;
        self.sector = (self.sector + 1) % journal.sectors;
        // A generation that failed writes have stretched over too many sectors would leave too few for the next one.
        let span = |first| (self.sector + journal.sectors - first) % journal.sectors + 1;
        let most = journal.sectors - Layout::<F, PAGE>::fresh(journal.capacity);
        if self.first.is_some_and(|first| span(first) > most) {
            (self.first, self.next, self.digest) = (None, 0, CRC32.digest());
        }
        journal.open = None;
        journal.erases = journal.erases.saturating_add(1);
        let start = journal.range(self.sector).start;
        Ok(erase_sector(&mut journal.flash, start).await.map(|()| {
            journal.open = Some(self.sector);
            Phase::Write
        }))
    }

    /// Writes the next item.
    async fn write(&mut self) -> Result<Phase, Fault<F::Error>> {
        let mut page = Page([0; PAGE]);
        let offset = usize::from(self.next) * Layout::<F, PAGE>::PAYLOAD;
        let complete = self.next == self.record.chunks;
        let mut digest = self.digest.clone();
        let length = if complete {
            let mut record = self.record;
            record.first = self.first.unwrap_or(self.sector) as u32;
            record.erases = self.journal.erases;
            digest.update(&record.head());
            record.crc = digest.clone().finalize();
            self.record = record;
            copy(&mut page.0, &record.to_bytes());
            RECORD_LEN
        } else {
            let length = (self.record.length as usize - offset).min(Layout::<F, PAGE>::PAYLOAD);
            let [low, high] = self.next.to_le_bytes();
            let [a, b, c, d] = self.record.generation.to_le_bytes();
            copy(&mut page.0, &[CHUNK, VERSION, low, high, a, b, c, d]);
            let payload = page.0.get_mut(CHUNK_HEAD..CHUNK_HEAD + length).unwrap_or_default();
            copy_out(self.state, offset, payload);
            digest.update(payload);
            CHUNK_HEAD + length
        };
        let item = page.0.get_mut(..length).unwrap_or_default();
        mask(item);
        if !self.push(item).await? {
            return Ok(Phase::Erase);
        }
        self.first.get_or_insert(self.sector);
        if complete {
            let Record { first, .. } = self.record;
            self.journal.head = Some(Head { record: self.record, first: first as usize, last: self.sector });
            return Ok(Phase::Done);
        }
        self.digest = digest;
        self.next += 1;
        Ok(Phase::Write)
    }

    /// Puts an item into the sector; whether there was room.
    async fn push(&mut self, item: &[u8]) -> Result<bool, Fault<F::Error>> {
        use sequential_storage::Error as E;
        let journal = &mut *self.journal;
        // Whatever breaks this off, the sector is not written on.
        journal.open = None;
        let config = QueueConfig::try_new(journal.range(self.sector)).map_err(|_| Fault::Corrupted)?;
        let view = View { flash: &mut journal.flash, writing: true };
        let mut queue = QueueStorage::new(view, config, Cache::new_uncached());
        match queue.push(item, false).await {
            Ok(()) => {
                journal.open = Some(self.sector);
                Ok(true)
            }
            Err(E::FullStorage) => Ok(false),
            Err(E::Storage { value, .. }) => Err(value),
            Err(_) => Err(Fault::Corrupted),
        }
    }
}

/// For flash whose driver waits.
impl<F: blocking::NorFlash, const PAGE: usize> Commit<'_, '_, Blocking<F>, PAGE> {
    /// As [`step_async`](Self::step_async).
    pub fn step(&mut self, rest: AtRest<'_>) -> Result<Progress, Error<F::Error>> {
        run(self.step_async(rest))
    }
}

/// Copies what there is room for.
fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// Fills `to` with the bytes of `parts` from `offset` on.
fn copy_out(parts: &[&[u8]], mut offset: usize, mut to: &mut [u8]) {
    for part in parts {
        let from = part.get(offset..).unwrap_or_default();
        offset = offset.saturating_sub(part.len());
        copy(to, from);
        to = to.get_mut(from.len()..).unwrap_or_default();
    }
}

/// Puts `from` into `parts` from `offset` on, as much as they have room for.
fn copy_in(parts: &mut [&mut [u8]], mut offset: usize, mut from: &[u8]) {
    for part in parts {
        let length = part.len();
        let to = part.get_mut(offset..).unwrap_or_default();
        offset = offset.saturating_sub(length);
        let copied = to.len();
        copy(to, from);
        from = from.get(copied..).unwrap_or_default();
    }
}
