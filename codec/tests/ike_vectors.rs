//! The captured libreswan and strongSwan runs, IKE side: every message is opened, every key derived again,
//! every AUTH verified, every answer chosen as the real responder chose it.

use codec::SeededRandom;
use codec::crypto::{
    ChosenEsp, EspProposal, GroupPolicy, IkeKeys, IkeProposal, IkeSuite, Prf, PublicKey, SaNonces, Secret,
    SignatureError, SignaturePolicy, SkError, SkKey, child_keymat, open_sk, open_skf, select_esp, select_ike,
    signed_octets, verify_psk_auth,
};
use codec::esp::{EspCipher, EspInteg, EspSpi, EspSuite};
use codec::ike::payload::{
    AuthView, CertView, ConfigView, DeleteView, KeView, NonceView, Payload, PayloadIter, Proposal,
    RawPayload, SaView, Transform, TsView,
};
use codec::ike::{
    AuthMethod, ExchangeType, IkeSpi, KeGroup, Message, MessageBuilder, NotifyType, PayloadType, ProtocolId,
};

mod common;
use common::{Frame, IkeSa, RUNS, Run, hex};

fn ike_spi(text: &str) -> IkeSpi {
    IkeSpi(hex(text).try_into().expect("eight octets"))
}

fn secret(text: &str) -> Secret {
    Secret::new(hex(text))
}

/// The suite by its IANA numbers.
fn suite(sa: &IkeSa) -> IkeSuite {
    let (cipher, integ) = match (sa.encr, sa.integ) {
        ((20, 256), None) => (EspCipher::Aes256Gcm16, None),
        ((12, 256), Some(12)) => (EspCipher::Aes256Cbc, Some(EspInteg::HmacSha2_256_128)),
        other => panic!("no captured run uses {other:?}"),
    };
    assert_eq!(sa.prf, 5, "all runs use HMAC-SHA2-256");
    IkeSuite { cipher, integ, prf: Prf::HmacSha2_256, group: KeGroup(sa.group) }
}

/// The IKE SA of a message, by both SPIs.
fn sa_of<'a>(run: &'a Run, message: &Message<'_>) -> &'a IkeSa {
    run.ike_sa
        .iter()
        .find(|sa| ike_spi(&sa.spi_i) == message.header.spi_i && ike_spi(&sa.spi_r) == message.header.spi_r)
        .expect("an IKE SA of the run")
}

/// The key the sender of a message used.
fn sender_key(run: &Run, message: &Message<'_>) -> SkKey {
    let sa = sa_of(run, message);
    let (sk_e, sk_a) =
        if message.header.flags.is_initiator() { (&sa.sk_ei, &sa.sk_ai) } else { (&sa.sk_er, &sa.sk_ar) };
    SkKey::new(&suite(sa), &secret(sk_e), &secret(sk_a))
}

/// A decrypted message of a run.
struct Clear {
    octets: Vec<u8>,
    /// Type of the first payload and the payload chain in clear.
    chain: (PayloadType, Vec<u8>),
}

impl Clear {
    fn message(&self) -> Message<'_> {
        Message::decode(&self.octets).expect("a real message")
    }

    fn raw(&self) -> Vec<RawPayload<'_>> {
        PayloadIter::new(self.chain.0, &self.chain.1).map(|raw| raw.expect("a real payload")).collect()
    }

    fn payloads(&self) -> Vec<Payload<'_>> {
        self.raw().iter().map(|raw| raw.decode().expect("a real payload")).collect()
    }

    fn body(&self, kind: PayloadType) -> &[u8] {
        self.raw().iter().find(|raw| raw.kind == kind).expect("the payload is there").body
    }

    fn is(&self, exchange: ExchangeType, response: bool) -> bool {
        let header = self.message().header;
        header.exchange == exchange && header.flags.is_response() == response
    }

    fn sa(&self) -> Option<SaView<'_>> {
        self.payloads().into_iter().find_map(|payload| match payload {
            Payload::Sa(sa) => Some(sa),
            _ => None,
        })
    }

    fn nonce(&self) -> Vec<u8> {
        self.body(PayloadType::NONCE).to_vec()
    }

    fn ke_group(&self) -> Option<KeGroup> {
        self.payloads().into_iter().find_map(|payload| match payload {
            Payload::Ke(ke) => Some(ke.group),
            _ => None,
        })
    }
}

