//! What learning on the device takes, on the Cortex-M4F: RAM by mode from the constant functions, slices by mode and bound
//! from the program `slices`, and from the program `finetune`, in which a policy learns while it drives, the largest slice, the
//! instructions of an update and what they leave of a control period.
//!
//! A slice that takes more than its bound is an error, and so is a life whose log is not that of the host. QEMU counts
//! instructions, not cycles: what is said of time is an estimate, with its assumption.

use crate::boards::{self, Board};
use crate::cargo::{self, Firmware};
use crate::learning::{self, Flash, LEARNER, Memory, Script};
use crate::policy::Bytes;
use crate::qemu::{self, Outcome};
use crate::{digests, document, elf, tools};
use anyhow::{Context, Result, anyhow, ensure};
use flowlet::control::LentPolicy;
use flowlet::finetune::session::state_bytes;
use flowlet::finetune::{Config, Trained, words};
use flowlet::net::{Activation, CriticShape, Trunk, VelocityShape};
use flowlet::policy::{Artefact, Policy, PolicyScratch};
use std::path::Path;
use std::time::Duration;

/// `cargo xtask learner`.
#[derive(clap::Args)]
pub struct Options {
    /// Fifteen minutes of the robot's time instead of a hundred thousand control steps
    #[arg(long)]
    long: bool,
}

/// The policy with its critics.
const POLICY: &str = "furuta-critic";

/// Fifteen minutes are some 15,000 updates of a few million instructions, of which QEMU does a few hundred million a second.
const LIMIT: Duration = Duration::from_secs(1800);

/// Bounds of a slice; 0 is the least that there may be.
const BOUNDS: [u64; 3] = [0, 8_000, 20_000];

/// Most bytes of RAM by mode, for both networks.
const TARGETS: [(&str, usize); 2] = [("adam", 96_000), ("lean", 48_000)];

/// Bytes of static RAM of the program beside the learner's array: its log, the saved state, counters.
const BESIDE: u64 = 4_000;

/// Clock of the estimate and its assumption: the cycles of an instruction; control steps in a second.
const CLOCK_HZ: f64 = 168e6;
const CYCLES: f64 = 2.0;
const CONTROL_HZ: f64 = 1000.0;

/// Networks of the table: a policy on so many observations with critics as wide and deep.
const NETWORKS: [(&str, usize); 2] = [("5-64-64-1, critics 6-64-64-1", 5), ("6-64-64-1, critics 7-64-64-1", 6)];

/// Prints the tables and writes docs/learner.md.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let board = boards::find(root, "m4f")?;
    tools::ensure_targets(root, std::slice::from_ref(&board))?;
    tools::ensure_qemu(std::slice::from_ref(&board))?;
    let measured = measure(root, &board, usize::from(options.long) + 1)?;
    let block = markdown(&measured, &bounds(root, &board)?)?;
    println!("{block}");
    let path = root.join("docs/learner.md");
    document::write(&path, "What learning on the device takes", "cargo xtask learner", &block)?;
    println!("wrote {}", path.display());
    Ok(0)
}

fn markdown(measured: &Measured, rows: &[Row]) -> Result<String> {
    let mut text = format!(
        "RAM of a learner in all, bytes, {} of them beside its one array; transitions in 16 bits, the factory's weights in \
         flash:\n\n",
        measured.beside
    );
    text += &document::row(&["mode", "trained of the actor, of the critics", NETWORKS[0].0, NETWORKS[1].0]);
    text += "| --- | --- | --- | --- |\n";
    for (name, config) in Config::MODES {
        let [a, b] = NETWORKS.map(|(_, obs)| (4 * array(obs, &config) + measured.beside).to_string());
        let trained = format!("{}, {}", shown(config.actor), shown(config.critic));
        text += &document::row(&[name, &trained, &a, &b]);
    }
    text += "\nAn update on the Cortex-M4F by the bound of a slice, instructions in QEMU; random transitions of the furuta \
             policy. *Begin* is the pulse that publishes one update and draws the batch of the next, in the control step of a \
             decision.\n\n";
    text += &document::row(&["mode", "bound", "largest slice", "mean slice", "update", "begin"]);
    text += "| --- | --- | --- | --- | --- | --- |\n";
    for Row { mode, bound, largest, mean, update, begin } in rows {
        let [bound, largest, mean, update, begin] = [bound, largest, mean, update, begin].map(u64::to_string);
        text += &document::row(&[*mode, &bound, &largest, &mean, &update, &begin]);
    }
    let adam = rows.iter().find(|row| row.mode == "adam" && row.bound == u64::from(LEARNER.slice));
    let update = adam.context("the program's mode was not measured")?.update;
    Ok(format!(
        "{text}\nThe program `finetune`, in which a policy learns while it drives: {}.\n\n{}.\n",
        measured.sentence(),
        measured.estimate(update)
    ))
}

