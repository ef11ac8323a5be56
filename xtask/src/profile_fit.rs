//! The fit of `host-train`'s cost model: measures decisions of random policies on the Cortex-M4F in QEMU.
//!
//! `cargo xtask profile-fit` prints the constants for `host-train/src/profile/cost.rs`, fitted by least squares of the
//! relative error, and the errors of those in the file on the policies of the fit and on others. The test command measures the
//! committed policy and a few others against the error that the file states. Deterministic: QEMU counts instructions.

use crate::boards::Board;
use crate::cargo::{self, Firmware};
use crate::cost::{COUNTS, Decision, ERROR, INSTRUCTIONS, NAMES, STACK_BYTES, VIEW_BYTES};
use crate::policy::Bytes;
use crate::{boards, digests, qemu, steps, tools};
use anyhow::{Context, Result, bail};
use flowlet::flow::{Plan, Solver};
use flowlet::net::{Activation, CriticShape, Trunk, VelocityShape};
use flowlet::policy::Artefact;
use nalgebra::{SMatrix, SVector};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `cargo xtask profile-fit`.
#[derive(clap::Args)]
pub struct Options {
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

/// The board whose instructions are modelled.
const BOARD: &str = "m4f";

/// Policies of the fit and policies kept out of it, by the seed they are drawn from.
const FIT: (u64, usize) = (1, 120);
const HELD_OUT: (u64, usize) = (2, 60);

/// The model is for decisions of at least so many instructions.
const LEAST: f64 = 5_000.0;

/// SysTick counts ten million instructions before it wraps.
const MOST: f64 = 8e6;

const LIMIT: Duration = Duration::from_secs(300);

/// What a policy took.
struct Measured {
    decision: Decision,
    instructions: f64,
    stack: usize,
    view: usize,
}

impl Measured {
    /// The model's relative error with other constants.
    fn error(&self, constants: &[f64; COUNTS]) -> f64 {
        let model: f64 = self.decision.counts().iter().zip(constants).map(|(count, each)| count * each).sum();
        model / self.instructions - 1.0
    }

    fn check(&self) -> Result<f64> {
        let error = self.error(&INSTRUCTIONS);
        if error.abs() > ERROR {
            bail!(
                "the cost model is off by {:.1} %, more than {:.0} %, where {} instructions were counted for {:?}: type \
                 `cargo xtask profile-fit` and put the constants it prints into host-train/src/profile/cost.rs",
                100.0 * error,
                100.0 * ERROR,
                self.instructions,
                self.decision
            );
        }
        Ok(error)
    }

    fn check_memory(&self) -> Result<()> {
        if (self.stack > STACK_BYTES) || self.view != VIEW_BYTES {
            bail!(
                "a decision took {} bytes of stack and a view is of {} bytes, and host-train/src/profile/cost.rs says \
                 {STACK_BYTES} and {VIEW_BYTES}",
                self.stack,
                self.view
            );
        }
        Ok(())
    }
}

/// Measures, fits, prints.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let board = boards::find(root, BOARD)?;
    tools::ensure_targets(root, std::slice::from_ref(&board))?;
    tools::ensure_qemu(std::slice::from_ref(&board))?;
    let elf = build(root, &board)?;
    let sample = |(seed, n)| -> Result<Vec<Measured>> {
        eprintln!("... {n} policies of seed {seed}");
        let all = steps::parallel(&decisions(seed, n), |decision| measure(&board, &elf, *decision));
        let all = all.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().filter(|one| one.instructions >= LEAST).collect())
    };
    let (fit, held_out) = (sample(FIT)?, sample(HELD_OUT)?);
    let fitted = least_squares(&fit).context("the counts of the policies are not independent")?;
    println!("instructions on {} ({}) in QEMU:", board.name, board.description);
    for (name, each) in NAMES.iter().zip(fitted) {
        println!("  {each:>8.2}  {name}");
    }
    let rounded: Vec<String> = fitted.iter().map(|each| format!("{each:.2}")).collect();
    println!("pub const INSTRUCTIONS: [f64; COUNTS] = [{}];", rounded.join(", "));
    let mut report = Vec::new();
    for (name, constants) in [("fitted now", &fitted), ("in host-train/src/profile/cost.rs", &INSTRUCTIONS)] {
        for (which, all) in [("in the fit", &fit), ("held out", &held_out)] {
            let worst = worst(all, constants);
            println!(
                "constants {name}: error over {} policies {which} {:.1} % (root mean square), {:.1} % at most",
                all.len(),
                100.0 * rms(all, constants),
                100.0 * worst
            );
            report.push(serde_json::json!({
                "constants": name,
                "policies": which,
                "n": all.len(),
                "rms": rms(all, constants),
                "worst": worst,
            }));
        }
    }
    let both = || fit.iter().chain(&held_out);
    let stack = both().map(|one| one.stack).max().unwrap_or(0);
    println!(
        "stack of a decision: at most {stack} bytes; view of a policy: {} bytes",
        fit.first().map_or(0, |one| one.view)
    );
    if options.json {
        println!("{}", serde_json::json!({ "instructions": fitted, "errors": report, "stack_bytes": stack }));
    }
    for one in both() {
        one.check()?;
        one.check_memory()?;
    }
    Ok(0)
}

