//! A policy in lent memory: its view, its noise and, behind them, the floats of its decisions.

use crate::error::code;
use crate::flowlet_error;
use crate::flowlet_error::*;
use crate::lent::{apart, area, slice, slice_mut, write};
use core::ffi::{c_char, c_void};
use core::mem::{align_of, size_of};
use flowlet::policy::{Artefact, Policy, PolicyScratch, action_digest};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// A policy in memory that the caller lent.
pub struct flowlet_policy {
    /// [`TAG`] and the address, to know what was opened here.
    tag: usize,
    /// Floats behind this structure.
    floats: usize,
    policy: Policy<'static>,
    noise: Xoshiro128PlusPlus,
}

/// What an opened policy is known by.
const TAG: usize = 0x666c_6f77;

/// What a policy says of itself.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct flowlet_info {
    /// Channels of an observation.
    pub observations: u32,
    /// Channels of an action.
    pub actions: u32,
    /// Steps of the integration.
    pub steps: u32,
    /// Time from one decision to the next, microseconds.
    pub period_us: u32,
    /// Multiply-accumulates of a decision.
    pub macs: u32,
}

/// Checks an artefact for being one, in place.
///
/// # Safety
/// `bytes` points to `length` bytes, as long as `'static` means to the caller.
unsafe fn load(bytes: *const u8, length: usize) -> Result<Policy<'static>, flowlet_error> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { slice(bytes, length) }?;
    Ok(Policy::new(Artefact::new(bytes)?)?)
}

/// Floats of its decisions, and of an observation and an action for the functions that make their own.
fn floats(policy: &Policy<'_>) -> usize {
    let shape = policy.artefact().velocity().shape();
    PolicyScratch::len(shape, policy.plan()).saturating_add(shape.obs).saturating_add(shape.act)
}

/// Bytes that a policy takes with so many floats.
fn size(floats: usize) -> usize {
    const {
        assert!(align_of::<flowlet_policy>() <= 8);
        assert!(size_of::<flowlet_policy>() <= 192 * size_of::<usize>(), "FLOWLET_POLICY_MEMORY in the header says so");
    };
    size_of::<flowlet_policy>().saturating_add(floats.saturating_mul(size_of::<f32>()))
}

/// An opened policy, the memory of its decisions, and an observation and an action.
struct Parts<'p> {
    header: &'p mut flowlet_policy,
    scratch: PolicyScratch<'p>,
    observation: &'p mut [f32],
    action: &'p mut [f32],
}

/// The parts of an opened policy.
///
/// # Safety
/// Where it is not NULL, `policy` points to memory that [`flowlet_policy_open`] opened and nobody else uses now.
unsafe fn parts<'p>(policy: *mut flowlet_policy) -> Result<Parts<'p>, flowlet_error> {
    area(policy, 1)?;
    // SAFETY: aligned, and the tag is plain data wherever the memory is initialised; the caller's promise.
    let tag = unsafe { (&raw const (*policy).tag).read() };
    if tag != TAG ^ policy.addr() {
        return Err(FLOWLET_NOT_OPEN);
    }
    // SAFETY: opened; the floats lie behind the structure, in the memory whose length was checked then.
    let (header, memory) = unsafe {
        let floats = (*policy).floats;
        (&mut *policy, core::slice::from_raw_parts_mut(policy.add(1).cast::<f32>(), floats))
    };
    let shape = header.policy.artefact().velocity().shape();
    let (observation, memory) = memory.split_at_mut_checked(shape.obs).ok_or(FLOWLET_MEMORY)?;
    let (action, memory) = memory.split_at_mut_checked(shape.act).ok_or(FLOWLET_MEMORY)?;
    let scratch = PolicyScratch::carve(shape, header.policy.plan(), memory).ok_or(FLOWLET_MEMORY)?;
    Ok(Parts { header, scratch, observation, action })
}

