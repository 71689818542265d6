//! A worker, or several, with everything around them in the test's hands.

use std::io::{self, IoSlice};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use codec::OsRandom;
use codec::esp::{EspCipher, EspInteg, EspKeys, EspSpi, EspSuite, InboundSa, OutboundSa};
use codec::ip::{Checksum, InnerHeader, Segmenter, VirtioHeader};
use crossbeam::channel::bounded;
use gateway::config::Queueing;
use gateway::io::sockets::{StreamOptions, listen_tcp};
use gateway::io::tun::{InnerDevice, Offloads, TunQueue};
use gateway::io::udp::listen_udp;
use gateway::io::wake::Wake;
use gateway::tls::{StreamKind, StreamListener, TlsServer};
use gateway::types::{ChildInstall, ConnId, NetworkId, SessionId, TsRange, WorkerId};
use gateway::worker::control_queue::{ControlReceiver, control_queue};
use gateway::worker::counters::WorkerCounters;
use gateway::worker::inbox::{ToControl, ToWorker};
use gateway::worker::{InboxHandle, InnerConfig, NetworkConfig, WorkerLimits, WorkerParams, start};

/// Reports that wait for the test.
pub const REPORTS_MAX: usize = 4096;
pub const PATIENCE: Duration = Duration::from_secs(5);
pub const SUITE: EspSuite = EspSuite { cipher: EspCipher::Aes128Gcm16, integ: None, esn: true };
pub const CORE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const CORE6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// One worker seen from outside.
pub struct Seat {
    pub inbox: Arc<InboxHandle>,
    pub core: UnixDatagram,
    /// The cores of further networks.
    pub cores: Vec<UnixDatagram>,
    pub counters: Arc<WorkerCounters>,
    pub addr: SocketAddr,
    /// Where it takes IKE alone over TCP.
    pub ike_addr: SocketAddr,
    /// Where it takes connections of other kinds.
    others: Vec<(StreamKind, SocketAddr)>,
    /// Where it, and every other worker, takes IKE and ESP over UDP.
    pub udp: SocketAddr,
}

impl Seat {
    /// Where it takes connections of `kind`.
    pub fn at(&self, kind: StreamKind) -> SocketAddr {
        self.others.iter().find(|(other, _)| *other == kind).expect("every kind").1
    }
}

/// A fixture's certificate and key.
pub fn server(name: &str) -> TlsServer {
    let read = |end| std::fs::read(format!("tests/fixtures/pki/{name}.{end}")).expect("a fixture");
    TlsServer::from_pem(&read("pem"), &read("key")).expect("they belong together")
}

/// Workers and the control thread's end of their queues.
pub struct Rig {
    pub seats: Vec<Seat>,
    pub reports: ControlReceiver,
    threads: Vec<std::thread::JoinHandle<()>>,
}

pub fn limits() -> WorkerLimits {
    WorkerLimits {
        connections: 64,
        connections_per_source: 48,
        prefix_timeout: Duration::from_secs(2),
        first_message_timeout: Duration::from_secs(3),
        half_open_timeout: Duration::from_secs(30),
        linger: Duration::from_secs(2),
        replaced_idle: Duration::from_secs(60),
        bad_messages_in_a_row: 16,
        ike_unanswered: 32,
        udp_ike_unanswered: 64,
        send_queue_octets: 256 * 1024,
        send_memory: 4 << 20,
        zero_copy: None,
        flow_queue_octets: 1 << 20,
        flow_memory: 4 << 20,
        receive_memory: 8 << 20,
        udp_receive_memory: 8 << 20,
        unfinished: 256 << 10,
        early: 64 << 10,
        tls_handshakes: 8,
    }
}

impl Rig {
    pub fn new(workers: usize) -> Self {
        Self::with(workers, limits())
    }

    /// Each worker listens on a port of its own, so that a test decides where a connection arrives.
    pub fn with(workers: usize, limits: WorkerLimits) -> Self {
        Self::configured(workers, limits, true)
    }

    pub fn configured(workers: usize, limits: WorkerLimits, flow_queue: bool) -> Self {
        Self::over(workers, limits, flow_queue, |queue| Box::new(Patient(queue)))
    }

    /// Workers whose inner devices are what `device` makes of a queue.
    pub fn over(
        workers: usize,
        limits: WorkerLimits,
        flow_queue: bool,
        device: impl Fn(TunQueue) -> Box<dyn InnerDevice>,
    ) -> Self {
        Self::of_networks(1, workers, limits, flow_queue, device)
    }

