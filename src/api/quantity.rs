//! Amounts with units, as `resource.Quantity`: `100m`, `1.5`, `2Gi`, `1e3`.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

use serde_json::Value;

/// How an amount is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `k`, `M`, `m`.
    Decimal,
    /// `Ki`, `Mi`.
    Binary,
    /// `e3`.
    Exponent,
}

/// An exact amount; the smallest unit is 10⁻⁹. Finer fractions are rounded away from zero, as upstream does.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

const NANO: i128 = 1_000_000_000;
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// Rounds `n / d` away from zero.
fn divide(n: i128, d: i128) -> i128 {
    n / d + if n % d == 0 { 0 } else { n.signum() }
}

fn unit(suffix: &str) -> Option<(Format, i128, i32)> {
    if let Some(at) = BINARY.iter().position(|b| *b == suffix) {
        return Some((Format::Binary, 1 << (10 * (at + 1)), 0));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(d, _)| *d == suffix) {
        return Some((Format::Decimal, 1, *power));
    }
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-40..=40).contains(&power).then_some((Format::Exponent, 1, power))
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError);
        }
        let (format, factor, power) = unit(suffix).ok_or(QuantityError)?;
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        if digits.len() > 30 {
            return Err(QuantityError);
        }
        let mantissa: i128 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| QuantityError)? };
        let scale = power + 9 - i32::try_from(fraction.len()).map_err(|_| QuantityError)?;
        let scaled = mantissa.checked_mul(factor).ok_or(QuantityError)?;
        let nano = match scale {
            0.. => {
                let by = 10i128.checked_pow(scale.unsigned_abs());
                by.and_then(|by| scaled.checked_mul(by)).unwrap_or(if scaled == 0 { 0 } else { i128::MAX })
            }
            _ => 10i128.checked_pow(scale.unsigned_abs()).map_or(scaled.signum(), |by| divide(scaled, by)),
        };
        // Amounts are capped at the largest 64-bit integer, as upstream.
        let nano = nano.min(i128::from(i64::MAX) * NANO);
        Ok(Self { nano: if negative { -nano } else { nano }, format })
    }
}

impl Quantity {
    pub const ZERO: Self = Self { nano: 0, format: Format::Decimal };

    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        text.parse()
    }

    /// A string, or a number as manifests may write it.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError),
        }
    }

    pub fn from_units(units: i64) -> Self {
        Self { nano: i128::from(units) * NANO, format: Format::Decimal }
    }

    pub fn from_milli(milli: i64) -> Self {
        Self { nano: i128::from(milli) * (NANO / 1000), format: Format::Decimal }
    }

    /// An amount of bytes, written with binary units.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nano: i128::from(bytes) * NANO, format: Format::Binary }
    }

    /// Whole units, rounded away from zero.
    pub fn value(&self) -> i64 {
        clamp(divide(self.nano, NANO))
    }

    /// Thousandths, rounded away from zero.
    pub fn milli(&self) -> i64 {
        clamp(divide(self.nano, NANO / 1000))
    }

    /// As a float, which may not say it exactly.
    pub fn approximate(&self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        i32::try_from(self.nano.signum()).unwrap_or(0)
    }

    /// No fraction of a unit.
    pub fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// The canonical form: the largest unit that leaves no fraction.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::Binary && self.is_whole() && self.nano.abs() >= 1024 * NANO;
        if binary {
            let mut value = self.nano / NANO;
            let mut at = 0;
            while at < BINARY.len() && value % 1024 == 0 {
                value /= 1024;
                at += 1;
            }
            return write!(f, "{value}{}", if at == 0 { "" } else { BINARY[at - 1] });
        }
        let (mut value, mut at) = (self.nano, 0);
        while at + 1 < DECIMAL.len() && value % 1000 == 0 {
            value /= 1000;
            at += 1;
        }
        match (self.format, DECIMAL[at]) {
            (Format::Exponent, (_, 0)) => write!(f, "{value}"),
            (Format::Exponent, (_, power)) => write!(f, "{value}e{power}"),
            (_, (suffix, _)) => write!(f, "{value}{suffix}"),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The left side's way of writing wins, unless it is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: self.nano + other.nano, format }
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nano: -self.nano, format: self.format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, expect) in [
            ("0", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("512", "512"),
            ("1000", "1k"),
            ("1500k", "1500k"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1E", "1E"),
            ("-2Ki", "-2Ki"),
            ("0.5Ki", "512"),
            ("1.1n", "2n"),
            (".5", "500m"),
            ("8Ei", "9223372036854775807"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), expect, "{text}");
        }
        for bad in ["", "a", "1.2.3", "1Kb", "m", "1 Gi", "--1"] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arithmetic() {
        let q = |t: &str| Quantity::parse(t).unwrap();
        assert_eq!((q("100m") + q("0.9")).to_string(), "1");
        assert_eq!((q("1Gi") - q("512Mi")).to_string(), "512Mi");
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("100m").milli(), 100);
        assert_eq!(q("1.0001").value(), 2);
        assert_eq!([q("1"), q("2")].into_iter().sum::<Quantity>().value(), 3);
    }
}
