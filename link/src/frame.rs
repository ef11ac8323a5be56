//! Frames: a header, a payload and a CRC-32, stuffed by COBS and ended by a zero byte.
//!
//! [`encode`] writes a frame, [`Receiver`] takes bytes as they come. Whatever the bytes, a receiver is in step again
//! after the next zero byte; what it throws away it counts. No panics, no allocation; the cost is one pass over the
//! bytes, about thirty instructions a byte for the CRC without a table.

use cobs::{CobsEncoder, DecodeResult, DecoderState};

/// The version of the protocol, the first byte of every frame.
pub const VERSION: u8 = 1;

/// Bytes of the header.
pub const HEADER: usize = 8;

const CRC: usize = 4;

static CRC32: crc::Crc<u32, crc::NoTable> = crc::Crc::<u32, crc::NoTable>::new(&crc::CRC_32_ISO_HDLC);

/// Bytes of a frame with a payload of so many, before stuffing: the size of a [`Receiver`].
pub const fn frame_len(payload: usize) -> usize {
    payload + HEADER + CRC
}

/// Most bytes on the wire of a frame with a payload of so many, the delimiter included.
pub const fn wire_len(payload: usize) -> usize {
    let frame = frame_len(payload);
    frame + frame / 254 + 2
}

/// What stands before the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's version of the protocol.
    pub version: u8,
    /// What the frame carries, one of [`crate::message::kind`].
    pub kind: u8,
    /// Number of the conversation, which the PC draws when it begins one.
    pub session: u16,
    /// Number of the request, one more than the one before.
    pub sequence: u32,
}

impl Header {
    /// A header of this version.
    pub fn new(kind: u8, session: u16, sequence: u32) -> Self {
        Self { version: VERSION, kind, session, sequence }
    }

    fn bytes(self) -> [u8; HEADER] {
        let [a, b] = self.session.to_le_bytes();
        let [c, d, e, f] = self.sequence.to_le_bytes();
        [self.version, self.kind, a, b, c, d, e, f]
    }

    fn of([version, kind, a, b, c, d, e, f]: [u8; HEADER]) -> Self {
        Self { version, kind, session: u16::from_le_bytes([a, b]), sequence: u32::from_le_bytes([c, d, e, f]) }
    }
}

/// Writes the wire bytes of a frame, the delimiter included, to the front of `out`; their number, or `None` when `out`
/// is shorter than they are.
pub fn encode(header: Header, payload: &[u8], out: &mut [u8]) -> Option<usize> {
    let head = header.bytes();
    let mut digest = CRC32.digest();
    digest.update(&head);
    digest.update(payload);
    let mut encoder = CobsEncoder::new(out);
    encoder.push(&head).ok()?;
    encoder.push(payload).ok()?;
    encoder.push(&digest.finalize().to_le_bytes()).ok()?;
    let end = encoder.finalize();
    *out.get_mut(end)? = 0;
    Some(end + 1)
}

/// CRC-32 of a whole upload, the same as of a frame.
pub fn crc32(bytes: &[u8]) -> u32 {
    CRC32.checksum(bytes)
}

/// What came of the frames so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Whole frames with the right CRC, whatever became of them.
    pub frames: u32,
    /// Frames with a wrong CRC.
    pub crc: u32,
    /// Frames that are no COBS, or too short for a header and a CRC.
    pub framing: u32,
    /// Frames longer than the receiver has room for.
    pub too_long: u32,
    /// Frames whose number was the last one's: answered from memory by the board, ignored by the PC.
    pub repeated: u32,
    /// Numbers that were passed over.
    pub lost: u32,
    /// Frames with an older number, of another session, or in the wrong direction: ignored.
    pub stale: u32,
    /// Requests that were answered with an error.
    pub refused: u32,
}

impl Counters {
    /// The counters in the order of their frame.
    pub fn to_array(self) -> [u32; 8] {
        let Self { frames, crc, framing, too_long, repeated, lost, stale, refused } = self;
        [frames, crc, framing, too_long, repeated, lost, stale, refused]
    }

    /// The counters from the order of their frame.
    pub fn from_array([frames, crc, framing, too_long, repeated, lost, stale, refused]: [u32; 8]) -> Self {
        Self { frames, crc, framing, too_long, repeated, lost, stale, refused }
    }
}

/// Takes bytes and gives frames of up to `FRAME` bytes ([`frame_len`]).
#[derive(Debug)]
pub struct Receiver<const FRAME: usize> {
    decoder: DecoderState,
    bytes: [u8; FRAME],
    length: usize,
    /// `frames`, `crc`, `framing` and `too_long` are counted here, the others by the receiver's owner.
    pub counters: Counters,
}

