//! The board's side from outside: a scripted line in, the answers out, against flowlet's own decisions.
//!
//! A script is all the bytes that arrive, so every run is the same. Oracles: `Policy::act` with the same seed, the bytes
//! of the artefacts, counts kept by the test.

use flowlet::control::{Reason, State};
use flowlet::policy::{Artefact, Policy, PolicyScratch};
use flowlet_link::device::{Memory, Port, scratch_len, serve};
use flowlet_link::frame::{self, Counters, Header, Receiver, VERSION, encode, frame_len, wire_len};
use flowlet_link::message::{Action, Begin, Info, Place, Refusal, Reset, kind, piece, read_counters, telemetry};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;
use zerocopy::IntoBytes;

const PAYLOAD: usize = 256;
const FRAME: usize = frame_len(PAYLOAD);
const WIRE: usize = wire_len(PAYLOAD);

/// A line whose input is known in advance. `None` in it is a rest of one control period.
#[derive(Default)]
struct Script {
    input: VecDeque<Option<u8>>,
    output: Vec<u8>,
    periods: Option<u32>,
}

impl Port for Script {
    const TICKS_PER_SECOND: u32 = 1000;

    fn read(&mut self) -> Option<u8> {
        if let Some(Some(_)) = self.input.front() { self.input.pop_front().flatten() } else { None }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.output.extend(bytes);
    }

    fn idle(&mut self) -> bool {
        if let Some(None) = self.input.front() {
            self.input.pop_front();
            self.periods = self.periods.map(|n| n + 1);
        }
        !self.input.is_empty()
    }

    fn start_periods(&mut self, period_us: u32) -> bool {
        self.periods = Some(0);
        period_us < 1_000_000
    }

    fn stop_periods(&mut self) {
        self.periods = None;
    }

    fn periods(&mut self) -> u32 {
        self.periods.unwrap_or(0)
    }

    fn measure<R>(&mut self, work: impl FnOnce() -> R) -> (R, u32) {
        (work(), 42)
    }
}

/// Bytes at an address divisible by four.
struct Aligned(Vec<u32>, usize);

impl Aligned {
    fn new(bytes: &[u8]) -> Self {
        let words = bytes.chunks(4).map(|c| {
            let mut word = [0; 4];
            word[..c.len()].copy_from_slice(c);
            u32::from_le_bytes(word)
        });
        Self(words.collect(), bytes.len())
    }

    fn get(&self) -> &[u8] {
        &self.0.as_slice().as_bytes()[..self.1]
    }

    /// Replaces bytes and mends the CRC.
    fn edit(&mut self, at: usize, with: &[u8]) {
        let bytes = &mut self.0.as_mut_slice().as_mut_bytes()[..self.1];
        bytes[at..at + with.len()].copy_from_slice(with);
        let (body, crc) = bytes.split_last_chunk_mut::<4>().unwrap();
        *crc = frame::crc32(body).to_le_bytes();
    }
}

fn pendulum() -> Aligned {
    Aligned::new(include_bytes!("../../firmware/policies/pendulum.flw"))
}

/// The same policy under another name, with another action limit and a self-test that fits it.
fn another() -> Aligned {
    let mut bytes = pendulum();
    let (artefact, start) = (Artefact::new(bytes.get()).unwrap(), bytes.get().as_ptr().addr());
    let place = |of: &[f32]| of.as_ptr().addr() - start;
    let high = artefact.range().high;
    let (limit, at, action) = (high[0] + 0.5, place(high), place(artefact.self_test().2));
    bytes.edit(128, b"another\0");
    bytes.edit(at, &limit.to_le_bytes());
    let artefact = Artefact::new(bytes.get()).unwrap();
    let policy = Policy::new(artefact).unwrap();
    let (shape, mut value) = (artefact.velocity().shape(), [0.0]);
    let mut memory = vec![0.0; PolicyScratch::len(shape, policy.plan())];
    let mut scratch = PolicyScratch::carve(shape, policy.plan(), &mut memory).unwrap();
    policy.prepare(&mut scratch).unwrap();
    let (observation, noise, ..) = artefact.self_test();
    policy.act_from_noise(observation, noise, &mut scratch, &mut value).unwrap();
    bytes.edit(action, &value[0].to_le_bytes());
    bytes
}