fn ike_frames(run: &Run) -> impl Iterator<Item = (&Frame, Vec<u8>)> {
    run.frames.iter().filter(|frame| frame.kind == "ike").map(|frame| {
        let octets = hex(&frame.payload);
        assert_eq!(octets[..4], [0; 4], "Non-ESP Marker");
        (frame, octets[4..].to_vec())
    })
}

/// Opens every IKE message of a run. Fragments become one message, at the place of the last.
fn open_all(run: &Run) -> Vec<(&Frame, Clear)> {
    let mut opened = Vec::new();
    let mut fragments: Vec<u8> = Vec::new();
    let mut fragments_first = PayloadType::NONE;
    for (frame, octets) in ike_frames(run) {
        let message = Message::decode(&octets).expect("a real message");
        let outer = message.payloads().last().expect("a payload").expect("a real payload").kind;
        let mut copy = octets.clone();
        let chain = match outer {
            PayloadType::ENCRYPTED => {
                let content = open_sk(&mut copy, &sender_key(run, &message)).expect("authentic");
                (content.first, copy[content.inner].to_vec())
            }
            PayloadType::ENCRYPTED_FRAGMENT => {
                let part = open_skf(&mut copy, &sender_key(run, &message)).expect("authentic");
                if part.number == 1 {
                    fragments.clear();
                    fragments_first = part.first;
                }
                fragments.extend_from_slice(&copy[part.inner]);
                if part.number < part.total {
                    continue;
                }
                (fragments_first, std::mem::take(&mut fragments))
            }
            _ => (message.header.next_payload, octets[codec::ike::HEADER_LEN..].to_vec()),
        };
        opened.push((frame, Clear { octets, chain }));
    }
    opened
}

#[test]
fn r7296_3_14_every_captured_message_opens_to_its_payloads() {
    let mut opened_count = 0;
    for name in RUNS {
        let run = common::run(name);
        for (frame, clear) in open_all(&run) {
            let header = clear.message().header;
            assert_eq!(Some(header.exchange.to_string()), frame.exchange, "{name}");
            assert_eq!(Some(header.flags.is_response()), frame.response, "{name}");
            assert_eq!(Some(header.message_id.0), frame.message_id, "{name}");
            assert_eq!(clear.payloads().len(), clear.raw().len(), "every payload decodes");
            let Some(expected) = &frame.inner_payloads else { continue };
            let found: Vec<_> = clear.raw().iter().map(|raw| (raw.kind.0, raw.body.to_vec())).collect();
            let expected: Vec<_> = expected.iter().map(|(kind, body)| (*kind, hex(body))).collect();
            assert_eq!(found, expected, "{name}");
            opened_count += 1;
        }
    }
    assert!(opened_count >= 80, "only {opened_count} encrypted messages");
}

#[test]
fn r7383_2_6_captured_fragments_carry_the_certificate() {
    let run = common::run("strongswan-udp-cbc-eap-aka-frag");
    let fragments = ike_frames(&run)
        .filter(|(_, octets)| {
            Message::decode(octets).expect("a real message").header.next_payload
                == PayloadType::ENCRYPTED_FRAGMENT
        })
        .count();
    assert_eq!(fragments, 2);
    let opened = open_all(&run);
    let (_, response) = opened
        .iter()
        .find(|(_, clear)| clear.is(ExchangeType::IKE_AUTH, true))
        .expect("the fragmented response");
    assert!(matches!(
        response.payloads()[..],
        [Payload::IdR(_), Payload::Cert(_), Payload::Auth(_), Payload::Eap(_)]
    ));
}

