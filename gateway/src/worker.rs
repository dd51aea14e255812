//! A thread that serves: its connections, and the looks that it takes at them.
//!
//! The main thread gives it connections and tells it what to do with them all ([`Order`]). Nothing else comes from outside.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval};

use crate::connection::{refuse, serve};
use crate::life::{End, Life};
use crate::limits::{BESIDE_THREADS_MAX, SWEEP_INTERVAL};
use crate::metrics::Ended;
use crate::service::Service;
use crate::shared::Shared;
use crate::upstream::Upstream;

/// What the main thread tells a thread that serves.
pub enum Order {
    /// To serve this connection.
    Serve(TcpStream),
    /// To serve it in the place of another one that does nothing, or to turn it away.
    Squeeze(TcpStream),
    /// To end, in order, all connections that have waited for so long for a request.
    EndIdle(Duration),
    /// To end all connections at once.
    Cut,
}

/// A thread that serves. It ends when all of its connections have, once this is dropped.
pub struct Worker {
    /// Where its orders go. The main thread gives no more connections than there may be, so that few wait here.
    pub orders: UnboundedSender<Order>,
    /// Its thread.
    pub thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread, or nothing to wait with.
    pub fn start(shared: &Arc<Shared>, index: usize) -> io::Result<Worker> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(BESIDE_THREADS_MAX)
            .build()?;
        let (orders, received) = unbounded_channel();
        let shared = Arc::clone(shared);
        let _first = shared.threads[index].runtime.set(runtime.handle().clone());
        let run = move || LocalSet::new().block_on(&runtime, follow(shared, index, received));
        let thread = Builder::new().name(format!("serve-{index}")).spawn(run)?;
        Ok(Worker { orders, thread })
    }
}

/// The connections of a thread.
struct Connections {
    lives: RefCell<Slab<Rc<Life>>>,
    service: Rc<Service>,
    index: usize,
}

/// Follows orders until there are none any more and all connections have ended.
async fn follow(shared: Arc<Shared>, index: usize, mut orders: UnboundedReceiver<Order>) {
    let upstream = Upstream::connect(&shared.settings).expect("the addresses were looked at before");
    let service = Rc::new(Service { shared, upstream });
    let followed = Rc::clone(&service);
    spawn_local(async move { followed.upstream.follow(index == 0).await });
    let connections = Rc::new(Connections { lives: RefCell::default(), service, index });
    spawn_local(Rc::clone(&connections).sweep_without_end());
    while let Some(order) = orders.recv().await {
        match order {
            Order::Serve(socket) => connections.begin(socket),
            Order::Squeeze(socket) if connections.evict() => connections.begin(socket),
            Order::Squeeze(socket) => {
                connections.service.shared.metrics.ended(Ended::Refused);
                connections.forget_one();
                refuse(&socket);
            }
            Order::EndIdle(quiet) => connections.end_idle(quiet),
            Order::Cut => connections.cut(),
        }
    }
}

impl Connections {
    /// Begins to serve a connection.
    fn begin(self: &Rc<Self>, socket: TcpStream) {
        let Ok(socket) = socket.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(socket)) else {
            // Descriptors or memory have run out.
            return self.forget_one();
        };
        // Answers are small and are to leave at once. A socket that is broken already says so when it is read.
        let _broken = socket.set_nodelay(true);
        let life = Rc::new(Life::beginning());
        let key = self.lives.borrow_mut().insert(Rc::clone(&life));
        let listed = Listed { connections: Rc::clone(self), key };
        let service = Rc::clone(&self.service);
        spawn_local(async move {
            let _listed = listed;
            serve(socket, life, service).await;
        });
    }

    fn forget_one(&self) {
        self.service.shared.threads[self.index].connections.fetch_sub(1, Relaxed);
    }

    /// Ends what is late, for ever.
    async fn sweep_without_end(self: Rc<Self>) {
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (now, idle_max) = (Instant::now(), self.service.shared.settings.idle_timeout.0);
            for (_, life) in self.lives.borrow().iter() {
                if let Some((end, why)) = life.late(now, idle_max)
                    && life.tell(end)
                {
                    self.service.shared.metrics.ended(why);
                }
            }
        }
    }

    /// Ends the connection that has waited for its request for longest. Returns whether there is one.
    fn evict(&self) -> bool {
        let (lives, now) = (self.lives.borrow(), Instant::now());
        let waiting = lives.iter().map(|(_, life)| life).filter(|life| !life.is_ending() && life.is_waiting());
        let Some(oldest) = waiting.max_by_key(|life| life.elapsed(now)) else { return false };
        oldest.tell(End::Cut);
        self.service.shared.metrics.ended(Ended::Evicted);
        true
    }

    fn end_idle(&self, quiet: Duration) {
        let now = Instant::now();
        for (_, life) in self.lives.borrow().iter() {
            if life.is_idle_for(now, quiet) {
                life.tell(End::InOrder);
            }
        }
    }

    fn cut(&self) {
        for (_, life) in self.lives.borrow().iter() {
            if life.tell(End::Cut) {
                self.service.shared.metrics.ended(Ended::Cut);
            }
        }
    }
}

/// A connection's place in the list, which it leaves when this is dropped.
struct Listed {
    connections: Rc<Connections>,
    key: usize,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.connections.lives.borrow_mut().remove(self.key);
        self.connections.forget_one();
    }
}
