//! The control plane. Only `apiserver` imports `storage`; controllers and scheduler are clients of the API.

pub mod apiserver;
pub mod controllers;
pub mod scheduler;
pub mod storage;
