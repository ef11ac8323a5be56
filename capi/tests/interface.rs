//! The C functions called as C calls them, on artefacts with random weights: the library's own answers are the oracle, and
//! every wrong pointer, length and handle has its error. Miri runs this file.

#[allow(dead_code)]
#[path = "../../tests/common/mod.rs"]
mod common;

use common::{Aligned, SMALL, artefact};
use core::ffi::{CStr, c_char, c_void};
use core::mem::MaybeUninit;
use core::ptr::{null, null_mut};
use flowlet::policy::{StaticPolicy, action_digest};
use flowlet_c::flowlet_error::*;
use flowlet_c::*;
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

type Small<'a> = StaticPolicy<'a, 3, 2, 6, 3>;

/// An artefact and the memory that a C program would lend for it.
struct Lent {
    bytes: Aligned,
    memory: Vec<MaybeUninit<u64>>,
    size: usize,
}

impl Lent {
    fn new() -> Self {
        let bytes = artefact(SMALL);
        let mut size = 0;
        let (pointer, length) = (bytes.bytes().as_ptr(), bytes.bytes().len());
        assert_eq!(unsafe { flowlet_policy_size(pointer, length, &mut size) }, FLOWLET_OK);
        Self { bytes, memory: vec![MaybeUninit::uninit(); size.div_ceil(8)], size }
    }

    fn open(&mut self) -> *mut flowlet_policy {
        let mut policy = null_mut();
        let (pointer, length) = (self.bytes.bytes().as_ptr(), self.bytes.bytes().len());
        let memory = self.memory.as_mut_ptr().cast();
        assert_eq!(unsafe { flowlet_policy_open(pointer, length, memory, self.size, &mut policy) }, FLOWLET_OK);
        assert_eq!(policy.cast::<c_void>(), memory);
        policy
    }
}

fn act(policy: *mut flowlet_policy, observation: &[f32], action: &mut [f32]) -> flowlet_error {
    let (o, a) = (observation.as_ptr(), action.as_mut_ptr());
    unsafe { flowlet_policy_act(policy, o, observation.len(), a, action.len()) }
}