fn shown(trained: Trained) -> String {
    match trained {
        Trained::All => "all".into(),
        Trained::Last(n) => format!("last {n}"),
        Trained::LowRank(r) => format!("rank {r}"),
        Trained::Bias => "biases".into(),
    }
}

/// Of the program `slices`, in instructions.
struct Row {
    mode: &'static str,
    bound: u64,
    largest: u64,
    mean: u64,
    update: u64,
    /// To publish an update and to begin the next.
    begin: u64,
}

/// Every mode with every bound; an error where a slice takes more than its bound.
fn bounds(root: &Path, board: &Board) -> Result<Vec<Row>> {
    let elf = cargo::build_firmware(root, board, "slices", &Firmware::default())?;
    let mut rows = Vec::new();
    for (number, (mode, _)) in Config::MODES.iter().enumerate() {
        for bound in BOUNDS {
            let arguments = [format!("mode={number}"), format!("bound={bound}"), "updates=5".to_string()];
            let outcome = qemu::execute(board, &elf, &arguments, LIMIT, |_| ())?;
            ensure!(outcome.code == 0, "slices on {}:\n{}", board.name, outcome.lines.join("\n"));
            let first = |label: &str| -> Result<u64> {
                numbers("slices", &outcome, label)?.first().copied().with_context(|| format!("slices has no {label}"))
            };
            let (bound, largest) = (first("bound")?, first("largest slice")?);
            ensure!(largest <= bound, "mode {mode}: a slice takes {largest} instructions, more than {bound}");
            let (mean, update, begin) = (first("mean slice")?, first("update")?, first("begin of an update")?);
            rows.push(Row { mode, bound, largest, mean, update, begin });
        }
    }
    Ok(rows)
}

/// Words of a learner's array for a policy on `obs` observations.
fn array(obs: usize, config: &Config) -> usize {
    let (act, hidden, layers, activation) = (1, 64, 2, Activation::Relu);
    let policy = VelocityShape { obs, act, hidden, layers, frequencies: 0, activation, trunk: Trunk::Plain };
    words(&policy, &CriticShape { obs, act, hidden, layers, activation }, config)
}

/// A hundred thousand control steps, or fifteen minutes, against the host; the remark tells the figures.
pub fn check(root: &Path, board: &Board, long: bool) -> Result<String> {
    let measured = measure(root, board, usize::from(long) + 1)?;
    for (name, most) in TARGETS {
        let config = Config::MODES.iter().find(|(known, _)| *known == name).context("a mode is gone")?.1;
        for (network, obs) in NETWORKS {
            let bytes = 4 * array(obs, &config) + measured.beside;
            ensure!(bytes <= most, "a learner of {network} takes {bytes} bytes in mode {name}, more than {most}");
        }
    }
    bounds(root, board)?;
    Ok(measured.sentence())
}

/// What a run on the device showed.
struct Measured {
    /// Bytes of the learner beside its array.
    beside: usize,
    control_steps: u32,
    updates: u64,
    slice: u64,
    mean_slice: u64,
    update: u64,
    step: u64,
}

impl Measured {
    fn sentence(&self) -> String {
        format!(
            "{} control steps on m4f: {} updates, none late, of {} instructions in the mean, those without the actor's step among \
             them; no slice takes more than its bound of {}, the largest {}, the mean {}",
            self.control_steps, self.updates, self.update, LEARNER.slice, self.slice, self.mean_slice
        )
    }

    /// Updates in a second beside a control loop, each of so many instructions.
    fn estimate(&self, update: u64) -> String {
        let period = CLOCK_HZ / CYCLES / CONTROL_HZ;
        // The last slice of a period is not begun where it might not end.
        let idle = period - self.step as f64 - f64::from(LEARNER.slice);
        format!(
            "At {} MHz, {CYCLES} cycles an instruction assumed, and control at {CONTROL_HZ} Hz of {} instructions a step: {:.1} \
             updates of {update} instructions in a second, an estimate",
            CLOCK_HZ / 1e6,
            self.step,
            CONTROL_HZ * idle / update as f64
        )
    }
}

