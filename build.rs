//! Compiles the trimmed definitions of the CRI and of containerd's own API without `protoc`: protox parses it, tonic generates the clients.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["src/node/cri/api.proto", "src/node/cri/content.proto"].map(Path::new);
    for proto in protos {
        println!("cargo:rerun-if-changed={}", proto.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    let files = protox::compile(protos, ["src/node/cri"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
