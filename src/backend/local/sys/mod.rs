//! System calls that no safe crate offers in the shape needed here. The only `unsafe` of the crate.
#![allow(unsafe_code)]

mod caps;
mod datagram;
mod filter;
mod loopback;
mod mount;
mod process;

pub use crate::transport::frames::{is_readable, receive, send, try_send};
pub use caps::{
    bound_capabilities, drop_capabilities, keep_guest_capabilities, keep_network_capabilities,
};
pub use datagram::{receive_for_others, receive_original};
pub use filter::{SyscallFilter, apply_family_filter, apply_filter, apply_init_filter};
pub use loopback::mount_image;
pub use mount::{idmap_mount, overlay, restrict_mount, tmpfs};
pub use process::{
    NEW_ALL, SignalFd, clone_with, close_all_except, exec, execute, exit_now, fork, fork_into,
    kill_all, new_session_keyring, pidfd_of_self, register, reset_signals, send_signal,
    set_controlling_tty, set_dumpable, set_limit_tag, set_no_file_limit, set_subreaper,
    start_writing, sync_file_system, tag_of, unblock_signals, unshare, usage_of_children,
};
