//! From options to SIMs.

use super::options::read_hex;
use crate::cli::{Auth, SimOptions, UeOptions};
use crate::error::Failure;
use crate::ue::{EapCredentials, GatewayTrust, Identity, Sim, SimKeys, Subscriber};
use codec::eap::aka::Variant;
use codec::eap::identity::Plmn;
use codec::eap::usim::{Milenage, Sqn, Tuak, Usim};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Octets of the response that TUAK is asked for, as most networks do.
const TUAK_RES_LEN: usize = 8;

/// IMEI of the first phone when none is given: 00 is the reporting body of test equipment.
const IMEI_DEFAULT: &str = "001010000000000";

fn variant(auth: Auth) -> Variant {
    if auth == Auth::EapAkaPrime { Variant::AkaPrime } else { Variant::Aka }
}

/// How UEs with SIMs authenticate.
pub(super) fn read_eap(
    options: &UeOptions,
    auth: Auth,
    alone: bool,
    trust: Option<GatewayTrust>,
) -> EapCredentials {
    EapCredentials {
        variant: variant(auth),
        network_name: options.sim.network_name.as_str().into(),
        trust,
        alone,
    }
}

/// Who each UE is: a SIM of its own, the same each time it is asked for. `idi` overrides the name in IDi; {} becomes the
/// UE's index.
///
/// # Errors
/// [`Failure::Usage`] for what is missing or wrong.
pub(super) fn read_sims(
    options: &UeOptions,
    auth: Auth,
    idi: Option<String>,
) -> Result<Rc<dyn Fn(u32) -> Subscriber>, Failure> {
    let sim = &options.sim;
    let usage = |text: &str| Failure::Usage(text.to_owned());
    let imsi = sim.imsi.clone().ok_or_else(|| usage("--auth eap-aka needs --imsi DIGITS"))?;
    if !(6..=15).contains(&imsi.len()) {
        return Err(usage("--imsi: 6 to 15 digits"));
    }
    let imsi = Digits::new(&imsi).ok_or_else(|| usage("--imsi: 6 to 15 digits"))?;
    let mnc_digits = usize::from(sim.mnc_digits);
    let imei = sim.imei.as_deref().unwrap_or(IMEI_DEFAULT);
    let imei = Digits::new(imei)
        .filter(|_| matches!(imei.len(), 15 | 16))
        .ok_or_else(|| usage("--imei: 15 or 16 digits"))?;
    let sqn = sim.sqn.as_deref().map(read_sqn).transpose()?;
    let keys = SimKeys { usim: Rc::new(read_usim(sim)?), check_sqn: !sim.no_sqn_check };
    let (variant, emergency) = (variant(auth), sim.emergency);
    let sims: RefCell<BTreeMap<u32, Rc<RefCell<Sim>>>> = RefCell::default();
    Ok(Rc::new(move |index| {
        let made = || {
            let imsi = imsi.plus(index);
            let plmn = Plmn::of_imsi(&imsi, mnc_digits).expect("six digits at least");
            let mut sim = Sim::new(keys.clone(), imsi, plmn, imei.plus(index));
            if let Some(sqn) = sqn {
                sim.advance(sqn);
            }
            Rc::new(RefCell::new(if emergency { sim.in_emergency() } else { sim }))
        };
        let sim = sims.borrow_mut().entry(index).or_insert_with(made).clone();
        match &idi {
            Some(pattern) => {
                let idi = Identity::parse(&pattern.replace("{}", &index.to_string()));
                Subscriber { idi, sim: Some(sim) }
            }
            None => Subscriber::of_sim(sim, variant),
        }
    }))
}

/// A number that keeps its leading zeros.
struct Digits {
    first: u64,
    len: usize,
}

impl Digits {
    /// At most 18 digits.
    fn new(text: &str) -> Option<Self> {
        let possible = (1..=18).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
        possible.then(|| text.parse().ok()).flatten().map(|first| Self { first, len: text.len() })
    }

    /// The number `index` further, around the end of its digits.
    fn plus(&self, index: u32) -> String {
        let number = (self.first + u64::from(index)) % 10u64.pow(self.len as u32);
        format!("{number:0len$}", len = self.len)
    }
}

