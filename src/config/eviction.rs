//! How little of something a node may have left before it takes room back from Pods, as `eviction-hard` says it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a node watches, by upstream's names; in the order in which it is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Signal {
    #[serde(rename = "memory.available")]
    Memory,
    #[serde(rename = "nodefs.available")]
    Disk,
    #[serde(rename = "nodefs.inodesFree")]
    Inodes,
    #[serde(rename = "pid.available")]
    Processes,
}

impl Signal {
    pub const ALL: [Self; 4] = [Self::Memory, Self::Disk, Self::Inodes, Self::Processes];

    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory.available",
            Self::Disk => "nodefs.available",
            Self::Inodes => "nodefs.inodesFree",
            Self::Processes => "pid.available",
        }
    }
}

/// The least that must be left: a number of bytes or things, or thousandths of all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Least {
    Amount(u64),
    Permille(u32),
}

impl Least {
    /// As an amount, of `capacity`.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Permille(part) => {
                u64::try_from(u128::from(capacity) * u128::from(part) / 1000).unwrap_or(capacity)
            }
        }
    }
}

/// By what is watched; what is absent is not.
pub type Thresholds = BTreeMap<Signal, Least>;

/// Without a word: upstream's amount of memory. The disk is the host's, so that Pods go only when next to nothing is left
/// of it, and so are the process ids.
pub fn usual() -> Thresholds {
    BTreeMap::from([
        (Signal::Memory, Least::Amount(100 << 20)),
        (Signal::Disk, Least::Amount(64 << 20)),
        (Signal::Inodes, Least::Amount(4096)),
        (Signal::Processes, Least::Permille(100)),
    ])
}

/// Reads `memory.available<100Mi,nodefs.available<10%`.
///
/// # Errors
///
/// Says what is not understood.
pub fn parse(text: &str) -> Result<Thresholds, String> {
    let mut all = Thresholds::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, least) =
            part.split_once('<').ok_or_else(|| format!("{part:?} is not of the form SIGNAL<AMOUNT"))?;
        let signal = Signal::ALL.into_iter().find(|signal| signal.name() == name).ok_or_else(|| {
            let names = Signal::ALL.map(Signal::name).join(", ");
            format!("a node of minik does not watch {name:?}; there are {names} (images lie on nodefs, too)")
        })?;
        let least =
            amount(least).ok_or_else(|| format!("{name} is {least:?}: an amount or a part is expected"))?;
        if all.insert(signal, least).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    Ok(all)
}

fn amount(text: &str) -> Option<Least> {
    const UNITS: [(&str, f64); 8] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
    ];
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    if let Some(percent) = text.strip_suffix('%') {
        let percent = number(percent).filter(|percent| *percent < 100.0)?;
        return Some(Least::Permille((percent * 10.0) as u32)).filter(|least| *least != Least::Permille(0));
    }
    let unit = UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)));
    let (digits, scale) = unit.unwrap_or((text, 1.0));
    Some(Least::Amount((number(digits)? * scale) as u64)).filter(|least| *least != Least::Amount(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_written_as_upstream_does() {
        let read = parse("memory.available<100Mi, nodefs.available<12.5%,pid.available<1k").expect("read");
        assert_eq!(read.get(&Signal::Memory), Some(&Least::Amount(100 << 20)));
        assert_eq!(read.get(&Signal::Disk).map(|least| least.of(8000)), Some(1000));
        assert_eq!(read.get(&Signal::Processes), Some(&Least::Amount(1000)));
        assert_eq!(read.get(&Signal::Inodes), None, "what is not named is not watched");
        for wrong in ["memory.available", "memory.available<0", "nodefs.available<100%", "nodefs.available<x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("imagefs.available<5%").expect_err("not watched").contains("nodefs"));
        assert!(parse("pid.available<5,pid.available<6").is_err());
        let kept: Thresholds =
            serde_json::from_value(serde_json::to_value(&read).expect("written")).expect("read again");
        assert_eq!(kept, read);
    }
}
