//! A queue in which tenants take turns, however much one of them asks for.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What waits, by tenant.
pub struct Turns<T> {
    order: VecDeque<Arc<str>>,
    queues: HashMap<Arc<str>, VecDeque<T>>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            queues: HashMap::new(),
        }
    }
}

impl<T> Turns<T> {
    /// Queues `item` behind the tenant's others.
    pub fn push(&mut self, tenant: &Arc<str>, item: T) {
        let queue = self.queues.entry(Arc::clone(tenant)).or_default();
        if queue.is_empty() {
            self.order.push_back(Arc::clone(tenant));
        }
        queue.push_back(item);
    }

    /// The oldest item of the tenant whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let tenant = self.order.pop_front()?;
        let queue = self.queues.get_mut(&tenant)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&tenant);
        } else {
            self.order.push_back(tenant);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_asks_for_much_does_not_keep_others_waiting() {
        let mut turns = Turns::default();
        let (greedy, modest) = (Arc::from("greedy"), Arc::from("modest"));
        for n in 0..100 {
            turns.push(&greedy, n);
        }
        turns.push(&modest, 1000);
        assert_eq!(
            [turns.pop(), turns.pop(), turns.pop()],
            [Some(0), Some(1000), Some(1)]
        );
    }

    proptest! {
        #[test]
        fn everything_comes_out_once_and_in_each_tenants_order(items in proptest::collection::vec(0usize..4, 0..60)) {
            let mut turns = Turns::default();
            for (n, tenant) in items.iter().enumerate() {
                turns.push(&Arc::from(tenant.to_string()), (*tenant, n));
            }
            let mut out = Vec::new();
            while let Some(item) = turns.pop() {
                out.push(item);
            }
            prop_assert_eq!(out.len(), items.len());
            for tenant in 0..4 {
                let order: Vec<_> = out.iter().filter(|(of, _)| *of == tenant).map(|(_, n)| *n).collect();
                prop_assert!(order.is_sorted());
            }
        }
    }
}
