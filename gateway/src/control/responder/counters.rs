//! What the responder counts, one plain number per cause.

use super::aaa::RejectCause;

/// Declares the counter struct, its rustdoc and its iterator from one list, so that a counter cannot
/// exist without a name in the metrics.
macro_rules! counters {
    ($(#[$outer:meta])* $name:ident { $($(#[doc = $doc:literal])+ $field:ident,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct $name { $($(#[doc = $doc])+ pub $field: u64,)* }

        impl $name {
            /// Every counter with its name, in the order of declaration.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }

            /// What the first counter that is not zero counts, in words.
            pub fn in_words(&self) -> Option<&'static str> {
                let words = [$((self.$field, concat!($($doc),+).trim_ascii()),)*];
                words.into_iter().find(|(count, _)| *count > 0).map(|(_, words)| words)
            }
        }
    };
}

counters! {
    /// Messages and exchanges that went through.
    ExchangeCounters {
        /// IKE messages handed to the responder.
        messages,
        /// IKE_SA_INIT requests answered with a half-open IKE SA.
        sa_init_accepted,
        /// Sessions established by IKE_AUTH.
        attached,
        /// Sessions that ended, for any reason.
        detached,
        /// Additional Child SAs made by CREATE_CHILD_SA.
        children_created,
        /// Child SAs rekeyed by the peer.
        children_rekeyed,
        /// IKE SAs rekeyed by the peer.
        ike_rekeyed,
        /// Child SAs rekeyed by the gateway.
        children_rekeyed_here,
        /// IKE SAs rekeyed by the gateway.
        ike_rekeyed_here,
        /// Rekeys of the gateway that crossed one of the peer (RFC 7296 §2.8.1, §2.8.2).
        rekey_collisions,
        /// Rekeys of the gateway that the peer put off (RFC 7296 §2.25).
        rekeys_put_off,
        /// Rekeys of the gateway that the peer refused.
        rekeys_refused,
        /// Child SAs deleted by the peer.
        children_deleted,
        /// Empty INFORMATIONAL requests answered (liveness checks of the peer).
        liveness_answered,
        /// Requests the gateway started.
        requests_sent,
        /// Requests sent again because the session appeared on another connection (RFC 9329 §6.2).
        requests_resent,
        /// Authentic fragments of IKE messages received (RFC 7383).
        fragments_received,
        /// IKE messages joined from fragments.
        messages_joined,
        /// IKE_INTERMEDIATE exchanges (RFC 9242).
        intermediates,
        /// Attempts to authenticate by EAP (RFC 7296 §2.16).
        eap_started,
        /// Earlier sessions of an identity with the same APN that a new one replaced.
        same_apn_replaced,
        /// IKE messages sent in fragments.
        messages_divided,
        /// Retransmitted requests answered from the cache (RFC 7296 §2.1).
        retransmissions_answered,
        /// Requests sent again over UDP because no response came (RFC 7296 §2.1).
        requests_retransmitted,
        /// Sessions that moved to another connection (RFC 9329 §6.1) or UDP path (RFC 7296 §2.23).
        connection_switches,
        /// Addresses updated by MOBIKE (RFC 4555 §3.5).
        addresses_updated,
        /// Earlier sessions of an identity replaced because of INITIAL_CONTACT.
        initial_contact_replaced,
        /// IKE_SA_INIT requests whose NAT detection shows a translated address.
        behind_nat,
        /// IKE_SA_INIT requests over UDP answered with a cookie (RFC 7296 §2.6).
        cookies_sent,
        /// Such requests that came back with it.
        cookies_returned,
        /// IKE_SA_INIT requests over TCP answered with a puzzle (RFC 8019 §7.1.1).
        puzzles_sent,
        /// Such requests that came back with a solution.
        puzzles_solved,
        /// Such requests that came back with the cookie alone and were served in their turn (RFC 8019 §7.1.4).
        unsolved_served,
        /// IKE_SA_INIT requests that waited because so many had come.
        paced,
        /// IKE_SA_INIT requests at an address for emergencies.
        emergency_inits,
        /// Emergency attaches of UEs without a SIM about which a back end was asked (TS 23.003 §19.3.6).
        emergency_imei,
        /// Sessions told other P-CSCFs (TS 23.380 §5.6).
        p_cscf_told,
        /// Sessions resumed from a ticket (RFC 5723).
        resumed,
        /// Tickets given.
        tickets_given,
        /// Sessions established with a post-quantum pre-shared key (RFC 8784).
        ppk_used,
        /// IKE SAs with group 1, 2 or 5 (RFC 8247 §2.4).
        legacy_groups,
        /// IKE SAs with SHA-1 as PRF or for integrity (RFC 8247 §2.2, §2.3).
        legacy_sha1_ike,
        /// IKE SAs with 3DES (RFC 8247 §2.1).
        legacy_3des_ike,
        /// Child SAs with 3DES (RFC 8221 §5).
        legacy_3des_esp,
        /// Child SAs with HMAC-SHA1 (RFC 8221 §6).
        legacy_sha1_esp,
        /// IKE_SA_INIT requests answered with another gateway (RFC 5685 §3).
        redirected_inits,
        /// UEs sent to another gateway once they had authenticated (RFC 5685 §6).
        redirected_auths,
        /// Sessions asked to go to another gateway (RFC 5685 §5).
        redirected_sessions,
        /// Unprotected error notifications sent.
        unprotected_replies,
        /// Sessions ended because the peer did not answer.
        peer_dead,
        /// Sessions ended by their hard lifetime.
        expired,
    }
}