impl<const FRAME: usize> Default for Receiver<FRAME> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const FRAME: usize> Receiver<FRAME> {
    /// In step, with nothing received.
    pub fn new() -> Self {
        Self { decoder: DecoderState::Idle, bytes: [0; FRAME], length: 0, counters: Counters::default() }
    }

    /// Takes a byte; a frame when it was the last one of a good one.
    pub fn push(&mut self, byte: u8) -> Option<(Header, &[u8])> {
        match self.decoder.feed(byte) {
            Ok(DecodeResult::NoData) => None,
            Ok(DecodeResult::DataStart) => {
                self.length = 0;
                None
            }
            Ok(DecodeResult::DataContinue(data)) => {
                // What does not fit is counted, so that the frame can be named too long at its end.
                if let Some(place) = self.bytes.get_mut(self.length) {
                    *place = data;
                }
                self.length = self.length.saturating_add(1);
                None
            }
            Ok(DecodeResult::DataComplete) => self.finish(),
            Err(_) => {
                let count = if self.length > FRAME { &mut self.counters.too_long } else { &mut self.counters.framing };
                *count = count.wrapping_add(1);
                None
            }
        }
    }

    fn finish(&mut self) -> Option<(Header, &[u8])> {
        let Some(frame) = self.bytes.get(..self.length) else {
            self.counters.too_long = self.counters.too_long.wrapping_add(1);
            return None;
        };
        let parts = frame.split_last_chunk::<CRC>().and_then(|(body, crc)| {
            let (head, payload) = body.split_first_chunk::<HEADER>()?;
            Some((body, head, payload, crc))
        });
        let Some((body, head, payload, crc)) = parts else {
            self.counters.framing = self.counters.framing.wrapping_add(1);
            return None;
        };
        if crc32(body) != u32::from_le_bytes(*crc) {
            self.counters.crc = self.counters.crc.wrapping_add(1);
            return None;
        }
        self.counters.frames = self.counters.frames.wrapping_add(1);
        Some((Header::of(*head), payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_xoshiro::Xoshiro128PlusPlus;
    use rand_xoshiro::rand_core::{Rng, SeedableRng};

    const FRAME: usize = frame_len(600);

    fn wire(header: Header, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0xaa; wire_len(payload.len())];
        let length = encode(header, payload, &mut out).unwrap();
        out.truncate(length);
        out
    }

    fn all<const N: usize>(receiver: &mut Receiver<N>, bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
        bytes.iter().filter_map(|b| receiver.push(*b).map(|(h, p)| (h, p.to_vec()))).collect()
    }

    /// The example of docs/protocol.md; the CRC was computed by Python's zlib, the stuffing by hand.
    #[test]
    fn the_worked_example_has_these_bytes() {
        let header = Header::new(3, 0x1234, 7);
        let payload: Vec<u8> = [1.0f32, -2.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        let expected = WORKED_EXAMPLE;
        assert_eq!(wire(header, &payload), expected);
        assert_eq!(all(&mut Receiver::<FRAME>::new(), &expected), [(header, payload)]);
    }

    #[rustfmt::skip]
    const WORKED_EXAMPLE: [u8; 22] = [
        0x06, 0x01, 0x03, 0x34, 0x12, 0x07, 0x01, 0x01, 0x01, 0x01, 0x03, 0x80, 0x3f, 0x01, 0x07, 0x20, 0xc0, 0x91, 0x5c,
        0x36, 0x72, 0x00,
    ];

    #[test]
    fn frames_of_every_length_come_back() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        let mut receiver = Receiver::<FRAME>::new();
        for length in 0..=600 {
            for zeros in [false, true] {
                let payload: Vec<u8> = (0..length)
                    .map(|_| if zeros { (rng.next_u32() % 3) as u8 } else { 1 + (rng.next_u32() % 255) as u8 })
                    .collect();
                let header = Header::new(5, rng.next_u32() as u16, rng.next_u32());
                let bytes = wire(header, &payload);
                assert!(bytes[..bytes.len() - 1].iter().all(|b| *b != 0) && bytes.len() <= wire_len(length));
                assert_eq!(all(&mut receiver, &bytes), [(header, payload)]);
            }
        }
        assert_eq!(receiver.counters, Counters { frames: 1202, ..Counters::default() });
    }

    #[test]
    fn an_output_that_is_too_short_is_refused() {
        let header = Header::new(5, 1, 1);
        let needed = wire(header, &[7; 300]).len();
        for length in 0..needed {
            assert_eq!(encode(header, &[7; 300], &mut vec![0; length]), None, "{length}");
        }
        assert_eq!(encode(header, &[7; 300], &mut vec![0; needed]), Some(needed));
    }

    /// A frame that ends with a block of 254 bytes without a zero: other senders end it with an empty block, or do not.
    #[test]
    fn a_last_block_of_254_bytes_is_taken_with_and_without_an_empty_one_behind_it() {
        let header = Header::new(3, 0x0101, 0x0101_0101);
        let frame = (0..).find_map(|i: u32| {
            let mut payload = [7; 254 - HEADER - CRC];
            payload[..2].copy_from_slice(&[1 + (i % 255) as u8, 1 + (i / 255) as u8]);
            let body = [&header.bytes()[..], &payload].concat();
            let crc = crc32(&body).to_le_bytes();
            (!crc.contains(&0)).then(|| [&body[..], &crc].concat())
        });
        let frame = frame.unwrap();
        let payload = frame[HEADER..frame.len() - CRC].to_vec();
        for end in [&[0][..], &[1, 0]] {
            let bytes = [&[0xff], &frame[..], end].concat();
            assert_eq!(all(&mut Receiver::<FRAME>::new(), &bytes), [(header, payload.clone())], "{end:?}");
        }
        assert_eq!(wire(header, &payload)[..255], [&[0xff], &frame[..]].concat());
    }

    #[test]
    fn a_frame_with_any_bit_flipped_is_not_accepted_and_the_next_one_is() {
        let header = Header::new(3, 9, 4);
        let good = wire(header, &[1, 2, 0, 3, 0, 0, 200]);
        for byte in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                let mut receiver = Receiver::<FRAME>::new();
                let mut bytes = bad.clone();
                // A sender begins a repetition with a delimiter, in case the last one's was lost.
                bytes.push(0);
                bytes.extend(&good);
                assert_eq!(all(&mut receiver, &bytes).len(), 1, "byte {byte} bit {bit}");
                let c = receiver.counters;
                assert!(c.crc + c.framing >= 1 && c.too_long == 0, "{c:?}");
            }
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_counted_once_and_the_next_one_is_accepted() {
        let mut receiver = Receiver::<{ frame_len(4) }>::new();
        for length in [5, 6, 1000] {
            let long = wire(Header::new(1, 2, 3), &vec![1; length]);
            assert!(long.iter().all(|b| receiver.push(*b).is_none()));
        }
        // One that breaks off in the middle is too long all the same.
        let cut = &wire(Header::new(1, 2, 3), &[1; 100])[..60];
        assert!(cut.iter().chain(&[0]).all(|b| receiver.push(*b).is_none()));
        assert_eq!(receiver.counters, Counters { too_long: 4, ..Counters::default() });
        let fits = wire(Header::new(1, 2, 3), &[1; 4]);
        assert_eq!(fits.iter().filter(|b| receiver.push(**b).is_some()).count(), 1);
    }

    /// Random bytes, with good frames between them: every good one that a delimiter precedes is received, and nothing
    /// else is. A wrong frame passes a CRC-32 once in four thousand million.
    #[test]
    fn garbage_is_survived() {
        for seed in 0..20 {
            let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
            let mut receiver = Receiver::<{ frame_len(40) }>::new();
            let (mut bytes_in, mut frames_in) = (0u32, 0u32);
            for round in 0..500 {
                for _ in 0..rng.next_u32() % 900 {
                    // Zeros more often than one in 256, for frames of every length.
                    let word = rng.next_u32();
                    let byte = if word % 20 == 0 { 0 } else { (word >> 8) as u8 };
                    assert!(receiver.push(byte).is_none(), "seed {seed}");
                    bytes_in += 1;
                }
                assert!(receiver.push(0).is_none());
                let header = Header::new(3, 1, round);
                let good = wire(header, &round.to_le_bytes());
                let got: Vec<_> = all(&mut receiver, &good);
                assert_eq!(got, [(header, round.to_le_bytes().to_vec())], "seed {seed}");
                frames_in += 1;
            }
            let c = receiver.counters;
            assert_eq!(c.frames, frames_in);
            assert!(c.framing > 0 && c.crc > 0 && c.too_long > 0 && c.framing + c.crc + c.too_long < bytes_in, "{c:?}");
        }
    }
}
