//! Error rates and power by simulation of whole trials, and the state machine's rules.
//!
//! **Tolerances.** A rate stated as at most `p` is checked on `n` seeded trials against `p + 4 sqrt(p (1 - p) / n)`: a guard
//! that keeps to `p` exactly would fail with a probability of 3e-5, one that errs at `1.2 p` is found.

extern crate std;
use super::*;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::format;
use std::string::String;
use std::vec::Vec;

/// One step a block, so that a metric drawn at random is a block's mean.
const SINGLE: Config = Config { settle: 0, margin: 0.0, audit: 0, ..Config::new(1) };

struct Chance(Xoshiro256PlusPlus);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Uniform in `[0, 1)`.
    fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// 1 with probability `p`, otherwise 0.
    fn success(&mut self, p: f32) -> f32 {
        f32::from(u8::from(self.unit() < p))
    }
}

/// Plays until there is a verdict; `metric` is given who plays and the number of the block.
fn play(guard: &mut Guard, mut metric: impl FnMut(Player, u32) -> f32) -> Verdict {
    for block in 0..1_000_000 {
        let player = guard.player();
        if let Some(verdict) = guard.step(&mut |_: &[f32], _: &[f32]| metric(player, block), &[], &[], Passage::Free) {
            return verdict;
        }
    }
    panic!("no verdict")
}

fn begun(config: Config, seed: u64) -> Guard {
    let mut guard = Guard::new(config, seed).unwrap();
    guard.begin().unwrap();
    guard
}

/// A guard with an incumbent and a candidate on trial.
fn begun_with_incumbent(config: Config, seed: u64) -> Guard {
    let mut guard = begun(config, seed);
    guard.phase = Phase::Promoted;
    guard.commit().unwrap();
    guard.begin().unwrap();
    guard
}

/// Trials of `TRIALS` in which `trial` said so, against the stated rate.
fn assert_rate(name: &str, trials: u32, stated: f64, mut wrong: impl FnMut(u64) -> bool) -> f64 {
    let rate = (0..trials).filter(|seed| wrong(u64::from(*seed))).count() as f64 / f64::from(trials);
    let tolerance = 4.0 * (stated * (1.0 - stated) / f64::from(trials)).sqrt();
    assert!(rate <= stated + tolerance, "{name}: {rate} of {stated}");
    rate
}

const TRIALS: u32 = 20_000;

/// A pair of metrics with equal means, or a gain of the margin: of the reference and of the candidate, by the block.
type Null = fn(&mut Chance, bool, u32) -> f32;

const NULLS: [(&str, f32, Null); 8] = [
    ("success or failure", 0.0, |chance, _, _| chance.success(0.5)),
    ("success or failure at the margin", 0.1, |chance, candidate, _| {
        chance.success(if candidate { 0.55 } else { 0.45 })
    }),
    ("mostly successes", 0.0, |chance, _, _| chance.success(0.9)),
    ("uniform", 0.0, |chance, _, _| chance.unit()),
    // Better in ten rounds of eleven, and a disaster in the eleventh: a test of signs or medians promotes it.
    ("two points", 0.0, |chance, candidate, _| if candidate { 0.55 * chance.success(10.0 / 11.0) } else { 0.5 }),
    ("certain at the margin", 0.125, |_, candidate, _| if candidate { 0.625 } else { 0.5 }),
    ("worn in over the trial", 0.0, |chance, _, block| chance.success(0.1 + 0.002 * block as f32)),
    // As of a task that goes one way and back: fooled for certain if the players simply alternated.
    ("every other block", 0.0, |_, _, block| (block % 2) as f32),
];

/// The first candidate's error of promotion is half of alpha, and of the stop for harm beta, for candidates at the edge of
/// the hypotheses.
#[test]
fn errors_are_no_more_frequent_than_stated() {
    for (name, margin, null) in NULLS {
        let config = Config { alpha: 0.2, beta: 1e-6, margin, ..SINGLE };
        let rate = assert_rate(name, TRIALS, 0.1, |seed| {
            let mut chance = Chance::new(seed);
            let mut guard = begun(config, seed);
            play(&mut guard, |player, block| null(&mut chance, player == Player::Candidate, block)) == Verdict::Better
        });
        // Nor is the test blind: where differences are large, most of the error is spent in 200 rounds.
        if name.starts_with("success") || name.starts_with("every") {
            assert!(rate > 0.05, "{name}: {rate}");
        }
        if margin == 0.0 {
            let config = Config { alpha: 1e-6, beta: 0.1, ..SINGLE };
            assert_rate(name, TRIALS, 0.1, |seed| {
                let mut chance = Chance::new(seed);
                let mut guard = begun(config, seed);
                play(&mut guard, |player, block| null(&mut chance, player == Player::Candidate, block))
                    == Verdict::Worse
            });
        }
    }
}

