//! Certificates: the cluster authority, what it signs, and checking it by hash.
