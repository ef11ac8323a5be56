//! Control: a policy at a fixed period, behind a gate, a supervisor and a deadline.
//!
//! [`Controller::step`] is called once a control period with what the sensors gave and the stop input, and returns a
//! command that is finite and within its limits whatever came in. In order:
//!
//! 1. the sample is checked: sensor errors, finite, plausible; a glitch is tolerated, several latch a fault;
//! 2. the [`Supervisor`] says who drives: policy, held decision, fallback, rest, or the emergency stop;
//! 3. where the native period of the policy is due, the [`Budget`] chooses the longest plan that ends before the deadline,
//!    and the policy decides, on the latest sample or on the mean of those since its last decision;
//! 4. the [`Gate`] holds the command to range, rate and jerk;
//! 5. the step's time is checked, and the watchdog is fed if all went in time.
//!
//! [`edge`] turns raw integers of encoders and converters into observations and commands into duty cycles, on the traits
//! of `embedded-hal`. **Interrupts**: the intended handler latches integers (timer, encoder counts) and sets a flag; floats
//! are touched only by the loop, so that a handler needs no floating-point registers saved.
//!
//! No panics, no allocation, nothing waits; time is in integers. Without [`Timing`] the same samples give the same
//! commands on every machine; with it, the same samples and times do. Cost beside the decision: some hundred instructions
//! and the sizes of [`Controller`]'s arrays.

mod budget;
mod config;
mod controller;
pub mod edge;
mod gate;
mod pace;
mod supervisor;

pub use budget::{Budget, Costs, Timing, TimingError};
pub use config::{Average, Config, ConfigError, Hold};
pub use controller::{Chip, Command, Controller, Decider, Input, LentPolicy, SensorFault, Untimed, measure_costs};
pub use edge::SensorKind;
pub use gate::{Gate, GateError, Limits};
pub use supervisor::{AtRest, Fault, Reason, State, Status, Supervisor, Tolerance};
