//! LoadBalancer addresses: which node answers for which external IP.
