//! Compiles `announcement.proto` to Rust, without `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["announcement.proto"], ["proto"])?;
    prost_build::compile_fds(files)?;
    Ok(())
}
