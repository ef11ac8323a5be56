//! Pictures of an episode on a task that MuJoCo simulates, with the feature `render`.
//!
//! An episode is played first, by the very protocol of an evaluation, and then played again from its actions while
//! [`Painter`] draws the moments that are wanted: so their number and times are known before the first is drawn, the
//! return is what `eval` tells, and nothing of the trainer knows of pictures. That the second playing is the first one is
//! checked. [`Kind`] makes files of them. No panics; the pictures of a film are held in memory, at most [`LARGEST`].

pub mod file;
pub mod painter;

pub use file::Kind;
pub use painter::{Painter, Size};

use crate::env::Decision;
use crate::evaluate::{self, Player};
use crate::{Error, Result};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Frames of a film strip.
const STRIP: usize = 6;
/// Seconds of an episode in an animation, and between its frames.
const ANIMATION: f64 = 10.0;
const SPACING: f64 = 0.05;
/// Bytes of all pictures together.
pub const LARGEST: usize = 1 << 30;

/// A state as it was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Seconds since the start of the episode.
    pub time: f64,
    /// Red, green and blue, row by row from above.
    pub rgb: Vec<u8>,
}

/// Which part of an episode is drawn, and how; what is none has the default of the file's kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Film {
    /// The file.
    pub kind: Kind,
    /// Pixels of a frame.
    pub size: Size,
    /// Second of the episode at which it begins.
    pub from: f64,
    /// How many seconds of it.
    pub seconds: Option<f64>,
    /// How many frames.
    pub frames: Option<usize>,
    /// Which camera of the model.
    pub camera: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Filmed {
    /// The pictures, at least one.
    pub frames: Vec<Frame>,
    /// The second of the episode at which an animation ends.
    pub end: f64,
    /// Whose pictures they are.
    pub camera: String,
    /// Return of the whole episode.
    pub total: f64,
    /// The seconds that it lasted, and what ended it before its time.
    pub lasted: f64,
    /// Why it ended before its time.
    pub fault: Option<&'static str>,
}

impl Film {
    /// Plays the first episode of a seed, by plain samples or the greedy choice from so many, and draws it.
    pub fn shoot(
        &self,
        player: &mut dyn Player,
        mut env: Decision,
        seed: u64,
        best_of: Option<usize>,
    ) -> Result<Filmed> {
        // What cannot be drawn is said before anything is played.
        let mut painter = Painter::new(env.inner_mut(), self.size, self.camera.as_deref())?;
        let episode = evaluate::recorded(player, &mut env, seed, best_of)?;
        let (repeat, control_dt, fault) = (env.action_repeat(), env.spec().control_dt, env.fault());
        // Where physics diverge the last state is none of the episode's.
        let played = env.steps();
        let steps = played - usize::from(fault.is_some());
        if let (Some(fault), 0) = (fault, steps) {
            return Err(Error::usage(format!(
                "the first step of {} ended the episode ({fault}), so nothing is to be drawn: use milder env. parameters",
                env.spec().name
            )));
        }
        let moments = self.moments(steps, control_dt)?;
        let wanted = moments.frames.len() * 3 * self.size.0 as usize * self.size.1 as usize;
        if wanted > LARGEST {
            return Err(Error::usage(format!(
                "{} frames of {} by {} pixels are {:.1} GB: choose fewer or smaller ones, at most {:.1} GB",
                moments.frames.len(),
                self.size.0,
                self.size.1,
                wanted as f64 / 1e9,
                LARGEST as f64 / 1e9
            )));
        }
        let env = env.inner_mut();
        env.reset(&mut evaluate::start(seed, 0))?;
        let (mut frames, mut done, mut total) = (Vec::with_capacity(moments.frames.len()), 0, 0.0);
        for (decision, row) in episode.rows.iter().enumerate() {
            let mut reward = 0.0;
            for _ in 0..repeat.min(played - decision * repeat) {
                if moments.frames.get(frames.len()) == Some(&done) {
                    frames.push(Frame { time: done as f64 * control_dt, rgb: painter.paint(env)? });
                }
                reward += env.step(&row.action)?.reward;
                done += 1;
            }
            total += reward;
        }
        // The last state of all, which no step follows.
        if moments.frames.get(frames.len()) == Some(&done) {
            frames.push(Frame { time: done as f64 * control_dt, rgb: painter.paint(env)? });
        }
        if total != episode.total || frames.len() != moments.frames.len() {
            return Err(Error::failure(format!(
                "{} gives {total} when the episode of {} is played again: its physics are not deterministic, please report it",
                env.spec().name,
                episode.total
            )));
        }
        let end = moments.end as f64 * control_dt;
        let camera = painter.camera().to_string();
        Ok(Filmed { frames, end, camera, total, lasted: steps as f64 * control_dt, fault })
    }

