//! The supervisor: a small state machine that decides who drives the motors.
//!
//! ```text
//!            arm                bad sample
//!   Idle ----------> Running <------------> Holding       Holding: the last decision is kept
//!    ^                  |    good sample       |
//!    | acknowledge      | fault                | too many
//!    +-------- Fault <--+----------------------+           Fault: latched, the fallback is approached
//!    |
//!    +-------- Stopped <-- the stop input, from anywhere   Stopped: latched, the stop is commanded at once
//! ```
//!
//! **Latching.** Bad samples and late steps are tolerated by a count that leaks: each adds 2, each good one takes 1 away,
//! and the fault latches at twice the tolerance. So `n` in a row latch, and so do, a little later, more than one in three;
//! a rare glitch does not. A failed self-test, a failed decision, the stop input and whatever is raised latch at once. The
//! first fault stays until it is acknowledged, and nothing but [`arm`](Supervisor::arm) starts the motors again.
//!
//! Integers only, no panics, no allocation; some twenty instructions a step.

/// Who drives the motors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum State {
    /// Nobody: at rest, ready to be armed.
    Idle = 0,
    /// The policy.
    Running = 1,
    /// The policy's last decision, while the sensors glitch.
    Holding = 2,
    /// The fallback, until the fault is acknowledged.
    Fault = 3,
    /// The stop, until its input is released and acknowledged.
    Stopped = 4,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Reason {
    /// Nothing.
    None = 0,
    /// An observation channel was NaN or infinite.
    NotFinite = 1,
    /// An observation channel left its plausible range.
    Implausible = 2,
    /// A sensor is at the end of what it can count.
    Saturated = 3,
    /// A sensor did not answer.
    Missing = 4,
    /// Steps came or ended too late.
    Deadline = 5,
    /// The emergency stop.
    Stop = 6,
    /// The policy's self-test gave other bits than expected.
    SelfTest = 7,
    /// The policy could not decide.
    Policy = 8,
    /// The last reset was the watchdog's; raised by the program that found it so.
    Watchdog = 9,
    /// The motor's driver reports a fault; raised by the program.
    Driver = 10,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::None,
        Self::NotFinite,
        Self::Implausible,
        Self::Saturated,
        Self::Missing,
        Self::Deadline,
        Self::Stop,
        Self::SelfTest,
        Self::Policy,
        Self::Watchdog,
        Self::Driver,
    ];
}

/// What went wrong and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Fault {
    /// What went wrong.
    pub reason: Reason,
    /// Index of the observation channel, [`Fault::NOWHERE`] where there is none.
    pub channel: u8,
}

impl Fault {
    /// The channel of a fault that has none.
    pub const NOWHERE: u8 = u8::MAX;

    /// No fault.
    pub const NONE: Self = Self::of(Reason::None);

    /// A fault that has no channel.
    pub const fn of(reason: Reason) -> Self {
        Self { reason, channel: Self::NOWHERE }
    }

    /// A fault of an observation channel; those from 255 on have no number of their own.
    pub const fn at(reason: Reason, channel: usize) -> Self {
        Self { reason, channel: if channel < Self::NOWHERE as usize { channel as u8 } else { Self::NOWHERE } }
    }
}

/// Bad samples and late steps in a row that latch a fault, 1 to 100 each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Tolerance {
    /// Samples with a channel that is not finite, implausible, saturated or missing.
    pub sensor: u8,
    /// Steps that ended after their deadline, could not decide before it, or did not come at all.
    pub late: u8,
}

impl Default for Tolerance {
    /// The third in a row latches.
    fn default() -> Self {
        Self { sensor: 3, late: 3 }
    }
}

/// A count that leaks; see the module's text.
#[derive(Debug, Clone, Copy, Default)]
struct Leak {
    level: u8,
    /// Events since the robot was armed.
    total: u8,
}

impl Leak {
    /// Takes in one event; whether the fault latches.
    fn count(&mut self, bad: bool, tolerance: u8) -> bool {
        if bad {
            self.level = self.level.saturating_add(2);
            self.total = self.total.saturating_add(1);
        } else {
            self.level = self.level.saturating_sub(1);
        }
        bad && self.level >= tolerance.saturating_mul(2)
    }
}

/// Proof that nobody drives and the robot cannot be armed: what stalls the chip, such as erasing flash, asks for it.
///
/// It borrows what gave it, so it is gone before the next control step.
#[derive(Debug)]
pub struct AtRest<'s>(core::marker::PhantomData<&'s ()>);