    /// Workers of so many networks, whose pools are the same.
    pub fn of_networks(
        networks: usize,
        workers: usize,
        limits: WorkerLimits,
        flow_queue: bool,
        device: impl Fn(TunQueue) -> Box<dyn InnerDevice>,
    ) -> Self {
        let (to_control, reports) = control_queue(REPORTS_MAX, 64 << 20);
        let (mut queues, mut inboxes) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (queue, receiver) = bounded(4096);
            let wake = Wake::new().expect("eventfd");
            queues.push((receiver, wake.try_clone().expect("dup")));
            inboxes.push(Arc::new(InboxHandle { queue, wake }));
        }
        let (mut seats, mut threads) = (Vec::new(), Vec::new());
        let any = "127.0.0.1:0".parse().expect("address");
        // One for all: a ticket of one worker is good for the others.
        let tls = server("gw-ec");
        let sockets = listen_udp(any, workers, 1 << 20).expect("UDP sockets");
        let parts = queues.into_iter().zip(sockets).enumerate();
        for (index, ((inbox, inbox_wake), socket)) in parts {
            let udp = socket.local();
            let kinds =
                [StreamKind::Tcp, StreamKind::Tls, StreamKind::Shared, StreamKind::Ftt, StreamKind::IkeTcp];
            let listen = || listen_tcp(any, &StreamOptions::default()).expect("listen");
            let listeners = kinds.map(|kind| StreamListener { socket: listen(), kind });
            let local = |of: &StreamListener| of.socket.local_addr().expect("bound");
            let (addr, ike_addr) = (local(&listeners[0]), local(&listeners[4]));
            let others = listeners.iter().map(|of| (of.kind, local(of))).collect();
            let (mut cores, mut devices) = (Vec::new(), Vec::new());
            for _ in 0..networks {
                let (core, tun) = UnixDatagram::pair().expect("socket pair");
                core.set_read_timeout(Some(PATIENCE)).expect("timeout");
                tun.set_nonblocking(true).expect("nonblocking");
                cores.push(core);
                devices.push(device(TunQueue::new(tun.into(), Offloads::default())));
            }
            let network = NetworkConfig {
                pools: vec![(IpAddr::from([10, 64, 0, 0]), 16), (IpAddr::from(ue_addr6(0)), 112)],
                mtu: 1400,
                hairpin: false,
                local_addrs: Arc::new([IpAddr::from([192, 0, 2, 9])]),
            };
            let core = cores.remove(0);
            let counters = Arc::new(WorkerCounters::default());
            let params = WorkerParams {
                id: WorkerId(index as u8),
                core: None,
                listeners: listeners.into(),
                tls: Some(tls.clone()),
                datagrams: vec![socket],
                devices,
                inbox,
                inbox_wake,
                control: to_control.clone(),
                control_wake: Wake::new().expect("eventfd"),
                peers: inboxes.clone(),
                limits,
                counters: counters.clone(),
                inner: InnerConfig {
                    networks: vec![network; networks],
                    queueing: Queueing { flow_queue, ..Queueing::default() },
                },
            };
            threads.push(start(params).expect("worker"));
            let inbox = inboxes[index].clone();
            seats.push(Seat { inbox, core, cores, counters, addr, ike_addr, others, udp });
        }
        Self { seats, reports, threads }
    }

    pub fn order(&self, worker: usize, order: ToWorker) {
        let inbox = &self.seats[worker].inbox;
        inbox.queue.send(order).expect("worker lives");
        inbox.wake.wake();
    }

    /// Waits until everything ordered so far is in force.
    pub fn fence(&self, worker: usize) {
        let number = 0xfe_0000 + worker as u64;
        self.order(worker, ToWorker::Fence(number));
        self.report(|report| {
            matches!(report, ToControl::FenceReached { fence, .. } if *fence == number).then_some(())
        });
    }

    /// The next report that `want` accepts; others are dropped.
    pub fn report<T>(&self, want: impl Fn(&ToControl) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.reports.try_recv() {
                Some(report) => {
                    if let Some(found) = want(&report) {
                        return found;
                    }
                }
                None => {
                    assert!(Instant::now() < until, "the report arrives in time");
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    pub fn ike(&self) -> (ConnId, Vec<u8>) {
        self.report(|report| match report {
            ToControl::Ike { conn, message, .. } => Some((*conn, message.clone())),
            _ => None,
        })
    }

    pub fn bound(&self) -> (SessionId, ConnId) {
        self.report(|report| match report {
            ToControl::Bound { session, conn, .. } => Some((*session, *conn)),
            _ => None,
        })
    }

    pub fn drops(&self, worker: usize, reason: &str) -> u64 {
        let counters = &self.seats[worker].counters;
        counters.drops().find(|(name, _)| *name == reason).expect("a known reason").1
    }

    /// Everything dropped so far, whatever the reason.
    pub fn all_drops(&self, worker: usize) -> u64 {
        self.seats[worker].counters.drops().map(|(_, count)| count).sum()
    }

    pub fn closes(&self, worker: usize, cause: &str) -> u64 {
        let counters = &self.seats[worker].counters;
        counters.closes().find(|(name, _)| *name == cause).expect("a known cause").1
    }

    /// Waits until `value` says `wanted`.
    pub fn until(&self, what: &str, wanted: u64, value: impl Fn(&Self) -> u64) {
        let until = Instant::now() + PATIENCE;
        while value(self) != wanted {
            assert!(Instant::now() < until, "{what}: {} instead of {wanted}", value(self));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The inner packet the core receives next.
    pub fn core_receives(&self, worker: usize) -> Vec<u8> {
        let mut packet = vec![0; 65_600];
        let len = self.seats[worker].core.recv(&mut packet).expect("a packet reaches the core");
        assert_eq!(packet[..VirtioHeader::LEN], VirtioHeader::PLAIN);
        packet[VirtioHeader::LEN..len].to_vec()
    }

    /// The inner packets of the next write to a device that takes super-packets.
    pub fn core_receives_joined(&self, worker: usize) -> Vec<Vec<u8>> {
        let mut octets = vec![0; 65_600];
        let len = self.seats[worker].core.recv(&mut octets).expect("a packet reaches the core");
        let (virtio, packet) = VirtioHeader::split(&mut octets[..len]).expect("a virtio-net header");
        let inner = InnerHeader::parse(packet).expect("a sound packet");
        if virtio == VirtioHeader::default() {
            return vec![packet.to_vec()];
        }
        let mut cut = Segmenter::new(packet, &inner, &virtio, 1400).expect("a sound super-packet");
        std::iter::from_fn(|| cut.next(packet, false).map(|range| packet[range].to_vec())).collect()
    }

    pub fn core_is_silent(&self, worker: usize) -> bool {
        let core = &self.seats[worker].core;
        core.set_read_timeout(Some(Duration::from_millis(150))).expect("timeout");
        let silent = core.recv(&mut [0; 2048]).is_err();
        core.set_read_timeout(Some(PATIENCE)).expect("timeout");
        silent
    }

    /// The core sends an inner packet.
    pub fn to_ue(&self, worker: usize, packet: &[u8]) {
        self.to_ue_offloaded(worker, &VirtioHeader::default(), packet);
    }

    /// The core sends what `virtio` says.
    pub fn to_ue_offloaded(&self, worker: usize, virtio: &VirtioHeader, packet: &[u8]) {
        let with_header = [&virtio.encode()[..], packet].concat();
        self.seats[worker].core.send(&with_header).expect("the device takes it");
    }
}

/// A device that always has room, as a TUN has: a socket pair holds but a few packets.
struct Patient(TunQueue);

impl AsFd for Patient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl InnerDevice for Patient {
    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.0.read(buffer)
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        loop {
            match self.0.write(parts) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                result => return result,
            }
        }
    }

    fn offloads(&self) -> Offloads {
        self.0.offloads()
    }
}

/// A device that takes super-packets.
pub struct Offloading(pub TunQueue);

impl AsFd for Offloading {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl InnerDevice for Offloading {
    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.0.read(buffer)
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.write(parts)
    }

    fn offloads(&self) -> Offloads {
        Offloads { tcp: true, udp: true, ..Offloads::default() }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for worker in 0..self.seats.len() {
            self.order(worker, ToWorker::Stop);
        }
        for thread in self.threads.drain(..) {
            thread.join().expect("no worker panicked");
        }
    }
}

/// Session `number` on `worker`, and the connection on which it has sent a packet.
pub fn attached(rig: &Rig, worker: usize, number: u8) -> (Ue, Peer) {
    let mut ue = Ue::install(rig, worker, number);
    let mut peer = Peer::connect(rig, worker);
    peer.send(&ue.frame_to(CORE, b"attach"));
    rig.core_receives(worker);
    (ue, peer)
}

/// A UE's end of one session.
pub struct Ue {
    pub session: SessionId,
    pub addr: Ipv4Addr,
    pub addr6: Ipv6Addr,
    pub spi_in: EspSpi,
    pub outbound: OutboundSa,
    pub inbound: InboundSa,
}

impl Ue {
    /// Installs session `number` on `worker` and waits until it is in force.
    pub fn install(rig: &Rig, worker: usize, number: u8) -> Self {
        let spi_in = WorkerId(worker as u8).spi(0x1_0000 * (u32::from(number) + 1)).expect("not reserved");
        let ue = Self::install_child(rig, worker, number, spi_in, None);
        rig.fence(worker);
        ue
    }

    /// As [`Self::install`], with AES-CBC and HMAC: the worker opens such packets in batches.
    pub fn install_cbc(rig: &Rig, worker: usize, number: u8) -> Self {
        let spi_in = WorkerId(worker as u8).spi(0x1_0000 * (u32::from(number) + 1)).expect("not reserved");
        let suite =
            EspSuite { cipher: EspCipher::Aes256Cbc, integ: Some(EspInteg::HmacSha2_256_128), esn: true };
        let ue = Self::install_suite(rig, worker, number.into(), spi_in, None, suite);
        rig.fence(worker);
        ue
    }

    /// Installs sessions `first` to `first + count - 1`.
    pub fn install_many(rig: &Rig, worker: usize, first: u32, count: u32) -> Vec<Self> {
        let install = |number: u32| {
            let spi_in = WorkerId(worker as u8).spi(0x4000_0000 + (number << 8)).expect("not reserved");
            Self::install_suite(rig, worker, number, spi_in, None, SUITE)
        };
        let ues = (first..first + count).map(install).collect();
        rig.fence(worker);
        ues
    }

    /// A Child SA of this UE that the worker does not know yet, with its Install.
    pub fn offered(&self, worker: usize, spi_in: EspSpi) -> (Self, Box<ChildInstall>) {
        Self::child(worker, u32::from(self.addr.octets()[3]) - 1, spi_in, None, SUITE)
    }

    pub fn install_child(
        rig: &Rig,
        worker: usize,
        number: u8,
        spi_in: EspSpi,
        replaces: Option<EspSpi>,
    ) -> Self {
        Self::install_suite(rig, worker, number.into(), spi_in, replaces, SUITE)
    }

    fn install_suite(
        rig: &Rig,
        worker: usize,
        number: u32,
        spi_in: EspSpi,
        replaces: Option<EspSpi>,
        suite: EspSuite,
    ) -> Self {
        let (ue, install) = Self::child(worker, number, spi_in, replaces, suite);
        rig.order(worker, ToWorker::Install(install));
        ue
    }

    /// Installs a session of a network with the addresses that [`Self::install`] gives `number` in the first.
    pub fn install_in(rig: &Rig, worker: usize, number: u8, network: NetworkId) -> Self {
        let own = 0x100_0000 * u32::from(network.0) + 0x1_0000 * (u32::from(number) + 1);
        let spi_in = WorkerId(worker as u8).spi(own).expect("not reserved");
        let (mut ue, mut install) = Self::child(worker, number.into(), spi_in, None, SUITE);
        ue.session = SessionId(ue.session.0 + 1_000 * u64::from(network.0));
        (install.session, install.network) = (ue.session, network);
        rig.order(worker, ToWorker::Install(install));
        rig.fence(worker);
        ue
    }

    fn child(
        worker: usize,
        number: u32,
        spi_in: EspSpi,
        replaces: Option<EspSpi>,
        suite: EspSuite,
    ) -> (Self, Box<ChildInstall>) {
        let spi_out = EspSpi(0xe000_0000 | spi_in.0);
        let keys = |octet: u8| EspKeys::new(&suite, &vec![octet; suite.keymat_len()]).expect("right length");
        let addr = Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 1).to_bits() + number);
        let addr6 = ue_addr6(number + 1);
        let any =
            |addr: IpAddr, last: IpAddr| TsRange { first: addr, last, protocol: 0, ports: (0, u16::MAX) };
        let install = ChildInstall {
            session: SessionId(u64::from(number)),
            worker: WorkerId(worker as u8),
            network: NetworkId(0),
            spi_in,
            spi_out,
            suite,
            keys_in: keys(1),
            keys_out: keys(2),
            local_ts: vec![
                any([0, 0, 0, 0].into(), [255, 255, 255, 255].into()),
                any([0; 8].into(), [0xffff; 8].into()),
            ],
            remote_ts: vec![any(addr.into(), addr.into()), any(addr6.into(), addr6.into())],
            inner: vec![addr.into(), addr6.into()],
            replaces,
            replay_window: 128,
        };
        let ue = Self {
            session: SessionId(u64::from(number)),
            addr,
            addr6,
            spi_in,
            outbound: OutboundSa::new(spi_in, suite, keys(1), &mut OsRandom),
            inbound: InboundSa::new(spi_out, suite, keys(2), 128),
        };
        (ue, Box::new(install))
    }

    /// The next ESP frame of this UE, with its Length, carrying a UDP packet to `dst`.
    pub fn frame_to(&mut self, dst: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let packet = udp(self.addr, dst, payload);
        self.frame(&packet)
    }

    pub fn frame(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; self.outbound.frame_len(packet.len())];
        let len = self.outbound.seal_frame(packet, &mut frame).expect("sealed");
        frame.truncate(len);
        frame
    }

    /// Opens a downlink frame's body.
    pub fn open(&mut self, mut body: Vec<u8>) -> Vec<u8> {
        let opened = self.inbound.open(&mut body).expect("authentic");
        body[opened.payload].to_vec()
    }
}