#[test]
fn r7296_3_14_and_r5282_damaged_messages_do_not_open() {
    for name in ["libreswan-tcp-gcm", "libreswan-tcp-cbc-site"] {
        let run = common::run(name);
        let (_, octets) = ike_frames(&run).nth(2).expect("IKE_AUTH");
        let key = sender_key(&run, &Message::decode(&octets).expect("a real message"));
        assert!(open_sk(&mut octets.clone(), &key).is_ok());
        for at in 0..octets.len() {
            for bit in 0..8 {
                let mut damaged = octets.clone();
                damaged[at] ^= 1 << bit;
                assert!(open_sk(&mut damaged, &key).is_err(), "{name}: bit {bit} of octet {at}");
            }
        }
        for len in 0..octets.len() {
            let mut cut = octets[..len].to_vec();
            assert!(open_sk(&mut cut, &key).is_err(), "{name}: {len} octets");
            // The same with lengths that fit again.
            if len > 32 {
                cut[24..28].copy_from_slice(&u32::try_from(len).expect("short").to_be_bytes());
                cut[30..32].copy_from_slice(&u16::try_from(len - 28).expect("short").to_be_bytes());
                let error = open_sk(&mut cut, &key).expect_err("cut");
                assert!(matches!(error, SkError::BadIcv | SkError::TooShort), "{name}: {error}");
            }
        }
    }
}

#[test]
fn r7296_2_14_and_2_18_captured_keys_are_derived_again() {
    for name in RUNS {
        let run = common::run(name);
        let mut old: Option<&IkeSa> = None;
        for sa in &run.ike_sa {
            let (nonce_i, nonce_r) = (hex(&sa.nonce_i), hex(&sa.nonce_r));
            let nonces = SaNonces { initiator: &nonce_i, responder: &nonce_r };
            let (spi_i, spi_r) = (ike_spi(&sa.spi_i), ike_spi(&sa.spi_r));
            let shared = secret(&sa.dh_shared);
            let keys = match old {
                None => IkeKeys::derive(&suite(sa), nonces, &shared, spi_i, spi_r),
                Some(old) => {
                    let old_prf = suite(old).prf;
                    IkeKeys::rekey(&suite(sa), old_prf, &secret(&old.sk_d), nonces, &shared, spi_i, spi_r)
                }
            };
            for (derived, expected) in [
                (&keys.sk_d, &sa.sk_d),
                (&keys.sk_ai, &sa.sk_ai),
                (&keys.sk_ar, &sa.sk_ar),
                (&keys.sk_ei, &sa.sk_ei),
                (&keys.sk_er, &sa.sk_er),
                (&keys.sk_pi, &sa.sk_pi),
                (&keys.sk_pr, &sa.sk_pr),
            ] {
                assert_eq!(derived.as_bytes(), hex(expected), "{name}");
            }
            old = Some(sa);
        }
    }
}

#[test]
fn r7296_2_17_captured_child_keys_are_derived_again() {
    for name in RUNS {
        let run = common::run(name);
        let opened = open_all(&run);
        for child in &run.child_sa {
            let carries = |clear: &Clear, response: bool, spi: &str| {
                clear.message().header.flags.is_response() == response
                    && clear.sa().is_some_and(|sa| sa.proposals().any(|it| it.spi == hex(spi)))
            };
            let position = opened
                .iter()
                .position(|(_, clear)| carries(clear, true, &child.spi_r))
                .expect("the answer that made the child SA");
            let answer = &opened[position].1;
            let request = &opened[..position]
                .iter()
                .rfind(|(_, clear)| carries(clear, false, &child.spi_i))
                .expect("its request")
                .1;
            let sa = sa_of(&run, &answer.message());
            let (nonce_i, nonce_r) = if answer.is(ExchangeType::IKE_AUTH, true) {
                (hex(&sa.nonce_i), hex(&sa.nonce_r))
            } else {
                (request.nonce(), answer.nonce())
            };
            let (cipher, integ) = match (child.encr, child.integ) {
                ((20, 256), None) => (EspCipher::Aes256Gcm16, None),
                ((12, 128), Some(12)) => (EspCipher::Aes128Cbc, Some(EspInteg::HmacSha2_256_128)),
                ((12, 256), Some(12)) => (EspCipher::Aes256Cbc, Some(EspInteg::HmacSha2_256_128)),
                other => panic!("no captured run uses {other:?}"),
            };
            let esp = EspSuite { cipher, integ, esn: child.esn == 1 };
            let shared = (!child.pfs_dh_shared.is_empty()).then(|| secret(&child.pfs_dh_shared));
            let keys = child_keymat(
                suite(sa).prf,
                &secret(&sa.sk_d),
                shared.as_ref(),
                SaNonces { initiator: &nonce_i, responder: &nonce_r },
                &esp,
            );
            assert_eq!(keys.initiator.encr(), hex(&child.encr_i), "{name}");
            assert_eq!(keys.initiator.integ(), hex(&child.integ_i), "{name}");
            assert_eq!(keys.responder.encr(), hex(&child.encr_r), "{name}");
            assert_eq!(keys.responder.integ(), hex(&child.integ_r), "{name}");
        }
    }
}

