//! The container runtime's edge: containerd over the CRI socket.
