//! In which order cells start, and which part of them.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sandbox::{Error, Result};

use super::{AxisValue, Cell, cell_id};

/// In which order cells start. Reports have them in the matrix's order, whatever this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Those that took longest the last time first; before them those of which no time is known.
    #[default]
    Longest,
    /// As the matrix has them.
    Given,
    /// By chance, from the seed.
    Random,
}

impl Order {
    /// The words for them.
    pub const WORDS: &[&str] = &["longest", "given", "random"];

    /// The places of `cells`, in the order in which they start.
    pub(crate) fn of(
        self,
        cells: &[Cell],
        seed: u64,
        times: &HashMap<String, Duration>,
    ) -> Vec<usize> {
        let mut order: Vec<usize> = (0..cells.len()).collect();
        match self {
            Order::Given => {}
            Order::Longest => order.sort_by_key(|at| {
                let known = times.get(&cells[*at].id).copied();
                std::cmp::Reverse(known.unwrap_or(Duration::MAX))
            }),
            Order::Random => order.sort_by_cached_key(|at| {
                blake3::hash(format!("{seed} {}", cells[*at].id).as_bytes()).as_bytes().to_owned()
            }),
        }
        order
    }
}

impl FromStr for Order {
    type Err = Error;

    fn from_str(text: &str) -> Result<Order> {
        match text {
            "longest" => Ok(Order::Longest),
            "given" => Ok(Order::Given),
            "random" => Ok(Order::Random),
            _ => Err(Error::invalid_hint(
                "order",
                format!("'{text}' is not an order"),
                format!("there are: {}", Order::WORDS.join(", ")),
            )),
        }
    }
}

/// One of so many parts of a matrix, counted from 1: every cell is in exactly one of them, and they
/// differ by one cell at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    part: usize,
    parts: usize,
}

impl Partition {
    /// Whether the cell at this place among the selected ones is in it.
    pub fn holds(self, at: usize) -> bool {
        at % self.parts == self.part - 1
    }
}

impl FromStr for Partition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Partition> {
        let parsed = text.split_once('/').and_then(|(part, parts)| {
            let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
            (1 <= part && part <= parts).then_some(Partition { part, parts })
        });
        parsed.ok_or_else(|| {
            Error::invalid_hint(
                "partition",
                format!("'{text}' is not a part of a matrix"),
                "write it as 1/4: the first of four parts",
            )
        })
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.parts)
    }
}

/// The name of the value that tells repetitions apart.
const REPEAT: &str = "repeat";

/// Every cell so many times, each with one more value that tells them apart.
pub(super) fn repeat(cells: Vec<Cell>, times: usize) -> Result<Vec<Cell>> {
    if times < 2 {
        return Ok(cells);
    }
    if let Some(cell) = cells.iter().find(|cell| cell.get(REPEAT).is_some()) {
        return Err(Error::invalid_hint(
            "repeat",
            format!("cell '{}' has a value '{REPEAT}' of its own", cell.id),
            "name that axis otherwise, or do not repeat",
        ));
    }
    let one = |cell: Cell| {
        (1..=times).map(move |number| {
            let mut values = cell.values.clone();
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            let last = (REPEAT.to_string(), AxisValue::Int(number));
            let own = cell_id(std::slice::from_ref(&last));
            values.push(last);
            Cell { id: format!("{},{own}", cell.id), values }
        })
    };
    Ok(cells.into_iter().flat_map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(count: i64) -> Vec<Cell> {
        let cell = |n: i64| {
            let values = vec![("n".to_string(), n.into())];
            Cell { id: cell_id(&values), values }
        };
        (0..count).map(cell).collect()
    }

    #[test]
    fn every_cell_is_in_one_part() {
        let parts: Vec<Partition> =
            ["1/3", "2/3", "3/3"].iter().map(|text| text.parse().unwrap()).collect();
        for at in 0..20 {
            assert_eq!(parts.iter().filter(|part| part.holds(at)).count(), 1);
        }
        for bad in ["", "0/3", "4/3", "1", "a/b", "1/0", "-1/2"] {
            assert!(bad.parse::<Partition>().is_err(), "{bad}");
        }
        assert_eq!(parts[1].to_string(), "2/3");
    }

    #[test]
    fn orders() {
        let cells = cells(6);
        let seconds = [1, 5, 3].map(Duration::from_secs);
        let times: HashMap<String, Duration> =
            ["n=0", "n=2", "n=4"].map(String::from).into_iter().zip(seconds).collect();
        assert_eq!(Order::Given.of(&cells, 1, &times), [0, 1, 2, 3, 4, 5]);
        assert_eq!(Order::Longest.of(&cells, 1, &times), [1, 3, 5, 2, 4, 0]);
        let random = |seed| Order::Random.of(&cells, seed, &times);
        assert_eq!(random(7), random(7));
        assert!((0..20).any(|seed| random(seed) != random(7)));
        let mut sorted = random(7);
        sorted.sort();
        assert_eq!(sorted, [0, 1, 2, 3, 4, 5]);
        assert!("longst".parse::<Order>().is_err());
    }

    #[test]
    fn repetitions_are_filters_that_select_them() {
        let all = repeat(cells(2), 3).unwrap();
        let ids: Vec<&str> = all.iter().map(|cell| cell.id.as_str()).collect();
        assert_eq!(ids[..4], ["n=0,repeat=1", "n=0,repeat=2", "n=0,repeat=3", "n=1,repeat=1"]);
        let filter: super::super::Filter = ids[1].parse().unwrap();
        assert_eq!(all.iter().filter(|cell| filter.selects(cell)).count(), 1);
        let error = repeat(all, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "repeat: cell 'n=0,repeat=1' has a value 'repeat' of its own"
        );
    }
}
