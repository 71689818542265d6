//! The back end over real connections, TCP and TLS, on loopback.

use std::sync::Arc;

use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use super::super::Diameter;
use super::super::message::frame_len;
use super::*;
use crate::control::aaa::{Backend, FromAaa, Outbox, SessionEnd};
use crate::tls::TlsClient;

const CHAIN: &[u8] = include_bytes!("../../../../../tests/fixtures/pki/gw-ec.pem");
const KEY: &[u8] = include_bytes!("../../../../../tests/fixtures/pki/gw-ec.key");
const ROOT: &[u8] = include_bytes!("../../../../../tests/fixtures/pki/root.pem");
const CLIENT: &[u8] = include_bytes!("../../../../../tests/fixtures/pki/client-ec.pem");
const INTERMEDIATE: &[u8] = include_bytes!("../../../../../tests/fixtures/pki/int.pem");
const CLIENT_KEY: &[u8] = include_bytes!("../../../../../tests/fixtures/pki/client-ec.key");

/// Longest a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let test = async { tokio::time::timeout(PATIENCE, test).await.expect("in time") };
    LocalSet::new().block_on(&runtime, test);
}

/// A listener that plays a server.
struct Peer(TcpListener);

impl Peer {
    async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    fn server(&self, host: Option<&str>) -> Server {
        let addr = self.0.local_addr().expect("an address");
        Server { name: addr.to_string().into(), addr, host: host.map(Into::into) }
    }

    /// The next connection, with capabilities exchanged.
    async fn accept(&self) -> Conversation<tokio::net::TcpStream> {
        let (stream, _) = self.0.accept().await.expect("a connection");
        Conversation::begin(stream).await
    }
}

struct Conversation<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    async fn begin(stream: S) -> Self {
        let mut conversation = Self(stream);
        let cer = conversation.read().await.expect("a CER");
        assert!(cer.is(command::CAPABILITIES_EXCHANGE, true));
        let cea = answer_to(&cer, |avps| swm_capability(with_result(avps, result::SUCCESS)));
        conversation.write(&cea).await;
        conversation
    }

    /// The next message; none when the connection has ended.
    async fn read(&mut self) -> Option<Sent> {
        let mut octets = vec![0; 4];
        self.0.read_exact(&mut octets).await.ok()?;
        let len = frame_len(&octets).expect("a message").expect("four octets");
        octets.resize(len, 0);
        self.0.read_exact(&mut octets[4..]).await.ok()?;
        Some(Sent(octets))
    }

    async fn write(&mut self, octets: &[u8]) {
        self.0.write_all(octets).await.expect("a connection");
        self.0.flush().await.expect("a connection");
    }
}

fn start(servers: Vec<Server>, change: impl FnOnce(&mut Settings)) -> (Diameter, UnboundedReceiver<FromAaa>) {
    let (outbox, inbox) = Outbox::new();
    let mut settings = Settings { servers, ..Settings::fuzzed() };
    change(&mut settings);
    (Diameter::start(settings, outbox), inbox)
}

fn first_step(attempt: u64) -> EapStep {
    let packet = vec![2, 1, 0, 5, 1];
    EapStep { attempt: AttemptId(attempt), backend: "a".into(), packet, subject: subject() }
}

async fn accepted(inbox: &mut UnboundedReceiver<FromAaa>) -> Box<crate::control::responder::Accepted> {
    match inbox.recv().await {
        Some(FromAaa::Answer { answer: AaaAnswer::Accept(accepted), .. }) => accepted,
        _ => panic!("not accepted"),
    }
}