/// An environment that answers to what has happened, as a learner and a battery do, wins nothing either: the evidence has mean
/// 1 over all sequences of orders, by enumeration.
#[test]
fn evidence_is_a_martingale_for_any_reaction() {
    /// The mean over the orders of the rounds that are left.
    fn mean(bets: Bets, left: u32) -> f64 {
        if left == 0 {
            return f64::from(bets.evidence());
        }
        // Rises while the candidate leads, and is steady while it trails.
        let rise = if bets.evidence() > 1.0 { 0.9 } else { 0.125 * left as f32 / 8.0 };
        let next = |difference| {
            let mut next = bets;
            next.bet(difference, 0.0);
            mean(next, left - 1)
        };
        0.5 * (next(rise) + next(-rise))
    }
    let mean = mean(Bets::new(), 12);
    // 13 reserves of 2^-20 against roundings, and less than as much of roundings.
    assert!(mean <= 1.0 && mean > 1.0 - 26.0 / f64::from(1 << 20), "{mean}");
}

/// With an incumbent both comparisons must be won, so the error is that of the one at its edge.
#[test]
fn a_candidate_must_beat_factory_and_incumbent() {
    let config = Config { alpha: 0.5, beta: 1e-6, ..SINGLE };
    for (name, factory, incumbent) in [("as the incumbent", 0.2, 0.6), ("as the factory", 0.6, 0.2)] {
        // The second candidate of a life: a sixth of alpha.
        assert_rate(name, TRIALS / 2, 0.5 / 6.0, |seed| {
            let mut chance = Chance::new(seed);
            let mut guard = begun_with_incumbent(config, seed);
            let means = |player| match player {
                Player::Factory => factory,
                Player::Incumbent => incumbent,
                Player::Candidate => 0.6,
            };
            play(&mut guard, |player, _| chance.success(means(player))) == Verdict::Better
        });
    }
}

/// Whole lives with a learner that has no idea: any candidate within 0.4 of the factory, incumbents included.
#[test]
fn the_error_of_a_life_is_no_more_than_alpha() {
    let config = Config { alpha: 0.1, rounds: 100, ..SINGLE };
    let (mut promotions, mut gain, lives) = (0, 0.0, 2_000);
    assert_rate("lives", lives, 0.1, |seed| {
        let mut chance = Chance::new(seed);
        let mut guard = Guard::new(config, seed).unwrap();
        let (factory, mut incumbent, mut wrong) = (0.5, 0.5, false);
        for _ in 0..15 {
            let candidate = factory + 0.8 * (chance.unit() - 0.5);
            guard.begin().unwrap();
            let verdict = play(&mut guard, |player, _| {
                chance.success(match player {
                    Player::Factory => factory,
                    Player::Incumbent => incumbent,
                    Player::Candidate => candidate,
                })
            });
            if verdict == Verdict::Better {
                wrong |= candidate <= factory || candidate <= incumbent;
                incumbent = candidate;
                promotions += 1;
                guard.commit().unwrap();
            }
        }
        gain += incumbent - factory;
        wrong
    });
    assert!(promotions > lives, "{promotions} promotions");
    assert!(gain / lives as f32 > 0.1, "{}", gain / lives as f32);
}

/// Small losses do not add up: candidates that are each a little worse than what is deployed are never promoted in a chain.
#[test]
fn small_losses_do_not_add_up() {
    let config = Config { alpha: 0.1, ..SINGLE };
    assert_rate("chains", 500, 0.1, |seed| {
        let mut chance = Chance::new(seed);
        let mut guard = Guard::new(config, seed).unwrap();
        let mut incumbent = 0.7;
        for _ in 0..20 {
            guard.begin().unwrap();
            let verdict = play(&mut guard, |player, _| {
                chance.success(match player {
                    Player::Factory => 0.7,
                    Player::Incumbent => incumbent,
                    Player::Candidate => incumbent - 0.02,
                })
            });
            if verdict == Verdict::Better {
                incumbent -= 0.02;
                guard.commit().unwrap();
            }
        }
        incumbent < 0.7
    });
}

