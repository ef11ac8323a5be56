//! A session whose players are worth what the test says they are worth: who plays when, what is saved, what survives.

extern crate std;

use super::*;
use crate::control::{self, Controller, Input, LentPolicy, Limits, State, Untimed};
use crate::finetune::tests::{config as constants, factory, factory_of, rng};
use crate::finetune::{Trained, words};
use crate::policy::{Artefact, Policy, PolicyScratch};
use std::{vec, vec::Vec};
use zerocopy::IntoBytes;

const BLOCK: u16 = 20;

fn config() -> Config {
    let guard = guard::Config { settle: 0, rounds: 60, ..guard::Config::new(BLOCK) };
    Config { guard, screening: 3, gain: 0.05, slack: 0.1, patience: 1, first: 1, refresh: 0 }
}

fn learner(bytes: &[u32]) -> Learner<'_, Vec<u32>> {
    learner_of(bytes, constants())
}

fn learner_of(bytes: &[u32], config: super::super::Config) -> Learner<'_, Vec<u32>> {
    let artefact = Artefact::new(bytes.as_bytes()).unwrap();
    let memory = vec![0; words(artefact.velocity().shape(), artefact.critics().next().unwrap().shape(), &config)];
    Learner::new(&artefact, config, 3, memory).unwrap()
}

