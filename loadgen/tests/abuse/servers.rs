//! Servers that are no responders: each wrong in its own way.

use codec::OsRandom;
use codec::crypto::{IkeKeys, IkeProposal, SaNonces, Secret, open_sk};
use codec::ike::payload::{KeView, Proposal};
use codec::ike::{
    ExchangeType, Flags, IkeHeader, IkeSpi, KeGroup, Message, MessageBuilder, MessageId, NotifyType,
    PayloadType, ProtocolId,
};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// What `loadgen` offers by itself.
const SUITE: &str = "aes128gcm16-prfsha256-x25519";
/// Longer than any case here waits.
const DEAF: Duration = Duration::from_secs(8);

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Serve {
    /// Takes connections and never answers.
    Nobody,
    /// Sends everything back.
    Echo,
    /// Closes at once.
    Leave,
    /// Finds something to serve in whatever it gets, and never closes.
    Anything,
    /// Serves one kind of stream, the innocent one in one piece, and hangs up on all others.
    Perfection,
    /// The same, but where it would hang up it goes deaf.
    Mute,
    /// Serves one connection until it is over, then the next.
    OneByOne,
    /// Is content with a shared secret of zeros.
    Zeros,
    /// Is right: it serves whoever brings the cookie that it asks for.
    Cookies,
}

/// Starts one; returns its address. It ends with the test.
pub fn server(serve: Serve) -> String {
    listen(move |stream| {
        if serve == Serve::OneByOne {
            one(serve, stream);
        } else {
            std::thread::spawn(move || one(serve, stream));
        }
    })
}

/// Hands connections on, one after the other; returns where they come.
pub fn listen(mut take: impl FnMut(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().flatten().for_each(&mut take));
    address
}

fn one(serve: Serve, mut stream: TcpStream) {
    match serve {
        Serve::Leave => {}
        Serve::Anything => {
            anything(&mut stream);
            std::thread::sleep(DEAF);
        }
        Serve::OneByOne => anything(&mut stream),
        Serve::Zeros => {
            zeros(&mut stream);
        }
        Serve::Cookies => {
            cookies(&mut stream);
        }
        Serve::Perfection => perfection(&mut stream),
        Serve::Mute => {
            perfection(&mut stream);
            std::thread::sleep(DEAF);
        }
        Serve::Nobody | Serve::Echo => {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                if serve == Serve::Echo && stream.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
        }
    }
}

/// Answers at once, and again to every read, with what looks like the response to the SPI it saw last.
fn anything(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..read]);
        for message in messages(&seen) {
            if stream.write_all(&framed(&response(&message))).is_err() {
                return;
            }
        }
        // What is left may be the beginning of another one.
        seen.drain(..seen.len().saturating_sub(40));
    }
}

/// What looks like a marker and the header of an IKE message, wherever it lies.
fn messages(octets: &[u8]) -> Vec<Vec<u8>> {
    let is_header = |part: &[u8]| part[..4] == [0; 4] && part[4..12] != [0; 8] && part[28..30] == [0; 2];
    octets
        .windows(32)
        .filter(|part| is_header(part) && (part[22] == 34 || part[22] == 250 || part[22] == 35))
        .map(|part| part[4..].to_vec())
        .collect()
}

/// The prefix alone or with the frame, then nothing but whole frames of well-formed IKE_SA_INIT requests.
fn perfection(stream: &mut TcpStream) {
    let mut buffer = vec![0; 1 << 17];
    let Ok(first @ 6..) = stream.read(&mut buffer) else { return };
    if buffer[..6] != *b"IKETCP" {
        return;
    }
    let mut rest = buffer[6..first].to_vec();
    loop {
        if rest.is_empty() {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
            match stream.read(&mut buffer) {
                Ok(read @ 1..) => rest = buffer[..read].to_vec(),
                _ => return,
            }
        }
        let Some(message) = perfect(&rest) else { return };
        if stream.write_all(&framed(&response(&message))).is_err() {
            return;
        }
        rest.clear();
    }
}

/// One frame and no more, of the payloads that everybody sends.
fn perfect(octets: &[u8]) -> Option<Vec<u8>> {
    let length = u16::from_be_bytes([*octets.first()?, *octets.get(1)?]);
    let message = octets.get(6..)?;
    let header = IkeHeader::decode(message).ok()?;
    let good = usize::from(length) == octets.len()
        && header.length as usize == message.len()
        && header.version.0 == 0x20
        && header.flags.0 == 0x08
        && header.next_payload == PayloadType::SA
        && message.len() < 260;
    good.then(|| message.to_vec())
}

