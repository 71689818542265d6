//! Properties of IKE messages: what is built decodes to the same, and no octets make a decoder panic.

use codec::SeededRandom;
use codec::crypto::{IkeProposal, IkeSuite, Secret, SkKey, open_sk};
use codec::esp::{EspCipher, EspInteg, EspSpi};
use codec::fuzzing;
use codec::ike::payload::{
    ConfigAttr, IdView, KeView, NotifyView, Payload, Proposal, TrafficSelector, Transform,
};
use codec::ike::{
    CfgAttrType, CfgType, ExchangeType, Flags, IdType, IkeSpi, KeGroup, Message, MessageBuilder, MessageId,
    NotifyType, ProtocolId, TransformType,
};
use proptest::collection::vec;
use proptest::prelude::*;

mod common;
use common::{RUNS, hex};

/// Every IKE message of the captured runs.
fn messages() -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for name in RUNS {
        for frame in common::run(name).frames.iter().filter(|frame| frame.kind == "ike") {
            messages.push(hex(&frame.payload).split_off(4));
        }
    }
    messages
}

/// Every inner payload chain of the captured runs behind the type of its first payload.
fn chains() -> Vec<Vec<u8>> {
    let mut chains = Vec::new();
    for name in RUNS {
        for frame in common::run(name).frames {
            let payloads = frame.inner_payloads.unwrap_or_default();
            let mut chain = vec![payloads.first().map_or(0, |(kind, _)| *kind)];
            for (at, (_, body)) in payloads.iter().enumerate() {
                let body = hex(body);
                chain.extend([payloads.get(at + 1).map_or(0, |(kind, _)| *kind), 0]);
                chain.extend(u16::try_from(body.len() + 4).expect("short").to_be_bytes());
                chain.extend(body);
            }
            chains.push(chain);
        }
    }
    chains
}

fn suite() -> impl Strategy<Value = IkeSuite> {
    let texts = vec![
        "aes128gcm16-prfsha256-x25519",
        "aes256gcm16-prfsha384-ecp256",
        "chacha20poly1305-prfsha512-x25519",
        "aes128-sha1-modp2048",
        "aes256-sha256-modp2048",
    ];
    proptest::sample::select(texts).prop_map(|text| {
        let proposal: IkeProposal = text.parse().expect("valid keywords");
        IkeSuite {
            cipher: proposal.ciphers()[0],
            integ: proposal.integs().first().copied(),
            prf: proposal.prfs()[0],
            group: proposal.groups()[0],
        }
    })
}

fn sk_key(suite: &IkeSuite) -> SkKey {
    let encr_len = match suite.cipher {
        EspCipher::Aes128Gcm16 => 20,
        EspCipher::Aes256Gcm16 | EspCipher::ChaCha20Poly1305 => 36,
        EspCipher::Aes128Cbc => 16,
        EspCipher::Aes192Cbc | EspCipher::TripleDesCbc => 24,
        EspCipher::Aes256Cbc => 32,
    };
    let integ_len = suite.integ.map_or(0, EspInteg::key_len);
    SkKey::new(suite, &Secret::new(vec![1; encr_len]), &Secret::new(vec![2; integ_len]))
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ends = prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(first, last)| (first.into(), last.into())),
        any::<([u8; 16], [u8; 16])>().prop_map(|(first, last)| (first.into(), last.into())),
    ];
    (any::<u8>(), any::<(u16, u16)>(), ends).prop_map(|(protocol, ports, (first, last))| TrafficSelector {
        protocol,
        ports,
        first,
        last,
    })
}

fn transform() -> impl Strategy<Value = Transform> {
    (1u8..=5, any::<u16>(), any::<Option<u16>>()).prop_map(|(kind, id, key_bits)| Transform {
        kind: TransformType(kind),
        id,
        key_bits,
    })
}

fn builder(message_id: u32) -> MessageBuilder {
    MessageBuilder::new(
        IkeSpi([1; 8]),
        IkeSpi([2; 8]),
        ExchangeType::CREATE_CHILD_SA,
        Flags::new(true, false),
        MessageId(message_id),
    )
}

/// The payloads of a message in clear.
fn payloads(octets: &[u8]) -> Vec<Payload<'_>> {
    let message = Message::decode(octets).expect("our own");
    message.payloads().map(|raw| raw.expect("in bounds").decode().expect("well formed")).collect()
}