/// The state machine.
#[derive(Debug, Clone, Copy)]
pub struct Supervisor {
    tolerance: Tolerance,
    state: State,
    fault: Fault,
    glitches: Leak,
    late: Leak,
    /// What the last step saw: the stop input, and what was wrong with the sample.
    stop: bool,
    sample: Fault,
}

impl Supervisor {
    /// At rest; `None` for a tolerance outside 1 to 100.
    pub fn new(tolerance: Tolerance) -> Option<Self> {
        let allowed = 1..=100;
        let checked = allowed.contains(&tolerance.sensor) && allowed.contains(&tolerance.late);
        checked.then_some(Self {
            tolerance,
            state: State::Idle,
            fault: Fault::NONE,
            glitches: Leak::default(),
            late: Leak::default(),
            stop: false,
            sample: Fault::NONE,
        })
    }

    /// Who drives.
    pub fn state(&self) -> State {
        self.state
    }

    /// The latched fault.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// Whether the policy drives, or did before a glitch that is still tolerated.
    pub fn drives(&self) -> bool {
        matches!(self.state, State::Running | State::Holding)
    }

    /// The proof that the state is [`State::Idle`]; the last command may still be on its way to rest, which
    /// [`Controller::at_rest`](super::Controller::at_rest) knows.
    pub fn at_rest(&self) -> Option<AtRest<'_>> {
        (self.state == State::Idle).then_some(AtRest(core::marker::PhantomData))
    }

    /// Begins a step: the stop input, and what is wrong with the sample ([`Fault::NONE`] for a good one).
    pub fn begin(&mut self, stop: bool, sample: Fault) -> State {
        (self.stop, self.sample) = (stop, sample);
        if stop {
            self.latch(State::Stopped, Fault::of(Reason::Stop));
        }
        if self.drives() {
            let bad = sample != Fault::NONE;
            self.state = if bad { State::Holding } else { State::Running };
            if self.glitches.count(bad, self.tolerance.sensor) {
                self.latch(State::Fault, sample);
            }
        }
        self.state
    }

    /// Ends a step: whether it was late, and whether it decided. A fault takes effect in the next one.
    ///
    /// Only a decision in time is a good one: where few steps decide, the idle ones between do not make up for it.
    pub fn end(&mut self, late: bool, decided: bool) {
        if self.drives() && (late || decided) && self.late.count(late, self.tolerance.late) {
            self.latch(State::Fault, Fault::of(Reason::Deadline));
        }
    }

    /// Latches a fault at once; an emergency stop by [`Reason::Stop`].
    pub fn raise(&mut self, fault: Fault) {
        if fault.reason != Reason::None {
            self.latch(if fault.reason == Reason::Stop { State::Stopped } else { State::Fault }, fault);
        }
    }

    /// Starts the policy from rest; what is in the way otherwise: the latched fault, the stop input, the last sample.
    pub fn arm(&mut self) -> Result<(), Fault> {
        if self.state != State::Idle {
            return if self.drives() { Ok(()) } else { Err(self.fault) };
        }
        if self.stop {
            return Err(Fault::of(Reason::Stop));
        }
        if self.sample != Fault::NONE {
            return Err(self.sample);
        }
        (self.glitches, self.late) = (Leak::default(), Leak::default());
        self.state = State::Running;
        Ok(())
    }

    /// Goes to rest from wherever no fault is latched.
    pub fn disarm(&mut self) {
        if self.drives() {
            self.state = State::Idle;
        }
    }

    /// Takes a latched fault off, unless the stop input is still on; whether the robot is at rest now.
    pub fn acknowledge(&mut self) -> bool {
        if !self.drives() && !self.stop {
            (self.state, self.fault) = (State::Idle, Fault::NONE);
        }
        self.state == State::Idle
    }

    /// Bad samples and late steps since the robot was armed, up to 255.
    pub fn counts(&self) -> [u8; 2] {
        [self.glitches.total, self.late.total]
    }

    fn latch(&mut self, state: State, fault: Fault) {
        // Once stopped, a fault does not bring the fallback back.
        if self.state != State::Stopped {
            self.state = state;
        }
        if self.fault == Fault::NONE {
            self.fault = fault;
        }
    }
}

