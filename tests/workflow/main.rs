//! Bases and matrices over the fake backend.

#![allow(clippy::unwrap_used, reason = "a test")]

mod attempts;
mod base;
mod caches;
mod cells;
mod cluster;
mod gc;
mod matrix;
mod plan;
mod pool;
mod scale;
mod steps;
mod support;
