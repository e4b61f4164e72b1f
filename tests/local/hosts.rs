//! The host's files: none outside the image can be read or written.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sandscript::sandbox::{
    Backend, Cancel, Command, Error, Exit, Mount, ReadOptions, Spec, Stdin, WriteOptions,
};

use crate::Test;
use crate::rig::{Outcome, Rig, scratch};

pub const TESTS: &[Test] = &[
    ("host_files_are_not_readable", files_are_not_readable),
    ("host_files_are_not_reached_through_links", not_reached_through_links),
    ("host_mount_is_read_only", mount_is_read_only),
    ("host_image_with_links_for_mount_points", image_with_links_for_mount_points),
];

/// Files below a folder, without following links; at most `most`.
fn walk(folder: &Path, most: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if found.len() >= most {
            return;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), most, found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn files_are_not_readable(rig: &Rig) -> Outcome {
    let mut private = Vec::new();
    for folder in ["/usr", "/etc"] {
        let mut all = Vec::new();
        walk(Path::new(folder), 200_000, &mut all);
        private.extend(all.into_iter().filter(|path| {
            fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 == 0)
        }));
    }
    private
        .extend(["/etc/shadow", "/etc/gshadow", "/etc/fstab", "/etc/crypttab"].map(PathBuf::from));
    for folder in ["/root", "/home", "/var", "/opt", "/srv", "/mnt", "/media"] {
        let mut all = Vec::new();
        walk(Path::new(folder), 2000, &mut all);
        // The list of installed packages is in the image: package managers are lost without it.
        private.extend(all.into_iter().filter(|path| !path.starts_with("/var/lib/dpkg")));
    }
    let mut store = Vec::new();
    walk(&rig.store, 500, &mut store);
    private.extend(store);
    let secret = scratch();
    fs::write(secret.path().join("secret"), "x").unwrap();
    private.push(secret.path().join("secret"));

    let sandbox = rig.sandbox("reads");
    let list: Vec<u8> = private
        .iter()
        .filter(|path| !path.as_os_str().as_encoded_bytes().contains(&b'\n'))
        .flat_map(|path| [path.as_os_str().as_encoded_bytes(), b"\n"].concat())
        .collect();
    // What is there counts only when a byte of it can be read.
    let mut command = Command::shell(
        "while IFS= read -r file; do for way in '' /proc/1/root /proc/self/root/../../..; do \
         if [ -s \"$way$file\" ] && head -c 1 \"$way$file\" >/dev/null 2>&1; then echo \"$file\"; fi; \
         done; done",
    );
    command.stdin = Stdin::Bytes(list.into());
    let output = sandbox.exec(&command).unwrap();
    let readable = String::from_utf8_lossy(&output.stdout);
    // What the guest has made anew is its own.
    let leaked: Vec<&str> = readable
        .lines()
        .filter(|file| {
            let own = fs::read(file).unwrap_or_default();
            let mut reader = rig
                .wait(rig.backend.read(&sandbox.name, file, ReadOptions::default(), &Cancel::new()))
                .unwrap();
            let mut bytes = Vec::new();
            rig.wait(tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut bytes)).unwrap();
            bytes == own
        })
        .collect();
    assert!(private.len() > 3);
    assert_eq!(leaked, [""; 0], "of {} files", private.len());
    Outcome::Done
}

