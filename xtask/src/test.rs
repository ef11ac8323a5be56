//! The test command: everything that must hold before a change is committed, in one list.
//!
//! In order: tools, MuJoCo for the Control Suite, EGL for its pictures, format, clippy on the host and on the device targets, flowlet's feature sets, host tests, doc tests,
//! Python peers (`host-train/tests/peers_*.rs`, marked `#[ignore]` because they need packages that only this command
//! installs), documentation, the images of real boards, then in QEMU: the firmware snapshots, what the firmware must refuse, what an estimate takes,
//! the cost model, hardware in the loop, the digests. `--host` leaves the part in QEMU out and says so; `--long` adds the other tests marked `#[ignore]`, the
//! kernels' tests under Miri and the digests over several seeds.

use crate::boards::{self, Board};
use crate::cargo::{self, Firmware};
use crate::images::{self, IMAGES};
use crate::learning::Script;
use crate::steps::{Steps, output_of};
use crate::{
    c_interface, digests, estimates, firmware_report, hil, learner, mujoco, policy, profile_fit, python, qemu,
    refusals, snapshot, tools,
};
use anyhow::{Context, Result, anyhow, bail};
use flowlet::conformance::CASES;
use flowlet_journal::lives::{self, Outcome};
use furuta_robot::simulated::Episode;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// `cargo xtask test`.
#[derive(clap::Args)]
pub struct Options {
    /// Leave out what needs QEMU
    #[arg(long)]
    host: bool,
    /// Add the tests that take long: all ignored ones, Miri, digests over several seeds
    #[arg(long)]
    long: bool,
    /// Rewrite the firmware's snapshots with what the programs print now
    #[arg(long, conflicts_with = "host")]
    bless: bool,
}

/// The programs with a snapshot that every target gives, and the policy that they embed for it.
const SNAPSHOTS: [(&str, Option<&str>); 4] =
    [("pendulum", Some("pendulum")), ("control", Some("furuta")), ("conformance", None), ("journal", None)];

/// The program with a snapshot that runs on the chip of a real board alone: what that board's image is made of.
const RIG: &str = "rig";

/// The program with a snapshot that runs on cores with a floating-point unit alone: it learns, which takes the others too
/// long; and its policy.
const LEARNER: (&str, Option<&str>) = ("finetune", Some("furuta-critic"));

/// Lives in the snapshot of the program `journal`.
const LIVES: u32 = 100;

/// The policies whose digests every target gives, one of each number format.
const DIGESTS: [&str; 2] = ["pendulum", "pendulum-int8"];

/// Seeds of the digests beside the usual one, in the long list.
const LONG_SEEDS: std::ops::Range<u64> = 1..6;

/// Optimised, with debug assertions and overflow checks: see `.cargo/config.toml`.
const PROFILE: [&str; 2] = ["--profile", "checked"];

/// Tells a Python peer's test which interpreter has the packages.
const INTERPRETER: &str = "FLOWLET_PYTHON";

/// The trainer with MuJoCo.
pub(crate) const SUITE: [&str; 2] = ["--features", "host-train/mujoco"];

/// The same with pictures: everything that is run here is built with it, so that it is built once. That it builds without is
/// what clippy and the documentation show.
pub(crate) const PICTURES: [&str; 2] = ["--features", "host-train/render"];

const FORMAT: [&str; 4] = ["--check", "--", "--color", "never"];

const DENY: [&str; 3] = ["--", "-D", "warnings"];

/// The boards for which clippy runs: both architectures, with and without a floating-point unit. What the others
/// differ in are compiler flags, and they are built for the runs in QEMU.
const LINTED: [&str; 3] = ["m0", "m4f", "rv32imac"];

/// The image for which clippy runs: the one whose chip's crate is the lightest.
const LINTED_IMAGE: &str = "nrf52840";