/// A connection to a worker.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    /// Connects and sends the prefix.
    pub fn connect(rig: &Rig, worker: usize) -> Self {
        let mut peer = Self::connect_bare(rig, worker);
        peer.send(b"IKETCP");
        peer
    }

    pub fn connect_bare(rig: &Rig, worker: usize) -> Self {
        let stream = TcpStream::connect(rig.seats[worker].addr).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self { stream }
    }

    pub fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).expect("sent");
    }

    /// The body of the next frame.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 2];
        self.stream.read_exact(&mut length).expect("a frame arrives");
        let mut body = vec![0; usize::from(u16::from_be_bytes(length)) - 2];
        self.stream.read_exact(&mut body).expect("the frame is whole");
        body
    }

    /// Whether the gateway closes the connection without having sent anything.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 1]) {
            Ok(octets) => octets == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Whether nothing arrives and the connection stays.
    pub fn is_quiet(&mut self) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
        let kind = self.stream.read(&mut [0; 1]).err().map(|error| error.kind());
        self.stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        matches!(kind, Some(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
    }
}

/// The IPv6 address of UE `number`, counted from 1.
fn ue_addr6(number: u32) -> Ipv6Addr {
    Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, number as u16)
}

/// Frames an IKE message.
pub fn ike_frame(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    codec::stream::frame_ike(message, &mut frame).expect("fits");
    frame
}

