//! What is done with octets that claim to be an EAP packet.

use crate::eap::aka::{AkaBuilder, AkaMessage, Attributes, Checkcode};
use crate::eap::identity::Nai;
use crate::eap::{EapPacket, Method};

/// K_encr of the sealed packets in the corpus.
pub const EAP_K_ENCR: [u8; 16] = [0x42; 16];

/// K_aut of the sealed packets in the corpus, of which EAP-AKA takes the first half.
pub const EAP_K_AUT: [u8; 32] = [0x43; 32];

/// Decodes octets as an EAP packet and, where it is one of EAP-AKA, opens it; what it says must survive encoding.
pub fn eap_packet(data: &[u8]) {
    read(data);
    let mut sized = data.to_vec();
    if let Some(length) = sized.get_mut(2..4) {
        length.copy_from_slice(&(data.len() as u16).to_be_bytes());
        read(&sized);
    }
}

fn read(octets: &[u8]) {
    let Ok(packet) = EapPacket::decode(octets) else { return };
    assert!(packet.wanted().count() <= packet.data.len());
    if packet.method == Some(Method::IDENTITY) {
        name(packet.data);
    }
    let Ok(message) = AkaMessage::decode(packet) else { return };
    for k_aut in [&EAP_K_AUT[..16], &EAP_K_AUT] {
        let _ = message.verify_mac(k_aut, b"");
    }
    if let Ok(Some(text)) = message.decrypt(&EAP_K_ENCR)
        && let Ok(inner) = Attributes::decode(&text)
    {
        copy(&message, &inner);
    }
    copy(&message, &message.attributes);
}

/// Builds a packet with the same attributes, and expects them back.
fn copy(message: &AkaMessage<'_>, attributes: &Attributes<'_>) {
    let code = message.packet.code;
    let mut builder = AkaBuilder::new(message.variant, code, message.packet.identifier, message.subtype);
    if let Some(rand) = attributes.rand {
        builder = builder.rand(rand);
    }
    if let Some(res) = attributes.res {
        builder = builder.res(res);
    }
    if let Some(identity) = attributes.identity {
        builder = builder.identity(identity);
        name(identity);
    }
    if let Some(checkcode) = attributes.checkcode {
        if let Checkcode::Hash(hash) = checkcode {
            assert!(matches!(hash.len(), 20 | 32));
        }
        builder = builder.checkcode(checkcode);
    }
    for kdf in &attributes.kdfs {
        builder = builder.kdf(*kdf);
    }
    if let Some(input) = attributes.kdf_input {
        builder = builder.kdf_input(input);
    }
    let octets = builder.finish_with_mac(&EAP_K_AUT, b"");
    let packet = EapPacket::decode(&octets).expect("built by us");
    let again = AkaMessage::decode(packet).expect("built by us");
    assert_eq!(again.verify_mac(&EAP_K_AUT, b""), Ok(()));
    assert_eq!(again.attributes.rand, attributes.rand);
    assert_eq!(again.attributes.res, attributes.res);
    assert_eq!(again.attributes.identity, attributes.identity);
    assert_eq!(again.attributes.checkcode, attributes.checkcode);
    assert_eq!(again.attributes.kdfs, attributes.kdfs);
    assert_eq!(again.attributes.kdf_input, attributes.kdf_input);
}

/// An identity that is understood is one that can be said again.
fn name(identity: &[u8]) {
    if let Some(nai) = Nai::parse(identity) {
        let again = nai.to_string();
        assert_eq!(Nai::parse(again.as_bytes()).as_ref(), Some(&nai), "{again}");
    }
}
