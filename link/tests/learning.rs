//! Learning on the board from outside: a scripted line in, the answers out, against a session that is played here.
//!
//! A script is all the bytes that arrive, so every run is the same. Oracles: `Session` with the same requests, its
//! learner's `merge`, and words that a refusal must have.

use flowlet::finetune::guard::{self, Passage, Player};
use flowlet::finetune::session::{self, Session};
use flowlet::finetune::{self, Learner, Optimiser, Storage, Trained, words};
use flowlet::policy::{Artefact, Policy, PolicyScratch};
use flowlet_link::device::{Memory, Port, scratch_len, serve};
use flowlet_link::frame::{Header, Receiver, crc32, encode, frame_len, wire_len};
use flowlet_link::learning::{Learn, Learning};
use flowlet_link::message::{Action, Begin, Info, Refusal, Reset, kind, piece};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;
use zerocopy::IntoBytes;

const PAYLOAD: usize = 256;
const FRAME: usize = frame_len(PAYLOAD);
const WIRE: usize = wire_len(PAYLOAD);

/// Control steps of a decision, decisions of an episode, which is a block.
const STEPS: usize = 2;
const DECISIONS: usize = 30;

/// A line whose input is known in advance; `None` in it is a rest.
#[derive(Default)]
struct Script {
    input: VecDeque<Option<u8>>,
    output: Vec<u8>,
    logged: Vec<Learning>,
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
        self.input.pop_front();
        !self.input.is_empty()
    }

    fn start_periods(&mut self, _: u32) -> bool {
        true
    }

    fn stop_periods(&mut self) {}

    fn periods(&mut self) -> u32 {
        0
    }

    fn measure<R>(&mut self, work: impl FnOnce() -> R) -> (R, u32) {
        (work(), 42)
    }

    fn learning(&mut self, learning: &Learning) {
        self.logged.push(*learning);
    }
}

/// Bytes at an address divisible by four.
struct Aligned(Vec<u32>, usize);

impl Aligned {
    fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0; bytes.len().div_ceil(4)];
        words.as_mut_slice().as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        Self(words, bytes.len())
    }

    fn get(&self) -> &[u8] {
        &self.0.as_slice().as_bytes()[..self.1]
    }
}

/// The policy to learn from.
fn furuta() -> Aligned {
    Aligned::new(include_bytes!("../../firmware/policies/furuta-critic.flw"))
}

/// Small constants, with which much happens soon: blocks of an episode, an update every second decision.
fn learn() -> Learn {
    let learner = finetune::Config {
        actor: Trained::LowRank(1),
        critic: Trained::Last(1),
        optimiser: Optimiser::Adam,
        transitions: 64,
        storage: Storage::I16,
        batch: 4,
        actor_batch: 2,
        candidates: 4,
        critic_rate: 1e-3,
        actor_rate: 1e-2,
        gradient_limit: 10.0,
        discount: 0.99,
        target_rate: 0.1,
        acting_rate: 0.5,
        temperature: 0.1,
        spread: 0.3,
        reward_limit: 2.0,
        every: 2,
        warmup: 3,
        exploration: 0.1,
        correlation: 0.5,
        stride: 2,
        horizon: 2,
        slice: 20_000,
    };
    let guard = guard::Config { settle: 0, alpha: 0.5, ..guard::Config::new((STEPS * DECISIONS) as u16) };
    let session = session::Config { screening: 1, gain: 0.0, ..session::Config::new(guard) };
    Learn { seed: 5, noise: 6, telemetry: 7, learner, session }
}

/// What the plant would have sent: an observation, and a reward and a metric for each control step.
struct Plant(Xoshiro128PlusPlus);

impl Plant {
    fn number(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32
    }

    fn observation(&mut self) -> [f32; 5] {
        [(); 5].map(|()| 2.0 * self.number() - 1.0)
    }

    fn steps(&mut self) -> Vec<(f32, f32)> {
        (0..STEPS).map(|_| (self.number(), self.number())).collect()
    }
}

/// Writes requests with rising numbers.
struct Writer {
    script: Script,
    sequence: u32,
    last: Vec<u8>,
}