/// Plays until `stop`, at most 40,000 steps; `worth` is the metric of whoever plays. Returns the events.
fn live<M: AsRef<[u32]> + AsMut<[u32]>>(
    session: &mut Session<'_, M>,
    worth: impl Fn(Player) -> f32,
    stop: impl Fn(&Session<'_, M>) -> bool,
) -> Vec<Event> {
    let (mut noise, mut events) = (rng(5), Vec::new());
    for step in 0..40_000u32 {
        if stop(session) {
            break;
        }
        let (player, mut action) = (session.player(), [0.0]);
        let decided = session.decide(&[0.1, (step % 7) as f32 * 0.1], &mut noise, &mut action, |_, action| {
            action[0] = 0.25;
            Ok::<(), PolicyError>(())
        });
        assert_eq!(decided, Ok(()));
        assert!(player != Player::Factory || action == [0.25]);
        events.extend(session.after(Passage::Free, &action, -action[0] * action[0], worth(player)));
        session.finish();
    }
    events
}

fn better_candidate(player: Player) -> f32 {
    if player == Player::Candidate { 0.9 } else { 0.5 }
}

/// In a trial the learner neither updates nor records; before and after it does both.
#[test]
fn the_learner_rests_in_a_trial() {
    let bytes = factory(8);
    let mut session =
        Session::new(learner_of(&bytes, crate::finetune::Config { transitions: 4000, ..constants() }), config(), 1)
            .unwrap();
    let known = |s: &Session<'_, Vec<u32>>| (s.learner().updates(), s.learner().transitions());
    live(&mut session, better_candidate, |s| s.wants_saving());
    let (updates, transitions) = known(&session);
    assert!(updates > 0 && transitions > 0);
    session.go_on_unsaved();
    live(&mut session, better_candidate, |s| s.wants_saving());
    // The update under way and the decision that ended the screening were finished.
    let rested = known(&session);
    assert!(rested.0 <= updates + 1 && rested.1 <= transitions + 1, "{rested:?}");
    session.go_on_unsaved();
    let blocks = session.report().blocks;
    live(&mut session, better_candidate, |s| s.report().blocks > blocks + 2);
    assert!(known(&session).0 > rested.0 + 10 && known(&session).1 > rested.1 + 30);
}

/// Reference, screenings, trial, promotion, and the promoted weights are deployed from then on.
#[test]
fn a_better_candidate_is_deployed() {
    let bytes = factory(8);
    let mut session = Session::new(learner(&bytes), config(), 1).unwrap();
    assert_eq!((session.stage(), session.player()), (Stage::Reference, Player::Factory));
    let events = live(&mut session, better_candidate, |s| s.stage() == Stage::Screening);
    assert_eq!(events, [Event::Block, Event::Block, Event::Screened]);
    assert!((session.report().reference - 0.5).abs() < 1e-6);
    live(&mut session, better_candidate, |s| s.wants_saving());
    assert_eq!((session.stage(), session.player()), (Stage::Ready, Player::Factory));
    // Unsaved, it waits for as long as it takes.
    let events = live(&mut session, better_candidate, |s| s.report().blocks == 100);
    assert!(session.stage() == Stage::Ready && events.iter().all(|e| *e == Event::Block));
    session.go_on_unsaved();
    let events = live(&mut session, better_candidate, |s| s.wants_saving());
    assert_eq!(events.last(), Some(&Event::Verdict(Verdict::Better)));
    assert_eq!((session.stage(), session.player()), (Stage::Promoted, Player::Candidate));
    let candidate = session.learner().acting().to_vec();
    session.go_on_unsaved();
    assert_eq!((session.guard().deployed(), session.learner().kept()), (Player::Incumbent, &candidate[..]));
    // The mean of the trial's own blocks, not of the screening.
    assert!((session.report().reference - 0.9).abs() < 1e-5, "{:?}", session.report());
    session.learn(false);
    assert_eq!((session.stage(), session.player()), (Stage::Work, Player::Incumbent));
}

/// What looked good in the screening and is not: nothing is deployed, and the learner goes back.
#[test]
fn a_lucky_candidate_is_not_deployed() {
    let bytes = factory(8);
    let mut session = Session::new(learner(&bytes), config(), 1).unwrap();
    live(&mut session, better_candidate, |s| s.wants_saving());
    session.go_on_unsaved();
    let worse = |player| if player == Player::Candidate { 0.2 } else { 0.5 };
    let events = live(&mut session, worse, |s| s.stage() != Stage::Trial);
    assert_eq!(events.last(), Some(&Event::Verdict(Verdict::Worse)));
    assert_eq!((session.stage(), session.guard().deployed()), (Stage::Screening, Player::Factory));
    assert_eq!(session.learner().acting(), session.learner().kept());
    assert!((session.report().best - 0.5).abs() < 1e-5);
    // And a candidate that never is ahead is never tried.
    let events = live(&mut session, |_| 0.5, |s| s.report().blocks > 400);
    assert!(events.iter().all(|e| matches!(e, Event::Block | Event::Screened)));
}

/// A session that was saved at any of its waits goes on with the same weights, the same count of candidates.
#[test]
fn a_saved_session_goes_on() {
    let bytes = factory(8);
    let mut session = Session::new(learner(&bytes), config(), 1).unwrap();
    let artefact = Artefact::new(bytes.as_bytes()).unwrap();
    let mut state = vec![0; state_bytes(artefact.velocity().shape(), &constants())];
    for expected in [(Stage::Reference, 0, false), (Stage::Ready, 1, false), (Stage::Promoted, 1, true)] {
        live(&mut session, better_candidate, |s| s.stage() == expected.0);
        session.save(&mut state).unwrap();
        let mut other = Session::new(learner(&bytes), config(), 2).unwrap();
        other.restore(&state).unwrap();
        let promoted = other.guard().deployed() == Player::Incumbent;
        assert_eq!((expected.1, expected.2), (other.report().guard.candidates, promoted));
        assert_eq!((other.stage(), other.wants_saving()), (Stage::Reference, false));
        if promoted {
            assert_eq!(other.learner().kept(), session.learner().acting());
        }
        live(&mut other, better_candidate, |s| s.stage() == Stage::Screening);
        session.saved();
    }
    // Damage is named, and leaves everything as it was.
    let mut other = Session::new(learner(&bytes), config(), 2).unwrap();
    other.restore(&state).unwrap();
    let kept = other.learner().kept().to_vec();
    let mut damaged = |at: usize, value: u8| {
        let mut bad = state.clone();
        bad[at] = value;
        let result = other.restore(&bad);
        assert_eq!(other.learner().kept(), &kept[..]);
        result
    };
    assert_eq!(damaged(0, 9), Err(StateError::Version { version: 9 }));
    assert_eq!(damaged(2, 5), Err(StateError::OtherConfig));
    assert_eq!(damaged(4, 0), Err(StateError::OtherConfig));
    assert_eq!(damaged(9, 77), Err(StateError::OtherArtefact));
    assert!(matches!(damaged(13, 77), Err(StateError::Guard(_))));
    let last = state.len() - 1;
    let mut bad = state.clone();
    bad[last - 1..].copy_from_slice(&[0xc0, 0x7f]);
    assert_eq!(other.restore(&bad), Err(StateError::Corrupt));
    assert!(matches!(other.restore(&state[1..]), Err(StateError::Length { .. })));
    assert!(matches!(other.save(&mut [0; 20]), Err(StateError::Length { .. })));
    // As many numbers, of another kind; and another policy of the same sizes.
    let bias = super::super::Config { actor: Trained::Bias, ..constants() };
    let mut of_bias = Session::new(learner_of(&bytes, bias), config(), 2).unwrap();
    let mut short = vec![0; state_bytes(artefact.velocity().shape(), &bias)];
    of_bias.save(&mut short).unwrap();
    short[1] = 1;
    assert_eq!(of_bias.restore(&short), Err(StateError::OtherConfig));
    let another = factory_of(8, 10);
    let mut of_another = Session::new(learner(&another), config(), 2).unwrap();
    assert_eq!(of_another.restore(&state), Err(StateError::OtherArtefact));
}

/// A session whose candidate has won and waits to be saved.
fn promoted(bytes: &[u32]) -> Session<'_, Vec<u32>> {
    let mut session = Session::new(learner(bytes), config(), 1).unwrap();
    live(&mut session, better_candidate, |s| s.wants_saving());
    session.go_on_unsaved();
    live(&mut session, better_candidate, |s| s.wants_saving());
    assert_eq!(session.stage(), Stage::Promoted);
    session
}

