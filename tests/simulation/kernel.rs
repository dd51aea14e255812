//! The [`Kernel`] that a simulated I/O thread is given: each call becomes an operation of its [`Ring`], or an act on the
//! network. It checks what a caller promises: one accept for each listener, and for each connection one receive and one send at a time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use disrust::exchange::blocks::Block;
use disrust::exchange::buffer_pool::Buffer;
use disrust::exchange::event::ConnectionId;
use disrust::kernel::{Completion, Entrance, Kernel, Peer, Queued, Shots, Unacknowledged};

use super::network::Descriptor;
use super::ring::{Kind, Ring, checksum_of};
use super::trace::note;

/// The I/O thread's end of a [`Ring`].
pub struct SimulatedKernel(pub Rc<RefCell<Ring>>);

impl Kernel for SimulatedKernel {
    type Socket = Descriptor;

    fn now_ns(&mut self) -> u64 {
        self.0.borrow().now_ns()
    }

    fn listens(&self, from: Entrance) -> bool {
        let ring = self.0.borrow();
        let network = ring.network.borrow();
        network.listener(ring.thread, from).is_some_and(|listener| network.is_listening(listener))
    }

    fn accept(&mut self, from: Entrance) {
        let mut ring = self.0.borrow_mut();
        let same = |kind: &Kind| matches!(kind, Kind::Accept(armed) if *armed == from);
        assert!(!ring.has_operation(same), "one accept is armed for a listener");
        ring.queue(None, Kind::Accept(from), Duration::ZERO);
    }

    fn cancel_accept(&mut self, from: Entrance) {
        self.0.borrow_mut().queue(None, Kind::CancelAccept(from), Duration::ZERO);
    }

    fn accept_queued(&mut self, from: Entrance) -> Queued<Descriptor> {
        let mut ring = self.0.borrow_mut();
        ring.called();
        let mut network = ring.network.borrow_mut();
        let Some(listener) = network.listener(ring.thread, from) else { return Queued::Nothing };
        if from == Entrance::Unix {
            network.shut_listener(listener);
        }
        if network.descriptors_are_out() {
            return Queued::NoDescriptor;
        }
        network.accept(listener).map_or(Queued::Nothing, Queued::Connection)
    }

    fn close_listener(&mut self, from: Entrance) {
        let ring = self.0.borrow();
        let mut network = ring.network.borrow_mut();
        let listener = network.listener(ring.thread, from).expect("only a listener that there is can be closed");
        network.close_listener(listener);
    }

    fn receive(&mut self, socket: Descriptor, id: ConnectionId, shots: Shots) {
        let mut ring = self.0.borrow_mut();
        let stream = ring.network.borrow().stream_of(socket);
        let same = |kind: &Kind| matches!(kind, Kind::Receive { stream: other, .. } if *other == stream);
        assert!(!ring.has_operation(same), "one receive is armed for a connection");
        ring.reached.one_shots += u64::from(shots == Shots::One);
        note(|| format!("ring {}: receive of {id:?}, {shots:?}, on stream {stream}", ring.thread));
        ring.queue(Some(socket), Kind::Receive { stream, id, shots }, Duration::ZERO);
    }

    fn cancel_receive(&mut self, id: ConnectionId) {
        note(|| format!("cancel of the receive of {id:?}"));
        self.0.borrow_mut().queue(None, Kind::CancelReceive(id), Duration::ZERO);
    }

    fn send(&mut self, socket: Descriptor, id: ConnectionId, block: Box<Block>) {
        let mut ring = self.0.borrow_mut();
        assert!(!block.content().is_empty(), "a send has something to send");
        let stream = ring.network.borrow().stream_of(socket);
        let same = |kind: &Kind| matches!(kind, Kind::Send { stream: other, .. } if *other == stream);
        assert!(!ring.has_operation(same), "one send is in the kernel for a connection");
        let checksum = checksum_of(block.content());
        ring.queue(Some(socket), Kind::Send { stream, id, block, checksum }, Duration::ZERO);
    }

    fn unreceived_bytes(&mut self, socket: Descriptor) -> usize {
        self.0.borrow().network.borrow().unreceived(socket)
    }

    fn unacknowledged(&mut self, socket: Descriptor) -> Unacknowledged {
        self.0.borrow().network.borrow_mut().unacknowledged(socket)
    }

    fn peer_has_vanished(&mut self, socket: Descriptor) -> bool {
        self.0.borrow().network.borrow().has_vanished(socket)
    }

    fn peer(&mut self, _socket: Self::Socket) -> Option<Peer> {
        None
    }

    fn half_close(&mut self, socket: Descriptor) {
        note(|| format!("half-close of descriptor {socket}"));
        self.0.borrow().network.borrow_mut().half_close(socket);
    }

    fn abort(&mut self, socket: Descriptor) {
        note(|| format!("abort of descriptor {socket}"));
        self.0.borrow_mut().abort(socket);
    }

    fn close(&mut self, socket: Descriptor) {
        note(|| format!("close of descriptor {socket}"));
        self.0.borrow().network.borrow_mut().close(socket);
    }

    fn provide(&mut self, buffer: Buffer) {
        self.0.borrow_mut().lend(buffer);
    }

    fn start_timer(&mut self, after: Duration) {
        self.0.borrow_mut().queue(None, Kind::Timer, after);
    }

    fn await_alarm(&mut self) {
        self.0.borrow_mut().queue(None, Kind::Alarm, Duration::ZERO);
    }

    fn enter(&mut self, wait: bool) {
        self.0.borrow_mut().enter(wait);
    }

    fn next_completion(&mut self) -> Option<Completion<Descriptor>> {
        self.0.borrow_mut().next_completion()
    }
}
