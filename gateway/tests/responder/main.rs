//! A UE and the responder talk to each other in virtual time. Tests are named by the row of the
//! conformance table they are about.

mod auth;
mod bad_input;
mod child;
mod connections;
mod eap;
mod engine;
mod fragments;
mod handsets;
mod ike_tcp;
mod init;
mod intermediate;
mod legacy;
mod lifetimes;
mod mobike;
mod networks;
mod own_rekey;
mod pacing;
mod ppk;
mod puzzles;
mod redirect;
mod refusals;
mod rekey;
mod resume;
mod simulation;
mod udp;
#[path = "../support/ue.rs"]
#[allow(dead_code, reason = "other test programs use the rest")]
mod ue;
mod world;
