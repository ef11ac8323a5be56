//! Rust source: a module that embeds an artefact and names its sizes, for firmware that has no build script.
//!
//! The module needs nothing but `flowlet` and `core`. The bytes are a `static` at an address divisible by four, so they
//! stay in flash; the constants are those of the artefact, so that a type made of them always fits. The text is the same
//! for equal artefacts, and rustfmt leaves it as it is.

use flowlet::policy::Artefact;
use std::fmt::Write;

/// Bytes a line of the literal: four characters each, inside rustfmt's 100 columns.
const LINE: usize = 24;

/// The module of an artefact.
pub fn encode(artefact: &Artefact<'_>) -> String {
    let (shape, plan, range) = (artefact.velocity().shape(), artefact.plan(), artefact.range());
    let limits = artefact.act_names().zip(range.low.iter().zip(range.high));
    let mut actions = String::new();
    for (name, (low, high)) in limits {
        let _ = writeln!(actions, "//! * action `{name}` in [{low}, {high}]");
    }
    let observations: String = artefact.obs_names().map(|name| format!("//! * observation `{name}`\n")).collect();
    format!(
        "//! The policy `{name}`, written by `host-train export`: do not edit.
//!
{observations}{actions}//!
//! ```text
//! let mut policy = policy::load()?; // checks the artefact and runs its self-test
//! let action = policy.act(&observation, &mut rng)?; // once every PERIOD_US
//! ```

/// Number of observations.
pub const OBS: usize = {obs};
/// Number of actions.
pub const ACT: usize = {act};
/// Width of the hidden layers.
pub const HIDDEN: usize = {hidden};
/// Steps of the {solver} solver in a decision.
pub const STEPS: usize = {steps};
/// Flow times at which a decision evaluates the network.
pub const NODES: usize = {nodes};
/// Control period in microseconds.
pub const PERIOD_US: u32 = {period};

/// The policy with the memory of its decisions.
pub type Policy = flowlet::policy::StaticPolicy<'static, OBS, ACT, HIDDEN, NODES>;

/// Checks the artefact and runs its self-test: refuse to drive a motor where this fails.
pub fn load() -> Result<Policy, flowlet::policy::PolicyError> {{
    let mut policy = Policy::new(&ARTEFACT.0)?;
    policy.self_test()?;
    Ok(policy)
}}

/// Bytes at an address divisible by four, where flowlet reads them in place.
#[repr(C, align(4))]
pub struct Aligned(pub [u8; {length}]);

/// The artefact, as in the `.flw` file.
#[rustfmt::skip]
pub static ARTEFACT: Aligned = Aligned(*b\"\\\n{literal}\");
",
        name = artefact.name(),
        obs = shape.obs,
        act = shape.act,
        hidden = shape.hidden,
        solver = plan.solver.name(),
        steps = plan.steps,
        nodes = plan.nodes(),
        period = artefact.period_us(),
        length = artefact.bytes().len(),
        literal = literal(artefact.bytes()),
    )
}

/// Escaped bytes; a backslash before the line's end hides the break.
fn literal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 4 + bytes.len() / LINE * 6);
    for (i, line) in bytes.chunks(LINE).enumerate() {
        text.push_str(if i == 0 { "" } else { "\\\n" });
        for byte in line {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
