//! IKE alone over TCP 500, ESP over UDP 4500 (draft-ietf-ipsecme-ike-tcp).

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};

use codec::ike::{IkeHeader, NotifyType};

use crate::client::{Client, Conn};
use crate::lab::{GATEWAY, HOME, Lab, PATIENCE, Setup, dial};
use crate::ue::{Decoded, Ue, UeConfig};

const LISTEN: &str = r#"["10.20.0.1:4500"]
udp = ["10.20.0.1:500", "10.20.0.1:4500"]
ike_tcp = ["10.20.0.1:500"]
ike_tcp_notify = 50000"#;

fn served() -> Setup {
    Setup { listen: Some(LISTEN), profile: "transports = [\"udp\"]", ..Setup::default() }
}

fn connect() -> TcpStream {
    dial((HOME, 0).into(), (GATEWAY, 500).into()).expect("the gateway listens")
}

fn exchange(stream: &mut TcpStream, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).expect("sent");
    let mut message = vec![0; 28];
    stream.read_exact(&mut message).expect("a header");
    let length = IkeHeader::decode(&message).expect("IKE at once").length as usize;
    message.resize(length, 0);
    stream.read_exact(&mut message[28..]).expect("the rest");
    message
}

fn udp() -> UdpSocket {
    let socket = UdpSocket::bind((HOME, 0)).expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

#[test]
fn nir_2_2_1_and_2_2_4_and_3_2_2_ike_over_tcp_500_and_esp_over_udp_4500() {
    let Some(lab) = Lab::start(served()) else { return };
    let mut ue = Ue::new(UeConfig::new(1));
    let mut stream = connect();
    let request = ue.init();
    ue.on_init(&exchange(&mut stream, &request)).expect("no error");
    // Each request on a connection of its own; it is answered although its sender has said its last.
    let mut another = connect();
    let request = ue.auth();
    another.write_all(&request).expect("sent");
    another.shutdown(Shutdown::Write).expect("open");
    let mut answer = Vec::new();
    another.read_to_end(&mut answer).expect("the answer, then the end");
    assert_eq!(ue.on_auth(&answer).error(), None);

    let mut client = Client::established(ue, Conn::bare(stream));
    let socket = udp();
    let request = client.ue.informational(|_| {});
    socket.send_to(&[&[0; 4][..], &request].concat(), (GATEWAY, 4500)).expect("sent");
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).expect("an answer");
    assert!(client.ue.open(&buffer[4..len]).is_some());
    let frame = client.frame(b"up");
    socket.send_to(&frame[2..], (GATEWAY, 4500)).expect("sent");
    assert_eq!(lab.at_core().1, b"up");
    lab.to_ue(client.addr.into(), b"down");
    let len = socket.recv(&mut buffer).expect("ESP");
    assert_eq!(client.open(buffer[..len].to_vec()), b"down");
    // IKE over TCP again leaves ESP where it is.
    let request = client.ue.informational(|_| {});
    let response = exchange(&mut connect(), &request);
    assert!(client.ue.open(&response).is_some());
    lab.to_ue(client.addr.into(), b"down");
    assert!(socket.recv(&mut buffer).is_ok());
    assert_eq!(lab.sessions()[0]["transport"], "udp");
}

#[test]
fn nir_2_2_5_over_udp_it_is_told_and_without_the_list_nobody_listens() {
    let Some(lab) = Lab::start(served()) else { return };
    let socket = udp();
    socket.send_to(&Ue::new(UeConfig::new(1)).init(), (GATEWAY, 500)).expect("sent");
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).expect("an answer");
    let answer = Decoded::clear(&buffer[..len]);
    assert_eq!(answer.notify(NotifyType(50_000)).expect("told").data, 500u16.to_be_bytes());
    drop(lab);
    let Some(_lab) = Lab::start(Setup::default()) else { return };
    assert!(dial((HOME, 0).into(), (GATEWAY, 500).into()).is_err());
}
