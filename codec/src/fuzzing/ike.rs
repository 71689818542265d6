//! What is done with a payload that decodes.

use super::ESP_SPI;
use crate::crypto::{
    EspProposal, GroupPolicy, IkeProposal, PublicKey, SignaturePolicy, select_esp, select_ike,
};
use crate::ike::payload::{ConfigView, DeleteView, Payload, Proposal, RawPayload, SaView, TsView};
use crate::ike::{AuthMethod, KeGroup, ProtocolId};

/// Uses everything a payload offers; what it says must survive encoding and decoding.
pub(super) fn look_at(raw: &RawPayload<'_>, payload: &Payload<'_>) {
    let mut out = Vec::new();
    match payload {
        Payload::Sa(sa) => return negotiate(sa),
        Payload::Ke(ke) => ke.encode(&mut out),
        Payload::IdI(id) | Payload::IdR(id) => id.encode(&mut out),
        Payload::Cert(cert) => {
            cert.encode(&mut out);
            if let Ok(key) = PublicKey::from_certificate(cert.data) {
                let refused =
                    key.verify(AuthMethod::DIGITAL_SIGNATURE, raw.body, b"", SignaturePolicy::default());
                assert!(refused.is_err(), "a certificate is no signature");
            }
        }
        Payload::CertReq(request) => {
            request.encode(&mut out);
            assert!(request.hashes().count() * 20 <= request.authorities.len());
        }
        Payload::Auth(auth) => auth.encode(&mut out),
        Payload::Nonce(nonce) => nonce.encode(&mut out),
        Payload::Notify(notify) => {
            notify.encode(&mut out);
            let _ = (notify.esp_spi(), notify.ke_group(), notify.hash_ids().count());
        }
        Payload::Delete(delete) if delete.protocol == ProtocolId::ESP => {
            DeleteView::encode_esp(&delete.esp_spis().collect::<Vec<_>>(), &mut out);
        }
        Payload::TsI(ts) | Payload::TsR(ts) => {
            let selectors: Vec<_> = ts.selectors().collect();
            TsView::encode(&selectors, &mut out);
            let again = TsView::decode(&out).map(|ts| ts.selectors().collect::<Vec<_>>());
            assert!(selectors.is_empty() || again == Ok(selectors), "selectors changed");
            return;
        }
        Payload::Config(config) => {
            ConfigView::encode(config.kind, config.attributes(), &mut out);
            let again = ConfigView::decode(&out).expect("encoded by us");
            assert!(again.attributes().eq(config.attributes()), "attributes changed");
            return;
        }
        Payload::Eap(eap) => {
            eap.encode(&mut out);
            let _ = (eap.code(), eap.identifier());
        }
        Payload::VendorId(vendor) => vendor.encode(&mut out),
        Payload::Delete(_)
        | Payload::Encrypted(_)
        | Payload::Fragment(_)
        | Payload::PuzzleSolution(_)
        | Payload::Unknown { .. } => return,
    }
    assert_eq!(out.len(), raw.body.len(), "{payload:?} changed its length");
}

/// Chooses from an offer, and expects that the choice is one of the offered.
fn negotiate(sa: &SaView<'_>) {
    let ike: Vec<IkeProposal> = ["aes128gcm16-prfsha256-x25519", "aes256-aes128-sha256-sha1-modp2048-ecp256"]
        .map(|text| text.parse().expect("valid keywords"))
        .into();
    let esp: Vec<EspProposal> = ["aes128gcm16-chacha20poly1305", "aes256-sha256-modp2048"]
        .map(|text| text.parse().expect("valid keywords"))
        .into();
    let offered = |number: u8| sa.proposals().any(|proposal| proposal.number == number);
    let mut answer = Vec::new();
    if let Some(chosen) = select_ike(&ike, sa, KeGroup::ECP_256) {
        assert!(offered(chosen.number) && ike[chosen.configured].allows(&chosen.suite));
        chosen.encode(&[], &mut answer);
        assert!(SaView::decode(&answer).expect("encoded by us").is_answer());
    }
    for groups in [
        GroupPolicy::Ignore,
        GroupPolicy::Negotiate { any: &[KeGroup::CURVE25519], ke: None },
        GroupPolicy::Negotiate { any: &[KeGroup::CURVE25519], ke: Some(KeGroup::MODP_2048) },
    ] {
        if let Some(chosen) = select_esp(&esp, sa, groups) {
            assert!(offered(chosen.number) && chosen.suite.cipher.is_aead() == chosen.suite.integ.is_none());
            answer.clear();
            chosen.encode(ESP_SPI, &mut answer);
            assert!(SaView::decode(&answer).expect("encoded by us").is_answer());
        }
    }
    copy_offer(sa);
}

/// An offer of transforms that are all known survives encoding and decoding.
fn copy_offer(sa: &SaView<'_>) {
    let transforms: Option<Vec<Vec<_>>> =
        sa.proposals().map(|proposal| proposal.transforms().map(|it| it.known()).collect()).collect();
    let Some(transforms) = transforms else { return };
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
    let mut out = Vec::new();
    SaView::encode(&proposals, &mut out);
    let copy = SaView::decode(&out).expect("encoded by us");
    for (copy, original) in copy.proposals().zip(sa.proposals()) {
        assert_eq!(
            (copy.number, copy.protocol, copy.spi),
            (original.number, original.protocol, original.spi)
        );
        assert!(copy.transforms().map(|it| it.known()).eq(original.transforms().map(|it| it.known())));
    }
}