counters! {
    /// Why an IKE message, or what it asked for, was turned down.
    DropCounters {
        /// Shorter than an IKE header.
        too_short,
        /// Longer than the configured bound.
        too_long,
        /// Length field differs from the message (RFC 7296 §3.1).
        length_mismatch,
        /// Major version other than 2 (RFC 7296 §2.5).
        bad_version,
        /// Flags or SPIs that the exchange cannot have (RFC 7296 §3.1).
        bad_header,
        /// Unknown exchange type.
        unknown_exchange,
        /// Request with an IKE SPI that is not ours (RFC 7296 §2.21.4).
        unknown_ike_spi,
        /// Response with an IKE SPI that is not ours.
        unknown_ike_spi_response,
        /// Response that answers no request of ours.
        unexpected_response,
        /// Message ID outside the window (RFC 7296 §2.3).
        out_of_window,
        /// Same Message ID as the last request, other octets.
        altered_retransmission,
        /// Response that agrees to what was not offered.
        bad_answer,
        /// Integrity check failed.
        bad_icv,
        /// Integrity check failed on a half-open IKE SA.
        bad_icv_half_open,
        /// No Encrypted payload where one must be.
        unprotected,
        /// UPDATE_SA_ADDRESSES with NO_NATS_ALLOWED that came through a NAT (RFC 4555 §3.9).
        unexpected_nat,
        /// UPDATE_SA_ADDRESSES to a transport that the profile does not serve.
        unacceptable_addresses,
        /// IKE_FOLLOWUP_KE that goes on with nothing we know (RFC 9370 §2.2.4).
        followup_not_found,
        /// Malformed fragment, or one of a message of too many.
        bad_fragment,
        /// Fragments beyond the octets that may wait.
        fragment_limit,
        /// Message given up because a fragment did not come.
        fragment_timeout,
        /// Malformed payloads in an unprotected message.
        bad_syntax_unprotected,
        /// Malformed payloads in an authenticated message (RFC 7296 §2.21.3).
        bad_syntax_protected,
        /// Unknown critical payload (RFC 7296 §2.5).
        unknown_critical_payload,
        /// Unprotected error notification suppressed by the rate limit.
        reply_rate_limited,
        /// IKE_SA_INIT while draining.
        draining,
        /// IKE_SA_INIT beyond the limit of half-open IKE SAs.
        half_open_limit,
        /// IKE_SA_INIT beyond the limit of half-open IKE SAs of one source address.
        half_open_source_limit,
        /// A second IKE_SA_INIT on a connection with a half-open IKE SA.
        half_open_busy,
        /// IKE_SA_INIT on a connection that carries a session (RFC 9329 §6.1).
        init_on_active_connection,
        /// Message of another session than the connection's (RFC 9329 §6.1).
        foreign_session,
        /// Message over UDP of a session that lives on TCP (RFC 9329 §5).
        tcp_bound,
        /// IKE_SA_INIT with a cookie that is wrong or too old; it was answered with a new one (RFC 7296 §2.6).
        bad_cookie,
        /// A puzzle's solution that is none, or not hard enough; its request waits with those that have none.
        bad_puzzle,
        /// Request without a solution that waited too long for its turn.
        unsolved_lost,
        /// No configured proposal fits the peer's for the IKE SA.
        ike_no_proposal,
        /// Key exchange in a group that was not selected.
        ike_invalid_ke,
        /// Key exchange value that the group forbids (RFC 6989).
        bad_ke_value,
        /// IKE_SA_INIT beyond the pace of its network.
        prefix_pace,
        /// IKE_SA_INIT beyond the pace and the queue of those that wait.
        pacing_full,
        /// IKE_SA_INIT that waited too long for its turn.
        pacing_late,
        /// Half-open IKE SA that saw no IKE_AUTH in time.
        half_open_expired,
        /// IKE_AUTH beyond the limit of sessions.
        session_limit,
        /// No profile fits the peer's identities.
        auth_no_profile,
        /// A profile fits the identities but not the IKE SA's algorithms.
        auth_profile_suite,
        /// A profile fits the identities but not the transport.
        auth_profile_transport,
        /// A profile fits the identities but not the kind of authentication.
        auth_profile_kind,
        /// No shared secret for the identity.
        auth_no_secret,
        /// The shared-key AUTH value is wrong.
        auth_psk_mismatch,
        /// The AUTH value was not made with the key of EAP.
        auth_msk_mismatch,
        /// No usable certificate in the request.
        auth_no_certificate,
        /// The certificate does not lead to a configured CA, or is outside its validity.
        auth_certificate_untrusted,
        /// The certificate is revoked.
        auth_certificate_revoked,
        /// The certificate does not carry the identity.
        auth_identity_mismatch,
        /// The signature is wrong or its algorithm is not accepted.
        auth_bad_signature,
        /// No post-quantum pre-shared key that the profile demands, or one that is not known.
        auth_ppk,
        /// Ticket that is not ours, or no longer readable.
        ticket_invalid,
        /// Ticket too old.
        ticket_expired,
        /// Ticket used before.
        ticket_reused,
        /// Our own AUTH value could not be made.
        auth_own_failed,
        /// No configuration request where an inner address is needed.
        child_no_cp,
        /// The address pool is empty.
        child_no_address,
        /// Traffic selectors outside the policy.
        child_ts_unacceptable,
        /// No configured proposal fits the peer's for the Child SA.
        child_no_proposal,
        /// Key exchange of a Child SA in another group than selected.
        child_invalid_ke,
        /// More Child SAs than allowed.
        child_limit,
        /// Request about a Child SA that does not exist.
        child_not_found,
        /// Request refused because of a collision (RFC 7296 §2.25).
        temporary_failure,
    }
}

