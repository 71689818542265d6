//! One UE in full: every protected message of it, payload by payload, for an operator who asked. Keys, nonces, proofs and
//! what EAP carries are told by their lengths only.

use std::fmt::Write;

use codec::ike::payload::{Payload, PayloadIter, RawPayload};
use codec::ike::{ExchangeType, HEADER_LEN, IkeHeader, MessageBuilder, PayloadType};

use super::identity::Identity;
use super::inner::Payloads;
use super::sa::HalfOpen;
use super::{Core, Event, Responder};

/// Payloads of one message that are told.
const PAYLOADS_MAX: usize = 32;

/// Whom a trace follows.
pub(super) struct Trace {
    wanted: String,
}

/// Whether an identity is the one that an operator means: itself in any case, or the IMSI in it, behind the digit that
/// tells its kind.
pub fn is_meant(identity: &str, wanted: &str) -> bool {
    let (identity, wanted) = (identity.to_lowercase(), wanted.to_lowercase());
    let user = identity.split('@').next().unwrap_or_default();
    let imsi = wanted.bytes().all(|octet| octet.is_ascii_digit());
    identity == wanted || imsi && (user == wanted || user.get(1..) == Some(wanted.as_str()))
}

impl Responder {
    /// Follows the UE with this identity or IMSI from now on, or nobody.
    pub fn set_trace(&mut self, wanted: Option<&str>) {
        self.core.trace = wanted.map(|wanted| Trace { wanted: wanted.to_owned() });
        self.core.traced = false;
    }
}

impl Core {
    /// Whether a UE is followed. Costs nothing while nobody is.
    pub(super) fn follows(&self, idi: &Identity) -> bool {
        self.trace.as_ref().is_some_and(|trace| is_meant(&idi.to_string(), &trace.wanted))
    }

    /// What follows is about this UE.
    pub(super) fn trace_about(&mut self, idi: &Identity) {
        self.traced = self.follows(idi);
    }

    /// Tells of a message that came in.
    pub(super) fn trace_in(&mut self, header: &IkeHeader, payloads: &Payloads<'_>) {
        if self.traced
            && let Some((first, chain)) = payloads.chain
        {
            self.tell("from the UE", header, first, chain);
        }
    }

    /// Tells of a message that goes out.
    pub(super) fn trace_out(&mut self, builder: &MessageBuilder) {
        if self.traced {
            let (first, chain) = builder.inner();
            self.tell("to the UE", &builder.header(), first, chain);
        }
    }

    /// Tells of the exchange before the UE had a name.
    pub(super) fn trace_begun(&mut self, half: &HalfOpen) {
        if !self.traced {
            return;
        }
        for (way, message) in [("from the UE", &half.request), ("to the UE", &half.response)] {
            if let (Ok(header), Some(chain)) = (IkeHeader::decode(message), message.get(HEADER_LEN..)) {
                self.tell(way, &header, header.next_payload, chain);
            }
        }
    }

    fn tell(&mut self, way: &'static str, header: &IkeHeader, first: PayloadType, chain: &[u8]) {
        let kind = if header.flags.is_response() { "response" } else { "request" };
        let mut line = format!("{way}: {} {kind} {}", header.exchange, header.message_id.0);
        if header.exchange == ExchangeType::IKE_SA_INIT {
            // Writing into memory cannot fail, here and below.
            let _ = write!(line, " {} {}", hex(&header.spi_i.0), hex(&header.spi_r.0));
        }
        line.push_str(" [");
        for (count, raw) in PayloadIter::new(first, chain).take(PAYLOADS_MAX).enumerate() {
            line.push_str(if count > 0 { ", " } else { "" });
            match raw {
                Ok(raw) => describe(&mut line, &raw),
                Err(_) => line.push_str("malformed"),
            }
        }
        line.push(']');
        self.events.push_back(Event::Traced(line.into()));
    }
}

/// Writes one payload.
fn describe(line: &mut String, raw: &RawPayload<'_>) {
    let kind = raw.kind;
    let _ = match raw.decode() {
        Ok(Payload::Notify(notify)) => write!(line, "N({} {})", notify.kind, shown(notify.data)),
        Ok(Payload::IdI(id) | Payload::IdR(id)) => {
            let name = Identity::new(id.kind, id.data).map(|name| name.to_string()).unwrap_or_default();
            write!(line, "{kind}({} {name})", id.kind)
        }
        Ok(Payload::Config(config)) => {
            let attributes = config.attributes().map(|attr| format!("{} {}", attr.kind, shown(attr.value)));
            write!(line, "CP({} {})", config.kind, attributes.collect::<Vec<_>>().join(" "))
        }
        Ok(Payload::Sa(sa)) => {
            let offers = sa.proposals().map(|offer| {
                let transforms =
                    offer.transforms().map(|transform| format!("{}={}", transform.kind, transform.id));
                format!("{}:{} {}", offer.number, offer.protocol, transforms.collect::<Vec<_>>().join(" "))
            });
            write!(line, "SA({})", offers.collect::<Vec<_>>().join("; "))
        }
        Ok(Payload::TsI(ts) | Payload::TsR(ts)) => {
            let selectors = ts.selectors().map(|ts| format!("{}-{}", ts.first, ts.last));
            write!(line, "{kind}({})", selectors.collect::<Vec<_>>().join(" "))
        }
        Ok(Payload::Ke(ke)) => write!(line, "KE({} {} octets)", ke.group, ke.data.len()),
        Ok(Payload::Auth(auth)) => write!(line, "AUTH(method {} {} octets)", auth.method, auth.data.len()),
        // Code, identifier, type; of EAP-AKA the subtype as well.
        Ok(Payload::Eap(eap)) => match eap.packet {
            [code, id, _, _, method @ (23 | 50), subtype, ..] => {
                write!(
                    line,
                    "EAP(code {code} id {id} type {method} subtype {subtype} {} octets)",
                    eap.packet.len()
                )
            }
            [code, id, _, _, method, ..] => {
                write!(line, "EAP(code {code} id {id} type {method} {} octets)", eap.packet.len())
            }
            [code, id, ..] => write!(line, "EAP(code {code} id {id})"),
            _ => write!(line, "EAP"),
        },
        Ok(_) => write!(line, "{kind}({} octets)", raw.body.len()),
        Err(_) => write!(line, "{kind}(malformed)"),
    };
}

/// Short data in hexadecimal, long data by its length: a ticket or a cookie is nobody's business.
fn shown(data: &[u8]) -> String {
    match data.len() {
        0 => "-".into(),
        1..=20 => hex(data),
        len => format!("{len} octets"),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_imsi_means_its_subscriber_whatever_the_kind_of_name() {
        let nai = "0001010000000001@nai.epc.mnc001.mcc001.3gppnetwork.org";
        for (wanted, found) in [
            (nai, true),
            ("001010000000001", true),
            ("0001010000000001", true),
            ("01010000000001", false),
            ("nai.epc", false),
        ] {
            assert_eq!(is_meant(nai, wanted), found, "{wanted}");
        }
        assert!(is_meant("Alice", "alice") && !is_meant("alice", "lice"));
    }
}