/// The committed policy as it is flashed, and a few of the held-out ones, against the stated error.
pub fn check(root: &Path, board: &Board) -> Result<String> {
    let path = digests::default_policy(root);
    let bytes = Bytes::read(&path)?;
    let artefact = Artefact::new(bytes.get())?;
    let decision =
        Decision { shape: *artefact.velocity().shape(), plan: *artefact.plan(), critics: None, particles: 1 };
    let counted = digests::device_row(root, board, &path, 0)?.instructions_per_decision;
    let instructions = counted.context("the board counts no instructions")? as f64;
    let committed = Measured { decision, instructions, stack: 0, view: VIEW_BYTES }.check()?;
    let elf = build(root, board)?;
    let few = decisions(HELD_OUT.0, 12);
    let mut worst = 0.0f64;
    for one in steps::parallel(&few, |decision| measure(board, &elf, *decision)) {
        let one = one?;
        one.check_memory()?;
        if one.instructions >= LEAST {
            worst = worst.max(one.check()?.abs());
        }
    }
    Ok(format!(
        "{:+.1} % for the committed policy, at most {:.1} % for {} random ones",
        100.0 * committed,
        100.0 * worst,
        few.len()
    ))
}

fn worst(all: &[Measured], constants: &[f64; COUNTS]) -> f64 {
    all.iter().map(|one| one.error(constants).abs()).fold(0.0, f64::max)
}

fn rms(all: &[Measured], constants: &[f64; COUNTS]) -> f64 {
    let squares: f64 = all.iter().map(|one| one.error(constants).powi(2)).sum();
    (squares / all.len() as f64).sqrt()
}

fn build(root: &Path, board: &Board) -> Result<PathBuf> {
    cargo::build_firmware(root, board, "cost", &Firmware::default())
}

/// Runs one policy.
fn measure(board: &Board, elf: &Path, decision: Decision) -> Result<Measured> {
    let outcome = qemu::execute(board, elf, &arguments(&decision), LIMIT, |_| ())?;
    if outcome.code != 0 {
        bail!("cost on {}: {}", board.name, outcome.lines.join("\n"));
    }
    let number = |label: &str| -> Result<usize> {
        let value = outcome.value(label).with_context(|| format!("cost prints no line `{label}`"))?;
        let digits = value.strip_suffix(" bytes").unwrap_or(value);
        digits.parse().with_context(|| format!("`{label}: {value}` is no number"))
    };
    Ok(Measured {
        decision,
        instructions: number("instructions per decision")? as f64,
        stack: number("stack of a decision")?,
        view: number("view of a policy")?,
    })
}

