//! The API as real clients see it.

mod custom_resources;
mod custom_rules;
mod kubectl;
mod kubectl_apply;
mod kubectl_create;
mod policies;
mod served;
