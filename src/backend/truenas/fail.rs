//! What a NAS's refusals mean to those who work in guests.

use super::super::guest::Fail;
use crate::transport::jsonrpc::RpcError;

pub(super) fn of_rpc(error: RpcError) -> Fail {
    let text = error.to_string();
    match error {
        RpcError::Unreachable { .. } => Fail::Unreachable(text),
        RpcError::Old { .. } | RpcError::Untrusted(_) => Fail::Untrusted(text),
        RpcError::Auth(_) => Fail::Refused(403, text),
        RpcError::Refused(refusal) if refusal.is_missing() => Fail::Refused(404, text),
        RpcError::Refused(refusal) if refusal.is_denied() => Fail::Refused(403, text),
        RpcError::Refused(_) | RpcError::TooLong { .. } => Fail::Failed(text, Some(1)),
        RpcError::Broken { .. } | RpcError::Deadline { .. } | RpcError::Forgotten { .. } => {
            Fail::Lost(text)
        }
    }
}
