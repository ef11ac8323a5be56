//! `verify`: checks an exported policy as the firmware does at boot, self-test included.

use super::Output;
use crate::policy::{ArtefactBytes, HostPolicy};
use crate::{Error, Result};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// The file of `verify`.
#[derive(Args, Clone, Debug)]
pub struct FileArgs {
    /// The exported policy
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &FileArgs, output: Output) -> Result<()> {
    let bytes = ArtefactBytes::read(&args.file)?;
    let artefact = bytes.artefact()?;
    let shown = args.file.display();
    HostPolicy::new(artefact)?.self_test().map_err(|e| Error::failure(format!("{shown}: {e}")))?;
    let (.., action, _) = artefact.self_test();
    let bits: Vec<String> = action.iter().map(|a| format!("{:08x}", a.to_bits())).collect();
    output.line(&format!("{shown}: valid, and its self-test gives the expected bits ({})", bits.join(" ")));
    output.object(&json!({
        "policy": args.file,
        "env": artefact.name(),
        "bytes": bytes.as_slice().len(),
        "self_test": "passed",
        "action_bits": bits,
    }));
    Ok(())
}