/// The actions that flowlet decides itself.
fn decisions(artefact: &Aligned, seed: u64, observations: &[[f32; 3]]) -> Vec<u32> {
    let policy = Policy::new(Artefact::new(artefact.get()).unwrap()).unwrap();
    let shape = policy.artefact().velocity().shape();
    let mut memory = vec![0.0; PolicyScratch::len(shape, policy.plan())];
    let mut scratch = PolicyScratch::carve(shape, policy.plan(), &mut memory).unwrap();
    policy.prepare(&mut scratch).unwrap();
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut decide = |observation: &[f32; 3]| {
        let mut action = [0.0];
        policy.act(observation, &mut rng, &mut scratch, &mut action).unwrap();
        action[0].to_bits()
    };
    observations.iter().map(&mut decide).collect()
}

/// Writes requests with rising numbers.
struct Writer {
    script: Script,
    session: u16,
    sequence: u32,
    last: Vec<u8>,
}

impl Writer {
    fn new() -> Self {
        let mut writer = Self { script: Script::default(), session: 0xbeef, sequence: 0xffff_fff0, last: Vec::new() };
        writer.ask(kind::HELLO, &[]);
        writer
    }

    fn send(&mut self, bytes: &[u8]) {
        self.script.input.extend(bytes.iter().map(|b| Some(*b)));
    }

    fn wire(&self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; wire_len(payload.len())];
        let length = encode(Header::new(kind, self.session, self.sequence), payload, &mut out).unwrap();
        out.truncate(length);
        out
    }

    fn ask(&mut self, kind: u8, payload: &[u8]) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.last = self.wire(kind, payload);
        self.send(&self.last.clone());
        self.sequence
    }

    fn again(&mut self) {
        self.send(&self.last.clone());
    }

    fn reset(&mut self, seed: u64) {
        self.ask(kind::RESET, &Reset { seed, ..Reset::default() }.bytes());
    }

    fn observe(&mut self, observation: &[f32]) -> u32 {
        let payload: Vec<u8> = observation.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.ask(kind::OBSERVATION, &payload)
    }

    /// Announces and sends `bytes`; the request that commits them.
    fn upload(&mut self, bytes: &[u8], crc: u32) -> u32 {
        self.ask(kind::BEGIN, &Begin { length: bytes.len() as u32, crc }.bytes());
        for (i, chunk) in bytes.chunks(200).enumerate() {
            let payload = [&(200 * i as u32).to_le_bytes()[..], chunk].concat();
            self.ask(kind::CHUNK, &payload);
        }
        self.ask(kind::COMMIT, &[])
    }

    /// Plays the script on a board with so many bytes for uploads; header and payload of every answer.
    fn play(self, room: usize) -> Vec<(Header, Vec<u8>)> {
        let flash = pendulum();
        let scratch = scratch_len(&Policy::new(Artefact::new(flash.get()).unwrap()).unwrap());
        let (mut uploads, mut scratch) = (vec![0; room.div_ceil(4)], vec![0.0; scratch]);
        let mut port = self.script;
        let memory = Memory { uploads: &mut uploads, scratch: &mut scratch };
        serve::<_, FRAME, WIRE>("test", flash.get(), memory, &mut port).unwrap();
        let mut receiver = Receiver::<FRAME>::new();
        let answers: Vec<_> =
            port.output.iter().filter_map(|b| receiver.push(*b).map(|(h, p)| (h, p.to_vec()))).collect();
        assert_eq!(receiver.counters, Counters { frames: answers.len() as u32, ..Counters::default() });
        answers
    }
}

