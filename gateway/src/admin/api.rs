//! What an administrator may ask, and the JSON shapes of the answers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// A request: one line of JSON on the control socket, such as `{"command":"terminate","id":7}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// All sessions with their Child SAs and traffic.
    Sessions,
    /// Attempts to attach that failed, oldest first.
    Failed {
        /// Only those of this identity or IMSI.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idi: Option<String>,
    },
    /// Counters.
    Stats,
    /// Ends sessions: the one with this id, all whose IDi is this (case is ignored), or all of a profile.
    Terminate {
        /// The session's number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        /// The UE's identity.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idi: Option<String>,
        /// The profile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
        /// Whether phones are asked to attach again at once, as when their P-CSCFs have failed (TS 24.302, TS 23.380).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        reactivate: bool,
    },
    /// Has the phones of the sessions that [`Request::Terminate`] would end go to the P-CSCFs of their profile as they are now:
    /// told within the session if they can be, else asked to attach again (TS 23.380).
    Reselect {
        /// The session's number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        /// The UE's identity.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idi: Option<String>,
        /// The profile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        profile: Option<String>,
    },
    /// Deletes all sessions, takes no new ones, and ends the process when they are gone or time is up.
    Drain {
        /// The time.
        timeout_s: u32,
    },
    /// Reads the configuration, certificates and CRLs again; sessions stay.
    Reload,
    /// Logs every IKE message of the UE with this identity or IMSI, payload by payload and without keys; of nobody without one.
    Trace {
        /// The UE.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idi: Option<String>,
    },
    /// Starts writing keys into a directory; needs `debug.keylog = true`.
    KeylogStart {
        /// The directory, made if missing.
        dir: PathBuf,
    },
    /// Stops writing keys.
    KeylogStop,
}

/// The answer to a [`Request`].
pub enum Answer {
    /// To [`Request::Sessions`].
    Sessions(Vec<SessionRow>),
    /// To [`Request::Sessions`], of a relay.
    Relayed(Vec<RelayRow>),
    /// To [`Request::Failed`].
    Failed(Vec<FailedRow>),
    /// To [`Request::Stats`].
    Stats(Box<Stats>),
    /// Done; the text says what.
    Done(String),
    /// Not done; the text says why.
    Refused(String),
}

/// A request on its way to the control loop.
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes; dropped when the loop ends first.
    pub reply: oneshot::Sender<Answer>,
}

/// The answer as it crosses the control socket: `{"ok":true,"result":…}` or `{"ok":false,"error":"…"}`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Whether it was done.
    pub ok: bool,
    /// The result: an array of sessions, the statistics, or a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Answer {
    /// The answer as one line of JSON. Long for many sessions: call it outside the control loop.
    pub fn to_line(&self) -> String {
        #[derive(Serialize)]
        struct Good<'a, T: Serialize> {
            ok: bool,
            result: &'a T,
        }
        fn line<T: Serialize>(result: &T) -> serde_json::Result<String> {
            serde_json::to_string(&Good { ok: true, result })
        }
        let text = match self {
            Self::Sessions(rows) => line(rows),
            Self::Relayed(rows) => line(rows),
            Self::Failed(rows) => line(rows),
            Self::Stats(stats) => line(stats),
            Self::Done(message) => line(message),
            Self::Refused(error) => {
                serde_json::to_string(&Reply { ok: false, result: None, error: Some(error.clone()) })
            }
        };
        text.unwrap_or_else(|error| format!("{{\"ok\":false,\"error\":\"{error}\"}}")) + "\n"
    }
}

