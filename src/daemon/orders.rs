//! A VM's queue: what it is asked to do, one after the other.

use std::collections::VecDeque;

use smol::channel::{Receiver, RecvError, Sender, bounded};

use crate::daemon::fault::Fault;
use crate::daemon::op::Op;
use crate::vm::change::Change;
use crate::vm::workspace::Workspace;

/// What a VM can be told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Start,
    Stop {
        force: bool,
    },
    Delete,
    /// Delete it if it has ended.
    Prune,
    Set(Box<Change>),
    /// A work tree has been brought.
    Workspace(Box<Workspace>),
}

impl What {
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop { .. } => "stop",
            Self::Delete | Self::Prune => "delete",
            Self::Set(_) | Self::Workspace(_) => "change",
        }
    }
}

/// One thing to do, and whom to tell that it is done.
pub struct Order {
    pub what: What,
    pub op: Op,
    answer: Sender<Result<(), Fault>>,
}

impl Order {
    pub fn new(what: What, op: &Op) -> (Self, Receiver<Result<(), Fault>>) {
        let (answer, done) = bounded(1);
        (Self { what, op: op.clone(), answer }, done)
    }

    pub fn answer(self, outcome: Result<(), Fault>) {
        if self.answer.try_send(outcome).is_err() {
            log::debug!("{} nobody waits for the answer", self.op);
        }
    }
}

/// The receiving end, which can be searched while an order is being carried out.
pub struct Inbox {
    orders: Receiver<Order>,
    kept: VecDeque<Order>,
}

impl Inbox {
    pub fn new(orders: Receiver<Order>) -> Self {
        Self { orders, kept: VecDeque::new() }
    }

    pub async fn next(&mut self) -> Result<Order, RecvError> {
        match self.kept.pop_front() {
            Some(order) => Ok(order),
            None => self.orders.recv().await,
        }
    }

    /// Returns when an order is waiting for which `urgent` says that the present one must give way. It stays in the queue.
    pub async fn urgent(&mut self, urgent: impl Fn(&What) -> bool) {
        if self.kept.iter().any(|order| urgent(&order.what)) {
            return;
        }
        // A closed queue means that the daemon ends; the present order may as well go on.
        while let Ok(order) = self.orders.recv().await {
            let found = urgent(&order.what);
            self.kept.push_back(order);
            if found {
                return;
            }
        }
        smol::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_urgent_order_is_noticed_and_keeps_its_place() {
        let (tx, rx) = smol::channel::unbounded();
        let mut inbox = Inbox::new(rx);
        for what in [What::Start, What::Delete] {
            assert!(tx.try_send(Order::new(what, &Op::own()).0).is_ok());
        }
        smol::block_on(async {
            inbox.urgent(|what| *what == What::Delete).await;
            inbox.urgent(|what| *what == What::Delete).await;
            for what in [What::Start, What::Delete] {
                assert!(inbox.next().await.is_ok_and(|order| order.what == what));
            }
        });
    }
}