/// The verdicts of `trials` trials with their rounds: share of `verdict`, and its median round.
fn outcomes(trials: u32, verdict: Verdict, metric: impl Fn(&mut Chance, bool) -> f32) -> (u32, u16) {
    let mut rounds: Vec<u16> = (0..trials)
        .filter_map(|seed| {
            let mut chance = Chance::new(u64::from(seed));
            let mut guard = begun(Config { settle: 0, ..Config::new(1) }, u64::from(seed));
            let found = play(&mut guard, |player, _| metric(&mut chance, player == Player::Candidate));
            (found == verdict).then_some(guard.rounds)
        })
        .collect();
    rounds.sort_unstable();
    let share = (rounds.len() as f64 / f64::from(trials) * 100.0).round() as u32;
    (share, rounds.get(rounds.len() / 2).copied().unwrap_or(0))
}

/// A mean metric of 0.5 on average over both players, with this gain and kind of scatter.
fn scattered(chance: &mut Chance, candidate: bool, gain: f32, scatter: Option<f32>) -> f32 {
    let mean = 0.5 + if candidate { 0.5 * gain } else { -0.5 * gain };
    match scatter {
        Some(width) => mean + width * (2.0 * chance.unit() - 1.0),
        None => chance.success(mean),
    }
}

const SCATTERS: [(&str, Option<f32>); 4] =
    [("+-0.05", Some(0.05)), ("+-0.15", Some(0.15)), ("+-0.3", Some(0.3)), ("0 or 1", None)];

/// The tables of docs/guard.md are what this guard does.
#[test]
fn power_is_as_documented() {
    let page = include_str!("../../../docs/guard.md");
    let table = |verdict, gains: &[f32]| {
        let mut table = String::from("| gain |");
        SCATTERS.iter().for_each(|(name, _)| table.push_str(&format!(" {name} |")));
        table.push_str("\n|---|---|---|---|---|\n");
        for gain in gains {
            table.push_str(&format!("| {gain} |"));
            for (_, scatter) in SCATTERS {
                let (share, rounds) =
                    outcomes(1_000, verdict, |chance, candidate| scattered(chance, candidate, *gain, scatter));
                let cell = if share == 0 { " 0 % |".into() } else { format!(" {share} %, {rounds} |") };
                table.push_str(&cell);
            }
            table.push('\n');
        }
        table
    };
    for (verdict, gains) in [
        (Verdict::Better, [0.0, 0.02, 0.05, 0.1, 0.2, 0.4].as_slice()),
        (Verdict::Worse, [0.0, -0.02, -0.05, -0.1, -0.2, -0.4].as_slice()),
    ] {
        let table = table(verdict, gains);
        assert!(page.contains(&table), "docs/guard.md should have, for {verdict:?}:\n{table}");
    }
}

/// A candidate that does nothing where the factory's policy does well is stopped after six rounds.
#[test]
fn clear_harm_is_stopped_in_a_few_rounds() {
    for (factory, most) in [(1.0, 5), (0.9, 6), (0.5, 9)] {
        let mut guard = begun(Config { settle: 0, ..Config::new(1) }, 1);
        let verdict = play(&mut guard, |player, _| if player == Player::Candidate { 0.0 } else { factory });
        assert_eq!((verdict, guard.rounds), (Verdict::Worse, most));
        assert_eq!((guard.phase(), guard.player()), (Phase::RolledBack, Player::Factory));
    }
}