#[test]
fn actions_and_digest_have_the_bits_of_the_library() {
    let mut lent = Lent::new();
    let policy = lent.open();
    let bytes = artefact(SMALL);
    let mut reference = Small::new(bytes.bytes()).unwrap();
    assert_eq!(unsafe { flowlet_policy_self_test(policy) }, FLOWLET_OK);
    // The noise begins at seed 0, and again wherever it is asked to.
    for (turn, seed) in [0, 7, u64::MAX, 0].into_iter().enumerate() {
        if turn > 0 {
            assert_eq!(unsafe { flowlet_policy_seed(policy, seed) }, FLOWLET_OK);
        }
        let mut noise = Xoshiro128PlusPlus::seed_from_u64(seed);
        for i in 0..5 {
            let observation = [i as f32, -0.5, 2.0];
            let mut action = [f32::NAN; 2];
            assert_eq!(act(policy, &observation, &mut action), FLOWLET_OK);
            assert_eq!(action, reference.act(&observation, &mut noise).unwrap());
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "a thousand decisions take Miri half an hour")]
fn the_digest_is_that_of_the_library() {
    let mut lent = Lent::new();
    let policy = lent.open();
    let bytes = artefact(SMALL);
    let mut reference = Small::new(bytes.bytes()).unwrap();
    let (view, mut scratch) = reference.parts();
    let expected = action_digest(view, 3, &mut scratch, &mut [0.0; 3], &mut [0.0; 2]).unwrap();
    let mut digest = 0;
    assert_eq!(unsafe { flowlet_policy_digest(policy, 3, &mut digest) }, FLOWLET_OK);
    assert_eq!(digest, expected);
}

#[test]
fn a_policy_says_what_it_is() {
    let mut lent = Lent::new();
    let policy = lent.open();
    let mut info = flowlet_info::default();
    assert_eq!(unsafe { flowlet_policy_info(policy, &mut info) }, FLOWLET_OK);
    assert_eq!((info.observations, info.actions, info.steps, info.period_us), (3, 2, 3, 10_000));
    assert_eq!(info.macs as usize, Small::new(artefact(SMALL).bytes()).unwrap().policy().macs_per_decision());
    let mut text = [1 as c_char; 10];
    let said = |text: &[c_char]| unsafe { CStr::from_ptr(text.as_ptr()) }.to_str().unwrap().to_string();
    assert_eq!(unsafe { flowlet_policy_name(policy, text.as_mut_ptr(), 10) }, FLOWLET_OK);
    assert_eq!(said(&text), "test rig");
    assert_eq!(unsafe { flowlet_policy_observation_name(policy, 2, text.as_mut_ptr(), 10) }, FLOWLET_OK);
    assert_eq!(said(&text), "channel 2");
    assert_eq!(unsafe { flowlet_policy_action_name(policy, 1, text.as_mut_ptr(), 10) }, FLOWLET_OK);
    assert_eq!(said(&text), "channel 1");
    for (channel, length, error) in [(3, 10, FLOWLET_INDEX), (0, 9, FLOWLET_LENGTH), (0, 0, FLOWLET_LENGTH)] {
        let named = unsafe { flowlet_policy_observation_name(policy, channel, text.as_mut_ptr(), length) };
        assert_eq!((named, said(&text).as_str()), (error, "channel 1"));
    }
    assert_eq!(unsafe { flowlet_policy_action_name(policy, 2, text.as_mut_ptr(), 10) }, FLOWLET_INDEX);
}

#[test]
fn wrong_arguments_of_size_and_open_are_named_and_write_nothing() {
    let mut lent = Lent::new();
    let bytes = lent.bytes.bytes().to_vec();
    let good = Aligned::new(&bytes);
    let (artefact, length) = (good.bytes().as_ptr(), bytes.len());
    let mut size = 77;
    assert_eq!(unsafe { flowlet_policy_size(null(), length, &mut size) }, FLOWLET_NULL);
    assert_eq!(unsafe { flowlet_policy_size(artefact, length, null_mut()) }, FLOWLET_NULL);
    assert_eq!(unsafe { flowlet_policy_size(artefact, usize::MAX, &mut size) }, FLOWLET_OVERLAP);
    assert_eq!(unsafe { flowlet_policy_size(artefact, 20, &mut size) }, FLOWLET_DAMAGED);
    let damaged = |at: usize, bit: u8| {
        let mut bad = Aligned::new(&bytes);
        bad.bytes_mut()[at] ^= bit;
        bad
    };
    for (at, bit, error) in [(0, 1, FLOWLET_NO_ARTEFACT), (4, 64, FLOWLET_VERSION), (600, 1, FLOWLET_DAMAGED)] {
        let bad = damaged(at, bit);
        assert_eq!(unsafe { flowlet_policy_size(bad.bytes().as_ptr(), length, &mut size) }, error);
    }
    let shifted = Aligned::new(&[&[0], bytes.as_slice()].concat());
    let pointer = shifted.bytes()[1..].as_ptr();
    assert_eq!(unsafe { flowlet_policy_size(pointer, length, &mut size) }, FLOWLET_MISALIGNED);
    assert_eq!(size, 77);

    let mut policy = null_mut();
    let whole = lent.size;
    let memory = lent.memory.as_mut_ptr().cast::<u8>();
    let mut refused = |memory: *mut u8, memory_length, error| {
        let opened = unsafe { flowlet_policy_open(artefact, length, memory.cast(), memory_length, &mut policy) };
        assert_eq!(opened, error);
    };
    refused(null_mut(), whole, FLOWLET_NULL);
    refused(memory.wrapping_add(4), whole - 4, FLOWLET_MISALIGNED);
    refused(memory, whole - 1, FLOWLET_MEMORY);
    refused(memory, 0, FLOWLET_MEMORY);
    refused(memory, usize::MAX, FLOWLET_OVERLAP);
    assert!(policy.is_null());
    let opened = unsafe { flowlet_policy_open(artefact, length, memory.cast(), whole, null_mut()) };
    assert_eq!(opened, FLOWLET_NULL);
    // The artefact inside the lent memory would be overwritten.
    let mut both = vec![0u64; whole];
    let pointer = both.as_mut_ptr();
    let opened = unsafe { flowlet_policy_open(pointer.cast(), length, pointer.cast(), whole, &mut policy) };
    assert_eq!((opened, policy), (FLOWLET_OVERLAP, null_mut()));
}

#[test]
fn wrong_handles_lengths_numbers_and_overlaps_leave_the_action() {
    let mut lent = Lent::new();
    let policy = lent.open();
    let mut action = [0.25, 0.5];
    assert_eq!(act(null_mut(), &[0.0; 3], &mut action), FLOWLET_NULL);
    assert_eq!(act(policy, &[0.0; 2], &mut action), FLOWLET_LENGTH);
    assert_eq!(act(policy, &[0.0; 4], &mut action), FLOWLET_LENGTH);
    assert_eq!(act(policy, &[0.0; 3], &mut action[..1]), FLOWLET_LENGTH);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for channel in 0..3 {
            let mut observation = [0.0; 3];
            observation[channel] = bad;
            assert_eq!(act(policy, &observation, &mut action), FLOWLET_OBSERVATION);
        }
    }
    let o = [0.0f32; 4];
    let a = action.as_mut_ptr();
    assert_eq!(unsafe { flowlet_policy_act(policy, null(), 3, a, 2) }, FLOWLET_NULL);
    assert_eq!(unsafe { flowlet_policy_act(policy, o.as_ptr(), 3, null_mut(), 2) }, FLOWLET_NULL);
    let odd = o.as_ptr().cast::<u8>().wrapping_add(2).cast();
    assert_eq!(unsafe { flowlet_policy_act(policy, odd, 3, a, 2) }, FLOWLET_MISALIGNED);
    assert_eq!(unsafe { flowlet_policy_act(policy, o.as_ptr(), usize::MAX / 8, a, 2) }, FLOWLET_LENGTH);
    assert_eq!(unsafe { flowlet_policy_act(policy, o.as_ptr(), usize::MAX, a, 2) }, FLOWLET_OVERLAP);
    assert_eq!(unsafe { flowlet_policy_act(policy, a, 2, a.wrapping_add(1), 1) }, FLOWLET_OVERLAP);
    assert_eq!(unsafe { flowlet_policy_act(policy, policy.cast(), 3, a, 2) }, FLOWLET_OVERLAP);
    assert_eq!(unsafe { flowlet_policy_act(policy, o.as_ptr(), 3, policy.cast(), 2) }, FLOWLET_OVERLAP);
    assert_eq!(action, [0.25, 0.5]);
    assert_eq!(act(policy, &[0.0; 3], &mut action), FLOWLET_OK);

    // Memory that was never opened, and an opened policy that was moved.
    let mut blank = vec![0u64; lent.memory.len()];
    assert_eq!(act(blank.as_mut_ptr().cast(), &[0.0; 3], &mut action), FLOWLET_NOT_OPEN);
    let moved: &mut [MaybeUninit<u64>] = &mut lent.memory.clone();
    assert_eq!(act(moved.as_mut_ptr().cast(), &[0.0; 3], &mut action), FLOWLET_NOT_OPEN);
    let odd = policy.cast::<u8>().wrapping_add(1).cast();
    assert_eq!(unsafe { flowlet_policy_self_test(odd) }, FLOWLET_MISALIGNED);
    let (mut digest, mut info) = (0, flowlet_info::default());
    unsafe {
        assert_eq!(flowlet_policy_self_test(null_mut()), FLOWLET_NULL);
        assert_eq!(flowlet_policy_seed(null_mut(), 1), FLOWLET_NULL);
        assert_eq!(flowlet_policy_digest(null_mut(), 1, &mut digest), FLOWLET_NULL);
        assert_eq!(flowlet_policy_digest(policy, 1, null_mut()), FLOWLET_NULL);
        assert_eq!(flowlet_policy_info(null_mut(), &mut info), FLOWLET_NULL);
        assert_eq!(flowlet_policy_info(policy, null_mut()), FLOWLET_NULL);
        assert_eq!(flowlet_policy_name(policy, null_mut(), 9), FLOWLET_NULL);
    }
}

