//! The authentication centre of the embedded back end: what a home network would be asked.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use codec::Random;
use codec::eap::aka::Variant;
use codec::eap::usim::{AuthVector, Auts, Milenage, Rand, Tuak, Usim};

use super::sequence::Sequence;
use super::subscribers::{Algorithm, Subscriber, Subscribers};
use crate::control::aaa::aka::{AuthCentre, Reauth};
use crate::control::responder::RejectCause;

/// Iterations of Keccak in TUAK, and octets of its response (TS 35.231 §6.2).
const TUAK_ITERATIONS: u8 = 1;
const TUAK_RES_LEN: usize = 8;

/// The separation bit, which EAP-AKA' demands (TS 33.402 §6.2).
const AMF_SEPARATION: u8 = 0x80;

/// Subscribers, their sequence numbers, and the names they were given. Each has two pseudonyms and one
/// re-authentication identity at most: a few hundred octets per subscriber that has attached.
pub(super) struct Centre {
    pub(super) subscribers: Arc<Subscribers>,
    sequence: Rc<RefCell<Sequence>>,
    pseudonyms: AHashMap<Box<str>, Arc<str>>,
    /// The present pseudonym of an IMSI, and the one before.
    given: AHashMap<Arc<str>, [Option<Box<str>>; 2]>,
    reauths: AHashMap<Box<str>, Reauth>,
    /// The re-authentication identity of an IMSI.
    reauth_of: AHashMap<Arc<str>, Box<str>>,
    random: Box<dyn Random>,
    /// The APN of the attempt that is served.
    pub(super) apn: Option<Arc<str>>,
}

impl Centre {
    pub(super) fn new(
        subscribers: Arc<Subscribers>,
        sequence: Rc<RefCell<Sequence>>,
        random: Box<dyn Random>,
    ) -> Self {
        Self {
            subscribers,
            sequence,
            pseudonyms: AHashMap::new(),
            given: AHashMap::new(),
            reauths: AHashMap::new(),
            reauth_of: AHashMap::new(),
            random,
            apn: None,
        }
    }

    fn subscriber(&self, imsi: &str) -> Result<&Subscriber, RejectCause> {
        self.subscribers.sim(imsi).ok_or(RejectCause::UserUnknown)
    }
}

impl AuthCentre for Centre {
    fn vector(&mut self, imsi: &str, variant: Variant) -> Result<AuthVector, RejectCause> {
        let mut rand = Rand::default();
        self.random.fill(&mut rand);
        let subscriber = self.subscriber(imsi)?;
        let mut amf = subscriber.amf;
        if variant == Variant::AkaPrime {
            amf[0] |= AMF_SEPARATION;
        }
        let sqn = self.sequence.borrow_mut().next(imsi, subscriber.sqn);
        let sqn = sqn.ok_or(RejectCause::Congestion)?;
        Ok(usim(subscriber)?.vector(&rand, sqn, amf))
    }

    fn resynchronise(&mut self, imsi: &str, rand: &Rand, auts: &Auts) -> Result<(), RejectCause> {
        let seen = usim(self.subscriber(imsi)?)?.resynchronise(rand, auts);
        let seen = seen.map_err(|_| RejectCause::AuthenticationFailed)?;
        self.sequence.borrow_mut().resynchronise(imsi, seen);
        Ok(())
    }

    fn admit(&mut self, imsi: &str) -> Result<(), RejectCause> {
        let Some(apns) = &self.subscriber(imsi)?.apns else { return Ok(()) };
        let has = self.apn.as_ref().is_some_and(|apn| apns.iter().any(|own| **own == **apn));
        if has { Ok(()) } else { Err(RejectCause::NoApnSubscription) }
    }

    fn of_pseudonym(&mut self, name: &str) -> Option<Arc<str>> {
        self.pseudonyms.get(name).cloned()
    }

    fn keep_pseudonym(&mut self, imsi: &str, name: &str) {
        let imsi: Arc<str> = imsi.into();
        let given = self.given.entry(imsi.clone()).or_default();
        let [present, before] = std::mem::take(given);
        if let Some(oldest) = before {
            self.pseudonyms.remove(&oldest);
        }
        *given = [Some(name.into()), present];
        self.pseudonyms.insert(name.into(), imsi);
    }

    fn take_reauth(&mut self, name: &str) -> Option<Reauth> {
        let reauth = self.reauths.remove(name)?;
        self.reauth_of.remove(&reauth.imsi);
        // A subscriber may have been taken out meanwhile.
        self.subscribers.sim(&reauth.imsi).is_some().then_some(reauth)
    }

    fn keep_reauth(&mut self, name: &str, reauth: Reauth) {
        if let Some(before) = self.reauth_of.insert(reauth.imsi.clone(), name.into()) {
            self.reauths.remove(&before);
        }
        self.reauths.insert(name.into(), reauth);
    }
}

/// The functions of a SIM, with its keys.
fn usim(subscriber: &Subscriber) -> Result<Usim, RejectCause> {
    // The configuration has checked the lengths.
    let wrong = RejectCause::NetworkFailure;
    Ok(match subscriber.algorithm {
        Algorithm::Milenage => {
            let k = subscriber.k.as_slice().try_into().map_err(|_| wrong)?;
            let opc = subscriber.opc.as_slice().try_into().map_err(|_| wrong)?;
            Usim::Milenage(Milenage::with_opc(k, opc))
        }
        Algorithm::Tuak => {
            let topc = subscriber.opc.as_slice().try_into().map_err(|_| wrong)?;
            Usim::Tuak(Tuak::with_topc(&subscriber.k, topc, TUAK_ITERATIONS, TUAK_RES_LEN).ok_or(wrong)?)
        }
    })
}