fn observations(n: usize) -> Vec<[f32; 3]> {
    (0..n).map(|i| [(i as f32 * 0.7).cos(), (i as f32 * 0.7).sin(), i as f32 * 0.01 - 0.3]).collect()
}

/// The first values of the answers to observations.
fn actions(answers: &[(Header, Vec<u8>)]) -> Vec<u32> {
    let of = |(_, p): &(Header, Vec<u8>)| Action::read(p).unwrap().values().next().unwrap().to_bits();
    answers.iter().filter(|(h, _)| h.kind == kind::OBSERVATION | kind::ANSWER).map(of).collect()
}

/// The refusal of the answer to request `sequence`, with its sentence.
fn refusal(answers: &[(Header, Vec<u8>)], sequence: u32) -> (Refusal, String) {
    let (header, payload) = answers.iter().find(|(h, _)| h.sequence == sequence).unwrap();
    assert_eq!(header.kind, kind::ERROR);
    (Refusal::from_code(payload[0]).unwrap(), String::from_utf8(payload[1..].to_vec()).unwrap())
}

fn counters(answers: &[(Header, Vec<u8>)]) -> Counters {
    let (_, payload) = answers.iter().rev().find(|(h, _)| h.kind == kind::COUNT | kind::ANSWER).unwrap();
    read_counters(payload).unwrap()
}

#[test]
fn the_board_decides_as_flowlet_does() {
    let flash = pendulum();
    let mut w = Writer::new();
    for seed in [1, 2] {
        w.reset(seed);
        observations(40).iter().for_each(|o| {
            w.observe(o);
        });
    }
    w.ask(kind::COUNT, &[]);
    let answers = w.play(0);
    let info = Info::read(&answers[0].1).unwrap();
    let artefact = Artefact::new(flash.get()).unwrap();
    assert_eq!((info.board.text(), info.name.text(), info.place), ("test", artefact.name(), Place::Flash));
    assert_eq!((info.obs, info.act, info.period_us), (3, 1, artefact.period_us()));
    assert_eq!((info.length as usize, info.crc), (flash.get().len(), frame::crc32(flash.get())));
    assert_eq!((info.payload as usize, info.room, info.ticks_per_second), (PAYLOAD, 0, 1000));
    let expected = [decisions(&flash, 1, &observations(40)), decisions(&flash, 2, &observations(40))].concat();
    assert_eq!(actions(&answers), expected);
    assert!(answers.iter().all(|(h, p)| h.kind != kind::ERROR
        && (h.kind != kind::OBSERVATION | kind::ANSWER || Action::read(p).unwrap().ticks == 42)));
    assert_eq!(counters(&answers), Counters { frames: 84, ..Counters::default() });
}

