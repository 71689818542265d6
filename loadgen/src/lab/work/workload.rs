//! The names of what runs inside the tunnel.

use super::emodel::Codec;
use std::fmt::{self, Display};
use std::str::FromStr;

/// What one may write.
const ALLOWED: &str = "bulk, bulk-N (N flows), voice, evs, web, sip, sip-tcp, imix, each once, joined by +";
/// Most flows of bulk: each has two threads.
const FLOWS_MAX: usize = 64;

/// What runs at the same time, such as `bulk-8+voice`. Written out, it reads the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Flows of bulk TCP; 0 is none.
    pub bulk: usize,
    /// A call.
    pub voice: Option<Codec>,
    /// Short flows.
    pub web: bool,
    /// Registrations.
    pub sip: Option<Transport>,
    /// UDP of mixed sizes.
    pub imix: bool,
    names: Vec<String>,
}

/// What carries SIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP, with the timers of RFC 3261.
    Udp,
    /// A TCP connection for each registration.
    Tcp,
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut workload = Self::default();
        for name in text.split('+') {
            workload
                .add(name)
                .ok_or_else(|| format!("{name:?} of workload {text:?}: allowed is {ALLOWED}"))?;
            workload.names.push(name.to_owned());
        }
        Ok(workload)
    }
}

impl Workload {
    /// Adds a part; `None` when there is no such part, or one of its kind already.
    fn add(&mut self, name: &str) -> Option<()> {
        let free = match name {
            "voice" => self.voice.replace(Codec::AmrWb12).is_none(),
            "evs" => self.voice.replace(Codec::Evs13).is_none(),
            "web" => !std::mem::replace(&mut self.web, true),
            "sip" => self.sip.replace(Transport::Udp).is_none(),
            "sip-tcp" => self.sip.replace(Transport::Tcp).is_none(),
            "imix" => !std::mem::replace(&mut self.imix, true),
            "bulk" => std::mem::replace(&mut self.bulk, 1) == 0,
            flows => {
                let flows = flows.strip_prefix("bulk-")?.parse().ok()?;
                (1..=FLOWS_MAX).contains(&flows) && std::mem::replace(&mut self.bulk, flows) == 0
            }
        };
        free.then_some(())
    }
}

impl Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join("+"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_and_written_as_they_were_read() {
        let workload: Workload = "bulk-8+voice+web+sip-tcp+imix".parse().unwrap();
        assert_eq!((workload.bulk, workload.voice), (8, Some(Codec::AmrWb12)));
        assert_eq!((workload.web, workload.sip, workload.imix), (true, Some(Transport::Tcp), true));
        assert_eq!(workload.to_string(), "bulk-8+voice+web+sip-tcp+imix");
        let workload: Workload = "evs+bulk".parse().unwrap();
        assert_eq!((workload.bulk, workload.voice, workload.sip), (1, Some(Codec::Evs13), None));
    }

    #[test]
    fn the_error_names_what_is_allowed() {
        for text in ["", "bulk+", "fax", "bulk-0", "bulk-65", "bulk-x", "voice+evs", "bulk+bulk-2", "web+web"]
        {
            let error = text.parse::<Workload>().unwrap_err();
            assert!(error.contains("bulk-N") && error.contains("sip-tcp"), "{error}");
        }
    }
}
