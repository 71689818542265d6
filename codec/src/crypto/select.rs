//! Choosing from an offer (RFC 7296 §2.7, §3.3): our order of preference, then the peer's.
//!
//! The same functions read an answer: one proposal with one transform of each type
//! ([`SaView::is_answer`]).

use super::algorithm::{Negotiable, Prf};
use super::proposal::{EspProposal, IkeProposal, IkeSuite};
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
    configured
        .iter()
        .enumerate()
        .find_map(|(at, ours)| offered.proposals().find_map(|theirs| match_ike(at, ours, Offer(theirs), ke)))
}

fn match_ike(at: usize, ours: &IkeProposal, theirs: Offer<'_>, ke: KeGroup) -> Option<ChosenIke> {
    const KINDS: [TransformType; 4] =
        [TransformType::ENCR, TransformType::PRF, TransformType::INTEG, TransformType::KE];
    if theirs.0.protocol != ProtocolId::IKE || !theirs.has_only(&KINDS) {
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
    Some(ChosenIke { number: theirs.0.number, suite, configured: at, peer_spi, answer })
}

/// Chooses from an offer for a Child SA, in the order of [`select_ike`]; protocols other than ESP are passed
/// over. `None` is NO_PROPOSAL_CHOSEN; a `group` that is not that of the KE payload, or is there without
/// one, is INVALID_KE_PAYLOAD (RFC 7296 §1.3.1).
pub fn select_esp(
    configured: &[EspProposal],
    offered: &SaView<'_>,
    groups: GroupPolicy<'_>,
) -> Option<ChosenEsp> {
    configured.iter().enumerate().find_map(|(at, ours)| {
        offered.proposals().find_map(|theirs| match_esp(at, ours, Offer(theirs), groups))
    })
}

fn match_esp(at: usize, ours: &EspProposal, theirs: Offer<'_>, groups: GroupPolicy<'_>) -> Option<ChosenEsp> {
    const KINDS: [TransformType; 4] =
        [TransformType::ENCR, TransformType::INTEG, TransformType::KE, TransformType::ESN];
    if theirs.0.protocol != ProtocolId::ESP || !theirs.has_only(&KINDS) {
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
    let suite = EspSuite { cipher, integ, esn: esn == EsnId::ESN };
    Some(ChosenEsp { number: theirs.0.number, suite, group, configured: at, peer_spi, answer })
}

/// One proposal of the peer, asked about its transforms.
#[derive(Clone, Copy)]
struct Offer<'a>(ProposalView<'a>);

impl Offer<'_> {
    fn has(&self, kind: TransformType) -> bool {
        self.0.transforms().any(|transform| transform.kind == kind)
    }

    /// RFC 7296 §3.3.6: a transform type that is not understood spoils the proposal.
    fn has_only(&self, kinds: &[TransformType]) -> bool {
        self.0.transforms().all(|transform| kinds.contains(&transform.kind))
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
