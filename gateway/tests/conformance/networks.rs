//! Two inner networks, one in a namespace of its own, with the same addresses on both sides of the gateway.
//!
//! ```text
//!   gateway, device swu0 ---------------------- 10.77.0.2 core
//!   namespace `two`, device swu1, 10.77.0.1 --- 10.77.0.2 far
//! ```

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::client::{Client, Conn, udp};
use crate::lab::{CORE, CORE_PORT, Lab, PATIENCE, Setup, batch};
use crate::process::{Namespace, ip, is_root};
use crate::ue::UeConfig;

/// The second network: its namespace and the host behind it.
struct Second {
    two: Namespace,
    _far: Namespace,
    socket: UdpSocket,
}

impl Second {
    fn new(number: u32) -> Self {
        let (two, far) = (Namespace::new(&format!("swn{number}t")), Namespace::new(&format!("swn{number}f")));
        ip(&["-n", &two.0, "link", "add", "far0", "type", "veth", "peer", "name", "two0", "netns", &far.0]);
        batch(&two.0, "link set far0 up\naddr add 10.77.0.1/24 dev far0\n");
        batch(
            &far.0,
            "link set two0 up\naddr add 10.77.0.2/24 dev two0\nroute add 10.64.0.0/16 via 10.77.0.1\n",
        );
        two.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("root may"));
        let socket = far.inside(|| UdpSocket::bind((CORE, CORE_PORT)).expect("a free port"));
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { two, _far: far, socket }
    }

    fn tables(&self) -> String {
        let netns = &self.two.0;
        format!(
            r#"[[inner]]
name = "one"
device = "swu0"
[[inner]]
name = "two"
device = "swu0"
netns = "{netns}"
[[pool]]
name = "one"
prefixes = ["10.64.0.0/16"]
[[pool]]
name = "two"
inner = "two"
prefixes = ["10.64.0.0/16"]
[[profile]]
name = "one"
inner = "one"
match = {{ idi = "ue1.test" }}
auth = "psk"
secrets_file = "secrets.toml"
[[profile]]
name = "two"
inner = "two"
auth = "psk"
secrets_file = "secrets.toml"
"#
        )
    }

    fn receives(&self) -> (SocketAddr, Vec<u8>) {
        let mut buffer = [0; 2048];
        let (len, from) = self.socket.recv_from(&mut buffer).expect("a packet reaches the far host");
        (from, buffer[..len].to_vec())
    }

    fn is_silent(&self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let silent = self.socket.recv_from(&mut [0; 2048]).is_err();
        self.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        silent
    }
}

fn start(workers: u32) -> Option<(Second, Lab)> {
    if !is_root() {
        return None;
    }
    let second = Second::new(workers);
    let setup = Setup { workers: Some(workers), tables: Some(second.tables()), ..Setup::default() };
    Some((second, Lab::start(setup)?))
}

fn each_reaches_its_own(workers: u32) {
    let Some((second, lab)) = start(workers) else { return };
    let (mut one, mut two) = (Client::attach(1), Client::attach(2));
    assert_eq!(one.addr, two.addr, "the pools are the same");
    let from: SocketAddr = (one.addr, 4000).into();
    for round in 0..10u8 {
        one.send(&[1, round]);
        two.send(&[2, round]);
        assert_eq!(lab.at_core(), (from, vec![1, round]));
        assert_eq!(second.receives(), (from, vec![2, round]));
        lab.to_ue(one.addr.into(), &[3, round]);
        second.socket.send_to(&[4, round], from).expect("the far host has a route");
        assert_eq!(one.receive(), [3, round]);
        assert_eq!(two.receive(), [4, round]);
    }
    assert!(lab.core_is_silent() && second.is_silent());
    // One goes, and the other does not notice.
    let delete = one.ue.informational(|builder| _ = builder.delete_ike());
    one.exchange(&delete);
    lab.until("one session", 1, |lab| lab.sessions().len());
    second.socket.send_to(b"still", from).expect("the far host has a route");
    assert_eq!(two.receive(), b"still");
}

#[test]
fn ues_of_two_networks_share_an_address_and_nothing_else() {
    each_reaches_its_own(1);
}

#[test]
fn ues_of_two_networks_on_two_workers() {
    each_reaches_its_own(2);
}

/// The namespace's own addresses are the gateway's in that network, those that come later too, and not in the other.
#[test]
fn own_addresses_are_those_of_the_namespace() {
    let Some((second, lab)) = start(3) else { return };
    let (mut one, mut two) = (Client::attach(1), Client::attach_on(Conn::open(), UeConfig::new(2)));
    let to = |client: &mut Client, addr: [u8; 4]| {
        let packet = udp(client.addr, addr.into(), (4000, CORE_PORT), b"own", 0);
        let frame = client.seal(&packet);
        client.conn.send(&frame);
    };
    to(&mut two, [10, 77, 0, 1]);
    lab.until("to its own address", 1, |lab| lab.drops("to_gateway"));
    batch(&second.two.0, "addr add 10.99.0.1/32 dev lo\n");
    let before = lab.drops("to_gateway");
    for _ in 0..100 {
        to(&mut two, [10, 99, 0, 1]);
        std::thread::sleep(Duration::from_millis(50));
        if lab.drops("to_gateway") > before {
            break;
        }
    }
    assert!(lab.drops("to_gateway") > before, "a change in the namespace is noticed");
    let before = lab.drops("to_gateway");
    to(&mut one, [10, 99, 0, 1]);
    one.send(b"and on");
    assert_eq!(lab.at_core().1, b"and on");
    assert_eq!(lab.drops("to_gateway"), before, "it is nobody's in the first network");
}
