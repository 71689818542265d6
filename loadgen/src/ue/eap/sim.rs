//! A SIM in software: K, the sequence numbers it has seen, and the names that its network has given it.

use super::super::Identity;
use super::{Names, Remembered};
use codec::eap::aka::{IdentityRequest, ReauthKeys, Variant};
use codec::eap::identity::{Nai, Plmn};
use codec::eap::usim::{Answer, Autn, Auts, Rand, Sqn, Usim, WrongMac};
use codec::ike::IdType;
use std::cell::RefCell;
use std::rc::Rc;

/// Entries of the array of sequence numbers, one per IND (TS 33.102 Annex C.2).
const INDICES: usize = 1 << Sqn::IND_BITS;

/// Who a UE is.
#[derive(Clone)]
pub struct Subscriber {
    /// Its IDi, unless its SIM says it.
    pub idi: Identity,
    /// Its SIM, for EAP.
    pub sim: Option<Rc<RefCell<Sim>>>,
}

impl From<Identity> for Subscriber {
    fn from(idi: Identity) -> Self {
        Self { idi, sim: None }
    }
}

impl Subscriber {
    /// One whose name is its SIM's.
    pub fn of_sim(sim: Rc<RefCell<Sim>>, variant: Variant) -> Self {
        let data = sim.borrow().identity(variant).into_bytes();
        Self { idi: Identity { kind: IdType::RFC822_ADDR, data }, sim: Some(sim) }
    }
}

/// Keys that all SIMs of a run have in common.
#[derive(Clone)]
pub struct SimKeys {
    /// The algorithm set with K and OPc.
    pub usim: Rc<Usim>,
    /// Whether stale sequence numbers are refused, as a USIM does.
    pub check_sqn: bool,
}

/// One SIM and its phone's memory.
pub struct Sim {
    keys: SimKeys,
    imsi: String,
    plmn: Plmn,
    imei: String,
    /// Whether it calls for help: another realm (TS 23.003 §19.3.9), and no names of the network's making.
    emergency: bool,
    /// SEQ seen last for each IND; made at the first challenge.
    seen: Option<Box<[u64; INDICES]>>,
    pseudonym: Option<String>,
    pub(super) reauth: Option<Box<Remembered>>,
}

/// Why a SIM does not answer.
pub(super) enum Declined {
    /// The network does not know K.
    WrongMac,
    /// The sequence number is not new; this is ours.
    Stale(Auts),
}

impl Sim {
    /// A SIM that was never used. `plmn` is the network of the realm.
    pub fn new(keys: SimKeys, imsi: String, plmn: Plmn, imei: String) -> Self {
        Self { keys, imsi, plmn, imei, emergency: false, seen: None, pseudonym: None, reauth: None }
    }

    /// The same SIM in an emergency.
    pub fn in_emergency(self) -> Self {
        Self { emergency: true, ..self }
    }

    /// The phone's IMEI or IMEISV, digits.
    pub fn imei(&self) -> &str {
        &self.imei
    }

    /// The name to begin with: the one that reveals least.
    pub fn identity(&self, variant: Variant) -> String {
        self.identity_for(IdentityRequest::Any, variant)
    }

    /// Whether the next attach can be a fast re-authentication.
    pub fn is_known(&self) -> bool {
        self.reauth.is_some()
    }

    /// The name for a request of the server (RFC 4187 §4.1.6).
    pub(super) fn identity_for(&self, request: IdentityRequest, variant: Variant) -> String {
        if self.emergency {
            return Nai::emergency(variant, &self.imsi, self.plmn).to_string();
        }
        let reauth = self.reauth.as_ref().filter(|known| known.keys.variant == variant);
        match (request, reauth, &self.pseudonym) {
            (IdentityRequest::Any, Some(known), _) => known.name.clone(),
            (IdentityRequest::Any | IdentityRequest::FullAuth, _, Some(pseudonym)) => {
                format!("{pseudonym}@{}", self.plmn.realm())
            }
            _ => Nai::permanent(variant, &self.imsi, self.plmn).to_string(),
        }
    }

