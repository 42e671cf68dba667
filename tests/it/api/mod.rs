//! The API as real clients see it.

mod kubectl;
mod kubectl_create;
