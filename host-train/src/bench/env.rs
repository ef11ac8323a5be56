//! How fast an environment steps: control steps per CPU-second, on one thread and on several.
//!
//! A control step is the step, the reward and the observation; the resets after each episode are timed apart, and there is
//! a figure with them, too. Actions are drawn beforehand, uniformly within the limits. Every thread has an environment of its
//! own and its own CPU clock; the figures are medians over [`ROUNDS`] rounds, the threads' times added, with the slowest
//! and the fastest round beside them.

use crate::env::Env;
use crate::{Error, Result};
use cpu_time::ThreadTime;
use plants::uniform_in;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use std::time::Instant;

/// Rounds of a measurement.
pub const ROUNDS: usize = 9;
/// Actions drawn beforehand.
const ACTIONS: usize = 997;
/// Control steps between two looks at the clock.
const BURST: usize = 50;

/// What was measured on so many threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Control steps per second of CPU time: the median, the slowest round, the fastest.
    pub per_cpu_second: [f64; 3],
    /// The same with the resets, median.
    pub with_resets: f64,
    /// Control steps per second of the wall clock, median.
    pub per_second: f64,
}

/// Measures environments that `make` makes, one a thread, each round for `seconds` of every thread's CPU time.
pub fn measure(make: &dyn Fn() -> Result<Box<dyn Env>>, threads: usize, seconds: f64) -> Result<Speed> {
    let mut runners = (0..threads).map(|i| Runner::new(make()?, i as u64)).collect::<Result<Vec<_>>>()?;
    round(&mut runners, 0.2 * seconds)?;
    let (mut rates, mut whole, mut walls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (Part { steps, cpu, resets }, wall) = round(&mut runners, seconds)?;
        rates.push(steps / (cpu - resets));
        whole.push(steps / cpu);
        walls.push(steps / wall);
    }
    for rates in [&mut rates, &mut whole, &mut walls] {
        rates.sort_by(f64::total_cmp);
    }
    Ok(Speed {
        per_cpu_second: [rates[ROUNDS / 2], rates[0], rates[ROUNDS - 1]],
        with_resets: whole[ROUNDS / 2],
        per_second: walls[ROUNDS / 2],
    })
}

/// What a thread did in a round: control steps, CPU-seconds in all, and those of them that resets took.
#[derive(Clone, Copy, Default)]
struct Part {
    steps: f64,
    cpu: f64,
    resets: f64,
}

/// One round on all threads, and its seconds.
fn round(runners: &mut [Runner], seconds: f64) -> Result<(Part, f64)> {
    let started = Instant::now();
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = runners.iter_mut().map(|runner| scope.spawn(move || runner.run(seconds))).collect();
        let died = || Err(Error::failure("a thread of the measurement died: start it again"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| died())).collect::<Result<Vec<_>>>()
    })?;
    let sum = |part: fn(&Part) -> f64| parts.iter().map(part).sum();
    let all = Part { steps: sum(|p| p.steps), cpu: sum(|p| p.cpu), resets: sum(|p| p.resets) };
    Ok((all, started.elapsed().as_secs_f64()))
}

/// An environment with its actions.
struct Runner {
    env: Box<dyn Env>,
    rng: Xoshiro256PlusPlus,
    actions: Vec<Vec<f64>>,
    next: usize,
    left: usize,
    obs: Vec<f64>,
}

impl Runner {
    fn new(env: Box<dyn Env>, seed: u64) -> Result<Self> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let limits: Vec<_> = env.spec().low.iter().zip(&env.spec().high).collect();
        let mut draw =
            || limits.iter().map(|(low, high)| uniform_in(&mut rng, f64::from(**low), f64::from(**high))).collect();
        let actions = (0..ACTIONS).map(|_| draw()).collect();
        Ok(Self { actions, rng, next: 0, left: 0, obs: vec![0.0; env.spec().obs()], env })
    }

    /// Steps until so much CPU time is used up.
    fn run(&mut self, seconds: f64) -> Result<Part> {
        let started = ThreadTime::now();
        let mut part = Part::default();
        loop {
            for _ in 0..BURST {
                if self.left == 0 {
                    let reset = ThreadTime::now();
                    self.env.reset(&mut self.rng)?;
                    part.resets += reset.elapsed().as_secs_f64();
                    self.left = self.env.spec().time_limit;
                }
                let step = self.env.step(&self.actions[self.next])?;
                self.env.observe(&mut self.obs);
                self.next = (self.next + 1) % ACTIONS;
                self.left = if step.terminated || step.truncated { 0 } else { self.left - 1 };
            }
            part.steps += BURST as f64;
            part.cpu = started.elapsed().as_secs_f64();
            if part.cpu >= seconds {
                return Ok(part);
            }
        }
    }
}
