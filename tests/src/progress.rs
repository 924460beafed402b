//! What the harness says while it works. Everything goes to stderr, so that a command's answer on stdout
//! can be piped.

use std::fmt::Display;
use std::io::Write;
use std::time::Instant;

/// Says one line.
pub fn say(line: impl Display) {
    // A closed stderr is no reason to stop a test run.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A long step: says what begins, and how long it took once it is over.
#[derive(Debug)]
pub struct Step {
    what: String,
    began: Instant,
}

impl Step {
    /// Says that `what` begins.
    pub fn begin(what: impl Into<String>) -> Self {
        let what = what.into();
        say(format_args!("{what} …"));
        Self {
            what,
            began: Instant::now(),
        }
    }

    /// Says that it is over, and how long it took.
    pub fn done(self, outcome: impl Display) {
        say(format_args!(
            "{}: {outcome} in {:.1} s",
            self.what,
            self.began.elapsed().as_secs_f64()
        ));
    }
}