/// Does the checks, prints the list and its closing line.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let boards = boards::all(root)?;
    let mut steps = Steps::default();
    steps.step("tools", || {
        tools::ensure_components(root)?;
        tools::ensure_targets(root, &boards)?;
        if !options.host {
            tools::ensure_qemu(&boards)?;
            tools::ensure_arm_gcc()?;
        }
        Ok(String::new())
    });
    if steps.failed() {
        println!("nothing else was run, since a tool is missing");
        return Ok(steps.finish());
    }
    steps.step("MuJoCo and the Control Suite's models", || mujoco::fetch(root).map(|_| String::new()));
    steps.step("EGL", || mujoco::ensure_egl(root).map(|()| String::new()));
    lints(&mut steps, root, &boards);
    host_tests(&mut steps, root, options.long);
    images(&mut steps, root);
    if options.host {
        println!(
            "left out by --host: firmware snapshots, refusals, estimates, cost model, hardware in the loop and digests, all of which run in QEMU"
        );
        return Ok(steps.finish());
    }
    snapshots(&mut steps, root, &boards, options.bless);
    refusals::check(&mut steps, root, &boards);
    if let Some(board) = boards.iter().find(|board| board.name == "m4f") {
        steps.step("firmware in C on m4f", || c_interface::check_program(root, board));
        steps.step("estimates on m4f", || estimates::check(root, board));
        steps.step("budget of the furuta policy on m4f", || firmware_report::check(root, board));
        let life = if options.long {
            "fifteen minutes of learning on m4f"
        } else {
            "100,000 control steps of learning on m4f"
        };
        steps.step(life, || learner::check(root, board, options.long));
        steps.step("cost model on m4f", || profile_fit::check(root, board));
    }
    hil::steps(&mut steps, root, &boards, options.long);
    let seeds = if options.long { 0..LONG_SEEDS.end } else { 0..1 };
    for seed in seeds {
        for policy in DIGESTS {
            digests_agree(&mut steps, root, &boards, policy, seed);
        }
    }
    Ok(steps.finish())
}

/// Runs a command that says nothing worth a remark.
fn silent(command: &mut Command) -> Result<String> {
    output_of(command).map(|_| String::new())
}

fn lints(steps: &mut Steps, root: &Path, boards: &[Board]) {
    let firmware = root.join("firmware");
    steps.step("format", || silent(cargo::cargo(root).args(["fmt", "--all"]).args(FORMAT)));
    steps.step("format of the firmware", || silent(cargo::cargo(&firmware).arg("fmt").args(FORMAT)));
    let boards_folder = root.join("boards");
    steps.step("format of the images", || silent(cargo::cargo(&boards_folder).args(["fmt", "--all"]).args(FORMAT)));
    steps.step("clippy", || {
        let mut clippy = cargo::cargo(root);
        silent(clippy.args(["clippy", "--workspace", "--all-targets"]).args(PROFILE).args(DENY))
    });
    for (name, features) in [("the Control Suite", SUITE), ("pictures", PICTURES)] {
        steps.step(&format!("clippy with {name}"), || {
            let mut clippy = cargo::cargo(root);
            silent(clippy.args(["clippy", "--workspace", "--all-targets"]).args(features).args(PROFILE).args(DENY))
        });
    }
    for board in boards.iter().filter(|board| LINTED.contains(&board.name.as_str())) {
        steps.step(&format!("clippy of flowlet, plants, journal and the firmware for {}", board.triple), || {
            let mut clippy = cargo::firmware(root, board, "clippy", &Firmware::default());
            clippy.args([
                "--package",
                "flowlet-firmware",
                "--package",
                "flowlet",
                "--package",
                "flowlet-link",
                "--package",
                "flowlet-journal",
                "--package",
                "plants",
            ]);
            silent(clippy.args(DENY))
        });
    }
    for (name, arguments) in [
        ("flowlet builds with no features", &["--no-default-features"][..]),
        ("flowlet builds with defmt", &["--features", "defmt"]),
        ("flowlet builds for thumbv6m", &["--no-default-features", "--target", "thumbv6m-none-eabi"]),
        // A plain triple of Armv8-M has the floating-point kernels and neither the DSP extension nor Helium.
        ("flowlet builds for thumbv8m.main", &["--target", "thumbv8m.main-none-eabihf"]),
    ] {
        steps.step(name, || silent(cargo::cargo(root).args(["build", "--package", "flowlet"]).args(arguments)));
    }
    // A Cortex-M33 without a floating-point unit: the assembler knows the DSP extension from nothing but its own piece.
    steps.step("flowlet builds for a Cortex-M33 in soft float", || {
        const TRIPLE: &str = "thumbv8m.main-none-eabi";
        tools::ensure_triples(root, [TRIPLE].into_iter())?;
        let flags = format!("target.{TRIPLE}.rustflags=['-C', 'target-cpu=cortex-m33']");
        silent(cargo::cargo(root).args(["build", "--package", "flowlet", "--target", TRIPLE, "--config", &flags]))
    });
}