/// An IPv4 UDP packet with a right header checksum.
pub fn udp(src: Ipv4Addr, dst: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    ipv4(src, dst, &[], 0x4000, &datagram(payload))
}

/// As [`udp`], with a checksum.
pub fn summed_udp(src: Ipv4Addr, dst: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = datagram(payload);
    let pseudo = Checksum::new().with_pseudo_header(src.into(), dst.into(), 17, datagram.len() as u32);
    let checksum = pseudo.with(&datagram).finish().to_be_bytes();
    datagram[6..8].copy_from_slice(&checksum);
    ipv4(src, dst, &[], 0x4000, &datagram)
}

/// A UDP datagram without a checksum.
pub fn datagram(payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    let mut datagram = [4000u16, 5000, len, 0].map(u16::to_be_bytes).concat();
    datagram.extend(payload);
    datagram
}

/// An IPv4 packet of UDP with a right header checksum: `options` of whole words, flags and fragment offset.
pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, options: &[u8], fragment: u16, data: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut packet = vec![0x40 | (header_len / 4) as u8, 0];
    packet.extend(((header_len + data.len()) as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, 17, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(options);
    let checksum = Checksum::new().with(&packet).finish();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(data);
    packet
}

/// An IPv6 packet whose first header behind the fixed one is `next`.
pub fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, data: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((data.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(data);
    packet
}
