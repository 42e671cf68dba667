//! The API as real clients see it.

mod custom_resources;
mod kubectl;
mod kubectl_apply;
mod kubectl_create;