/// One end's AUTH with the octets it covers.
struct Proof<'a> {
    auth: AuthView<'a>,
    octets: Vec<u8>,
    cert: Option<CertView<'a>>,
}

/// The first AUTH that the initiator or the responder sent, if its IKE_AUTH message has one.
fn proof<'a>(run: &Run, opened: &'a [(&Frame, Clear)], responder: bool) -> Option<Proof<'a>> {
    let find = |exchange| {
        opened
            .iter()
            .map(|(_, clear)| clear)
            .find(|clear| clear.is(exchange, responder))
            .expect("in every run")
    };
    let (init, auth) = (find(ExchangeType::IKE_SA_INIT), find(ExchangeType::IKE_AUTH));
    let sa = &run.ike_sa[0];
    let (nonce, sk_p, id) = if responder {
        (&sa.nonce_i, &sa.sk_pr, PayloadType::ID_R)
    } else {
        (&sa.nonce_r, &sa.sk_pi, PayloadType::ID_I)
    };
    let octets = signed_octets(suite(sa).prf, &init.octets, &hex(nonce), &secret(sk_p), auth.body(id));
    let cert = auth.payloads().into_iter().find_map(|payload| match payload {
        Payload::Cert(cert) => Some(cert),
        _ => None,
    });
    auth.payloads().into_iter().find_map(|payload| match payload {
        Payload::Auth(auth) => Some(Proof { auth, octets: octets.clone(), cert }),
        _ => None,
    })
}

#[test]
fn r7296_2_15_captured_psk_auth_verifies() {
    let mut verified_count = 0;
    for name in RUNS {
        let run = common::run(name);
        if run.auth != "psk" {
            continue;
        }
        let opened = open_all(&run);
        for responder in [false, true] {
            let Proof { auth, mut octets, .. } = proof(&run, &opened, responder).expect("AUTH");
            assert_eq!(auth.method, AuthMethod::SHARED_KEY);
            let prf = suite(&run.ike_sa[0]).prf;
            let verifies = |psk: &str, octets: &[u8]| verify_psk_auth(prf, psk.as_bytes(), octets, auth.data);
            assert!(verifies(&run.psk, &octets), "{name}");
            assert!(!verifies(&format!("{}x", run.psk), &octets), "{name}: another secret");
            octets[30] ^= 1;
            assert!(!verifies(&run.psk, &octets), "{name}: other octets");
            verified_count += 1;
        }
    }
    assert_eq!(verified_count, 8);
}

#[test]
fn r7427_3_captured_signatures_verify() {
    // libreswan signs with RSASSA-PSS and SHA2-512, strongSwan with PKCS #1 v1.5 and SHA2-256.
    for (name, ends) in
        [("libreswan-tcp-gcm-cert", &[false, true][..]), ("strongswan-udp-cbc-eap-aka-frag", &[true])]
    {
        let run = common::run(name);
        let opened = open_all(&run);
        for &responder in ends {
            let Proof { auth, mut octets, cert } = proof(&run, &opened, responder).expect("AUTH");
            assert_eq!(auth.method, AuthMethod::DIGITAL_SIGNATURE);
            let key = PublicKey::from_certificate(cert.expect("sent along").data).expect("RSA, 2048 bits");
            let policy = SignaturePolicy::default();
            assert_eq!(key.verify(auth.method, auth.data, &octets, policy), Ok(()), "{name}");
            assert_eq!(
                key.verify(AuthMethod::ECDSA_P256_SHA256, auth.data, &octets, policy),
                Err(SignatureError::WrongMethod(AuthMethod::ECDSA_P256_SHA256))
            );
            octets[0] ^= 1;
            let refused = key.verify(auth.method, auth.data, &octets, policy);
            assert_eq!(refused, Err(SignatureError::BadSignature), "{name}");
        }
    }
}