#[test]
fn orders_are_equally_likely() {
    const ROUNDS: u32 = 60_000;
    let config = Config { rounds: u16::MAX, alpha: 1e-6, beta: 1e-6, ..SINGLE };
    for incumbent in [false, true] {
        let mut guard = if incumbent { begun_with_incumbent(config, 9) } else { begun(config, 9) };
        let players = if incumbent { 3 } else { 2 };
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..ROUNDS {
            let order: Vec<u8> = (0..players)
                .map(|_| {
                    let player = guard.player() as u8;
                    assert_eq!(guard.step(&mut |_: &[f32], _: &[f32]| 0.5, &[], &[], Passage::Free), None);
                    player
                })
                .collect();
            *counts.entry(order).or_insert(0_u32) += 1;
        }
        let orders = if incumbent { 6.0 } else { 2.0 };
        assert_eq!(counts.len() as f64, orders);
        for (order, count) in counts {
            let p = 1.0 / orders;
            let deviations = (f64::from(count) - f64::from(ROUNDS) * p) / (f64::from(ROUNDS) * p * (1.0 - p)).sqrt();
            assert!(deviations.abs() < 4.5, "{order:?}: {count}");
        }
    }
}

/// An incumbent that the plant has left behind is found by the audits, and the factory's weights are deployed.
#[test]
fn an_outdated_incumbent_is_taken_away() {
    let config = Config { audit: 4, ..SINGLE };
    let mut guard = begun_with_incumbent(config, 5);
    guard.abandon();
    let mut chance = Chance::new(5);
    let mut blocks = [0_u32; 3];
    // It is worth 0.9 for a while, and then 0.3; the factory's 0.6 all the time.
    let verdict = play(&mut guard, |player, block| {
        blocks[player as usize] += 1;
        chance.success(if player == Player::Factory {
            0.6
        } else if block < 6_000 {
            0.9
        } else {
            0.3
        })
    });
    assert_eq!((verdict, guard.phase(), guard.player()), (Verdict::Outdated, Phase::RolledBack, Player::Factory));
    let [factory, incumbent, candidate] = blocks;
    // Four blocks alone, and one in each audit: five for one.
    assert!(factory >= 1_000 && candidate == 0 && incumbent.abs_diff(5 * factory) <= 9, "{blocks:?}");
    // Long merits before the change do not delay it.
    assert!(factory + incumbent < 6_000 + 6 * 150, "{blocks:?}");
    // Without audits nobody looks.
    let mut guard = begun_with_incumbent(SINGLE, 5);
    guard.abandon();
    for _ in 0..10_000 {
        assert_eq!((guard.player(), guard.take(0.0, 1.0)), (Player::Incumbent, None));
    }
}

/// In a trial as well, where the candidate is no better.
#[test]
fn an_outdated_incumbent_is_taken_away_in_a_trial() {
    let config = Config { alpha: 1e-6, watch: 10, ..SINGLE };
    let mut guard = begun_with_incumbent(config, 5);
    let verdict = play(&mut guard, |player, _| if player == Player::Factory { 0.9 } else { 0.2 });
    assert_eq!((verdict, guard.deployed(), guard.rounds), (Verdict::Outdated, Player::Factory, 7));
}

fn free(guard: &mut Guard, value: f32) -> Option<Verdict> {
    guard.step(&mut |_: &[f32], _: &[f32]| value, &[], &[], Passage::Free)
}

fn fault(guard: &mut Guard) -> Option<Verdict> {
    guard.step(&mut |_: &[f32], _: &[f32]| 1.0, &[], &[], Passage::Fault)
}

/// A guard at the start of a block of `player`, in its `round`-th round.
fn before_block_of(config: Config, player: Player, round: u16) -> Guard {
    let mut guard = (0..64)
        .map(|seed| {
            let mut guard = begun(config, seed);
            while guard.rounds < round {
                free(&mut guard, 0.5);
            }
            guard
        })
        .find(|guard| guard.player() == player)
        .unwrap();
    guard.before = Player::Factory;
    guard
}

