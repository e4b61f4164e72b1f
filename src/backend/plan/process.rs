//! Commands that are not run.

use async_trait::async_trait;

use crate::sandbox::{
    Command, Exit, Process, ProcessControl, Result, Signal, Stdin, WindowSize, Writer,
};

/// One that has succeeded and printed nothing.
pub(super) fn succeeded(command: &Command) -> Process {
    let piped = command.stdin == Stdin::Piped;
    Process {
        stdin: piped.then(|| Box::new(tokio::io::sink()) as Writer),
        stdout: Some(Box::new(tokio::io::empty())),
        stderr: command.tty.is_none().then(|| Box::new(tokio::io::empty()) as _),
        pid: None,
        control: Box::new(Succeeded),
    }
}

struct Succeeded;

#[async_trait]
impl ProcessControl for Succeeded {
    async fn wait(&mut self) -> Result<Exit> {
        Ok(Exit::Code(0))
    }

    async fn signal(&mut self, _signal: Signal) -> Result<()> {
        Ok(())
    }

    async fn kill(&mut self) -> Result<()> {
        Ok(())
    }

    async fn resize(&mut self, _size: WindowSize) -> Result<()> {
        Ok(())
    }
}
