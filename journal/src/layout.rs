//! Sizes: what an item takes, how many sectors a journal needs, how long they last; and the bytes of an item.
//!
//! Everything is constant arithmetic on the sizes of the flash, so that a firmware can check at compile time that its
//! range is large enough.

use core::marker::PhantomData;
use embedded_storage_async::nor_flash::NorFlash;
use sequential_storage::{cache, queue::QueueStorage};

/// The version of the layout, the second byte of every item.
pub const VERSION: u8 = 1;

pub(crate) const CHUNK: u8 = b'C';
pub(crate) const RECORD: u8 = b'R';

/// Bytes before the payload of a chunk: kind, version, index (u16), generation (u32).
pub(crate) const CHUNK_HEAD: usize = 8;

/// Bytes of a record; see [`Record::to_bytes`].
pub(crate) const RECORD_LEN: usize = 28;

/// What the bytes of the state in a chunk are stored under. Runs of 0xff, such as small negative integers have, would look
/// like erased flash to whoever lost count of the items, and hide what follows them.
const MASK: u8 = 0x5a;

/// Puts the mask on the state in an item, or takes it off.
pub(crate) fn mask(item: &mut [u8]) {
    if item.first() == Some(&CHUNK) {
        for byte in item.iter_mut().skip(CHUNK_HEAD) {
            *byte ^= MASK;
        }
    }
}

/// The sizes of a journal in flash `F` with pages of `PAGE` bytes.
#[derive(Debug)]
pub struct Layout<F, const PAGE: usize = 256>(PhantomData<F>);

type Queue<F> = QueueStorage<F, cache::Cache<cache::Uncached, cache::Uncached, cache::Uncached>>;

impl<F: NorFlash, const PAGE: usize> Layout<F, PAGE> {
    /// The unit of writing and reading: what is stored begins at a multiple of it.
    const WORD: usize = if F::WRITE_SIZE > F::READ_SIZE { F::WRITE_SIZE } else { F::READ_SIZE };

    /// What `sequential-storage` puts before an item.
    const OVERHEAD: usize = Queue::<F>::item_overhead_size() as usize;

    /// Bytes of a sector for items: a word at each end is its state.
    const SECTOR: usize = F::ERASE_SIZE - 2 * Self::WORD;

    /// Bytes of the state in a chunk.
    pub const PAYLOAD: usize = {
        assert!(Self::WORD <= 32, "flash with words of more than 32 bytes is not supported");
        let data = (PAGE.saturating_sub(Self::OVERHEAD)) / Self::WORD * Self::WORD;
        assert!(data >= RECORD_LEN.next_multiple_of(Self::WORD), "PAGE is too small for this flash: 64 bytes suffice");
        assert!(
            Self::OVERHEAD + data <= Self::SECTOR,
            "PAGE is larger than a sector of this flash: choose a smaller one"
        );
        data - CHUNK_HEAD
    };

    /// The largest item.
    const ITEM: usize = Self::item(CHUNK_HEAD + Self::PAYLOAD);

    const fn item(data: usize) -> usize {
        Self::OVERHEAD + data.next_multiple_of(Self::WORD)
    }

    /// Chunks of a state of so many bytes.
    pub const fn chunks(state: usize) -> usize {
        state.div_ceil(Self::PAYLOAD)
    }

    /// Bytes of flash that a generation of such a state takes.
    pub const fn footprint(state: usize) -> usize {
        let rest = state % Self::PAYLOAD;
        let last = if rest == 0 { 0 } else { Self::item(CHUNK_HEAD + rest) };
        state / Self::PAYLOAD * Self::ITEM + last + Self::item(RECORD_LEN)
    }

    /// Sectors that a journal for such states needs: the last complete generation, which may begin in the middle of a
    /// sector, and as many erased ones for the next. Each one more makes up for one that has died.
    pub const fn sectors(state: usize) -> usize {
        2 * Self::fresh(state) + 1
    }

    /// Sectors that such a generation fills from an erased one on.
    pub(crate) const fn fresh(state: usize) -> usize {
        let (mut sectors, mut room, mut left) = (0, 0, state);
        loop {
            let item = match left {
                0 => Self::item(RECORD_LEN),
                _ if left > Self::PAYLOAD => Self::ITEM,
                _ => Self::item(CHUNK_HEAD + left),
            };
            if room < item {
                (sectors, room) = (sectors + 1, Self::SECTOR);
            }
            if left == 0 {
                return sectors;
            }
            room -= item;
            left = left.saturating_sub(Self::PAYLOAD);
        }
    }

    /// Bytes of a range with that many sectors.
    pub const fn range(state: usize) -> usize {
        Self::sectors(state) * F::ERASE_SIZE
    }