#[test]
fn a_fault_ends_the_candidate_and_zeroes_the_others() {
    let config = Config { settle: 2, block: 8, ..Config::new(8) };
    let mut guard = before_block_of(config, Player::Candidate, 0);
    assert_eq!(free(&mut guard, 1.0), None);
    assert_eq!(fault(&mut guard), Some(Verdict::Fault));
    assert_eq!((guard.phase(), guard.player(), guard.faults), (Phase::RolledBack, Player::Factory, 1));

    // The factory's block ends with what it had: two of eight.
    let mut guard = before_block_of(config, Player::Factory, 0);
    for _ in 0..4 {
        assert_eq!(free(&mut guard, 1.0), None);
    }
    assert_eq!((fault(&mut guard), guard.means[0]), (None, 0.25));
    // It is the candidate's turn, but as long as the fault is latched, nobody plays.
    assert_eq!(guard.player(), Player::Candidate);
    for _ in 0..50 {
        assert_eq!(fault(&mut guard), None);
        assert_eq!(guard.step(&mut |_: &[f32], _: &[f32]| 1.0, &[], &[], Passage::Rest), None);
    }
    assert_eq!((guard.steps, guard.faults), (0, 1));
    free(&mut guard, 1.0);
    assert_eq!(fault(&mut guard), Some(Verdict::Fault));

    // What the candidate left behind is its own, while the next one settles and no longer.
    for (steps, verdict) in [(0, Some(Verdict::Fault)), (1, Some(Verdict::Fault)), (2, None)] {
        let mut guard = before_block_of(config, Player::Candidate, 0);
        for _ in 0..10 + steps {
            assert_eq!(free(&mut guard, 1.0), None);
        }
        assert_eq!((guard.player(), fault(&mut guard)), (Player::Factory, verdict), "{steps}");
    }

    // So is what it does before its weights are kept.
    let mut guard = begun(config, 1);
    assert_eq!(play(&mut guard, |player, _| if player == Player::Candidate { 1.0 } else { 0.0 }), Verdict::Better);
    assert_eq!(guard.player(), Player::Candidate);
    assert_eq!(fault(&mut guard), Some(Verdict::Fault));
    assert_eq!((guard.commit(), guard.player()), (Err(GuardError::NotPromoted), Player::Factory));
}

#[test]
fn steps_that_settle_are_not_measured_and_missing_ones_are_zero() {
    let config = Config { settle: 3, block: 4, ..Config::new(4) };
    let mut guard = Guard::new(config, 1).unwrap();
    for value in [f32::NAN, 1.0, 1.0, 0.5, 0.5, 1.0, 0.0] {
        assert_eq!(free(&mut guard, value), None);
    }
    assert_eq!((guard.means[0], guard.odd, guard.steps), (0.5, 0, 0));
    assert_eq!((guard.end_block(), guard.means[0]), (None, 0.5));
    for value in [0.0, 0.0, 0.0, 1.0] {
        free(&mut guard, value);
    }
    assert_eq!((guard.end_block(), guard.means[0], guard.steps), (None, 0.25, 0));
    // The longest block there is has a mean of one, not of a rounding more.
    let mut guard = Guard::new(Config { settle: 0, ..Config::new(u16::MAX) }, 1).unwrap();
    for _ in 0..u16::MAX {
        free(&mut guard, 1.0);
    }
    assert_eq!((guard.means[0], guard.steps), (1.0, 0));
}

#[test]
fn lawless_metrics_are_zero_or_the_nearer_end_and_counted() {
    let cases = [
        (f32::NAN, 0.0, 1),
        (-f32::NAN, 0.0, 1),
        (f32::INFINITY, 0.0, 1),
        (f32::NEG_INFINITY, 0.0, 1),
        (f32::MAX, 1.0, 1),
        (f32::MIN, 0.0, 1),
        (1.000_000_1, 1.0, 1),
        (-1e-45, 0.0, 1),
        (1e-45, 0.0, 0),
        (-0.0, 0.0, 0),
        (1.0, 1.0, 0),
        (0.25, 0.25, 0),
    ];
    for (value, mean, odd) in cases {
        let mut guard = Guard::new(SINGLE, 1).unwrap();
        free(&mut guard, value);
        assert_eq!((guard.means[0].to_bits(), guard.odd), (f32::to_bits(mean), odd), "{value}");
    }
    // Whatever comes, a trial ends; the candidate gains nothing by it, and counts do not wrap.
    let mut guard = begun(Config { rounds: u16::MAX, ..SINGLE }, 1);
    let verdict = play(&mut guard, |player, block| match (player, block % 3) {
        (Player::Candidate, 0) => f32::NAN,
        (Player::Candidate, 1) => f32::INFINITY,
        (Player::Candidate, _) => -7.0,
        _ => 0.0,
    });
    assert_eq!((verdict, guard.odd, guard.report().odd), (Verdict::Undecided, u16::MAX, 255));
}