fn state_of(bytes: &[u32]) -> Vec<u8> {
    vec![0; state_bytes(Artefact::new(bytes.as_bytes()).unwrap().velocity().shape(), &constants())]
}

/// A fault while a promoted candidate is written: it is rolled back in RAM, so flash must hear of it too.
#[test]
fn a_fault_while_it_is_saved_is_saved_too() {
    let bytes = factory(8);
    let (mut session, mut state) = (promoted(&bytes), state_of(&bytes));
    session.save(&mut state).unwrap();
    let event = session.after(Passage::Fault, &[0.0], 0.0, 0.0);
    assert_eq!(event, Some(Event::Verdict(Verdict::Fault)));
    assert_eq!((session.stage(), session.report().block_metric), (Stage::Screening, 0.0));
    // The bytes were on their way: they deploy what is deployed no more.
    session.saved();
    assert!(session.wants_saving() && session.guard().deployed() == Player::Factory);
    session.save(&mut state).unwrap();
    session.saved();
    assert!(!session.wants_saving());
    let mut other = Session::new(learner(&bytes), config(), 2).unwrap();
    other.restore(&state).unwrap();
    assert_eq!(other.guard().deployed(), Player::Factory);
    let events = live(&mut session, better_candidate, |s| s.wants_saving());
    assert_eq!(events.last(), Some(&Event::Ready));
}

/// An incumbent that has become worse than the factory's weights is gone from flash too.
#[test]
fn an_outdated_incumbent_wants_saving() {
    let bytes = factory(8);
    let (mut session, mut state) = (promoted(&bytes), state_of(&bytes));
    session.learn(false);
    assert_eq!(session.stage(), Stage::Promoted);
    session.save(&mut state).unwrap();
    session.saved();
    // What was wished while it waited holds.
    assert_eq!((session.stage(), session.player()), (Stage::Work, Player::Incumbent));
    let worn = |player| if player == Player::Factory { 0.9 } else { 0.0 };
    let events = live(&mut session, worn, |s| s.wants_saving());
    assert_eq!(events.last(), Some(&Event::Verdict(Verdict::Outdated)));
    assert_eq!((session.stage(), session.player()), (Stage::Work, Player::Factory));
    session.save(&mut state).unwrap();
    let mut other = Session::new(learner(&bytes), config(), 2).unwrap();
    other.restore(&state).unwrap();
    assert_eq!(other.guard().deployed(), Player::Factory);
}

