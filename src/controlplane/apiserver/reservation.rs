//! What a write holds of things that there are only so many of (addresses, ports, quota) until its commit has an outcome.

use storage::Turn;

/// Something held for one write. Dropped, it is given back.
pub trait Reservation: Send {
    /// The turn that the write must be made in.
    fn turn(&self) -> Option<Turn> {
        None
    }
    /// The write is durable: what was held now belongs to what is stored.
    fn commit(self: Box<Self>);
}

/// Everything held for one write, settled together: by [`Reservations::commit`] once the write is durable, and given back when
/// dropped without.
#[derive(Default)]
#[must_use = "dropping it gives back what was reserved"]
pub struct Reservations(Vec<Box<dyn Reservation>>);

impl Reservations {
    pub fn add(&mut self, reservation: impl Reservation + 'static) {
        self.0.push(Box::new(reservation));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The turn that the write must be made in: it counts.
    pub fn turn(&self) -> Option<Turn> {
        self.0.iter().find_map(|reservation| reservation.turn())
    }

    /// The write is durable.
    pub fn commit(self) {
        self.0.into_iter().for_each(|reservation| reservation.commit());
    }
}
