//! The process run time: tracked tasks, one stop token, bounded drain, back-off and the clock.
//!
//! ```text
//! running --stop()--> draining --all tasks ended, or the bound passed--> stopped
//! ```

mod backoff;
mod clock;
mod tasks;

pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock};
pub use tasks::{DrainError, Stop, Tasks, panic_text};
