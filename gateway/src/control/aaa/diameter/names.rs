//! Numbers of the protocol: commands, AVPs, results (RFC 6733, RFC 4072, RFC 5778, 3GPP TS 29.273 §7.2.3).

/// Vendor of 3GPP's AVPs, applications and results.
pub const TGPP: u32 = 10_415;

/// Applications (RFC 6733 §2.4).
pub mod application {
    /// What connections themselves need: capabilities, watchdog, disconnection.
    pub const COMMON: u32 = 0;
    /// EAP (RFC 4072).
    pub const EAP: u32 = 5;
    /// SWm, between an ePDG and a 3GPP AAA server (TS 29.273 §7).
    pub const SWM: u32 = 16_777_264;
    /// What a relay agent advertises: it carries any application.
    pub const RELAY: u32 = 0xffff_ffff;
}

/// Commands; a request and its answer share the code.
pub mod command {
    /// CER, CEA.
    pub const CAPABILITIES_EXCHANGE: u32 = 257;
    /// RAR, RAA.
    pub const RE_AUTH: u32 = 258;
    /// AAR, AAA: authorization without authentication.
    pub const AA: u32 = 265;
    /// DER, DEA.
    pub const DIAMETER_EAP: u32 = 268;
    /// ASR, ASA.
    pub const ABORT_SESSION: u32 = 274;
    /// STR, STA.
    pub const SESSION_TERMINATION: u32 = 275;
    /// DWR, DWA.
    pub const DEVICE_WATCHDOG: u32 = 280;
    /// DPR, DPA.
    pub const DISCONNECT_PEER: u32 = 282;
}

/// Values of Result-Code (RFC 6733 §7.1).
pub mod result {
    /// The server has more to ask.
    pub const MULTI_ROUND_AUTH: u32 = 1001;
    /// Done.
    pub const SUCCESS: u32 = 2001;
    /// Done, and more has to follow.
    pub const LIMITED_SUCCESS: u32 = 2002;
    /// Command unknown here.
    pub const COMMAND_UNSUPPORTED: u32 = 3001;
    /// No way to the destination.
    pub const UNABLE_TO_DELIVER: u32 = 3002;
    /// No server for the realm.
    pub const REALM_NOT_SERVED: u32 = 3003;
    /// Ask somebody else, or later.
    pub const TOO_BUSY: u32 = 3004;
    /// Ask the host in Redirect-Host.
    pub const REDIRECT_INDICATION: u32 = 3006;
    /// Application unknown here.
    pub const APPLICATION_UNSUPPORTED: u32 = 3007;
    /// Flags of the header contradict the command.
    pub const INVALID_HDR_BITS: u32 = 3008;
    /// The peer failed to prove its identity.
    pub const AUTHENTICATION_REJECTED: u32 = 4001;
    /// An AVP with the M bit is unknown here.
    pub const AVP_UNSUPPORTED: u32 = 5001;
    /// No such session.
    pub const UNKNOWN_SESSION_ID: u32 = 5002;
    /// Not authorized.
    pub const AUTHORIZATION_REJECTED: u32 = 5003;
    /// A required AVP is absent.
    pub const MISSING_AVP: u32 = 5005;
    /// The user has all it may have.
    pub const RESOURCES_EXCEEDED: u32 = 5006;
    /// Refused for no better reason.
    pub const UNABLE_TO_COMPLY: u32 = 5012;
    /// An AVP's length is wrong.
    pub const INVALID_AVP_LENGTH: u32 = 5014;
}

/// An AVP as the dictionary has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    /// AVP Code.
    pub code: u32,
    /// Vendor-Id; 0 is none.
    pub vendor: u32,
    /// Whether we send it with the M bit.
    pub must: bool,
}

const fn ietf(code: u32) -> Name {
    Name { code, vendor: 0, must: true }
}

const fn optional(code: u32) -> Name {
    Name { code, vendor: 0, must: false }
}

const fn tgpp(code: u32, must: bool) -> Name {
    Name { code, vendor: TGPP, must }
}

