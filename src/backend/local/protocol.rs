//! What this process, the keeper and the inits of sandboxes say to each other.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sandbox::{Exit, FileEntry, Mount, Protocol};

/// A failed step: what was being done, and the error number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done, e.g. `mounting the overlay`.
    pub what: String,
    /// The system's error number; 0 when there was none.
    pub errno: i32,
}

impl Failure {
    /// A failure without a system error.
    pub fn new(what: impl Into<String>) -> Self {
        Failure { what: what.into(), errno: 0 }
    }
}

/// Says what was being done when a system call failed.
pub trait Doing<T> {
    /// Adds what was being done.
    fn doing(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            match error.raw_os_error() {
                Some(errno) => Failure { what: what.into(), errno },
                None => Failure::new(format!("{what}: {error}")),
            }
        })
    }
}

/// Written into the lifeline of a sandbox that is to outlive it.
pub const LET_GO: &[u8] = b"k";

/// How ids inside a sandbox map to the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdMap {
    /// As root: guest 0..65536 are `base`.. on the host; files on disk are 0-based by idmapped mounts.
    Private {
        /// First host id.
        base: u32,
    },
    /// As a user with a subordinate range: the keeper's namespace maps it, sandboxes nest in it.
    Range,
    /// As a user without one: guest root is the user, and there is nobody else.
    Single,
}

/// A part of the guest's file tree that has an overlay of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Name of the subfolder in every layer: `root`, `usr`.
    pub name: String,
    /// Where it is mounted in the guest: `/`, `/usr`.
    pub target: String,
    /// The host folder at the bottom; none when the layers hold everything.
    pub host: Option<PathBuf>,
}

/// What a keeper is asked to do. The first descriptor is the socket for its reply.
#[derive(Debug, Serialize, Deserialize)]
pub enum Task {
    /// Have a worker do the tasks that come on the reply socket, one after the other, until it ends.
    Serve,
    /// Start a sandbox.
    Launch(Box<Launch>),
    /// Merge layers, top first, into one.
    Flatten {
        /// Layer folders.
        layers: Vec<PathBuf>,
        /// Where it goes; must not exist.
        to: PathBuf,
    },
    /// Make the `host` image's layer.
    HostImage {
        /// The layer folder, which exists.
        to: PathBuf,
        /// Hide files that the host's root keeps private.
        hide: bool,
    },
    /// Bytes below these folders.
    Measure {
        /// The folders.
        paths: Vec<PathBuf>,
    },
    /// Delete trees, then cgroups. To a worker of [`Task::Serve`] it may come without a reply socket.
    Remove {
        /// The trees.
        paths: Vec<PathBuf>,
        /// The cgroup folders, inner before outer.
        groups: Vec<PathBuf>,
        /// Where folders that are fit for it are kept instead.
        spares: Option<PathBuf>,
    },
    /// Write layers to disk for good.
    Sync {
        /// A folder on that file system.
        path: PathBuf,
        /// The marks to make afterwards.
        marks: Vec<PathBuf>,
    },
    /// Unpack an image into a layer.
    Unpack {
        /// A tarball, or the layers of an OCI image, lowest first.
        archives: Vec<PathBuf>,
        /// Whether they are such layers, which may take away from those below.
        layered: bool,
        /// What it is called in messages.
        name: String,
        /// There is one id only: it owns everything.
        all_mine: bool,
        /// The layer folder, which exists.
        to: PathBuf,
    },
}

/// Which of the descriptors that come with a [`Launch`] are what, after the reply socket: first
/// `own`, then these in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LaunchFds {
    /// The control socket, and a pipe whose write end the run holds: when it closes, the sandbox ends.
    pub own: bool,
    /// `cgroup.procs` files that init joins.
    pub group: usize,
    /// `cgroup.procs` files that commands join.
    pub payload: usize,
    /// The version 2 cgroup folders that init and commands are born in.
    pub birth: bool,
    /// `cgroup.freeze` and `cgroup.events` of the commands' group.
    pub freeze: bool,
    /// Locks that must live as long as the sandbox.
    pub locks: usize,
}

