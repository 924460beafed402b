//! Embeds the dashboard again when it was built again.

fn main() {
    // The folder is in the repository, so that a build without Node finds one, and an empty one.
    println!("cargo::rerun-if-changed=../../web/dist");
}