/// One element of `sessions --json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SessionRow {
    /// The session's number.
    pub id: u64,
    /// The UE's identity.
    pub idi: String,
    /// The identity the UE asked for, such as an APN.
    pub idr: String,
    /// Its profile.
    pub profile: String,
    /// `established`, `detached` (no connection now) or `closing`.
    pub state: String,
    /// `tcp`, `tls` or `udp`.
    pub transport: String,
    /// The UE's address and port.
    pub remote: String,
    /// The worker that owns it.
    pub worker: u8,
    /// Inner addresses.
    pub inner: Vec<String>,
    /// Seconds since it attached.
    pub established_s: u64,
    /// Its IKE SA.
    pub ike: IkeRow,
    /// Its Child SAs.
    pub children: Vec<ChildRow>,
}

/// The IKE SA of a [`SessionRow`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IkeRow {
    /// SPI of the initiator, 16 hexadecimal digits.
    pub spi_i: String,
    /// SPI of the responder, 16 hexadecimal digits.
    pub spi_r: String,
    /// Algorithms in strongSwan's keywords.
    pub suite: String,
    /// Rekeys so far.
    pub rekeys: u32,
    /// Whether fragmentation was negotiated.
    pub fragmentation: bool,
    /// Whether MOBIKE was negotiated.
    pub mobike: bool,
}

/// A Child SA of a [`SessionRow`]; directions as the gateway sees them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ChildRow {
    /// SPI of the uplink, 8 hexadecimal digits.
    pub spi_in: String,
    /// SPI of the downlink, 8 hexadecimal digits.
    pub spi_out: String,
    /// Algorithms in strongSwan's keywords.
    pub suite: String,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// Uplink packets accepted; null when the worker did not answer in time.
    pub packets_in: Option<u64>,
    /// Octets of their inner packets.
    pub bytes_in: Option<u64>,
    /// Downlink packets sent.
    pub packets_out: Option<u64>,
    /// Octets of their inner packets.
    pub bytes_out: Option<u64>,
    /// Packets dropped as replays or left of the window.
    pub replay_drops: Option<u64>,
    /// Rekeys that led to it.
    pub rekeys: u32,
}

/// One element of `sessions --failed --json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FailedRow {
    /// When the attempt began, in seconds since 1970.
    pub began_s: f64,
    /// What the UE called itself, or a hash of it.
    pub idi: String,
    /// The APN that it asked for.
    pub apn: Option<String>,
    /// Its IMEI or IMEISV, or a hash of it, if it was asked and told.
    pub imei: Option<String>,
    /// The profile that fitted.
    pub profile: Option<String>,
    /// `tcp`, `tls` or `udp`.
    pub transport: String,
    /// The UE's address and port.
    pub remote: String,
    /// Why it failed, in words.
    pub cause: String,
    /// What happened when.
    pub steps: Vec<StepRow>,
}

/// One step of a [`FailedRow`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StepRow {
    /// What: `ike_auth`, `eap`, `round`, `accepted`, `failed`.
    pub step: String,
    /// Milliseconds since the attempt began.
    pub ms: f64,
}

/// One server of an AAA back end in [`Stats`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AaaRow {
    /// Name of the back end.
    pub backend: String,
    /// The server.
    pub server: String,
    /// Whether it answers.
    pub up: bool,
    /// Requests, without retransmissions.
    pub requests: u64,
    /// Requests sent once more.
    pub retransmissions: u64,
    /// Requests it did not answer.
    pub timeouts: u64,
    /// Answers that were not authentic or not understood.
    pub bad_answers: u64,
    /// Peers accepted.
    pub accepts: u64,
    /// Peers rejected, by cause.
    pub rejects: BTreeMap<String, u64>,
    /// Mean time until an answer; null before the first one.
    pub answer_ms: Option<f64>,
    /// Answers.
    #[serde(default)]
    pub answers: u64,
    /// Accounting records lost because too many waited.
    #[serde(default)]
    pub lost: u64,
}

