//! The sandscript command.

fn main() {}
