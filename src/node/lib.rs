//! What every node runs: kubelet, the runtime's and the network plugin's edges, service proxy, DNS.

pub mod cni;
pub mod cri;
pub mod csi;
pub mod dns;
pub mod faults;
pub mod images;
pub mod kubelet;
pub mod network;
pub mod policy;
pub mod prove;
pub mod proxy;
pub mod routes;