/// Encodes a payload again from what its view says.
fn encode(payload: &Payload<'_>, out: &mut Vec<u8>) {
    match payload {
        Payload::Sa(sa) => {
            let transforms: Vec<Vec<_>> = sa
                .proposals()
                .map(|proposal| proposal.transforms().map(|it| it.known().expect("known")).collect())
                .collect();
            let proposals: Vec<_> = sa
                .proposals()
                .zip(&transforms)
                .map(|(it, transforms)| Proposal {
                    number: it.number,
                    protocol: it.protocol,
                    spi: it.spi,
                    transforms,
                })
                .collect();
            SaView::encode(&proposals, out);
        }
        Payload::Ke(ke) => KeView::encode(ke, out),
        Payload::IdI(id) | Payload::IdR(id) => id.encode(out),
        Payload::Cert(cert) => cert.encode(out),
        Payload::CertReq(request) => request.encode(out),
        Payload::Auth(auth) => auth.encode(out),
        Payload::Nonce(nonce) => NonceView::encode(nonce, out),
        Payload::Notify(notify) => notify.encode(out),
        Payload::Delete(delete) if delete.protocol == ProtocolId::IKE => DeleteView::encode_ike(out),
        Payload::Delete(delete) => DeleteView::encode_esp(&delete.esp_spis().collect::<Vec<_>>(), out),
        Payload::VendorId(vendor) => vendor.encode(out),
        Payload::TsI(ts) | Payload::TsR(ts) => TsView::encode(&ts.selectors().collect::<Vec<_>>(), out),
        Payload::Config(config) => ConfigView::encode(config.kind, config.attributes(), out),
        Payload::Eap(eap) => eap.encode(out),
        Payload::Encrypted(_)
        | Payload::Fragment(_)
        | Payload::PuzzleSolution(_)
        | Payload::Unknown { .. } => {
            panic!("no captured message has {payload:?} inside")
        }
    }
}

#[test]
fn r7296_3_captured_messages_are_built_again_octet_by_octet() {
    for name in RUNS {
        let run = common::run(name);
        for (_, clear) in open_all(&run) {
            let message = clear.message();
            let header = message.header;
            let mut builder = MessageBuilder::new(
                header.spi_i,
                header.spi_r,
                header.exchange,
                header.flags,
                header.message_id,
            );
            for (raw, payload) in clear.raw().iter().zip(clear.payloads()) {
                builder.payload(raw.kind, |out| encode(&payload, out));
            }
            if header.exchange == ExchangeType::IKE_SA_INIT {
                assert_eq!(builder.finish().expect("short"), clear.octets, "{name}");
                continue;
            }
            let mut key = sender_key(&run, &message);
            let mut sealed = builder.seal(&mut key, &mut SeededRandom::new(1)).expect("short");
            let opened = open_sk(&mut sealed, &key).expect("sealed with the same key");
            assert_eq!((opened.first, &sealed[opened.inner]), (clear.chain.0, &clear.chain.1[..]), "{name}");
        }
    }
}

fn ike(texts: &[&str]) -> Vec<IkeProposal> {
    texts.iter().map(|text| text.parse().expect("valid keywords")).collect()
}

fn esp(texts: &[&str]) -> Vec<EspProposal> {
    texts.iter().map(|text| text.parse().expect("valid keywords")).collect()
}