impl Writer {
    fn new() -> Self {
        let mut writer = Self { script: Script::default(), sequence: 0, last: Vec::new() };
        writer.ask(kind::HELLO, &[]);
        writer
    }

    fn ask(&mut self, kind: u8, payload: &[u8]) -> u32 {
        self.sequence += 1;
        let mut wire = vec![0; wire_len(payload.len())];
        let length = encode(Header::new(kind, 9, self.sequence), payload, &mut wire).unwrap();
        self.last = wire[..length].to_vec();
        self.again();
        self.sequence
    }

    /// The last request once more.
    fn again(&mut self) {
        self.script.input.extend(self.last.iter().copied().map(Some));
    }

    fn sample(&mut self, end: u8, steps: &[(f32, f32)], observation: &[f32]) -> u32 {
        let mut payload = vec![end, steps.len() as u8, 0, 0];
        payload.extend(steps.iter().flat_map(|(r, m)| [r.to_le_bytes(), m.to_le_bytes()]).flatten());
        payload.extend(observation.iter().flat_map(|o| o.to_le_bytes()));
        self.ask(kind::SAMPLE, &payload)
    }

    /// What the board answers, with so many bytes of room for uploads, and what it logs.
    fn play(mut self, room: usize) -> (Vec<(Header, Vec<u8>)>, Vec<Learning>) {
        let flash = furuta();
        let needed = scratch_len(&Policy::new(Artefact::new(flash.get()).unwrap()).unwrap());
        let (mut uploads, mut scratch) = (vec![0; room / 4], vec![0.0; needed]);
        let memory = Memory { uploads: &mut uploads, scratch: &mut scratch };
        serve::<_, FRAME, WIRE>("test", flash.get(), memory, &mut self.script).unwrap();
        let mut receiver = Receiver::<FRAME>::new();
        let answers = self.script.output.iter().filter_map(|byte| receiver.push(*byte).map(|(h, p)| (h, p.to_vec())));
        (answers.collect(), self.script.logged)
    }
}

fn answer(answers: &[(Header, Vec<u8>)], sequence: u32) -> &(Header, Vec<u8>) {
    answers.iter().find(|(h, _)| h.sequence == sequence && h.kind != kind::TELEMETRY).unwrap()
}

fn refusal(answers: &[(Header, Vec<u8>)], sequence: u32) -> (Refusal, String) {
    let (header, payload) = answer(answers, sequence);
    assert_eq!(header.kind, kind::ERROR, "{sequence}: {payload:?}");
    (Refusal::from_code(payload[0]).unwrap(), String::from_utf8(payload[1..].to_vec()).unwrap())
}

fn words_of(artefact: &Artefact<'_>, learn: &Learn) -> usize {
    words(artefact.velocity().shape(), artefact.critics().next().unwrap().shape(), &learn.learner)
}

