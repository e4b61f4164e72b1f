//! The guest's system call filter.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// The compiled filter, made once. The kernel takes a good part of a command's start to translate it,
/// so most of it is applied to process 1, once, and only the rest to each command.
#[derive(Clone)]
pub struct SyscallFilter {
    init: BpfProgram,
    command: BpfProgram,
}

/// What process 1 can do without, too.
const DENIED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_move_pages,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// What process 1 needs to make snapshots.
const DENIED_TO_COMMANDS: &[libc::c_long] = &[
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
];

#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[libc::c_long] = &[
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[];

impl SyscallFilter {
    /// Compiles it for this machine's architecture.
    pub fn compile() -> io::Result<SyscallFilter> {
        let mut rules = denied(DENIED.iter().chain(DENIED_HERE));
        // TIOCSTI and TIOCLINUX put characters into a terminal that the host may be reading.
        rules.insert(
            libc::SYS_ioctl,
            [libc::TIOCSTI, libc::TIOCLINUX]
                .iter()
                .map(|request| rule(1, SeccompCmpOp::Eq, *request))
                .collect::<io::Result<_>>()?,
        );
        rules.insert(libc::SYS_socket, vec![other_families()?]);
        let init = with_unknown(compile(rules)?, &X32);
        let mut rules = denied(DENIED_TO_COMMANDS);
        let namespaces = [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWCGROUP,
        ];
        rules.insert(
            libc::SYS_clone,
            namespaces
                .iter()
                .map(|flag| rule(0, SeccompCmpOp::MaskedEq(*flag as u64), *flag as u64))
                .collect::<io::Result<_>>()?,
        );
        let locks = u64::from(libc::RLIMIT_LOCKS);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_setrlimit, vec![rule(0, SeccompCmpOp::Eq, locks)?]);
        rules.insert(
            libc::SYS_prlimit64,
            vec![wrong(SeccompRule::new(vec![
                wrong(SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, locks))?,
                wrong(SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0))?,
            ]))?],
        );
        // Its flags are behind a pointer, out of a filter's sight; every libc falls back to clone.
        let clone3 = libc::SYS_clone3 as u32;
        let mut numbers: Vec<u32> = rules.keys().map(|number| *number as u32).collect();
        numbers.push(clone3);
        let rest = with_unknown(compile(rules)?, &[(JUMP_IF_EQUAL, clone3)]);
        Ok(SyscallFilter { init, command: with_gaps(rest, numbers) })
    }
}

/// Which kinds of sockets there are in a guest. Others are not all the namespace's own: by AF_VSOCK, a
/// virtual machine talks to its host, whatever network it has.
const FAMILIES: [libc::c_int; 5] =
    [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET];

fn other_families() -> io::Result<SeccompRule> {
    let differs = |family: &libc::c_int| {
        let family = *family as u64;
        wrong(SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family))
    };
    wrong(SeccompRule::new(FAMILIES.iter().map(differs).collect::<io::Result<_>>()?))
}

fn denied<'a>(
    numbers: impl IntoIterator<Item = &'a libc::c_long>,
) -> BTreeMap<i64, Vec<SeccompRule>> {
    numbers.into_iter().map(|number| (*number, Vec::new())).collect()
}

/// Applies its first part to process 1, for good.
pub fn apply_init_filter(filter: &SyscallFilter) -> io::Result<()> {
    wrong(seccompiler::apply_filter(&filter.init))
}

/// Applies its second part to a command, for good.
pub fn apply_filter(filter: &SyscallFilter) -> io::Result<()> {
    wrong(seccompiler::apply_filter(&filter.command))
}

