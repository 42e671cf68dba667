//! The node's network as one thing: one set of watches feeds service proxy, DNS, routes and load balancer
//! addresses, and the node is Ready only when a name and a Service have been reached through them.
//!
//! ```text
//! prepare (sysctls, DNS address) --> watch --both lists here--> rules applied --name + connection--> proven
//! ```

mod informers;
mod model;
mod prove;
mod start;
mod view;

pub use informers::{Feed, Source, feed};
pub use model::{Endpoint, Kind, Node, Port, Protocol, Service, ServiceKey, Slice, SlicePort};
pub use prove::prove;
pub use start::{Error, Handles, Options, run};
pub use view::{Change, View};