/// A sandbox to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// Stop where it needs to know who it is, say so, and wait for a [`Wake`] on the reply socket.
    pub ahead: bool,
    /// Descriptors that come along.
    pub fds: LaunchFds,
    /// Id mapping.
    pub map: IdMap,
    /// The store's `layers` folder.
    pub layers_folder: PathBuf,
    /// The trees, root first.
    pub trees: Vec<Tree>,
    /// Layers, top first.
    pub layers: Vec<String>,
    /// The layer that is written to.
    pub upper: String,
    /// The upper layer is in a file system of its own.
    pub disk: Option<PathBuf>,
    /// How many files may be made in it.
    pub inodes: Option<u64>,
    /// Host folders and files.
    pub mounts: Vec<Mount>,
    /// How many of them, the first ones, are the store's own: their files have the guest's ids.
    pub caches: usize,
    /// Which of them are folders: the guest's root may have no way there to look.
    pub folders: Vec<bool>,
    /// Who the guest is.
    pub machine: Machine,
    /// What commands get when they say nothing else.
    pub defaults: Defaults,
    /// All connections go through the gate.
    pub gated: bool,
}

/// The rest of a [`Launch`] that was made ahead. Descriptors: the control socket and the lifeline.
#[derive(Debug, Serialize, Deserialize)]
pub struct Wake {
    /// Who the guest is.
    pub machine: Machine,
    /// What commands get when they say nothing else.
    pub defaults: Defaults,
}

/// The guest's identity.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Host name.
    pub hostname: String,
    /// `/etc/machine-id`.
    pub id: String,
    /// Write the identity: the first start after create, clone or restore.
    pub fresh: bool,
    /// Drop SSH host keys: they are another machine's.
    pub new: bool,
    /// Content of `/etc/resolv.conf`; none leaves it alone.
    pub resolv_conf: Option<String>,
}

/// A sandbox's defaults for commands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Defaults {
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// User.
    pub user: Option<String>,
    /// Working directory.
    pub cwd: Option<String>,
}

/// A keeper's reply.
#[derive(Debug, Serialize, Deserialize)]
pub enum Done {
    /// It is done.
    Ok,
    /// It is done; a number of bytes.
    Bytes(u64),
    /// It failed.
    Failed(Failure),
    /// The task's input was refused.
    Refused {
        /// The argument.
        what: String,
        /// What is wrong with it.
        message: String,
        /// What would be right.
        hint: Option<String>,
    },
}

/// What an init is asked on a control connection.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Run a command. Descriptors: status pipe, then stdin, stdout, stderr unless `tty`.
    Exec(Box<Exec>),
    /// Work on files, in a child inside the guest.
    File(FileRequest),
    /// While it is held still, copy the upper layer to a new one.
    Copy {
        /// The new layer.
        to: String,
    },
    /// Hold still: no new process, all frozen. Ends with `Thaw` or with the connection.
    Hold,
    /// Freeze for good.
    Freeze,
    /// Thaw.
    Thaw,
    /// Forget the lifeline.
    Keep,
    /// Kill the running command's whole tree.
    Kill,
    /// If no process runs, go over to a new upper layer.
    Seal {
        /// Layers, top first.
        layers: Vec<String>,
        /// The new upper.
        upper: String,
    },
    /// Send the running command a signal.
    Signal(i32),
    /// How are you?
    Status,
    /// What have your processes taken?
    Usage,
    /// End: SIGTERM, after `grace_ms` SIGKILL.
    Stop {
        /// Milliseconds; 0 kills at once.
        grace_ms: u64,
    },
    /// The sockets at which the guest's connections arrive, of each kind as many. From now on all
    /// connections go there.
    Gate,
    /// A socket that is being connected to an address of the sandbox's own.
    Dial {
        /// The loopback interface's, or the one that a sandbox which goes through the gate has.
        to: SocketAddr,
        /// What it is seen as in there; an address of the sandbox's own when it is none.
        #[serde(default)]
        from: Option<IpAddr>,
        /// By this protocol.
        protocol: Protocol,
    },
    /// The program that has this end of a connection.
    Owner(End),
    /// Go on with a write: put the file in place.
    Commit,
    /// Give a write up.
    Abandon,
}

