//! What a matrix is made from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::sandbox::{CacheMount, Device, Limits, Network, Placement, Policy, Result};

use super::super::{Failure, Machine, Source};
use super::memory::CellMemory;
use super::{AxisValue, Filter, Order, Partition, Retries, expand, order};

/// What every cell's sandbox is like, beyond what it is cloned from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CellTemplate {
    /// Upper bounds; those of the source when not given.
    pub limits: Option<Limits>,
    /// What it may reach; as the source when not given.
    pub egress: Option<Policy>,
    /// Networks that all of them are in.
    pub networks: Vec<Network>,
    /// Folders that outlive them and are in no snapshot.
    pub caches: Vec<CacheMount>,
    /// Devices of the machine's that all of them have.
    pub devices: Vec<Device>,
    /// Containers may run in them.
    pub nesting: bool,
    /// Added to the environment of every command.
    pub env: BTreeMap<String, String>,
    /// Where in a cluster they are; where the cluster puts them when not given.
    pub target: Option<Placement>,
}

/// What one cell has of its own, beyond the template.
#[derive(Clone, Debug, Default)]
pub struct CellOwn {
    /// Where it runs; where the run does when not given.
    pub machine: Option<Machine>,
    /// Why there is nothing that it could be made from: it fails without having begun.
    pub broken: Option<Broken>,
    /// What its sandbox is cloned from; as the matrix when not given.
    pub source: Option<Source>,
    /// Upper bounds; those that are given replace the template's.
    pub limits: Limits,
    /// What it may reach; as the template when not given.
    pub egress: Option<Policy>,
    /// Beside the template's; one of the same name replaces it.
    pub caches: Vec<CacheMount>,
    /// Added to the template's.
    pub env: BTreeMap<String, String>,
    /// Where in a cluster it is; as the template when not given.
    pub target: Option<Placement>,
    /// Of how many turns it takes the place while it runs; 0 counts as 1.
    pub weight: usize,
}

/// Why a cell can't begin.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What went wrong.
    pub failure: Failure,
    /// The end of what was printed when it did.
    pub tail: String,
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
    /// How many bodies run at once, whatever the backend's parallelism is. Where cells run on several
    /// backends, it bounds them all together, and each has its own parallelism besides.
    pub parallel: Option<usize>,
    /// How many clones wait, started, for the cells of later runs; where [`Capability::Pool`] is not
    /// there, none.
    ///
    /// [`Capability::Pool`]: crate::sandbox::Capability::Pool
    pub pool: usize,
    /// How long one attempt of a body may take.
    pub timeout: Option<Duration>,
    /// After how long a body that still runs is told of, again and again; when not given, after half
    /// of its timeout.
    pub warn: Option<Duration>,
    /// How often a cell that failed is tried again.
    pub retries: Retries,
    /// Start no more cells and cancel the running ones when so many failed.
    pub max_fail: Option<usize>,
    /// In which order they start.
    pub order: Order,
    /// What decides where something is left to chance.
    pub seed: u64,
    /// How long cells took the last time, by id.
    pub times: Arc<HashMap<String, Duration>>,
    /// Every cell so many times; 0 counts as 1.
    pub repeat: usize,
    /// Of the selected cells only those in this part.
    pub partition: Option<Partition>,
    /// Which cells run.
    pub filter: Filter,
    /// Of those, only the cells with these ids.
    pub only: Option<BTreeSet<String>>,
    /// What is known of the cells from before; nothing when not given.
    pub memory: Option<Arc<dyn CellMemory>>,
    /// Tell which cells would run, and run none.
    pub list: bool,
    /// Files and folders that are copied out of each cell's sandbox when its body is over, as far
    /// as they are there; absolute paths.
    pub artifacts: Vec<String>,
    /// What their sandboxes are like.
    pub cell: CellTemplate,
    /// What single cells have of their own, by id.
    pub own: HashMap<String, CellOwn>,
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
        order::repeat(expand::expand(self)?, self.repeat)
    }

    /// Where in a cluster a cell is.
    pub(crate) fn target(&self, cell: &Cell) -> Option<&Placement> {
        let own = self.own.get(&cell.id).and_then(|own| own.target.as_ref());
        own.or(self.cell.target.as_ref())
    }

    /// What a cell is made from.
    pub(crate) fn source(&self, cell: &Cell) -> &Source {
        let own = self.own.get(&cell.id).and_then(|own| own.source.as_ref());
        own.unwrap_or(&self.source)
    }

    /// The caches of a cell.
    pub(crate) fn caches(&self, cell: &Cell) -> Vec<CacheMount> {
        let own = self.own.get(&cell.id).map_or(&[][..], |own| &own.caches);
        let mut all = self.cell.caches.clone();
        all.retain(|cache| own.iter().all(|own| own.name != cache.name));
        all.extend_from_slice(own);
        all
    }

    /// The cells that run.
    pub fn select(&self) -> Result<Vec<Cell>> {
        Ok(self.choose(self.expand()?))
    }

    /// Of all cells those that are to run.
    pub(crate) fn choose(&self, mut cells: Vec<Cell>) -> Vec<Cell> {
        cells.retain(|cell| self.selects(cell));
        if let Some(partition) = self.partition {
            let mut at = 0..;
            cells.retain(|_| at.next().is_some_and(|at| partition.holds(at)));
        }
        cells
    }

    /// Whether this cell is to run.
    fn selects(&self, cell: &Cell) -> bool {
        self.filter.selects(cell) && self.only.as_ref().is_none_or(|only| only.contains(&cell.id))
    }
}
