//! The node's sockets and clock: carries out what [`Node`] wants done. A task per back end, and one per connection.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_rustls::TlsConnector;
use zeroize::{Zeroize, Zeroizing};

use super::message::frame_len;
use super::node::{Node, Output};
use super::settings::Server;
use crate::control::aaa::{FromAaa, Outbox};
use crate::limits::DIAMETER_UNSENT_MAX;

/// Events of connections that wait for the node; further ones wait in their sockets.
const EVENTS_MAX: usize = 256;

/// Octets asked of a socket at once.
const READ_OCTETS: usize = 16 * 1024;

/// How long a connection may refuse to take anything.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// What the back end and its task share, on one thread.
pub struct Shared {
    /// The node.
    pub node: RefCell<Node>,
    /// Told after every call into the node.
    pub wake: Notify,
}

/// From a connection.
enum Event {
    Connected { peer: usize, connection: u64, local: IpAddr },
    Message { peer: usize, connection: u64, octets: Zeroizing<Vec<u8>> },
    Closed { peer: usize, connection: u64, why: io::Error },
}

/// An ASR whose session is being ended: its number, and whether there was the session.
type Ending = std::pin::Pin<Box<dyn Future<Output = (u64, bool)>>>;

/// The task of a back end.
pub struct Driver {
    shared: Rc<Shared>,
    outbox: Outbox,
    connections: AHashMap<u64, mpsc::Sender<Vec<u8>>>,
    endings: FuturesUnordered<Ending>,
    events: mpsc::Sender<Event>,
}

impl Driver {
    /// Runs the node until it has left.
    pub async fn run(shared: Rc<Shared>, outbox: Outbox) {
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        let connections = AHashMap::new();
        let endings = FuturesUnordered::new();
        let mut driver = Self { shared, outbox, connections, endings, events: sender };
        loop {
            driver.carry_out();
            let shared = driver.shared.clone();
            if shared.node.borrow().has_left() {
                return;
            }
            let timeout = shared.node.borrow().poll_timeout();
            let timeout = timeout.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                Some(event) = events.recv() => driver.on_event(event),
                () = shared.wake.notified() => {}
                Some((ask, found)) = driver.endings.next() => shared.node.borrow_mut().disconnected(ask, found),
                () = tokio::time::sleep_until(timeout.into()) => {
                    shared.node.borrow_mut().handle_timeout(Instant::now());
                }
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        let now = Instant::now();
        let mut node = self.shared.node.borrow_mut();
        match event {
            Event::Connected { peer, connection, local } => {
                node.handle_connected(now, peer, connection, local);
            }
            Event::Message { peer, connection, octets } => {
                node.handle_message(now, peer, connection, &octets);
            }
            Event::Closed { peer, connection, why } => {
                self.connections.remove(&connection);
                let server = &node.settings().servers[peer].name;
                tracing::debug!(backend = %node.settings().name, %server, %why, "diameter connection closed");
                node.handle_closed(now, peer, connection);
            }
        }
    }

    fn carry_out(&mut self) {
        loop {
            // The borrow ends with the statement: what follows may call into the node.
            let output = self.shared.node.borrow_mut().poll_output();
            let Some(output) = output else { return };
            match output {
                Output::Connect { peer, connection } => self.connect(peer, connection),
                Output::Send { connection, octets } => self.send(connection, octets),
                // The task writes what it has, then ends.
                Output::Close { connection } => _ = self.connections.remove(&connection),
                Output::Answer { attempt, answer } => self.outbox.answer(attempt, answer),
                Output::Lifetime { session, left } => {
                    self.outbox.send(FromAaa::Timeout { session, left: Some(left) });
                }
                Output::Disconnect { session, ask } => {
                    let (done, ended) = oneshot::channel();
                    self.outbox.send(FromAaa::Disconnect { session, done });
                    if let Some(ask) = ask {
                        self.endings.push(Box::pin(async move { (ask, ended.await.unwrap_or(false)) }));
                    }
                }
            }
        }
    }

    fn connect(&mut self, peer: usize, connection: u64) {
        let (sender, messages) = mpsc::channel(DIAMETER_UNSENT_MAX);
        self.connections.insert(connection, sender);
        let node = self.shared.node.borrow();
        let settings = node.settings();
        let link = Link {
            peer,
            connection,
            server: settings.servers[peer].clone(),
            tls: settings.tls.clone(),
            events: self.events.clone(),
        };
        tokio::spawn(link.run(messages));
    }

    fn send(&mut self, connection: u64, octets: Vec<u8>) {
        let Some(sender) = self.connections.get(&connection) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(octets) {
            // A peer that does not read is as good as dead; the task tells so when it ends.
            self.connections.remove(&connection);
        }
    }
}

/// One connection.
struct Link {
    peer: usize,
    connection: u64,
    server: Server,
    tls: Option<Arc<ClientConfig>>,
    events: mpsc::Sender<Event>,
}

impl Link {
    /// Connects, and carries messages both ways until either end closes.
    async fn run(self, mut messages: mpsc::Receiver<Vec<u8>>) {
        let why = match self.carry(&mut messages).await {
            Ok(()) => io::Error::from(io::ErrorKind::UnexpectedEof),
            Err(why) => why,
        };
        let (peer, connection) = (self.peer, self.connection);
        let _ = self.events.send(Event::Closed { peer, connection, why }).await;
    }