/// Declares AVPs and the list of those whose M bit is no surprise.
macro_rules! avps {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)+) => {
        $($(#[$doc])* pub const $name: Name = $value;)+

        /// Every AVP that is known here, used or not.
        const KNOWN: &[Name] = &[$($name),+];
    };
}

avps! {
    /// Who the user is.
    USER_NAME = ietf(1);
    /// Octets for the next request of an authentication.
    STATE = ietf(24);
    /// Octets for every later request of a session.
    CLASS = ietf(25);
    /// A text for the user.
    REPLY_MESSAGE = ietf(18);
    /// Seconds a session may last.
    SESSION_TIMEOUT = ietf(27);
    /// Seconds a session may be idle.
    IDLE_TIMEOUT = ietf(28);
    /// An IPv4 address for the user.
    FRAMED_IP_ADDRESS = ietf(8);
    /// Name of a filter.
    FILTER_ID = ietf(11);
    /// Name of a pool.
    FRAMED_POOL = ietf(88);
    /// An IPv6 prefix for the user.
    FRAMED_IPV6_PREFIX = ietf(97);
    /// When something was.
    EVENT_TIMESTAMP = ietf(55);
    /// Seconds between two reports of accounting.
    ACCT_INTERIM_INTERVAL = ietf(85);
    /// Name of the EAP key.
    EAP_KEY_NAME = optional(102);
    /// What of mobile IPv6 is supported.
    MIP6_FEATURE_VECTOR = ietf(124);
    /// Address of the sender.
    HOST_IP_ADDRESS = ietf(257);
    /// The application, of a session.
    AUTH_APPLICATION_ID = ietf(258);
    /// The application, of accounting.
    ACCT_APPLICATION_ID = ietf(259);
    /// A vendor's application.
    VENDOR_SPECIFIC_APPLICATION_ID = ietf(260);
    /// What a redirection is for.
    REDIRECT_HOST_USAGE = ietf(261);
    /// How long it may be remembered.
    REDIRECT_MAX_CACHE_TIME = ietf(262);
    /// The session.
    SESSION_ID = ietf(263);
    /// Who sends.
    ORIGIN_HOST = ietf(264);
    /// A vendor whose AVPs are understood.
    SUPPORTED_VENDOR_ID = ietf(265);
    /// The vendor of the product, or of a group.
    VENDOR_ID = ietf(266);
    /// Version of the product.
    FIRMWARE_REVISION = optional(267);
    /// How it went.
    RESULT_CODE = ietf(268);
    /// The product.
    PRODUCT_NAME = optional(269);
    /// How a session binds to a server.
    SESSION_BINDING = ietf(270);
    /// What to do when that server is gone.
    SESSION_SERVER_FAILOVER = ietf(271);
    /// Seconds the user has to answer.
    MULTI_ROUND_TIME_OUT = ietf(272);
    /// Why a peer goes.
    DISCONNECT_CAUSE = ietf(273);
    /// Authentication, authorization or both.
    AUTH_REQUEST_TYPE = ietf(274);
    /// Seconds after the end of an authorization.
    AUTH_GRACE_PERIOD = ietf(276);
    /// Whether the server keeps the session.
    AUTH_SESSION_STATE = ietf(277);
    /// Grows when a host has lost its sessions.
    ORIGIN_STATE_ID = ietf(278);
    /// What was wrong with a request.
    FAILED_AVP = ietf(279);
    /// Who reports an error.
    ERROR_REPORTING_HOST = optional(294);
    /// The error in words.
    ERROR_MESSAGE = optional(281);
    /// An agent that was passed.
    ROUTE_RECORD = ietf(282);
    /// The realm a request is for.
    DESTINATION_REALM = ietf(283);
    /// What an agent wants back in the answer.
    PROXY_INFO = ietf(284);
    /// Authorization, or authentication as well.
    RE_AUTH_REQUEST_TYPE = ietf(285);
    /// Seconds an authorization lasts.
    AUTHORIZATION_LIFETIME = ietf(291);
    /// Whom to ask instead.
    REDIRECT_HOST = ietf(292);
    /// The host a request is for.
    DESTINATION_HOST = ietf(293);
    /// Why a session ended.
    TERMINATION_CAUSE = ietf(295);
    /// The realm of the sender.
    ORIGIN_REALM = ietf(296);
    /// A vendor's result.
    EXPERIMENTAL_RESULT = ietf(297);
    /// Its code.
    EXPERIMENTAL_RESULT_CODE = ietf(298);
    /// Security within the connection.
    INBAND_SECURITY_ID = ietf(299);
    /// Priority of a message (RFC 7944).
    DRMP = optional(301);
    /// Who the user is, for charging.
    SUBSCRIPTION_ID = ietf(443);
    /// An EAP packet.
    EAP_PAYLOAD = ietf(462);
    /// The EAP packet before, once more.
    EAP_REISSUED_PAYLOAD = ietf(463);
    /// The MSK.
    EAP_MASTER_SESSION_KEY = ietf(464);
    /// The EAP method.
    ACCOUNTING_EAP_AUTH_METHOD = ietf(465);
    /// Agents of mobile IPv6: the PGW.
    MIP6_AGENT_INFO = ietf(486);
    /// The APN.
    SERVICE_SELECTION = ietf(493);
    /// The permanent identity of the user.
    MOBILE_NODE_IDENTIFIER = ietf(506);
    /// Whether overload control is supported (RFC 7683).
    OC_SUPPORTED_FEATURES = optional(621);
    /// An overload report.
    OC_OLR = optional(623);
    /// How loaded a node is (RFC 8583).
    LOAD = optional(650);

    /// For the charging of the user.
    CHARGING_CHARACTERISTICS = tgpp(13, true);
    /// Name of the AAA server.
    AAA_SERVER_NAME = tgpp(318, true);
    /// The network the user is in.
    VISITED_NETWORK_IDENTIFIER = tgpp(600, true);
    /// Optional parts of an application.
    SUPPORTED_FEATURES = tgpp(628, false);
    /// Telephone number of the user.
    MSISDN = tgpp(701, true);
    /// An address of the user.
    SERVED_PARTY_IP_ADDRESS = tgpp(848, true);
    /// What carries the access.
    RAT_TYPE = tgpp(1032, true);
    /// The device.
    TERMINAL_INFORMATION = tgpp(1401, false);
    /// Its IMEI.
    IMEI = tgpp(1402, false);
    /// Its software.
    SOFTWARE_VERSION = tgpp(1403, false);
    /// Number of an APN.
    CONTEXT_IDENTIFIER = tgpp(1423, true);
    /// Realm that replaces an APN's.
    APN_OI_REPLACEMENT = tgpp(1427, true);
    /// What the user has of an APN.
    APN_CONFIGURATION = tgpp(1430, true);
    /// How fast the user may be.
    AMBR = tgpp(1435, true);
    /// Traces of the user.
    TRACE_INFO = tgpp(1505, false);
    /// A bound server is gone.
    AAA_FAILURE_INDICATION = tgpp(1518, false);
    /// Flags of an answer.
    DEA_FLAGS = tgpp(1521, false);
    /// An emergency.
    EMERGENCY_SERVICES = tgpp(1538, false);
    /// How the device is used.
    UE_USAGE_TYPE = tgpp(1680, false);
    /// Core networks that are barred.
    CORE_NETWORK_RESTRICTIONS = tgpp(1704, false);
    /// Where the user is on the untrusted network.
    UE_LOCAL_IP_ADDRESS = tgpp(2805, false);
}

/// Whether an AVP with the M bit may be what it is: RFC 6733 §4.1 forbids to pass over unknown ones.
pub fn is_known(code: u32, vendor: u32) -> bool {
    KNOWN.iter().any(|name| name.code == code && name.vendor == vendor)
}

/// Values of enumerated AVPs.
pub mod value {
    /// Auth-Request-Type AUTHORIZE_ONLY.
    pub const AUTHORIZE_ONLY: u32 = 2;
    /// Auth-Request-Type AUTHORIZE_AUTHENTICATE.
    pub const AUTHORIZE_AUTHENTICATE: u32 = 3;
    /// Re-Auth-Request-Type AUTHORIZE_ONLY.
    pub const RE_AUTHORIZE_ONLY: u32 = 0;
    /// Auth-Session-State NO_STATE_MAINTAINED.
    pub const NO_STATE_MAINTAINED: u32 = 1;
    /// Inband-Security-Id NO_INBAND_SECURITY.
    pub const NO_INBAND_SECURITY: u32 = 0;
    /// RAT-Type WLAN.
    pub const RAT_WLAN: u32 = 0;
    /// Emergency-Services: Emergency-Indication (TS 29.273 §7.2.3.4).
    pub const EMERGENCY_INDICATION: u32 = 1;
    /// Termination-Cause DIAMETER_LOGOUT.
    pub const LOGOUT: u32 = 1;
    /// Termination-Cause DIAMETER_SERVICE_NOT_PROVIDED.
    pub const SERVICE_NOT_PROVIDED: u32 = 2;
    /// Termination-Cause DIAMETER_BAD_ANSWER.
    pub const BAD_ANSWER: u32 = 3;
    /// Termination-Cause DIAMETER_ADMINISTRATIVE.
    pub const ADMINISTRATIVE: u32 = 4;
    /// Termination-Cause DIAMETER_LINK_BROKEN.
    pub const LINK_BROKEN: u32 = 5;
    /// Termination-Cause DIAMETER_AUTH_EXPIRED.
    pub const AUTH_EXPIRED: u32 = 6;
    /// Termination-Cause DIAMETER_USER_MOVED.
    pub const USER_MOVED: u32 = 7;
    /// Termination-Cause DIAMETER_SESSION_TIMEOUT.
    pub const SESSION_TIMEOUT: u32 = 8;
    /// Disconnect-Cause REBOOTING.
    pub const REBOOTING: u32 = 0;
}
