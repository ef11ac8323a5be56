//! What separates a robot from its simulation: parameters that are not the nominal ones, delay, sensor noise.
//!
//! [`varied`] gives any environment these keys beside its own, all zero by default:
//!
//! * `delay`: control steps from a decision to its effect; until the first takes effect, the actions rest in the middle
//!   of their ranges.
//! * `sensor_noise`: standard deviation of a Gaussian error of every observation channel, new at every control step, in
//!   units of the channel's default normaliser.
//! * `KEY_spread` for each key, those two included: at every reset the parameter is drawn uniformly from
//!   `KEY (1 - spread)` to `KEY (1 + spread)` (a delay is then rounded to whole steps).
//!
//! With all of them zero the environment is bit for bit the plain one. Otherwise what is drawn comes from a stream of its
//! own, seeded at each reset from the generator given there: the start states stay those of the plain environment, and an
//! episode remains a function of the generator's state at its reset and of the actions. The spec (limits, period) stays
//! that of the nominal parameters. No panics.

#[cfg(feature = "render")]
use super::Scene;
use super::{Env, EnvSpec, State, Step};
use crate::{Error, Result};
use plants::{normal, uniform_in};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;

const DELAY: &str = "delay";
const SENSOR_NOISE: &str = "sensor_noise";
const SPREAD: &str = "_spread";
/// The longest delay, control steps.
const LONGEST_DELAY: f64 = 1000.0;

/// Whether a key is one that every environment has: no parameter of the plant itself.
pub fn is_variation(key: &str) -> bool {
    key == DELAY || key == SENSOR_NOISE || key.ends_with(SPREAD)
}

/// Wraps an environment so that its parameters, delay and sensor noise can be set and randomised.
pub fn varied(inner: Box<dyn Env>) -> Box<dyn Env> {
    let switches = inner.switches();
    let own = inner.params().into_iter().map(|(key, nominal)| {
        let switch = switches.contains(&key.as_str());
        Varying { key, nominal, spread: 0.0, switch }
    });
    let generic =
        [DELAY, SENSOR_NOISE].map(|key| Varying { key: key.into(), nominal: 0.0, spread: 0.0, switch: false });
    Box::new(Varied {
        spec: inner.spec().clone(),
        parameters: own.collect(),
        delay: generic[0].clone(),
        noise: generic[1].clone(),
        stream: None,
        sigma: 0.0,
        pending: VecDeque::new(),
        lag: 0,
        error: vec![0.0; inner.spec().obs()],
        inner,
    })
}

/// A parameter with its spread.
#[derive(Clone)]
struct Varying {
    key: String,
    nominal: f64,
    spread: f64,
    switch: bool,
}

impl Varying {
    fn draw(&self, rng: &mut Xoshiro256PlusPlus) -> f64 {
        if self.spread > 0.0 { self.nominal * (1.0 + uniform_in(rng, -self.spread, self.spread)) } else { self.nominal }
    }
}

struct Varied {
    inner: Box<dyn Env>,
    /// The nominal spec.
    spec: EnvSpec,
    parameters: Vec<Varying>,
    delay: Varying,
    noise: Varying,
    /// Where this episode's noise comes from; none where nothing varies.
    stream: Option<Xoshiro256PlusPlus>,
    /// This episode's standard deviation and delay, the actions under way, and the present error of each channel.
    sigma: f64,
    lag: usize,
    pending: VecDeque<f64>,
    error: Vec<f64>,
}

impl Varied {
    fn all(&mut self) -> impl Iterator<Item = &mut Varying> {
        self.parameters.iter_mut().chain([&mut self.delay, &mut self.noise])
    }

    fn is_plain(&self) -> bool {
        let spread = self.parameters.iter().any(|p| p.spread > 0.0);
        !spread && self.delay.nominal == 0.0 && self.noise.nominal == 0.0
    }

    /// The nominal plant, without delay and noise.
    fn restore(&mut self) -> Result<()> {
        for p in self.parameters.iter().filter(|p| p.spread > 0.0) {
            self.inner.set(&p.key, p.nominal)?;
        }
        (self.stream, self.sigma, self.lag) = (None, 0.0, 0);
        self.pending.clear();
        self.error.fill(0.0);
        Ok(())
    }

