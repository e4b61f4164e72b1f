//! Bases and matrices over the fake backend.

#![allow(clippy::unwrap_used, reason = "a test")]

mod base;
mod matrix;
mod plan;
mod support;