/// What a step reports, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Status {
    /// Who drives.
    pub state: State,
    /// The latched fault.
    pub fault: Fault,
    /// Bad samples since the robot was armed, up to 255.
    pub glitches: u8,
    /// Late steps since the robot was armed, up to 255.
    pub late: u8,
    /// Steps of the last decision's plan, up to 255; zero before the first.
    pub steps: u8,
    /// The least time that a step left before its deadline since the robot was armed, in 1/1024 of the control period;
    /// negative where one ended after it.
    pub slack: i16,
}

impl Status {
    /// State, reason, channel, glitches, late steps, steps, slack (little-endian).
    pub fn to_bytes(&self) -> [u8; 8] {
        let [low, high] = self.slack.to_le_bytes();
        let Fault { reason, channel } = self.fault;
        [self.state as u8, reason as u8, channel, self.glitches, self.late, self.steps, low, high]
    }

    /// The status of these bytes; `None` where state or reason is unknown.
    pub fn from_bytes(bytes: &[u8; 8]) -> Option<Self> {
        let [state, reason, channel, glitches, late, steps, low, high] = *bytes;
        let states = [State::Idle, State::Running, State::Holding, State::Fault, State::Stopped];
        Some(Self {
            state: *states.get(usize::from(state))?,
            fault: Fault { reason: *Reason::ALL.get(usize::from(reason))?, channel },
            glitches,
            late,
            steps,
            slack: i16::from_le_bytes([low, high]),
        })
    }
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Two halves of a sentence, with the channel between them.
        let (before, after) = match self.reason {
            Reason::NotFinite => ("", " is not finite: check that sensor"),
            Reason::Implausible => ("", " left its plausible range: check that sensor"),
            Reason::Saturated => ("the sensor of ", " is at the end of its range, or jumped"),
            Reason::Missing => ("the sensor of ", " does not answer"),
            Reason::None => return f.write_str("no fault"),
            Reason::Deadline => return f.write_str("the control steps came or ended too late"),
            Reason::Stop => return f.write_str("the emergency stop was pressed"),
            Reason::SelfTest => return f.write_str("the policy's self-test gave other bits than expected"),
            Reason::Policy => return f.write_str("the policy could not decide"),
            Reason::Watchdog => return f.write_str("the watchdog has reset the chip"),
            Reason::Driver => return f.write_str("the motor's driver reports a fault"),
        };
        f.write_str(before)?;
        match self.channel {
            Self::NOWHERE => f.write_str("an observation channel")?,
            channel => write!(f, "observation channel {channel}")?,
        }
        f.write_str(after)
    }
}

