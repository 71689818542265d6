//! The test sets of 3GPP and of the RFCs for the USIM's algorithms and the keys of EAP-AKA'.

use codec::eap::EapPacket;
use codec::eap::aka::{
    AkaMessage, Attributes, Checkcode, FullKeys, IdentityRound, Subtype, Variant, prime_ck_ik,
};
use codec::eap::usim::{Milenage, Sqn, Tuak, Usim};

fn octets(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    octets(text).try_into().unwrap_or_else(|_| panic!("{text} has not {N} octets"))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The lines of a table: one test set each, columns between blanks.
fn rows(table: &'static str) -> Vec<Vec<&'static str>> {
    let lines = table.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn ts35207_and_ts35208_milenage_test_sets() {
    let sets = rows(include_str!("vectors/milenage.txt"));
    assert_eq!(sets.len(), 6 + 20);
    for set in sets {
        let [name, k, rand, sqn, amf, op, opc, f1, f1_star, f2, f5, f3, f4, f5_star] = set[..] else {
            panic!("{set:?}")
        };
        let (k, rand, amf) = (array(k), array(rand), array(amf));
        let sqn = Sqn::from_octets(array(sqn));
        let milenage = Milenage::with_op(&k, &array(op));
        assert_eq!(hex(milenage.opc()), opc, "{name} OPc");
        let (mac_a, mac_s) = milenage.f1_both(&rand, sqn, amf);
        assert_eq!((hex(&mac_a).as_str(), hex(&mac_s).as_str()), (f1, f1_star), "{name} f1 and f1*");

        let usim = Usim::Milenage(Milenage::with_opc(&k, &array(opc)));
        let vector = usim.vector(&rand, sqn, amf);
        assert_eq!(hex(vector.xres.as_bytes()), f2, "{name} f2");
        assert_eq!(hex(vector.ck.as_bytes()), f3, "{name} f3");
        assert_eq!(hex(vector.ik.as_bytes()), f4, "{name} f4");
        assert_eq!(hex(&concealed(&vector.autn, sqn)), f5, "{name} f5");
        assert_eq!(hex(&vector.autn[6..]), format!("{}{f1}", hex(&amf)), "{name} AUTN");
        assert_eq!(hex(&concealed(&usim.auts(&rand, sqn), sqn)), f5_star, "{name} f5*");
    }
}

#[test]
fn ts35233_tuak_test_sets() {
    let sets = rows(include_str!("vectors/tuak.txt"));
    assert_eq!(sets.len(), 6);
    for set in sets {
        let [name, k, rand, sqn, amf, top, iterations, topc, f1, f1_star, f2, f3, f4, f5, f5_star] = set[..]
        else {
            panic!("{set:?}")
        };
        let (k, rand, amf) = (octets(k), array(rand), array(amf));
        let sqn = Sqn::from_octets(array(sqn));
        let iterations = iterations.parse().expect("a number");
        let tuak = Tuak::with_top(&k, &array(top), iterations, 8).expect("a possible K");
        assert_eq!(hex(tuak.topc()), topc, "{name} TOPc");
        for (star, expected) in [(false, f1), (true, f1_star)] {
            let mac = tuak.mac(star, &rand, sqn, amf, expected.len() / 2);
            assert_eq!(hex(mac.as_bytes()), expected, "{name} f1, star {star}");
        }
        let made = tuak.f2345(&rand, f2.len() / 2, f3.len() / 2, f4.len() / 2);
        assert_eq!(hex(made.res.as_bytes()), f2, "{name} f2");
        assert_eq!(hex(made.ck.as_bytes()), f3, "{name} f3");
        assert_eq!(hex(made.ik.as_bytes()), f4, "{name} f4");
        assert_eq!(hex(&made.ak), f5, "{name} f5");
        assert_eq!(hex(&tuak.f5_star(&rand)), f5_star, "{name} f5*");
    }
}

/// Milenage's set 19 is the USIM of the first two cases.
#[test]
fn r9048_3_3_published_keys() {
    const IDENTITY: &[u8] = b"0555444333222111";
    let cases = rows(include_str!("vectors/aka_prime.txt"));
    assert_eq!(cases.len(), 4);
    for case in cases {
        let [name, network, autn, ck, ik, ck_prime, ik_prime, k_encr, k_aut, _k_re, msk, emsk] = case[..]
        else {
            panic!("{case:?}")
        };
        let (ck, ik) = prime_ck_ik(&octets(ck), &octets(ik), network.as_bytes(), &array(autn));
        assert_eq!(hex(ck.as_bytes()), ck_prime, "{name} CK'");
        assert_eq!(hex(ik.as_bytes()), ik_prime, "{name} IK'");
        let full = FullKeys::aka_prime(IDENTITY, ck.as_bytes(), ik.as_bytes());
        assert_eq!(hex(full.keys.k_encr.as_bytes()), k_encr, "{name} K_encr");
        assert_eq!(hex(full.keys.k_aut.as_bytes()), k_aut, "{name} K_aut");
        assert_eq!(hex(full.msk.as_bytes()), msk, "{name} MSK");
        assert_eq!(hex(full.emsk.as_bytes()), emsk, "{name} EMSK");
    }
}

/// EAP-AKA between a strongSwan client and hostapd with hlr_auc_gw: an identity round, a challenge that the USIM answers
/// with AUTS, another that it accepts.
#[test]
fn r4187_a_captured_authentication_verifies_throughout() {
    let run: serde_json::Value =
        serde_json::from_str(include_str!("vectors/strongswan-udp-cbc-eap-aka-frag.json")).expect("JSON");
    let text = |name: &str| run[name].as_str().expect("text");
    let usim = Usim::Milenage(Milenage::with_opc(&array(text("milenage_k")), &array(text("milenage_opc"))));
    const EAP: u64 = 48;
    let packets: Vec<Vec<u8>> = run["frames"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|frame| frame["inner_payloads"].as_array())
        .flatten()
        .filter(|payload| payload[0] == EAP)
        .map(|payload| octets(payload[1].as_str().expect("hex")))
        .collect();
    let messages: Vec<AkaMessage<'_>> = packets
        .iter()
        .filter_map(|packet| AkaMessage::decode(EapPacket::decode(packet).expect("a packet")).ok())
        .collect();
    let [ask, identity, first, resync, second, answer] = &messages[..] else {
        panic!("{} messages", messages.len())
    };
    assert_eq!((ask.subtype, identity.subtype), (Subtype::Identity, Subtype::Identity));
    let mut round = IdentityRound::new(Variant::Aka);
    for message in [ask, identity] {
        round.add(message.packet.octets);
    }
    let name = identity.attributes.identity.expect("AT_IDENTITY");

    assert_eq!(resync.subtype, Subtype::SynchronizationFailure);
    let rand = first.attributes.rand.expect("AT_RAND");
    let sqn_ms = usim.resynchronise(rand, resync.attributes.auts.expect("AT_AUTS")).expect("of this USIM");

    for challenge in [first, second] {
        let rand = challenge.attributes.rand.expect("AT_RAND");
        let made = usim.answer(rand, challenge.attributes.autn.expect("AT_AUTN")).expect("of this centre");
        let full = FullKeys::aka(name, made.ck.as_bytes(), made.ik.as_bytes());
        let keys = &full.keys;
        assert_eq!(challenge.verify_mac(keys.k_aut.as_bytes(), b""), Ok(()));
        assert_eq!(challenge.attributes.checkcode, Some(round.expected().checkcode()));
        let inner = challenge.decrypt(keys.k_encr.as_bytes()).expect("sound").expect("there is one");
        let inner = Attributes::decode(&inner).expect("sound");
        assert!(inner.next_pseudonym.is_some() || inner.next_reauth_id.is_some());
        let fresh = made.sqn > sqn_ms;
        assert_eq!(fresh, std::ptr::eq(challenge, second), "the first is stale, the second is not");
        if fresh {
            assert_eq!(answer.attributes.res, Some(made.res.as_bytes()));
            assert_eq!(answer.verify_mac(keys.k_aut.as_bytes(), b""), Ok(()));
            assert_eq!(answer.attributes.checkcode, None::<Checkcode<'_>>);
        }
    }
}

/// What hides a sequence number: the first octets of AUTN or AUTS, xor the number.
fn concealed(token: &[u8], sqn: Sqn) -> Vec<u8> {
    token.iter().zip(sqn.octets()).map(|(a, b)| a ^ b).collect()
}
