//! What sets one kind of phone apart from another.

use super::EndCause;
use codec::ike::CfgAttrType;
use codec::ike::payload::ConfigView;
use std::time::Duration;

/// Behaviour of a handset beyond its proposals and credentials. The default is a UE without quirks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handset {
    /// Configuration attributes it asks for, in this order (RFC 7296 §3.15.1).
    pub asks: Vec<CfgAttrType>,
    /// Those of them without whose answer it gives the tunnel up.
    pub needs: Vec<CfgAttrType>,
    /// PDU session that it names in N1_MODE_CAPABILITY (TS 24.302 §8.2.9.15), for a phone that can use 5G.
    pub pdu_session: Option<u8>,
    /// Whether it says that it can be given other P-CSCFs later (P_CSCF_RESELECTION_SUPPORT).
    pub p_cscf_reselection: bool,
    /// Whether it claims to be behind a NAT, so that ESP is encapsulated in UDP whatever the path is.
    pub fakes_nat: bool,
    /// Whether it announces IKE fragmentation (RFC 7383).
    pub fragmentation: bool,
    /// Whether it gives up at a message in a single fragment.
    pub fears_single_fragment: bool,
    /// Whether it takes a cookie for an error.
    pub fears_cookies: bool,
    /// Whether it takes anything in the response to its Delete for an error (INVALID_SYNTAX).
    pub empty_delete_response: bool,
    /// Replaces its Child SA after so long.
    pub rekey_child: Option<Duration>,
    /// Replaces its IKE SA after so long.
    pub rekey_ike: Option<Duration>,
}

impl Default for Handset {
    fn default() -> Self {
        Self {
            asks: vec![
                CfgAttrType::INTERNAL_IP4_ADDRESS,
                CfgAttrType::INTERNAL_IP4_DNS,
                CfgAttrType::INTERNAL_IP6_ADDRESS,
                CfgAttrType::INTERNAL_IP6_DNS,
            ],
            needs: Vec::new(),
            pdu_session: None,
            p_cscf_reselection: false,
            fakes_nat: false,
            fragmentation: false,
            fears_single_fragment: false,
            fears_cookies: false,
            empty_delete_response: false,
            rekey_child: None,
            rekey_ike: None,
        }
    }
}

impl Handset {
    /// Gives the tunnel up where a real phone does: an attribute that it needs has no answer.
    pub(super) fn check_answers(&self, answer: &ConfigView<'_>) -> Result<(), EndCause> {
        let given = |kind: CfgAttrType| {
            answer.attributes().any(|attribute| attribute.kind == kind && !attribute.value.is_empty())
        };
        match self.needs.iter().find(|kind| !given(**kind)) {
            Some(kind) => Err(EndCause::Handset(format!("no answer to {kind}"))),
            None => Ok(()),
        }
    }
}

/// A device identity as DEVICE_IDENTITY carries it: length, type 1 (IMEI, 15 digits) or 2 (IMEISV, 16), the digits two to
/// an octet, the first of them in the lower half, filled with F. `None` for anything that is neither.
///
/// Source: TS 24.302 §8.2.9.2.
pub(super) fn device_identity(digits: &str, wanted: u8) -> Option<Vec<u8>> {
    // An IMEISV is an IMEI's first 14 digits and a software version; an IMEI ends in a check digit.
    let digits = match (wanted, digits.len()) {
        (1, 15) | (2, 16) => digits.to_owned(),
        (2, 15) => format!("{}00", &digits[..14]),
        _ => return None,
    };
    let nibbles: Option<Vec<u8>> =
        digits.chars().map(|digit| digit.to_digit(10).map(|digit| digit as u8)).collect();
    let mut data = vec![0, 9, wanted];
    data.extend(nibbles?.chunks(2).map(|pair| pair.get(1).copied().unwrap_or(0xf) << 4 | pair[0]));
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ts24302_8_2_9_2_digits_in_swapped_halves() {
        let imei = device_identity("123456789123456", 1).expect("15 digits");
        assert_eq!(imei, [0x00, 0x09, 0x01, 0x21, 0x43, 0x65, 0x87, 0x19, 0x32, 0x54, 0xf6]);
        let imeisv = device_identity("1234567891234567", 2).expect("16 digits");
        assert_eq!(imeisv[10], 0x76);
        assert_eq!(device_identity("123456789123456", 2).expect("made up")[9..], [0x54, 0x00]);
        assert!(device_identity("1234", 1).is_none() && device_identity("123456789123456", 3).is_none());
    }

    #[test]
    fn an_answer_without_what_the_phone_needs_is_given_up() {
        use codec::ike::CfgType;
        use codec::ike::payload::ConfigAttr;
        let kind = CfgAttrType::P_CSCF_IP4_ADDRESS_LEGACY;
        let handset = Handset { needs: vec![kind], ..Handset::default() };
        for (value, kept) in [(&[10, 0, 0, 1][..], true), (&[], false)] {
            let mut body = Vec::new();
            ConfigView::encode(CfgType::REPLY, [ConfigAttr { kind, value }], &mut body);
            let view = ConfigView::decode(&body).expect("our own");
            assert_eq!(handset.check_answers(&view).is_ok(), kept);
        }
    }
}
