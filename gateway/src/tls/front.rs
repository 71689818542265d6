//! What stands between a listening port and the frames.

use std::net::TcpListener;

use codec::stream::{Deframer, STREAM_PREFIX};

use super::http::{self, Head};
use super::session::{Session, TlsError};
use super::settings::TlsServer;
use crate::types::Transport;

/// First octet of a TLS record that begins a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;

/// What the streams of a listening address are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamKind {
    /// RFC 9329, nothing around it.
    Tcp,
    /// RFC 9329 inside TLS (its Appendix A).
    Tls,
    /// Either, told apart by the first octet.
    Shared,
    /// 3GPP TS 24.302 Annex F: the same frames inside TLS, which an HTTP CONNECT may precede.
    Ftt,
    /// IKE messages and nothing else (draft-ietf-ipsecme-ike-tcp).
    IkeTcp,
}

impl StreamKind {
    /// The key of `[listen]` that names such addresses.
    pub fn key(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Shared => "shared",
            Self::Ftt => "ftt",
            Self::IkeTcp => "ike_tcp",
        }
    }

    /// Whether TLS may be around it.
    pub fn may_be_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Shared | Self::Ftt)
    }

    /// What it is before TLS has begun.
    pub fn transport(self) -> Transport {
        if self == Self::IkeTcp { Transport::IkeTcp } else { Transport::Tcp }
    }

    /// How a stream from a peer is cut.
    pub fn deframer(self) -> Deframer {
        match self {
            // TS 24.302 F.2.2 speaks of envelopes from the start and names no prefix; UEs that send it are taken
            // as well.
            Self::Ftt => Deframer::lenient(),
            Self::IkeTcp => Deframer::ike_only(),
            _ => Deframer::responder(),
        }
    }
}

/// An accept queue.
pub struct StreamListener {
    /// The listening socket.
    pub socket: TcpListener,
    /// What is accepted from it.
    pub kind: StreamKind,
}

/// What a connection has before its frames; none on a port for plain TCP.
pub struct Front {
    kind: StreamKind,
    stage: Stage,
}

enum Stage {
    /// Nothing has arrived that says what it is.
    Awaiting(Awaiting),
    Session(Box<Session>),
}

/// A connection that has yet to begin.
struct Awaiting {
    server: TlsServer,
    /// The unfinished head of an HTTP request.
    head: Vec<u8>,
}

/// What became of input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// This is a plain stream, of which the input is the beginning: the front has done its work.
    Plain,
    /// What the peer says, if anything, is in the other buffer.
    Inside,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// Neither TLS nor a request that may precede it.
    #[error("neither TLS nor HTTP CONNECT")]
    Foreign,
    /// TLS failed.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
}

/// The kinds of [`FrontError`] that are counted apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Neither TLS nor a request that may precede it.
    Foreign,
    /// The TLS handshake came to nothing.
    Handshake,
    /// A record that does not verify, or a message of TLS out of place.
    Record,
}

impl FrontError {
    /// Its kind.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Foreign => Refusal::Foreign,
            Self::Tls(TlsError::Handshake(_)) => Refusal::Handshake,
            Self::Tls(_) => Refusal::Record,
        }
    }
}

impl Front {
    /// The front of a new connection on an address of `kind`; none where the stream is plain.
    pub fn new(kind: StreamKind, server: Option<&TlsServer>) -> Option<Self> {
        let server = server.filter(|_| kind.may_be_tls())?.clone();
        Some(Self { kind, stage: Stage::Awaiting(Awaiting { server, head: Vec::new() }) })
    }

    /// A client's, whose ClientHello is in the output after [`Front::receive`] of nothing.
    pub fn client(session: Session) -> Self {
        Self { kind: StreamKind::Tls, stage: Stage::Session(Box::new(session)) }
    }

    /// Whether frames too short for IKE and for ESP are keepalives.
    ///
    /// TS 24.302 F.3.2 gives the envelopes of both a Length above 6, and the UE's keep-alive (F.2.2.5) one of its
    /// own; that no longer one means anything else is our reading. None is answered.
    pub fn has_short_keepalives(&self) -> bool {
        self.kind == StreamKind::Ftt
    }