/// Episodes by the board and by a session here: every action, telemetry and what was learned have the same bits. The metric
/// is such that candidates win.
#[test]
fn the_board_learns_as_a_session_does() {
    const EPISODES: usize = 24;
    let flash = furuta();
    let artefact = Artefact::new(flash.get()).unwrap();
    let policy = Policy::new(artefact).unwrap();
    let (shape, learn) = (artefact.velocity().shape(), learn());
    let mut memory = vec![0.0; PolicyScratch::len(shape, policy.plan())];
    let mut scratch = PolicyScratch::carve(shape, policy.plan(), &mut memory).unwrap();
    policy.prepare(&mut scratch).unwrap();
    let learner = Learner::new(&artefact, learn.learner, learn.seed, vec![0; words_of(&artefact, &learn)]).unwrap();
    let mut session = Session::new(learner, learn.session, learn.seed).unwrap();
    let mut noise = Xoshiro128PlusPlus::seed_from_u64(learn.noise);

    let (mut plant, mut writer) = (Plant(Xoshiro128PlusPlus::seed_from_u64(1)), Writer::new());
    let begun = writer.ask(kind::LEARN, &learn.bytes());
    let (mut asked, mut expected, mut reports, mut stages) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for episode in 0..EPISODES {
        writer.ask(kind::RESET, &Reset { seed: 1, ..Reset::default() }.bytes());
        let (mut action, mut steps) = ([0.0], Vec::new());
        for decision in 0..DECISIONS {
            let observation = plant.observation();
            asked.push(writer.sample(0, &steps, &observation));
            // A request that comes again, and a rest in which the board does slices, change nothing.
            if decision % 5 == 0 {
                writer.again();
            }
            if decision % 3 == 0 {
                writer.script.input.extend([None; 4]);
            }
            session.finish();
            let factory =
                |rng: &mut Xoshiro128PlusPlus, out: &mut [f32]| policy.act(&observation, rng, &mut scratch, out);
            session.decide(&observation, &mut noise, &mut action, factory).unwrap();
            expected.push(action[0].to_bits());
            if expected.len() % 7 == 0 {
                reports.push(Learning { decisions: expected.len() as u32, session: session.report() });
            }
            let metric = f32::from(u8::from(session.player() == Player::Candidate));
            steps = plant.steps().into_iter().map(|(reward, _)| (reward, metric)).collect();
            for (reward, metric) in &steps {
                session.after(Passage::Free, &action, *reward, *metric);
            }
        }
        // The last step of a block that is an episode ends both.
        let end = if episode % 3 == 2 { 1 } else { 2 };
        writer.sample(end, &steps, &[]);
        if end == 1 {
            session.terminated();
        }
        session.cut();
        session.go_on_unsaved();
        reports.push(Learning { decisions: expected.len() as u32, session: session.report() });
        stages.push(session.stage());
    }
    let mut params = [(); 2].map(|()| vec![0.0f32; artefact.velocity().as_f32().unwrap().params().len()]);
    session.learner().merge(&mut params[0]);
    session.learner().merge_candidate(&mut params[1]);
    let length = 4 * params[0].len();
    let mut taken = Vec::new();
    for who in [1u8, 2] {
        let down = writer.ask(kind::SNAPSHOT, &[who]);
        let pieces: Vec<u32> = (0..length.div_ceil(200))
            .map(|i| {
                let asked = [&((200 * i) as u32).to_le_bytes()[..], &200u16.to_le_bytes()].concat();
                writer.ask(kind::PARAMETERS, &asked)
            })
            .collect();
        taken.push((down, pieces));
    }
    let (answers, logged) = writer.play(1 << 17);

    let words = words_of(&artefact, &learn) as u32;
    assert_eq!(answer(&answers, begun).1, [(4 * words).to_le_bytes(), (params[0].len() as u32).to_le_bytes()].concat());
    let actions: Vec<u32> = asked
        .iter()
        .map(|sequence| {
            let (header, payload) = answer(&answers, *sequence);
            assert_eq!(header.kind, kind::SAMPLE | kind::ANSWER);
            Action::read(payload).unwrap().values().next().unwrap().to_bits()
        })
        .collect();
    assert_eq!(actions, expected);
    let telemetry: Vec<Learning> = answers
        .iter()
        .filter(|(header, _)| header.kind == kind::TELEMETRY)
        .map(|(_, payload)| Learning::read(payload).unwrap())
        .collect();
    assert_eq!((&telemetry, &logged), (&reports, &reports));
    for ((down, pieces), params) in taken.iter().zip(&params) {
        let crc = crc32(params.as_slice().as_bytes());
        assert_eq!(answer(&answers, *down).1, [(length as u32).to_le_bytes(), crc.to_le_bytes()].concat());
        let read: Vec<u8> =
            pieces.iter().flat_map(|asked| piece(&answer(&answers, *asked).1).unwrap().1.to_vec()).collect();
        assert_eq!(read, params.as_slice().as_bytes());
    }
    // Something happened: updates, trials, a policy that is deployed and is not the factory's.
    let report = session.report();
    assert!(report.updates > 200 && report.guard.deployed == Player::Incumbent, "{stages:?}, {report:?}");
    assert_ne!(params[0], artefact.velocity().as_f32().unwrap().params());
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let flash = furuta();
    let artefact = Artefact::new(flash.get()).unwrap();
    let params = artefact.velocity().as_f32().unwrap().params().len();
    let enough = 4 * (words_of(&artefact, &learn()) + params);
    let mut writer = Writer::new();
    let mut refused = Vec::new();
    let observation = [0.1; 5];
    // Nothing is learned yet.
    refused.push((writer.sample(0, &[], &observation), Refusal::NotLearning, "nothing is learned"));
    refused.push((writer.ask(kind::SNAPSHOT, &[1]), Refusal::NotLearning, "nothing is learned"));
    refused.push((writer.ask(kind::PARAMETERS, &[0; 6]), Refusal::NotLearning, "nothing is learned"));
    // Constants that make no sense, that do not fit, and of another form.
    let other = |change: fn(&mut Learn)| {
        let mut other = learn();
        change(&mut other);
        other.bytes()
    };
    let bytes = other(|l| l.learner.discount = f32::NAN);
    refused.push((writer.ask(kind::LEARN, &bytes), Refusal::Learning, "discount is out of range"));
    let bytes = other(|l| l.session.guard.alpha = 7.0);
    refused.push((writer.ask(kind::LEARN, &bytes), Refusal::Learning, ""));
    let bytes = other(|l| l.session.screening = 0);
    refused.push((writer.ask(kind::LEARN, &bytes), Refusal::Learning, "screening is out of range"));
    let bytes = other(|l| l.learner.transitions = 4000);
    refused.push((writer.ask(kind::LEARN, &bytes), Refusal::Room, "words of memory"));
    refused.push((writer.ask(kind::LEARN, &bytes[..135]), Refusal::Learning, "flash the firmware"));
    // It learns.
    writer.ask(kind::LEARN, &learn().bytes());
    refused.push((writer.sample(0, &[], &observation), Refusal::NoEpisode, "no episode"));
    refused.push((writer.ask(kind::PARAMETERS, &[0; 6]), Refusal::NotLearning, "nothing is learned"));
    writer.ask(kind::RESET, &Reset::default().bytes());
    refused.push((writer.sample(0, &[], &observation[1..]), Refusal::Length, "length"));
    refused.push((writer.sample(3, &[], &observation), Refusal::Length, "length"));
    writer.sample(0, &[], &observation);
    refused.push((writer.ask(kind::SNAPSHOT, &[1]), Refusal::NotAtRest, "an episode is under way"));
    // Rewards and metrics that are none are taken, and refused by the learner.
    writer.sample(0, &[(f32::NAN, f32::INFINITY)], &observation);
    let last = writer.sample(2, &[(0.5, 0.5)], &[]);
    refused.push((writer.ask(kind::SNAPSHOT, &[3]), Refusal::Length, "length"));
    let down = writer.ask(kind::SNAPSHOT, &[1]);
    refused.push((writer.ask(kind::PARAMETERS, &[0; 5]), Refusal::Length, "length"));
    // The room is the learner's, until an upload begins.
    let while_learning = writer.ask(kind::HELLO, &[]);
    let begin = writer.ask(kind::BEGIN, &Begin { length: 100, crc: 0 }.bytes());
    refused.push((writer.ask(kind::SNAPSHOT, &[1]), Refusal::NotLearning, "nothing is learned"));
    let after = writer.ask(kind::HELLO, &[]);
    let (answers, _) = writer.play(enough);
    for (sequence, code, words) in refused {
        let (found, said) = refusal(&answers, sequence);
        assert!(
            found == code && said.contains(words),
            "request {sequence}: {found:?}, {said}, and not {code:?}, {words}"
        );
    }
    let (header, payload) = answer(&answers, last);
    assert!(header.kind == kind::SAMPLE | kind::ANSWER && Action::read(payload).unwrap().values().len() == 0);
    // One transition, with a reward that is none, is no update: what is deployed is the factory's, and that is exact.
    let factory = crc32(artefact.velocity().as_f32().unwrap().params().as_bytes());
    assert_eq!(answer(&answers, down).1[4..], factory.to_le_bytes());
    let room = |sequence: u32| Info::read(&answer(&answers, sequence).1).unwrap().room;
    assert_eq!((room(while_learning), room(after) as usize), (0, enough));
    assert_eq!(answer(&answers, begin).0.kind, kind::BEGIN | kind::ANSWER);
}