#[test]
fn corrected_steps_are_worth_what_was_said() {
    for (correction, mean) in [(1.0, 0.75), (0.5, 0.5625), (0.0, 0.375)] {
        let mut guard = Guard::new(Config { settle: 0, correction, ..Config::new(2) }, 1).unwrap();
        for passage in [Passage::Free, Passage::Corrected] {
            guard.step(&mut |_: &[f32], _: &[f32]| 0.75, &[], &[], passage);
        }
        assert_eq!(guard.means[0], mean);
    }
}

#[test]
fn a_command_tells_its_passage() {
    use crate::control::{Fault, Status};
    let status = |state| Status { state, fault: Fault::NONE, glitches: 0, late: 0, steps: 1, slack: 0 };
    for (state, corrected, passage) in [
        (State::Idle, false, Passage::Rest),
        (State::Running, false, Passage::Free),
        (State::Running, true, Passage::Corrected),
        (State::Holding, false, Passage::Free),
        (State::Holding, true, Passage::Corrected),
        (State::Fault, false, Passage::Fault),
        (State::Stopped, false, Passage::Fault),
    ] {
        assert_eq!(Passage::of(&Command { action: [0.0], status: status(state), decided: true, corrected }), passage);
    }
}

#[test]
fn wrong_configurations_and_calls_are_refused() {
    let nan = f32::NAN;
    for (config, error) in [
        (Config { block: 0, ..SINGLE }, GuardError::Length),
        (Config { rounds: 0, ..SINGLE }, GuardError::Length),
        (Config { watch: 0, ..SINGLE }, GuardError::Length),
        (Config { alpha: 0.0, ..SINGLE }, GuardError::Rate),
        (Config { alpha: 0.6, ..SINGLE }, GuardError::Rate),
        (Config { alpha: nan, ..SINGLE }, GuardError::Rate),
        (Config { beta: 0.0, ..SINGLE }, GuardError::Rate),
        (Config { beta: nan, ..SINGLE }, GuardError::Rate),
        (Config { margin: -0.1, ..SINGLE }, GuardError::Margin),
        (Config { margin: 0.6, ..SINGLE }, GuardError::Margin),
        (Config { margin: nan, ..SINGLE }, GuardError::Margin),
        (Config { correction: 1.1, ..SINGLE }, GuardError::Correction),
        (Config { correction: nan, ..SINGLE }, GuardError::Correction),
    ] {
        assert_eq!(Guard::new(config, 1).err(), Some(error), "{config:?}");
    }
    let mut guard = Guard::new(SINGLE, 1).unwrap();
    assert_eq!(guard.commit(), Err(GuardError::NotPromoted));
    guard.abandon();
    assert_eq!(guard.phase(), Phase::Observing);
    guard.begin().unwrap();
    assert_eq!((guard.begin(), guard.commit()), (Err(GuardError::Busy), Err(GuardError::NotPromoted)));
    guard.abandon();
    assert_eq!((guard.phase(), guard.verdict()), (Phase::RolledBack, Verdict::Abandoned));
    guard.candidates = u16::MAX;
    assert_eq!((guard.begin(), guard.phase()), (Err(GuardError::Spent), Phase::RolledBack));
    let mut guard = begun_with_incumbent(SINGLE, 1);
    guard.revert();
    assert_eq!((guard.phase(), guard.player()), (Phase::RolledBack, Player::Factory));
}

/// A long life with everything that can happen, drawn by `chance`; `each` is called with the guard after every event.
fn live(guard: &mut Guard, chance: &mut Chance, events: u32, mut each: impl FnMut(&mut Guard)) {
    for _ in 0..events {
        match (chance.0.next_u32() % 1_000, guard.phase()) {
            (0..=1, _) => _ = fault(guard),
            (2..=5, _) => _ = guard.end_block(),
            (6..=7, _) => guard.abandon(),
            (8, _) => guard.revert(),
            (9..=29, Phase::Observing | Phase::RolledBack) => guard.begin().unwrap(),
            (9..=29, Phase::Promoted) => guard.commit().unwrap(),
            _ => {
                let better = f32::from(guard.player() as u8) * 0.4;
                let value = if chance.unit() < 0.01 { f32::NAN } else { better * chance.unit() };
                let _ = guard.step(&mut |_: &[f32], _: &[f32]| value, &[], &[], Passage::Free);
            }
        }
        each(guard);
    }
}

const LIVELY: Config = Config { settle: 1, audit: 3, alpha: 0.5, rounds: 40, ..Config::new(2) };