    /// Which states of an episode of so many control steps are drawn.
    fn moments(&self, steps: usize, control_dt: f64) -> Result<Moments> {
        let moves = self.kind.moves();
        let (lasts, first) = (steps as f64 * control_dt, (self.from / control_dt).round() as usize);
        if first > steps || (moves && first == steps) {
            return Err(Error::usage(format!(
                "--from {}: the episode lasts {lasts:.2} s, so choose an earlier beginning",
                self.from
            )));
        }
        let seconds = self.seconds.or(moves.then_some(ANIMATION)).unwrap_or(lasts);
        let span = ((seconds / control_dt).round() as usize).min(steps - first);
        if moves && span == 0 {
            return Err(Error::usage(format!("--seconds {seconds}: an animation takes at least {control_dt} s")));
        }
        // A strip ends with the last state; an animation's last frame is shown until then.
        let most = if moves { span } else { span + 1 };
        let frames: Vec<usize> = match self.frames {
            Some(count) if count > most => {
                return Err(Error::usage(format!(
                    "--frames {count}: {:.2} s have {most} states to draw, one every {control_dt} s, so choose fewer",
                    span as f64 * control_dt
                )));
            }
            None if moves => (0..span).step_by(((SPACING / control_dt).round() as usize).max(1)).collect(),
            count => {
                let count = count.unwrap_or(STRIP).min(most);
                let intervals = if moves { count } else { (count - 1).max(1) };
                (0..count).map(|i| (i * span + intervals / 2) / intervals).collect()
            }
        };
        Ok(Moments { frames: frames.into_iter().map(|step| first + step).collect(), end: first + span })
    }
}

/// States by the number of control steps before them.
#[derive(Debug, PartialEq)]
struct Moments {
    frames: Vec<usize>,
    end: usize,
}

/// What moves without a policy: every action is drawn anew, uniformly between its limits.
pub struct RandomPlayer {
    low: Vec<f32>,
    high: Vec<f32>,
    rng: Xoshiro256PlusPlus,
}

impl RandomPlayer {
    /// For an environment's limits.
    pub fn new(env: &Decision) -> Self {
        let spec = env.spec();
        Self { low: spec.low.clone(), high: spec.high.clone(), rng: Xoshiro256PlusPlus::seed_from_u64(0) }
    }
}

impl Player for RandomPlayer {
    fn is_critical(&self) -> bool {
        false
    }

    fn begin(&mut self, number: u64) {
        // Not the numbers that the start was drawn from.
        self.rng = Xoshiro256PlusPlus::seed_from_u64(!number);
    }

    fn act(&mut self, _: &[f32], _: Option<usize>, action: &mut [f32]) -> Result<()> {
        for ((a, low), high) in action.iter_mut().zip(&self.low).zip(&self.high) {
            *a = low + (self.rng.next_u32() >> 8) as f32 / (1 << 24) as f32 * (high - low);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn film(kind: Kind, from: f64, seconds: Option<f64>, frames: Option<usize>) -> Film {
        Film { kind, size: (32, 32), from, seconds, frames, camera: None }
    }

    /// Of an episode of 100 steps of 0.02 s.
    fn steps(kind: Kind, from: f64, seconds: Option<f64>, frames: Option<usize>) -> (Vec<usize>, usize) {
        let moments = film(kind, from, seconds, frames).moments(100, 0.02).unwrap();
        (moments.frames, moments.end)
    }

    #[test]
    fn a_strip_goes_from_the_first_state_to_the_last() {
        assert_eq!(steps(Kind::Png, 0.0, None, None), (vec![0, 20, 40, 60, 80, 100], 100));
        assert_eq!(steps(Kind::Png, 1.0, Some(0.5), Some(3)), (vec![50, 63, 75], 75));
        assert_eq!(steps(Kind::Png, 1.9, Some(9.0), Some(2)), (vec![95, 100], 100));
        assert_eq!(steps(Kind::Png, 2.0, None, None), (vec![100], 100));
        assert_eq!(steps(Kind::Png, 0.0, None, Some(1)), (vec![0], 100));
        assert_eq!(steps(Kind::Png, 0.0, None, Some(101)).0, (0..=100).collect::<Vec<_>>());
    }

    #[test]
    fn an_animation_keeps_its_pace() {
        let (frames, end) = steps(Kind::Gif, 0.0, None, None);
        // 0.05 s are two steps and a half, rounded up.
        assert_eq!((frames.len(), frames[1], *frames.last().unwrap(), end), (34, 3, 99, 100));
        assert_eq!(steps(Kind::Apng, 1.0, Some(0.2), Some(4)), (vec![50, 53, 55, 58], 60));
        assert_eq!(steps(Kind::Gif, 1.98, None, None), (vec![99], 100));
        assert_eq!(film(Kind::Gif, 0.0, None, None).moments(1000, 0.04).unwrap().frames.len(), 250);
    }

    #[test]
    fn what_no_episode_has_is_refused() {
        for (kind, from, seconds, frames, word) in [
            (Kind::Png, 2.02, None, None, "--from 2.02"),
            (Kind::Gif, 2.0, None, None, "2.00 s"),
            (Kind::Gif, 0.0, Some(0.0), None, "--seconds 0"),
            (Kind::Png, 0.0, None, Some(102), "101 states"),
            (Kind::Apng, 0.0, Some(1.0), Some(51), "50 states"),
            (Kind::Png, 0.0, Some(0.0), Some(2), "1 states"),
        ] {
            let Err(Error::Usage(said)) = film(kind, from, seconds, frames).moments(100, 0.02) else {
                panic!("{from} {seconds:?} {frames:?} was accepted");
            };
            assert!(said.contains(word), "{said}");
        }
    }
}
