//! Of which state of the source this program is made.

/// Told by `/version`, by a metric and by `minik version`.
#[derive(Debug, Clone, Copy)]
pub struct BuildInfo {
    /// Forty digits; zeros where it was not built from a checkout.
    pub commit: &'static str,
    /// When that commit was made, as RFC 3339 in UTC.
    pub date: &'static str,
}

impl BuildInfo {
    /// Of a program that was not built from a checkout.
    pub const UNKNOWN: Self =
        Self { commit: "0000000000000000000000000000000000000000", date: "1970-01-01T00:00:00Z" };
}
