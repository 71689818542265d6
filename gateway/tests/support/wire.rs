//! What a bridge passes on, as a scripted peer writes and reads it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use codec::ike::{ExchangeType, Flags, HEADER_LEN, IkeHeader, IkeSpi, MessageId, PayloadType, Version};
use codec::stream::NON_ESP_MARKER;

/// How long nothing comes where nothing must.
pub const QUIET: Duration = Duration::from_millis(300);

pub fn ike(spi: u8, id: u32, exchange: ExchangeType, response: bool, body: &[u8]) -> Vec<u8> {
    let header = IkeHeader {
        spi_i: IkeSpi([spi; 8]),
        spi_r: IkeSpi([if id == 0 && !response { 0 } else { 9 }; 8]),
        next_payload: PayloadType::ENCRYPTED,
        version: Version::IKEV2,
        exchange,
        flags: Flags::new(!response, response),
        message_id: MessageId(id),
        length: (HEADER_LEN + body.len()) as u32,
    };
    let mut message = Vec::new();
    header.encode(&mut message);
    message.extend_from_slice(body);
    message
}

pub fn esp(spi: u32, sequence: u32, len: usize) -> Vec<u8> {
    let mut packet = [spi.to_be_bytes(), sequence.to_be_bytes()].concat();
    packet.resize(len, sequence as u8);
    packet
}

pub fn marked(message: &[u8]) -> Vec<u8> {
    [&NON_ESP_MARKER, message].concat()
}

pub fn send_frame(stream: &mut impl Write, body: &[u8]) {
    let length = (body.len() + 2) as u16;
    stream.write_all(&[&length.to_be_bytes(), body].concat()).expect("sent");
}

pub fn receive_frame(stream: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a frame");
    let mut body = vec![0; usize::from(u16::from_be_bytes(length)) - 2];
    stream.read_exact(&mut body).expect("its body");
    body
}

/// Nothing arrives, and the connection stays open.
pub fn is_quiet(stream: &mut TcpStream) -> bool {
    let before = stream.read_timeout().expect("known");
    stream.set_read_timeout(Some(QUIET)).expect("a timeout");
    let read = stream.read(&mut [0; 1]);
    stream.set_read_timeout(before).expect("a timeout");
    read.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}