/// Attach, ASR, STR, goodbye; the server's octets come one by one.
#[test]
fn a_life_over_tcp() {
    run(async {
        let peer = Peer::new().await;
        let (mut backend, mut inbox) = start(vec![peer.server(None)], |_| {});
        let now = Instant::now();
        // Before there is a connection.
        backend.step(now, first_step(1));
        let mut server = peer.accept().await;
        let der = server.read().await.expect("a DER");
        let dea = answer_to(&der, |avps| _ = granted(avps));
        for octet in dea.chunks(1) {
            server.write(octet).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(*accepted(&mut inbox).await.msk, [7; 64]);
        let session = SessionId(10);
        let (attempt, inner) = (AttemptId(1), Box::new([]));
        backend.attached(now, &Attached { attempt, session, inner, timeout: None, subject: subject() });
        assert!(backend.servers()[0].up && backend.servers()[0].accepts == 1);

        let id = der.message().text(names::SESSION_ID).expect("a Session-Id").to_owned();
        let asr =
            request(command::ABORT_SESSION, application::SWM, |avps| _ = avps.text(names::SESSION_ID, &id));
        // Two in one segment.
        let dwr = request(command::DEVICE_WATCHDOG, application::COMMON, |avps| _ = origin(avps));
        server.write(&[dwr, asr].concat()).await;
        assert!(server.read().await.expect("a DWA").is(command::DEVICE_WATCHDOG, false));
        let Some(FromAaa::Disconnect { session: SessionId(10), done }) = inbox.recv().await else {
            panic!("no disconnection")
        };
        done.send(true).expect("somebody waits");
        backend.ended(now, session, &SessionEnd::default());
        let (one, other) = (server.read().await.expect("one"), server.read().await.expect("the other"));
        let asa = [&one, &other].into_iter().find(|sent| sent.is(command::ABORT_SESSION, false));
        assert_eq!(asa.expect("an ASA").message().number(names::RESULT_CODE), Some(result::SUCCESS));
        let str_ = [one, other].into_iter().find(|sent| sent.is(command::SESSION_TERMINATION, true));
        server.write(&answer_to(&str_.expect("an STR"), success)).await;

        drop(backend);
        let dpr = server.read().await.expect("a DPR");
        assert!(dpr.is(command::DISCONNECT_PEER, true));
        server.write(&answer_to(&dpr, success)).await;
        assert!(server.read().await.is_none(), "the connection ends");
    });
}

#[test]
fn r6733_5_5_4_a_server_that_dies_is_followed_by_the_next() {
    run(async {
        let (first, second) = (Peer::new().await, Peer::new().await);
        let (mut backend, mut inbox) = start(vec![first.server(None), second.server(None)], |_| {});
        let mut one = first.accept().await;
        let mut two = second.accept().await;
        // The second is up when it answers a watchdog of its own.
        for conversation in [&mut one, &mut two] {
            let dwr = request(command::DEVICE_WATCHDOG, application::COMMON, |avps| _ = origin(avps));
            conversation.write(&dwr).await;
            assert!(conversation.read().await.expect("a DWA").is(command::DEVICE_WATCHDOG, false));
        }
        backend.step(Instant::now(), first_step(1));
        assert!(!one.read().await.expect("a DER").header().is_retransmitted());
        drop(one);
        let der = two.read().await.expect("the DER");
        assert!(der.header().is_retransmitted());
        two.write(&answer_to(&der, |avps| _ = granted(avps))).await;
        accepted(&mut inbox).await;
        // And the first is connected to again.
        first.accept().await;
    });
}

#[test]
fn octets_that_are_no_diameter_end_the_connection() {
    run(async {
        let peer = Peer::new().await;
        let (_backend, _inbox) = start(vec![peer.server(None)], |_| {});
        for octets in
            [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[1, 0xff, 0xff, 0xfc], &[1, 0, 0, 8, 0, 0, 0, 0]]
        {
            let mut server = peer.accept().await;
            server.write(octets).await;
            assert!(server.read().await.is_none());
        }
    });
}

fn acceptor() -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(ROOT).map(|found| found.expect("PEM")));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let chain = CertificateDer::pem_slice_iter(CHAIN).map(|found| found.expect("PEM")).collect();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(KEY).expect("a key"))
        .expect("the fixture");
    Arc::new(config).into()
}

fn with_tls(settings: &mut Settings) {
    let chain = [CLIENT, INTERMEDIATE].concat();
    let client = TlsClient::with_certificate(ROOT, "gw.test", &chain, CLIENT_KEY).expect("the fixture");
    settings.tls = Some(client.config());
}

#[test]
fn r6733_13_1_tls_proves_both_ends() {
    run(async {
        let peer = Peer::new().await;
        let (mut backend, mut inbox) = start(vec![peer.server(Some("gw.test"))], with_tls);
        let (stream, _) = peer.0.accept().await.expect("a connection");
        let stream = acceptor().accept(stream).await.expect("a client with a certificate");
        assert!(stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty()));
        let mut server = Conversation(stream);
        let cer = server.read().await.expect("a CER");
        let cea = answer_to(&cer, |avps| {
            avps.number(names::RESULT_CODE, result::SUCCESS).text(names::ORIGIN_HOST, "gw.test");
            swm_capability(avps);
        });
        server.write(&cea).await;
        backend.step(Instant::now(), first_step(1));
        let der = server.read().await.expect("a DER");
        server.write(&answer_to(&der, |avps| _ = granted(avps))).await;
        accepted(&mut inbox).await;
    });
}

#[test]
fn r6733_13_1_a_certificate_of_another_name_is_refused() {
    run(async {
        let peer = Peer::new().await;
        let (backend, _inbox) = start(vec![peer.server(Some("aaa.home.example"))], with_tls);
        let (stream, _) = peer.0.accept().await.expect("a connection");
        assert!(acceptor().accept(stream).await.is_err() || peer.0.accept().await.is_ok());
        assert!(!backend.servers()[0].up);
    });
}
