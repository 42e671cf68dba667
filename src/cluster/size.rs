//! Sizes of nodes, written as people and Kubernetes write them: `2g`, `512Mi`, `1.5`, `500m`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::spec::SpecError;

/// An amount of memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Memory(pub u64);

impl Memory {
    /// containerd, the agent and the runtime's processes do not fit into less.
    const LEAST: u64 = 128 << 20;
}

impl FromStr for Memory {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = |why: &str| SpecError::Size(format!("invalid memory {text:?}: {why}"));
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "ki" | "kib" => 10,
            "m" | "mb" | "mi" | "mib" => 20,
            "g" | "gb" | "gi" | "gib" => 30,
            _ => return Err(wrong("a number with Ki, Mi or Gi is expected, for example 2Gi")),
        };
        let number: u64 =
            digits.parse().map_err(|_| wrong("a number with Ki, Mi or Gi is expected, for example 2Gi"))?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(|| wrong("it is too large"))?;
        if bytes < Self::LEAST {
            return Err(wrong("a node needs at least 128Mi"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("Gi", 30), ("Mi", 20), ("Ki", 10)];
        match units.iter().find(|(_, shift)| self.0.trailing_zeros() >= *shift) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Processor time in thousandths of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cpus(pub u32);

impl FromStr for Cpus {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = || {
            SpecError::Size(format!(
                "invalid number of CPUs {text:?}: at least 0.1 is expected, for example 2, 1.5 or 500m"
            ))
        };
        let milli = match text.strip_suffix('m') {
            Some(milli) => milli.parse::<u32>().map_err(|_| wrong())?,
            None => {
                let (whole, part) = text.split_once('.').unwrap_or((text, ""));
                if part.len() > 3 {
                    return Err(wrong());
                }
                let whole: u32 = whole.parse().map_err(|_| wrong())?;
                let part: u32 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
                whole.checked_mul(1000).and_then(|milli| milli.checked_add(part)).ok_or_else(wrong)?
            }
        };
        if milli < 100 { Err(wrong()) } else { Ok(Self(milli)) }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{}", self.0 / 1000),
            _ => write!(f, "{}m", self.0),
        }
    }
}

/// Both travel as text, as people write them.
macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = SpecError;

            fn try_from(text: String) -> Result<Self, SpecError> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> Self {
                value.to_string()
            }
        }
    )*};
}
as_text!(Memory, Cpus);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_and_written() {
        let check = |text: &str, bytes: u64, shown: &str| {
            let memory: Memory = text.parse().expect(text);
            assert_eq!((memory.0, memory.to_string().as_str()), (bytes, shown), "{text}");
        };
        check("2Gi", 2 << 30, "2Gi");
        check("2g", 2 << 30, "2Gi");
        check("1536m", 1536 << 20, "1536Mi");
        check("512MB", 512 << 20, "512Mi");
        check("268435457", 268_435_457, "268435457");
        for bad in ["", "2x", "64Mi", "-1", "1.5Gi", "99999999999Gi", "Gi"] {
            assert!(bad.parse::<Memory>().is_err(), "{bad}");
        }
    }

    #[test]
    fn processors_are_read_and_written() {
        let check = |text: &str, milli: u32, shown: &str| {
            let cpus: Cpus = text.parse().expect(text);
            assert_eq!((cpus.0, cpus.to_string().as_str()), (milli, shown), "{text}");
        };
        check("2", 2000, "2");
        check("1.5", 1500, "1500m");
        check("0.25", 250, "250m");
        check("500m", 500, "500m");
        for bad in ["", "0", "0.05", "50m", "x", "-1", "1.2345", "1.x"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
    }
}
