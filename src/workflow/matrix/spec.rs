//! What a matrix is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::sandbox::{Limits, Policy, Result};

use super::super::Source;
use super::memory::CellMemory;
use super::{AxisValue, Filter, expand};

/// What every cell's sandbox is like, beyond what it is cloned from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CellTemplate {
    /// Upper bounds; those of the source when not given.
    pub limits: Option<Limits>,
    /// What it may reach; as the source when not given.
    pub egress: Option<Policy>,
    /// Added to the environment of every command.
    pub env: BTreeMap<String, String>,
}

/// A matrix as the script describes it.
#[derive(Clone, Debug, Default)]
pub struct MatrixSpec {
    /// Its name, for people.
    pub name: String,
    /// What every cell's sandbox is cloned from.
    pub source: Source,
    /// The axes and their values, in order; the last one turns fastest.
    pub axes: Vec<(String, Vec<AxisValue>)>,
    /// Pairs that are added to the combinations they fit, or cells of their own; as on GitHub.
    pub include: Vec<Vec<(String, AxisValue)>>,
    /// Combinations that have all of these values are left out.
    pub exclude: Vec<Vec<(String, AxisValue)>>,
    /// How many bodies run at once; the backend's parallelism when not given.
    pub parallel: Option<usize>,
    /// How long one body may take.
    pub timeout: Option<Duration>,
    /// Start no more cells and cancel the running ones when one fails.
    pub fail_fast: bool,
    /// Which cells run.
    pub filter: Filter,
    /// Of those, only the cells with these ids.
    pub only: Option<BTreeSet<String>>,
    /// What is known of the cells from before; nothing when not given.
    pub memory: Option<Arc<dyn CellMemory>>,
    /// Tell which cells would run, and run none.
    pub list: bool,
    /// What their sandboxes are like.
    pub cell: CellTemplate,
}

/// One combination.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Its stable id, which is a filter that selects it; see [`super::cell_id`].
    pub id: String,
    /// Its values: axes first, in order, then what `include` added.
    pub values: Vec<(String, AxisValue)>,
}

impl Cell {
    /// Its value of that name.
    pub fn get(&self, name: &str) -> Option<&AxisValue> {
        self.values.iter().find(|(axis, _)| axis == name).map(|(_, value)| value)
    }
}

impl MatrixSpec {
    /// All cells, in order: the combinations without the excluded ones, then those that `include` adds.
    ///
    /// Errors are [`crate::sandbox::Error::InvalidInput`]: an axis without values or given twice, an
    /// unknown axis in `exclude`, two cells with one id, no cells at all.
    pub fn expand(&self) -> Result<Vec<Cell>> {
        expand::expand(self)
    }

    /// The cells that the filter selects.
    pub fn select(&self) -> Result<Vec<Cell>> {
        let mut cells = self.expand()?;
        cells.retain(|cell| self.selects(cell));
        Ok(cells)
    }

    /// Whether this cell is to run.
    pub(crate) fn selects(&self, cell: &Cell) -> bool {
        self.filter.selects(cell) && self.only.as_ref().is_none_or(|only| only.contains(&cell.id))
    }
}