impl core::error::Error for Fault {}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    const GLITCH: Fault = Fault::at(Reason::NotFinite, 2);

    fn armed() -> Supervisor {
        let mut s = Supervisor::new(Tolerance::default()).unwrap();
        assert_eq!(s.arm(), Ok(()));
        s
    }

    /// Steps with samples `x` (bad) and `.` (good); the states they lead to.
    fn play(s: &mut Supervisor, samples: &str) -> std::vec::Vec<State> {
        let fault = |c| if c == 'x' { GLITCH } else { Fault::NONE };
        samples
            .chars()
            .map(|c| {
                let state = s.begin(false, fault(c));
                s.end(false, true);
                state
            })
            .collect()
    }

    #[test]
    fn a_glitch_is_held_and_the_third_in_a_row_latches() {
        use State::{Fault as F, Holding as H, Running as R};
        let mut s = armed();
        assert_eq!(play(&mut s, "..x.xx..."), [R, R, H, R, H, H, R, R, R]);
        assert_eq!((s.fault(), s.counts()), (Fault::NONE, [3, 0]));
        assert_eq!(play(&mut s, ".xxx...."), [R, H, H, F, F, F, F, F]);
        assert_eq!((s.fault(), s.counts()), (GLITCH, [6, 0]));
        assert_eq!(s.arm(), Err(GLITCH));
        assert!(s.acknowledge());
        assert_eq!((s.state(), s.fault()), (State::Idle, Fault::NONE));
        assert_eq!(s.arm(), Ok(()));
        assert_eq!(s.counts(), [0, 0]);
    }

    #[test]
    fn one_in_three_is_tolerated_for_ever_and_one_in_two_is_not() {
        let mut s = armed();
        for _ in 0..1000 {
            assert_ne!(play(&mut s, "x..").last(), Some(&State::Fault));
        }
        assert_eq!(s.counts(), [255, 0]);
        let mut s = armed();
        let states = play(&mut s, "x.x.x.x.x.x.x.x.");
        assert_eq!(states.iter().position(|s| *s == State::Fault), Some(8));
    }

    #[test]
    fn only_idle_is_at_rest() {
        let mut s = Supervisor::new(Tolerance::default()).unwrap();
        assert!(s.at_rest().is_some());
        s.arm().unwrap();
        assert!(s.at_rest().is_none());
        play(&mut s, "x");
        assert!(s.state() == State::Holding && s.at_rest().is_none());
        s.raise(GLITCH);
        assert!(s.state() == State::Fault && s.at_rest().is_none());
        s.begin(true, Fault::NONE);
        assert!(s.state() == State::Stopped && s.at_rest().is_none());
        s.begin(false, Fault::NONE);
        s.acknowledge();
        assert!(s.at_rest().is_some());
    }

    #[test]
    fn the_stop_input_goes_before_everything_and_must_be_released() {
        for before in [State::Idle, State::Running, State::Holding, State::Fault] {
            let mut s = armed();
            match before {
                State::Idle => s.disarm(),
                State::Holding => drop(play(&mut s, "x")),
                State::Fault => s.raise(Fault::of(Reason::Driver)),
                _ => {}
            }
            assert_eq!(s.state(), before);
            assert_eq!(s.begin(true, GLITCH), State::Stopped);
            assert!(!s.acknowledge());
            assert_eq!(s.begin(false, Fault::NONE), State::Stopped);
            let first = if before == State::Fault { Reason::Driver } else { Reason::Stop };
            assert_eq!((s.fault().reason, s.arm()), (first, Err(Fault::of(first))));
            // A fault on top changes neither the state nor the reason.
            s.raise(Fault::of(Reason::Policy));
            assert_eq!((s.state(), s.fault().reason), (State::Stopped, first));
            assert!(s.acknowledge());
        }
        let mut s = Supervisor::new(Tolerance::default()).unwrap();
        s.begin(true, Fault::NONE);
        assert!(!s.acknowledge());
        s.begin(false, GLITCH);
        assert!(s.acknowledge());
        assert_eq!(s.arm(), Err(GLITCH));
        s.begin(false, Fault::NONE);
        assert_eq!(s.arm(), Ok(()));
    }

    #[test]
    fn late_steps_latch_and_faults_are_raised() {
        let mut s = armed();
        for (i, late) in [true, false, true, true, true].into_iter().enumerate() {
            assert!(s.drives(), "{i}");
            s.begin(false, Fault::NONE);
            s.end(late, true);
            // Steps without a decision change nothing.
            s.end(false, false);
            s.end(false, false);
        }
        assert_eq!((s.state(), s.fault(), s.counts()), (State::Fault, Fault::of(Reason::Deadline), [0, 4]));
        let mut s = armed();
        s.raise(Fault::NONE);
        assert_eq!(s.state(), State::Running);
        s.raise(Fault::of(Reason::SelfTest));
        s.raise(Fault::of(Reason::Driver));
        assert_eq!((s.state(), s.fault()), (State::Fault, Fault::of(Reason::SelfTest)));
        s.raise(Fault::of(Reason::Stop));
        assert_eq!((s.state(), s.fault()), (State::Stopped, Fault::of(Reason::SelfTest)));
    }

    #[test]
    fn tolerances_are_checked() {
        for (sensor, late) in [(0, 1), (1, 0), (101, 1), (1, 255)] {
            assert!(Supervisor::new(Tolerance { sensor, late }).is_none());
        }
        let mut s = Supervisor::new(Tolerance { sensor: 1, late: 1 }).unwrap();
        s.arm().unwrap();
        assert_eq!(s.begin(false, GLITCH), State::Fault);
    }

    #[test]
    fn a_status_survives_its_bytes_and_every_reason_has_its_sentence() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            let fault = Fault::at(reason, 7);
            let status = Status { state: State::Holding, fault, glitches: 3, late: 255, steps: 5, slack: -1234 };
            let bytes = status.to_bytes();
            assert_eq!((usize::from(bytes[1]), Status::from_bytes(&bytes)), (i, Some(status)));
            assert!(fault.to_string().len() > 7);
            assert!(!Fault::of(reason).to_string().contains("255"), "{}", Fault::of(reason));
        }
        assert_eq!(Status::from_bytes(&[5, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Status::from_bytes(&[0, 11, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Fault::at(Reason::Missing, 300).channel, Fault::NOWHERE);
    }
}