/// Garbage, repetitions, old frames, foreign sessions and gaps: the stream of actions is the same.
#[test]
fn a_bad_line_does_not_change_the_stream() {
    let (mut rng, mut expected) = (Xoshiro128PlusPlus::seed_from_u64(5), Counters { frames: 2, ..Counters::default() });
    let mut w = Writer::new();
    w.reset(9);
    let mut old = Vec::new();
    for o in &observations(200) {
        match rng.next_u32() % 6 {
            0 => {
                w.again();
                expected.repeated += 1;
                expected.frames += 1;
            }
            1 if !old.is_empty() => {
                let i = rng.next_u32() as usize % old.len();
                let frame: Vec<u8> = Vec::clone(&old[i]);
                w.send(&frame);
                expected.stale += 1;
                expected.frames += 1;
            }
            2 => {
                // Neither part of it is a frame.
                w.send(&[7, 3, 0, 2, 1, 0]);
                expected.framing += 2;
            }
            3 => {
                let mut bad = w.wire(kind::OBSERVATION, &[1; 12]);
                let at = 1 + rng.next_u32() as usize % 8;
                bad[at] ^= if bad[at] == 0x40 { 0x20 } else { 0x40 };
                w.send(&bad);
                expected.crc += 1;
            }
            4 => {
                w.sequence = w.sequence.wrapping_add(3);
                expected.lost += 3;
            }
            _ => {
                w.session ^= 1;
                let foreign = w.wire(kind::OBSERVATION, &[1; 12]);
                w.session ^= 1;
                w.send(&foreign);
                expected.stale += 1;
                expected.frames += 1;
            }
        }
        old.push(w.last.clone());
        w.observe(o);
        expected.frames += 1;
    }
    w.ask(kind::COUNT, &[]);
    expected.frames += 1;
    let answers = w.play(0);
    let mut seen = Vec::new();
    let once = answers.iter().filter(|(h, _)| {
        let new = !seen.contains(&h.sequence);
        seen.push(h.sequence);
        new
    });
    let once: Vec<_> = once.cloned().collect();
    assert_eq!(actions(&once), decisions(&pendulum(), 9, &observations(200)));
    // What is answered twice is answered with the same bytes.
    for (header, payload) in &answers {
        assert!(once.iter().any(|(h, p)| (h, p) == (header, payload)));
    }
    let found = counters(&answers);
    // A flipped bit may hit COBS's own bytes: then it is the framing that is wrong.
    assert_eq!(found.crc + found.framing, expected.crc + expected.framing);
    assert_eq!(Counters { crc: 0, framing: 0, ..found }, Counters { crc: 0, framing: 0, ..expected });
    assert!(found.crc > 0 && found.framing > 0 && found.repeated > 10 && found.stale > 10 && found.lost > 10);
}

#[test]
fn uploads_take_over_and_bad_ones_do_not() {
    let (first, second) = (another(), pendulum());
    let good = frame::crc32(first.get());
    let mut w = Writer::new();
    w.reset(3);
    observations(5).iter().for_each(|o| {
        w.observe(o);
    });
    // Damaged on the way, damaged before, truncated, wrong self-test: the episode goes on as if nothing had been.
    let mut damaged = first.get().to_vec();
    damaged[500] ^= 4;
    let on_the_way = w.upload(&damaged, good);
    let before = w.upload(&damaged, frame::crc32(&damaged));
    let mut wrong = first.get().to_vec();
    let end = wrong.len() - 4;
    wrong[end - 4] ^= 1;
    let crc = frame::crc32(&wrong[..end]).to_le_bytes();
    wrong[end..].copy_from_slice(&crc);
    let self_test = w.upload(&wrong, frame::crc32(&wrong));
    w.ask(kind::BEGIN, &Begin { length: 300, crc: 0 }.bytes());
    let early = w.ask(kind::COMMIT, &[]);
    w.ask(kind::BEGIN, &Begin { length: 300, crc: 0 }.bytes());
    let gap = w.ask(kind::CHUNK, &[1, 0, 0, 0, 9, 9]);
    w.ask(kind::ABORT, &[]);
    let aborted = w.ask(kind::CHUNK, &[0, 0, 0, 0, 9, 9]);
    let large = w.ask(kind::BEGIN, &Begin { length: 1 << 20, crc: 0 }.bytes());
    observations(9)[5..].iter().for_each(|o| {
        w.observe(o);
    });
    let taken = w.upload(first.get(), good);
    w.again();
    let without = w.observe(&observations(1)[0]);
    w.reset(4);
    observations(5).iter().for_each(|o| {
        w.observe(o);
    });
    let back = w.upload(second.get(), frame::crc32(second.get()));
    w.reset(5);
    observations(5).iter().for_each(|o| {
        w.observe(o);
    });
    // A third goes where the first one was.
    let third = w.upload(first.get(), good);
    for at in (0..first.get().len()).step_by(250) {
        let request = [&(at as u32).to_le_bytes()[..], &250u16.to_le_bytes()].concat();
        w.ask(kind::READ, &request);
    }
    let answers = w.play(first.get().len() + second.get().len() + 8);
    let expected = [
        decisions(&second, 3, &observations(9)),
        decisions(&first, 4, &observations(5)),
        decisions(&second, 5, &observations(5)),
    ];
    assert_eq!(actions(&answers), expected.concat());
    assert!(expected[0][..5] != expected[1][..5]);
    let (reason, said) = refusal(&answers, on_the_way);
    assert!(reason == Refusal::Artefact && said.contains("announced"), "{said}");
    let (reason, said) = refusal(&answers, before);
    assert!(reason == Refusal::Artefact && said.contains("checksum"), "{said}");
    let (reason, said) = refusal(&answers, self_test);
    assert!(reason == Refusal::Artefact && said.contains("self-test"), "{said}");
    for sequence in [early, gap, aborted] {
        assert_eq!(refusal(&answers, sequence).0, Refusal::Order);
    }
    let (reason, said) = refusal(&answers, large);
    assert!(reason == Refusal::Room && said.contains("1048576 bytes"), "{said}");
    assert_eq!(refusal(&answers, without).0, Refusal::NoEpisode);
    for (sequence, name) in [(taken, "another"), (back, "pendulum"), (third, "another")] {
        let infos: Vec<_> = answers.iter().filter(|(h, _)| h.sequence == sequence).collect();
        let info = Info::read(&infos[0].1).unwrap();
        assert_eq!((info.name.text(), info.place), (name, Place::Ram));
        // The repeated commit was answered again and not carried out again.
        assert_eq!(infos.len(), if sequence == taken { 2 } else { 1 });
        assert_eq!(infos[0], infos[infos.len() - 1]);
    }
    let read: Vec<u8> = answers
        .iter()
        .filter(|(h, _)| h.kind == kind::READ | kind::ANSWER)
        .flat_map(|(_, p)| piece(p).unwrap().1.to_vec())
        .collect();
    assert!(read == first.get());
}

