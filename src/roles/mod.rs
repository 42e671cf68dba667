//! What runs inside a container: the composition roots, one file per role.
