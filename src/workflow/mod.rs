//! Bases, matrices and the runner.
