//! Ports into a sandbox.

use std::net::SocketAddr;

use sandscript::sandbox::{Error, Policy, Published};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::{Sandbox, eventually};

cases!["ports";
    a_published_port_ends_with_the_sandbox [Publish, Programs],
    every_kind_of_listener_is_reached [Publish, Programs],
    what_is_open_is_known [Publish],
    nothing_is_open_again_by_itself [Publish],
    a_place_is_had_by_one [Publish],
    one_port_is_closed_alone [Publish, Programs],
    nothing_is_published_of_a_stopped_one [Publish],
];

/// A server that says what it heard, on this address of the guest's.
pub async fn serve(sandbox: &Sandbox, address: &str, port: u16) -> CaseResult {
    let serve = format!(
        "import socket, threading\n\
         family = socket.AF_INET6 if ':' in '{address}' else socket.AF_INET\n\
         s = socket.create_server(('{address}', {port}), family=family); print('up', flush=True)\n\
         def one(c):\n c.sendall(b'<' + c.recv(9) + b'>'); c.close()\n\
         while True:\n threading.Thread(target=one, args=(s.accept()[0],)).start()"
    );
    let up = format!("/tmp/up-{port}");
    sandbox.write("/tmp/serve.py", serve).await?;
    sandbox.run(&format!("python3 /tmp/serve.py > {up} 2>&1 &")).await?;
    eventually("it serves", async || Ok(sandbox.run(&format!("cat {up}")).await? == "up")).await
}

/// What a server says to this.
async fn say(at: SocketAddr, words: &str) -> CaseResult<String> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(words.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8(answer)?)
}

impl Scope {
    async fn publish(
        &self,
        sandbox: &Sandbox,
        port: u16,
        at: Option<SocketAddr>,
    ) -> sandscript::sandbox::Result<SocketAddr> {
        self.backend().publish(&sandbox.name, port, at, &self.cancel).await
    }
}

async fn a_published_port_ends_with_the_sandbox(scope: Scope) -> CaseResult {
    let policies = [Policy::None, Policy::allowlist(["a.test"])?, Policy::Unrestricted];
    for policy in policies
        .into_iter()
        .filter(|policy| scope.backend().capabilities().require_egress(policy).is_ok())
    {
        let sandbox = scope.sandbox_of(|spec| spec.egress = policy).await?;
        let at = scope.publish(&sandbox, 8080, None).await?;
        assert!(at.ip().is_loopback());
        // Nobody listens in there.
        let mut answer = Vec::new();
        let mut stream = TcpStream::connect(at).await?;
        assert!(matches!(stream.read_to_end(&mut answer).await, Ok(0) | Err(_)));
        serve(&sandbox, "127.0.0.1", 8080).await?;
        assert_eq!(say(at, "hello").await?, "<hello>");
        let mut held = TcpStream::connect(at).await?;
        sandbox.stop().await?;
        assert!(matches!(held.read_to_end(&mut answer).await, Ok(0) | Err(_)));
        let closed = async || Ok(TcpStream::connect(at).await.is_err());
        eventually("the port is closed", closed).await?;
        sandbox.start().await?;
        serve(&sandbox, "127.0.0.1", 8080).await?;
        assert!(TcpStream::connect(at).await.is_err(), "it is open again");
        assert_eq!(scope.publish(&sandbox, 8080, Some(at)).await?, at);
        assert_eq!(say(at, "again").await?, "<again>");
        sandbox.delete().await?;
        eventually("the port is closed", closed).await?;
    }
    Ok(())
}

async fn every_kind_of_listener_is_reached(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let six = std::net::TcpListener::bind("[::1]:0").is_ok();
    let addresses: &[&str] =
        if six { &["127.0.0.1", "0.0.0.0", "::1", "::"] } else { &["127.0.0.1", "0.0.0.0"] };
    for (port, address) in (8080..).zip(addresses) {
        serve(&sandbox, address, port).await?;
        let at = scope.publish(&sandbox, port, None).await?;
        assert_eq!(say(at, address).await?, format!("<{address}>"));
    }
    Ok(())
}

