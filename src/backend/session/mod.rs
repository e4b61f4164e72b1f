//! A backend that another process of this machine, or of another one, keeps open.
//!
//! To open a backend takes a connection and a login, and each sandbox a program that starts commands in
//! it. A session is a process that has done so once and does the calls of everybody of the same user who
//! wants the same: [`serve`]. [`SessionBackend`] is the other end: a backend that hands each call on.
//!
//! There is one connection for each call, or one for all to another machine, with lanes for each. A call begins with the call and, where the call has streams, with
//! the ends of pipes or more lanes; it ends with the answer or, for a command, when nobody wants it any more.

mod call;
mod client;
mod line;
mod pump;
mod server;
mod whole;

pub use client::{Connect, SessionBackend, retire};
pub use line::Connection;
pub use server::{Session, opening, serve, serve_lanes, serve_with};
