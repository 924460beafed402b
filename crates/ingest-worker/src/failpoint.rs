//! Moments that no test can hit by chance, and rules that a test breaks to see itself fail.
//!
//! Compiled in by the feature `failpoints` only, which the suite's build has and no other: without it
//! every function here is empty, and no environment variable is read. With it:
//!
//! - `FAILPOINTS` names what happens where: `before_commit=abort@3` ends the process when the third batch
//!   is about to commit. `pause` in place of `abort` holds that lane for ever, `pause:500` for 500 ms.
//!   `@1` may be left out; several are separated by commas. `hand_over=lose@2` forgets what a consumer has
//!   received at the second time.
//! - `BROKEN_RULE` names a rule of the worker that it then does not keep.

/// A moment in the life of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// All rows are at the server, COMMIT is not sent: `before_commit`.
    BeforeCommit,
    /// The batch is committed, nothing of it is acknowledged: `before_ack`.
    BeforeAck,
    /// The batch is acknowledged as far as the watermark allows: `after_ack`.
    AfterAck,
    /// Deliveries are received, no lane has them: `hand_over`, where they can be lost and nothing else.
    HandOver,
}

/// A rule that makes the promise hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// What is acknowledged is committed: broken by `ack_before_commit`.
    CommitBeforeAck,
    /// An acknowledgement covers nothing that is unresolved: broken by `ack_past_unresolved`.
    AckUpToWatermark,
    /// Every malformed message becomes a dead letter: broken by `swallow_malformed`.
    KeepMalformed,
}

#[cfg(not(feature = "failpoints"))]
mod imp {
    use super::{Point, Rule};

    /// Nothing happens.
    ///
    /// # Errors
    /// Never.
    pub const fn check() -> Result<(), &'static str> {
        Ok(())
    }

    /// Nothing happens.
    pub async fn reach(_: Point) {}

    /// Nothing is lost.
    pub const fn loses(_: Point) -> bool {
        false
    }

    /// Every rule is kept.
    pub const fn is_broken(_: Rule) -> bool {
        false
    }
}

#[cfg(feature = "failpoints")]
mod imp {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::{Point, Rule};

    #[derive(Debug, PartialEq)]
    enum Action {
        Abort,
        Pause(Option<Duration>),
        Lose,
    }

    #[derive(Debug)]
    struct Failpoint {
        point: Point,
        action: Action,
        /// Happens when it falls to 0.
        hits_left: AtomicU32,
    }

    fn parse(text: &str) -> Option<Vec<Failpoint>> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(parse_one).collect()
    }

    fn parse_one(text: &str) -> Option<Failpoint> {
        let (point, rest) = text.split_once('=')?;
        let (action, hit) = rest.split_once('@').unwrap_or((rest, "1"));
        Some(Failpoint {
            point: match point {
                "before_commit" => Point::BeforeCommit,
                "before_ack" => Point::BeforeAck,
                "after_ack" => Point::AfterAck,
                "hand_over" if action == "lose" => Point::HandOver,
                _ => return None,
            },
            action: match action.split_once(':') {
                None if action == "abort" => Action::Abort,
                None if action == "pause" => Action::Pause(None),
                None if action == "lose" && point == "hand_over" => Action::Lose,
                Some(("pause", millis)) => Action::Pause(Some(Duration::from_millis(millis.parse().ok()?))),
                _ => return None,
            },
            hits_left: AtomicU32::new(hit.parse().ok().filter(|hit| *hit > 0)?),
        })
    }

    fn parse_rule(name: &str) -> Option<Option<Rule>> {
        Some(Some(match name {
            "" => return Some(None),
            "ack_before_commit" => Rule::CommitBeforeAck,
            "ack_past_unresolved" => Rule::AckUpToWatermark,
            "swallow_malformed" => Rule::KeepMalformed,
            _ => return None,
        }))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "no setting of the service: a test's own"
    )]
    fn variable(name: &str) -> String {
        std::env::var(name).unwrap_or_default()
    }

    fn points() -> Option<&'static [Failpoint]> {
        static POINTS: OnceLock<Option<Vec<Failpoint>>> = OnceLock::new();
        POINTS.get_or_init(|| parse(&variable("FAILPOINTS"))).as_deref()
    }

    fn broken_rule() -> Option<Option<Rule>> {
        static RULE: OnceLock<Option<Option<Rule>>> = OnceLock::new();
        *RULE.get_or_init(|| parse_rule(&variable("BROKEN_RULE")))
    }

    /// Checks the environment.
    ///
    /// # Errors
    /// If a variable holds what is none of the above: the test would prove nothing.
    pub fn check() -> Result<(), &'static str> {
        points().ok_or("FAILPOINTS is not valid")?;
        broken_rule().ok_or("BROKEN_RULE is not valid")?;
        Ok(())
    }

    /// What happens at this moment.
    fn due(point: Point) -> impl Iterator<Item = &'static Action> {
        let here = points()
            .unwrap_or_default()
            .iter()
            .filter(move |f| f.point == point);
        here.filter_map(move |failpoint| {
            let hits_left = failpoint
                .hits_left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |hits| hits.checked_sub(1));
            if hits_left != Ok(1) {
                return None;
            }
            tracing::warn!(?point, action = ?failpoint.action, "failpoint reached");
            Some(&failpoint.action)
        })
    }

    /// Does what is asked for at this moment.
    pub async fn reach(point: Point) {
        for action in due(point) {
            match action {
                Action::Abort => std::process::abort(),
                Action::Pause(None) => std::future::pending().await,
                Action::Pause(Some(time)) => tokio::time::sleep(*time).await,
                Action::Lose => {}
            }
        }
    }

    /// Whether what is at hand at this moment is to be lost.
    pub fn loses(point: Point) -> bool {
        due(point).any(|action| *action == Action::Lose)
    }

    /// Whether this rule is to be broken.
    pub fn is_broken(rule: Rule) -> bool {
        broken_rule() == Some(Some(rule))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn reads_points_with_action_and_hit() {
            let points =
                parse("before_commit=abort@3, before_ack=pause,after_ack=pause:20,hand_over=lose@2").unwrap();
            let read: Vec<_> = points
                .iter()
                .map(|f| (f.point, &f.action, f.hits_left.load(Ordering::Relaxed)))
                .collect();
            let soon = Action::Pause(Some(Duration::from_millis(20)));
            assert_eq!(
                read,
                [
                    (Point::BeforeCommit, &Action::Abort, 3),
                    (Point::BeforeAck, &Action::Pause(None), 1),
                    (Point::AfterAck, &soon, 1),
                    (Point::HandOver, &Action::Lose, 2)
                ]
            );
            for text in [
                "before_commit",
                "never=abort",
                "before_ack=jump",
                "before_ack=abort@0",
                "before_ack=lose",
                "hand_over=abort",
            ] {
                assert!(parse(text).is_none(), "{text}");
            }
        }
    }
}

pub use imp::{check, is_broken, loses, reach};
