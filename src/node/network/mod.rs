//! What the node knows of Services, endpoints and nodes: one set of watches feeds one view, and everything on the node
//! that needs to know reads that.

mod announced;
mod informers;
mod journal;
mod model;
mod view;

pub use announced::{announced, announced_fronts};
pub use informers::{Feed, Source, feed};
pub use journal::Changed;
pub use model::{Endpoint, Kind, Node, Port, Protocol, Service, ServiceKey, Slice, SlicePort};
pub use view::{Change, View};