/// One element of `sessions --json` of a relay: a connection and its UDP port, by which the backend's log
/// knows the UE.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RelayRow {
    /// The connection's number, for `terminate`.
    pub id: u64,
    /// `opening`, `half-open` or `established`, by what the backend has sent.
    pub state: String,
    /// `tcp`.
    pub transport: String,
    /// The UE's address and port.
    pub remote: String,
    /// The backend's address and port.
    pub backend: String,
    /// The address and port the backend sees.
    pub backend_source: String,
    /// The same for the exchanges that open an IKE SA, while they last and have a port of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_source_ike: Option<String>,
    /// The worker that owns it.
    pub worker: u8,
    /// Seconds since the connection was accepted.
    pub established_s: u64,
    /// Seconds since anything passed.
    pub idle_s: u64,
    /// The IKE SA it carries, as its messages name it.
    pub ike: RelayIke,
    /// ESP to the backend.
    pub uplink: Traffic,
    /// ESP to the UE.
    pub downlink: Traffic,
}

/// The IKE SA of a [`RelayRow`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RelayIke {
    /// SPI of the initiator, 16 hexadecimal digits.
    pub spi_i: String,
    /// SPI of the responder, 16 hexadecimal digits.
    pub spi_r: String,
}

/// Packets and octets of one direction.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Traffic {
    /// Inner packets.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
}

/// `stats --json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// Seconds since start.
    pub uptime_s: u64,
    /// Established sessions.
    pub sessions: u64,
    /// Half-open IKE SAs.
    pub half_open: u64,
    /// Connections.
    pub connections: u64,
    /// Sessions attached per second, over the last seconds.
    pub attach_per_s: f64,
    /// From UEs to the core.
    pub uplink: Traffic,
    /// From the core to UEs.
    pub downlink: Traffic,
    /// Everything dropped or refused, by reason; reasons that never occurred are 0.
    pub drops: BTreeMap<String, u64>,
    /// By worker.
    pub workers: Vec<WorkerStats>,
    /// The control thread.
    pub control: ControlStats,
    /// Memory of the process.
    pub memory: MemoryStats,
    /// IKE exchanges by kind.
    pub exchanges: BTreeMap<String, u64>,
    /// Connections closed or refused, by cause.
    pub closes: BTreeMap<String, u64>,
    /// Peers turned away by AAA back ends, by cause.
    #[serde(default)]
    pub rejects: BTreeMap<String, u64>,
    /// Servers of AAA back ends.
    #[serde(default)]
    pub aaa: Vec<AaaRow>,
    /// End of validity of the gateway's certificate, seconds since 1970; null without one.
    pub certificate_not_after_s: Option<i64>,
    /// Whether the gateway takes new sessions.
    pub ready: bool,
    /// Attach latencies; for the metrics only.
    #[serde(skip)]
    pub attach: crate::control::attach::AttachHistogram,
}

/// One worker in [`Stats`].
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Its number.
    pub id: u8,
    /// Connections.
    pub connections: u64,
    /// Child SAs.
    pub sas: u64,
    /// From UEs to the core.
    pub uplink: Traffic,
    /// From the core to UEs.
    pub downlink: Traffic,
    /// Times a connection found no receive buffer and waited for one.
    #[serde(default)]
    pub receive_starved: u64,
    /// Turns that found the ring's completion queue overflown: completions came late, none was lost.
    #[serde(default)]
    pub ring_overflows: u64,
    /// Writes to the inner device that carried the uplink; a super-packet is one.
    #[serde(default)]
    pub device_writes: u64,
    /// Downlink packets marked as having met congestion instead of dropped (RFC 3168).
    #[serde(default)]
    pub ecn_marked: u64,
    /// UDP paths that sessions live on.
    #[serde(default)]
    pub udp_paths: u64,
    /// Datagrams received.
    #[serde(default)]
    pub udp_received: u64,
    /// Datagrams given to the kernel, those it did not take included.
    #[serde(default)]
    pub udp_sent: u64,
    /// ESP datagrams passed to the worker their SPI names.
    #[serde(default)]
    pub udp_strays: u64,
    /// Sends without a copy that are over, and those of them that the kernel copied after all.
    #[serde(default)]
    pub zero_copy_sends: u64,
    /// See `zero_copy_sends`.
    #[serde(default)]
    pub zero_copy_copied: u64,
    /// CPU time of its thread.
    pub cpu_s: f64,
}

