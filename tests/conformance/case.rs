//! What a case is.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::time::Duration;

use sandscript::sandbox::Capability;

use crate::rig::Scope;

/// How long a case may take; one that hangs fails by it.
pub const LONGEST: Duration = Duration::from_secs(180);

/// One thing every backend does.
pub struct Case {
    pub name: &'static str,
    /// A backend that lacks one of these skips the case, and the skip is printed.
    pub needs: &'static [Capability],
    pub run: fn(Scope) -> Pin<Box<dyn Future<Output = CaseResult>>>,
}

/// Why a case failed, and where.
#[derive(Debug)]
pub struct Failure(pub String);

pub type CaseResult<T = ()> = Result<T, Failure>;

impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Failure(format!("{error:?} at {}", Location::caller()))
    }
}

/// The table of a file of cases: `cases!["exec"; argv_exact, user [Users]]`.
macro_rules! cases {
    ($area:literal; $($name:ident $([$($need:ident),*])?),* $(,)?) => {
        pub const CASES: &[$crate::case::Case] = &[$($crate::case::Case {
            name: concat!($area, "_", stringify!($name)),
            needs: &[$($(sandscript::sandbox::Capability::$need),*)?],
            run: |scope| Box::pin($name(scope)),
        }),*];
    };
}

/// Asserts that an expression is an error of a certain kind.
macro_rules! fails {
    ($result:expr, $error:pat) => {
        match $result {
            Err($error) => {}
            Err(other) => {
                panic!("{}: expected {}, got {other:?}", stringify!($result), stringify!($error))
            }
            Ok(_) => panic!("{}: expected {}, got Ok", stringify!($result), stringify!($error)),
        }
    };
}

pub(crate) use cases;
pub(crate) use fails;
