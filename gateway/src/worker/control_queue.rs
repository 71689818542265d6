//! The queue from a worker to the control thread, bounded in messages and in octets.
//!
//! An operator knows how much memory may wait there; how many messages that is depends on what UEs send. Ten
//! thousand that leave at once send ten thousand small DELETEs, of which none must be lost.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::inbox::ToControl;

/// Makes a queue for at most `messages_max` messages of together at most `octets_max` octets. It takes memory
/// as messages come.
pub fn control_queue(messages_max: usize, octets_max: usize) -> (ControlSender, ControlReceiver) {
    let (sender, receiver) = unbounded();
    let octets = Arc::new(AtomicUsize::new(0));
    (
        ControlSender { queue: sender, octets: octets.clone(), messages_max, octets_max },
        ControlReceiver { queue: receiver, octets },
    )
}

/// The worker's end.
#[derive(Clone)]
pub struct ControlSender {
    queue: Sender<ToControl>,
    octets: Arc<AtomicUsize>,
    messages_max: usize,
    octets_max: usize,
}

/// The control thread's end.
pub struct ControlReceiver {
    queue: Receiver<ToControl>,
    octets: Arc<AtomicUsize>,
}

impl ControlSender {
    /// Puts a message into the queue.
    ///
    /// # Errors
    /// The message, when the queue is full or the control thread is gone.
    pub fn try_send(&self, message: ToControl) -> Result<(), Box<ToControl>> {
        // Only the worker adds: what it sees can only be too much.
        let waiting = self.octets.load(Ordering::Relaxed) + octets_of(&message);
        if waiting > self.octets_max || self.queue.len() >= self.messages_max {
            return Err(Box::new(message));
        }
        self.octets.fetch_add(octets_of(&message), Ordering::Relaxed);
        self.queue.send(message).map_err(|refused| Box::new(refused.into_inner()))
    }
}

impl ControlReceiver {
    /// The next message, if one waits.
    pub fn try_recv(&self) -> Option<ToControl> {
        let message = self.queue.try_recv().ok()?;
        self.octets.fetch_sub(octets_of(&message), Ordering::Relaxed);
        Some(message)
    }

    /// The messages that wait, one after the other.
    pub fn try_iter(&self) -> impl Iterator<Item = ToControl> {
        std::iter::from_fn(|| self.try_recv())
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Memory a waiting message takes.
fn octets_of(message: &ToControl) -> usize {
    let more = match message {
        ToControl::Ike { message, .. } => message.capacity(),
        ToControl::ChildCounters { children, .. } => size_of_val(children.as_slice()),
        _ => 0,
    };
    size_of::<ToControl>() + more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ConnId, Path, SessionId, Transport, WorkerId};

    fn ike(len: usize) -> ToControl {
        let addr = "192.0.2.1:4500".parse().expect("an address");
        let path = Path { transport: Transport::Tcp, local: addr, remote: addr };
        let conn = ConnId { worker: WorkerId(0), slot: 1, generation: 1 };
        ToControl::Ike { conn, path, message: vec![0; len] }
    }

    fn activity() -> ToControl {
        ToControl::EspActivity { session: SessionId(1) }
    }

    #[test]
    fn octets_are_bounded_and_come_back() {
        let (sender, receiver) = control_queue(100, 10_000 + 4 * size_of::<ToControl>());
        assert!(sender.try_send(ike(6_000)).is_ok());
        let Err(refused) = sender.try_send(ike(6_000)) else { panic!("too much") };
        assert!(sender.try_send(ike(4_000)).is_ok(), "a small one still fits");
        assert!(
            matches!(receiver.try_recv(), Some(ToControl::Ike { message, .. }) if message.len() == 6_000)
        );
        assert!(sender.try_send(*refused).is_ok());
        assert_eq!(receiver.try_iter().count(), 2);
        assert_eq!(receiver.octets.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn messages_are_bounded() {
        let (sender, receiver) = control_queue(2, usize::MAX);
        assert!(sender.try_send(activity()).is_ok() && sender.try_send(activity()).is_ok());
        assert!(sender.try_send(activity()).is_err());
        assert_eq!((receiver.len(), receiver.is_empty()), (2, false));
        drop(receiver);
        assert!(control_queue(2, 0).0.try_send(activity()).is_err());
    }

    #[test]
    fn ten_thousand_deletes_at_once_fit_the_defaults() {
        let limits = crate::limits::Limits::default();
        let (sender, receiver) =
            control_queue(limits.control_queue as usize, limits.control_queue_octets as usize);
        // A DELETE in CBC, its report that the connection closed, and one of activity.
        for _ in 0..10_000 {
            assert!(sender.try_send(ike(96)).is_ok());
            assert!(sender.try_send(activity()).is_ok() && sender.try_send(activity()).is_ok());
        }
        assert_eq!(receiver.len(), 30_000);
    }
}