    /// Sectors that a commit of such a state erases, at most, in the mean over many commits without a restart.
    ///
    /// Items follow each other from sector to sector, and what is left at the end of one is less than the largest item:
    /// `footprint / (sector - item + word)`.
    pub const fn erases_per_commit(state: usize) -> f32 {
        Self::footprint(state) as f32 / (Self::SECTOR - Self::ITEM + Self::WORD) as f32
    }

    /// Years until the sectors of a journal have been erased as often as the flash endures, at least.
    ///
    /// `endurance * sectors / (365.25 * (commits * erases_per_commit + starts))`, with commits of such a state and starts of
    /// the device a day: after a start the first commit begins in a sector of its own.
    pub const fn years(state: usize, sectors: usize, commits: f32, starts: f32, endurance: u32) -> f32 {
        let erases_per_day = commits * Self::erases_per_commit(state) + starts;
        endurance as f32 * sectors as f32 / (365.25 * erases_per_day)
    }
}

/// The last item of a generation, which makes it complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub chunks: u16,
    pub generation: u32,
    /// Bytes of the state.
    pub length: u32,
    /// CRC-32 of the artefact.
    pub artefact: u32,
    /// Index of the sector with the first item.
    pub first: u32,
    /// Erases of all sectors so far.
    pub erases: u32,
    /// CRC-32 of the state and the bytes of this record before it.
    pub crc: u32,
}

impl Record {
    /// The bytes before the CRC.
    pub fn head(&self) -> [u8; RECORD_LEN - 4] {
        let mut bytes = [0; RECORD_LEN - 4];
        let [low, high] = self.chunks.to_le_bytes();
        let first = u32::from_le_bytes([RECORD, VERSION, low, high]);
        let words = [first, self.generation, self.length, self.artefact, self.first, self.erases];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    pub fn to_bytes(self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        for (to, from) in bytes.iter_mut().zip(self.head().into_iter().chain(self.crc.to_le_bytes())) {
            *to = from;
        }
        bytes
    }
}

/// What an item says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item<'b> {
    Chunk {
        generation: u32,
        index: u16,
        payload: &'b [u8],
    },
    Record(Record),
    /// A record of another version.
    Other {
        generation: u32,
        version: u8,
    },
    /// A chunk of another version.
    OtherChunk {
        generation: u32,
    },
}

impl<'b> Item<'b> {
    /// `None` for what no version of the journal has written.
    pub fn of(bytes: &'b [u8]) -> Option<Self> {
        let (&[kind, version, low, high, a, b, c, d], payload) = bytes.split_first_chunk::<CHUNK_HEAD>()?;
        let generation = u32::from_le_bytes([a, b, c, d]);
        let count = u16::from_le_bytes([low, high]);
        match (kind, version) {
            (CHUNK, VERSION) => Some(Self::Chunk { generation, index: count, payload }),
            (RECORD, VERSION) => {
                let (words, rest) = payload.as_chunks();
                let &[length, artefact, first, erases, crc] = words else { return None };
                let word = u32::from_le_bytes;
                rest.is_empty().then_some(Self::Record(Record {
                    chunks: count,
                    generation,
                    length: word(length),
                    artefact: word(artefact),
                    first: word(first),
                    erases: word(erases),
                    crc: word(crc),
                }))
            }
            (CHUNK, _) => Some(Self::OtherChunk { generation }),
            (RECORD, _) => Some(Self::Other { generation, version }),
            _ => None,
        }
    }

    /// The generation that it belongs to; of items of any version, so that no number is given twice.
    pub fn generation(&self) -> u32 {
        match *self {
            Self::Chunk { generation, .. } | Self::Other { generation, .. } | Self::OtherChunk { generation } => {
                generation
            }
            Self::Record(record) => record.generation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_from_its_bytes() {
        let record = Record { chunks: 0x0102, generation: 3, length: 4, artefact: 5, first: 6, erases: 7, crc: 8 };
        let bytes = record.to_bytes();
        assert_eq!(bytes[..5], [b'R', 1, 2, 1, 3]);
        assert_eq!(Item::of(&bytes), Some(Item::Record(record)));
        for length in 8..RECORD_LEN {
            assert_eq!(Item::of(&bytes[..length]), None);
        }
        assert_eq!(Item::of(&[b'R', 9, 0, 0, 5, 0, 0, 0]), Some(Item::Other { generation: 5, version: 9 }));
        assert_eq!(Item::of(&[b'C', 9, 0, 0, 5, 0, 0, 0, 1]), Some(Item::OtherChunk { generation: 5 }));
        assert_eq!(Item::of(&[b'X', 1, 0, 0, 5, 0, 0, 0]), None);
        assert_eq!(Item::of(&[b'C', 1, 0, 0, 5, 0, 0]), None);
    }
}
