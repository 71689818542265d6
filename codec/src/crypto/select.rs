//! Choosing from an offer (RFC 7296 §2.7, §3.3): our order of preference, then the peer's.
//!
//! The same functions read an answer: one proposal with one transform of each type
//! ([`SaView::is_answer`]).

use super::algorithm::{Negotiable, Prf};
use super::proposal::{ADDITIONAL_MAX, Additional, EspProposal, IkeProposal, IkeSuite, additional_transform};
use crate::esp::{EspCipher, EspInteg, EspSpi, EspSuite};
use crate::ike::payload::{Proposal, ProposalView, SaView, Transform};
use crate::ike::{EsnId, IkeSpi, IntegId, KeGroup, ProtocolId, TransformType};

/// INTEG with value NONE, which may stand beside an AEAD (RFC 7296 §3.3.2).
const INTEG_NONE: Transform = Transform { kind: TransformType::INTEG, id: IntegId::NONE.0, key_bits: None };

/// KE with value NONE: the Child SA may do without PFS.
const KE_NONE: Transform = Transform { kind: TransformType::KE, id: KeGroup::NONE.0, key_bits: None };

/// What we take of an offer for an IKE SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChosenIke {
    /// Number of the proposal in the offer; the answer repeats it.
    pub number: u8,
    /// The algorithms.
    pub suite: IkeSuite,
    /// Index of the configured proposal that allowed them.
    pub configured: usize,
    /// Additional key exchanges to be run.
    pub additional: Additional,
    /// The peer's SPI: there in a rekey only.
    pub peer_spi: Option<IkeSpi>,
    answer: Vec<Transform>,
}

impl ChosenIke {
    /// Appends the body of the SA payload that answers the offer; `spi` is empty in IKE_SA_INIT and our new
    /// SPI in a rekey.
    pub fn encode(&self, spi: &[u8], out: &mut Vec<u8>) {
        let proposal =
            Proposal { number: self.number, protocol: ProtocolId::IKE, spi, transforms: &self.answer };
        SaView::encode(&[proposal], out);
    }
}

/// What we take of an offer for a Child SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChosenEsp {
    /// Number of the proposal in the offer; the answer repeats it.
    pub number: u8,
    /// The algorithms.
    pub suite: EspSuite,
    /// Group of the exchange that gives PFS, or `None` to go without.
    pub group: Option<KeGroup>,
    /// Additional key exchanges to be run; none but from [`select_esp_several`].
    pub additional: Additional,
    /// Index of the configured proposal that allowed them.
    pub configured: usize,
    /// SPI of packets to the peer.
    pub peer_spi: EspSpi,
    answer: Vec<Transform>,
}

impl ChosenEsp {
    /// Appends the body of the SA payload that answers the offer; `spi` is that of packets to us.
    pub fn encode(&self, spi: EspSpi, out: &mut Vec<u8>) {
        let proposal = Proposal {
            number: self.number,
            protocol: ProtocolId::ESP,
            spi: &spi.0.to_be_bytes(),
            transforms: &self.answer,
        };
        SaView::encode(&[proposal], out);
    }
}

/// What groups mean in the exchange that carries an ESP offer.
#[derive(Clone, Copy, Debug)]
pub enum GroupPolicy<'a> {
    /// IKE_AUTH: there is no KE payload and groups are ignored (RFC 7296 §1.2).
    Ignore,
    /// CREATE_CHILD_SA.
    Negotiate {
        /// Groups to accept where the configured proposal names none.
        any: &'a [KeGroup],
        /// Group of the KE payload, when there is one; taken where allowed, to spare a round trip.
        ke: Option<KeGroup>,
    },
}