    async fn carry(&self, messages: &mut mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
        let connecting = TcpStream::connect(self.server.addr);
        let stream = tokio::select! {
            stream = connecting => stream?,
            _ = messages.recv() => return Ok(()),
        };
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?.ip();
        match &self.tls {
            None => self.talk(stream, local, messages).await,
            Some(config) => {
                let connector = TlsConnector::from(config.clone());
                let handshake = connector.connect(self.server.certificate_name(), stream);
                let stream = tokio::select! {
                    stream = handshake => stream?,
                    _ = messages.recv() => return Ok(()),
                };
                self.talk(stream, local, messages).await
            }
        }
    }

    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite,
        local: IpAddr,
        messages: &mut mpsc::Receiver<Vec<u8>>,
    ) -> io::Result<()> {
        let (peer, connection) = (self.peer, self.connection);
        if self.events.send(Event::Connected { peer, connection, local }).await.is_err() {
            return Ok(());
        }
        let (reader, writer) = tokio::io::split(stream);
        tokio::select! {
            read = self.read(reader) => read,
            written = write(writer, messages) => written,
        }
    }

    async fn read(&self, mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
        // Keys pass through; they do not stay.
        let mut buffer = Zeroizing::new(Vec::<u8>::with_capacity(READ_OCTETS));
        loop {
            // Grows with what has arrived, never with what a length promises.
            if buffer.capacity() - buffer.len() < READ_OCTETS / 2 {
                let mut larger = Vec::with_capacity(buffer.len() + READ_OCTETS);
                larger.extend_from_slice(&buffer);
                buffer = Zeroizing::new(larger);
            }
            if reader.read_buf(&mut *buffer).await? == 0 {
                return Ok(());
            }
            let mut taken = 0;
            while let Some(len) = frame_len(&buffer[taken..]).map_err(io::Error::other)? {
                let Some(octets) = buffer.get(taken..taken + len) else { break };
                let octets = Zeroizing::new(octets.to_vec());
                taken += len;
                let (peer, connection) = (self.peer, self.connection);
                if self.events.send(Event::Message { peer, connection, octets }).await.is_err() {
                    return Ok(());
                }
            }
            let rest = buffer.len() - taken;
            buffer.copy_within(taken.., 0);
            buffer[rest..].zeroize();
            buffer.truncate(rest);
        }
    }
}

/// Writes messages until there are no more to come.
async fn write(
    mut writer: impl AsyncWrite + Unpin,
    messages: &mut mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    const TOGETHER: usize = 32;
    let mut batch = Vec::with_capacity(TOGETHER);
    let mut octets = Vec::new();
    while messages.recv_many(&mut batch, TOGETHER).await > 0 {
        octets.clear();
        batch.drain(..).for_each(|message| octets.extend_from_slice(&message));
        let written = async {
            writer.write_all(&octets).await?;
            writer.flush().await
        };
        tokio::time::timeout(WRITE_MAX, written).await??;
    }
    writer.shutdown().await
}