#[test]
fn the_want_of_observations_is_latched_until_the_next_reset() {
    let mut w = Writer::new();
    let patient = Reset { seed: 1, patience: 3, telemetry: 0 };
    w.ask(kind::RESET, &patient.bytes());
    for (o, rest) in observations(6).iter().zip([0, 2, 2, 3, 0, 0]) {
        w.script.input.extend((0..rest).map(|_| None));
        w.observe(o);
    }
    w.ask(kind::RESET, &patient.bytes());
    w.observe(&observations(1)[0]);
    w.reset(1);
    w.script.input.extend([None; 100]);
    w.observe(&observations(1)[0]);
    let answers = w.play(0);
    let statuses: Vec<(State, Reason)> = answers
        .iter()
        .filter(|(h, _)| h.kind == kind::OBSERVATION | kind::ANSWER)
        .map(|(_, p)| Action::read(p).unwrap().status)
        .map(|status| (status.state, status.fault.reason))
        .collect();
    let (run, missing) = ((State::Running, Reason::None), (State::Fault, Reason::Missing));
    assert_eq!(statuses, [run, run, run, missing, missing, missing, run, run]);
    let expected = decisions(&pendulum(), 1, &observations(3));
    assert_eq!(actions(&answers), [&expected[..3], &[0; 3], &[expected[0]; 2]].concat());
}

#[test]
fn telemetry_comes_when_it_is_asked_for() {
    let mut w = Writer::new();
    w.ask(kind::RESET, &Reset { seed: 1, patience: 0, telemetry: 4 }.bytes());
    observations(10).iter().for_each(|o| {
        w.observe(o);
    });
    w.again();
    let answers = w.play(0);
    let found: Vec<(u32, u8, Vec<f32>)> = answers
        .iter()
        .filter(|(h, _)| h.kind == kind::TELEMETRY)
        .map(|(h, p)| {
            let (channel, values) = telemetry(p).unwrap();
            (h.sequence, channel, values.collect())
        })
        .collect();
    assert_eq!(found, [(0, 0, vec![4.0, 42.0, 42.0]), (1, 0, vec![8.0, 42.0, 42.0])]);
    assert_eq!(actions(&answers)[..10], decisions(&pendulum(), 1, &observations(10)));
}