/// Chooses from an offer for an IKE SA. `ke` is the group of the KE payload beside it.
///
/// Configured proposals are tried in order, each against the offered ones in order. Within a pair our order
/// decides, except that the group of the KE payload goes first where both allow it. When the suite's group is
/// not `ke`, the answer is INVALID_KE_PAYLOAD with that group (RFC 7296 §1.3); `None` is
/// NO_PROPOSAL_CHOSEN.
pub fn select_ike(configured: &[IkeProposal], offered: &SaView<'_>, ke: KeGroup) -> Option<ChosenIke> {
    let choose = |at, ours| offered.proposals().find_map(|theirs| match_ike(at, ours, Offer(theirs), ke));
    configured.iter().enumerate().find_map(|(at, ours)| choose(at, ours))
}

/// [`select_ike`] where additional key exchanges cannot be run, because the peer does not announce what they need:
/// proposals that want them are passed over (RFC 9370 §2.2.1).
pub fn select_ike_plain(configured: &[IkeProposal], offered: &SaView<'_>, ke: KeGroup) -> Option<ChosenIke> {
    let choose = |at, ours| {
        let mut chosen = offered.proposals().filter_map(|theirs| match_ike(at, ours, Offer(theirs), ke));
        chosen.find(|chosen| chosen.additional == Additional::NONE)
    };
    configured.iter().enumerate().find_map(|(at, ours)| choose(at, ours))
}

fn match_ike(at: usize, ours: &IkeProposal, theirs: Offer<'_>, ke: KeGroup) -> Option<ChosenIke> {
    const KINDS: [TransformType; 4] =
        [TransformType::ENCR, TransformType::PRF, TransformType::INTEG, TransformType::KE];
    let known = |kind: TransformType| KINDS.contains(&kind) || is_additional(kind);
    if theirs.0.protocol != ProtocolId::IKE || !theirs.0.transforms().all(|transform| known(transform.kind)) {
        return None;
    }
    let peer_spi = match theirs.0.spi {
        [] => None,
        spi => Some(IkeSpi(spi.try_into().ok()?)),
    };
    let (cipher, integ) = theirs.protection(ours.ciphers(), ours.integs())?;
    let prf: Prf = theirs.first(ours.prfs())?;
    let preferred = ours.groups().contains(&ke) && theirs.offers(ke.transform());
    let group = if preferred { ke } else { theirs.first(ours.groups())? };
    let suite = IkeSuite { cipher, integ, prf, group };
    let mut answer = suite.transforms();
    theirs.echo_integ_none(cipher, &mut answer);
    let additional = theirs.additional(ours.additional_lists(), group, &mut answer)?;
    Some(ChosenIke { number: theirs.0.number, suite, configured: at, additional, peer_spi, answer })
}

/// Whether a transform type is one of RFC 9370.
fn is_additional(kind: TransformType) -> bool {
    (TransformType::ADDKE1.0..=TransformType::ADDKE7.0).contains(&kind.0)
}

/// Chooses from an offer for a Child SA, in the order of [`select_ike`]; protocols other than ESP are passed
/// over. `None` is NO_PROPOSAL_CHOSEN; a `group` that is not that of the KE payload, or is there without
/// one, is INVALID_KE_PAYLOAD (RFC 7296 §1.3.1).
pub fn select_esp(
    configured: &[EspProposal],
    offered: &SaView<'_>,
    groups: GroupPolicy<'_>,
) -> Option<ChosenEsp> {
    choose_esp(configured, offered, groups, false)
}

/// [`select_esp`] in CREATE_CHILD_SA with a peer that can run additional key exchanges (RFC 9370 §2.2.4).
pub fn select_esp_several(
    configured: &[EspProposal],
    offered: &SaView<'_>,
    groups: GroupPolicy<'_>,
) -> Option<ChosenEsp> {
    choose_esp(configured, offered, groups, true)
}

fn choose_esp(
    configured: &[EspProposal],
    offered: &SaView<'_>,
    groups: GroupPolicy<'_>,
    several: bool,
) -> Option<ChosenEsp> {
    configured.iter().enumerate().find_map(|(at, ours)| {
        offered.proposals().find_map(|theirs| match_esp(at, ours, Offer(theirs), groups, several))
    })
}