fn measure(root: &Path, board: &Board, number: usize) -> Result<Measured> {
    let script = Script::ALL[number];
    let options = Firmware { policy: Some(digests::committed(root, POLICY)), ..Firmware::default() };
    let elf = cargo::build_firmware(root, board, "finetune", &options)?;
    let outcome = qemu::execute(board, &elf, &[format!("script={number}")], LIMIT, |_| ())?;
    ensure!(outcome.code == 0, "finetune on {}:\n{}", board.name, outcome.lines.join("\n"));
    for line in lines(root, script)? {
        ensure!(
            outcome.lines.iter().any(|found| found.starts_with(&line)),
            "the host computes `{line}`, and {} does not:\n{}",
            board.name,
            outcome.lines.join("\n")
        );
    }
    let bytes = numbers("finetune", &outcome, "learner")?;
    let [learner, array] = bytes[..] else { return Err(anyhow!("finetune does not say what the learner takes")) };
    let expected = 4 * array_of(root)? as u64;
    ensure!(array == expected, "the learner's array has {array} bytes, not {expected}");
    let ram = elf::sizes(&elf)?.ram;
    ensure!(
        (array..=array + BESIDE).contains(&ram),
        "the image has {ram} bytes of static RAM, which is not the learner's {array} and at most {BESIDE} beside"
    );
    let [slice, mean_slice] = numbers("finetune", &outcome, "instructions of a slice")?[..] else {
        return Err(anyhow!("finetune does not say what a slice takes"));
    };
    ensure!(slice <= u64::from(LEARNER.slice), "a slice takes {slice} instructions, more than {}", LEARNER.slice);
    let one = |label: &str, place: usize| -> Result<u64> {
        numbers("finetune", &outcome, label)?
            .get(place)
            .copied()
            .with_context(|| format!("finetune prints no numbers of `{label}`"))
    };
    Ok(Measured {
        beside: (learner - array) as usize,
        control_steps: script.episodes * learning::STEPS,
        updates: one("updates", 0)?,
        slice,
        mean_slice,
        update: one("instructions of an update", 0)?,
        step: one("instructions of a control step", 1)?,
    })
}

/// All whole numbers of a line.
fn numbers(program: &str, outcome: &Outcome, label: &str) -> Result<Vec<u64>> {
    let value = outcome.value(label).with_context(|| format!("{program} prints no line `{label}`"))?;
    Ok(value.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect())
}

/// Words of the program's array.
fn array_of(root: &Path) -> Result<usize> {
    let bytes = Bytes::read(&digests::committed(root, POLICY))?;
    let artefact = Artefact::new(bytes.get())?;
    let critic = artefact.critics().next().context("the policy has no critics")?;
    Ok(words(artefact.velocity().shape(), critic.shape(), &LEARNER))
}

/// The lines that the program logs, but for its measurements.
pub fn lines(root: &Path, script: Script) -> Result<Vec<String>> {
    let bytes = Bytes::read(&digests::committed(root, POLICY))?;
    let policy = Policy::new(Artefact::new(bytes.get())?)?;
    let artefact = *policy.artefact();
    let shape = artefact.velocity().shape();
    let mut scratch = vec![0.0; PolicyScratch::len(shape, policy.plan())];
    let mut policy = LentPolicy::new(policy, &mut scratch)?;
    let (mut learner, mut flash) = (vec![0; array_of(root)?], Flash::new(1));
    let mut state = vec![0; state_bytes(shape, &LEARNER)];
    let mut memory = Memory { learner: &mut learner, flash: &mut flash, state: &mut state };
    let o = learning::live(&mut policy, &artefact, &mut memory, script, |_, what| what()).map_err(|e| anyhow!(e))?;
    let report = o.report;
    Ok(vec![
        format!("episodes: {} of {} control steps", script.episodes, learning::STEPS),
        format!("returns: {} at first, {} at last", o.returns[0], o.returns[1]),
        format!("digest of the commands: {:016x}", o.actions),
        format!("digest of what was learned: {:016x}", o.learned),
        format!("digest of what is deployed, before and after the power had gone: {:016x}", o.deployed),
        format!("saved: {}, verdicts: {}", o.saved, o.verdicts),
        format!("updates: {}, late: 0, resets: {}", report.updates, report.resets),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_fit_their_targets() {
        // A learner's struct is some 300 bytes on a 32-bit core; `check` has the exact number.
        for (name, most) in TARGETS {
            let (_, config) = Config::MODES.iter().find(|(known, _)| *known == name).unwrap();
            for (network, obs) in NETWORKS {
                let bytes = 4 * array(obs, config) + 300;
                assert!(bytes <= most, "{network} in mode {name}: {bytes}");
            }
        }
        assert!(4 * array(6, &Config::ALL) > 200_000);
    }

    #[test]
    fn numbers_are_read_from_a_line() {
        let lines = vec!["instructions of a slice: 19000 at most, 9000 in the mean".to_string()];
        let outcome = Outcome { lines, code: 0 };
        assert_eq!(numbers("finetune", &outcome, "instructions of a slice").unwrap(), [19_000, 9_000]);
        assert!(numbers("finetune", &outcome, "updates").is_err());
    }
}
