//! Chooses a node for every Pod that has none: filters, scores, bind.
//!
//! ```text
//! active --pop, schedule--> assumed on a node --bind--> bound
//!   ^                         | bind failed
//!   |  back-off over          v
//! back-off <--cluster event-- unschedulable
//! ```
//!
//! [`schedule::schedule`] is a pure function over a [`snapshot::Snapshot`]; the loop in [`run`] feeds it.

mod configuration;
mod cycle;
mod filters;
mod preempt;
mod profile;
mod queue;
mod run;
mod schedule;
mod scores;
mod snapshot;
mod terms;
mod volumes;
mod why;

pub use run::run;
