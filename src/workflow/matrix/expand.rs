//! From axes, exclude and include to cells.

use std::collections::HashMap;

use crate::sandbox::{Error, Result};

use super::{AxisValue, Cell, MatrixSpec, cell_id};

type Pairs = Vec<(String, AxisValue)>;

pub(super) fn expand(spec: &MatrixSpec) -> Result<Vec<Cell>> {
    check(spec)?;
    let mut cells: Vec<Cell> = combinations(&spec.axes)
        .into_iter()
        .filter(|values| !spec.exclude.iter().any(|pairs| fits(pairs, values)))
        .map(|values| Cell { id: cell_id(&values), values })
        .collect();
    include(spec, &mut cells);
    let mut seen: HashMap<&str, ()> = HashMap::with_capacity(cells.len());
    for cell in &cells {
        if seen.insert(&cell.id, ()).is_some() {
            return Err(Error::invalid_hint(
                "matrix",
                format!("matrix '{}' has the cell '{}' twice", spec.name, cell.id),
                "give each value of an axis once, and include no combination that is there already",
            ));
        }
    }
    if cells.is_empty() {
        return Err(Error::invalid_hint(
            "matrix",
            format!("matrix '{}' has no cells", spec.name),
            "give it an axis, such as axes: #{ db: [\"sqlite\", \"postgres\"] }, \
             and exclude fewer combinations than it has",
        ));
    }
    Ok(cells)
}

fn check(spec: &MatrixSpec) -> Result<()> {
    for (index, (axis, values)) in spec.axes.iter().enumerate() {
        if axis.is_empty() {
            return Err(Error::invalid("axes", "an axis has an empty name"));
        }
        if values.is_empty() {
            return Err(Error::invalid_hint(
                "axes",
                format!("axis '{axis}' has no values"),
                "give it one value at least, or leave the axis out",
            ));
        }
        if spec.axes[..index].iter().any(|(other, _)| other == axis) {
            return Err(Error::invalid("axes", format!("axis '{axis}' is there twice")));
        }
    }
    for pairs in &spec.exclude {
        if pairs.is_empty() {
            return Err(Error::invalid_hint(
                "exclude",
                "an entry is empty and would leave out every cell",
                "name the values to leave out, such as #{ db: \"postgres\" }",
            ));
        }
        for (name, value) in pairs {
            let Some((_, values)) = spec.axes.iter().find(|(axis, _)| axis == name) else {
                let known = spec.axes.iter().map(|(axis, _)| axis.as_str());
                return Err(Error::invalid_hint(
                    "exclude",
                    format!("'{name}' is not an axis"),
                    suggestion(name, known),
                ));
            };
            if !values.iter().any(|known| known.same(value)) {
                let known: Vec<String> = values.iter().map(AxisValue::to_string).collect();
                return Err(Error::invalid_hint(
                    "exclude",
                    format!("axis '{name}' has no value '{value}'"),
                    suggestion(&value.to_string(), known.iter().map(String::as_str)),
                ));
            }
        }
    }
    match spec.include.iter().any(Vec::is_empty) {
        true => Err(Error::invalid("include", "an entry is empty")),
        false => Ok(()),
    }
}

fn combinations(axes: &[(String, Vec<AxisValue>)]) -> Vec<Pairs> {
    if axes.is_empty() {
        return Vec::new();
    }
    let mut all = vec![Pairs::new()];
    for (axis, values) in axes {
        all = all
            .into_iter()
            .flat_map(|pairs| {
                values.iter().map(move |value| {
                    let mut longer = pairs.clone();
                    longer.push((axis.clone(), value.clone()));
                    longer
                })
            })
            .collect();
    }
    all
}

/// Whether all of `pairs` are among `values`.
fn fits(pairs: &Pairs, values: &Pairs) -> bool {
    pairs
        .iter()
        .all(|(name, value)| values.iter().any(|(axis, other)| axis == name && other.same(value)))
}

/// As GitHub does it: an entry is merged into every combination of the axes of which it changes no
/// value, where it may change what earlier entries added; one that fits nowhere is a cell of its
/// own, which later entries leave alone. A merged cell keeps its id.
fn include(spec: &MatrixSpec, cells: &mut Vec<Cell>) {
    let originals = cells.len();
    for entry in &spec.include {
        let mut merged = false;
        for cell in &mut cells[..originals] {
            let axes = &cell.values[..spec.axes.len()];
            let agrees = entry.iter().all(|(name, value)| {
                axes.iter().all(|(axis, other)| axis != name || other.same(value))
            });
            if !agrees {
                continue;
            }
            merged = true;
            for (name, value) in entry {
                match cell.values.iter_mut().find(|(known, _)| known == name) {
                    Some((_, known)) => known.clone_from(value),
                    None => cell.values.push((name.clone(), value.clone())),
                }
            }
        }
        if !merged {
            let rank = |name: &String| spec.axes.iter().position(|(axis, _)| axis == name);
            let mut values = entry.clone();
            values.sort_by_key(|(name, _)| rank(name).unwrap_or(usize::MAX));
            cells.push(Cell { id: cell_id(&values), values });
        }
    }
}