/// Denies for good, to this process and all that come of it: sockets of other families, io_uring, which
/// makes sockets unseen, the second set of numbers of calls, and calls of other architectures, which end
/// whoever makes them. Programs that are setuid stay so, for which it takes `CAP_SYS_ADMIN`.
pub fn apply_family_filter() -> io::Result<()> {
    let mut rules =
        denied(&[libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_io_uring_setup]);
    rules.insert(libc::SYS_socket, vec![other_families()?]);
    rules.insert(libc::SYS_socketpair, vec![other_families()?]);
    let program = with_unknown(compile(rules)?, &X32);
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies the program, whose instructions have the layout that it reads, before the
    // call returns; `filter` and `program` live until then.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    wrong(SeccompRule::new(vec![wrong(condition)?]))
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>) -> io::Result<BpfProgram> {
    let arch = wrong(std::env::consts::ARCH.try_into())?;
    let no = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, no, arch);
    wrong(wrong(filter)?.try_into())
}

const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// The same calls have a second set of numbers, the x32 ones, above bit 30.
#[cfg(target_arch = "x86_64")]
const X32: [(u16, u32); 1] = [(JUMP_IF_GREATER_EQUAL, 0x4000_0000)];
#[cfg(not(target_arch = "x86_64"))]
const X32: [(u16, u32); 0] = [];

/// Before the rules: calls that look as if this kernel had none of them. Each is a comparison with the
/// call's number.
fn with_unknown(rules: BpfProgram, unknown: &[(u16, u32)]) -> BpfProgram {
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut all = vec![op(LOAD_WORD, 0, 0, 0)];
    for (comparison, number) in unknown {
        all.push(op(*comparison, 0, 1, *number));
        all.push(op(RETURN, 0, 0, 0x0005_0000 | libc::ENOSYS as u32));
    }
    all.extend(rules);
    all
}

/// Before the rules: calls in between the `numbers` that they are about are allowed at once. The
/// kernel runs the filter for each call there is when it is applied, and rules are compared one by one.
/// The architecture is not looked at: the part that process 1 has does that.
fn with_gaps(rules: BpfProgram, mut numbers: Vec<u32>) -> BpfProgram {
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let allow = op(RETURN, 0, 0, 0x7fff_0000);
    numbers.sort_unstable();
    let mut all = vec![op(LOAD_WORD, 0, 0, 0)];
    let ends = numbers.iter().copied().chain([u32::MAX]);
    let starts = [0].into_iter().chain(numbers.iter().map(|number| number + 1));
    for (start, end) in starts.zip(ends) {
        if end.saturating_sub(start) >= GAP {
            all.push(op(JUMP_IF_GREATER_EQUAL, 0, 2, start));
            all.push(op(JUMP_IF_GREATER_EQUAL, 1, 0, end));
            all.push(allow.clone());
        }
    }
    all.extend(rules);
    all
}

/// From so many calls on it is worth three instructions.
const GAP: u32 = 16;

fn wrong<T, E: std::fmt::Display>(result: Result<T, E>) -> io::Result<T> {
    result.map_err(|error| io::Error::other(format!("system call filter: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program of loads of the number, comparisons and returns says to call `number`.
    fn run(program: &[sock_filter], number: u32) -> u32 {
        let mut at = 0;
        loop {
            let op = &program[at];
            let jump = |holds: bool| usize::from(if holds { op.jt } else { op.jf });
            at += 1 + match op.code {
                LOAD_WORD => 0,
                JUMP_IF_EQUAL => jump(number == op.k),
                JUMP_IF_GREATER_EQUAL => jump(number >= op.k),
                RETURN => return op.k,
                other => panic!("instruction {other:#x}"),
            };
        }
    }

    #[test]
    fn only_calls_that_no_rule_is_about_are_allowed_before_the_rules() {
        const ASKED: u32 = 7;
        let rules = vec![sock_filter { code: RETURN, jt: 0, jf: 0, k: ASKED }];
        for numbers in [vec![435, 56, 160, 155, 428], vec![0, 1, 40], vec![5], vec![u32::MAX - 1]] {
            let program = with_gaps(rules.clone(), numbers.clone());
            for number in (0..600).chain(u32::MAX - 40..=u32::MAX) {
                let asked = run(&program, number) == ASKED;
                assert!(asked || !numbers.contains(&number), "{number} of {numbers:?} is allowed");
            }
            assert_ne!(run(&program, 300), ASKED, "{numbers:?}");
        }
    }
}
