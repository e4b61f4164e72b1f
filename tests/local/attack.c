/* Tries every known way out. Prints a line for each that is open, and "tried" at the end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void must_fail(const char *what, long result) {
    if (result >= 0) printf("open: %s\n", what);
    else if (errno == EFAULT || errno == EBADF) printf("not refused: %s: %s\n", what, strerror(errno));
}
static void no_file(const char *path, int flags) {
    int fd = open(path, flags);
    char byte;
    if (fd >= 0 && (flags == O_WRONLY || (flags & O_DIRECTORY) || read(fd, &byte, 1) > 0))
        printf("open: %s\n", path);
    if (fd >= 0) close(fd);
}
static void no_write(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd >= 0 && write(fd, text, strlen(text)) > 0) printf("written: %s\n", path);
    if (fd >= 0) close(fd);
}
#define SYS(name, ...) must_fail(#name, syscall(SYS_##name, __VA_ARGS__))

int main(void) {
    char buffer[4096];
    mkdir("/tmp/a", 0777);
    SYS(mount, "none", "/tmp/a", "tmpfs", 0, 0);
    SYS(mount, "/", "/tmp/a", "", MS_BIND | MS_REC, 0);
    SYS(mount, "none", "/", "", MS_REMOUNT | MS_BIND, 0);
    SYS(umount2, "/proc", MNT_DETACH);
    SYS(pivot_root, "/tmp/a", "/tmp/a");
    SYS(fsopen, "tmpfs", 0);
    SYS(open_tree, AT_FDCWD, "/", 1);
    SYS(move_mount, 0, "", AT_FDCWD, "/tmp/a", 4);
    SYS(mount_setattr, AT_FDCWD, "/", 0, buffer, 32);
    int spaces[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP};
    for (int i = 0; i < 7; i++) {
        SYS(unshare, spaces[i]);
        long pid = syscall(SYS_clone, spaces[i] | SIGCHLD, 0, 0, 0, 0);
        if (pid == 0) _exit(0);
        must_fail("clone", pid);
        uint64_t args[8] = {spaces[i], 0, 0, 0, SIGCHLD, 0, 0, 0};
        pid = syscall(SYS_clone3, args, sizeof args);
        if (pid == 0) _exit(0);
        must_fail("clone3", pid);
    }
    const char *kinds[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
    for (int i = 0; i < 7; i++) {
        snprintf(buffer, sizeof buffer, "/proc/self/ns/%s", kinds[i]);
        int fd = open(buffer, O_RDONLY);
        SYS(setns, fd, 0);
        close(fd);
        snprintf(buffer, sizeof buffer, "/proc/1/ns/%s", kinds[i]);
        if (open(buffer, O_RDONLY) >= 0) printf("open: %s\n", buffer);
    }
    SYS(mknodat, AT_FDCWD, "/tmp/disk", S_IFBLK | 0666, makedev(8, 0));
    SYS(mknodat, AT_FDCWD, "/tmp/mem", S_IFCHR | 0666, makedev(1, 1));
    SYS(mknodat, AT_FDCWD, "/whiteout", S_IFCHR | 0666, makedev(0, 0));
    SYS(open_by_handle_at, AT_FDCWD, buffer, 0);

    must_fail("ptrace attach 1", ptrace(PTRACE_ATTACH, 1, 0, 0));
    must_fail("ptrace seize 1", ptrace(PTRACE_SEIZE, 1, 0, 0));
    struct iovec here = {buffer, 8}, there = {(void *)0x400000, 8};
    syscall(SYS_process_vm_readv, 1, &here, 1, &there, 1, 0);
    if (errno != EPERM) printf("not refused: process_vm_readv\n");
    int pidfd = syscall(SYS_pidfd_open, 1, 0);
    for (int fd = 0; fd < 64; fd++) {
        long got = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
        if (got >= 0) { printf("open: pidfd_getfd\n"); break; }
    }
    int signals[] = {SIGKILL, SIGSTOP, SIGTERM, SIGINT, SIGSEGV, SIGCHLD, SIGUSR1, SIGTSTP};
    for (int i = 0; i < 8; i++) kill(1, signals[i]);
    no_file("/proc/1/mem", O_RDWR);
    no_file("/proc/1/environ", O_RDONLY);
    no_file("/proc/1/maps", O_RDONLY);
    no_file("/proc/1/exe", O_RDONLY);
    no_file("/proc/1/root/etc", O_RDONLY | O_DIRECTORY);
    no_file("/proc/1/cwd", O_RDONLY | O_DIRECTORY);
    no_file("/proc/1/fd", O_RDONLY | O_DIRECTORY);
    no_file("/proc/1/map_files", O_RDONLY | O_DIRECTORY);
    no_file("/proc/kcore", O_RDONLY);
    no_file("/proc/kmsg", O_RDONLY | O_NONBLOCK);
    no_file("/dev/mem", O_RDONLY);
    no_file("/dev/kmsg", O_RDONLY | O_NONBLOCK);
    no_file("/dev/sda", O_RDONLY);
    no_file("/dev/fuse", O_RDWR);

    SYS(bpf, 0, buffer, 64);
    SYS(perf_event_open, buffer, 0, -1, -1, 0);
    SYS(userfaultfd, 0);
    SYS(io_uring_setup, 1, buffer);
    SYS(keyctl, 0, -3, 1);
    SYS(add_key, "user", "k", "v", 1, -3);
    SYS(request_key, "user", "k", 0, 0);
    SYS(init_module, buffer, 0, "");
    SYS(finit_module, 0, "", 0);
    SYS(kexec_load, 0, 0, 0, 0);
    SYS(reboot, 0xfee1dead, 672274793, 0, 0);
    SYS(swapon, "/tmp/a", 0);
    SYS(acct, "/tmp/a");
    SYS(syslog, 3, buffer, 100);
    SYS(settimeofday, buffer, 0);
    SYS(sethostname, "x", 1);
    SYS(fanotify_init, 0, 0);
    must_fail("TIOCSTI", ioctl(0, TIOCSTI, "x"));
    must_fail("TIOCSTI, upper half set", syscall(SYS_ioctl, 0, 0x100000000UL | TIOCSTI, "x"));

    struct rlimit locks = {1, 1};
    SYS(prlimit64, 0, RLIMIT_LOCKS, &locks, 0);
    must_fail("prlimit, upper half set", syscall(SYS_prlimit64, 0, 0x100000000UL | RLIMIT_LOCKS, &locks, 0));
#ifdef SYS_setrlimit
    SYS(setrlimit, RLIMIT_LOCKS, &locks);
#endif
#ifdef __x86_64__
    must_fail("x32 getpid", syscall(0x40000000 | SYS_getpid));
    must_fail("x32 mount", syscall(0x40000000 | SYS_mount, "none", "/tmp/a", "tmpfs", 0, 0));
    int status;
    pid_t child = fork();
    if (child == 0) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "0"(20L) : "memory");
        _exit(result > 0 ? 1 : 0);
    }
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 1) printf("open: 32-bit calls\n");
#endif
    int raw = socket(AF_PACKET, SOCK_RAW, 0);
    must_fail("AF_PACKET", raw);
    /* Bluetooth, RDS, TIPC, AF_ALG, NFC, vsock, KCM, QIPCRTR, SMC, XDP. */
    int families[] = {31, 21, 30, 38, 39, 40, 41, 42, 43, 44};
    for (unsigned i = 0; i < sizeof families / sizeof *families; i++) {
        char what[32];
        snprintf(what, sizeof what, "socket family %d", families[i]);
        must_fail(what, socket(families[i], SOCK_STREAM, 0));
        must_fail(what, socket(families[i], SOCK_DGRAM, 0));
        must_fail(what, socket(families[i], SOCK_SEQPACKET, 0));
    }

    no_write("/proc/sys/kernel/core_pattern", "|/tmp/x\n");
    no_write("/proc/sys/kernel/modprobe", "/tmp/x\n");
    no_write("/proc/sys/kernel/hostname", "x\n");
    no_write("/proc/sys/vm/drop_caches", "1\n");
    no_write("/proc/sys/user/max_user_namespaces", "1\n");
    no_write("/proc/sysrq-trigger", "h\n");
    no_write("/proc/1/oom_score_adj", "1000\n");
    no_write("/proc/self/oom_score_adj", "-1000\n");
    no_write("/proc/self/uid_map", "0 0 1\n");
    no_write("/sys/kernel/uevent_helper", "/tmp/x\n");
    no_write("/sys/power/state", "mem\n");

    struct stat before, after;
    stat("/", &before);
    mkdir("/tmp/jail", 0755);
    int top = open("/", O_RDONLY | O_DIRECTORY);
    if (chroot("/tmp/jail") == 0) {
        fchdir(top);
        for (int i = 0; i < 64; i++) chdir("..");
        chroot(".");
    }
    stat("/", &after);
    if (before.st_dev != after.st_dev || before.st_ino != after.st_ino) printf("open: chroot\n");
    puts("tried");
    return 0;
}
