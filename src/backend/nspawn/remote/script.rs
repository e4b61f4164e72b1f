//! What is said to the shell of the other host: it starts our program there, and takes it in where it is not
//! there yet.
//!
//! There is no quote, no exclamation mark, no backslash and no line break in it, so that any login shell hands it
//! on as it is.

use crate::sandbox::{Error, Result};

/// The argument by which our program is the other end; see [`serve_if_asked`](super::serve_if_asked).
pub(super) const WORD: &str = "sandscript-far-end";

/// The argument by which it only says that it can run there.
pub(super) const CHECK: &str = "sandscript-far-check";

/// How a line of the script begins, and one of the program.
pub(super) const SAYS: &str = "sandscript: ";
pub(super) const GREETS: &str = "sandscript-far ";

/// Where the program is kept there: nothing of it is left when the host boots.
pub(super) const FOLDER: &str = "/run/sandscript-far";

/// Becomes root, if that is asked for nothing.
const BOOT: &str = r#"if [ "$(id -u)" = 0 ]; then eval "$1"; elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then exec sudo -n -- sh -c "$1"; else echo "sandscript: not-root $(id -un)"; fi"#;

const PATH: &str = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin; export PATH; cd /;";

/// Starts the program where it is there: a file of root's own in a folder of root's own, which nobody else comes into.
/// Else it is sent by one at a time: a mount, or room that another one takes, would come between. The others wait, but
/// not for one of whose file nothing comes any more. The lock is not in the folder, which may be mounted over.
const PUSH: &str = r#"umask 077; set -f; d=DIR; f=$d/HASH; t=$d/.part.$$; begin() { if [ -x $f ] && [ "$(echo $(stat -c %u:%f $d $f 2>/dev/null))" = "0:41c0 0:81c0" ]; then touch $f; umask 022; exec 9>&-; exec $f WORD; fi; }; begin; exec 9>$d.lock; n=0; if command -v flock >/dev/null 2>&1; then until flock -n 9; do n=$((n+1)); if [ $n -gt 120 ] && [ -z "$(find $d -name ".part.*" -mmin -2 2>/dev/null)" ]; then break; fi; echo "sandscript: wait"; sleep 1; done; fi; begin; if [ -L $d ]; then echo "sandscript: no-folder $d"; exit 0; fi; mkdir -p $d && chmod 00700 $d && [ "$(stat -c %u:%f $d)" = 0:41c0 ] || { echo "sandscript: no-folder $d"; exit 0; }; case ,$(findmnt -n -o OPTIONS -T $d), in *,noexec,*) mount -t tmpfs -o mode=700,nosuid,nodev sandscript $d || { echo "sandscript: no-exec $d"; exit 0; };; esac; set -- $(df -Pk $d | tail -n 1); if [ "$4" -lt KILO ]; then mount -t tmpfs -o mode=700,nosuid,nodev sandscript $d || { echo "sandscript: no-room $d"; exit 0; }; fi; find $d -type f -mmin +60 -exec rm -f {} + 2>/dev/null; echo "sandscript: push $(uname -m)"; head -c SIZE > $t || { rm -f $t; echo "sandscript: no-room $d"; exit 0; }; s=$(sha256sum < $t); s=${s%% *}; if [ "$s" = HASH ]; then :; else rm -f $t; echo "sandscript: corrupt $s"; exit 0; fi; chmod 700 $t; if w=$($t CHECK 2>&1); then mv -f $t $f; else rm -f $t; echo "sandscript: no-run" $w; exit 0; fi; umask 022; exec 9>&-; exec $f WORD"#;

/// The line for a program that is known by its SHA-256 and its size.
pub(super) fn push(sha256: &str, size: u64) -> String {
    // Half as much again, so that what the host itself keeps there has room.
    let kilo = (size / 1024 * 3 / 2 + 1024).to_string();
    let script = PUSH
        .replace("DIR", FOLDER)
        .replace("HASH", sha256)
        .replace("KILO", &kilo)
        .replace("SIZE", &size.to_string())
        .replace("WORD", WORD)
        .replace("CHECK", CHECK);
    line(&script)
}

/// The line for a program that is there.
pub(super) fn start(program: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    if !program.starts_with('/') || !program.chars().all(plain) {
        return Err(Error::invalid_hint(
            "program",
            format!("'{program}' is no path that can be used"),
            "name it from / on, of letters, digits, and . _ + -",
        ));
    }
    Ok(line(&format!(
        r#"if [ -x {program} ]; then umask 022; exec {program} {WORD}; else echo "sandscript: no-program {program}"; fi"#
    )))
}

fn line(script: &str) -> String {
    format!("exec sh -c '{BOOT}' sandscript '{PATH} {script}'")
}

/// What looks at the host, and changes nothing there: one line for each word.
pub(super) const LOOK: &str = r#"say() { echo "sandscript: $*"; }; say arch $(uname -m); say kernel $(uname -r); if [ "$(id -u)" = 0 ]; then say root yes; elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then say root sudo; else say root no $(id -un); fi; PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin; export PATH; say nspawn $(systemd-nspawn --version 2>/dev/null | head -n 1); for p in systemd-run machinectl setpriv sha256sum findmnt; do command -v $p >/dev/null 2>&1 || say lacks $p; done; if [ -d /run/systemd/system ]; then say booted yes; fi; say run $(findmnt -n -o OPTIONS -T /run); say end"#;

/// The line for it.
pub(super) fn look() -> String {
    format!("exec sh -c '{LOOK}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_shell_hands_it_on() {
        let lines =
            [push(&"a".repeat(64), 30 << 20), start("/mnt/tank/sandscript").unwrap(), look()];
        for line in lines {
            // The quotes that go around the scripts are all there are.
            let around = if line.contains(" sandscript '") { 4 } else { 2 };
            assert_eq!(line.matches('\'').count(), around, "{line}");
            assert!(!line.contains(['!', '\\', '\n']), "{line}");
        }
        for wrong in ["sandscript", "/a b", "/a;b", "/a'b", "/$(x)", ""] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }
}
