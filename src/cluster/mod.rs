//! A cluster on Docker: specification -> plan (pure) -> steps. `docker.rs` alone names bollard.
