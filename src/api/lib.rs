//! The object model: what a Kubernetes object is, before anybody stores or serves it.
//!
//! Objects are `serde_json::Value`s whose shape comes from one schema table. Everything here is a function
//! over data: decode (JSON or protobuf) and prune, default, validate, patch, select, render as a table,
//! describe as OpenAPI; and the table of resources, which says for each kind which of these apply and how.

pub mod cel;
pub mod cron;
pub mod fields;
pub mod flow_control;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod policy;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod resources;
pub mod schema;
pub mod selector;
pub mod status;
pub mod structural;
pub mod table;
pub mod validate;