#[test]
fn what_cannot_be_carried_out_is_refused_by_name() {
    let mut w = Writer::new();
    let early = w.observe(&[0.0; 3]);
    w.reset(1);
    let short = w.observe(&[0.0; 2]);
    let odd = w.ask(kind::OBSERVATION, &[0; 13]);
    let unknown = w.ask(0x55, &[]);
    let reset = w.ask(kind::RESET, &[1, 2, 3]);
    let past = w.ask(kind::READ, &[0xff, 0xff, 0xff, 0xff, 8, 0]);
    let alive = w.observe(&observations(1)[0]);
    w.sequence = w.sequence.wrapping_add(1);
    let header = Header { version: VERSION + 1, ..Header::new(kind::HELLO, w.session, w.sequence) };
    let newer = w.sequence;
    let mut out = vec![0; 64];
    let length = encode(header, &[], &mut out).unwrap();
    w.send(&out[..length]);
    let answers = w.play(0);
    for (sequence, reason, word) in [
        (early, Refusal::NoEpisode, "episode"),
        (short, Refusal::Length, "length"),
        (odd, Refusal::Length, "length"),
        (unknown, Refusal::Kind, "does not know"),
        (reset, Refusal::Length, "length"),
        (newer, Refusal::Version, "version"),
    ] {
        let (found, said) = refusal(&answers, sequence);
        assert!(found == reason && said.contains(word), "{reason:?}: {said}");
    }
    // Past the end there is nothing to read; and the refused observations took nothing from the noise.
    assert_eq!(answers.iter().find(|(h, _)| h.sequence == past).unwrap().1, [0xff; 4]);
    assert!(answers.iter().any(|(h, _)| h.sequence == alive));
    assert_eq!(actions(&answers), decisions(&pendulum(), 1, &observations(1)));
}

/// A frame of another version between a request and its repetition: the repetition gets the request's answer.
#[test]
fn the_stored_answer_outlives_a_frame_of_another_version() {
    let mut w = Writer::new();
    w.reset(1);
    let asked = w.observe(&observations(1)[0]);
    let mut out = [0; 64];
    let header = Header { version: VERSION + 1, ..Header::new(kind::HELLO, 0x7777, 5) };
    let length = encode(header, &[], &mut out).unwrap();
    w.send(&out[..length]);
    w.again();
    w.ask(kind::COUNT, &[]);
    let answers = w.play(0);
    let of: Vec<_> = answers.iter().filter(|(h, _)| h.sequence == asked).collect();
    assert!(of.len() == 2 && of[0] == of[1] && of[0].0.kind == kind::OBSERVATION | kind::ANSWER, "{of:?}");
    let (header, payload) = answers.iter().find(|(h, _)| h.kind == kind::ERROR).unwrap();
    assert_eq!((header.version, header.session, header.sequence), (VERSION, 0x7777, 5));
    assert_eq!(Refusal::from_code(payload[0]), Some(Refusal::Version));
    assert_eq!(counters(&answers), Counters { frames: 6, repeated: 1, refused: 1, ..Counters::default() });
}

/// What the answers to observations say: state, reason, channel, action.
fn told(answers: &[(Header, Vec<u8>)]) -> Vec<(State, Reason, u8, u32)> {
    let of = |(_, p): &(Header, Vec<u8>)| {
        let action = Action::read(p).unwrap();
        let (status, bits) = (action.status, action.values().next().unwrap().to_bits());
        (status.state, status.fault.reason, status.fault.channel, bits)
    };
    answers.iter().filter(|(h, _)| h.kind == kind::OBSERVATION | kind::ANSWER).map(of).collect()
}

