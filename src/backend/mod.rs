//! The backends, and the one place that names them all.
