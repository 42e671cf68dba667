//! What goes over the wire: query parameters, media types, request bodies, stored bytes, and the one encoder of answers.

mod body;
mod encode;
mod encoder;
pub mod gzip;
mod joined;
mod negotiate;
mod page;
mod params;
pub mod pretty;
mod respond;

pub(super) use body::{LIMIT, check_type, decode_object, decode_options, parse, read_body};
pub(super) use encode::{attrs, payload};
pub(super) use encoder::{Encoder, FRAME};
pub(super) use negotiate::{Format, MediaType, Offer, Shape, wants_aggregated_discovery};
pub(super) use page::Continue;
pub(super) use params::Params;
pub(super) use respond::{error, json, raw, value, warn};
