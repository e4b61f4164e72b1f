//! Matrices and bodies for tests.

use std::sync::Arc;

use async_trait::async_trait;
use sandscript::sandbox::Command;
use sandscript::workflow::{
    AxisValue, CellBody, CellContext, Failure, MatrixReport, MatrixSpec, Outcome,
};

/// A body made from a closure.
struct Body<F>(F);

#[async_trait]
impl<F, R> CellBody for Body<F>
where
    F: Fn(CellContext) -> R + Send + Sync,
    R: Future<Output = Result<(), Failure>> + Send,
{
    async fn run(&self, cell: CellContext) -> Result<(), Failure> {
        (self.0)(cell).await
    }
}

pub fn body<F, R>(body: F) -> Arc<dyn CellBody>
where
    F: Fn(CellContext) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Failure>> + Send + 'static,
{
    Arc::new(Body(body))
}

/// A cell's command, taken for its value `run`.
pub fn commands() -> Arc<dyn CellBody> {
    body(|cell: CellContext| async move {
        let line = cell.cell.get("run").unwrap().to_string();
        let output = cell.exec(&Command::shell(&line)).await?;
        match output.exit.ok() {
            true => Ok(()),
            false => Err(Failure::Exit { command: line, exit: output.exit }),
        }
    })
}

pub fn spec(values: &[&str]) -> MatrixSpec {
    MatrixSpec {
        name: "tests".into(),
        axes: vec![("run".into(), values.iter().map(|v| AxisValue::from(*v)).collect())],
        parallel: Some(2),
        ..MatrixSpec::default()
    }
}

pub fn numbers(count: i64) -> MatrixSpec {
    let values = (0..count).map(AxisValue::from).collect();
    MatrixSpec { axes: vec![("n".into(), values)], ..spec(&[]) }
}

pub fn outcomes(report: &MatrixReport) -> Vec<Outcome> {
    report.cells.iter().map(|cell| cell.outcome).collect()
}