/// The plant wears while there is learning: what was measured when it was new does not stand in the way for ever.
#[test]
fn a_plant_that_wears_is_measured_again() {
    let bytes = factory(8);
    let mut session = Session::new(learner(&bytes), Config { refresh: 6, ..config() }, 1).unwrap();
    live(&mut session, |_| 0.9, |s| s.report().blocks == 12);
    let worn = |player| if player == Player::Candidate { 0.7 } else { 0.2 };
    live(&mut session, worn, |s| s.wants_saving());
    assert_eq!(session.stage(), Stage::Ready);
    assert!((session.report().reference - 0.2).abs() < 1e-6, "{:?}", session.report());
}

/// A candidate that was tried without a decision is not tried again until there is a better one.
#[test]
fn an_undecided_candidate_is_not_tried_again() {
    let bytes = factory(8);
    let guard = guard::Config { rounds: 3, ..config().guard };
    let mut session = Session::new(learner(&bytes), Config { guard, ..config() }, 1).unwrap();
    let little = |player| if player == Player::Candidate { 0.56 } else { 0.5 };
    live(&mut session, little, |s| s.wants_saving());
    session.go_on_unsaved();
    let events = live(&mut session, little, |s| s.stage() != Stage::Trial);
    assert_eq!(events.last(), Some(&Event::Verdict(Verdict::Undecided)));
    let blocks = session.report().blocks;
    live(&mut session, little, |s| s.wants_saving() || s.report().blocks > blocks + 200);
    assert!(!session.wants_saving());
    live(&mut session, better_candidate, |s| s.wants_saving());
    assert_eq!(session.stage(), Stage::Ready);
}

/// The best is screened again where the learner goes back to it: its mean is that of all its screenings.
#[test]
fn repeats_of_the_best_are_averaged() {
    let bytes = factory(8);
    let mut session = Session::new(learner(&bytes), Config { gain: 1.0, ..config() }, 1).unwrap();
    let screening = |session: &mut Session<'_, Vec<u32>>, worth: f32| {
        let blocks = session.report().blocks;
        live(session, |_| worth, |s| s.report().blocks == blocks + 3);
        session.report().best
    };
    screening(&mut session, 0.3);
    assert!((screening(&mut session, 0.8) - 0.8).abs() < 1e-6);
    screening(&mut session, 0.2);
    assert!((screening(&mut session, 0.9) - 0.85).abs() < 1e-6);
    // And a candidate that beats that mean takes its place.
    assert!((screening(&mut session, 0.87) - 0.87).abs() < 1e-6);
}

/// A decision that a fault came upon has no successor, and neither has the one before it.
#[test]
fn nothing_is_learned_across_a_fault() {
    let bytes = factory(8);
    let one = super::super::Config { stride: 1, horizon: 1, ..constants() };
    let mut session = Session::new(learner_of(&bytes, one), config(), 1).unwrap();
    let (mut noise, mut action) = (rng(1), [0.0]);
    let mut step = |at: f32, passage| {
        let play = |_: &mut _, _: &mut [f32]| Ok::<(), PolicyError>(());
        session.decide(&[at, 0.0], &mut noise, &mut action, play).unwrap();
        session.after(passage, &action, 0.5, 0.5);
    };
    [0.1, 0.2].into_iter().for_each(|at| step(at, Passage::Free));
    step(0.3, Passage::Fault);
    [-0.9, -0.8, -0.7].into_iter().for_each(|at| step(at, Passage::Free));
    let successors: Vec<Option<f32>> = (0..4).map(|at| session.learner.successor(at)).collect();
    let near = |found: Option<f32>, wanted: f32| found.is_some_and(|x| (x - wanted).abs() < 1e-3);
    assert!(near(successors[0], 0.2) && successors[1].is_none(), "{successors:?}");
    assert!(near(successors[2], -0.8) && successors[3].is_none(), "{successors:?}");
}

