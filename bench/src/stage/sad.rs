//! Finding the SA of a packet.

use super::Stage;
use codec::esp::{EspCipher, EspKeys, EspSpi, EspSuite};
use codec::ip::InnerHeader;
use codec::{OsRandom, Random, SeededRandom};
use gateway::types::{ChildInstall, NetworkId, SessionId, TsRange, WorkerId};
use gateway::worker::sad::Sad;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

/// Look-ups of a run.
const LOOKUPS: usize = 1024;

/// The first UE's inner address.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);

/// UEs of a worker with one SA each, of which packets come in no order: uplink by SPI, downlink by address.
pub struct Lookup {
    sad: Sad,
    uplink: Vec<EspSpi>,
    downlink: Vec<Vec<u8>>,
}

impl Lookup {
    /// A worker with `sas` SAs.
    pub fn new(sas: u32) -> Self {
        let mut sad = Sad::default();
        (0..sas).for_each(|number| sad.install(install(number), &mut OsRandom));
        let mut random = SeededRandom::new(7);
        let mut drawn = move || {
            let mut octets = [0; 4];
            random.fill(&mut octets);
            u32::from_ne_bytes(octets) % sas
        };
        Self {
            uplink: (0..LOOKUPS).map(|_| spi(drawn())).collect(),
            downlink: (0..LOOKUPS).map(|_| packet_to(addr(drawn()))).collect(),
            sad,
        }
    }

    /// The SAs of packets from UEs.
    pub fn uplink(&mut self) {
        for spi in &self.uplink {
            black_box(self.sad.child_mut(*spi).expect("installed").session);
        }
    }

    /// The sessions and SAs of packets to UEs.
    pub fn downlink(&mut self) {
        for packet in &self.downlink {
            let inner = InnerHeader::parse(packet).expect("a sound packet");
            let session = self.sad.session_of(NetworkId(0), inner.dst).expect("assigned");
            black_box(self.sad.downlink(session, &inner).expect("admitted").0);
        }
    }
}

impl Stage for Lookup {
    fn prepare(&mut self) {}

    fn run(&mut self) {
        self.uplink();
        self.downlink();
    }

    fn packets(&self) -> usize {
        2 * LOOKUPS
    }
}

fn spi(number: u32) -> EspSpi {
    WorkerId(0).spi((number + 4) << 6).expect("not reserved")
}

fn addr(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST.to_bits() + number)
}

fn install(number: u32) -> ChildInstall {
    let suite = EspSuite { cipher: EspCipher::Aes128Gcm16, integ: None, esn: true };
    let keys = || EspKeys::new(&suite, &vec![7; suite.keymat_len()]).expect("keys of the suite's length");
    let ue = IpAddr::from(addr(number));
    let range = |first: IpAddr, last: IpAddr| TsRange { first, last, protocol: 0, ports: (0, u16::MAX) };
    ChildInstall {
        session: SessionId(number.into()),
        worker: WorkerId(0),
        network: NetworkId(0),
        spi_in: spi(number),
        spi_out: spi(number),
        suite,
        keys_in: keys(),
        keys_out: keys(),
        local_ts: vec![range(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into())],
        remote_ts: vec![range(ue, ue)],
        inner: vec![ue],
        replaces: None,
        replay_window: 128,
    }
}

/// The headers of a packet to a UE.
fn packet_to(ue: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 203, 0, 113, 9];
    packet.extend(ue.octets());
    packet.extend([0x0f, 0xa0, 0x14, 0x51, 0, 8, 0, 0]);
    packet
}
