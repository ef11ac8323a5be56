//! What runs achieved, over seeds: loads run folders, groups them, draws learning curves, writes tables.
//!
//! [`load`] finds and reads runs, [`group`] puts the seeds of one setting together, [`curves`] averages their progress,
//! [`plot`] draws it as SVG or PNG, [`table`] sums up the final evaluations. Nothing here trains or plays episodes, and
//! nothing is changed in a run folder, so unfinished runs may be looked at while they train. Runs are read by the names
//! of keys and columns and not through the trainer's configuration: those of another version can be compared too.
//! Deterministic; no panics; errors name the file.

pub mod curves;
pub mod group;
pub mod load;
pub mod plot;
pub mod table;

#[cfg(test)]
pub(crate) mod fixture;
