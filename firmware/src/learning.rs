//! A rotary pendulum with worn bearings, and its policy that goes on learning while it drives: what the program `finetune`
//! plays, alike on a board and on the host, which includes this file.
//!
//! Episode after episode the controller drives by whichever weights the session says; between two control steps the learner
//! does slices of its update. When the session waits for its state to be saved, the robot is brought to rest and the journal
//! writes a step of a commit in each control period. At the end the power goes: a new session loads the journal and must
//! decide with the bits of the policy that was deployed. Noise and starts are those of `host-train finetune` with the same
//! seed. No allocation, no panics, the same bits everywhere, as long as no update is late.

use flowlet::control::{Config as ControlConfig, Controller, Decider, Input, Limits, State, Untimed};
use flowlet::finetune::guard::{self, Player};
use flowlet::finetune::session::{self, Event, LearningPolicy, Session};
use flowlet::finetune::{Config, Learner};
use flowlet::math::Digest;
use flowlet::policy::Artefact;
use flowlet_journal::simulated::SimulatedFlash;
use flowlet_journal::{Blocking, Journal, Layout, Progress};
use plants::Furuta;
use rand_xoshiro::rand_core::SeedableRng;
use rand_xoshiro::{Xoshiro128PlusPlus, Xoshiro256PlusPlus};

/// Control steps of an episode, and their period, microseconds.
pub const STEPS: u32 = 3_000;
const PERIOD_US: u32 = 2_000;

/// What is wrong with the plant: a factor on its friction.
const FRICTION: f64 = 5.0;

/// Factor on the reward of a control step, as in training.
const REWARD_SCALE: f64 = 0.2;

/// Seed of everything random.
const SEED: u64 = 1;

/// The learner's constants.
pub const LEARNER: Config = Config::ADAM;

/// How long a life is.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    /// Episodes.
    pub episodes: u32,
    /// Slices in a control step, at most.
    pub slices: u32,
    /// Candidates are screened for one episode each, and one is tried after the sixth: a short life has a trial and saves it.
    pub hurried: bool,
}

impl Script {
    /// That of the program's snapshot.
    pub const SHORT: Self = Self { episodes: 10, slices: 50, hurried: true };

    /// A hundred thousand control steps, with the session's own constants.
    pub const LONG: Self = Self { episodes: 34, slices: 50, hurried: false };

    /// Fifteen minutes.
    pub const WHOLE: Self = Self { episodes: 150, slices: 50, hurried: false };

    /// All of these; the program's argument `script` is a place among them.
    pub const ALL: [Self; 3] = [Self::SHORT, Self::LONG, Self::WHOLE];

    /// Blocks are episodes.
    const fn session(self) -> session::Config {
        let usual = session::Config::new(guard::Config { settle: 0, ..guard::Config::new(STEPS as u16) });
        if self.hurried { session::Config { screening: 1, gain: 0.0, patience: 0, first: 6, ..usual } } else { usual }
    }
}

/// A flash for the state, in RAM: sectors of 1 kB, written in words of 8 bytes.
pub type Flash = SimulatedFlash<SECTORS, 1024, 8>;

/// Its sectors.
pub const SECTORS: usize = 12;

/// Bytes of a page of the journal.
const PAGE: usize = 256;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A control step.
    Step,
    /// A slice of an update.
    Slice,
    /// A step of a commit.
    Commit,
}

/// What a life led to.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Sum of the rewards of the first episode, and of the last.
    pub returns: [f64; 2],
    /// Digest of all commands.
    pub actions: u64,
    /// Digest of the learner's average.
    pub learned: u64,
    /// Digest of what the deployed policy does, which is the same after the power has gone.
    pub deployed: u64,
    /// What the session reports.
    pub report: session::Report,
    /// States that were saved.
    pub saved: u32,
    /// Verdicts of the guard.
    pub verdicts: u32,
}

/// Memory of a life, so that the caller knows where it is.
pub struct Memory<'m> {
    /// Words of the learner.
    pub learner: &'m mut [u32],
    /// Flash of the journal.
    pub flash: &'m mut Flash,
    /// A saved state.
    pub state: &'m mut [u8],
}