counters! {
    /// Work waiting inside the responder, now.
    GaugeCounters {
        /// Established sessions.
        sessions,
        /// Half-open IKE SAs.
        half_open,
        /// Child SAs, those on offer to a peer included.
        children,
        /// Inner addresses in use.
        addresses,
    }
}

/// All counters of a responder; see [`ExchangeCounters`], [`DropCounters`] and [`GaugeCounters`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ResponderCounters {
    /// What went through.
    pub exchanges: ExchangeCounters,
    /// What did not, by reason: the `ike` part of `drops` in `stats --json`.
    pub drops: DropCounters,
    /// Peers that an AAA back end did not let in.
    pub rejects: RejectCounters,
    /// State held now.
    pub gauges: GaugeCounters,
}

/// Peers turned away by AAA back ends, by cause.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RejectCounters([u64; RejectCause::ALL.len()]);

impl RejectCounters {
    /// Counts one.
    pub fn add(&mut self, cause: RejectCause) {
        if let Some(index) = RejectCause::ALL.iter().position(|other| *other == cause) {
            self.0[index] += 1;
        }
    }

    /// Every counter with its cause.
    pub fn iter(&self) -> impl Iterator<Item = (RejectCause, u64)> + use<> {
        RejectCause::ALL.into_iter().zip(self.0)
    }
}
