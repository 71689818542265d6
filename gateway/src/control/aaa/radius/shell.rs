//! The sockets and connections of a [`Client`], and the task that drives it.
//!
//! One task owns the client; each link has a task that reads. Datagrams are sent at once or not at all: a full socket is
//! a lost datagram, and lost datagrams are repeated.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::client::{Client, Order, Parts, Side};
use super::packet::PACKET_LEN_MAX;
use super::pool::Action;
use super::stream;
use crate::limits::RADIUS_ARRIVALS_MAX;
use crate::tls::TlsClient;

/// What the client handles before it looks at its clock again.
const BATCH: usize = 256;

/// Packets that wait on one connection: as many as it has identifiers.
const STREAM_QUEUE: usize = 256;

/// How long a reader waits after an error that would otherwise come again at once.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Where servers are.
pub struct Addresses {
    pub authentication: Vec<SocketAddr>,
    pub accounting: Vec<SocketAddr>,
    /// Over TLS, one for each of `authentication` and then of `accounting`.
    pub tls: Option<Vec<TlsClient>>,
    /// Requests of RFC 5176 come in here.
    pub dynamic: Option<UdpSocket>,
}

/// A link by its indices.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct LinkId {
    side: Side,
    server: usize,
    link: usize,
}

/// A link as its own tasks name it. A link is opened again and again; what an earlier one has left to say is not
/// meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    id: LinkId,
    nth: u64,
}

/// What links report.
pub enum Arrival {
    /// A packet.
    Packet(Opened, Box<[u8]>),
    /// A connection is there, or has ended.
    Link(Opened, bool),
    /// A request of RFC 5176.
    Dynamic(SocketAddr, Box<[u8]>),
}

/// A link's own end. Its tasks end with it.
struct LinkHandle {
    nth: u64,
    sender: Sender,
    task: JoinHandle<()>,
}

enum Sender {
    Datagrams(UdpSocket),
    Stream(mpsc::Sender<Arc<[u8]>>),
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the control thread says.
pub enum Message {
    /// Something for the client.
    Order(Order),
    /// Other servers from now on.
    Reconfigure(Box<(Parts, Addresses)>),
}

/// Runs `client` until its orders end. `pending` always says how many accounting records no server has taken yet.
pub async fn run(
    mut client: Client,
    addresses: Addresses,
    mut orders: mpsc::UnboundedReceiver<Message>,
    pending: Arc<AtomicUsize>,
) {
    let (sender, mut arrivals) = mpsc::channel(RADIUS_ARRIVALS_MAX);
    let mut links = Links::new(addresses, sender, 0);
    links.carry_out(&mut client);
    loop {
        pending.store(client.pending(), Ordering::Relaxed);
        let deadline = client.deadline().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => links.obey(&mut client, order),
                None => return,
            },
            Some(arrival) = arrivals.recv() => links.handle(&mut client, arrival),
            () = tokio::time::sleep_until(deadline.into()) => {}
        }
        let now = Instant::now();
        for _ in 0..BATCH {
            let Ok(order) = orders.try_recv() else { break };
            links.obey(&mut client, order);
        }
        for _ in 0..BATCH {
            let Ok(arrival) = arrivals.try_recv() else { break };
            links.handle(&mut client, arrival);
        }
        if client.deadline().is_some_and(|deadline| deadline <= now) {
            client.handle_timeout(now);
        }
        links.carry_out(&mut client);
    }
}

struct Links {
    addresses: Addresses,
    sender: mpsc::Sender<Arrival>,
    open: AHashMap<LinkId, LinkHandle>,
    opened: u64,
    /// Reads requests of RFC 5176.
    dynamic: Option<JoinHandle<()>>,
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(dynamic) = &self.dynamic {
            dynamic.abort();
        }
    }
}

impl Links {
    fn new(addresses: Addresses, sender: mpsc::Sender<Arrival>, opened: u64) -> Self {
        let dynamic = addresses.dynamic.as_ref().and_then(|socket| read_requests(socket, &sender));
        Self { addresses, sender, open: AHashMap::new(), opened, dynamic }
    }

    fn obey(&mut self, client: &mut Client, message: Message) {
        match message {
            Message::Order(order) => client.handle_order(Instant::now(), order),
            Message::Reconfigure(new) => {
                let (parts, addresses) = *new;
                *self = Self::new(addresses, self.sender.clone(), self.opened);
                client.reconfigure(Instant::now(), parts);
            }
        }
    }

