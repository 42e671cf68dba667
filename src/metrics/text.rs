//! Prometheus' text form.

use std::fmt::Write;

/// What a metric's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The text as it is written.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a metric: what its samples are, and what it is about.
    pub fn family(&mut self, name: &str, kind: Kind, about: &str) {
        let _ = writeln!(self.0, "# HELP {name} {about}\n# TYPE {name} {}", kind.word());
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{label}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A metric with a single sample.
    pub fn single(&mut self, name: &str, kind: Kind, about: &str, value: f64) {
        self.family(name, kind, about);
        self.sample(name, &[], value);
    }

    /// Samples that somebody else has written in this form.
    pub fn raw(&mut self, text: &str) {
        self.0.push_str(text);
    }

    pub fn finish(self) -> String {
        self.0
    }
}
