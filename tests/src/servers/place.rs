//! Where the private servers keep their data.
//!
//! In the git-ignored `.local` of the clone. Only PostgreSQL as root goes elsewhere: it refuses to run as
//! root, and its own user can't enter a clone below a home directory that is closed to others.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The system user that Debian's packages make for PostgreSQL.
pub(super) const POSTGRES_USER: &str = "postgres";

/// The root of the clone that this harness was built from.
pub fn clone_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Whether we are root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The folder of an instance, in the clone.
pub fn folder(instance: &str) -> Result<PathBuf> {
    let path = clone_root().join(".local").join(instance);
    fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// The folder of a PostgreSQL instance: one that PostgreSQL's user can write to.
pub(super) fn postgres_folder(instance: &str) -> Result<PathBuf> {
    if !is_root() {
        return folder(instance);
    }
    let shared = outside_of_the_clone();
    fs::create_dir_all(&shared).with_context(|| format!("making {}", shared.display()))?;
    // Anyone can make a folder of this name first; we don't put data into somebody else's.
    if fs::symlink_metadata(&shared).is_ok_and(|m| !m.is_dir() || m.uid() != 0) {
        bail!("{} is not a folder of root's: remove it", shared.display());
    }
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755))?;
    let path = shared.join(instance);
    fs::create_dir_all(&path)?;
    let user = nix::unistd::User::from_name(POSTGRES_USER)?
        .with_context(|| format!("no user {POSTGRES_USER}: is PostgreSQL installed?"))?;
    std::os::unix::fs::chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    Ok(path)
}

/// Puts a disk of so many MiB, in memory, where a folder is.
pub(super) fn mount_small_disk(folder: &Path, mebibytes: u32) -> Result<()> {
    let size = format!("size={mebibytes}m");
    run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs"], folder)
}

/// Removes an instance's folder, with the disk that it may have of its own.
pub(super) fn remove(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let here = folder.to_string_lossy();
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(&*here)) {
        run("umount", &["--lazy"], folder)?;
    }
    fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<()> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .arg(folder)
        .output()?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            folder.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// The folder of this instance, if it has one.
pub(super) fn existing(instance: &str) -> Option<PathBuf> {
    all_folders()
        .into_iter()
        .find(|folder| folder.file_name().is_some_and(|name| name == instance))
}

/// Every instance folder there is, running or not.
pub(super) fn all_folders() -> Vec<PathBuf> {
    let outside = is_root().then(outside_of_the_clone);
    [Some(clone_root().join(".local")), outside]
        .iter()
        .flatten()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect()
}

fn outside_of_the_clone() -> PathBuf {
    let clone = clone_root();
    Path::new("/var/tmp").join(format!(
        "usage-analytics-{:016x}",
        fnv1a(clone.as_os_str().as_encoded_bytes())
    ))
}

/// FNV-1a: the same for the same path in every build, which the standard hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