proptest! {
    #[test]
    fn r7296_3_arbitrary_octets_never_panic(octets in vec(any::<u8>(), 0..300)) {
        fuzzing::ike_message(&octets);
    }

    #[test]
    fn r7296_3_arbitrary_payload_bodies_never_panic(
        kind in 33u8..56, body in vec(any::<u8>(), 0..200), next in any::<u8>()
    ) {
        let length = u16::try_from(body.len() + 4).expect("short").to_be_bytes();
        let chain = [&[kind, next, 0, length[0], length[1]], &body[..]].concat();
        fuzzing::ike_message(&chain);
    }

    #[test]
    fn r7296_3_2_mutated_real_messages_never_panic(
        pick in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for real in [messages(), chains()] {
            let mut octets = pick.get(&real).clone();
            for (at, value) in &changes {
                let at = at.index(octets.len());
                octets[at] = *value;
            }
            fuzzing::ike_message(&octets);
            octets.truncate(cut.index(octets.len()));
            fuzzing::ike_message(&octets);
        }
    }

    #[test]
    fn r7296_3_built_payloads_decode_to_the_same(
        nonce in vec(any::<u8>(), 16..=256),
        public in vec(any::<u8>(), 1..600),
        group in any::<u16>(),
        identity in vec(any::<u8>(), 0..100),
        kind in any::<u16>(),
        data in vec(any::<u8>(), 0..300),
        spis in vec(any::<u32>(), 0..20),
        selectors in vec(selector(), 1..20),
        attributes in vec((0u16..0x8000, vec(any::<u8>(), 0..20)), 0..20),
        transforms in vec(transform(), 0..20),
        proposal_count in 1u8..8,
    ) {
        let ke = KeView { group: KeGroup(group), data: &public };
        let id = IdView { kind: IdType::KEY_ID, data: &identity };
        let notify = NotifyView { protocol: ProtocolId::ESP, spi: &[1, 2, 3, 4], kind: NotifyType(kind), data: &data };
        let spis: Vec<_> = spis.into_iter().map(EspSpi).collect();
        let attributes: Vec<_> = attributes
            .iter()
            .map(|(kind, value)| ConfigAttr { kind: CfgAttrType(*kind), value })
            .collect();
        let proposals: Vec<_> = (1..=proposal_count)
            .map(|number| Proposal { number, protocol: ProtocolId::IKE, spi: &nonce[..8], transforms: &transforms })
            .collect();
        let mut message = builder(7);
        message
            .sa(&proposals)
            .nonce(&nonce)
            .ke(&ke)
            .id_i(&id)
            .notify_view(&notify)
            .delete_esp(&spis)
            .ts_i(&selectors)
            .config(CfgType::REPLY, &attributes);
        let octets = message.finish().expect("short");
        let decoded = payloads(&octets);
        let [
            Payload::Sa(sa), Payload::Nonce(got_nonce), Payload::Ke(got_ke), Payload::IdI(got_id),
            Payload::Notify(got_notify), Payload::Delete(delete), Payload::TsI(ts), Payload::Config(config),
        ] = decoded[..] else { panic!("{decoded:?}") };
        prop_assert!(sa.is_numbered_as_offer());
        prop_assert_eq!(sa.proposals().count(), usize::from(proposal_count));
        for proposal in sa.proposals() {
            let known: Vec<_> = proposal.transforms().map(|it| it.known().expect("known")).collect();
            prop_assert_eq!(&known, &transforms);
        }
        prop_assert_eq!(got_nonce.data, nonce);
        prop_assert_eq!(got_ke, ke);
        prop_assert_eq!(got_id, id);
        prop_assert_eq!(got_notify, notify);
        prop_assert_eq!(delete.esp_spis().collect::<Vec<_>>(), spis);
        prop_assert_eq!(ts.selectors().collect::<Vec<_>>(), selectors);
        prop_assert_eq!(config.attributes().collect::<Vec<_>>(), attributes);
    }

    #[test]
    fn r7296_3_14_sealed_messages_open_and_damaged_ones_do_not(
        suite in suite(),
        data in vec(any::<u8>(), 0..2000),
        seed in any::<u64>(),
        damage in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut key = sk_key(&suite);
        let mut message = builder(1);
        message.notify(NotifyType::COOKIE, &data);
        let sealed = message.seal(&mut key, &mut SeededRandom::new(seed)).expect("short");
        let mut opened = sealed.clone();
        let content = open_sk(&mut opened, &key).expect("the same key");
        prop_assert_eq!(&opened[content.inner][8..], &data[..]);
        let mut damaged = sealed.clone();
        damaged[damage.index(sealed.len())] ^= 1 << bit;
        prop_assert!(open_sk(&mut damaged, &key).is_err());
        prop_assert!(open_sk(&mut sealed[..damage.index(sealed.len())].to_vec(), &key).is_err());
    }
}
