//! Clients of the API server, built from certificates, tokens or the router itself.
