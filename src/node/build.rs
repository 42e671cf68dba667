//! Compiles the trimmed definitions of the CRI, of containerd's own API and of the CSI without `protoc`: protox parses them, tonic
//! generates the clients.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let protos = ["cri/api.proto", "cri/content.proto", "csi/csi.proto", "csi/registration.proto"];
    for file in protos.iter().chain(&["build.rs"]) {
        println!("cargo:rerun-if-changed={file}");
    }
    let files = protox::compile(protos, ["cri", "csi"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