fn images(steps: &mut Steps, root: &Path) {
    for image in IMAGES {
        steps.step(&format!("the image for {} builds", image.0), || {
            let row = images::build(root, image)?;
            Ok(format!("{} bytes of flash, {} of static RAM", row.flash, row.ram))
        });
    }
    steps.step(&format!("clippy of the image for {LINTED_IMAGE}"), || {
        silent(images::cargo(root, LINTED_IMAGE).args(["clippy", "--release"]).args(DENY))
    });
}

fn host_tests(steps: &mut Steps, root: &Path, long: bool) {
    steps.step("host tests", || counted(tests(root).arg("--all-targets")));
    steps.step("doc tests", || counted(tests(root).arg("--doc")));
    steps.step("the images' robot with the int8 policy", || {
        let mut robot = cargo::cargo(root);
        robot.args(["test", "--package", "furuta-robot", "--features", "int8,simulated"]).args(PROFILE);
        counted(&mut robot)
    });
    if long {
        steps.step("long host tests and Python peers", || {
            counted(tests(root).args(["--all-targets", "--", "--ignored"]).env(INTERPRETER, python::test_venv(root)?))
        });
        steps.step("kernels under Miri", || {
            tools::ensure_miri(root)?;
            let mut miri = cargo::command("rustup", root);
            miri.args(["run", "nightly", "cargo", "miri", "test", "--package", "flowlet", "--lib", "net::kernel"]);
            counted(&mut miri)
        });
    } else {
        steps.step("Python peers", || {
            let mut peers = cargo::cargo(root);
            // The whole workspace, so that its features, and with them what is compiled already, are those of the host tests.
            peers.args(["test", "--workspace", "--no-fail-fast"]).args(PICTURES).args(PROFILE);
            peers.args(peer_tests(root)?.iter().flat_map(|name| ["--test", name])).args(["--", "--ignored"]);
            counted(peers.env(INTERPRETER, python::test_venv(root)?))
        });
    }
    steps.step("documentation", || {
        let mut doc = cargo::cargo(root);
        doc.args(["doc", "--workspace", "--no-deps"]).args(PROFILE).env("RUSTDOCFLAGS", "-D warnings");
        silent(&mut doc)
    });
}

/// `cargo test` of the workspace.
fn tests(root: &Path) -> Command {
    let mut tests = cargo::cargo(root);
    tests.args(["test", "--workspace", "--no-fail-fast"]).args(PICTURES).args(PROFILE);
    // Programs know where MuJoCo is; tests in documentation are none of cargo's targets and do not.
    tests.env("LD_LIBRARY_PATH", root.join("mujoco/lib"));
    tests
}

/// The test files of the trainer that need Python, by name.
fn peer_tests(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("host-train/tests");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if stem.starts_with("peers_") && path.extension().is_some_and(|extension| extension == "rs") {
            names.push(stem.into_owned());
        }
    }
    if names.is_empty() {
        bail!("{} has no peers_*.rs", folder.display());
    }
    names.sort();
    Ok(names)
}

/// Runs `cargo test` and counts the tests; a run of none is a failure.
fn counted(command: &mut Command) -> Result<String> {
    let (passed, ignored) = count(&output_of(command)?);
    if passed == 0 {
        bail!("no test ran");
    }
    Ok(match ignored {
        0 => format!("{passed} tests"),
        _ => format!("{passed} tests; {ignored} ignored ones are the Python peers and what --long adds"),
    })
}