fn match_esp(
    at: usize,
    ours: &EspProposal,
    theirs: Offer<'_>,
    groups: GroupPolicy<'_>,
    several: bool,
) -> Option<ChosenEsp> {
    const KINDS: [TransformType; 4] =
        [TransformType::ENCR, TransformType::INTEG, TransformType::KE, TransformType::ESN];
    // RFC 7296 §3.3.6: a transform type that is not understood spoils the proposal.
    let known = |kind| KINDS.contains(&kind) || several && is_additional(kind);
    if theirs.0.protocol != ProtocolId::ESP || !theirs.0.transforms().all(|transform| known(transform.kind)) {
        return None;
    }
    let peer_spi = EspSpi(u32::from_be_bytes(theirs.0.spi.try_into().ok()?));
    let (cipher, integ) = theirs.protection(ours.ciphers(), ours.integs())?;
    let group = match groups {
        GroupPolicy::Ignore => None,
        GroupPolicy::Negotiate { any, ke } => theirs.group(ours.groups(), any, ke)?,
    };
    // RFC 7296 §3.3.2: without a transform of this type the sequence numbers are the short ones.
    let esn_offered = theirs.has(TransformType::ESN);
    let esn = if esn_offered {
        theirs.first(ours.esn())?
    } else {
        ours.esn().iter().copied().find(|esn| *esn == EsnId::NO_ESN)?
    };
    let mut answer = vec![cipher.transform()];
    answer.extend(integ.map(Negotiable::transform));
    theirs.echo_integ_none(cipher, &mut answer);
    answer.extend(group.map(Negotiable::transform));
    if group.is_none() && theirs.offers(KE_NONE) {
        answer.push(KE_NONE);
    }
    answer.extend(esn_offered.then(|| esn.transform()));
    let additional = match (groups, group) {
        (GroupPolicy::Ignore, _) => Additional::NONE,
        (_, Some(group)) if several => theirs.additional(ours.additional(), group, &mut answer)?,
        _ if ours.allows_plain() => Additional::NONE,
        _ => return None,
    };
    let suite = EspSuite { cipher, integ, esn: esn == EsnId::ESN };
    Some(ChosenEsp { number: theirs.0.number, suite, group, additional, configured: at, peer_spi, answer })
}

/// One proposal of the peer, asked about its transforms.
#[derive(Clone, Copy)]
struct Offer<'a>(ProposalView<'a>);