/// The firmware's arguments; short, since its command line has 96 characters.
fn arguments(decision: &Decision) -> Vec<String> {
    let (shape, plan) = (&decision.shape, &decision.plan);
    let mut all = vec![
        ("obs", shape.obs),
        ("act", shape.act),
        ("h", shape.hidden),
        ("l", shape.layers),
        ("f", shape.frequencies),
        ("fun", shape.activation as usize),
        ("res", shape.trunk as usize),
        ("sol", plan.solver as usize),
        ("s", plan.steps),
    ];
    if let Some((critic, count)) = decision.critics {
        all.extend([("n", decision.particles), ("c", count)]);
        all.extend([("ch", critic.hidden), ("cl", critic.layers), ("cf", critic.activation as usize)]);
    }
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Random decisions of the sizes that fit a microcontroller and its counter.
fn decisions(seed: u64, n: usize) -> Vec<Decision> {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut of = |choices: &[usize]| choices[rng.next_u32() as usize % choices.len()];
    let activation = |code: usize| Activation::from_code(code as u32).unwrap_or_default();
    let mut all = Vec::new();
    while all.len() < n {
        let (obs, act) = (of(&[1, 2, 3, 5, 8, 17, 30]), of(&[1, 1, 2, 3, 6]));
        let shape = VelocityShape {
            obs,
            act,
            hidden: of(&[16, 20, 32, 48, 64, 64, 100, 128]),
            layers: of(&[1, 2, 2, 3]),
            frequencies: 4,
            activation: activation(of(&[0, 0, 1, 2, 3, 4, 5, 6])),
            trunk: if of(&[0, 1]) == 0 { Trunk::Plain } else { Trunk::Residual },
        };
        let solver = Solver::from_code(of(&[0, 0, 0, 1, 2, 3]) as u32).unwrap_or_default();
        let plan = Plan { solver, steps: of(&[1, 2, 3, 5, 10]), t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
        let particles = of(&[1, 1, 4, 16]);
        let critic = CriticShape {
            obs,
            act,
            hidden: of(&[16, 32, 50, 64, 96]),
            layers: of(&[1, 2, 3]),
            activation: activation(of(&[0, 0, 1, 2, 3, 4, 5, 6])),
        };
        let count = of(&[1, 2, 2]);
        let critics = (particles > 1).then_some((critic, count));
        let decision = Decision { shape, plan, critics, particles };
        if decision.instructions() < MOST {
            all.push(decision);
        }
    }
    all
}

/// The constants with the least sum of squared relative errors, by the normal equations of scaled columns.
fn least_squares(all: &[Measured]) -> Option<[f64; COUNTS]> {
    let rows: Vec<SVector<f64, COUNTS>> =
        all.iter().map(|one| SVector::from(one.decision.counts()) / one.instructions).collect();
    let mut scale = SVector::<f64, COUNTS>::zeros();
    for row in &rows {
        scale += row.component_mul(row);
    }
    let scale = scale.map(|squares| 1.0 / squares.max(1e-300).sqrt());
    let (mut normal, mut right) = (SMatrix::<f64, COUNTS, COUNTS>::zeros(), SVector::<f64, COUNTS>::zeros());
    for row in &rows {
        let row = row.component_mul(&scale);
        normal += row * row.transpose();
        right += row;
    }
    let solution = normal.cholesky()?.solve(&right).component_mul(&scale);
    Some(solution.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measurements that the model describes exactly give its constants back.
    #[test]
    fn the_fit_finds_the_constants_of_exact_measurements() {
        let wanted: [f64; COUNTS] = std::array::from_fn(|i| 3.0 + 10.0 * i as f64);
        let exact = |decision: Decision| {
            let instructions = decision.counts().iter().zip(wanted).map(|(count, each)| count * each).sum();
            Measured { decision, instructions, stack: 0, view: VIEW_BYTES }
        };
        let all: Vec<Measured> = decisions(FIT.0, FIT.1).into_iter().map(exact).collect();
        let found = least_squares(&all).unwrap();
        for (found, wanted) in found.iter().zip(wanted) {
            // Normal equations of well-scaled columns in double precision.
            assert!((found / wanted - 1.0).abs() < 1e-6, "{found} {wanted}");
        }
    }

    #[test]
    fn every_count_occurs_and_arguments_fit_the_firmware() {
        let all = decisions(FIT.0, FIT.1);
        for (i, name) in NAMES.iter().enumerate() {
            assert!(all.iter().filter(|decision| decision.counts()[i] > 0.0).count() > 10, "{name}");
        }
        for decision in all.iter().chain(&decisions(HELD_OUT.0, HELD_OUT.1)) {
            assert!("firmware ".len() + arguments(decision).join(" ").len() < 96);
        }
    }

    #[test]
    fn a_wrong_model_is_told() {
        let decision = decisions(1, 1)[0];
        let measured = |instructions| Measured { decision, instructions, stack: STACK_BYTES + 1, view: VIEW_BYTES };
        measured(decision.instructions()).check().unwrap();
        let said = measured(1.2 * decision.instructions()).check().unwrap_err().to_string();
        assert!(said.contains("profile-fit"), "{said}");
        assert!(measured(1.0).check_memory().unwrap_err().to_string().contains("bytes of stack"));
    }
}