/// A guest's end of a connection, as it has it itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct End {
    /// By which protocol.
    pub protocol: Protocol,
    /// From where.
    pub from: SocketAddr,
    /// To where, if that is known.
    pub to: Option<SocketAddr>,
}

/// A command, fully resolved but for what only the guest knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exec {
    /// Argument vector.
    pub argv: Vec<String>,
    /// Environment on top of the defaults.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Rows and columns of a terminal.
    pub tty: Option<(u16, u16)>,
    /// It outlives its connection.
    pub detached: bool,
}

/// Work on the guest's files.
#[derive(Debug, Serialize, Deserialize)]
pub enum FileRequest {
    /// Open for reading; answers with a descriptor.
    Open {
        /// Path in the guest.
        path: String,
    },
    /// Open a new file beside `path`; answers with a descriptor, then waits for `Commit`.
    Replace {
        /// Path in the guest.
        path: String,
        /// Permission bits.
        mode: Option<u32>,
        /// `user:group`.
        owner: Option<String>,
        /// Make parents.
        parents: bool,
    },
    /// List a folder.
    List {
        /// Path in the guest.
        path: String,
    },
    /// Describe an entry.
    Stat {
        /// Path in the guest.
        path: String,
    },
    /// Delete.
    Remove {
        /// Path in the guest.
        path: String,
        /// Also a folder that is not empty.
        recursive: bool,
    },
    /// Make a folder and its parents.
    Mkdir {
        /// Path in the guest.
        path: String,
        /// Permission bits of the last one.
        mode: Option<u32>,
        /// `user:group`.
        owner: Option<String>,
    },
    /// Unpack the tar stream on the first descriptor.
    Unpack {
        /// Folder in the guest.
        path: String,
        /// `user:group`.
        owner: Option<String>,
    },
    /// Write a tar stream to the first descriptor.
    Pack {
        /// Path in the guest.
        path: String,
    },
}

/// What those processes of a sandbox have taken that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Processor time, in microseconds.
    pub cpu: u64,
    /// The most memory of one of them, in bytes.
    pub memory: u64,
}

/// An init's answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done; descriptors may come along.
    Ok,
    /// Processes other than init are there.
    Alive,
    /// A command ended.
    Exited {
        /// How.
        exit: Exit,
        /// What the sandbox has taken until now.
        taken: Taken,
    },
    /// Folder entries.
    Entries(Vec<FileEntry>),
    /// How it is.
    Status {
        /// Its processes stand still.
        frozen: bool,
        /// How many there are.
        processes: usize,
        /// The layer it writes to.
        upper: String,
        /// The layers below that, top first.
        layers: Vec<String>,
    },
    /// What it has taken.
    Usage(Taken),
    /// Whose it is; none where that could not be found in a short time.
    Owner(Option<String>),
    /// It failed.
    Failed(Failure),
    /// The request can't be met as it is.
    Refused {
        /// Machine-readable: `not_found`, `permission`, `invalid`, `user`, `frozen`, `exists`.
        code: Refusal,
        /// The path or name it is about.
        what: String,
        /// A sentence, for `invalid`.
        message: String,
    },
}

/// Why init refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The sandbox is frozen.
    Frozen,
    /// The argument is wrong.
    Invalid,
    /// No such file.
    NotFound,
    /// The guest's permissions forbid it.
    Permission,
    /// No such program.
    NoProgram,
    /// No space or inodes left.
    Full,
    /// No such user.
    NoUser,
    /// The user exists, but its id is not mapped.
    UnmappedUser,
}