async fn what_is_open_is_known(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    assert_eq!(sandbox.info().await?.ports, []);
    let one = scope.publish(&sandbox, 8080, None).await?;
    assert!(one.ip().is_loopback() && one.port() != 0);
    // Told again, not opened twice.
    assert_eq!(scope.publish(&sandbox, 8080, None).await?, one);
    let two = scope.publish(&sandbox, 8081, Some("127.0.0.1:0".parse()?)).await?;
    assert_ne!(one, two);
    let all = scope.publish(&sandbox, 8080, Some("0.0.0.0:0".parse()?)).await?;
    assert!(all.ip().is_unspecified() && all.port() != 0);
    let open = |port, at| Published { port, at };
    assert_eq!(sandbox.info().await?.ports, [open(8080, one), open(8081, two), open(8080, all)]);
    Ok(())
}

async fn nothing_is_open_again_by_itself(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.snapshot("s").await?;
    let at = scope.publish(&sandbox, 8080, None).await?;
    let clone = scope.clone_of(&sandbox, None).await?;
    assert_eq!(clone.info().await?.ports, []);
    sandbox.stop().await?;
    assert_eq!(sandbox.info().await?.ports, []);
    sandbox.start().await?;
    assert_eq!(sandbox.info().await?.ports, []);
    // The place is free again.
    eventually("it can be had again", async || {
        Ok(scope.publish(&clone, 8080, Some(at)).await.is_ok())
    })
    .await?;
    scope.publish(&sandbox, 8080, None).await?;
    sandbox.restore("s").await?;
    assert_eq!(sandbox.info().await?.ports, []);
    assert_eq!(clone.info().await?.ports, [Published { port: 8080, at }]);
    Ok(())
}

async fn one_port_is_closed_alone(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let other = scope.sandbox().await?;
    serve(&sandbox, "127.0.0.1", 8080).await?;
    serve(&sandbox, "127.0.0.1", 8081).await?;
    let one = scope.publish(&sandbox, 8080, None).await?;
    let two = scope.publish(&sandbox, 8080, Some("127.0.0.1:0".parse()?)).await?;
    let kept = scope.publish(&sandbox, 8081, None).await?;
    let mut held = TcpStream::connect(one).await?;
    let close =
        async |port, at| scope.backend().unpublish(&sandbox.name, port, at, &scope.cancel).await;
    assert_eq!(close(8080, Some(one)).await?, [Published { port: 8080, at: one }]);
    let mut answer = Vec::new();
    assert!(matches!(held.read_to_end(&mut answer).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(one).await.is_err(), "it is still open");
    assert_eq!(say(two, "two").await?, "<two>");
    // The place is another's at once.
    assert_eq!(scope.publish(&other, 8080, Some(one)).await?, one);
    fails!(close(8080, Some(one)).await, Error::InvalidInput { .. });
    assert_eq!(close(8080, None).await?, [Published { port: 8080, at: two }]);
    fails!(close(8080, None).await, Error::InvalidInput { .. });
    fails!(close(0, None).await, Error::InvalidInput { .. });
    assert_eq!(sandbox.info().await?.ports, [Published { port: 8081, at: kept }]);
    assert_eq!(other.info().await?.ports, [Published { port: 8080, at: one }]);
    assert_eq!(say(kept, "kept").await?, "<kept>");
    sandbox.stop().await?;
    fails!(close(8081, None).await, Error::InvalidInput { .. });
    Ok(())
}

async fn a_place_is_had_by_one(scope: Scope) -> CaseResult {
    let (one, two) = (scope.sandbox().await?, scope.sandbox().await?);
    let at = scope.publish(&one, 8080, None).await?;
    fails!(&scope.publish(&two, 8080, Some(at)).await, Error::InvalidInput { .. });
    let all = SocketAddr::new("0.0.0.0".parse()?, at.port());
    let taken = scope.publish(&two, 8080, Some(all)).await;
    let message = taken.as_ref().err().map(ToString::to_string).unwrap_or_default();
    fails!(taken, Error::InvalidInput { .. });
    assert_eq!(message, format!("at: {all} is a port of sandbox '{}' already", one.name));
    fails!(scope.publish(&two, 0, None).await, Error::InvalidInput { .. });
    assert_eq!(two.info().await?.ports, []);
    Ok(())
}

async fn nothing_is_published_of_a_stopped_one(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.stop().await?;
    fails!(scope.publish(&sandbox, 80, None).await, Error::NotRunning { .. });
    let missing = scope.backend().publish(&scope.name(), 80, None, &scope.cancel).await;
    fails!(missing, Error::NotFound { .. });
    Ok(())
}