#[test]
fn a_failed_self_test_is_told() {
    let mut lent = Lent::new();
    // The least bit of the expected action, with the checksum mended as a careless tool would.
    let bytes = lent.bytes.bytes();
    let view = flowlet::policy::Artefact::new(bytes).unwrap();
    let at = view.self_test().2.as_ptr().addr() - bytes.as_ptr().addr();
    lent.bytes.bytes_mut()[at] ^= 1;
    let end = lent.bytes.bytes().len() - 4;
    let crc = crc32(&lent.bytes.bytes()[..end]);
    lent.bytes.bytes_mut()[end..].copy_from_slice(&crc.to_le_bytes());
    let policy = lent.open();
    assert_eq!(unsafe { flowlet_policy_self_test(policy) }, FLOWLET_SELF_TEST);
}

/// CRC-32/ISO-HDLC bit by bit, as the catalogue describes it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn a_gate_holds_commands_and_refuses_wrong_limits() {
    let mut memory = vec![MaybeUninit::<u64>::uninit(); flowlet_gate_size().div_ceil(8)];
    let place = memory.as_mut_ptr().cast::<c_void>();
    let size = flowlet_gate_size();
    let none = f32::INFINITY;
    let limits = flowlet_limits { low: -10.0, high: 10.0, rate: 1_000.0, jerk: none, fallback: 1.0, stop: 0.0 };
    let mut gate = null_mut();
    let open = |limits: &flowlet_limits, gate: &mut *mut flowlet_gate| unsafe {
        flowlet_gate_open(limits, 2_000, place, size, gate)
    };
    for bad in [
        flowlet_limits { low: 11.0, ..limits },
        flowlet_limits { rate: 0.0, ..limits },
        flowlet_limits { jerk: f32::NAN, ..limits },
        flowlet_limits { fallback: 20.0, ..limits },
    ] {
        assert_eq!(open(&bad, &mut gate), FLOWLET_LIMITS);
    }
    unsafe {
        assert_eq!(flowlet_gate_open(&limits, 0, place, size, &mut gate), FLOWLET_LIMITS);
        assert_eq!(flowlet_gate_open(null(), 2_000, place, size, &mut gate), FLOWLET_NULL);
        assert_eq!(flowlet_gate_open(&limits, 2_000, null_mut(), size, &mut gate), FLOWLET_NULL);
        assert_eq!(flowlet_gate_open(&limits, 2_000, place, size - 1, &mut gate), FLOWLET_MEMORY);
        assert_eq!(flowlet_gate_open(&limits, 2_000, place, size, null_mut()), FLOWLET_NULL);
    }
    assert!(gate.is_null());
    assert_eq!(open(&limits, &mut gate), FLOWLET_OK);
    let mut command = f32::NAN;
    for (wish, expected) in [(1.5, 1.5), (9.0, 3.5), (f32::NAN, 1.5), (none, 1.0), (-0.25, -0.25)] {
        assert_eq!(unsafe { flowlet_gate_apply(gate, wish, &mut command) }, FLOWLET_OK);
        assert_eq!(command, expected);
    }
    assert_eq!(unsafe { flowlet_gate_stop(gate, &mut command) }, FLOWLET_OK);
    assert_eq!(command, 0.0);
    let mut blank = vec![0u64; memory.len()];
    unsafe {
        assert_eq!(flowlet_gate_apply(null_mut(), 1.0, &mut command), FLOWLET_NULL);
        assert_eq!(flowlet_gate_apply(gate, 1.0, null_mut()), FLOWLET_NULL);
        assert_eq!(flowlet_gate_stop(gate, null_mut()), FLOWLET_NULL);
        assert_eq!(flowlet_gate_apply(blank.as_mut_ptr().cast(), 1.0, &mut command), FLOWLET_NOT_OPEN);
    }
    assert_eq!(command, 0.0);
}

#[test]
fn every_error_has_a_sentence_of_its_own() {
    let text = |error: i32| unsafe { CStr::from_ptr(flowlet_error_text(error)) }.to_str().unwrap();
    let mut texts: Vec<&str> = (-1..=15).map(text).collect();
    assert_eq!((texts[0], text(16), text(i32::MIN)), (text(99), text(99), text(99)));
    assert_eq!((texts[1], FLOWLET_LIMITS as i32), ("done", 15));
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 17);
}
