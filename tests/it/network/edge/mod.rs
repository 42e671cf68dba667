//! The proxy on real sockets: other people's clients on one side, servers on the other.

mod gateway;
mod ingress;
mod routing;
mod stage;