/// The guard begins a block where the session does, however often learning was turned on and off.
#[test]
fn blocks_begin_together() {
    let bytes = factory(8);
    let mut session = Session::new(learner(&bytes), config(), 1).unwrap();
    for _ in 0..3 {
        session.learn(false);
        let blocks = session.report().blocks;
        for _ in 0..BLOCK / 2 {
            let before = session.report().blocks;
            live(&mut session, |_| 0.5, |s| !s.at_block_start() || s.report().blocks > before);
        }
        assert_eq!(session.report().blocks, blocks);
        session.learn(true);
        assert!(session.at_block_start() && session.guard().at_block_start());
    }
}

/// Without learning, behind a controller, the commands are the plain policy's bits; and a fault or the stop in mid-update
/// leaves a session that goes on when the robot does.
#[test]
fn behind_a_controller_it_is_the_plain_policy() {
    let bytes = factory(8);
    let artefact = Artefact::new(bytes.as_bytes()).unwrap();
    let len = PolicyScratch::len(artefact.velocity().shape(), artefact.plan());
    let (mut one, mut two) = (vec![0.0; len], vec![0.0; len]);
    let policy = |memory| LentPolicy::new(Policy::new(artefact).unwrap(), memory).unwrap();
    let mut session = Session::new(learner(&bytes), config(), 1).unwrap();
    session.learn(false);
    let learning = LearningPolicy::new::<2, 1>(policy(&mut one), session).unwrap();
    let config = control::Config::new(10_000, ["one", "two"], ["drive"], [Limits::new(-2.0, 2.0)]);
    let mut learning = Controller::new(learning, &config).unwrap();
    let mut plain = Controller::new(policy(&mut two), &config).unwrap();
    let (mut a, mut b) = (rng(1), rng(1));
    let run = |learning: &mut Controller<LearningPolicy<'_, _, _>, 2, 1>, noise: &mut _, input: &Input<2>| {
        let command = learning.step(&mut Untimed, input, noise);
        let event = learning.policy_mut().session_mut().after(Passage::of(&command), &command.action, 0.1, 0.5);
        // Several periods to an update, so that what happens finds one under way.
        (0..300).for_each(|_| _ = learning.policy_mut().session_mut().slice());
        (command, event)
    };
    assert_eq!((learning.arm(), plain.arm()), (Ok(()), Ok(())));
    for step in 0..200u32 {
        let input = Input { due: step * 10_000, observation: Ok([0.1, (step % 9) as f32 * 0.1]), stop: false };
        let command = plain.step(&mut Untimed, &input, &mut b);
        assert_eq!(run(&mut learning, &mut a, &input).0.action, command.action);
    }
    learning.policy_mut().session_mut().learn(true);
    let mut saw = [false; 2];
    for step in 200..3_000u32 {
        let dead = (1000..1020).contains(&step);
        let observation = if dead { Ok([f32::NAN, 0.0]) } else { Ok([0.1, (step % 9) as f32 * 0.1]) };
        let input = Input { due: step * 10_000, observation, stop: (2000..2004).contains(&step) };
        let (command, _) = run(&mut learning, &mut a, &input);
        saw[0] |= command.status.state == State::Fault;
        saw[1] |= command.status.state == State::Stopped;
        if step == 1020 || step == 2004 {
            assert!(learning.acknowledge() && learning.arm().is_ok());
        }
        assert!(command.action[0].is_finite());
    }
    let report = learning.policy().session().report();
    assert!(saw == [true; 2] && report.updates > 300 && report.resets == 0 && report.refused == 0, "{report:?}");
    let other = factory(9);
    let wrong = Session::new(learner(&other), self::config(), 1).unwrap();
    let mut three = vec![0.0; len];
    let refused = LearningPolicy::new::<2, 1>(policy(&mut three), wrong);
    assert_eq!(refused.err(), Some(SessionError::OtherPolicy));
}

