//! What runs commands in a machine: held to what the machine is, out of its reach, and in need of nothing there.

use std::sync::Arc;

use sandscript::sandbox::{Cancel, Command as Run, Exit, exec};

use crate::native::{Test, made, told};
use crate::rig::Rig;

/// All of them, by name.
pub const ALL: &[(&str, Test)] = &[
    ("inside_commands_have_what_the_machine_has", |rig| Box::pin(held(rig))),
    ("inside_what_runs_commands_is_out_of_reach", |rig| Box::pin(hidden(rig))),
    ("inside_an_image_without_perl", |rig| Box::pin(bare(rig))),
];

async fn said(rig: &Rig, name: &str, line: &str) -> Result<String, String> {
    let output =
        exec(&*rig.backend, name, &Run::shell(line), &Cancel::new()).await.map_err(told)?;
    match output.exit {
        Exit::Code(0) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        exit => Err(format!("{line}: {exit}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

async fn held(rig: Arc<Rig>) -> Result<(), String> {
    let name = "inside-held";
    made(&rig, name, Default::default()).await?;
    let of = |pid: &str| {
        format!(
            "grep -E '^(CapBnd|CapPrm|CapEff|NoNewPrivs|Seccomp|Seccomp_filters):' /proc/{pid}/status"
        )
    };
    let (own, first) = (said(&rig, name, &of("self")).await?, said(&rig, name, &of("1")).await?);
    assert_eq!(own, first);
    assert!(own.contains("Seccomp:\t2"), "{own}");
    for kind in ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup"] {
        let line = format!("[ /proc/self/ns/{kind} -ef /proc/1/ns/{kind} ]");
        said(&rig, name, &line).await?;
    }
    let groups = said(&rig, name, "cat /proc/self/cgroup").await?;
    assert!(groups.lines().all(|line| !line.contains("..")), "{groups}");
    assert!(groups.lines().any(|line| line == "0::/sandscript"), "{groups}");
    rig.backend.delete(name, &Cancel::new()).await.map_err(told)
}

async fn hidden(rig: Arc<Rig>) -> Result<(), String> {
    let name = "inside-hidden";
    made(&rig, name, Default::default()).await?;
    let find = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = sandscript-exec ] && echo ${p#/proc/}; done; :";
    let pid = said(&rig, name, find).await?;
    assert!(pid.parse::<u32>().is_ok(), "{pid}");
    for what in ["exe", "root", "cwd", "fd/0"] {
        let line = format!("! readlink /proc/{pid}/{what}");
        assert_eq!(said(&rig, name, &line).await?, "");
    }
    said(&rig, name, &format!("! head -c 1 /proc/{pid}/mem")).await?;
    // Whoever ends it has another one.
    let _ = said(&rig, name, &format!("kill -KILL {pid}")).await;
    assert_eq!(said(&rig, name, "echo again").await?, "again");
    assert_ne!(said(&rig, name, find).await?, pid);
    rig.backend.delete(name, &Cancel::new()).await.map_err(told)
}

async fn bare(rig: Arc<Rig>) -> Result<(), String> {
    let (name, cancel) = ("inside-bare", Cancel::new());
    made(&rig, name, Default::default()).await?;
    said(&rig, name, "rm -f /usr/bin/perl*; ! command -v perl").await?;
    rig.backend.stop(name, Default::default(), &cancel).await.map_err(told)?;
    rig.backend.start(name, &cancel).await.map_err(told)?;
    let content = Box::new(std::io::Cursor::new(b"hello".to_vec()));
    rig.backend.write(name, "/srv/f", content, &Default::default(), &cancel).await.map_err(told)?;
    assert_eq!(said(&rig, name, "cat /srv/f; hostname").await?, format!("hello{name}"));
    rig.backend.delete(name, &cancel).await.map_err(told)
}