/// Observations that are none are held over and latched, and nothing of it is learned.
#[test]
fn bad_observations_reach_no_learner() {
    let mut writer = Writer::new();
    writer.ask(kind::LEARN, &Learn { telemetry: 1, ..learn() }.bytes());
    writer.ask(kind::RESET, &Reset::default().bytes());
    let mut asked = Vec::new();
    for i in 0..12 {
        let mut observation = [0.2; 5];
        if i >= 4 {
            observation[3] = f32::NAN;
        }
        asked.push(writer.sample(0, &[(0.1, 0.1)], &observation));
    }
    let (answers, logged) = writer.play(1 << 17);
    let values: Vec<f32> = asked
        .iter()
        .flat_map(|sequence| Action::read(&answer(&answers, *sequence).1).unwrap().values().collect::<Vec<_>>())
        .collect();
    assert!(values.len() == 12 && values.iter().all(|v| v.is_finite()));
    assert_eq!(values[4..6], [values[3]; 2]);
    assert_eq!(values[6..], [0.0; 6]);
    assert_eq!((logged.len(), logged[3].session.refused), (4, 0));
}

/// Random requests with a good CRC while it learns: no panic, and it learns from anew as it should.
#[test]
fn any_requests_are_survived() {
    let ending = |writer: &mut Writer| {
        writer.ask(kind::LEARN, &learn().bytes());
        writer.ask(kind::RESET, &Reset::default().bytes());
        let mut plant = Plant(Xoshiro128PlusPlus::seed_from_u64(2));
        (0..40).map(|_| writer.sample(0, &plant.steps(), &plant.observation())).collect::<Vec<_>>()
    };
    let actions = |writer: Writer, asked: &[u32]| -> Vec<u8> {
        let (answers, _) = writer.play(1 << 17);
        asked.iter().flat_map(|sequence| answer(&answers, *sequence).1[Action::HEAD..].to_vec()).collect()
    };
    let mut writer = Writer::new();
    let asked = ending(&mut writer);
    let expected = actions(writer, &asked);
    assert_eq!(expected.len(), 4 * 40);
    for seed in 0..20 {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
        let mut writer = Writer::new();
        for _ in 0..300 {
            let length = rng.next_u32() as usize % PAYLOAD;
            let mut payload: Vec<u8> = (0..length).map(|_| rng.next_u32() as u8).collect();
            match rng.next_u32() % 12 {
                0 => {
                    let mut bytes = learn().bytes();
                    let at = rng.next_u32() as usize % 96;
                    bytes[at] = rng.next_u32() as u8;
                    writer.ask(kind::LEARN, &bytes);
                }
                1 => {
                    writer.ask(kind::RESET, &Reset::default().bytes());
                }
                2 => {
                    writer.ask(kind::SNAPSHOT, &[rng.next_u32() as u8 % 4]);
                }
                3 => {
                    writer.ask(kind::PARAMETERS, &[rng.next_u32() as u8, rng.next_u32() as u8, 0, 0, 200, 0]);
                }
                4..8 => {
                    payload.truncate(20);
                    payload.resize(20, 0);
                    let steps: Vec<(f32, f32)> = (0..rng.next_u32() % 4)
                        .map(|_| (f32::from_bits(rng.next_u32()), f32::from_bits(rng.next_u32())))
                        .collect();
                    let observation: Vec<f32> =
                        payload.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                    let end = (rng.next_u32() % 16).saturating_sub(13) as u8;
                    writer.sample(end, &steps, if end == 0 { &observation } else { &[] });
                }
                8 => writer.again(),
                9 => writer.script.input.extend([None; 3]),
                _ => {
                    writer.ask((rng.next_u32() % 15) as u8, &payload);
                }
            }
        }
        let asked = ending(&mut writer);
        assert!(actions(writer, &asked) == expected, "seed {seed}");
    }
}
