//! Which build this is.

use std::sync::LazyLock;

/// The version with the commit that it was built from, as in `0.1.0 (commit 1a2b3c4)`. The commit is what
/// `BUILD_COMMIT` was in the build's environment: images have one, a build by hand has `unknown`.
#[must_use]
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let commit = option_env!("BUILD_COMMIT").filter(|commit| !commit.is_empty());
        format!(
            "{} (commit {})",
            env!("CARGO_PKG_VERSION"),
            commit.unwrap_or("unknown")
        )
    });
    &TEXT
}
