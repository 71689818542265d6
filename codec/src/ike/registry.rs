//! Numbers of the IANA registry "Internet Key Exchange Version 2 (IKEv2) Parameters".
//!
//! Every number is a newtype, because a value this version does not know must still be decoded, shown
//! and echoed. `Display` and `Debug` give the registry's name, or the number when it has none here.

use std::fmt;

macro_rules! registry {
    ($(#[$doc:meta])* $name:ident($repr:ty) { $($constant:ident = $value:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $repr);

        impl $name {
            $(
                #[doc = concat!("`", $text, "` (", stringify!($value), ").")]
                pub const $constant: Self = Self($value);
            )*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($value => f.pad($text),)*
                    other => write!(f, "{other}"),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

registry! {
    /// IKEv2 Exchange Type (RFC 7296 §3.1).
    ExchangeType(u8) {
        IKE_SA_INIT = 34 "IKE_SA_INIT",
        IKE_AUTH = 35 "IKE_AUTH",
        CREATE_CHILD_SA = 36 "CREATE_CHILD_SA",
        INFORMATIONAL = 37 "INFORMATIONAL",
        IKE_SESSION_RESUME = 38 "IKE_SESSION_RESUME",
        IKE_INTERMEDIATE = 43 "IKE_INTERMEDIATE",
        IKE_FOLLOWUP_KE = 44 "IKE_FOLLOWUP_KE",
    }
}

registry! {
    /// IKEv2 Payload Type (RFC 7296 §3.2).
    PayloadType(u8) {
        NONE = 0 "none",
        SA = 33 "SA",
        KE = 34 "KE",
        ID_I = 35 "IDi",
        ID_R = 36 "IDr",
        CERT = 37 "CERT",
        CERTREQ = 38 "CERTREQ",
        AUTH = 39 "AUTH",
        NONCE = 40 "Nonce",
        NOTIFY = 41 "N",
        DELETE = 42 "D",
        VENDOR_ID = 43 "V",
        TS_I = 44 "TSi",
        TS_R = 45 "TSr",
        ENCRYPTED = 46 "SK",
        CONFIG = 47 "CP",
        EAP = 48 "EAP",
        ENCRYPTED_FRAGMENT = 53 "SKF",
        PUZZLE_SOLUTION = 54 "PS",
    }
}

registry! {
    /// IKEv2 Notify Message Type (RFC 7296 §3.10.1): errors below 16384, status from there on. Private types are those
    /// of 3GPP TS 24.302 §8.1.2.
    NotifyType(u16) {
        UNSUPPORTED_CRITICAL_PAYLOAD = 1 "UNSUPPORTED_CRITICAL_PAYLOAD",
        INVALID_IKE_SPI = 4 "INVALID_IKE_SPI",
        INVALID_MAJOR_VERSION = 5 "INVALID_MAJOR_VERSION",
        INVALID_SYNTAX = 7 "INVALID_SYNTAX",
        INVALID_MESSAGE_ID = 9 "INVALID_MESSAGE_ID",
        INVALID_SPI = 11 "INVALID_SPI",
        NO_PROPOSAL_CHOSEN = 14 "NO_PROPOSAL_CHOSEN",
        INVALID_KE_PAYLOAD = 17 "INVALID_KE_PAYLOAD",
        AUTHENTICATION_FAILED = 24 "AUTHENTICATION_FAILED",
        SINGLE_PAIR_REQUIRED = 34 "SINGLE_PAIR_REQUIRED",
        NO_ADDITIONAL_SAS = 35 "NO_ADDITIONAL_SAS",
        INTERNAL_ADDRESS_FAILURE = 36 "INTERNAL_ADDRESS_FAILURE",
        FAILED_CP_REQUIRED = 37 "FAILED_CP_REQUIRED",
        TS_UNACCEPTABLE = 38 "TS_UNACCEPTABLE",
        INVALID_SELECTORS = 39 "INVALID_SELECTORS",
        UNACCEPTABLE_ADDRESSES = 40 "UNACCEPTABLE_ADDRESSES",
        UNEXPECTED_NAT_DETECTED = 41 "UNEXPECTED_NAT_DETECTED",
        TEMPORARY_FAILURE = 43 "TEMPORARY_FAILURE",
        CHILD_SA_NOT_FOUND = 44 "CHILD_SA_NOT_FOUND",
        STATE_NOT_FOUND = 47 "STATE_NOT_FOUND",
        PDN_CONNECTION_REJECTION = 8192 "PDN_CONNECTION_REJECTION",
        MAX_CONNECTION_REACHED = 8193 "MAX_CONNECTION_REACHED",
        NON_3GPP_ACCESS_TO_EPC_NOT_ALLOWED = 9000 "NON_3GPP_ACCESS_TO_EPC_NOT_ALLOWED",
        USER_UNKNOWN = 9001 "USER_UNKNOWN",
        NO_APN_SUBSCRIPTION = 9002 "NO_APN_SUBSCRIPTION",
        AUTHORIZATION_REJECTED = 9003 "AUTHORIZATION_REJECTED",
        ILLEGAL_ME = 9006 "ILLEGAL_ME",
        NETWORK_FAILURE = 10500 "NETWORK_FAILURE",
        RAT_TYPE_NOT_ALLOWED = 11001 "RAT_TYPE_NOT_ALLOWED",
        IMEI_NOT_ACCEPTED = 11005 "IMEI_NOT_ACCEPTED",
        PLMN_NOT_ALLOWED = 11011 "PLMN_NOT_ALLOWED",
        UNAUTHENTICATED_EMERGENCY_NOT_SUPPORTED = 11055 "UNAUTHENTICATED_EMERGENCY_NOT_SUPPORTED",
        INITIAL_CONTACT = 16384 "INITIAL_CONTACT",
        SET_WINDOW_SIZE = 16385 "SET_WINDOW_SIZE",
        ADDITIONAL_TS_POSSIBLE = 16386 "ADDITIONAL_TS_POSSIBLE",
        IPCOMP_SUPPORTED = 16387 "IPCOMP_SUPPORTED",
        NAT_DETECTION_SOURCE_IP = 16388 "NAT_DETECTION_SOURCE_IP",
        NAT_DETECTION_DESTINATION_IP = 16389 "NAT_DETECTION_DESTINATION_IP",
        COOKIE = 16390 "COOKIE",
        USE_TRANSPORT_MODE = 16391 "USE_TRANSPORT_MODE",
        HTTP_CERT_LOOKUP_SUPPORTED = 16392 "HTTP_CERT_LOOKUP_SUPPORTED",
        REKEY_SA = 16393 "REKEY_SA",
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394 "ESP_TFC_PADDING_NOT_SUPPORTED",
        NON_FIRST_FRAGMENTS_ALSO = 16395 "NON_FIRST_FRAGMENTS_ALSO",
        MOBIKE_SUPPORTED = 16396 "MOBIKE_SUPPORTED",
        ADDITIONAL_IP4_ADDRESS = 16397 "ADDITIONAL_IP4_ADDRESS",
        ADDITIONAL_IP6_ADDRESS = 16398 "ADDITIONAL_IP6_ADDRESS",
        NO_ADDITIONAL_ADDRESSES = 16399 "NO_ADDITIONAL_ADDRESSES",
        UPDATE_SA_ADDRESSES = 16400 "UPDATE_SA_ADDRESSES",
        COOKIE2 = 16401 "COOKIE2",
        NO_NATS_ALLOWED = 16402 "NO_NATS_ALLOWED",
        AUTH_LIFETIME = 16403 "AUTH_LIFETIME",
        MULTIPLE_AUTH_SUPPORTED = 16404 "MULTIPLE_AUTH_SUPPORTED",
        ANOTHER_AUTH_FOLLOWS = 16405 "ANOTHER_AUTH_FOLLOWS",
        REDIRECT_SUPPORTED = 16406 "REDIRECT_SUPPORTED",
        REDIRECT = 16407 "REDIRECT",
        REDIRECTED_FROM = 16408 "REDIRECTED_FROM",
        TICKET_LT_OPAQUE = 16409 "TICKET_LT_OPAQUE",
        TICKET_REQUEST = 16410 "TICKET_REQUEST",
        TICKET_ACK = 16411 "TICKET_ACK",
        TICKET_NACK = 16412 "TICKET_NACK",
        TICKET_OPAQUE = 16413 "TICKET_OPAQUE",
        EAP_ONLY_AUTHENTICATION = 16417 "EAP_ONLY_AUTHENTICATION",
        CHILDLESS_IKEV2_SUPPORTED = 16418 "CHILDLESS_IKEV2_SUPPORTED",
        IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420 "IKEV2_MESSAGE_ID_SYNC_SUPPORTED",
        IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421 "IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED",
        IKEV2_MESSAGE_ID_SYNC = 16422 "IKEV2_MESSAGE_ID_SYNC",
        IPSEC_REPLAY_COUNTER_SYNC = 16423 "IPSEC_REPLAY_COUNTER_SYNC",
        IKEV2_FRAGMENTATION_SUPPORTED = 16430 "IKEV2_FRAGMENTATION_SUPPORTED",
        SIGNATURE_HASH_ALGORITHMS = 16431 "SIGNATURE_HASH_ALGORITHMS",
        PUZZLE = 16434 "PUZZLE",
        USE_PPK = 16435 "USE_PPK",
        PPK_IDENTITY = 16436 "PPK_IDENTITY",
        NO_PPK_AUTH = 16437 "NO_PPK_AUTH",
        INTERMEDIATE_EXCHANGE_SUPPORTED = 16438 "INTERMEDIATE_EXCHANGE_SUPPORTED",
        ADDITIONAL_KEY_EXCHANGE = 16441 "ADDITIONAL_KEY_EXCHANGE",
        REACTIVATION_REQUESTED_CAUSE = 40961 "REACTIVATION_REQUESTED_CAUSE",
        BACKOFF_TIMER = 41041 "BACKOFF_TIMER",
        DEVICE_IDENTITY = 41101 "DEVICE_IDENTITY",
        P_CSCF_RESELECTION_SUPPORT = 41304 "P_CSCF_RESELECTION_SUPPORT",
        N1_MODE_CAPABILITY = 51015 "N1_MODE_CAPABILITY",
        N1_MODE_INFORMATION = 51115 "N1_MODE_INFORMATION",
    }
}

impl NotifyType {
    /// Whether the type lies in the range of errors (RFC 7296 §3.10.1).
    pub fn is_error(self) -> bool {
        self.0 < 16384
    }
}

registry! {
    /// Security Protocol Identifier (RFC 7296 §3.3.1).
    ProtocolId(u8) {
        NONE = 0 "none",
        IKE = 1 "IKE",
        AH = 2 "AH",
        ESP = 3 "ESP",
    }
}

registry! {
    /// Transform Type (RFC 7296 §3.3.2).
    TransformType(u8) {
        ENCR = 1 "ENCR",
        PRF = 2 "PRF",
        INTEG = 3 "INTEG",
        KE = 4 "KE",
        ESN = 5 "ESN",
        ADDKE1 = 6 "ADDKE1",
        ADDKE7 = 12 "ADDKE7",
    }
}

registry! {
    /// Transform Type 1: encryption algorithm.
    EncrId(u16) {
        DES = 2 "DES",
        TRIPLE_DES = 3 "3DES",
        NULL = 11 "NULL",
        AES_CBC = 12 "AES_CBC",
        AES_CTR = 13 "AES_CTR",
        AES_GCM_8 = 18 "AES_GCM_8",
        AES_GCM_12 = 19 "AES_GCM_12",
        AES_GCM_16 = 20 "AES_GCM_16",
        CHACHA20_POLY1305 = 28 "CHACHA20_POLY1305",
    }
}

registry! {
    /// Transform Type 2: pseudorandom function.
    PrfId(u16) {
        HMAC_MD5 = 1 "HMAC_MD5",
        HMAC_SHA1 = 2 "HMAC_SHA1",
        HMAC_SHA2_256 = 5 "HMAC_SHA2_256",
        HMAC_SHA2_384 = 6 "HMAC_SHA2_384",
        HMAC_SHA2_512 = 7 "HMAC_SHA2_512",
    }
}

registry! {
    /// Transform Type 3: integrity algorithm.
    IntegId(u16) {
        NONE = 0 "NONE",
        HMAC_MD5_96 = 1 "HMAC_MD5_96",
        HMAC_SHA1_96 = 2 "HMAC_SHA1_96",
        HMAC_SHA2_256_128 = 12 "HMAC_SHA2_256_128",
        HMAC_SHA2_384_192 = 13 "HMAC_SHA2_384_192",
        HMAC_SHA2_512_256 = 14 "HMAC_SHA2_512_256",
    }
}

registry! {
    /// Transform Type 4, and 6 to 12 (RFC 9370): key exchange method.
    KeGroup(u16) {
        NONE = 0 "NONE",
        MODP_768 = 1 "MODP_768",
        MODP_1024 = 2 "MODP_1024",
        MODP_1536 = 5 "MODP_1536",
        MODP_2048 = 14 "MODP_2048",
        MODP_3072 = 15 "MODP_3072",
        MODP_4096 = 16 "MODP_4096",
        ECP_256 = 19 "ECP_256",
        ECP_384 = 20 "ECP_384",
        ECP_521 = 21 "ECP_521",
        CURVE25519 = 31 "CURVE25519",
        ML_KEM_512 = 35 "ML_KEM_512",
        ML_KEM_768 = 36 "ML_KEM_768",
        ML_KEM_1024 = 37 "ML_KEM_1024",
    }
}

registry! {
    /// Transform Type 5: (extended) sequence numbers.
    EsnId(u16) {
        NO_ESN = 0 "NO_ESN",
        ESN = 1 "ESN",
    }
}

registry! {
    /// Transform attribute type, without the format bit (RFC 7296 §3.3.5).
    AttributeType(u16) {
        KEY_LENGTH = 14 "KEY_LENGTH",
    }
}

registry! {
    /// Authentication Method (RFC 7296 §3.8).
    AuthMethod(u8) {
        RSA_SIGNATURE = 1 "RSA_SIGNATURE",
        SHARED_KEY = 2 "SHARED_KEY",
        ECDSA_P256_SHA256 = 9 "ECDSA_P256_SHA256",
        ECDSA_P384_SHA384 = 10 "ECDSA_P384_SHA384",
        ECDSA_P521_SHA512 = 11 "ECDSA_P521_SHA512",
        NULL = 13 "NULL",
        DIGITAL_SIGNATURE = 14 "DIGITAL_SIGNATURE",
    }
}

registry! {
    /// Identification type (RFC 7296 §3.5).
    IdType(u8) {
        IPV4_ADDR = 1 "ID_IPV4_ADDR",
        FQDN = 2 "ID_FQDN",
        RFC822_ADDR = 3 "ID_RFC822_ADDR",
        IPV6_ADDR = 5 "ID_IPV6_ADDR",
        DER_ASN1_DN = 9 "ID_DER_ASN1_DN",
        DER_ASN1_GN = 10 "ID_DER_ASN1_GN",
        KEY_ID = 11 "ID_KEY_ID",
        NULL = 13 "ID_NULL",
    }
}

registry! {
    /// Certificate Encoding (RFC 7296 §3.6).
    CertEncoding(u8) {
        PKCS7_X509 = 1 "PKCS7_X509",
        X509_SIGNATURE = 4 "X509_SIGNATURE",
        CRL = 7 "CRL",
        HASH_AND_URL_X509 = 12 "HASH_AND_URL_X509",
        HASH_AND_URL_BUNDLE = 13 "HASH_AND_URL_BUNDLE",
    }
}

registry! {
    /// CFG Type of a Configuration payload (RFC 7296 §3.15).
    CfgType(u8) {
        REQUEST = 1 "CFG_REQUEST",
        REPLY = 2 "CFG_REPLY",
        SET = 3 "CFG_SET",
        ACK = 4 "CFG_ACK",
    }
}

registry! {
    /// Configuration attribute type (RFC 7296 §3.15.1, RFC 7651, TS 24.302).
    CfgAttrType(u16) {
        INTERNAL_IP4_ADDRESS = 1 "INTERNAL_IP4_ADDRESS",
        INTERNAL_IP4_NETMASK = 2 "INTERNAL_IP4_NETMASK",
        INTERNAL_IP4_DNS = 3 "INTERNAL_IP4_DNS",
        INTERNAL_IP4_NBNS = 4 "INTERNAL_IP4_NBNS",
        INTERNAL_IP4_DHCP = 6 "INTERNAL_IP4_DHCP",
        APPLICATION_VERSION = 7 "APPLICATION_VERSION",
        INTERNAL_IP6_ADDRESS = 8 "INTERNAL_IP6_ADDRESS",
        INTERNAL_IP6_DNS = 10 "INTERNAL_IP6_DNS",
        INTERNAL_IP6_DHCP = 12 "INTERNAL_IP6_DHCP",
        INTERNAL_IP4_SUBNET = 13 "INTERNAL_IP4_SUBNET",
        SUPPORTED_ATTRIBUTES = 14 "SUPPORTED_ATTRIBUTES",
        INTERNAL_IP6_SUBNET = 15 "INTERNAL_IP6_SUBNET",
        P_CSCF_IP4_ADDRESS = 20 "P_CSCF_IP4_ADDRESS",
        P_CSCF_IP6_ADDRESS = 21 "P_CSCF_IP6_ADDRESS",
        TIMEOUT_PERIOD_FOR_LIVENESS_CHECK = 24 "TIMEOUT_PERIOD_FOR_LIVENESS_CHECK",
        INTERNAL_DNS_DOMAIN = 25 "INTERNAL_DNS_DOMAIN",
        P_CSCF_IP4_ADDRESS_LEGACY = 16389 "P_CSCF_IP4_ADDRESS (16389)",
        P_CSCF_IP6_ADDRESS_LEGACY = 16390 "P_CSCF_IP6_ADDRESS (16390)",
        P_CSCF_IP6_ADDRESS_LEGACY_2 = 16391 "P_CSCF_IP6_ADDRESS (16391)",
    }
}

registry! {
    /// Traffic Selector type (RFC 7296 §3.13.1).
    TsType(u8) {
        IPV4_ADDR_RANGE = 7 "TS_IPV4_ADDR_RANGE",
        IPV6_ADDR_RANGE = 8 "TS_IPV6_ADDR_RANGE",
    }
}

registry! {
    /// Hash algorithm of SIGNATURE_HASH_ALGORITHMS (RFC 7427 §7, RFC 8420 §2).
    HashId(u16) {
        SHA1 = 1 "SHA1",
        SHA2_256 = 2 "SHA2_256",
        SHA2_384 = 3 "SHA2_384",
        SHA2_512 = 4 "SHA2_512",
        IDENTITY = 5 "IDENTITY",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_show_their_name_and_unknown_ones_their_value() {
        assert_eq!(ExchangeType::IKE_AUTH.to_string(), "IKE_AUTH");
        assert_eq!(ExchangeType(200).to_string(), "200");
        assert_eq!(format!("{:?}", KeGroup(31)), "KeGroup(CURVE25519)");
    }

    #[test]
    fn r7296_3_10_1_errors_lie_below_16384() {
        assert!(NotifyType::CHILD_SA_NOT_FOUND.is_error());
        assert!(NotifyType(16383).is_error());
        assert!(!NotifyType::INITIAL_CONTACT.is_error());
    }
}
