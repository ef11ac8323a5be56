//! `bench estimator`: flowlet's posterior-mean estimators against exact posterior means.
//!
//! [`targets`] are densities whose posteriors are known; [`contenders`] are the estimators; [`grid`] measures them on
//! cells of time, dimension, temperature and number of evaluations; [`particles`] are what the default is given when it
//! is given something; [`report`] and [`heatmap`] say what came out. [`update`] and [`mod@env`] are about speed.

pub mod contenders;
pub mod env;
pub mod grid;
pub mod heatmap;
pub mod particles;
pub mod report;
pub mod targets;
pub mod update;