impl Offer<'_> {
    fn has(&self, kind: TransformType) -> bool {
        self.0.transforms().any(|transform| transform.kind == kind)
    }

    /// Whether the very transform is there: same Key Length, no other attribute.
    fn offers(&self, wanted: Transform) -> bool {
        self.0.transforms().any(|transform| transform.known() == Some(wanted))
    }

    /// The first of our algorithms that is offered.
    fn first<T: Negotiable>(&self, ours: &[T]) -> Option<T> {
        ours.iter().copied().find(|algorithm| self.offers(algorithm.transform()))
    }

    /// Cipher and integrity that go together: an AEAD with no INTEG at all or with NONE, anything else with
    /// an algorithm (RFC 7296 §3.3.2, RFC 5282 §8).
    fn protection(
        &self,
        ciphers: &[EspCipher],
        integs: &[EspInteg],
    ) -> Option<(EspCipher, Option<EspInteg>)> {
        let cipher = self.first(ciphers)?;
        if cipher.is_aead() {
            let alone = !self.has(TransformType::INTEG) || self.offers(INTEG_NONE);
            return alone.then_some((cipher, None));
        }
        Some((cipher, Some(self.first(integs)?)))
    }

    /// Additional key exchanges: one transform of each type offered and none of another, NONE where both ends allow
    /// it, and no method twice (RFC 9370 §2.2.1).
    fn additional(
        &self,
        ours: &[Vec<KeGroup>; ADDITIONAL_MAX],
        group: KeGroup,
        answer: &mut Vec<Transform>,
    ) -> Option<Additional> {
        let mut chosen = Additional::NONE;
        for (slot, own) in ours.iter().enumerate() {
            let none = additional_transform(slot, KeGroup::NONE);
            let optional = own.is_empty() || own.contains(&KeGroup::NONE);
            if !self.has(none.kind) {
                if !optional {
                    return None;
                }
                continue;
            }
            let taken = |method: KeGroup| method == group || chosen.0.contains(&method);
            let real = own.iter().copied().filter(|method| *method != KeGroup::NONE && !taken(*method));
            let found = real.map(|method| (method, additional_transform(slot, method)));
            let mut found = found.filter(|(_, transform)| self.offers(*transform));
            let (method, transform) = match found.next() {
                Some(found) => found,
                None if optional && self.offers(none) => (KeGroup::NONE, none),
                None => return None,
            };
            chosen.0[slot] = method;
            answer.push(transform);
        }
        Some(chosen)
    }

    /// An answer has one transform of every type offered (RFC 7296 §2.7): NONE, where it was written out.
    fn echo_integ_none(&self, cipher: EspCipher, answer: &mut Vec<Transform>) {
        if cipher.is_aead() && self.offers(INTEG_NONE) {
            answer.push(INTEG_NONE);
        }
    }

    /// Group of a Child SA: one of `required` if there are any, else one of `any` or none.
    fn group(&self, required: &[KeGroup], any: &[KeGroup], ke: Option<KeGroup>) -> Option<Option<KeGroup>> {
        let optional = required.is_empty();
        let allowed = if optional { any } else { required };
        let spares_round_trip = |group: &KeGroup| allowed.contains(group) && self.offers(group.transform());
        if let Some(group) = ke.filter(spares_round_trip) {
            return Some(Some(group));
        }
        let may_go_without = optional && (!self.has(TransformType::KE) || self.offers(KE_NONE));
        if may_go_without && ke.is_none() {
            return Some(None);
        }
        self.first(allowed).map(Some).or(may_go_without.then_some(None))
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::ike::{EncrId, PrfId};

    fn ike_list(texts: &[&str]) -> Vec<IkeProposal> {
        texts.iter().map(|text| text.parse().expect("valid keywords")).collect()
    }

    fn esp_list(texts: &[&str]) -> Vec<EspProposal> {
        texts.iter().map(|text| text.parse().expect("valid keywords")).collect()
    }

    fn offer(protocol: ProtocolId, spi: &[u8], proposals: &[Vec<Transform>]) -> Vec<u8> {
        let proposals: Vec<_> = proposals
            .iter()
            .zip(1..)
            .map(|(transforms, number)| Proposal { number, protocol, spi, transforms })
            .collect();
        let mut out = Vec::new();
        SaView::encode(&proposals, &mut out);
        out
    }

    fn ike_offer(texts: &[&str]) -> Vec<u8> {
        let proposals: Vec<_> = ike_list(texts).iter().map(IkeProposal::transforms).collect();
        offer(ProtocolId::IKE, &[], &proposals)
    }

    fn esp_offer(texts: &[&str]) -> Vec<u8> {
        let proposals: Vec<_> = esp_list(texts).iter().map(|it| it.transforms(it.groups())).collect();
        offer(ProtocolId::ESP, &[0, 0, 1, 1], &proposals)
    }

    fn choose_ike(ours: &[&str], offer: &[u8], ke: KeGroup) -> Option<ChosenIke> {
        select_ike(&ike_list(ours), &SaView::decode(offer).expect("well formed"), ke)
    }

    fn choose_esp(ours: &[&str], offer: &[u8], groups: GroupPolicy<'_>) -> Option<ChosenEsp> {
        select_esp(&esp_list(ours), &SaView::decode(offer).expect("well formed"), groups)
    }

    fn transform(kind: TransformType, id: u16, key_bits: Option<u16>) -> Transform {
        Transform { kind, id, key_bits }
    }

    const X25519: KeGroup = KeGroup::CURVE25519;
    const MODP: KeGroup = KeGroup::MODP_2048;
    const NO_PFS: GroupPolicy<'static> = GroupPolicy::Negotiate { any: &[X25519, MODP], ke: None };

    fn pfs(ke: KeGroup) -> GroupPolicy<'static> {
        GroupPolicy::Negotiate { any: &[X25519, MODP], ke: Some(ke) }
    }

    #[test]
    fn r7296_2_7_our_order_decides_before_the_peers() {
        let offer = ike_offer(&["aes256-sha256-modp2048", "aes128gcm16-prfsha256-x25519"]);
        let ours = ["aes128gcm16-prfsha256-x25519", "aes256-sha256-modp2048"];
        let chosen = choose_ike(&ours, &offer, X25519).expect("common");
        assert_eq!((chosen.number, chosen.configured), (2, 0));
        assert_eq!(chosen.suite.to_string(), "aes128gcm16-prfsha256-x25519");
        let chosen = choose_ike(&[ours[1], ours[0]], &offer, X25519).expect("common");
        assert_eq!((chosen.number, chosen.configured), (1, 0));
    }

    #[test]
    fn r7296_2_7_nothing_in_common_is_no_choice() {
        let offer = ike_offer(&["aes256-sha256-modp2048"]);
        for ours in [
            "aes128-sha256-modp2048",
            "aes256-sha384-modp2048",
            "aes256-sha256-x25519",
            "aes256-sha256-prfsha512-modp2048",
        ] {
            assert_eq!(choose_ike(&[ours], &offer, MODP), None, "{ours}");
        }
    }

    #[test]
    fn r7296_1_3_a_ke_of_another_group_is_told_by_the_suite() {
        let offer = ike_offer(&["aes128gcm16-prfsha256-modp2048-x25519"]);
        let group = |ours: &str, ke| choose_ike(&[ours], &offer, ke).expect("common").suite.group;
        let both = "aes128gcm16-prfsha256-x25519-modp2048";
        assert_eq!(group(both, MODP), MODP, "what the peer sent saves a round trip");
        assert_eq!(group(both, X25519), X25519);
        assert_eq!(group(both, KeGroup::ECP_256), X25519, "our first, for INVALID_KE_PAYLOAD");
        assert_eq!(group("aes128gcm16-prfsha256-x25519", MODP), X25519, "INVALID_KE_PAYLOAD");
    }

    #[test]
    fn r7296_3_3_1_the_answer_repeats_number_and_transforms() {
        let offer = ike_offer(&["aes256-sha512-modp2048", "aes128-aes256-sha256-sha1-modp2048-x25519"]);
        let chosen = choose_ike(&["aes256-sha256-x25519"], &offer, X25519).expect("common");
        let mut answer = Vec::new();
        chosen.encode(&[], &mut answer);
        let view = SaView::decode(&answer).expect("our own");
        assert!(view.is_answer());
        let proposal = view.proposals().next().expect("one");
        assert_eq!((proposal.number, proposal.transforms().count()), (2, 4));
        assert!(!SaView::decode(&offer).expect("well formed").is_answer());
    }

    #[test]
    fn r7296_3_3_5_key_length_is_a_must_for_aes_and_forbidden_for_chacha20() {
        let rest = ["aes128gcm16-prfsha256-x25519".parse::<IkeProposal>().expect("valid").transforms()];
        let with = |id: EncrId, key_bits| {
            let mut transforms = rest[0].clone();
            transforms[0] = transform(TransformType::ENCR, id.0, key_bits);
            offer(ProtocolId::IKE, &[], &[transforms])
        };
        let ours = ["aes128gcm16-prfsha256-x25519", "chacha20poly1305-prfsha256-x25519"];
        let accepted = |offer: &[u8]| choose_ike(&ours, offer, X25519).is_some();
        assert!(accepted(&with(EncrId::AES_GCM_16, Some(128))));
        assert!(!accepted(&with(EncrId::AES_GCM_16, None)));
        assert!(!accepted(&with(EncrId::AES_GCM_16, Some(192))));
        assert!(accepted(&with(EncrId::CHACHA20_POLY1305, None)));
        assert!(!accepted(&with(EncrId::CHACHA20_POLY1305, Some(256))));
        assert!(!accepted(&with(EncrId::AES_GCM_8, Some(128))));
    }

    #[test]
    fn r7296_3_3_6_an_unknown_type_spoils_its_proposal_and_an_unknown_transform_only_itself() {
        let good = "aes128gcm16-prfsha256-x25519".parse::<IkeProposal>().expect("valid").transforms();
        let with = |extra: Transform| [&good[..], &[extra]].concat();
        let ours = ["aes128gcm16-prfsha256-x25519"];
        for kind in [TransformType(13), TransformType(14), TransformType::ESN] {
            let spoiled = with(transform(kind, 0, None));
            let alone = offer(ProtocolId::IKE, &[], from_ref(&spoiled));
            assert_eq!(choose_ike(&ours, &alone, X25519), None, "{kind}");
            let beside = offer(ProtocolId::IKE, &[], &[spoiled, good.clone()]);
            assert_eq!(choose_ike(&ours, &beside, X25519).expect("the second").number, 2);
        }
        let unknown = with(transform(TransformType::ENCR, 999, None));
        assert!(choose_ike(&ours, &offer(ProtocolId::IKE, &[], &[unknown]), X25519).is_some());
    }

    #[test]
    fn r9370_2_2_1_one_transform_of_each_additional_type_offered() {
        let choose = |ours: &str, theirs: &[&str]| {
            let chosen = choose_ike(&[ours], &ike_offer(theirs), X25519)?;
            Some((chosen.additional.to_string(), chosen.answer.len()))
        };
        const PLAIN: &str = "aes128gcm16-prfsha256-x25519";
        const HYBRID: &str = "aes128gcm16-prfsha256-x25519-ke1_mlkem768";
        const OPTIONAL: &str = "aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none";
        let some = |text: &str, len| Some((text.to_string(), len));
        assert_eq!(choose(HYBRID, &[HYBRID]), some("-ke1_mlkem768", 4));
        assert_eq!(choose(HYBRID, &[PLAIN]), None, "it is a must");
        assert_eq!(choose(PLAIN, &[HYBRID]), None, "nor is one run that is not configured");
        assert_eq!(choose(PLAIN, &[HYBRID, PLAIN]), some("", 3));
        assert_eq!(choose(OPTIONAL, &[PLAIN]), some("", 3), "none of a type that is not offered");
        assert_eq!(choose(PLAIN, &[OPTIONAL]), some("", 4), "NONE is echoed");
        assert_eq!(choose(OPTIONAL, &[OPTIONAL]), some("-ke1_mlkem768", 4));
        // RFC 9370 2.2.1: the same method twice is no choice.
        let twice = "aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke2_mlkem768-ke2_mlkem1024";
        assert_eq!(choose(twice, &[twice]), some("-ke1_mlkem768-ke2_mlkem1024", 5));
        let only_twice = "aes128gcm16-prfsha256-x25519-ke1_x25519";
        assert_eq!(choose(only_twice, &[only_twice]), None);
    }

    #[test]
    fn r9370_2_2_1_proposals_with_additional_exchanges_are_passed_over_where_they_cannot_be_run() {
        let ours = ike_list(&["aes128gcm16-prfsha256-x25519-ke1_mlkem768", "aes128gcm16-prfsha256-x25519"]);
        let offer = ike_offer(&["aes128gcm16-prfsha256-x25519-ke1_mlkem768", "aes128gcm16-prfsha256-x25519"]);
        let view = SaView::decode(&offer).expect("well formed");
        let chosen = select_ike_plain(&ours, &view, X25519).expect("the second");
        assert_eq!((chosen.number, chosen.additional), (2, Additional::NONE));
    }

    #[test]
    fn r5282_8_an_aead_stands_without_integrity_or_with_none() {
        let good = "aes128gcm16-prfsha256-x25519".parse::<IkeProposal>().expect("valid").transforms();
        let with = |ids: &[u16]| {
            let integs = ids.iter().map(|id| transform(TransformType::INTEG, *id, None));
            offer(ProtocolId::IKE, &[], &[good.iter().copied().chain(integs).collect()])
        };
        let ours = ["aes128gcm16-prfsha256-x25519"];
        assert!(choose_ike(&ours, &with(&[12]), X25519).is_none(), "real integrity beside an AEAD");
        let count = |offer: &[u8]| choose_ike(&ours, offer, X25519).expect("acceptable").answer.len();
        assert_eq!(count(&with(&[])), 3);
        assert_eq!(count(&with(&[0])), 4, "NONE is echoed");
        assert_eq!(count(&with(&[12, 0])), 4);
    }

    #[test]
    fn r7296_5_no_null_and_no_missing_parts_for_an_ike_sa() {
        let good = "aes128-sha256-modp2048".parse::<IkeProposal>().expect("valid").transforms();
        let ours = ["aes128-sha256-modp2048", "aes128gcm16-prfsha256-modp2048"];
        for kind in [TransformType::ENCR, TransformType::PRF, TransformType::INTEG, TransformType::KE] {
            let without: Vec<_> = good.iter().copied().filter(|it| it.kind != kind).collect();
            assert_eq!(choose_ike(&ours, &offer(ProtocolId::IKE, &[], from_ref(&without)), MODP), None);
            let none = [&without[..], &[transform(kind, 0, None)]].concat();
            assert_eq!(choose_ike(&ours, &offer(ProtocolId::IKE, &[], &[none]), MODP), None, "{kind} NONE");
        }
        let weak = [transform(TransformType::PRF, PrfId::HMAC_MD5.0, None), good[0], good[1], good[3]];
        assert_eq!(choose_ike(&ours, &offer(ProtocolId::IKE, &[], &[weak.to_vec()]), MODP), None);
    }

    #[test]
    fn r7296_3_3_1_protocols_and_spis_are_checked() {
        let good = "aes128gcm16-prfsha256-x25519".parse::<IkeProposal>().expect("valid").transforms();
        let ours = ["aes128gcm16-prfsha256-x25519"];
        let choose = |protocol, spi: &[u8]| choose_ike(&ours, &offer(protocol, spi, from_ref(&good)), X25519);
        assert_eq!(choose(ProtocolId::IKE, &[7; 8]).expect("a rekey").peer_spi, Some(IkeSpi([7; 8])));
        assert_eq!(choose(ProtocolId::IKE, &[7; 4]), None);
        assert_eq!(choose(ProtocolId::ESP, &[]), None);
        let esp = "aes128gcm16".parse::<EspProposal>().expect("valid").transforms(&[]);
        for (protocol, spi) in
            [(ProtocolId::AH, &[1; 4][..]), (ProtocolId::ESP, &[]), (ProtocolId::ESP, &[1; 8])]
        {
            let offer = offer(protocol, spi, from_ref(&esp));
            assert_eq!(choose_esp(&["aes128gcm16"], &offer, GroupPolicy::Ignore), None, "{protocol} {spi:?}");
        }
    }

    #[test]
    fn r7296_3_3_2_esn_is_ours_to_prefer_and_defaults_to_short_numbers() {
        let esn = |ours: &str, theirs: &str| {
            choose_esp(&[ours], &esp_offer(&[theirs]), GroupPolicy::Ignore).map(|it| it.suite.esn)
        };
        assert_eq!(esn("aes128gcm16", "aes128gcm16-noesn-esn"), Some(true));
        assert_eq!(esn("aes128gcm16-noesn-esn", "aes128gcm16-esn-noesn"), Some(false));
        assert_eq!(esn("aes128gcm16", "aes128gcm16-noesn"), Some(false));
        assert_eq!(esn("aes128gcm16-esn", "aes128gcm16-noesn"), None);
        let silent = [transform(TransformType::ENCR, EncrId::AES_GCM_16.0, Some(128))];
        let silent = offer(ProtocolId::ESP, &[0, 0, 1, 1], &[silent.to_vec()]);
        let chosen = choose_esp(&["aes128gcm16"], &silent, GroupPolicy::Ignore).expect("short numbers");
        assert_eq!((chosen.suite.esn, chosen.answer.len()), (false, 1), "and no ESN in the answer");
        assert_eq!(choose_esp(&["aes128gcm16-esn"], &silent, GroupPolicy::Ignore), None);
    }

    #[test]
    fn r7296_1_2_groups_are_ignored_in_ike_auth() {
        for (ours, theirs) in [("aes128gcm16-x25519", "aes128gcm16"), ("aes128gcm16", "aes128gcm16-modp4096")]
        {
            let chosen = choose_esp(&[ours], &esp_offer(&[theirs]), GroupPolicy::Ignore).expect("common");
            assert_eq!(chosen.group, None);
            assert!(chosen.answer.iter().all(|it| it.kind != TransformType::KE));
        }
    }

    #[test]
    fn r7296_1_3_pfs_follows_the_configuration() {
        let group = |ours: &str, theirs: &str, policy| {
            choose_esp(&[ours], &esp_offer(&[theirs]), policy).map(|chosen| chosen.group)
        };
        // Without a group of ours: with or without PFS, any group of the IKE list.
        assert_eq!(group("aes128gcm16", "aes128gcm16", NO_PFS), Some(None));
        assert_eq!(group("aes128gcm16", "aes128gcm16-modp2048", pfs(MODP)), Some(Some(MODP)));
        assert_eq!(
            group("aes128gcm16", "aes128gcm16-modp2048-x25519", pfs(KeGroup::ECP_256)),
            Some(Some(X25519))
        );
        assert_eq!(group("aes128gcm16", "aes128gcm16-ecp521", pfs(KeGroup::ECP_521)), None);
        // With one: a must.
        assert_eq!(group("aes128gcm16-x25519", "aes128gcm16", NO_PFS), None);
        assert_eq!(group("aes128gcm16-x25519", "aes128gcm16-modp2048-x25519", pfs(MODP)), Some(Some(X25519)));
        assert_eq!(group("aes128gcm16-x25519", "aes128gcm16-modp2048", pfs(MODP)), None);
    }

    #[test]
    fn r7296_1_3_pfs_is_optional_where_none_is_offered() {
        let mut transforms = "aes128gcm16".parse::<EspProposal>().expect("valid").transforms(&[MODP]);
        transforms.push(KE_NONE);
        let optional = offer(ProtocolId::ESP, &[0, 0, 1, 1], &[transforms]);
        let without = choose_esp(&["aes128gcm16"], &optional, NO_PFS).expect("NONE is offered");
        assert_eq!(without.group, None);
        assert!(without.answer.contains(&KE_NONE), "and echoed");
        let with = choose_esp(&["aes128gcm16"], &optional, pfs(MODP)).expect("MODP is offered");
        assert_eq!(with.group, Some(MODP));
        assert!(!with.answer.contains(&KE_NONE));
        assert_eq!(choose_esp(&["aes128gcm16-x25519"], &optional, NO_PFS), None, "PFS is a must");
    }
}