/// Each kind of bad number on each channel at each step, alone and from then on: held over without drawing noise, the third
/// in a row latches until the next reset, and a refused upload in between does not become an action.
#[test]
fn numbers_that_are_none_are_held_over_and_then_latched() {
    const STEPS: usize = 12;
    let seen = observations(STEPS);
    let good = decisions(&pendulum(), 6, &seen);
    let mut w = Writer::new();
    let mut expected = Vec::new();
    let none = Reason::None;
    for (channel, bad) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
        for at in 0..STEPS {
            for lasting in [false, true] {
                w.reset(6);
                let (mut held, mut decided) = (0, 0);
                for (i, o) in seen.iter().enumerate() {
                    let mut o = *o;
                    if i == at || (lasting && i > at) {
                        o[channel] = bad;
                        w.observe(&o);
                        expected.push(match i - at {
                            0 | 1 => (State::Holding, none, 0xff, held),
                            _ => (State::Fault, Reason::NotFinite, channel as u8, 0),
                        });
                    } else {
                        // The noise of the decision that was not made is the next one's.
                        w.observe(&seen[decided]);
                        held = good[decided];
                        decided += 1;
                        expected.push((State::Running, none, 0xff, held));
                    }
                }
            }
        }
    }
    // A glitch after an upload that was refused: the scratch was another policy's, what is held is the fallback.
    w.reset(6);
    w.observe(&seen[0]);
    let mut wrong = another().get().to_vec();
    let end = wrong.len() - 4;
    wrong[end - 4] ^= 1;
    let crc = frame::crc32(&wrong[..end]).to_le_bytes();
    wrong[end..].copy_from_slice(&crc);
    let refused = w.upload(&wrong, frame::crc32(&wrong));
    w.observe(&[f32::NAN; 3]);
    w.observe(&seen[1]);
    for bits in [(State::Running, good[0]), (State::Holding, 0), (State::Running, good[1])] {
        expected.push((bits.0, none, 0xff, bits.1));
    }
    let answers = w.play(wrong.len() + 8);
    assert_eq!(refusal(&answers, refused).0, Refusal::Artefact);
    assert_eq!(told(&answers), expected);
}

/// Random requests with a good CRC, random bytes between them: no panic, and the board still decides as it should.
#[test]
fn any_requests_are_survived() {
    for seed in 0..30 {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
        let mut w = Writer::new();
        let policy = another();
        for _ in 0..400 {
            let length = rng.next_u32() as usize % (PAYLOAD + 20);
            let mut payload: Vec<u8> = (0..length).map(|_| rng.next_u32() as u8).collect();
            // Small numbers are more often lawful.
            if rng.next_u32() % 2 == 0 {
                payload.iter_mut().skip(1).for_each(|b| *b = if *b < 200 { 0 } else { *b });
            }
            let kind = (rng.next_u32() % 15) as u8;
            match rng.next_u32() % 8 {
                0 => payload.truncate(8),
                1 => payload.truncate(16),
                2 => payload.truncate(12),
                3 => {
                    w.script.input.push_back(None);
                }
                4 => w.send(&payload),
                5 if rng.next_u32() % 10 == 0 => {
                    w.upload(policy.get(), frame::crc32(policy.get()));
                    continue;
                }
                _ => {}
            }
            w.ask(kind, &payload);
        }
        w.send(&[0]);
        w.session = 0x1111;
        w.ask(kind::HELLO, &[]);
        let fresh = pendulum();
        let committed = w.upload(fresh.get(), frame::crc32(fresh.get()));
        w.reset(77);
        let first = w.sequence;
        observations(10).iter().for_each(|o| {
            w.observe(o);
        });
        let answers = w.play(3 * policy.get().len());
        assert!(
            answers.iter().any(|(h, _)| h.sequence == committed && h.kind == kind::COMMIT | kind::ANSWER),
            "{seed}"
        );
        let last: Vec<_> =
            answers.into_iter().filter(|(h, _)| h.session == 0x1111 && h.sequence.wrapping_sub(first) <= 10).collect();
        assert_eq!(actions(&last), decisions(&fresh, 77, &observations(10)), "seed {seed}");
    }
}
