//! What the firmware must refuse: at build time what can be seen there, the rest at boot.
//!
//! Every case is a policy with one thing wrong. A build must fail with one sentence that names it; a boot must end with
//! exit code 1 and one sentence, before the motor is driven.

use crate::boards::Board;
use crate::cargo::{self, Firmware};
use crate::policy::{self, Bytes};
use crate::steps::Steps;
use crate::{digests, qemu};
use anyhow::{Context, Result, bail};
use flowlet::policy::Artefact;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Does all the checks, on the Cortex-M4F.
pub fn check(steps: &mut Steps, root: &Path, boards: &[Board]) {
    let Some(board) = boards.iter().find(|board| board.name == "m4f") else {
        return;
    };
    let cases: [(&str, Damage, &str); 5] = [
        ("a missing policy", missing, "cannot read the policy"),
        ("a truncated policy", truncated, "truncated"),
        ("a corrupted policy", corrupted, "damaged"),
        ("a policy of a newer format", newer, "format version 3"),
        ("a policy for another plant", of_another_plant, "has 2 observations, 1 actions"),
    ];
    for (name, damage, sentence) in cases {
        steps.step(&format!("the build refuses {name}"), || refused_by_build(root, board, damage, sentence));
    }
    steps.step("the boot refuses a policy whose self-test fails", || refused_at_boot(root, board));
}

/// Makes the bytes of a bad policy from those of a good one; `None` leaves the file out.
type Damage = fn(&Bytes) -> Result<Option<Bytes>>;

fn missing(_: &Bytes) -> Result<Option<Bytes>> {
    Ok(None)
}

fn truncated(good: &Bytes) -> Result<Option<Bytes>> {
    Ok(Some(Bytes::new(&good.get()[..good.get().len() / 2])))
}

fn corrupted(good: &Bytes) -> Result<Option<Bytes>> {
    let mut bad = good.clone();
    let middle = bad.get().len() / 2;
    bad.get_mut()[middle] ^= 1;
    Ok(Some(bad))
}

fn newer(good: &Bytes) -> Result<Option<Bytes>> {
    let mut bad = good.clone();
    // The version stands after the four bytes of the magic number.
    bad.get_mut()[4] = 3;
    policy::reseal(&mut bad);
    Ok(Some(bad))
}

fn of_another_plant(_: &Bytes) -> Result<Option<Bytes>> {
    policy::untrained(&["channel_0", "channel_1"], &["channel_0"], 16, false).map(Some)
}

fn refused_by_build(root: &Path, board: &Board, damage: Damage, sentence: &str) -> Result<String> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = folder.path().join("bad.flw");
    if let Some(bad) = damage(&Bytes::read(&digests::default_policy(root))?)? {
        fs::write(&path, bad.get()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    match cargo::build_firmware(root, board, "pendulum", &Firmware { policy: Some(path), ..Firmware::default() }) {
        Ok(_) => bail!("the build accepts it"),
        Err(error) => {
            let said = format!("{error:#}");
            if !said.lines().any(|line| line.contains(sentence)) {
                bail!("no line of the build says `{sentence}`:\n{said}");
            }
            Ok(String::new())
        }
    }
}

/// One bit of the expected action is wrong and the checksum right: only running the policy can tell.
fn refused_at_boot(root: &Path, board: &Board) -> Result<String> {
    let mut bad = Bytes::read(&digests::default_policy(root))?;
    let artefact = Artefact::new(bad.get())?;
    let (_, _, action, _) = artefact.self_test();
    let at = action.as_ptr().addr() - bad.get().as_ptr().addr();
    bad.get_mut()[at] ^= 1;
    policy::reseal(&mut bad);
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = folder.path().join("bad.flw");
    fs::write(&path, bad.get()).with_context(|| format!("cannot write {}", path.display()))?;
    let elf = cargo::build_firmware(root, board, "pendulum", &Firmware { policy: Some(path), ..Firmware::default() })?;
    let outcome = qemu::execute(board, &elf, &[], Duration::from_secs(120), |_| ())?;
    match outcome.lines.as_slice() {
        [line] if outcome.code == 1 && line.contains("motor not driven") && line.contains("self-test") => {
            Ok(String::new())
        }
        lines => bail!("exit code {} and this log:\n{}", outcome.code, lines.join("\n")),
    }
}