/// "did you mean …?", or what there is.
fn suggestion<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known
        .iter()
        .map(|name| (distance(&wrong.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance);
    match near {
        Some((_, name)) => format!("did you mean '{name}'?"),
        None if known.is_empty() => "the matrix has no axes".into(),
        None => format!("there are: {}", known.join(", ")),
    }
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        pairs.iter().map(|(n, v)| (n.to_string(), AxisValue::from(*v))).collect()
    }

    fn spec(axes: &[(&str, &[&str])]) -> MatrixSpec {
        let axis = |(name, values): &(&str, &[&str])| {
            (name.to_string(), values.iter().map(|v| AxisValue::from(*v)).collect())
        };
        MatrixSpec {
            name: "m".into(),
            axes: axes.iter().map(axis).collect(),
            ..MatrixSpec::default()
        }
    }

    fn ids(spec: &MatrixSpec) -> Vec<String> {
        spec.expand().unwrap().into_iter().map(|cell| cell.id).collect()
    }

    #[test]
    fn the_last_axis_turns_fastest() {
        let mut spec = spec(&[("db", &["sqlite", "postgres"]), ("locale", &["C", "tr_TR"])]);
        spec.exclude = vec![pairs(&[("db", "postgres"), ("locale", "tr_TR")])];
        assert_eq!(
            ids(&spec),
            ["db=sqlite,locale=C", "db=sqlite,locale=tr_TR", "db=postgres,locale=C"]
        );
    }

    #[test]
    fn include_as_on_github() {
        let mut spec = spec(&[("fruit", &["apple", "pear"]), ("animal", &["cat", "dog"])]);
        spec.include = vec![
            pairs(&[("color", "green")]),
            pairs(&[("color", "pink"), ("animal", "cat")]),
            pairs(&[("fruit", "apple"), ("shape", "circle")]),
            pairs(&[("fruit", "banana")]),
            pairs(&[("animal", "cat"), ("fruit", "banana")]),
        ];
        let cells = spec.expand().unwrap();
        let shown: Vec<String> = cells.iter().map(|cell| cell_id(&cell.values)).collect();
        assert_eq!(
            shown,
            [
                "fruit=apple,animal=cat,color=pink,shape=circle",
                "fruit=apple,animal=dog,color=green,shape=circle",
                "fruit=pear,animal=cat,color=pink",
                "fruit=pear,animal=dog,color=green",
                "fruit=banana",
                "fruit=banana,animal=cat",
            ]
        );
        assert_eq!(cells[0].id, "fruit=apple,animal=cat");
        assert_eq!(cells[5].id, "fruit=banana,animal=cat");
    }

    #[test]
    fn only_include() {
        let mut spec = spec(&[]);
        spec.include = vec![pairs(&[("os", "a")]), pairs(&[("os", "b")])];
        assert_eq!(ids(&spec), ["os=a", "os=b"]);
    }

    #[test]
    fn numbers_and_their_text_are_the_same() {
        let mut spec = spec(&[]);
        spec.axes = vec![("n".into(), vec![AxisValue::Int(1), AxisValue::Int(2)])];
        spec.exclude = vec![pairs(&[("n", "2")])];
        assert_eq!(ids(&spec), ["n=1"]);
        spec.axes[0].1.push("1".into());
        let error = spec.expand().unwrap_err();
        assert_eq!(error.to_string(), "matrix: matrix 'm' has the cell 'n=1' twice");
    }

    #[test]
    fn mistakes_are_told_with_a_hint() {
        let case = |change: &dyn Fn(&mut MatrixSpec)| {
            let mut spec = spec(&[("locale", &["C", "tr_TR"])]);
            change(&mut spec);
            let error = spec.expand().unwrap_err();
            match error.hint() {
                Some(hint) => format!("{error} / {hint}"),
                None => error.to_string(),
            }
        };
        insta::assert_snapshot!(
            [
                case(&|s| s.exclude = vec![pairs(&[("local", "C")])]),
                case(&|s| s.exclude = vec![pairs(&[("db", "C")])]),
                case(&|s| s.exclude = vec![pairs(&[("locale", "tr_RT")])]),
                case(&|s| s.exclude = vec![pairs(&[])]),
                case(&|s| s.axes.push(("db".into(), vec![]))),
                case(&|s| s.axes.push(("locale".into(), vec!["x".into()]))),
                case(&|s| s.axes.clear()),
                case(&|s| s.axes[0].1.push("C".into())),
                case(&|s| s.exclude = vec![pairs(&[("locale", "C")]), pairs(&[("locale", "tr_TR")])]),
                case(&|s| s.include = vec![pairs(&[])]),
            ]
            .join("\n"),
            @r#"
        exclude: 'local' is not an axis / did you mean 'locale'?
        exclude: 'db' is not an axis / there are: locale
        exclude: axis 'locale' has no value 'tr_RT' / did you mean 'tr_TR'?
        exclude: an entry is empty and would leave out every cell / name the values to leave out, such as #{ db: "postgres" }
        axes: axis 'db' has no values / give it one value at least, or leave the axis out
        axes: axis 'locale' is there twice
        matrix: matrix 'm' has no cells / give it an axis, such as axes: #{ db: ["sqlite", "postgres"] }, and exclude fewer combinations than it has
        matrix: matrix 'm' has the cell 'locale=C' twice / give each value of an axis once, and include no combination that is there already
        matrix: matrix 'm' has no cells / give it an axis, such as axes: #{ db: ["sqlite", "postgres"] }, and exclude fewer combinations than it has
        include: an entry is empty
        "#
        );
    }
}
