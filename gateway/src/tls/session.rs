//! The record layer of one connection.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, UnbufferedConnectionCommon, UnbufferedStatus,
};

/// Octets of the stream in one record (RFC 8446 §5.1).
const RECORD_LEN: usize = 16 * 1024;

/// Most octets that a record adds to what is in it: header, explicit nonce or content type, tag.
const RECORD_OVERHEAD: usize = 32;

/// Octets of a record's header (RFC 8446 §5.1).
const HEADER_LEN: usize = 5;

/// Room behind a block of up to 256 KB in which it becomes records: what sixteen of them add, and a key update in
/// front of them.
pub const SEALED_ROOM: usize = 17 * RECORD_OVERHEAD + 64;

/// Most octets kept of what cannot be used yet: the longest handshake message (RFC 8446 §4 allows more, rustls does
/// not) and an unfinished record behind it.
pub const CARRY_MAX: usize = 64 * 1024 + 18 * 1024;

/// Most octets that sealing makes of so many.
pub const fn sealed_len_max(plain: usize) -> usize {
    plain + (plain / RECORD_LEN + 2) * RECORD_OVERHEAD + 64
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The handshake came to nothing.
    #[error("handshake: {0}")]
    Handshake(rustls::Error),
    /// After it, a record that is none or does not verify, or a message out of place.
    #[error("record: {0}")]
    Record(rustls::Error),
    /// More than [`CARRY_MAX`] octets that make nothing whole.
    #[error("a message of more than {CARRY_MAX} octets")]
    TooLong,
    /// Nothing may be sent: not yet, not any more, or the keys are used up.
    #[error("nothing can be sent")]
    NotOpen,
}

