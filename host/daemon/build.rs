//! Tells the host which target it is built for: a plugin for another one is refused.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").expect("cargo sets TARGET for build scripts");
    println!("cargo::rustc-env=HOTMERGE_TARGET={target}");
}