    fn handle(&mut self, client: &mut Client, arrival: Arrival) {
        let now = Instant::now();
        match arrival {
            Arrival::Packet(opened, octets) => {
                let LinkId { side, server, link } = opened.id;
                if self.is_current(opened) {
                    client.handle_packet(now, side, server, link, &octets);
                }
            }
            Arrival::Link(opened, open) => {
                let LinkId { side, server, link } = opened.id;
                if self.is_current(opened) {
                    client.handle_link(now, side, server, link, open);
                }
            }
            Arrival::Dynamic(from, octets) => {
                let answer = client.handle_dynamic(now, from, &octets);
                if let (Some(answer), Some(socket)) = (answer, &self.addresses.dynamic) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        }
    }

    fn is_current(&self, opened: Opened) -> bool {
        self.open.get(&opened.id).is_some_and(|handle| handle.nth == opened.nth)
    }

    fn carry_out(&mut self, client: &mut Client) {
        while let Some((side, action)) = client.poll_action() {
            match action {
                Action::Open { server, link } => self.open(LinkId { side, server, link }),
                Action::Close { server, link } => {
                    self.open.remove(&LinkId { side, server, link });
                }
                Action::Send { server, link, octets } => {
                    match self.open.get(&LinkId { side, server, link }) {
                        Some(LinkHandle { sender: Sender::Datagrams(socket), .. }) => {
                            let _ = socket.send(&octets);
                        }
                        Some(LinkHandle { sender: Sender::Stream(queue), .. }) => {
                            let _ = queue.try_send(octets);
                        }
                        None => {}
                    }
                }
            }
        }
    }

    fn open(&mut self, id: LinkId) {
        let at = id.server;
        let (servers, before) = match id.side {
            Side::Authentication => (&self.addresses.authentication, 0),
            Side::Accounting => (&self.addresses.accounting, self.addresses.authentication.len()),
        };
        let Some(&addr) = servers.get(at) else { return };
        self.opened += 1;
        let nth = self.opened;
        let opened = Opened { id, nth };
        let handle = match self.addresses.tls.as_ref().map(|tls| tls.get(before + at)) {
            Some(Some(tls)) => {
                let (queue, packets) = mpsc::channel(STREAM_QUEUE);
                let task = tokio::spawn(stream::run(addr, tls.clone(), opened, packets, self.sender.clone()));
                LinkHandle { nth, sender: Sender::Stream(queue), task }
            }
            Some(None) => return,
            None => match read_answers(addr, opened, &self.sender) {
                Ok(handle) => handle,
                Err(error) => return tracing::warn!(%addr, %error, "no socket for a RADIUS server"),
            },
        };
        self.open.insert(id, handle);
    }
}

/// A socket connected to `addr`: the kernel passes on what comes from there alone.
fn read_answers(addr: SocketAddr, opened: Opened, sender: &mpsc::Sender<Arrival>) -> io::Result<LinkHandle> {
    let any = match addr {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(addr)?;
    socket.set_nonblocking(true)?;
    let reader = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
    let sender = sender.clone();
    let task = tokio::spawn(async move {
        let mut buffer = vec![0; PACKET_LEN_MAX];
        loop {
            match reader.recv(&mut buffer).await {
                Ok(len) => {
                    if sender.send(Arrival::Packet(opened, buffer[..len].into())).await.is_err() {
                        return;
                    }
                }
                // Nobody listens there, says a router or the host: silence, as far as requests are concerned.
                Err(_) => tokio::time::sleep(ERROR_PAUSE).await,
            }
        }
    });
    Ok(LinkHandle { nth: opened.nth, sender: Sender::Datagrams(socket), task })
}

/// Reads requests of RFC 5176.
fn read_requests(socket: &UdpSocket, sender: &mpsc::Sender<Arrival>) -> Option<JoinHandle<()>> {
    let reader = socket.try_clone().and_then(tokio::net::UdpSocket::from_std);
    let reader = reader.inspect_err(|error| tracing::error!(%error, "dynamic_authorization")).ok()?;
    let sender = sender.clone();
    Some(tokio::spawn(async move {
        let mut buffer = vec![0; PACKET_LEN_MAX];
        loop {
            match reader.recv_from(&mut buffer).await {
                Ok((len, from)) => {
                    if sender.send(Arrival::Dynamic(from, buffer[..len].into())).await.is_err() {
                        return;
                    }
                }
                Err(_) => tokio::time::sleep(ERROR_PAUSE).await,
            }
        }
    }))
}
