//! What the cases need: packages, repositories, root file systems, made on the spot.

use std::path::PathBuf;
use std::process::Command;

use crate::environment::TestEnvironment;

/// Runs a script in the project folder of the environment; it must succeed.
#[track_caller]
fn sh(environment: &TestEnvironment, script: &str) {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(environment.path("project"))
        .env("HOME", environment.path("home"))
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// `wheels/greeting-1.0-py3-none-any.whl`. False when Python can't make virtual environments.
pub fn wheel(environment: &TestEnvironment) -> bool {
    let there = Command::new("/usr/bin/python3").args(["-c", "import venv, ensurepip"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        crate::skip("python3-venv is not installed");
        return false;
    }
    sh(
        environment,
        r#"
mkdir wheels
/usr/bin/python3 - <<'END'
import zipfile
info = "greeting-1.0.dist-info/"
with zipfile.ZipFile("wheels/greeting-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greeting.py", "WORD = 'hello'\n")
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
END"#,
    );
    true
}

/// `toolchain`: the Rust toolchain that built this test. False where this user may not read it.
pub fn toolchain(environment: &TestEnvironment) -> bool {
    let rustc = option_env!("RUSTC").unwrap_or("rustc");
    let Ok(output) = Command::new(rustc).args(["--print", "sysroot"]).output() else {
        return false;
    };
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !folder.join("bin/cargo").exists() {
        return false;
    }
    let shown = folder.display();
    sh(
        environment,
        &format!(
            "mkdir -p toolchain/bin toolchain/lib/rustlib
            cp -al {shown}/bin/cargo {shown}/bin/rustc toolchain/bin || cp -a {shown}/bin/cargo {shown}/bin/rustc toolchain/bin
            cp -al {shown}/lib/*.so* toolchain/lib || cp -a {shown}/lib/*.so* toolchain/lib
            cp -al {shown}/lib/rustlib/*-linux-* toolchain/lib/rustlib || cp -a {shown}/lib/rustlib/*-linux-* toolchain/lib/rustlib"
        ),
    );
    true
}

/// `debs`: a repository of the packages `hello-test` 1.0, with a service, and `hello-more` 2.0,
/// which needs the first.
pub fn debian_packages(environment: &TestEnvironment) {
    sh(
        environment,
        r#"
build() {
  mkdir -p "build/$1/DEBIAN" debs
  printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n' "$1" "$2" >"build/$1/DEBIAN/control"
  [ -z "$3" ] || echo "Depends: $3" >>"build/$1/DEBIAN/control"
  [ -z "$4" ] || echo "Recommends: $4" >>"build/$1/DEBIAN/control"
}
build hello-test 1.0 '' ''
mkdir -p build/hello-test/usr/bin build/hello-test/etc/init.d
printf '#!/bin/sh\necho hello from a package\n' >build/hello-test/usr/bin/hello-test
cat >build/hello-test/etc/init.d/hello-test <<'END'
#!/bin/sh
echo "$1" >>/var/log/hello-test
END
cat >build/hello-test/DEBIAN/postinst <<'END'
#!/bin/sh
# As packages do that bring a service: start it where that is allowed.
if [ -x /usr/sbin/policy-rc.d ] && ! /usr/sbin/policy-rc.d hello-test start; then exit 0; fi
/etc/init.d/hello-test start
END
chmod 755 build/hello-test/usr/bin/hello-test build/hello-test/etc/init.d/hello-test build/hello-test/DEBIAN/postinst
build hello-more 2.0 hello-test hello-extra
build hello-extra 3.0 '' ''
for name in hello-test hello-more hello-extra; do
  dpkg-deb --root-owner-group --build -Zgzip "build/$name" "debs/$name.deb" >/dev/null
done
cd debs && dpkg-scanpackages --multiversion . 2>/dev/null >Packages
"#,
    );
}

/// `debian.tar`: a root file system with dpkg and apt and little more, from the files of this
/// machine's own packages.
pub fn debian_root(environment: &TestEnvironment) {
    sh(
        environment,
        r#"
packages='apt base-files base-passwd bash coreutils dash debianutils diffutils dpkg findutils grep gzip hostname libc-bin mawk perl-base sed tar'
while :; do
  more=$(dpkg-query -W -f '${Pre-Depends}, ${Depends}\n' $packages | tr ',' '\n' |
    sed 's/|.*//; s/(.*//; s/:any//; s/ //g' | sort -u)
  all=$(for name in $packages $more; do
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$name" 2>/dev/null | sed -n 's/^installed //p'
  done | sort -u | tr '\n' ' ')
  [ "$all" != "$packages" ] || break
  packages=$all
done
mkdir -p root/var/lib/dpkg/info root/var/lib/dpkg/updates root/var/lib/apt/lists/partial \
  root/var/cache/apt/archives/partial root/var/log/apt root/etc/apt/apt.conf.d root/etc/apt/preferences.d \
  root/etc/apt/sources.list.d root/tmp root/root root/proc root/sys root/dev root/run root/usr/bin \
  root/usr/sbin root/usr/lib root/usr/lib64
for name in bin sbin lib lib64; do ln -s "usr/$name" "root/$name"; done
dpkg -L $packages | sed -nE 's,^/(bin|sbin|lib|lib64)/,/usr/\1/,; s,^/(usr/.*|etc/(alternatives|debian_version|dpkg|ld|os-release).*),\1,p' |
  grep -vE '^usr/share/(doc|man|locale|info|lintian|bash-completion)/' | sort -u |
  while read -r path; do if [ -L "/$path" ] || [ -f "/$path" ]; then echo "$path"; fi; done >files
echo usr/bin/awk >>files; echo etc/alternatives/awk >>files
tar -C / -c --ignore-failed-read -T files 2>/dev/null | tar -C root -x
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >root/etc/passwd
printf 'root:x:0:\nnogroup:x:65534:\n' >root/etc/group
dpkg-query -s $packages >root/var/lib/dpkg/status
: >root/var/lib/dpkg/available
tar -C root --owner=0 --group=0 --numeric-owner -cf debian.tar .
rm -rf root files
"#,
    );
}

/// `rpms`: a repository of the package `hello-test` 1.0.
pub fn rpm_packages(environment: &TestEnvironment) {
    sh(
        environment,
        r#"
mkdir -p rpms rpmbuild
cat >hello-test.spec <<'END'
Name: hello-test
Version: 1.0
Release: 1
Summary: x
License: x
BuildArch: noarch
%description
x
%install
mkdir -p %{buildroot}/opt
echo hello from a package >%{buildroot}/opt/hello-test
%files
/opt/hello-test
END
rpmbuild --quiet -bb --define "_topdir $PWD/rpmbuild" --define "_rpmdir $PWD/rpms" hello-test.spec
createrepo_c -q rpms
"#,
    );
}
