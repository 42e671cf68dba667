//! Compiles the trimmed CRI definition without `protoc`: protox parses it, tonic generates the clients.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = Path::new("src/node/cri/api.proto");
    println!("cargo:rerun-if-changed={}", proto.display());
    println!("cargo:rerun-if-changed=build.rs");
    let files = protox::compile([proto], ["src/node/cri"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
