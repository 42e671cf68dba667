//! Why an expression has no value, and what evaluating it may cost.

use std::borrow::Cow;

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// As `no such key: a`.
    #[error("{0}")]
    Error(Cow<'static, str>),
    /// It costs more than it may; nothing makes up for that.
    #[error("operation cancelled: actual cost limit exceeded")]
    Exhausted,
}

impl Fault {
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(message.into())
    }

    pub fn no_overload() -> Self {
        Self::new("no such overload")
    }

    pub fn no_key(key: impl std::fmt::Display) -> Self {
        Self::new(format!("no such key: {key}"))
    }
}

/// What evaluations may still cost, in upstream's units: about 50 ns each.
#[derive(Debug)]
pub struct Budget {
    left: u64,
}

/// One expression may cost so much. Rule: `PerCallLimit`.
pub const CALL_LIMIT: u64 = 1_000_000;
/// All expressions over one object may cost so much. Rule: `RuntimeCELCostBudget`.
pub const OBJECT_LIMIT: u64 = 10_000_000;
/// Texts are gone through at this many characters for a unit.
const CHARACTERS: u64 = 10;

impl Budget {
    pub fn new(limit: u64) -> Self {
        Self { left: limit }
    }

    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes what something costs. Fails if so much is not left.
    pub fn charge(&mut self, cost: u64) -> Result<(), Fault> {
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(Fault::Exhausted)
            }
        }
    }

    /// Takes what going through so many characters costs.
    pub fn charge_text(&mut self, characters: u64) -> Result<(), Fault> {
        self.charge(characters.div_ceil(CHARACTERS))
    }

    /// Runs something that may cost [`CALL_LIMIT`] at most.
    pub fn limited<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        let mut call = Self::new(self.left.min(CALL_LIMIT));
        let before = call.left;
        let done = run(&mut call);
        self.left -= before - call.left;
        done
    }
}