/// Writes the number of bytes that `flowlet_policy_open` needs for this artefact to `size`.
///
/// # Safety
/// `artefact` points to `length` bytes, `size` to a `size_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_policy_size(artefact: *const u8, length: usize, size: *mut usize) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { load(artefact, length) }.and_then(|policy| unsafe { write(size, self::size(floats(&policy))) }))
}

/// Checks an artefact, makes its policy in `memory` and writes the handle to `policy`. The noise begins at seed 0.
///
/// The artefact is used in place: it must stay where it is, unchanged, as long as the policy is used; so must `memory`,
/// which may be used for something else afterwards (there is nothing to close). Aligned: the artefact to 4 bytes, `memory`
/// to 8. Call `flowlet_policy_self_test` next.
///
/// # Safety
/// `artefact` points to `length` bytes, `memory` to `memory_length` bytes that nobody else uses, `policy` to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_policy_open(
    artefact: *const u8,
    length: usize,
    memory: *mut c_void,
    memory_length: usize,
    policy: *mut *mut flowlet_policy,
) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { open(artefact, length, memory, memory_length, policy) })
}

/// # Safety
/// As of [`flowlet_policy_open`].
unsafe fn open(
    artefact: *const u8,
    length: usize,
    memory: *mut c_void,
    memory_length: usize,
    handle: *mut *mut flowlet_policy,
) -> Result<(), flowlet_error> {
    area(memory.cast::<u64>(), 0)?;
    area(handle, 1)?;
    let lent = area(memory.cast::<u8>(), memory_length)?;
    apart(lent, area(artefact, length)?)?;
    // SAFETY: the caller's promise.
    let policy = unsafe { load(artefact, length) }?;
    let floats = floats(&policy);
    if memory_length < size(floats) {
        return Err(FLOWLET_MEMORY);
    }
    let header = memory.cast::<flowlet_policy>();
    // SAFETY: aligned to 8 bytes and long enough, both checked; zeros are floats. Field by field, so that the stack does not
    // hold the policy twice.
    unsafe {
        (&raw mut (*header).policy).write(policy);
        (&raw mut (*header).noise).write(Xoshiro128PlusPlus::seed_from_u64(0));
        (&raw mut (*header).floats).write(floats);
        (&raw mut (*header).tag).write(TAG ^ header.addr());
        header.add(1).cast::<f32>().write_bytes(0, floats);
    }
    // SAFETY: opened just now.
    let Parts { header: opened, mut scratch, .. } = unsafe { parts(header) }?;
    opened.policy.prepare(&mut scratch)?;
    // SAFETY: checked above.
    unsafe { write(handle, header) }
}

/// Writes what the policy says of itself to `info`.
///
/// # Safety
/// `policy` is NULL or an opened policy, `info` NULL or memory for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_policy_info(policy: *mut flowlet_policy, info: *mut flowlet_info) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { parts(policy) }.and_then(|Parts { header, .. }| {
        let policy = &header.policy;
        let shape = policy.artefact().velocity().shape();
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let said = flowlet_info {
            observations: small(shape.obs),
            actions: small(shape.act),
            steps: small(policy.plan().steps),
            period_us: policy.artefact().period_us(),
            macs: small(policy.macs_per_decision()),
        };
        // SAFETY: the caller's promise.
        unsafe { write(info, said) }
    }))
}

/// Runs the artefact's self-test: whether this machine computes, bit for bit, what was exported.
///
/// # Safety
/// `policy` is NULL or an opened policy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_policy_self_test(policy: *mut flowlet_policy) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { parts(policy) }.and_then(|mut p| Ok(p.header.policy.self_test(&mut p.scratch, p.action)?)))
}

/// Begins the noise of the decisions anew: the same seed, observations and artefact give the same actions everywhere.
///
/// # Safety
/// `policy` is NULL or an opened policy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_policy_seed(policy: *mut flowlet_policy, seed: u64) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { parts(policy) }.map(|p| p.header.noise = Xoshiro128PlusPlus::seed_from_u64(seed)))
}