/// One end of one TLS connection.
///
/// After [`Session::receive`] and [`Session::close`] there may be [`Session::take_output`], which goes out before
/// anything sealed later. What [`Session::seal`] yields must be sent in the order it was sealed.
pub struct Session {
    side: Side,
    /// From the first octet that could not be used yet; empty while no record is unfinished.
    carry: Vec<u8>,
    /// Handshake, tickets and alerts to be sent.
    output: Vec<u8>,
    peer_closed: bool,
    /// Nothing that comes is looked at any more.
    failed: bool,
    /// A close_notify is on its way: nothing more is sealed.
    closed: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What the two ends of rustls have in common, but for a name.
trait Process {
    type Data;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Process for UnbufferedConnectionCommon<ServerConnectionData> {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

impl Process for UnbufferedConnectionCommon<ClientConnectionData> {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

/// How far a piece of input led.
#[derive(Default)]
struct Progress {
    /// Octets at its front that are done with.
    used: usize,
    peer_closed: bool,
    error: Option<rustls::Error>,
}

impl Session {
    /// The server's end.
    pub fn server(connection: UnbufferedServerConnection) -> Self {
        Self::new(Side::Server(connection))
    }

    /// The client's end; its first [`Session::receive`], of nothing, yields the ClientHello.
    pub fn client(connection: UnbufferedClientConnection) -> Self {
        Self::new(Side::Client(connection))
    }

    fn new(side: Side) -> Self {
        Self { side, carry: Vec::new(), output: Vec::new(), peer_closed: false, failed: false, closed: false }
    }

    /// Whether the handshake is done, so that [`Session::seal`] works.
    pub fn is_established(&self) -> bool {
        !self.failed
            && match &self.side {
                Side::Server(connection) => !connection.is_handshaking(),
                Side::Client(connection) => !connection.is_handshaking(),
            }
    }

    /// Whether the peer has said that nothing more will come (close_notify).
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether a ticket spared this handshake its certificate.
    pub fn is_resumed(&self) -> bool {
        let kind = match &self.side {
            Side::Server(connection) => connection.handshake_kind(),
            Side::Client(connection) => connection.handshake_kind(),
        };
        kind == Some(rustls::HandshakeKind::Resumed)
    }

    /// Octets of memory that an unfinished record takes.
    pub fn carry_octets(&self) -> usize {
        self.carry.capacity()
    }

    /// Takes what the socket received, decrypting it where it lies, and appends what the peer says to `plain`:
    /// never more than `input` and the unfinished record before it.
    ///
    /// # Errors
    /// When the connection is over; an alert for the peer may be in the output.
    pub fn receive(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.failed {
            return Err(TlsError::NotOpen);
        }
        let mut at = 0;
        // What straddles two inputs is completed first; of the second no more is copied than that takes.
        while at < input.len() && !self.carry.is_empty() {
            let rest = input.get(at..).unwrap_or_default();
            let taken = missing(&self.carry).min(rest.len());
            self.carry.extend_from_slice(rest.get(..taken).unwrap_or_default());
            at += taken;
            self.process_carry(plain)?;
        }
        let rest = input.get_mut(at..).unwrap_or_default();
        if self.carry.is_empty() {
            let progress = self.side.advance(rest, plain, &mut self.output);
            let left = rest.get(progress.used..).unwrap_or_default();
            self.carry.extend_from_slice(left);
            self.settle(progress)?;
        }
        Ok(())
    }

    fn process_carry(&mut self, plain: &mut Vec<u8>) -> Result<(), TlsError> {
        let progress = self.side.advance(&mut self.carry, plain, &mut self.output);
        if progress.used >= self.carry.len() {
            // An idle connection holds no buffer.
            self.carry = Vec::new();
        } else {
            self.carry.drain(..progress.used);
        }
        self.settle(progress)
    }

    fn settle(&mut self, progress: Progress) -> Result<(), TlsError> {
        self.peer_closed |= progress.peer_closed;
        let handshaking = !self.is_established();
        let error = match progress.error {
            Some(error) if handshaking => TlsError::Handshake(error),
            Some(error) => TlsError::Record(error),
            None if self.carry.len() > CARRY_MAX => TlsError::TooLong,
            None => return Ok(()),
        };
        self.failed = true;
        self.carry = Vec::new();
        Err(error)
    }

    /// What is to be sent before anything that is sealed from now on.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Octets of it.
    pub fn output_octets(&self) -> usize {
        self.output.len()
    }

    /// Puts octets in front of the handshake: the answer to an HTTP request that preceded it.
    pub(super) fn answer_first(&mut self, answer: &[u8]) {
        self.output.splice(..0, answer.iter().copied());
    }

    /// Makes records of `plain` at the start of `room`, which has [`sealed_len_max`] octets or more; returns how
    /// many they are.
    ///
    /// # Errors
    /// When nothing can be sent, or the room is too small; the connection is to be closed.
    pub fn seal(&mut self, plain: &[u8], room: &mut [u8]) -> Result<usize, TlsError> {
        if self.failed || self.closed {
            return Err(TlsError::NotOpen);
        }
        match &mut self.side {
            Side::Server(connection) => seal(&mut **connection, &mut self.carry, plain, room),
            Side::Client(connection) => seal(&mut **connection, &mut self.carry, plain, room),
        }
    }

    /// As [`Session::seal`], behind what is in `room`.
    ///
    /// # Errors
    /// As there.
    pub fn seal_into(&mut self, plain: &[u8], room: &mut Vec<u8>) -> Result<(), TlsError> {
        let start = room.len();
        room.resize(start + sealed_len_max(plain.len()), 0);
        let sealed = self.seal(plain, room.get_mut(start..).unwrap_or_default());
        room.truncate(start + sealed.as_ref().copied().unwrap_or(0));
        sealed.map(|_| ())
    }

    /// Says goodbye, once: a close_notify goes to the output (RFC 9329 Appendix B.2), unless there is no
    /// connection to close.
    pub fn close(&mut self) {
        if !self.is_established() || std::mem::replace(&mut self.closed, true) {
            return;
        }
        let mut alert = [0; 2 * RECORD_OVERHEAD + 64];
        let len = match &mut self.side {
            Side::Server(connection) => close_notify(&mut **connection, &mut self.carry, &mut alert),
            Side::Client(connection) => close_notify(&mut **connection, &mut self.carry, &mut alert),
        };
        self.output.extend_from_slice(alert.get(..len).unwrap_or_default());
    }
}

impl Side {
    fn advance(&mut self, input: &mut [u8], plain: &mut Vec<u8>, output: &mut Vec<u8>) -> Progress {
        match self {
            Self::Server(connection) => advance(&mut **connection, input, plain, output),
            Self::Client(connection) => advance(&mut **connection, input, plain, output),
        }
    }
}

/// Octets that complete the record which `carry` begins with; all there are when it is complete, as the first part of a
/// handshake message of several records is.
fn missing(carry: &[u8]) -> usize {
    let Some(header) = carry.first_chunk::<HEADER_LEN>() else { return HEADER_LEN - carry.len() };
    let len = HEADER_LEN + usize::from(u16::from_be_bytes([header[3], header[4]]));
    if len > carry.len() { len - carry.len() } else { usize::MAX }
}

/// Runs `input` through the connection until it asks for more, or fails; then what it says about that is still taken.
fn advance<C: Process>(
    connection: &mut C,
    input: &mut [u8],
    plain: &mut Vec<u8>,
    output: &mut Vec<u8>,
) -> Progress {
    let mut progress = Progress::default();
    loop {
        let rest = input.get_mut(progress.used..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state } = connection.process(rest);
        let goes_on = match state {
            Err(error) => {
                let first = progress.error.is_none();
                progress.error.get_or_insert(error);
                first
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut data, output);
                // After an error this was its alert, and the same input would make the same error again.
                progress.error.is_none()
            }
            Ok(_) if progress.error.is_some() => false,
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(Ok(record)) = traffic.next_record() {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                true
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                true
            }
            Ok(ConnectionState::PeerClosed) => {
                progress.peer_closed = true;
                true
            }
            // Early data is not offered, so none comes.
            Ok(_) => false,
        };
        progress.used += discard;
        if !goes_on {
            return progress;
        }
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, output: &mut Vec<u8>) {
    if let Err(EncodeError::InsufficientSize(missing)) = data.encode(&mut []) {
        let start = output.len();
        output.resize(start + missing.required_size, 0);
        let len = data.encode(output.get_mut(start..).unwrap_or_default()).unwrap_or(0);
        output.truncate(start + len);
    }
}

fn seal<C: Process>(
    connection: &mut C,
    carry: &mut [u8],
    plain: &[u8],
    room: &mut [u8],
) -> Result<usize, TlsError> {
    // All that is in the carry has been looked at: nothing of it is done with by asking again.
    match connection.process(carry).state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            traffic.encrypt(plain, room).map_err(|_| TlsError::NotOpen)
        }
        _ => Err(TlsError::NotOpen),
    }
}

fn close_notify<C: Process>(connection: &mut C, carry: &mut [u8], room: &mut [u8]) -> usize {
    match connection.process(carry).state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(room).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tls::settings::tests::{client, server};

    /// Moves what either side has to say until both are silent.
    fn shake(client: &mut Session, server: &mut Session) -> Result<(), TlsError> {
        let mut nothing = Vec::new();
        client.receive(&mut [], &mut nothing)?;
        loop {
            let (mut to_server, mut to_client) = (client.take_output(), Vec::new());
            server.receive(&mut to_server, &mut nothing)?;
            to_client.append(&mut server.take_output());
            if to_server.is_empty() && to_client.is_empty() {
                return Ok(());
            }
            client.receive(&mut to_client, &mut nothing)?;
        }
    }

    fn pair() -> (Session, Session) {
        let (mut client, mut server) = (client().session().unwrap(), server().session().unwrap());
        shake(&mut client, &mut server).unwrap();
        assert!(client.is_established() && server.is_established());
        (client, server)
    }

    fn sealed(session: &mut Session, plain: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        session.seal_into(plain, &mut records).unwrap();
        records
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn r9329_a_3_records_are_found_wherever_the_stream_is_cut(
            lengths in prop::collection::vec(1..40_000usize, 1..5),
            cuts in prop::collection::vec(1..20_000usize, 1..200),
        ) {
            let (mut client, mut server) = pair();
            let sent: Vec<u8> = (0..lengths.iter().sum()).map(|at: usize| at as u8).collect();
            let (mut records, mut at) = (Vec::new(), 0);
            for len in lengths {
                client.seal_into(&sent[at..at + len], &mut records).unwrap();
                at += len;
            }
            let (mut received, mut rest, mut cuts) = (Vec::new(), &mut records[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let cut = cuts.next().unwrap_or(1).min(rest.len());
                let (piece, behind) = rest.split_at_mut(cut);
                server.receive(piece, &mut received).unwrap();
                prop_assert!(server.carry.len() <= HEADER_LEN + RECORD_LEN + RECORD_OVERHEAD);
                rest = behind;
            }
            prop_assert_eq!(server.carry_octets(), 0);
            prop_assert!(received == sent);
        }

        #[test]
        fn octets_of_a_peer_that_are_no_tls_end_the_session_and_nothing_else(
            octets in prop::collection::vec(any::<u8>(), 0..400),
            cut in 0..400usize,
            established in any::<bool>(),
        ) {
            let mut server = if established { pair().1 } else { server().session().unwrap() };
            let mut octets = octets;
            let (mut plain, cut) = (Vec::new(), cut.min(octets.len()));
            let (first, second) = octets.split_at_mut(cut);
            let _ = server.receive(first, &mut plain).and_then(|()| server.receive(second, &mut plain));
            prop_assert!(plain.is_empty());
            prop_assert!(server.carry.len() <= CARRY_MAX && server.output.len() < 200);
        }

        #[test]
        fn a_flipped_octet_of_the_handshake_is_an_error_or_a_wait(at in 0..2000usize, bit in 0..8u8) {
            let (mut client, mut server) = (client().session().unwrap(), server().session().unwrap());
            let mut nothing = Vec::new();
            client.receive(&mut [], &mut nothing).unwrap();
            let mut hello = client.take_output();
            let at = at % hello.len();
            hello[at] ^= 1 << bit;
            let _ = server.receive(&mut hello, &mut nothing);
            prop_assert!(nothing.is_empty());
        }
    }

    #[test]
    fn every_octet_of_a_handshake_may_come_alone() {
        let (mut client, mut server) = (client().session().unwrap(), server().session().unwrap());
        let mut nothing = Vec::new();
        client.receive(&mut [], &mut nothing).unwrap();
        for _ in 0..4 {
            for mut octet in client.take_output() {
                server.receive(std::slice::from_mut(&mut octet), &mut nothing).unwrap();
            }
            for mut octet in server.take_output() {
                client.receive(std::slice::from_mut(&mut octet), &mut nothing).unwrap();
            }
        }
        assert!(client.is_established() && server.is_established());
        let mut answer = sealed(&mut server, b"stream");
        client.receive(&mut answer, &mut nothing).unwrap();
        assert_eq!(nothing, b"stream");
    }

    #[test]
    fn what_is_sealed_fits_the_room_kept_for_it() {
        let (_, mut server) = pair();
        for plain in [0, 1, RECORD_LEN, RECORD_LEN + 1, 256 * 1024 - SEALED_ROOM] {
            let mut room = vec![0; plain + SEALED_ROOM];
            let len = server.seal(&vec![7; plain], &mut room).unwrap();
            assert!(len <= sealed_len_max(plain));
        }
    }

    #[test]
    fn r9329_b_2_1_close_notify_goes_both_ways_and_ends_what_may_be_sent() {
        let (mut client, mut server) = pair();
        let mut last = sealed(&mut client, b"last");
        client.close();
        client.close();
        last.append(&mut client.take_output());
        let mut plain = Vec::new();
        server.receive(&mut last, &mut plain).unwrap();
        assert_eq!(plain, b"last");
        assert!(server.is_peer_closed());
        server.close();
        client.receive(&mut server.take_output(), &mut plain).unwrap();
        assert!(client.is_peer_closed());
        assert!(server.seal(b"more", &mut [0; 200]).is_err());
    }

    #[test]
    fn r9329_b_3_o1_a_second_connection_resumes_the_first() {
        let (client, server) = (client(), server());
        for resumed in [false, true] {
            let (mut near, mut far) = (client.session().unwrap(), server.session().unwrap());
            shake(&mut near, &mut far).unwrap();
            assert_eq!((near.is_resumed(), far.is_resumed()), (resumed, resumed));
        }
    }

    #[test]
    fn a_bad_client_hello_is_answered_with_an_alert() {
        let mut server = server().session().unwrap();
        // A ClientHello of six octets.
        let mut hello = b"\x16\x03\x01\x00\x0a\x01\x00\x00\x06\x03\x03abcd".to_vec();
        let error = server.receive(&mut hello, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, TlsError::Handshake(_)), "{error}");
        // RFC 8446 §6: fatal, decode_error.
        assert_eq!(server.take_output(), [21, 3, 3, 0, 2, 2, 50]);
        assert!(matches!(server.receive(&mut [0x16], &mut Vec::new()), Err(TlsError::NotOpen)));
    }
}
