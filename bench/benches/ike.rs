//! Cost of the parts of an IKE handshake: key exchange, keys, Encrypted payload, decoding, signatures.
//!
//! What a responder does per attach is one `key_exchange` of the group, one `keys`, one `sk_open` and one
//! `sk_seal`, and with certificates one signature made and one verified.

use std::hint::black_box;

use codec::OsRandom;
use codec::crypto::{
    HashSet, IkeKeys, IkeProposal, IkeSuite, KeyExchange, PrivateKey, PublicKey, RsaScheme, SUPPORTED_GROUPS,
    SaNonces, Secret, SignaturePolicy, open_sk, select_ike,
};
use codec::ike::payload::{KeView, Payload, Proposal};
use codec::ike::{
    ExchangeType, Flags, IkeSpi, KeGroup, Message, MessageBuilder, MessageId, NotifyType, PayloadType,
    ProtocolId,
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};

/// Octets of content in an Encrypted payload: a DPD answer, an IKE_AUTH with a PSK, one with certificates.
const CONTENT_LENS: [usize; 3] = [16, 256, 1500];

const SUITES: [&str; 4] = [
    "aes128gcm16-prfsha256-x25519",
    "aes256gcm16-prfsha384-ecp384",
    "chacha20poly1305-prfsha256-x25519",
    "aes256-sha256-modp2048",
];

const SPI_I: IkeSpi = IkeSpi([1; 8]);
const SPI_R: IkeSpi = IkeSpi([2; 8]);
const NONCES: SaNonces<'static> = SaNonces { initiator: &[3; 32], responder: &[4; 32] };

fn proposal(text: &str) -> IkeProposal {
    text.parse().expect("valid keywords")
}

fn suite(text: &str) -> IkeSuite {
    let proposal = proposal(text);
    IkeSuite {
        cipher: proposal.ciphers()[0],
        integ: proposal.integs().first().copied(),
        prf: proposal.prfs()[0],
        group: proposal.groups()[0],
    }
}

fn keys(suite: &IkeSuite) -> IkeKeys {
    IkeKeys::derive(suite, NONCES, &Secret::new(vec![5; 32]), SPI_I, SPI_R)
}

fn builder(exchange: ExchangeType) -> MessageBuilder {
    MessageBuilder::new(SPI_I, SPI_R, exchange, Flags::new(true, false), MessageId(0))
}

fn key_exchange(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ike/key_exchange");
    for id in SUPPORTED_GROUPS {
        let peer = KeyExchange::generate(id, &mut OsRandom).expect("supported");
        group.bench_function(BenchmarkId::from_parameter(id), |bencher| {
            bencher.iter(|| {
                let ours = KeyExchange::generate(id, &mut OsRandom).expect("supported");
                ours.agree(peer.public()).expect("valid")
            });
        });
    }
}

fn derive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ike/keys");
    for text in SUITES {
        let suite = suite(text);
        group.bench_function(text, |bencher| bencher.iter(|| keys(black_box(&suite))));
    }
}

fn sealed_payload(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ike/sk");
    for text in SUITES {
        let suite = suite(text);
        let keys = keys(&suite);
        for len in CONTENT_LENS {
            let content = vec![6; len];
            let seal = |key: &mut codec::crypto::SkKey| {
                let mut message = builder(ExchangeType::IKE_AUTH);
                message.notify(NotifyType::COOKIE, &content);
                message.seal(key, &mut OsRandom).expect("short")
            };
            let mut key = keys.initiator_key(&suite);
            let sealed = seal(&mut key);
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::new(format!("seal/{text}"), len), |bencher| {
                bencher.iter(|| seal(&mut key));
            });
            let key = keys.initiator_key(&suite);
            group.bench_function(BenchmarkId::new(format!("open/{text}"), len), |bencher| {
                let open = |mut message: Vec<u8>| open_sk(&mut message, &key).expect("authentic");
                bencher.iter_batched(|| sealed.clone(), open, BatchSize::SmallInput);
            });
        }
    }
}

/// An IKE_SA_INIT request that offers two proposals with thirteen transforms.
fn init_request() -> Vec<u8> {
    let transforms =
        ["aes256-aes128-sha256-sha384-x25519-modp2048", "aes128gcm16-prfsha256-prfsha384-x25519-modp2048"]
            .map(|text| proposal(text).transforms());
    let proposals: Vec<_> = transforms
        .iter()
        .zip(1..)
        .map(|(transforms, number)| Proposal { number, protocol: ProtocolId::IKE, spi: &[], transforms })
        .collect();
    let mut message = builder(ExchangeType::IKE_SA_INIT);
    message
        .sa(&proposals)
        .ke(&KeView { group: KeGroup::CURVE25519, data: &[7; 32] })
        .nonce(&[8; 32])
        .notify(NotifyType::NAT_DETECTION_SOURCE_IP, &[9; 20])
        .notify(NotifyType::NAT_DETECTION_DESTINATION_IP, &[9; 20])
        .notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[])
        .notify(NotifyType::SIGNATURE_HASH_ALGORITHMS, &HashSet::notify_data());
    message.finish().expect("short")
}

fn decode(criterion: &mut Criterion) {
    let octets = init_request();
    let mut group = criterion.benchmark_group("ike/decode");
    group.bench_function("ike_sa_init", |bencher| {
        bencher.iter(|| {
            let message = Message::decode(black_box(&octets)).expect("our own");
            for raw in message.payloads() {
                black_box(raw.expect("in bounds").decode().expect("well formed"));
            }
        });
    });
    let configured = SUITES.map(proposal);
    group.bench_function("ike_sa_init_and_select", |bencher| {
        bencher.iter(|| {
            let message = Message::decode(black_box(&octets)).expect("our own");
            let mut payloads = message.payloads().map(|raw| raw.expect("in bounds"));
            let raw = payloads.find(|raw| raw.kind == PayloadType::SA).expect("an offer");
            let Ok(Payload::Sa(sa)) = raw.decode() else { panic!("an SA payload") };
            select_ike(&configured, &sa, KeGroup::CURVE25519).expect("acceptable")
        });
    });
}

fn signatures(criterion: &mut Criterion) {
    let keys = [
        ("rsa2048", &include_bytes!("../../codec/tests/keys/rsa2048.pem")[..]),
        ("p256", include_bytes!("../../codec/tests/keys/p256.pem")),
        ("p384", include_bytes!("../../codec/tests/keys/p384.pem")),
        ("ed25519", include_bytes!("../../codec/tests/keys/ed25519.pem")),
    ];
    let octets = vec![1; 400];
    let hashes: HashSet = HashSet::OURS.into_iter().collect();
    let mut group = criterion.benchmark_group("ike/signature");
    for (name, pem) in keys {
        let private = PrivateKey::from_pem(pem).expect("a good key");
        let sign = || private.sign(Some(hashes), RsaScheme::Pss, &octets).expect("a common hash");
        group.bench_function(BenchmarkId::new("sign", name), |bencher| bencher.iter(sign));
        let auth = sign();
        let public = PublicKey::from_spki(private.spki()).expect("a good key");
        let policy = SignaturePolicy::default();
        group.bench_function(BenchmarkId::new("verify", name), |bencher| {
            bencher.iter(|| public.verify(auth.method, &auth.data, &octets, policy).expect("our own"));
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    key_exchange(&mut criterion);
    derive(&mut criterion);
    sealed_payload(&mut criterion);
    decode(&mut criterion);
    signatures(&mut criterion);
    criterion.final_summary();
}