/// The control thread in [`Stats`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ControlStats {
    /// Most messages ever found waiting in one worker's queue.
    pub queue_depth_max: u64,
    /// IKE messages handled.
    pub ike_messages: u64,
    /// CPU time of its thread.
    pub cpu_s: f64,
    /// Messages held back because a worker's inbox was full.
    pub inbox_overflows: u64,
    /// Messages lost because their connection was on the move for too long.
    pub moving_overflows: u64,
}

/// Memory in [`Stats`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemoryStats {
    /// Resident octets; null when the system does not tell.
    pub rss_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_line_of_json_and_unknown_fields_are_refused() {
        let request = Request::Terminate { id: Some(7), idi: None, profile: None, reactivate: false };
        let line = serde_json::to_string(&request).expect("serializable");
        assert_eq!(line, r#"{"command":"terminate","id":7}"#);
        assert_eq!(serde_json::from_str::<Request>(&line).expect("own form"), request);
        assert!(serde_json::from_str::<Request>(r#"{"command":"drain","timeout_s":1,"x":2}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"command":"launch"}"#).is_err());
    }

    #[test]
    fn answers_are_one_line() {
        assert_eq!(Answer::Done("a\nb".into()).to_line(), "{\"ok\":true,\"result\":\"a\\nb\"}\n");
        assert_eq!(Answer::Refused("no".into()).to_line(), "{\"ok\":false,\"error\":\"no\"}\n");
    }

    fn keys(value: &serde_json::Value) -> Vec<&str> {
        value.as_object().expect("an object").keys().map(String::as_str).collect()
    }

    #[test]
    fn a_session_has_the_keys_of_the_contract() {
        let row = SessionRow {
            id: 7,
            idi: "alice@test".into(),
            idr: "ims".into(),
            profile: "lab".into(),
            state: "established".into(),
            transport: "tcp".into(),
            remote: "192.0.2.1:40000".into(),
            worker: 1,
            inner: vec!["10.64.0.2".into()],
            established_s: 3,
            ike: IkeRow {
                spi_i: "0011223344556677".into(),
                spi_r: "8899aabbccddeeff".into(),
                suite: "aes128gcm16-prfsha256-x25519".into(),
                rekeys: 0,
                fragmentation: false,
                mobike: false,
            },
            children: vec![ChildRow {
                spi_in: "00000100".into(),
                spi_out: "00000101".into(),
                suite: "aes128gcm16".into(),
                esn: true,
                packets_in: Some(1),
                bytes_in: Some(2),
                packets_out: None,
                bytes_out: None,
                replay_drops: Some(0),
                rekeys: 0,
            }],
        };
        let line = Answer::Sessions(vec![row.clone()]).to_line();
        let reply: Reply = serde_json::from_str(&line).expect("own form");
        let value = &reply.result.expect("a result")[0];
        let expected = [
            "children",
            "established_s",
            "id",
            "idi",
            "idr",
            "ike",
            "inner",
            "profile",
            "remote",
            "state",
            "transport",
            "worker",
        ];
        assert_eq!(keys(value), expected);
        assert_eq!(keys(&value["ike"]), ["fragmentation", "mobike", "rekeys", "spi_i", "spi_r", "suite"]);
        let expected = [
            "bytes_in",
            "bytes_out",
            "esn",
            "packets_in",
            "packets_out",
            "rekeys",
            "replay_drops",
            "spi_in",
            "spi_out",
            "suite",
        ];
        assert_eq!(keys(&value["children"][0]), expected);
        assert!(value["children"][0]["packets_out"].is_null(), "a missing measurement is null, not 0");
        assert_eq!(serde_json::from_value::<SessionRow>(value.clone()).expect("own form"), row);
    }
}
