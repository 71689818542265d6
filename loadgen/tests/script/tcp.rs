//! The scripted gateway on TCP connections, and one UE for it.

use super::Script;
use codec::OsRandom;
use codec::stream::{Deframer, FrameKind, NON_ESP_MARKER, Next, classify, frame_ike};
use loadgen::engine::{FleetPlan, SourceSpread};
use loadgen::ue::{Credentials, Handset, Identity, UeConfig};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub const IKE: &str = "aes128gcm16-prfsha256-x25519";
pub const ESP: &str = "aes128gcm16";
const PSK: &[u8] = b"secret";

/// A gateway for the UE of [`plan`].
pub fn script() -> Script {
    Script::new(IKE, ESP, PSK)
}

/// One UE that waits so long for an answer.
pub fn plan(gateway: SocketAddr, response_timeout: Duration) -> FleetPlan {
    FleetPlan {
        gateway,
        udp: false,
        tls: None,
        ues: 1,
        rate: None,
        in_flight: 1,
        source: SourceSpread::new(Some("127.0.0.9/32".parse().unwrap())),
        congestion: None,
        config: Arc::new(UeConfig {
            ike: vec![IKE.parse().unwrap()],
            esp: vec![ESP.parse().unwrap()],
            credentials: Credentials::Psk(PSK.to_vec().into()),
            idr: None,
            gateway_id: None,
            response_timeout,
            dpd: None,
            replay_window: 64,
            handset: Handset::default(),
        }),
        who: Rc::new(|_| Identity::parse("ue@test").into()),
        random: Box::new(OsRandom),
    }
}

/// Answers requests, an octet per segment, until it has answered so many or the UE closes.
pub fn answer(stream: &mut TcpStream, script: &mut Script, requests: usize) {
    // Asserts r9329_4_o1 and r9329_6_1_o1: `responder` fails unless the stream starts with the prefix.
    let mut deframer = Deframer::responder();
    let (mut carry, mut buffer, mut answered) = (Vec::new(), [0; 4096], 0);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    while answered < requests {
        let len = stream.read(&mut buffer).unwrap();
        if len == 0 {
            return;
        }
        let mut at = 0;
        loop {
            let body = match deframer
                .next(&buffer[..len], &mut at, &mut carry)
                .expect("prefix and lengths are right")
            {
                Next::Pending => break,
                Next::InPlace(range) => buffer[range].to_vec(),
                Next::Carried => carry.clone(),
            };
            match classify(&body) {
                FrameKind::Ike => {}
                // Traffic, which nobody opens here.
                FrameKind::Esp(_) => continue,
                other => panic!("r9329_6_6_o1: no keepalives: {other:?}"),
            }
            let Some(message) = script.answer(&body[NON_ESP_MARKER.len()..]) else { continue };
            // RFC 9329 §3, §6.6: an empty frame and a keepalive in front must not matter.
            let mut out = vec![0, 2, 0, 3, 0xff];
            frame_ike(&message, &mut out).unwrap();
            for octet in out {
                stream.write_all(&[octet]).unwrap();
            }
            answered += 1;
        }
    }
}