fn read_sqn(text: &str) -> Result<Sqn, Failure> {
    let octets = read_hex(text).and_then(|octets| <[u8; 6]>::try_from(octets.as_slice()).ok());
    octets.map(Sqn::from_octets).ok_or_else(|| Failure::Usage("--sqn: 12 hexadecimal digits".into()))
}

/// The algorithm set: TUAK with --topc, Milenage with --opc or --op.
fn read_usim(sim: &SimOptions) -> Result<Usim, Failure> {
    let usage = |text: &str| Failure::Usage(text.to_owned());
    let k = sim.k.as_deref().ok_or_else(|| usage("--auth eap-aka needs --k HEX"))?;
    let k = read_hex(k).ok_or_else(|| usage("--k: hexadecimal digits"))?;
    if let Some(topc) = &sim.topc {
        let topc = array::<32>(topc).ok_or_else(|| usage("--topc: 32 octets in hexadecimal"))?;
        let tuak = Tuak::with_topc(&k, &topc, 1, TUAK_RES_LEN);
        return tuak.map(Usim::Tuak).ok_or_else(|| usage("--k: 16 or 32 octets in hexadecimal"));
    }
    let k: &[u8; 16] =
        k.as_slice().try_into().map_err(|_| usage("--k: 16 octets in hexadecimal for Milenage"))?;
    let sixteen = |text: &String, flag: &str| {
        array::<16>(text).ok_or_else(|| Failure::Usage(format!("{flag}: 16 octets in hexadecimal")))
    };
    let milenage = match (&sim.opc, &sim.op) {
        (Some(opc), _) => Milenage::with_opc(k, &sixteen(opc, "--opc")?),
        (None, Some(op)) => Milenage::with_op(k, &sixteen(op, "--op")?),
        (None, None) => {
            return Err(usage("--auth eap-aka needs --opc HEX, --op HEX or, for TUAK, --topc HEX"));
        }
    };
    Ok(Usim::Milenage(milenage))
}

fn array<const N: usize>(text: &str) -> Option<[u8; N]> {
    read_hex(text)?.as_slice().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn sims(more: &str) -> Result<Rc<dyn Fn(u32) -> Subscriber>, String> {
        let words = "loadgen attach --gateway g:1 --auth eap-aka".split(' ').chain(more.split_whitespace());
        let Command::Attach(args) = Cli::parse_from(words).command else { unreachable!("the text says so") };
        read_sims(&args.ue, Auth::EapAka, None).map_err(|error| error.to_string())
    }

    #[test]
    fn each_ue_has_the_next_imsi_and_keeps_its_sim() {
        let k = "00".repeat(16);
        let who = sims(&format!("--imsi 001010000000009 --k {k} --opc {k}")).unwrap();
        let name = |index| String::from_utf8(who(index).idi.data).unwrap();
        assert_eq!(name(0), "0001010000000009@nai.epc.mnc001.mcc001.3gppnetwork.org");
        assert_eq!(name(1), "0001010000000010@nai.epc.mnc001.mcc001.3gppnetwork.org");
        assert!(Rc::ptr_eq(&who(1).sim.unwrap(), &who(1).sim.unwrap()));
    }

    #[test]
    fn an_emergency_has_a_realm_of_its_own() {
        let k = "00".repeat(16);
        let who = sims(&format!("--imsi 001010000000009 --k {k} --opc {k} --emergency")).unwrap();
        let name = String::from_utf8(who(0).idi.data).unwrap();
        assert_eq!(name, "0001010000000009@sos.nai.epc.mnc001.mcc001.3gppnetwork.org");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let k = "00".repeat(16);
        for (text, expected) in [
            (format!("--k {k} --opc {k}"), "--imsi"),
            ("--imsi 001010000000009".into(), "--k"),
            (format!("--imsi 001010000000009 --k {k}"), "--opc"),
            (format!("--imsi 00101000000000x --k {k} --opc {k}"), "--imsi"),
            (format!("--imsi 001010000000009 --k 00 --opc {k}"), "--k"),
            (format!("--imsi 001010000000009 --k {k} --topc {k}"), "--topc"),
            (format!("--imsi 001010000000009 --k {k} --opc {k} --imei 12"), "--imei"),
            (format!("--imsi 001010000000009 --k {k} --opc {k} --sqn 12"), "--sqn"),
        ] {
            let error = sims(&text).err().expect(&text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
