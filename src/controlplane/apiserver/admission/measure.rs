//! How long admission takes, under upstream's names.

use std::time::Instant;

use super::matching::word;
use super::{CHAIN, Operation};
use metrics::{Histogram, Kind, Text};

/// Upstream's bounds, in seconds.
const BOUNDS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const OPERATIONS: [Operation; 4] =
    [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Admit,
    Validate,
}

impl Step {
    const ALL: [(&'static str, Self); 2] = [("admit", Self::Admit), ("validate", Self::Validate)];
}

/// By operation, and whether it was refused.
type Spread = [[Histogram<6>; 2]; OPERATIONS.len()];

/// How long each step took, and each plugin in it.
pub struct Measures {
    steps: [Spread; 2],
    plugins: Vec<Plugin>,
}

struct Plugin {
    /// What it is called in each step.
    names: [&'static str; 2],
    took: [Spread; 2],
}

impl Measures {
    /// For the plugins of [`CHAIN`], then for those of these names.
    pub fn new(others: impl IntoIterator<Item = [&'static str; 2]>) -> Self {
        let names = CHAIN.iter().map(|plugin| [plugin.name(); 2]).chain(others);
        let plugins = names.map(|names| Plugin { names, took: Default::default() });
        Self { steps: Default::default(), plugins: plugins.collect() }
    }

    /// A step begins.
    pub fn begin(&self, step: Step, operation: Operation) -> Lap<'_> {
        let now = Instant::now();
        Lap { measures: self, step, operation, began: now, last: now }
    }

    /// Tells what was measured. A plugin that has nothing to do in a step takes no time there.
    pub fn tell(&self, text: &mut Text) {
        let steps = "apiserver_admission_step_admission_duration_seconds";
        text.family(steps, Kind::Histogram, "How long admission took, by operation and step.");
        for ((step, _), spread) in Step::ALL.iter().zip(&self.steps) {
            tell_spread(spread, text, steps, &[], step);
        }
        let plugins = "apiserver_admission_controller_admission_duration_seconds";
        text.family(
            plugins,
            Kind::Histogram,
            "How long each plugin of admission took, by operation and step.",
        );
        for plugin in &self.plugins {
            for (((step, _), spread), name) in Step::ALL.iter().zip(&plugin.took).zip(plugin.names) {
                tell_spread(spread, text, plugins, &[("name", name)], step);
            }
        }
    }
}

fn tell_spread(spread: &Spread, text: &mut Text, metric: &str, labels: &[(&str, &str)], step: &str) {
    for (operation, of) in OPERATIONS.into_iter().zip(spread) {
        for (rejected, took) in ["false", "true"].into_iter().zip(of).filter(|(_, took)| took.total() > 0) {
            let own = [("operation", word(operation)), ("rejected", rejected), ("type", step)];
            took.tell(text, metric, &BOUNDS, &[labels, &own].concat());
        }
    }
}

/// A step on its way through the plugins.
pub struct Lap<'m> {
    measures: &'m Measures,
    step: Step,
    operation: Operation,
    began: Instant,
    last: Instant,
}

impl Lap<'_> {
    /// What went by until now is no plugin's.
    pub fn skip(&mut self) {
        self.last = Instant::now();
    }

    /// A plugin is done with it.
    pub fn passed<T, E>(&mut self, plugin: usize, outcome: Result<T, E>) -> Result<T, E> {
        let now = Instant::now();
        let took = &self.measures.plugins[plugin].took[self.step as usize];
        let took = &took[self.operation as usize][usize::from(outcome.is_err())];
        took.observe(&BOUNDS, now - self.last);
        self.last = now;
        outcome
    }

    /// The step is over.
    pub fn end<T, E>(self, outcome: Result<T, E>) -> Result<T, E> {
        let took = &self.measures.steps[self.step as usize][self.operation as usize];
        took[usize::from(outcome.is_err())].observe(&BOUNDS, self.began.elapsed());
        outcome
    }
}
