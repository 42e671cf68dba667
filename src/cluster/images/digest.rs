//! SHA-256 as images write it.

/// Takes a digest piece by piece.
pub struct Hasher(ring::digest::Context);

impl Hasher {
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// `sha256:<hex>`.
    pub fn digest(self) -> String {
        format!("sha256:{}", hex::encode(self.0.finish()))
    }

    /// The digest of a whole text.
    pub fn of(content: &[u8]) -> String {
        let mut hasher = Self::new();
        hasher.update(content);
        hasher.digest()
    }
}