    /// Takes octets of the socket; what the peer says is appended to `plain`.
    ///
    /// # Errors
    /// When the connection is over; an alert for the peer may be in the output.
    pub fn receive(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<Said, FrontError> {
        let kind = self.kind;
        let awaiting = match &mut self.stage {
            Stage::Session(session) => {
                session.receive(input, plain)?;
                return Ok(Said::Inside);
            }
            Stage::Awaiting(awaiting) => awaiting,
        };
        match input.first() {
            None => return Ok(Said::Inside),
            Some(&first) if kind == StreamKind::Shared && first == STREAM_PREFIX[0] => {
                return Ok(Said::Plain);
            }
            Some(_) => {}
        }
        let mut session = awaiting.server.session().map_err(TlsError::Handshake)?;
        let received = if kind == StreamKind::Ftt && awaiting.is_request(input) {
            let Some(mut behind) = awaiting.request(input)? else { return Ok(Said::Inside) };
            session.answer_first(http::CONNECTED);
            session.receive(&mut behind, plain)
        } else {
            session.receive(input, plain)
        };
        self.stage = Stage::Session(Box::new(session));
        received?;
        Ok(Said::Inside)
    }

    /// The TLS connection, once there is one.
    pub fn session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Session(session) => Some(session),
            Stage::Awaiting(_) => None,
        }
    }

    /// Whether a ticket spared TLS its certificate.
    pub fn is_resumed(&self) -> bool {
        matches!(&self.stage, Stage::Session(session) if session.is_resumed())
    }

    /// Whether the stream inside has yet to begin.
    pub fn is_opening(&self) -> bool {
        match &self.stage {
            Stage::Session(session) => !session.is_established(),
            Stage::Awaiting(_) => true,
        }
    }

    /// Octets of memory that depend on what the peer left unfinished.
    pub fn carry_octets(&self) -> usize {
        match &self.stage {
            Stage::Session(session) => session.carry_octets(),
            Stage::Awaiting(awaiting) => awaiting.head.capacity(),
        }
    }

    /// Octets that are to be sent before anything that is sealed from now on.
    pub fn output_octets(&self) -> usize {
        match &self.stage {
            Stage::Session(session) => session.output_octets(),
            Stage::Awaiting(_) => 0,
        }
    }
}

impl Awaiting {
    /// Whether an HTTP request comes, or what should be one.
    fn is_request(&self, input: &[u8]) -> bool {
        !self.head.is_empty() || input.first() != Some(&HANDSHAKE)
    }

    /// Takes a piece of the request; what is behind it, once it is whole.
    fn request(&mut self, input: &[u8]) -> Result<Option<Vec<u8>>, FrontError> {
        // TS 24.302 F.2.2.2 sends the request to a proxy, which speaks TCP with us. One that forwards it instead
        // is answered here.
        self.head.extend_from_slice(input);
        match http::parse(&self.head) {
            Head::Partial => Ok(None),
            Head::Connect(len) => Ok(Some(self.head.split_off(len))),
            Head::Wrong => Err(FrontError::Foreign),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::settings::tests::{client, server};

    fn front(kind: StreamKind) -> Front {
        Front::new(kind, Some(&server())).expect("a front")
    }

    fn hello() -> Vec<u8> {
        let mut client = client().session().unwrap();
        client.receive(&mut [], &mut Vec::new()).unwrap();
        client.take_output()
    }

    /// What the front makes of `octets` in pieces of `len`; the first octets of its answer.
    fn said(kind: StreamKind, octets: &[u8], len: usize) -> (Result<Said, FrontError>, Vec<u8>) {
        let (mut front, mut octets) = (front(kind), octets.to_vec());
        let mut outcome = Ok(Said::Inside);
        for piece in octets.chunks_mut(len) {
            outcome = front.receive(piece, &mut Vec::new());
            if !matches!(outcome, Ok(Said::Inside)) {
                break;
            }
        }
        (outcome, front.session().map(Session::take_output).unwrap_or_default())
    }

    #[test]
    fn r9329_a_3_only_shared_ports_take_both_and_the_others_never_guess() {
        assert!(Front::new(StreamKind::Tcp, Some(&server())).is_none());
        for len in [1, 3, 10_000] {
            assert!(matches!(said(StreamKind::Shared, b"IKETCP", len).0, Ok(Said::Plain)));
            for kind in [StreamKind::Tls, StreamKind::Ftt] {
                assert!(said(kind, b"IKETCP\0\x20", len).0.is_err(), "{kind:?}");
            }
            for kind in [StreamKind::Tls, StreamKind::Shared, StreamKind::Ftt] {
                let (outcome, answer) = said(kind, &hello(), len);
                assert!(matches!(outcome, Ok(Said::Inside)), "{kind:?}: {outcome:?}");
                assert_eq!(answer[0], HANDSHAKE);
            }
        }
    }

    #[test]
    fn an_http_connect_precedes_tls_on_ports_for_ftt_only() {
        let request = b"CONNECT epdg.example:443 HTTP/1.1\r\nHost: epdg.example:443\r\n\r\n";
        let stream = [request.as_slice(), &hello()].concat();
        for len in [1, 50, 10_000] {
            let (outcome, answer) = said(StreamKind::Ftt, &stream, len);
            assert!(matches!(outcome, Ok(Said::Inside)), "{outcome:?}");
            assert!(answer.starts_with(http::CONNECTED) && answer[http::CONNECTED.len()] == HANDSHAKE);
            assert!(matches!(said(StreamKind::Tls, &stream, len).0, Err(FrontError::Tls(_))));
        }
        assert!(matches!(said(StreamKind::Ftt, b"GET / HTTP/1.1\r\n\r\n", 7).0, Err(FrontError::Foreign)));
    }

    #[test]
    fn a_connection_that_says_nothing_costs_no_tls() {
        let mut front = front(StreamKind::Tls);
        assert!(matches!(front.receive(&mut [], &mut Vec::new()), Ok(Said::Inside)));
        assert!(front.is_opening() && front.session().is_none());
        assert_eq!((front.carry_octets(), front.output_octets()), (0, 0));
    }
}