    /// Runs the USIM.
    pub(super) fn answer(&mut self, rand: &Rand, autn: &Autn) -> Result<Answer, Declined> {
        let usim = &self.keys.usim;
        let answer = usim.answer(rand, autn).map_err(|WrongMac| Declined::WrongMac)?;
        if self.keys.check_sqn {
            let seen = self.seen.get_or_insert_with(|| Box::new([0; INDICES]));
            let entry = &mut seen[usize::from(answer.sqn.ind())];
            if answer.sqn.seq() <= *entry {
                return Err(Declined::Stale(usim.auts(rand, highest(seen))));
            }
            *entry = answer.sqn.seq();
        }
        Ok(answer)
    }

    /// Sets the sequence number for every IND, as if the SIM had been used elsewhere.
    pub fn advance(&mut self, sqn: Sqn) {
        self.seen = Some(Box::new([sqn.seq(); INDICES]));
    }

    /// The server is content: its names are in force, the fast re-authentication identity used is not any more.
    pub(super) fn take_over(&mut self, keys: ReauthKeys, names: Names, counter: Option<u16>) {
        if let Some(pseudonym) = names.pseudonym {
            self.pseudonym = Some(pseudonym);
        }
        self.reauth =
            names.reauth.map(|name| Box::new(Remembered { name, keys, counter: counter.unwrap_or(0) }));
    }
}

/// SQN_MS: the greatest that was accepted (TS 33.102 Annex C.2.1).
fn highest(seen: &[u64; INDICES]) -> Sqn {
    let (ind, seq) = (0u64..).zip(seen).max_by_key(|(_, seq)| **seq).unwrap_or((0, &0));
    Sqn::new(seq << Sqn::IND_BITS | ind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::eap::usim::Milenage;

    fn usim() -> Usim {
        Usim::Milenage(Milenage::with_opc(&[1; 16], &[2; 16]))
    }

    fn sim(check_sqn: bool) -> Sim {
        let keys = SimKeys { usim: Rc::new(usim()), check_sqn };
        Sim::new(keys, "001010000000001".into(), Plmn::new("001", "01").unwrap(), "1".repeat(15))
    }

    /// Whether a challenge with this SEQ and IND is answered.
    fn fresh(sim: &mut Sim, seq: u64, ind: u64) -> bool {
        let vector = usim().vector(&[9; 16], Sqn::new(seq << 5 | ind), [0, 0]);
        sim.answer(&vector.rand, &vector.autn).is_ok()
    }

    #[test]
    fn ts33102_c_2_a_sequence_number_is_good_once_per_index() {
        let mut sim = sim(true);
        assert!(fresh(&mut sim, 1, 0) && !fresh(&mut sim, 1, 0));
        assert!(fresh(&mut sim, 1, 1), "another index");
        assert!(fresh(&mut sim, 9, 1) && !fresh(&mut sim, 5, 1) && fresh(&mut sim, 5, 0), "out of order");
    }

    #[test]
    fn ts33102_6_3_5_a_stale_number_is_answered_with_the_greatest() {
        let mut sim = sim(true);
        sim.advance(Sqn::new(0x700));
        let vector = usim().vector(&[9; 16], Sqn::new(0x20), [0, 0]);
        let Err(Declined::Stale(auts)) = sim.answer(&vector.rand, &vector.autn) else { panic!("answered") };
        assert_eq!(usim().resynchronise(&[9; 16], &auts).unwrap().seq(), Sqn::new(0x700).seq());
    }

    #[test]
    fn a_sim_that_does_not_check_answers_anything_of_its_network() {
        let mut sim = sim(false);
        assert!(fresh(&mut sim, 0, 0) && fresh(&mut sim, 0, 0));
        let mut vector = usim().vector(&[9; 16], Sqn::new(0x20), [0, 0]);
        vector.autn[15] ^= 1;
        assert!(matches!(sim.answer(&vector.rand, &vector.autn), Err(Declined::WrongMac)));
    }
}
