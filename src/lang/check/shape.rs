//! What is known about a value before the script runs.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::import::Import;
use crate::api::Type;

/// What a value is, as far as the text tells.
#[derive(Clone, Debug, Default)]
pub(super) enum Shape {
    /// Nobody knows.
    #[default]
    Unknown,
    /// A handle of this type, and the fields that it alone has: all of them, or none known.
    Handle(&'static str, Option<Rc<[String]>>),
    /// A list of such values.
    List(Box<Shape>),
    /// What an import gave.
    Module(Rc<Import>),
    /// A function of the script, and how many arguments it takes where that is known.
    Function(Option<Rc<BTreeSet<usize>>>),
}

impl Shape {
    /// What a value of a declared type is.
    pub fn of(ty: &Type) -> Shape {
        match ty {
            // What a cell has besides, only its matrix knows.
            Type::Object("Cell") => Shape::Handle("Cell", None),
            Type::Object(name) => Shape::Handle(name, Some(Rc::new([]))),
            Type::List(of) => Shape::List(Box::new(Shape::of(of))),
            Type::Callback(_) => Shape::Function(None),
            _ => Shape::Unknown,
        }
    }

    /// What a loop over it gives.
    pub fn item(&self) -> Shape {
        match self {
            Shape::List(of) => (**of).clone(),
            _ => Shape::Unknown,
        }
    }
}
