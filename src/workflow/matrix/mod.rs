//! A matrix: which cells there are, which of them run, and how they ended.

mod expand;
mod filter;
mod id;
mod memory;
mod order;
mod outcome;
mod report;
mod retry;
mod spec;
mod value;

pub use filter::Filter;
pub use id::cell_id;
pub use memory::CellMemory;
pub use order::{Order, Partition};
pub use outcome::{Counts, Outcome};
pub use report::{CellReport, MatrixReport};
pub use retry::Retries;
pub use spec::{Broken, Cell, CellOwn, CellTemplate, MatrixSpec};
pub use value::AxisValue;
