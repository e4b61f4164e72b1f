//! A program that runs a script of its own, with a function of its own.
//!
//! `cargo run --example embed`

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::Arc;

use sandscript::api::{FnSpec, Type};
use sandscript::backend::fake::FakeBackend;
use sandscript::{Host, Source, run};

const SCRIPT: &str = r#"
let box = sandbox("scratch");
box.write("/tmp/name", app_name());
print("hello from " + box.run("cat /tmp/name").stdout);
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app_name = FnSpec::function("app_name", |_ctx, _args| async { Ok("embed".into()) })
        .doc("The name of this program.")
        .returns(Type::String)
        .example("print(app_name());", "print(app_name())");
    let host = Host::builder(Arc::new(FakeBackend::new()))
        .print(|line| println!("{line}"))
        .function(app_name)
        .build()?;
    match run(&Source::new("hello.rhai", SCRIPT), &host).await.result {
        Ok(_) => Ok(()),
        Err(error) => Err(error.render().into()),
    }
}
