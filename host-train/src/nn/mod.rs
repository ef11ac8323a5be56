//! Batched f32 networks of the trainer: our own back-propagation over one matrix-product crate.
//!
//! Weights stand in one flat slice per network, in the order and the column-major layout of the artefact, so that
//! exporting is a copy. Activations are row-major, a row a sample. The first layer is split by input: its state half is
//! computed once per state and shared by all particles, integration steps and candidates of that state.
//! Workspaces are allocated once; no forward or backward pass allocates. Single-threaded and deterministic: the same
//! seed on the same machine gives the same bits. Slices of a wrong length panic (programming errors).

pub mod critic;
pub mod elementwise;
pub mod fused;
pub mod gaussian;
pub mod hidden;
pub mod init;
pub mod lanes;
pub mod layer_norm;
pub mod math;
pub mod matmul;
pub mod optim;
pub mod quantile;
pub mod velocity;

pub use crate::config::{Activation, Trunk};
