//! The inbox: what the control thread and other workers ask for.

use std::time::Duration;

use super::Worker;
use super::conn::State;
use super::counters::CloseCause;
use super::inbox::{ToControl, ToWorker};
use crate::types::{ChildInstall, ConnId, SessionId, WorkerId};

/// Orders handled per turn: packets must not wait longer than that.
const ORDERS_PER_TURN: usize = 1024;

/// How long a stopping worker waits for peers to take what is queued.
const STOP_WITHIN: Duration = Duration::from_millis(500);

impl Worker {
    /// Handles what is in the inbox, bounded; what is left wakes the worker again.
    pub(super) fn on_woken(&mut self) {
        // What came before an order is not to find its SA removed.
        self.finish_opening();
        for _ in 0..ORDERS_PER_TURN {
            let Ok(order) = self.inbox.try_recv() else { return };
            self.on_order(order);
        }
        if let Some(own) = self.peers.get(self.id.index()) {
            own.wake.wake();
        }
    }

    fn on_order(&mut self, order: ToWorker) {
        match order {
            ToWorker::Install(install) => self.on_install(*install),
            ToWorker::Announce { session, spi_in } => self.early.announce(session, spi_in),
            ToWorker::Withdraw { spi_in } => self.on_withdrawn(spi_in),
            ToWorker::RemoveChild { spi_in, .. } => {
                self.sad.remove(spi_in, self.now);
                self.counters.sas.set(self.sad.len() as u64);
            }
            ToWorker::Bind { session, conn } => self.on_bind(session, conn),
            ToWorker::Locate { session } => self.note_moved(session),
            ToWorker::BindPath { session, path, follow } => self.bind_path(session, &path, follow),
            ToWorker::SendTo { path, message, .. } => self.send_ike_to(&path, &message),
            ToWorker::CloseSession { session, report } => {
                if report {
                    self.report_traffic(session, true);
                }
                self.close_session(session);
            }
            ToWorker::ReportTraffic { session } => self.report_traffic(session, false),
            ToWorker::HalfOpen { conn } => {
                if let Some(slot) = self.slot_of(conn) {
                    let due = self.now + self.limits.half_open_timeout;
                    self.set_deadline(slot, due, CloseCause::FirstMessageTimeout);
                }
            }
            ToWorker::Challenged { conn, within } => {
                if let Some(slot) = self.slot_of(conn) {
                    self.set_deadline(slot, self.now + within, CloseCause::ChallengeTimeout);
                }
            }
            ToWorker::Send { conn, message } => self.queue_ike(conn, message),
            ToWorker::Handled { conn, .. } if conn.is_datagrams() => self.on_udp_handled(),
            ToWorker::Handled { conn, good } => self.on_handled(conn, good),
            ToWorker::Close { conn, .. } => {
                if let Some(slot) = self.slot_of(conn)
                    && !self.abandon_move(slot)
                {
                    self.close_when_sent(slot, CloseCause::Control);
                }
            }
            ToWorker::Move { conn, to, session } => self.on_move(conn, to, session),
            ToWorker::Adopt(adopted) => self.on_adopt(*adopted),
            ToWorker::Route { network, addr, worker } => {
                match worker {
                    Some(worker) => self.routes.insert((network, addr), worker),
                    None => self.routes.remove(&(network, addr)),
                };
            }
            ToWorker::Stray(stray) => self.on_stray(*stray),
            ToWorker::Downlink { network, packet } => self.on_passed_downlink(network, packet),
            ToWorker::Fence(fence) => {
                self.report(ToControl::FenceReached { worker: self.id, fence });
            }
            ToWorker::LocalAddrs { network, addrs } => {
                if let Some(network) = self.networks.get_mut(network.index()) {
                    network.local_addrs = addrs.iter().copied().collect();
                }
            }
            ToWorker::ReportChildren => {
                let children = self.sad.counters();
                self.report(ToControl::ChildCounters { worker: self.id, children });
            }
            ToWorker::Tls(server) => self.tls = Some(server),
            ToWorker::StopAccepting => self.ring.stop_accepting(),
            ToWorker::Stop => self.stopping = Some(self.now + STOP_WITHIN),
        }
    }

    fn report_traffic(&mut self, session: SessionId, over: bool) {
        let traffic = self.sad.traffic(session);
        self.report(ToControl::Traffic { session, traffic, over });
    }

    fn on_install(&mut self, install: ChildInstall) {
        let spi_in = install.spi_in;
        self.sad.install(install, &mut self.random);
        self.counters.sas.set(self.sad.len() as u64);
        self.open_early(spi_in);
    }

    /// A fresh authentic IKE message arrived on `conn`.
    fn on_bind(&mut self, session: SessionId, conn: ConnId) {
        match self.conns.find(conn).map(|conn| &mut conn.state) {
            Some(State::Open) => self.bind(session, conn.slot),
            Some(State::Moving(moving)) if !moving.taking && moving.session.is_none() => {
                moving.stays = Some(session);
                return self.continue_move(conn.slot);
            }
            // It left on behalf of another session (RFC 9329 §6.1: one on a connection).
            Some(State::Moving(_)) => {
                self.abandon_move(conn.slot);
            }
            Some(State::Draining(_) | State::Closing) | None => {}
        }
        // The control thread may have heard otherwise meanwhile, and a session that stays where it was would not say so.
        self.note_moved(session);
    }

    /// The session whose authentic message came on `conn` lives on another worker.
    fn on_move(&mut self, id: ConnId, to: WorkerId, session: SessionId) {
        let Some(conn) = self.conns.find(id) else { return };
        let stays = matches!(&conn.state, State::Moving(moving) if moving.stays.is_some());
        if conn.session.is_some() || stays {
            // Its next message, already handled here, belonged to another session (RFC 9329 §6.1).
            return self.close(id.slot, CloseCause::Corrupted);
        }
        if to == self.id {
            return;
        }
        if let State::Moving(moving) = &mut conn.state {
            (moving.to, moving.session) = (to, Some(session));
        } else {
            self.begin_move(id.slot, to, Some(session));
        }
        self.continue_move(id.slot);
    }

    fn on_handled(&mut self, id: ConnId, good: bool) {
        let Some(conn) = self.conns.find(id) else { return };
        conn.ike_waiting = conn.ike_waiting.saturating_sub(1);
        if matches!(conn.state, State::Moving(_)) {
            self.continue_move(id.slot);
        } else if good {
            conn.bad_in_a_row = 0;
        } else {
            self.bad_in_a_row(id.slot);
        }
    }
}