fn not_reached_through_links(rig: &Rig) -> Outcome {
    let host = scratch();
    let victim = host.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "of the host").unwrap();
    let (folder, file) = (victim.to_str().unwrap(), victim.join("file"));
    let file = file.to_str().unwrap();
    let sandbox = rig.sandbox("links");
    sandbox.run(&format!(
        "mkdir /l && cd /l && ln -s {folder} abs && ln -s ../../../../../../..{folder} up && \
         ln -s /proc/1/root{folder} one && ln -s /proc/self/root/..{folder} own && ln -s {file} file && \
         ln -s / top && ln -s /proc/self/fd/3/.. fd"
    ));
    let (backend, name, cancel) = (&rig.backend, &sandbox.name, Cancel::new());
    for link in ["abs", "up", "one", "own", "top", "fd"] {
        let inner = match link {
            "top" => format!("/l/top{folder}"),
            "fd" => format!("/l/fd/self/root{folder}"),
            link => format!("/l/{link}"),
        };
        let read =
            rig.wait(backend.read(name, &format!("{inner}/file"), ReadOptions::default(), &cancel));
        assert!(read.is_err(), "{inner} was read");
        let _ = sandbox.put(&format!("{inner}/file"), b"of the guest", 0o666);
        let _ = sandbox.put(&format!("{inner}/new"), b"of the guest", 0o666);
        let options = WriteOptions::default();
        let _ = rig.wait(backend.mkdir(name, &format!("{inner}/folder"), &options, &cancel));
        let _ = rig.wait(backend.remove(name, &format!("{inner}/file"), true, &cancel));
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o4777);
        tar.append_data(&mut header, "file", &b"x"[..]).unwrap();
        let bytes = tar.into_inner().unwrap();
        let stream = Box::new(std::io::Cursor::new(bytes));
        let _ = rig.wait(backend.unpack(name, &inner, stream, &options, &cancel));
        if let Ok(mut packed) = rig.wait(backend.pack(name, &inner, &cancel)) {
            let mut bytes = Vec::new();
            let _ = rig.wait(tokio::io::AsyncReadExt::read_to_end(&mut packed, &mut bytes));
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains("of the host"), "{inner} was packed");
        }
    }
    let _ = sandbox.put("/l/file", b"of the guest", 0o666);
    assert_eq!(fs::read_to_string(file).unwrap(), "of the host");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    Outcome::Done
}

fn mount_is_read_only(rig: &Rig) -> Outcome {
    let host = scratch();
    fs::write(host.path().join("file"), "of the host").unwrap();
    fs::write(host.path().join("secret"), "secret").unwrap();
    fs::create_dir(host.path().join("shared")).unwrap();
    symlink("../secret", host.path().join("shared/link")).unwrap();
    let mount = |folder: &str, target: &str, readonly| Mount {
        source: host.path().join(folder),
        target: target.into(),
        readonly,
    };
    let mut spec = Spec::new(rig.name("mounts"));
    spec.mounts = vec![mount("", "/ro", true), mount("shared", "/rw", false)];
    let sandbox = rig.make(spec).unwrap();
    for line in [
        "echo x >/ro/file",
        "touch /ro/new",
        "chmod 777 /ro/file",
        "rm /ro/file",
        "mount -o remount,rw /ro",
        "mount -o remount,bind,rw /ro",
        "umount /ro",
        "cat /rw/link",
        "cat /rw/../secret",
        "echo x >/ro/shared/new",
    ] {
        assert_ne!(sandbox.sh(line).exit, Exit::Code(0), "{line}");
    }
    sandbox.run("echo x >/rw/new; cp /usr/bin/id /rw/id; chmod 6755 /rw/id");
    assert_eq!(fs::read_to_string(host.path().join("shared/new")).unwrap(), "x\n");
    // What the guest makes belongs to the folder's owner, never to another user of the host.
    let owner = |path: &str| fs::metadata(host.path().join(path)).unwrap().uid();
    assert_eq!(owner("shared/new"), owner("shared"));
    let table = sandbox.run("grep -E ' /(ro|rw) ' /proc/self/mountinfo");
    assert!(table.lines().all(|line| line.contains("nosuid") && line.contains("nodev")), "{table}");
    assert_eq!(fs::read_to_string(host.path().join("file")).unwrap(), "of the host");
    // A mount point that the guest has turned into a link is refused, not followed.
    sandbox.run("mkdir -p /l/a");
    Outcome::Done
}

fn image_with_links_for_mount_points(rig: &Rig) -> Outcome {
    let folder = scratch();
    for (target, link) in
        [("proc", "/tmp"), ("dev", "../../../../tmp"), ("run", "/nowhere"), ("sys", "proc")]
    {
        let mut tar = tar::Builder::new(Vec::new());
        for name in ["proc", "dev", "run", "sys", "tmp", "etc"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o755);
            header.set_entry_type(tar::EntryType::Directory);
            if name == target {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, name, link).unwrap();
            } else {
                tar.append_data(&mut header, name, &b""[..]).unwrap();
            }
        }
        let path = folder.path().join(format!("{target}.tar"));
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&tar.into_inner().unwrap()).unwrap();
        let mut spec = Spec::new(rig.name("tar"));
        spec.image = Some(path.to_str().unwrap().into());
        let name = spec.name.clone();
        let made = rig.make(spec).map(drop);
        assert!(made.is_err(), "/{target} may be a link");
        let get = rig.wait(rig.backend.get(&name, &Cancel::new()));
        assert!(matches!(get, Err(Error::NotFound { .. })), "{get:?}");
    }
    Outcome::Done
}