    fn disturb(&mut self) {
        let Some(rng) = self.stream.as_mut().filter(|_| self.sigma > 0.0) else { return };
        for (error, scale) in self.error.iter_mut().zip(&self.spec.obs_scale) {
            *error = self.sigma / f64::from(scale.abs()) * normal(rng);
        }
    }

    fn unknown(&self, key: &str, value: f64) -> Error {
        let keys: Vec<&str> = self.parameters.iter().map(|p| p.key.as_str()).chain([DELAY, SENSOR_NOISE]).collect();
        Error::usage(format!(
            "env.{key}={value}: no such parameter: use one of {}, or one of them with {SPREAD}",
            keys.join(", ")
        ))
    }
}

impl Env for Varied {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        if self.is_plain() {
            return self.inner.reset(rng);
        }
        // A look ahead: the start state is drawn from the same number, but seeding scrambles it.
        let mut stream = Xoshiro256PlusPlus::seed_from_u64(!rng.clone().next_u64());
        for p in self.parameters.iter().filter(|p| p.spread > 0.0) {
            self.inner.set(&p.key, p.draw(&mut stream))?;
        }
        self.lag = self.delay.draw(&mut stream).round() as usize;
        self.sigma = self.noise.draw(&mut stream);
        self.inner.reset(rng)?;
        // Where the start is always the same, the next episode must vary nevertheless.
        rng.next_u64();
        self.pending.clear();
        for _ in 0..self.lag {
            let ranges = self.spec.low.iter().zip(&self.spec.high);
            self.pending.extend(ranges.map(|(low, high)| 0.5 * (f64::from(*low) + f64::from(*high))));
        }
        self.stream = Some(stream);
        self.disturb();
        Ok(())
    }

    fn step(&mut self, action: &[f64]) -> Result<Step> {
        let step = if self.lag == 0 {
            self.inner.step(action)?
        } else {
            self.pending.extend(action);
            let due: Vec<f64> = self.pending.drain(..action.len()).collect();
            self.inner.step(&due)?
        };
        self.disturb();
        Ok(step)
    }

    fn observe(&self, out: &mut [f64]) {
        self.inner.observe(out);
        if self.sigma > 0.0 {
            out.iter_mut().zip(&self.error).for_each(|(o, error)| *o += error);
        }
    }

    fn set(&mut self, key: &str, value: f64) -> Result<()> {
        self.restore()?;
        let range = |low: bool, what: &str| {
            if low { Ok(()) } else { Err(Error::usage(format!("env.{key}={value}: it must be {what}"))) }
        };
        let base = key.strip_suffix(SPREAD);
        if let Some(base) = base.filter(|_| !self.parameters.iter().any(|p| p.key == key)) {
            range((0.0..1.0).contains(&value), "a share of the parameter, from 0 to below 1")?;
            let Some(found) = self.all().find(|p| p.key == base) else { return Err(self.unknown(key, value)) };
            if found.switch {
                return Err(Error::usage(format!("env.{key}: {base} chooses between cases and cannot be spread")));
            }
            found.spread = value;
        } else if key == DELAY {
            let whole = (0.0..=LONGEST_DELAY).contains(&value) && value.fract() == 0.0;
            range(whole, &format!("a whole number of control steps, from 0 to {LONGEST_DELAY}"))?;
            self.delay.nominal = value;
        } else if key == SENSOR_NOISE {
            range((0.0..1e6).contains(&value), "a standard deviation, zero or above")?;
            self.noise.nominal = value;
        } else {
            if !self.parameters.iter().any(|p| p.key == key) {
                return Err(self.unknown(key, value));
            }
            self.inner.set(key, value)?;
            self.spec = self.inner.spec().clone();
            for p in self.parameters.iter_mut().filter(|p| p.key == key) {
                p.nominal = value;
            }
        }
        Ok(())
    }

    fn params(&self) -> Vec<(String, f64)> {
        let all = || self.parameters.iter().chain([&self.delay, &self.noise]);
        let nominal = all().map(|p| (p.key.clone(), p.nominal));
        nominal.chain(all().filter(|p| !p.switch).map(|p| (format!("{}{SPREAD}", p.key), p.spread))).collect()
    }

    fn switches(&self) -> &'static [&'static str] {
        self.inner.switches()
    }

    fn set_state(&mut self, state: &[f64]) -> Result<()> {
        self.restore()?;
        self.inner.set_state(state)
    }

    fn place(&mut self, state: &State) -> Result<()> {
        self.restore()?;
        self.inner.place(state)
    }

    fn state(&self) -> Option<State> {
        self.inner.state()
    }

    fn reward(&self) -> Option<f64> {
        self.inner.reward()
    }

    fn fault(&self) -> Option<&'static str> {
        self.inner.fault()
    }

    fn within_limits(&self) -> bool {
        self.inner.within_limits()
    }

    fn metric(&self, observation: &[f32]) -> Option<f32> {
        self.inner.metric(observation)
    }

    fn way(&self) -> Option<&'static str> {
        self.inner.way()
    }

    #[cfg(feature = "render")]
    fn scene(&mut self) -> Option<&mut Scene> {
        self.inner.scene()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NAMES, make};
    use super::*;
    use std::collections::BTreeMap;

    fn rng(seed: u64) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(seed)
    }

    fn with(name: &str, set: &[(&str, f64)]) -> Box<dyn Env> {
        let set: BTreeMap<String, f64> = set.iter().map(|&(k, v)| (k.to_string(), v)).collect();
        make(name, &set).unwrap()
    }

    /// Rewards and observations of `steps` control steps with actions that swing through their range.
    fn episode(env: &mut dyn Env, rng: &mut Xoshiro256PlusPlus, steps: usize) -> Vec<f64> {
        let mut obs = vec![0.0; env.spec().obs()];
        let mut seen = Vec::new();
        env.reset(rng).unwrap();
        env.observe(&mut obs);
        seen.extend_from_slice(&obs);
        for i in 0..steps {
            let spec = env.spec();
            let wave = (i as f64 * 0.7).sin();
            let action: Vec<f64> = spec
                .low
                .iter()
                .zip(&spec.high)
                .map(|(l, h)| if wave < 0.0 { f64::from(*l) } else { f64::from(*h) } * wave.abs())
                .collect();
            seen.push(env.step(&action).unwrap().reward);
            env.observe(&mut obs);
            seen.extend_from_slice(&obs);
        }
        seen
    }

    /// Every parameter spread, with delay and noise.
    fn everything(name: &str) -> Box<dyn Env> {
        let mut env = with(name, &[("delay", 3.0), ("sensor_noise", 0.02)]);
        let spreads: Vec<String> =
            env.params().into_iter().map(|(key, _)| key).filter(|k| k.ends_with(SPREAD)).collect();
        for key in spreads {
            env.set(&key, 0.2).unwrap();
        }
        env
    }

    /// The generator's state at the reset and the actions give the episode: on another environment, after other
    /// episodes, to equal bits.
    #[test]
    fn episodes_replay_to_equal_bits() {
        for name in NAMES {
            let (mut one, mut other) = (everything(name), everything(name));
            let mut stream = rng(3);
            episode(&mut *one, &mut stream, 20);
            let mut at_reset = stream.clone();
            let seen = episode(&mut *one, &mut stream, 50);
            assert_eq!(seen, episode(&mut *other, &mut at_reset, 50), "{name}");
            assert_eq!(stream, at_reset);
            assert_ne!(seen, episode(&mut *other, &mut stream, 50), "{name}");
        }
    }

    /// With zeros, wrapped is plain; keys that were set and taken back leave nothing behind.
    #[test]
    fn zeros_are_the_plain_environment() {
        let mut plain = super::super::cartpole::CartpoleEnv::new();
        let mut env = everything("cartpole");
        episode(&mut *env, &mut rng(9), 10);
        for (key, _) in env.params().into_iter().filter(|(key, _)| is_variation(key)) {
            env.set(&key, 0.0).unwrap();
        }
        assert_eq!(env.params(), with("cartpole", &[]).params());
        let (mut a, mut b) = (rng(4), rng(4));
        assert_eq!(episode(&mut plain, &mut a, 200), episode(&mut *env, &mut b, 200));
        assert_eq!(a, b);
    }

    /// A delayed episode is the plain one with the actions moved back.
    #[test]
    fn a_delay_moves_the_actions_back() {
        let (mut plain, mut delayed) = (with("pendulum", &[]), with("pendulum", &[("delay", 2.0)]));
        plain.reset(&mut rng(6)).unwrap();
        delayed.reset(&mut rng(6)).unwrap();
        let actions = [1.0, -2.0, 0.5, 1.5, -0.25];
        for (i, action) in actions.iter().enumerate() {
            let due = if i < 2 { 0.0 } else { actions[i - 2] };
            assert_eq!(plain.step(&[due]).unwrap(), delayed.step(&[*action]).unwrap());
        }
    }

    /// Noise has the deviation asked for in units of the normaliser, and the start state under it is the plain one.
    #[test]
    fn noise_has_its_deviation() {
        let (mut plain, mut noisy) = (with("pendulum", &[]), with("pendulum", &[("sensor_noise", 0.1)]));
        let scale = plain.spec().obs_scale.clone();
        let (mut square, mut sum) = ([0.0; 3], [0.0; 3]);
        let n = 4000;
        for seed in 0..n {
            plain.reset(&mut rng(seed)).unwrap();
            noisy.reset(&mut rng(seed)).unwrap();
            let (mut a, mut b) = ([0.0; 3], [0.0; 3]);
            plain.observe(&mut a);
            noisy.observe(&mut b);
            for i in 0..3 {
                let error = (b[i] - a[i]) * f64::from(scale[i]);
                (sum[i], square[i]) = (sum[i] + error, square[i] + error * error);
            }
        }
        for i in 0..3 {
            // Five standard errors.
            assert!((sum[i] / n as f64).abs() < 0.008, "{sum:?}");
            assert!(((square[i] / n as f64).sqrt() - 0.1).abs() < 0.006, "{square:?}");
        }
    }

    /// Spreads fill their range and no more; the spec stays nominal.
    #[test]
    fn spreads_draw_their_range() {
        let set = [("delay", 4.0), ("delay_spread", 0.5), ("gear_spread", 0.3), ("rail", 2.0)];
        let mut env = with("cartpole", &set);
        assert!(env.params().contains(&("gear".into(), 10.0)));
        let mut stream = rng(1);
        let (mut lowest, mut highest) = (f64::INFINITY, 0.0f64);
        let mut lags = [0; 8];
        for _ in 0..500 {
            env.reset(&mut stream).unwrap();
            let mut obs = [0.0; 5];
            env.observe(&mut obs);
            let before = obs[3];
            let mut lag = 0;
            // Until the action takes effect the cart's speed hardly changes.
            loop {
                env.step(&[1.0]).unwrap();
                env.observe(&mut obs);
                if (obs[3] - before).abs() > 0.03 {
                    break;
                }
                lag += 1;
            }
            lags[lag] += 1;
            // From nearly rest, hanging: F dt / (M - m^2 l^2 / J) of the first step, in units of the nominal force.
            let gain = (obs[3] - before) / 0.01 / 10.0;
            (lowest, highest) = (lowest.min(gain), highest.max(gain));
        }
        assert!(
            (1.0..1.06).contains(&(highest / lowest / (1.3 / 0.7)))
                || (0.94..=1.0).contains(&(highest / lowest / (1.3 / 0.7)))
        );
        assert!(lags[2..7].iter().all(|&n| n > 40) && lags[..2] == [0, 0] && lags[7] == 0, "{lags:?}");
    }

    #[test]
    fn keys_outside_their_range_are_refused() {
        for (name, key, value, word) in [
            ("pendulum", "delay", 0.5, "whole number"),
            ("pendulum", "delay", -1.0, "whole number"),
            ("pendulum", "delay", f64::NAN, "whole number"),
            ("pendulum", "sensor_noise", -0.1, "zero or above"),
            ("pendulum", "mass_spread", 1.0, "below 1"),
            ("pendulum", "mass_spread", f64::NAN, "below 1"),
            ("pendulum", "masss", 1.0, "max_torque"),
            ("pendulum", "rail_spread", 0.1, "max_torque"),
            ("fork", "blocked_spread", 0.1, "cases"),
            ("fork", "blocked", 0.5, "0, 1 or 2"),
        ] {
            let mut env = make(name, &BTreeMap::new()).unwrap();
            let before = env.params();
            let sentence = env.set(key, value).unwrap_err().to_string();
            assert!(sentence.contains(word) && sentence.contains(key), "{sentence}");
            assert_eq!(env.params(), before);
        }
    }
}
