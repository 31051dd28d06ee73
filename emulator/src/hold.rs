//! Gates that keep the answers for a secret back until a test opens them.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

/// When a held call reads the value that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// When it arrives: the answer is old by the time it is sent.
    AtArrival,
    /// When it is released.
    AtRelease,
}

pub(crate) struct Gate {
    pub(crate) reads: Reads,
    passes: Semaphore,
    waiting: watch::Sender<usize>,
}

impl Gate {
    /// Counts as waiting from now on, also while another gate is waited for.
    fn enter(&self) -> Waiting<'_> {
        Waiting::enter(&self.waiting)
    }

    async fn pass(&self) {
        if let Ok(pass) = self.passes.acquire().await {
            pass.forget();
        }
    }
}

/// Waits at all of the gates at once, and goes on when the last one has opened.
pub(crate) async fn pass_all(gates: &[Arc<Gate>]) {
    let _waiting: Vec<_> = gates.iter().map(|gate| gate.enter()).collect();
    for gate in gates {
        gate.pass().await;
    }
}

/// Counts a call as held until it goes on or its caller gives up.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn enter(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// A closed gate in front of one secret; opens when released or dropped.
#[must_use = "the gate opens when this is dropped"]
pub struct Hold {
    gate: Arc<Gate>,
}

impl Hold {
    /// How many calls wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        *self.gate.waiting.borrow()
    }

    /// Waits until at least so many calls wait.
    pub async fn until_waiting(&self, count: usize) {
        let mut waiting = self.gate.waiting.subscribe();
        // The gate that sends is held by self, so that the channel is open.
        let _ = waiting.wait_for(|n| *n >= count).await;
    }

    /// Lets one call go on, the longest waiting one.
    pub fn release_one(&self) {
        self.gate.passes.add_permits(1);
    }

    /// Opens the gate for good.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.passes.close();
    }
}

#[derive(Default)]
pub(crate) struct Holds {
    gates: HashMap<String, Arc<Gate>>,
}

impl Holds {
    /// Closes a gate; one that was there before opens.
    pub(crate) fn close(&mut self, name: &str, reads: Reads) -> Hold {
        let gate = Arc::new(Gate {
            reads,
            passes: Semaphore::new(0),
            waiting: watch::channel(0).0,
        });
        if let Some(old) = self.gates.insert(name.to_owned(), Arc::clone(&gate)) {
            old.passes.close();
        }
        Hold { gate }
    }

    pub(crate) fn gate(&mut self, name: &str) -> Option<Arc<Gate>> {
        let gate = self.gates.get(name)?;
        if gate.passes.is_closed() {
            self.gates.remove(name);
            return None;
        }
        Some(Arc::clone(gate))
    }
}
