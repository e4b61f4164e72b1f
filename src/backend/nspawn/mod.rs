//! systemd-nspawn: machines on this host and on others.

pub mod machine;
