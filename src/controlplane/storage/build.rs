//! Compiles the trimmed definition of etcd's API without `protoc`: protox parses it, tonic generates the clients.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = "log/etcd/rpc.proto";
    for file in [proto, "build.rs"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let files = protox::compile([proto], ["log/etcd"])?;
    tonic_prost_build::configure().build_server(false).bytes(".etcdserverpb").compile_fds(files)?;
    Ok(())
}