/// Passed and ignored tests by the closing lines of `cargo test`.
fn count(output: &str) -> (usize, usize) {
    let mut total = (0, 0);
    for line in output.lines().filter_map(|line| line.strip_prefix("test result: ok. ")) {
        for part in line.split("; ") {
            match part.split_once(' ') {
                Some((number, "passed")) => total.0 += number.parse().unwrap_or(0),
                Some((number, "ignored")) => total.1 += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    total
}

fn snapshots(steps: &mut Steps, root: &Path, boards: &[Board], bless: bool) {
    for program in SNAPSHOTS {
        let source = boards.iter().find(|board| board.name == "m4f").filter(|_| bless);
        one_snapshot(steps, root, program, boards, source);
    }
    let with_fpu: Vec<Board> = boards.iter().filter(|board| board.has_fpu()).cloned().collect();
    let source = with_fpu.iter().find(|board| board.name == "m4f").filter(|_| bless);
    one_snapshot(steps, root, LEARNER, &with_fpu, source);
    match boards::find(root, boards::CHIP) {
        Ok(chip) => one_snapshot(steps, root, (RIG, None), std::slice::from_ref(&chip), Some(&chip).filter(|_| bless)),
        Err(error) => steps.step(RIG, || Err(error)),
    }
}

/// Compares the log of `program` on every board with its snapshot, which `source` has written before if there is one.
fn one_snapshot(
    steps: &mut Steps,
    root: &Path,
    (program, policy): (&str, Option<&str>),
    boards: &[Board],
    source: Option<&Board>,
) {
    let path = root.join("firmware/src/bin").join(program).with_extension("out");
    let firmware = Firmware { policy: policy.map(|name| digests::committed(root, name)), ..Firmware::default() };
    let lines_on = |board: &Board| -> Result<Vec<String>> {
        let elf = cargo::build_firmware(root, board, program, &firmware)?;
        let outcome = qemu::execute(board, &elf, &[], Duration::from_secs(600), |_| ())?;
        if outcome.code != 0 {
            bail!("{program} ended with exit code {}:\n{}", outcome.code, outcome.lines.join("\n"));
        }
        Ok(outcome.lines)
    };
    if let Some(board) = source {
        steps.step(&format!("writing the snapshot of {program}"), || {
            snapshot::bless(&path, &lines_on(board)?)?;
            Ok(path.display().to_string())
        });
    }
    steps.step(&format!("{program} on host"), || on_host(root, program, &path));
    steps.parallel(
        boards,
        |board| format!("{program} on {}", board.name),
        |board| {
            snapshot::compare(&path, &lines_on(board)?)?;
            Ok(String::new())
        },
    );
}

/// What the program would log here must stand in its snapshot too.
fn on_host(root: &Path, program: &str, snapshot: &Path) -> Result<String> {
    let lines: Vec<String> = match program {
        "pendulum" => {
            let (total, digest) = policy::pendulum_episode(&policy::Bytes::read(&digests::default_policy(root))?)?;
            vec![format!("return: {total} over"), format!("digest: {digest:016x}")]
        }
        "journal" => {
            let Outcome { states, erases, digest, .. } =
                lives::live(LIVES, |_, work| work()).map_err(|life| anyhow!("a state was lost before life {life}"))?;
            vec![format!("states: {states},"), format!("erases: {erases}"), format!("digest: {digest:08x}")]
        }
        "control" => policy::control_cases(&policy::Bytes::read(&digests::committed(root, "furuta"))?)?,
        "conformance" => CASES.iter().map(|(name, case)| format!("{name}: {:016x}", case(0))).collect(),
        "finetune" => learner::lines(root, Script::SHORT)?,
        RIG => {
            let episode = Episode::run()?;
            vec![format!("return: {} over", episode.total), format!("digest: {:016x}", episode.digest.finish())]
        }
        _ => bail!("nobody says what {program} would log on the host"),
    };
    let text = fs::read_to_string(snapshot).with_context(|| format!("cannot read {}", snapshot.display()))?;
    for line in &lines {
        if !text.lines().any(|known| known.starts_with(line)) {
            bail!("the host computes `{line}`, which is not in {}", snapshot.display());
        }
    }
    Ok(format!("{} lines agree", lines.len()))
}

fn digests_agree(steps: &mut Steps, root: &Path, boards: &[Board], policy: &str, seed: u64) {
    let mut rows = Vec::new();
    let path = digests::committed(root, policy);
    let what = format!("digest of {policy}, seed {seed},");
    let host = digests::host_row(&path, seed);
    steps.step(&format!("{what} on host"), || {
        rows.push(host?);
        Ok(rows[0].digest.clone())
    });
    steps.parallel(
        boards,
        |board| format!("{what} on {}", board.name),
        |board| {
            let row = digests::device_row(root, board, &path, seed)?;
            let mut both = rows.clone();
            both.push(row.clone());
            digests::agree(&both)?;
            Ok(format!(
                "{}, {} instructions per decision",
                row.digest,
                row.instructions_per_decision.unwrap_or_default()
            ))
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_over_all_binaries() {
        let output = "running 3 tests\n\
                      test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                      test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
        assert_eq!(count(output), (7, 1));
        assert_eq!(count(""), (0, 0));
    }

    #[test]
    fn peers_are_found_by_name() {
        let names = peer_tests(&crate::root()).unwrap();
        assert!(names.contains(&"peers_onnx".to_string()) && names.is_sorted(), "{names:?}");
        assert!(peer_tests(Path::new("/nowhere")).is_err());
    }
}
