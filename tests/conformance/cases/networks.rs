//! Networks that sandboxes of one run share.

use sandscript::sandbox::{CloneSpec, Error, Network, Policy, Spec};

use super::ports::serve;
use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::{Sandbox, eventually};

cases!["networks";
    what_it_is_in_is_known [Networks],
    names_are_checked [Networks],
    joined_or_refused,
    members_reach_each_other_by_name [Networks, Programs],
    by_each_family [Networks, Programs],
    others_do_not [Networks, Programs],
    a_member_that_stops_is_gone [Networks, Programs],
    a_clone_is_in_those_of_its_own [Networks, Programs],
];

/// A network that no other case has.
fn network(scope: &Scope, name: &str) -> Network {
    Network::new(scope.name(), name)
}

/// What a server in `name` answers; nothing when there is none.
async fn call(from: &Sandbox, name: &str, port: u16) -> CaseResult<String> {
    let script = format!(
        "import socket\ntry:\n c = socket.create_connection(('{name}', {port}), 20); c.sendall(b'hello'); print(c.recv(9).decode())\n\
         except OSError: print()"
    );
    Ok(String::from_utf8(from.filter(&["python3", "-c", &script], "").await?)?.trim().to_owned())
}

async fn what_it_is_in_is_known(scope: Scope) -> CaseResult {
    let (one, two) = (network(&scope, "one"), network(&scope, "two"));
    let both = vec![one.clone(), two.clone()];
    let sandbox = scope.sandbox_of(|spec| spec.networks = both.clone()).await?;
    sandbox.snapshot("s").await?;
    sandbox.restore("s").await?;
    sandbox.stop().await?;
    assert_eq!(sandbox.info().await?.networks, both);
    sandbox.start().await?;
    assert_eq!(sandbox.info().await?.networks, both);
    // It may be another run that clones.
    assert_eq!(scope.clone_of(&sandbox, Some("s")).await?.info().await?.networks, []);
    let mut spec = CloneSpec::new(scope.name());
    spec.networks = vec![two.clone()];
    let clone = scope.backend().clone(&sandbox.name, &spec, &scope.cancel).await?;
    assert_eq!(clone.networks, [two]);
    Ok(())
}

async fn names_are_checked(scope: Scope) -> CaseResult {
    let fine = network(&scope, "n");
    for networks in
        [vec![network(&scope, "a b")], vec![network(&scope, "")], vec![fine.clone(), fine]]
    {
        let spec = Spec { networks, ..Spec::new(scope.name()) };
        fails!(scope.backend().create(&spec, &scope.cancel).await, Error::InvalidInput { .. });
        assert!(!scope.exists(&spec.name).await?);
    }
    Ok(())
}

async fn joined_or_refused(scope: Scope) -> CaseResult {
    let networks = vec![network(&scope, "n")];
    let can = scope.backend().capabilities().require_networks(&networks).is_ok();
    let spec = Spec { networks, ..Spec::new(scope.name()) };
    let made = scope.backend().create(&spec, &scope.cancel).await;
    match can {
        true => assert_eq!(made?.networks, spec.networks),
        false => {
            fails!(made, Error::Unsupported { .. });
            assert!(!scope.exists(&spec.name).await?);
        }
    }
    Ok(())
}

async fn members_reach_each_other_by_name(scope: Scope) -> CaseResult {
    let network = vec![network(&scope, "n")];
    let policies = [Policy::None, Policy::allowlist(["a.test"])?, Policy::Unrestricted];
    let mut members = Vec::new();
    for (number, policy) in policies.into_iter().enumerate() {
        if scope.backend().capabilities().require_egress(&policy).is_err() {
            continue;
        }
        let member = scope.sandbox_of(|spec| {
            (spec.egress, spec.networks) = (policy, network.clone());
            spec.hostname = Some(format!("number-{number}"));
        });
        let member = member.await?;
        serve(&member, "0.0.0.0", 8080).await?;
        members.push((member, format!("number-{number}")));
    }
    for (from, _) in &members {
        for (to, hostname) in &members {
            assert_eq!(call(from, &to.name, 8080).await?, "<hello>");
            assert_eq!(call(from, hostname, 8080).await?, "<hello>");
            assert_eq!(call(from, hostname, 8081).await?, "");
        }
    }
    Ok(())
}