/// Decides: takes an observation and writes an action, both in the plant's units.
///
/// The action is finite and inside the artefact's range. On an error it is left as it was, and a motor should get its
/// fallback; an observation that is NaN or infinite is an error.
///
/// # Safety
/// `policy` is NULL or an opened policy; `observation` points to `observations` floats, `action` to `actions` floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_policy_act(
    policy: *mut flowlet_policy,
    observation: *const f32,
    observations: usize,
    action: *mut f32,
    actions: usize,
) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { parts(policy) }.and_then(|Parts { header, mut scratch, .. }| {
        let lent = (policy.addr(), policy.addr().saturating_add(size(header.floats)));
        let (from, to) = (area(observation, observations)?, area(action, actions)?);
        apart(from, to)?;
        apart(lent, from)?;
        apart(lent, to)?;
        // SAFETY: the caller's promise.
        let (observation, action) = unsafe { (slice(observation, observations)?, slice_mut(action, actions)?) };
        Ok(header.policy.act(observation, &mut header.noise, &mut scratch, action)?)
    }))
}

/// Runs a thousand decisions on observations from `seed` and writes the digest of their actions to `digest`: the one
/// that `cargo xtask digests --seed` shows for this artefact. The noise of `flowlet_policy_act` stays as it is.
///
/// # Safety
/// `policy` is NULL or an opened policy, `digest` NULL or a `uint64_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_policy_digest(
    policy: *mut flowlet_policy,
    seed: u64,
    digest: *mut u64,
) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { parts(policy) }.and_then(|mut p| {
        area(digest, 1)?;
        let found = action_digest(&p.header.policy, seed, &mut p.scratch, p.observation, p.action)?;
        // SAFETY: the caller's promise.
        unsafe { write(digest, found) }
    }))
}

/// Writes the artefact's name, the robot it was trained for, with a final zero to `text`.
///
/// # Safety
/// `policy` is NULL or an opened policy, `text` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_policy_name(
    policy: *mut flowlet_policy,
    text: *mut c_char,
    length: usize,
) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { parts(policy) }.and_then(|p| unsafe { copy(p.header.policy.artefact().name(), text, length) }))
}

/// Writes the name of an observation channel with a final zero to `text`; 17 bytes are always enough. A firmware compares
/// the names with its own before it drives a motor.
///
/// # Safety
/// `policy` is NULL or an opened policy, `text` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_policy_observation_name(
    policy: *mut flowlet_policy,
    channel: usize,
    text: *mut c_char,
    length: usize,
) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { parts(policy) }.and_then(|Parts { header, .. }| {
        let name = header.policy.artefact().obs_names().nth(channel).ok_or(FLOWLET_INDEX)?;
        // SAFETY: the caller's promise.
        unsafe { copy(name, text, length) }
    }))
}

/// Writes the name of an action channel with a final zero to `text`.
///
/// # Safety
/// `policy` is NULL or an opened policy, `text` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_policy_action_name(
    policy: *mut flowlet_policy,
    channel: usize,
    text: *mut c_char,
    length: usize,
) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { parts(policy) }.and_then(|Parts { header, .. }| {
        let name = header.policy.artefact().act_names().nth(channel).ok_or(FLOWLET_INDEX)?;
        // SAFETY: the caller's promise.
        unsafe { copy(name, text, length) }
    }))
}

/// # Safety
/// `text` points to `length` bytes.
unsafe fn copy(name: &str, text: *mut c_char, length: usize) -> Result<(), flowlet_error> {
    // SAFETY: the caller's promise.
    let text = unsafe { slice_mut(text.cast::<u8>(), length) }?;
    let (place, rest) = text.split_at_mut_checked(name.len()).ok_or(FLOWLET_LENGTH)?;
    *rest.first_mut().ok_or(FLOWLET_LENGTH)? = 0;
    place.copy_from_slice(name.as_bytes());
    Ok(())
}
