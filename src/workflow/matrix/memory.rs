//! What is known of cells from an earlier run.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use super::Cell;

/// What is known of a matrix's cells from before.
#[async_trait]
pub trait CellMemory: Debug + Send + Sync {
    /// How long the cell took when it passed, if all that it depends on is as it was then: it need
    /// not run again.
    async fn unchanged(&self, cell: &Cell) -> Option<Duration>;
}
