//! What goes over the wire: query parameters, accepted forms, request bodies, stored bytes, answers.

mod body;
mod encode;
mod negotiate;
mod page;
mod params;
mod respond;

pub(super) use body::{decode_object, decode_options, read_body};
pub(super) use encode::{attrs, payload};
pub(super) use negotiate::{Accept, Shape, wants_aggregated_discovery};
pub(super) use page::Continue;
pub(super) use params::Params;
pub(super) use respond::{Joined, error, json, partial, raw, value, warn};
