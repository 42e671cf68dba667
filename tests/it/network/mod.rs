//! The node's network: rules traced packet by packet, the same rules in a real kernel, and DNS.

mod edge;
mod names;
mod namespaces;
mod nft;
mod objects;
mod policies;
mod random;
mod real;
mod rules;
mod served;
mod tracer;
mod whole;