async fn by_each_family(scope: Scope) -> CaseResult {
    let network = vec![network(&scope, "n")];
    let one = scope.sandbox_of(|spec| spec.networks = network.clone()).await?;
    let two = scope.sandbox_of(|spec| spec.networks = network).await?;
    serve(&one, "0.0.0.0", 8080).await?;
    serve(&one, "::", 8081).await?;
    let has_six = one.sh("test -s /proc/net/if_inet6").await?.exit.ok();
    for family in if has_six { &["AF_INET", "AF_INET6"][..] } else { &["AF_INET"] } {
        let address = format!(
            "import socket; print(socket.getaddrinfo('{}', 1, socket.{family})[0][4][0])",
            one.name
        );
        let address = String::from_utf8(two.filter(&["python3", "-c", &address], "").await?)?;
        assert_eq!(address.contains(':'), *family == "AF_INET6", "{address}");
        for port in [8080, 8081] {
            assert_eq!(call(&two, address.trim(), port).await?, "<hello>");
        }
        assert_eq!(call(&two, address.trim(), 8082).await?, "");
    }
    Ok(())
}

async fn others_do_not(scope: Scope) -> CaseResult {
    let (one, two) = (network(&scope, "one"), network(&scope, "two"));
    let member = scope.sandbox_of(|spec| spec.networks = vec![one.clone()]).await?;
    let both = scope.sandbox_of(|spec| spec.networks = vec![one.clone(), two.clone()]).await?;
    for sandbox in [&member, &both] {
        serve(sandbox, "0.0.0.0", 8080).await?;
    }
    // In none, in another one, and in one of that name of another run.
    let run = Network::new(scope.name(), "one");
    for networks in [vec![], vec![two], vec![run]] {
        let reaches = !networks.is_empty() && both.info().await?.networks.contains(&networks[0]);
        let other = scope.sandbox_of(|spec| spec.networks = networks).await?;
        assert_eq!(call(&other, &member.name, 8080).await?, "");
        assert_eq!(call(&other, &both.name, 8080).await?, if reaches { "<hello>" } else { "" });
    }
    assert_eq!(call(&both, &member.name, 8080).await?, "<hello>");
    Ok(())
}

async fn a_member_that_stops_is_gone(scope: Scope) -> CaseResult {
    let network = vec![network(&scope, "n")];
    let one = scope.sandbox_of(|spec| spec.networks = network.clone()).await?;
    let two = scope.sandbox_of(|spec| spec.networks = network).await?;
    serve(&one, "0.0.0.0", 8080).await?;
    assert_eq!(call(&two, &one.name, 8080).await?, "<hello>");
    one.stop().await?;
    assert_eq!(call(&two, &one.name, 8080).await?, "");
    one.start().await?;
    serve(&one, "0.0.0.0", 8080).await?;
    assert_eq!(call(&two, &one.name, 8080).await?, "<hello>");
    one.delete().await?;
    let gone =
        format!("python3 -c 'import socket; socket.gethostbyname(\"{}\")' 2> /dev/null", one.name);
    eventually("the name is gone", async || Ok(!two.sh(&gone).await?.exit.ok())).await
}

async fn a_clone_is_in_those_of_its_own(scope: Scope) -> CaseResult {
    let network = vec![network(&scope, "n")];
    let one = scope.sandbox_of(|spec| spec.networks = network.clone()).await?;
    serve(&one, "0.0.0.0", 8080).await?;
    let outside = scope.clone_of(&one, None).await?;
    assert_eq!(call(&outside, &one.name, 8080).await?, "");
    let mut spec = CloneSpec::new(scope.name());
    spec.networks = network;
    scope.backend().clone(&one.name, &spec, &scope.cancel).await?;
    let inside = scope.at(&spec.name);
    assert_eq!(call(&inside, &one.name, 8080).await?, "<hello>");
    serve(&inside, "0.0.0.0", 8080).await?;
    assert_eq!(call(&one, &inside.name, 8080).await?, "<hello>");
    Ok(())
}