/// Serves IKE_SA_INIT, and answers what is sealed under a shared secret of zeros; `None` at the end.
fn zeros(stream: &mut TcpStream) -> Option<()> {
    stream.read_exact(&mut [0; 6]).ok()?;
    let (suite, _) = SUITE.parse::<IkeProposal>().ok()?.first_suite()?;
    let init = next_message(stream)?;
    let header = IkeHeader::decode(&init).ok()?;
    let payloads = Message::decode(&init).ok()?.payloads().filter_map(Result::ok);
    let nonce_i =
        payloads.filter(|raw| raw.kind == PayloadType::NONCE).map(|raw| raw.body.to_vec()).next()?;
    let (spi_r, nonce_r) = (IkeSpi([9; 8]), [7; 32]);
    let flags = Flags::new(false, true);
    let begin = |exchange, id| MessageBuilder::new(header.spi_i, spi_r, exchange, flags, MessageId(id));
    let mut answer = begin(ExchangeType::IKE_SA_INIT, 0);
    let transforms = SUITE.parse::<IkeProposal>().ok()?.transforms();
    answer.sa(&[Proposal { number: 1, protocol: ProtocolId::IKE, spi: &[], transforms: &transforms }]);
    answer.ke(&KeView { group: KeGroup::CURVE25519, data: &[9; 32] }).nonce(&nonce_r);
    stream.write_all(&framed(&answer.finish().ok()?)).ok()?;
    let nonces = SaNonces { initiator: &nonce_i, responder: &nonce_r };
    let keys = IkeKeys::derive(&suite, nonces, &Secret::new(vec![0; 32]), header.spi_i, spi_r);
    loop {
        let mut message = next_message(stream)?;
        if open_sk(&mut message, &keys.initiator_key(&suite)).is_ok() {
            let answer =
                begin(ExchangeType::IKE_AUTH, 1).seal(&mut keys.responder_key(&suite), &mut OsRandom);
            stream.write_all(&framed(&answer.ok()?)).ok()?;
        }
    }
}

/// Asks for a cookie where there is none, and answers a repeated request as before; `None` at the end.
fn cookies(stream: &mut TcpStream) -> Option<()> {
    const COOKIE: &[u8] = b"crumbs";
    stream.read_exact(&mut [0; 6]).ok()?;
    let mut last = (Vec::new(), Vec::new());
    loop {
        let message = next_message(stream)?;
        if last.0 != message {
            let answer = match message.windows(COOKIE.len()).any(|part| part == COOKIE) {
                true => response(&message),
                false => challenge(&message, COOKIE),
            };
            last = (message, answer);
        }
        stream.write_all(&framed(&last.1)).ok()?;
    }
}

fn challenge(request: &[u8], cookie: &[u8]) -> Vec<u8> {
    let mut spi_i = IkeSpi::ZERO;
    spi_i.0.copy_from_slice(&request[..8]);
    let flags = Flags::new(false, true);
    let mut builder =
        MessageBuilder::new(spi_i, IkeSpi::ZERO, ExchangeType::IKE_SA_INIT, flags, MessageId(0));
    builder.notify(NotifyType::COOKIE, cookie);
    builder.finish().unwrap()
}

/// The next whole IKE message of a stream, without its marker.
pub fn next_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; usize::from(u16::from_be_bytes(length)).checked_sub(2)?];
    stream.read_exact(&mut body).ok()?;
    body.get(4..).map(<[u8]>::to_vec)
}

fn response(request: &[u8]) -> Vec<u8> {
    let mut spi_i = IkeSpi::ZERO;
    spi_i.0.copy_from_slice(&request[..8]);
    // Another SPI each time, as if it were another IKE SA.
    let mut spi_r = IkeSpi([7; 8]);
    spi_r.0[..4].copy_from_slice(&std::process::id().to_be_bytes());
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    spi_r.0[4..].copy_from_slice(&count.to_be_bytes());
    let flags = Flags::new(false, true);
    let mut builder = MessageBuilder::new(spi_i, spi_r, ExchangeType::IKE_SA_INIT, flags, MessageId(0));
    let proposal: IkeProposal = SUITE.parse().unwrap();
    let transforms = proposal.transforms();
    builder.sa(&[Proposal { number: 1, protocol: ProtocolId::IKE, spi: &[], transforms: &transforms }]);
    builder.finish().unwrap()
}

pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    codec::stream::frame_ike(message, &mut frame).unwrap();
    frame
}
