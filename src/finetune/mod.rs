//! Learning on the robot, behind the safety gate: what learns may be wrong, what is deployed may not.
//!
//! [`guard`] lets candidate weights play against those in use and against the factory's, by a metric from sensors, and
//! decides with stated error rates which are kept.
//!
//! No panics, no allocation, the same bits on every target.

pub mod guard;