/// Request and response of every exchange that carries SA payloads.
fn negotiations<'a>(opened: &'a [(&Frame, Clear)]) -> Vec<(&'a Clear, &'a Clear)> {
    let with_sa: Vec<_> =
        opened.iter().map(|(_, clear)| clear).filter(|clear| clear.sa().is_some()).collect();
    with_sa
        .iter()
        .filter(|clear| clear.message().header.flags.is_response())
        .map(|answer| {
            let header = answer.message().header;
            let offer = with_sa.iter().find(|offer| {
                let theirs = offer.message().header;
                theirs.spi_i == header.spi_i
                    && theirs.exchange == header.exchange
                    && !theirs.flags.is_response()
                    && theirs.flags.is_initiator() != header.flags.is_initiator()
                    && (theirs.message_id == header.message_id || header.exchange == ExchangeType::IKE_AUTH)
            });
            (*offer.expect("its request"), *answer)
        })
        .collect()
}

#[test]
fn r7296_2_7_captured_offers_are_answered_as_the_real_responders_did() {
    let ike_list = ike(&["aes256gcm16-prfsha256-ecp256", "aes256-sha256-modp2048"]);
    let esp_list = esp(&["aes256gcm16", "aes256-sha256", "aes128-sha256-noesn"]);
    let mut answer_count = 0;
    for name in RUNS {
        let run = common::run(name);
        let opened = open_all(&run);
        for (offer, answer) in negotiations(&opened) {
            let (theirs, ours) = (offer.sa().expect("filtered"), answer.sa().expect("filtered"));
            assert!(theirs.is_numbered_as_offer() && ours.is_answer(), "{name}");
            let expected = answer.body(PayloadType::SA);
            let chosen = ours.proposals().next().expect("one");
            let mut out = Vec::new();
            if chosen.protocol == ProtocolId::IKE {
                let group = offer.ke_group().expect("KE beside an IKE offer");
                let choice = select_ike(&ike_list, &theirs, group).expect("acceptable");
                assert_eq!(choice.suite.group, group, "{name}");
                choice.encode(chosen.spi, &mut out);
            } else {
                let spi = EspSpi(u32::from_be_bytes(chosen.spi.try_into().expect("four octets")));
                esp_choice(&esp_list, offer, &theirs).encode(spi, &mut out);
            }
            assert_eq!(sorted(&out), sorted(expected), "{name}: {}", offer.message().header.exchange);
            answer_count += 1;
        }
    }
    assert_eq!(answer_count, 6 + 6 + 5 + 5, "IKE_SA_INIT, IKE_AUTH, rekey of child and of IKE");
}

fn esp_choice(list: &[EspProposal], offer: &Clear, theirs: &SaView<'_>) -> ChosenEsp {
    let policy = if offer.is(ExchangeType::IKE_AUTH, false) {
        GroupPolicy::Ignore
    } else {
        GroupPolicy::Negotiate { any: &[KeGroup::ECP_256, KeGroup::MODP_2048], ke: offer.ke_group() }
    };
    let choice = select_esp(list, theirs, policy).expect("acceptable");
    assert_eq!(choice.group, offer.ke_group());
    choice
}

/// An answer with its transforms in a fixed order; theirs is up to the sender.
#[derive(PartialEq, Debug)]
struct Answer {
    number: u8,
    protocol: ProtocolId,
    spi: Vec<u8>,
    transforms: Vec<Transform>,
}

fn sorted(answer: &[u8]) -> Answer {
    let sa = SaView::decode(answer).expect("well formed");
    let proposal = sa.proposals().next().expect("one");
    let mut transforms: Vec<_> = proposal.transforms().map(|it| it.known().expect("known")).collect();
    transforms.sort_by_key(|it| (it.kind, it.id, it.key_bits));
    Answer { number: proposal.number, protocol: proposal.protocol, spi: proposal.spi.to_vec(), transforms }
}

#[test]
fn r7296_3_10_captured_rekeys_name_the_old_child() {
    let run = common::run("libreswan-tcp-gcm");
    let opened = open_all(&run);
    let named = opened.iter().flat_map(|(_, clear)| clear.payloads()).find_map(|payload| match payload {
        Payload::Notify(notify) if notify.kind == NotifyType::REKEY_SA => notify.esp_spi(),
        _ => None,
    });
    let old = u32::from_str_radix(&run.child_sa[0].spi_i, 16).expect("an SPI");
    assert_eq!(named, Some(EspSpi(old)));
}