/// A guard that is written and read again after every event lives the life of one that is not.
#[test]
fn a_restored_guard_goes_on_bit_for_bit() {
    let (mut kept, mut restored) = (Guard::new(LIVELY, 3).unwrap(), Guard::new(LIVELY, 3).unwrap());
    let mut traces = [Vec::new(), Vec::new()];
    live(&mut kept, &mut Chance::new(1), 60_000, |guard| traces[0].push(guard.to_bytes()));
    live(&mut restored, &mut Chance::new(1), 60_000, |guard| {
        let bytes = guard.to_bytes();
        traces[1].push(bytes);
        *guard = Guard::from_bytes(LIVELY, &bytes).unwrap();
    });
    assert!(traces[0] == traces[1]);
    assert_eq!(Guard::BYTES, 120, "docs/guard.md says so");
    // It was a life: several of each verdict but the first.
    for verdict in [Verdict::Better, Verdict::Undecided, Verdict::Fault, Verdict::Abandoned] {
        let changes = traces[0].windows(2).filter(|pair| pair[0][2] != pair[1][2] && pair[1][2] == verdict as u8);
        assert!(changes.count() > 3, "{verdict:?}");
    }
    assert!(kept.promotions > 10 && kept.odd > 100);
}

/// Any flipped bit is refused or makes another lawful guard, which goes on without a panic and writes what it read.
#[test]
fn damaged_bytes_are_refused_or_harmless() {
    let mut guard = Guard::new(LIVELY, 3).unwrap();
    let (mut refused, mut events) = (0, 0);
    live(&mut guard, &mut Chance::new(2), 3_000, |guard| {
        events += 1;
        if events % 100 != 0 {
            return;
        }
        for bit in 0..8 * Guard::BYTES {
            let mut bytes = guard.to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match Guard::from_bytes(LIVELY, &bytes) {
                Ok(mut other) => {
                    assert_eq!(other.to_bytes(), bytes);
                    live(&mut other, &mut Chance::new(4), 100, |_| ());
                }
                Err(_) => refused += 1,
            }
        }
    });
    assert!(refused > 100 * 30, "{refused}");
    let mut bytes = guard.to_bytes();
    assert_eq!(Guard::from_bytes(SINGLE, &bytes).err(), Some(GuardError::OtherConfig));
    bytes[0] = 2;
    assert_eq!(Guard::from_bytes(LIVELY, &bytes).err(), Some(GuardError::Version { version: 2 }));
    assert_eq!(Guard::from_bytes(LIVELY, &[0; Guard::BYTES]).err(), Some(GuardError::Version { version: 0 }));
    assert_eq!(Guard::from_bytes(LIVELY, &[0xff; Guard::BYTES]).err(), Some(GuardError::Version { version: 255 }));
    for byte in [1, 2, 3, 4, 7] {
        let mut bytes = guard.to_bytes();
        bytes[byte] = 0xee;
        assert_eq!(Guard::from_bytes(LIVELY, &bytes).err(), Some(GuardError::Corrupt), "{byte}");
    }
}

#[test]
fn the_report_says_what_the_guard_knows() {
    let mut guard = begun_with_incumbent(SINGLE, 1);
    for _ in 0..9 {
        let mean = 0.25 * f32::from(guard.player() as u8 + 1);
        assert_eq!(free(&mut guard, mean), None);
    }
    let report = guard.report();
    assert_eq!((report.phase, report.verdict, report.deployed), (Phase::Trial, Verdict::None, Player::Incumbent));
    assert_eq!((report.candidates, report.round, report.means, report.odd), (2, 3, [64, 128, 191], 0));
    // Three rounds of 0.5 and of 0.25: the mean of (1 + d stake)^3 is 2.04 and 1.4, against 6 / 0.05 = 120.
    assert_eq!((report.over_factory, report.over_incumbent, report.needed, report.harm), (1, 0, 6, -1));
    let bytes = report.to_bytes();
    assert_eq!(Report::from_bytes(&bytes), Some(report));
    for (byte, codes) in [(0, 4), (1, 7), (2, 3), (3, 3)] {
        let mut wrong = bytes;
        wrong[byte] = codes;
        assert_eq!(Report::from_bytes(&wrong), None);
    }
    for verdict in Verdict::ALL {
        assert_eq!(Verdict::ALL[verdict as usize], verdict);
    }
}
