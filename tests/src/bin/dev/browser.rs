//! Whether the dashboard can be tested in a browser here.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::progress;
use e2e::servers::place;

/// Debian's and Ubuntu's.
const BROWSERS: [&str; 2] = ["/usr/bin/chromium", "/usr/bin/chromium-browser"];
const NODE_MIN: u32 = 20;

/// The browser, or what is missing.
pub(crate) fn to_test_with() -> Result<PathBuf, &'static str> {
    let node = Command::new("node").arg("--version").output().ok();
    let major = node.and_then(|said| {
        let version = String::from_utf8(said.stdout).ok()?;
        version
            .trim_start_matches('v')
            .split('.')
            .next()?
            .parse::<u32>()
            .ok()
    });
    if major.is_none_or(|major| major < NODE_MIN) {
        return Err("Node 20 or newer");
    }
    let web = place::clone_root().join("web");
    if !web.join("node_modules/playwright-core").exists() || !web.join("dist/index.html").exists() {
        return Err("the built page (make web)");
    }
    let browser = BROWSERS.iter().map(Path::new).find(|path| path.exists());
    browser.map(Path::to_owned).ok_or("chromium")
}

/// Said before and after the tests: a page that was not looked at must not be overlooked.
pub(crate) fn say(browser: Result<&PathBuf, &&'static str>) {
    match browser {
        Ok(browser) => progress::say(format_args!("the dashboard is tested in {}", browser.display())),
        Err(missing) => {
            let line = format!("## NOT TESTED: the dashboard in a browser, as there is no {missing} ##");
            let frame = "#".repeat(line.len());
            progress::say(format_args!("{frame}"));
            progress::say(format_args!("{line}"));
            progress::say(format_args!("{frame}"));
        }
    }
}