/// Rewards and metrics that are no numbers are counted and cost nothing but themselves.
#[test]
fn odd_numbers_are_counted() {
    let bytes = factory(8);
    let mut session = Session::new(learner(&bytes), config(), 1).unwrap();
    let (mut noise, mut action) = (rng(1), [0.0]);
    for step in 0..2_000 {
        let play = |_: &mut _, action: &mut [f32]| {
            action[0] = 0.5;
            Ok::<(), PolicyError>(())
        };
        session.decide(&[0.1, 0.2], &mut noise, &mut action, play).unwrap();
        let (reward, metric) = if step % 3 == 0 { (f32::NAN, f32::NAN) } else { (1.0, 7.0) };
        session.after(Passage::Free, &action, reward, metric);
        session.finish();
    }
    let report = session.report();
    // The last transition is still open.
    assert_eq!(report.refused, 2_000_u32.div_ceil(3) - u32::from(1999 % 3 == 0));
    assert!(session.learner().transitions() > 100 && report.best <= 1.0 && report.best > 0.6);
    let play = |_: &mut _, _: &mut [f32]| Ok::<(), PolicyError>(());
    session.stage = Stage::Screening;
    let error = session.decide(&[0.1, f32::INFINITY], &mut noise, &mut action, play);
    assert_eq!(error, Err(PolicyError::Observation { channel: 1 }));
}

/// An episode that ends early counts what it lacks as zero, and what follows it is no transition.
#[test]
fn episodes_end_early() {
    let bytes = factory(8);
    let mut session = Session::new(learner(&bytes), config(), 1).unwrap();
    let (mut noise, mut action) = (rng(1), [0.0]);
    for step in 0..30 {
        let play = |_: &mut _, _: &mut [f32]| Ok::<(), PolicyError>(());
        session.decide(&[0.1, 0.2], &mut noise, &mut action, play).unwrap();
        session.after(Passage::Free, &action, 1.0, 1.0);
        if step % 5 == 4 {
            assert!(session.terminated().is_some() && session.at_block_start());
            assert!((session.report().block_metric - 0.25).abs() < 1e-6);
            assert_eq!(session.report().block_return, 5.0);
        }
    }
    assert!((session.report().reference - 0.25).abs() < 1e-6);
}

/// A timer that adds so many ticks at every look.
struct Ticks(u32, u32);

impl control::Chip for Ticks {
    fn now(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(self.1);
        self.0
    }
}

/// Pieces of an update end by the deadline, over the timer's wrap too; and a clock that stands still ends nothing but itself.
#[test]
fn idle_time_is_used_to_the_deadline() {
    let bytes = factory(8);
    let busy = || {
        let mut session = Session::new(learner(&bytes), config(), 1).unwrap();
        live(&mut session, better_candidate, |s| s.learner().updates() == 1);
        assert!(!session.slice());
        let play = |_: &mut _, _: &mut [f32]| Ok::<(), PolicyError>(());
        while !session.learner().is_busy() {
            session.decide(&[0.1, 0.2], &mut rng(1), &mut [0.0], play).unwrap();
            session.after(Passage::Free, &[0.1], 0.0, 0.5);
        }
        session
    };
    let start = u32::MAX - 45;
    // Looks at 10, 20, .. 100 ticks: after that at 60 a piece of 40 just ends in time, after that at 70 it does not.
    assert_eq!(busy().work(&mut Ticks(start, 10), start.wrapping_add(100), 40, 1_000), 6);
    assert_eq!(busy().work(&mut Ticks(start, 10), start.wrapping_add(100), 101, 1_000), 0);
    assert_eq!(busy().work(&mut Ticks(start, 10), start, 0, 1_000), 0, "the deadline is past");
    assert_eq!(busy().work(&mut Ticks(start, 0), start.wrapping_add(100), 40, 25), 25);
    let mut session = busy();
    let all = session.work(&mut Ticks(0, 0), 100, 40, u32::MAX);
    assert!(all > 25 && !session.learner().is_busy());
}
