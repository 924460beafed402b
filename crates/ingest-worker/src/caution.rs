//! How much a generation may hold, after others died over what they held.
//!
//! A message that the client cannot decode (a header that is not UTF-8) ends the connection, and with it
//! everything that was delivered beside it: the broker counts one delivery more for each of them, and gives
//! up on whatever exceeds the queue's delivery limit. Good messages must not pay for their neighbour. So
//! after three generations without one commit only one message is taken at a time, then four, sixteen and
//! so on after each generation that committed and ended in order.
//!
//! A quorum queue puts what comes back behind everything else that came back: the offender and what was
//! delivered after it stay together, and meet again. So a narrow generation that dies lowers the *ceiling* of
//! the next ones below its own window. In the end the offender dies alone, until the broker gives up on it.

/// Generations in a row that died without a commit before the next one is narrow.
const FRUITLESS: u32 = 3;
/// What a narrow window grows by.
const GROWTH: u32 = 4;

/// What the next generation may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// As configured.
    Full,
    /// So many deliveries on one consumer; it ends after its first commit.
    Narrow(u16),
}

/// Generations that commit at the ceiling before it is lifted.
const PATIENCE: u32 = 8;

/// Decides it.
#[derive(Debug)]
pub struct Caution {
    window: Window,
    /// No narrow window is wider.
    ceiling: u32,
    /// Generations that have committed at the ceiling.
    at_ceiling: u32,
    fruitless: u32,
    full: u32,
}

impl Caution {
    /// `full` deliveries are what a generation holds as configured.
    pub fn new(full: u32) -> Self {
        Self {
            window: Window::Full,
            ceiling: full,
            at_ceiling: 0,
            fruitless: 0,
            full,
        }
    }

    /// For the next generation.
    pub fn window(&self) -> Window {
        self.window
    }

    /// A generation died, or had to be ended: what it held was delivered in vain.
    pub fn died(&mut self, committed: bool) {
        self.fruitless = if committed { 0 } else { self.fruitless + 1 };
        match self.window {
            Window::Full if self.fruitless < FRUITLESS => {}
            Window::Full => self.window = Window::Narrow(1),
            Window::Narrow(window) => {
                self.ceiling = (u32::from(window) / GROWTH).max(1);
                self.at_ceiling = 0;
                self.window = Window::Narrow(1);
            }
        }
    }

    /// What is delivered was delivered before this process began: an earlier one may have died of it.
    pub fn distrust(&mut self) {
        self.window = Window::Narrow(1);
    }

    /// What was held could not be stored: the next generation takes one message and sees.
    pub fn gave_back(&mut self) {
        self.window = Window::Narrow(1);
    }

    /// A narrow generation committed and ended in order.
    pub fn committed_in_order(&mut self) {
        let Window::Narrow(window) = self.window else {
            return;
        };
        let window = u32::from(window);
        if window >= self.ceiling {
            self.at_ceiling += 1;
            if self.at_ceiling >= PATIENCE {
                self.ceiling = (self.ceiling * GROWTH).min(self.full);
                self.at_ceiling = 0;
            }
        }
        let wider = (window * GROWTH).min(self.ceiling);
        self.window = match u16::try_from(wider) {
            Ok(wider) if u32::from(wider) < self.full => Window::Narrow(wider),
            _ => {
                self.fruitless = 0;
                Window::Full
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const FULL: u32 = 20_000;
    const LIMIT: u32 = 100;

    struct Message {
        poison: bool,
        failed: u32,
    }

    /// A quorum queue: what a dead connection held comes back behind whatever came back before, one delivery
    /// older, is delivered before the rest, and is given up on after more than `LIMIT` of them.
    #[derive(Default)]
    struct Queue {
        returned: VecDeque<Message>,
        ready: VecDeque<Message>,
        given_up: usize,
        worst: u32,
    }

    impl Queue {
        fn deliver(&mut self, most: usize) -> Vec<Message> {
            let first = self
                .returned
                .drain(..most.min(self.returned.len()))
                .collect::<Vec<_>>();
            let more = self.ready.drain(..(most - first.len()).min(self.ready.len()));
            first.into_iter().chain(more).collect()
        }

        fn take_back(&mut self, held: Vec<Message>) {
            for mut message in held {
                message.failed += 1;
                if !message.poison {
                    self.worst = self.worst.max(message.failed);
                }
                if message.failed > LIMIT {
                    self.given_up += 1;
                } else {
                    self.returned.push_back(message);
                }
            }
        }

        /// Runs generations until it is empty.
        fn consume(&mut self) {
            let (mut caution, mut generations) = (Caution::new(FULL), 0);
            while !(self.returned.is_empty() && self.ready.is_empty()) {
                generations += 1;
                assert!(generations < 10_000, "it never ends");
                let window = match caution.window() {
                    Window::Full => 20_000,
                    Window::Narrow(window) => usize::from(window),
                };
                // What is acknowledged makes room for as much again before the consumer is cancelled.
                let mut committed = false;
                let died = (0..2).any(|_| {
                    let held = self.deliver(window);
                    let dies = held.iter().any(|message| message.poison);
                    if dies {
                        self.take_back(held);
                    } else {
                        committed = true;
                    }
                    dies
                });
                if died {
                    caution.died(committed);
                } else {
                    caution.committed_in_order();
                }
            }
        }
    }

    #[test]
    fn it_narrows_after_three_fruitless_generations_and_grows_again() {
        let mut caution = Caution::new(1_000);
        caution.died(false);
        caution.died(true);
        caution.died(false);
        caution.died(false);
        assert_eq!(caution.window(), Window::Full);
        caution.died(false);
        let mut windows = vec![caution.window()];
        for _ in 0..5 {
            caution.committed_in_order();
            windows.push(caution.window());
        }
        let narrow = [1, 4, 16, 64, 256].map(Window::Narrow);
        assert_eq!(windows, [narrow.as_slice(), &[Window::Full]].concat());
        caution.gave_back();
        caution.committed_in_order();
        caution.died(true);
        assert_eq!(caution.window(), Window::Narrow(1));
        // Not as far as it was when it died, for a while.
        let windows: Vec<_> = (0..10)
            .map(|_| {
                caution.committed_in_order();
                caution.window()
            })
            .collect();
        assert_eq!(windows[..7], [1; 7].map(Window::Narrow));
        assert_eq!(windows[7..9], [4; 2].map(Window::Narrow));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The broker gives up on the poison and on nothing else.
        #[test]
        fn neighbours_of_poison_survive(
            total in 1_usize..30_000,
            poison in prop::collection::btree_set(0_usize..30_000, 1..6),
        ) {
            let mut queue = Queue {
                ready: (0..total)
                    .map(|number| Message { poison: poison.contains(&number), failed: 0 })
                    .collect(),
                ..Queue::default()
            };
            queue.consume();
            prop_assert_eq!(queue.given_up, poison.iter().filter(|number| **number < total).count());
            prop_assert!(queue.worst <= LIMIT / 3, "a good message lost {} deliveries", queue.worst);
        }
    }
}
