//! The SIMs of a demo's UEs: made for it, known to its gateway, gone with it.

use crate::cli::Auth;
use crate::error::Failure;
use crate::ue::{Credentials, EapCredentials, GatewayTrust, Sim, SimKeys, Subscriber};
use codec::Random;
use codec::eap::aka::Variant;
use codec::eap::identity::Plmn;
use codec::eap::usim::{Milenage, Usim};
use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use zeroize::Zeroizing;

/// The network of test SIMs (ITU-T E.212): country 001, network 01.
const MCC: &str = "001";
const MNC: &str = "01";

/// Keys of all SIMs of a demo.
pub struct Sims {
    k: Zeroizing<[u8; 16]>,
    opc: Zeroizing<[u8; 16]>,
}

impl Sims {
    /// New ones.
    pub fn new() -> Self {
        let draw = || {
            let mut octets = Zeroizing::new([0; 16]);
            codec::OsRandom.fill(&mut *octets);
            octets
        };
        Self { k: draw(), opc: draw() }
    }

    /// The first `count` of them as entries of the gateway's file of secrets.
    pub(super) fn entries(&self, count: u32) -> Zeroizing<String> {
        let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        let (k, opc) = (Zeroizing::new(hex(&*self.k)), Zeroizing::new(hex(&*self.opc)));
        let mut text = Zeroizing::new(String::new());
        for index in 0..count {
            let (imsi, k, opc) = (imsi(index), &*k, &*opc);
            // Writing into memory cannot fail.
            let _ = writeln!(*text, "[[secret]]\nimsi = \"{imsi}\"\nk = \"{k}\"\nopc = \"{opc}\"");
        }
        text
    }

    /// Who each UE is.
    pub(super) fn subscribers(&self, variant: Variant) -> Rc<dyn Fn(u32) -> Subscriber> {
        let usim = Usim::Milenage(Milenage::with_opc(&self.k, &self.opc));
        let keys = SimKeys { usim: Rc::new(usim), check_sqn: true };
        let plmn = Plmn::new(MCC, MNC).expect("digits");
        Rc::new(move |index| {
            let sim = Sim::new(keys.clone(), imsi(index), plmn, format!("00101000{index:07}"));
            Subscriber::of_sim(Rc::new(RefCell::new(sim)), variant)
        })
    }

    /// How they authenticate, and whom they believe.
    pub(super) fn credentials(variant: Variant, trust: GatewayTrust) -> Credentials {
        let network_name = "WLAN".into();
        Credentials::Eap(Box::new(EapCredentials { variant, network_name, trust: Some(trust), alone: false }))
    }
}

impl Default for Sims {
    fn default() -> Self {
        Self::new()
    }
}

/// Who the UEs of a demo are.
pub(super) enum Who {
    /// All have one key.
    Psk,
    /// Each has a SIM.
    Sims(Sims, Variant),
}

impl Who {
    pub(super) fn new(auth: Auth) -> Result<Self, Failure> {
        match auth {
            Auth::Psk => Ok(Self::Psk),
            Auth::EapAka => Ok(Self::Sims(Sims::new(), Variant::Aka)),
            Auth::EapAkaPrime => Ok(Self::Sims(Sims::new(), Variant::AkaPrime)),
            Auth::Cert => Err(Failure::Usage("--auth: psk, eap-aka or eap-aka-prime".into())),
        }
    }

    pub(super) fn sims(&self) -> Option<&Sims> {
        match self {
            Self::Psk => None,
            Self::Sims(sims, _) => Some(sims),
        }
    }
}

fn imsi(index: u32) -> String {
    format!("{MCC}{MNC}{index:010}")
}
