//! A matrix: which cells there are, which of them run, and how they ended.

mod expand;
mod filter;
mod id;
mod memory;
mod report;
mod spec;
mod value;

pub use filter::Filter;
pub use id::cell_id;
pub use memory::CellMemory;
pub use report::{CellReport, Counts, MatrixReport, Outcome};
pub use spec::{Cell, CellTemplate, MatrixSpec};
pub use value::AxisValue;