/// Learns as the script says; `watch` does what it is given, once, and may measure it. A sentence where something is wrong.
pub fn live<P: Decider<5, 1>>(
    policy: &mut P,
    artefact: &Artefact<'_>,
    memory: &mut Memory<'_>,
    script: Script,
    mut watch: impl FnMut(Work, &mut dyn FnMut()),
) -> Result<Outcome, &'static str> {
    // The artefact's own CRC-32 is its last word.
    let Some(crc) = artefact.bytes().last_chunk::<4>().map(|crc| u32::from_le_bytes(*crc)) else {
        return Err("the artefact has no CRC");
    };
    let range = 0..(SECTORS * 1024) as u32;
    let mut plant = Furuta::new();
    plant.set("friction", FRICTION).map_err(|_| "the plant has no friction")?;
    let mut resets = Xoshiro256PlusPlus::seed_from_u64(SEED.wrapping_add(400u64.wrapping_mul(0xd1b5_4a32_d192_ed03)));
    let mut noise = Xoshiro128PlusPlus::seed_from_u64(SEED.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 401);
    let (mut actions, mut returns, mut saved, mut verdicts) = (Digest::new(), [0.0; 2], 0, 0);

    let constants = Config { temperature: artefact.temperature().max(1e-3), ..LEARNER };
    let learner = Learner::new(artefact, constants, SEED, &mut *memory.learner)
        .map_err(|_| "the learner does not fit the policy")?;
    let session = Session::new(learner, script.session(), SEED).map_err(|_| "the session is refused")?;
    let learning = LearningPolicy::new(&mut *policy, session).map_err(|_| "the policy is another one")?;
    let config = ControlConfig::new(PERIOD_US, Furuta::OBS_NAMES, Furuta::ACT_NAMES, [Limits::new(-10.0, 10.0)]);
    let mut controller = Controller::new(learning, &config).map_err(|_| "the controller is refused")?;
    let mut journal: Journal<_, PAGE> = Journal::new(Blocking(&mut *memory.flash), range.clone(), memory.state.len())
        .map_err(|_| "the flash is too small")?;
    journal.load(&mut [&mut *memory.state], crc).map_err(|_| "the flash cannot be read")?;

    let mut due = 0u32;
    for episode in 0..script.episodes {
        plant.reset(&mut resets);
        if controller.supervisor().state() == State::Idle {
            controller.arm().map_err(|_| "the robot cannot be armed")?;
        }
        let mut total = 0.0;
        for _ in 0..STEPS {
            let input = Input { due, observation: Ok(seen(&plant)), stop: false };
            due = due.wrapping_add(PERIOD_US);
            let mut command = None;
            watch(Work::Step, &mut || command = Some(controller.step(&mut Untimed, &input, &mut noise)));
            let Some(command) = command else { return Err("a control step was left out") };
            actions.update(&command.action);
            let reward = plant.step(f64::from(command.action[0]));
            total += reward;
            let session = controller.policy_mut().session_mut();
            let (passage, metric) = (guard::Passage::of(&command), Furuta::metric(&seen(&plant)));
            let event = session.after(passage, &command.action, (reward * REWARD_SCALE) as f32, metric);
            verdicts += u32::from(matches!(event, Some(Event::Verdict(_))));
            for _ in 0..script.slices {
                let mut more = false;
                watch(Work::Slice, &mut || more = session.slice());
                if !more {
                    break;
                }
            }
        }
        returns = [if episode == 0 { total } else { returns[0] }, total];
        controller.policy_mut().session_mut().cut();
        if !controller.policy().session().wants_saving() {
            continue;
        }
        controller.policy_mut().session_mut().save(memory.state).map_err(|_| "the state cannot be saved")?;
        let parts: [&[u8]; 1] = [&*memory.state];
        let mut commit = journal.commit(&parts, crc).map_err(|_| "the journal takes no state")?;
        controller.disarm();
        loop {
            let input = Input { due, observation: Ok(seen(&plant)), stop: false };
            due = due.wrapping_add(PERIOD_US);
            let command = controller.step(&mut Untimed, &input, &mut noise);
            plant.step(f64::from(command.action[0]));
            let mut progress = Ok(Progress::More);
            if let Some(rest) = controller.at_rest() {
                let mut rest = Some(rest);
                watch(Work::Commit, &mut || {
                    if let Some(rest) = rest.take() {
                        progress = commit.step(rest);
                    }
                });
            }
            if progress.map_err(|_| "the flash failed")? == Progress::Done {
                break;
            }
        }
        saved += 1;
        controller.policy_mut().session_mut().saved();
    }
    let session = controller.policy_mut().session_mut();
    let report = session.report();
    let mut learned = Digest::new();
    learned.update(session.learner().average());
    let deployed = deeds(session);

    // The power has gone and come back.
    let learner = Learner::new(artefact, constants, SEED, &mut *memory.learner)
        .map_err(|_| "the learner does not fit the policy")?;
    let mut session = Session::new(learner, script.session(), SEED).map_err(|_| "the session is refused")?;
    let mut journal: Journal<_, PAGE> =
        Journal::new(Blocking(&mut *memory.flash), range, memory.state.len()).map_err(|_| "the flash is too small")?;
    let loaded = journal.load(&mut [&mut *memory.state], crc).map_err(|_| "the flash cannot be read")?;
    if loaded.is_some() != (saved > 0) {
        return Err("the saved state is lost");
    }
    if loaded.is_some() {
        session.restore(memory.state).map_err(|_| "the saved state is refused")?;
    }
    if deeds(&mut session) != deployed {
        return Err("after the power had gone another policy was deployed");
    }
    Ok(Outcome { returns, actions: actions.finish(), learned: learned.finish(), deployed, report, saved, verdicts })
}

/// What the sensors see.
fn seen(plant: &Furuta) -> [f32; 5] {
    plant.observe().map(|value| value as f32)
}

/// What the deployed weights do in a hundred situations.
fn deeds(session: &mut Session<'_, &mut [u32]>) -> u64 {
    let (mut digest, mut noise) = (Digest::new(), Xoshiro128PlusPlus::seed_from_u64(SEED));
    let mut action = [0.0];
    for i in 0..100u16 {
        let share = f32::from(i) / 100.0;
        session.ask(Player::Incumbent, &[share, 1.0 - share, share - 0.5, 5.0 * share, -3.0], &mut noise, &mut action);
        digest.update(&action);
    }
    digest.finish()
}

/// Whether an artefact's channels and period are those that are played here.
pub const fn fits(obs: usize, act: usize, period_us: u32) -> bool {
    obs == 5 && act == 1 && period_us == 5 * PERIOD_US
}

/// Sectors that a state of so many bytes needs.
pub const fn sectors(state: usize) -> usize {
    Layout::<Blocking<Flash>, PAGE>::sectors(state)
}
